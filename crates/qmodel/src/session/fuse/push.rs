//! Dequantizations move down past operators that only move or compare values.
//!
//! `op(dequantize(q)) = dequantize(op(q))` bit for bit where `op` copies values or takes the
//! largest of some, because dequantization is the same increasing function for every element. What
//! follows then finds its quantized input, bytes are moved instead of floats, and a quantization
//! that meets a dequantization with the same parameters falls away.

use qformat::QParams;

use super::super::SessionOptions;
use super::super::fused::table::Table;
use super::super::plan::{Plan, Slot, Step, Value};
use super::view::{Dequantized, View};
use crate::ops::registry;
use crate::{Model, ModelError, Node};

/// With scales below this, every byte has a finite value.
const MOST_SCALE: f32 = 1e36;

/// Operators that commute with dequantization.
fn is_transparent(node: &Node) -> bool {
    [
        "Concat",
        "Flatten",
        "Identity",
        "MaxPool",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
    .iter()
    .any(|op| node.is(op))
}

/// Moves dequantizations down as far as they go.
pub(super) fn down(
    plan: &mut Plan,
    model: &Model,
    options: &SessionOptions,
) -> Result<(), ModelError> {
    let mut i = 0;
    while let Some(found) = next(&View::new(plan, model, options), i) {
        match found {
            Found::Requantization {
                at,
                quantized,
                from,
                to,
            } => {
                let step = &mut plan.steps[at];
                step.op = Box::new(Table::requantize(&from, &to)?);
                step.inputs = vec![Some(quantized)];
                step.node = None;
                i = at + 1;
            }
            Found::Transparent { at, params } => {
                move_down(plan, model, options, at, &params)?;
                // The new dequantization is behind this step; what reads it comes later.
                i = at + 2;
            }
        }
    }
    Ok(())
}

/// What can be done at a step.
enum Found {
    /// A quantization of what was dequantized: the same value, or one byte for another.
    Requantization {
        at: usize,
        quantized: Slot,
        from: QParams,
        to: QParams,
    },
    /// An operator that commutes with the dequantizations of its operands.
    Transparent { at: usize, params: QParams },
}

fn next(view: &View<'_>, from: usize) -> Option<Found> {
    (from..view.plan.steps.len()).find_map(|at| {
        requantized(view, at).or_else(|| {
            Some(Found::Transparent {
                at,
                params: transparent_params(view, at)?,
            })
        })
    })
}

fn requantized(view: &View<'_>, at: usize) -> Option<Found> {
    let to = view.quantization(at)?;
    let d = view
        .dequantized(view.input(at, 0)?)
        .filter(Dequantized::is_bytes)?;
    let from = d.params()?;
    // The largest value must not overflow on its way.
    (from.scale() < MOST_SCALE).then_some(Found::Requantization {
        at,
        quantized: d.quantized,
        from,
        to,
    })
}

/// The parameters that all data operands of step `i` are dequantized with, where it is an
/// operator that commutes with that.
fn transparent_params(view: &View<'_>, i: usize) -> Option<QParams> {
    let node = view.node(i)?;
    let data = if node.is("Relu") || is_transparent(node) {
        if node.is("Concat") {
            view.plan.steps[i].inputs.len()
        } else {
            1
        }
    } else {
        return None;
    };
    let mut params = None;
    for operand in 0..data {
        let d = view.dequantized(view.input(i, operand)?)?;
        // Byte by byte is how the operators here can run.
        let p = d.is_bytes().then(|| d.params()).flatten()?;
        if params.is_some_and(|q| q != p) {
            return None;
        }
        params = Some(p);
    }
    params
}

/// `x = op(DQ(q), …)` becomes `r = op(q, …); x = DQ(r)`.
fn move_down(
    plan: &mut Plan,
    model: &Model,
    options: &SessionOptions,
    i: usize,
    p: &QParams,
) -> Result<(), ModelError> {
    let view = View::new(plan, model, options);
    let (Some(output), Some(node)) = (view.output(i), view.node(i)) else {
        return Ok(());
    };
    let is_relu = node.is("Relu");
    // Any of the dequantizations: all have the same parameters.
    let Some(above) = view.input(i, 0).and_then(|s| view.producer(s)) else {
        return Ok(());
    };
    let dequantize = registry::build(
        view.node(above).ok_or(ModelError::Missing {
            what: "dequantization",
        })?,
        model,
    )?;
    let sources: Vec<Option<Slot>> = (0..plan.steps[i].inputs.len())
        .map(|operand| {
            let slot = view.input(i, operand)?;
            Some(
                view.dequantized(slot)
                    .filter(Dequantized::is_bytes)
                    .map_or(slot, |d| d.quantized),
            )
        })
        .collect();
    let mut ty = plan.values[output].ty.clone();
    let quantized = sources
        .first()
        .copied()
        .flatten()
        .map(|s| plan.values[s].ty.element);
    ty.element = quantized.unwrap_or(ty.element);
    let name = format!("{} quantized", plan.values[output].name);
    let new = plan.values.len();
    plan.values.push(Value {
        name,
        ty,
        constant: None,
    });
    let above = &plan.steps[above];
    let mut inputs = above.inputs.clone();
    inputs[0] = Some(new);
    let below = Step {
        op: dequantize,
        label: above.label.clone(),
        inputs,
        outputs: vec![Some(output)],
        last_uses: Vec::new(),
        node: above.node.clone(),
    };
    let step = &mut plan.steps[i];
    step.inputs = sources;
    step.outputs = vec![Some(new)];
    if is_relu {
        // max(S · (q − Z), 0) = S · (max(q, Z) − Z).
        step.op = Box::new(Table::at_least(p)?);
        step.node = None;
    }
    plan.steps.insert(i + 1, below);
    Ok(())
}
