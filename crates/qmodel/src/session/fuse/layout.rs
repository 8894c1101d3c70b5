//! Where channels are.
//!
//! Integer convolutions give their results channels last and take them so best. Between them,
//! poolings and element-wise operators can follow either way; in front of everything else, and of
//! the graph's outputs, values are turned back.

use super::super::fused::{pool::PoolLast, turn::ChannelsFirst};
use super::super::plan::{Plan, Slot, Step, Value};
use crate::integer::conv::Channels;
use crate::ops::{known_count, maxpool, registry};
use crate::{Model, ModelError, Node};

/// Decides for every value, rewrites poolings, and puts in the steps that turn values back.
pub(super) fn assign(plan: &mut Plan, model: &Model) -> Result<(), ModelError> {
    let mut pass = Pass {
        last: vec![false; plan.values.len()],
        turned: Vec::new(),
    };
    for mut step in std::mem::take(&mut plan.steps) {
        let data_last = step
            .inputs
            .first()
            .copied()
            .flatten()
            .is_some_and(|s| pass.last[s]);
        if let Some(conv) = step.op.as_fused_conv() {
            if data_last {
                conv.set_input(Channels::Last);
            }
            pass.define(&step, true);
        } else if data_last && follows(&step, plan, &pass) {
            if let Some(node) = step.node.as_ref().filter(|n| n.is("MaxPool")) {
                let window = maxpool::window(&registry::spec(node, model)?)?;
                step.op = Box::new(PoolLast { window });
            }
            pass.define(&step, true);
        } else {
            for i in 0..step.inputs.len() {
                if let Some(slot) = step.inputs[i].filter(|&s| pass.last[s]) {
                    step.inputs[i] = Some(pass.turn_back(plan, slot));
                }
            }
        }
        plan.steps.push(step);
    }
    for i in 0..plan.outputs.len() {
        let slot = plan.outputs[i];
        if pass.last[slot] {
            plan.outputs[i] = pass.turn_back(plan, slot);
        }
    }
    Ok(())
}

struct Pass {
    /// Whether a value has its channels last.
    last: Vec<bool>,
    /// Values that have been turned back, and what they are then.
    turned: Vec<(Slot, Slot)>,
}

impl Pass {
    /// Notes the first output of a step.
    fn define(&mut self, step: &Step, last: bool) {
        if let Some(slot) = step.outputs.first().copied().flatten() {
            self.last[slot] = last;
        }
    }

    fn turn_back(&mut self, plan: &mut Plan, slot: Slot) -> Slot {
        if let Some((_, new)) = self.turned.iter().find(|(old, _)| *old == slot) {
            return *new;
        }
        let Value { name, ty, .. } = &plan.values[slot];
        let value = Value {
            name: name.clone(),
            ty: ty.clone(),
            constant: None,
        };
        let new = plan.values.len();
        let label = format!("channels first \"{name}\"");
        plan.values.push(value);
        self.last.push(false);
        plan.steps.push(Step {
            op: Box::new(ChannelsFirst),
            label,
            inputs: vec![Some(slot)],
            outputs: vec![Some(new)],
            last_uses: Vec::new(),
            node: None,
        });
        self.turned.push((slot, new));
        new
    }
}

/// Whether a step whose operand 0 has channels last can give its result so, too.
fn follows(step: &Step, plan: &Plan, pass: &Pass) -> bool {
    let dims = |i: usize| step.inputs[i].and_then(|s| plan.values[s].ty.shape.as_deref());
    let rank = dims(0).map_or(0, <[crate::Dim]>::len);
    // Operands other than the first are single numbers, which lie anywhere.
    let others_single = (1..step.inputs.len()).all(|i| match step.inputs[i] {
        None => true,
        Some(s) => {
            let single = |d: &[crate::Dim]| known_count(d) == Some(1) && d.len() <= rank;
            !pass.last[s] && dims(i).is_some_and(single)
        }
    });
    let all_last = step.inputs.iter().flatten().all(|&s| pass.last[s]);
    let unary = |n: &Node| {
        [
            "Cast",
            "Clip",
            "DequantizeLinear",
            "DynamicQuantizeLinear",
            "QuantizeLinear",
            "Relu",
        ]
        .iter()
        .chain(&["Sigmoid", "Identity", "MaxPool"])
        .any(|op| n.is(op))
    };
    match &step.node {
        Some(node) if unary(node) => others_single,
        // Two values that both have channels last, of one shape.
        Some(node) if ["Add", "Sub", "Mul", "Div"].iter().any(|op| node.is(op)) => {
            let known = |d: &[crate::Dim]| !d.contains(&crate::Dim::Unknown);
            let alike = dims(0) == dims(1) && dims(0).is_some_and(known);
            others_single || (all_last && alike)
        }
        Some(_) => false,
        None => all_last && step.op.is_elementwise(),
    }
}
