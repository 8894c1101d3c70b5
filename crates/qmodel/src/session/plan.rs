//! A graph compiled to steps over numbered values.

use std::collections::HashMap;
use std::sync::Arc;

use qkernels::Workspace;

use super::{Pool, SessionOptions, execute};
use crate::ops::{Fact, Operator, registry};
use crate::shape::{self, input_type};
use crate::{Model, ModelError, Node, Tensor, TensorType};

/// Number of a value.
pub(super) type Slot = usize;

/// A value of the plan.
pub(super) struct Value {
    pub(super) name: String,
    pub(super) ty: TensorType,
    pub(super) constant: Option<Arc<Tensor>>,
}

/// One operator with the values it reads and defines.
pub(super) struct Step {
    pub(super) op: Box<dyn Operator>,
    pub(super) label: String,
    pub(super) inputs: Vec<Option<Slot>>,
    pub(super) outputs: Vec<Option<Slot>>,
    /// Values that nobody reads after this step.
    pub(super) last_uses: Vec<Slot>,
    /// The node that the step was made from, while fusion looks at it.
    pub(super) node: Option<Node>,
}

/// Steps in an order in which they can run.
pub(crate) struct Plan {
    pub(super) values: Vec<Value>,
    pub(super) steps: Vec<Step>,
    pub(super) inputs: Vec<Slot>,
    pub(super) outputs: Vec<Slot>,
}

/// What is known while a plan is made: the slot of each name, and the facts of each slot. Facts
/// know values of computed constants, too; which steps are run ahead is decided later, when fusion
/// has seen them.
#[derive(Default)]
struct Known {
    slots: HashMap<String, Slot>,
    facts: Vec<Fact>,
}

impl Known {
    fn define(&mut self, plan: &mut Plan, name: &str, fact: Fact) -> Slot {
        let slot = plan.values.len();
        plan.values.push(Value {
            name: name.to_owned(),
            ty: fact.ty.clone(),
            constant: None,
        });
        self.facts.push(fact);
        self.slots.insert(name.to_owned(), slot);
        slot
    }
}

impl Plan {
    pub(super) fn new(
        model: &Model,
        options: &SessionOptions,
        fuse: bool,
        pool: &mut Pool,
        workspace: &mut Workspace,
    ) -> Result<Plan, ModelError> {
        let mut plan = Plan::unfused(model, options)?;
        if fuse {
            super::fuse::fuse(&mut plan, model, options, pool, workspace)?;
        }
        plan.fold_constants(options, pool, workspace, &|_| true)?;
        plan.remove_dead();
        plan.find_last_uses();
        Ok(plan)
    }

    /// One step for each node.
    fn unfused(model: &Model, options: &SessionOptions) -> Result<Plan, ModelError> {
        let mut graph = model.graph.clone();
        graph.validate()?;
        graph.sort()?;
        let mut plan = Plan {
            values: Vec::new(),
            steps: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let mut known = Known::default();
        for (name, init) in &graph.initializers {
            execute::check_size(init.tensor.shape(), name, options)?;
            let slot = known.define(&mut plan, name, Fact::constant(&init.tensor));
            plan.values[slot].constant = Some(Arc::clone(&init.tensor));
        }
        for input in graph.required_inputs() {
            let fact = Fact {
                ty: input_type(input)?,
                value: None,
            };
            let slot = known.define(&mut plan, &input.name, fact);
            plan.inputs.push(slot);
        }
        for node in graph.nodes {
            let op = registry::build(&node, model)?;
            let inputs: Vec<Option<Slot>> = (0..node.inputs.len())
                .map(|i| known.slots.get(node.input(i)?).copied())
                .collect();
            let given: Vec<Option<Fact>> = inputs
                .iter()
                .map(|s| s.map(|s| known.facts[s].clone()))
                .collect();
            let label = node.label();
            let inferred = shape::infer(op.as_ref(), &given, &label)?;
            let outputs = inferred
                .into_iter()
                .enumerate()
                .map(|(i, fact)| Some(known.define(&mut plan, node.output(i)?, fact)))
                .collect();
            let node = Some(node);
            plan.steps.push(Step {
                op,
                label,
                inputs,
                outputs,
                last_uses: Vec::new(),
                node,
            });
        }
        // Validation has found every output defined; one that only a sparse initializer defines
        // has no value here.
        for output in &graph.outputs {
            let slot = known
                .slots
                .get(&output.name)
                .ok_or_else(|| ModelError::UndefinedValue {
                    node: "graph output".to_owned(),
                    value: output.name.clone(),
                })?;
            plan.outputs.push(*slot);
        }
        Ok(plan)
    }

    /// Runs the steps that only constants go into, of those that `may` be run ahead.
    pub(super) fn fold_constants(
        &mut self,
        options: &SessionOptions,
        pool: &mut Pool,
        workspace: &mut Workspace,
        may: &dyn Fn(&Step) -> bool,
    ) -> Result<(), ModelError> {
        for step in std::mem::take(&mut self.steps) {
            let constants: Option<Vec<Option<Arc<Tensor>>>> = step
                .inputs
                .iter()
                .map(|s| s.map_or(Some(None), |s| self.values[s].constant.clone().map(Some)))
                .collect();
            let Some(constants) = constants.filter(|_| may(&step)) else {
                self.steps.push(step);
                continue;
            };
            let results = execute::run_constant(&step, &constants, options, pool, workspace)?;
            for (slot, tensor) in step.outputs.iter().zip(results) {
                if let Some(slot) = slot {
                    let value = &mut self.values[*slot];
                    value.ty = TensorType::known(tensor.element_type(), tensor.shape());
                    value.constant = Some(Arc::new(tensor));
                }
            }
        }
        Ok(())
    }

    /// Drops the steps, and the constants, that no output hangs on.
    pub(super) fn remove_dead(&mut self) {
        let mut live = vec![false; self.values.len()];
        for &o in &self.outputs {
            live[o] = true;
        }
        let mut keep = vec![false; self.steps.len()];
        for (i, step) in self.steps.iter().enumerate().rev() {
            keep[i] = step.outputs.iter().flatten().any(|&o| live[o]);
            if keep[i] {
                step.inputs.iter().flatten().for_each(|&s| live[s] = true);
            }
        }
        let mut keep = keep.into_iter();
        self.steps.retain(|_| keep.next().unwrap_or(true));
        for (value, live) in self.values.iter_mut().zip(live) {
            if !live {
                value.constant = None;
            }
        }
    }

    fn find_last_uses(&mut self) {
        let mut seen = vec![false; self.values.len()];
        for &o in &self.outputs {
            seen[o] = true;
        }
        for step in self.steps.iter_mut().rev() {
            step.node = None;
            step.last_uses.clear();
            for &slot in step.inputs.iter().chain(&step.outputs).flatten() {
                if !seen[slot] && self.values[slot].constant.is_none() {
                    step.last_uses.push(slot);
                }
                seen[slot] = true;
            }
        }
    }

    pub(super) fn inputs(&self) -> impl Iterator<Item = (&str, &TensorType)> {
        self.inputs
            .iter()
            .map(|&s| (self.values[s].name.as_str(), &self.values[s].ty))
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|s| s.label.as_str())
    }
}
