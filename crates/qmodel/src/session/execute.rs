//! Running a plan.

use std::sync::Arc;

use qkernels::Workspace;

use super::plan::{Plan, Slot, Step};
use super::{Pool, SessionOptions};
use crate::ops::{Arg, Fact, Facts, Inputs, RunContext, known_shape};
use crate::tensor::extent;
use crate::{ElementType, ModelError, Tensor, TensorType};

/// Integer tensors up to this length may be shapes or axes, so that output shapes hang on their
/// values.
const MOST_SHAPE_VALUES: usize = 64;

/// Who is shown the values of a run.
type Observe<'a> = &'a mut dyn FnMut(&str, &Tensor);

/// A value during a run.
enum Held<'a> {
    Nothing,
    Given(&'a Tensor),
    Made(Tensor),
}

impl Held<'_> {
    fn tensor(&self) -> Option<&Tensor> {
        match self {
            Held::Nothing => None,
            Held::Given(t) => Some(t),
            Held::Made(t) => Some(t),
        }
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Held::Nothing)
    }
}

/// What a plan remembers from run to run: the output shapes of each step for the input shapes it
/// had last.
pub(super) struct Machine {
    shapes: Vec<Remembered>,
}

#[derive(Default)]
struct Remembered {
    inputs: Vec<Vec<usize>>,
    outputs: Vec<Vec<usize>>,
}

impl Machine {
    pub(super) fn new(plan: &Plan) -> Machine {
        Machine {
            shapes: plan.steps.iter().map(|_| Remembered::default()).collect(),
        }
    }

    pub(super) fn run(
        &mut self,
        plan: &Plan,
        given: &[&Tensor],
        options: &SessionOptions,
        pool: &mut Pool,
        workspace: &mut Workspace,
        mut observe: Option<Observe<'_>>,
    ) -> Result<Vec<Tensor>, ModelError> {
        let mut held: Vec<Held<'_>> = plan.values.iter().map(|_| Held::Nothing).collect();
        for (&slot, &tensor) in plan.inputs.iter().zip(given) {
            check_size(tensor.shape(), &plan.values[slot].name, options)?;
            show(&mut observe, &plan.values[slot].name, tensor);
            held[slot] = Held::Given(tensor);
        }
        for (step, remembered) in plan.steps.iter().zip(&mut self.shapes) {
            let owned = take_dying(step, &mut held);
            let mut inputs = gather(step, plan, &held, owned)?;
            remembered.update(step, plan, &inputs, options)?;
            let mut cx = context(pool, workspace, options);
            let results = step
                .op
                .run(&mut cx, &mut inputs, &remembered.outputs)
                .map_err(|e| e.at(&step.label))?;
            for arg in inputs.0.into_iter().flatten() {
                if let Arg::Owned(t) = arg {
                    pool.give(t);
                }
            }
            for (slot, tensor) in step.outputs.iter().zip(results) {
                match slot {
                    Some(slot) => {
                        show(&mut observe, &plan.values[*slot].name, &tensor);
                        held[*slot] = Held::Made(tensor);
                    }
                    None => pool.give(tensor),
                }
            }
            for &slot in &step.last_uses {
                if let Held::Made(t) = held[slot].take() {
                    pool.give(t);
                }
            }
        }
        outputs(plan, held, pool)
    }
}

/// Values that this step is the last to read, and reads once: it may write over them.
fn take_dying(step: &Step, held: &mut [Held<'_>]) -> Vec<(Slot, Tensor)> {
    let mut owned = Vec::new();
    for &slot in &step.last_uses {
        let once = step.inputs.iter().filter(|s| **s == Some(slot)).count() == 1;
        if once && matches!(held[slot], Held::Made(_)) {
            let Held::Made(t) = held[slot].take() else {
                continue;
            };
            owned.push((slot, t));
        }
    }
    owned
}

fn gather<'a>(
    step: &Step,
    plan: &'a Plan,
    held: &'a [Held<'a>],
    mut owned: Vec<(Slot, Tensor)>,
) -> Result<Inputs<'a>, ModelError> {
    let args = step
        .inputs
        .iter()
        .map(|slot| {
            let Some(slot) = *slot else { return Ok(None) };
            if let Some(i) = owned.iter().position(|(s, _)| *s == slot) {
                return Ok(Some(Arg::Owned(owned.swap_remove(i).1)));
            }
            let constant = plan.values[slot].constant.as_deref();
            constant
                .or_else(|| held[slot].tensor())
                .map(|t| Some(Arg::Borrowed(t)))
                .ok_or_else(|| ModelError::UndefinedValue {
                    node: step.label.clone(),
                    value: plan.values[slot].name.clone(),
                })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Inputs(args))
}

/// The outputs of a run; an input, a constant or a repeated output is copied.
fn outputs(
    plan: &Plan,
    mut held: Vec<Held<'_>>,
    pool: &mut Pool,
) -> Result<Vec<Tensor>, ModelError> {
    plan.outputs
        .iter()
        .map(|&slot| match held[slot].take() {
            Held::Made(t) => Ok(t),
            Held::Given(t) => Ok(pool.copy(t)),
            Held::Nothing => match &plan.values[slot].constant {
                Some(t) => Ok(pool.copy(t)),
                None => Err(ModelError::UndefinedValue {
                    node: "graph output".to_owned(),
                    value: plan.values[slot].name.clone(),
                }),
            },
        })
        .collect()
}

fn context<'a>(
    pool: &'a mut Pool,
    workspace: &'a mut Workspace,
    options: &SessionOptions,
) -> RunContext<'a> {
    RunContext {
        pool,
        workspace,
        isa: options.isa,
        threads: options.threads,
        max_elements: options.max_elements,
    }
}

fn show(observe: &mut Option<Observe<'_>>, name: &str, tensor: &Tensor) {
    if let Some(observe) = observe
        && tensor.element_type() == ElementType::F32
    {
        observe(name, tensor);
    }
}

impl Remembered {
    /// Makes `outputs` the shapes for these inputs, inferring them only where the inputs' shapes
    /// are not those of last time (or where values decide).
    fn update(
        &mut self,
        step: &Step,
        plan: &Plan,
        inputs: &Inputs<'_>,
        options: &SessionOptions,
    ) -> Result<(), ModelError> {
        let count = inputs.0.len();
        let constant = |i: usize| step.inputs[i].and_then(|s| plan.values[s].constant.as_ref());
        let varies = |i: usize, t: &Tensor| may_be_shape(t) && constant(i).is_none();
        let same = self.inputs.len() == count
            && count > 0
            && (0..count).all(|i| match inputs.optional(i) {
                Some(t) => t.shape() == self.inputs[i] && !varies(i, t),
                None => true,
            });
        if same {
            return Ok(());
        }
        // Forget first: an error must not leave shapes of other inputs behind.
        self.inputs.clear();
        let facts: Vec<Option<Fact>> = (0..count)
            .map(|i| {
                let t = inputs.optional(i)?;
                Some(constant(i).map_or_else(|| fact(t), Fact::constant))
            })
            .collect();
        self.outputs = concrete_shapes(step, &facts, options)?;
        self.inputs = (0..count)
            .map(|i| {
                inputs
                    .optional(i)
                    .map_or_else(Vec::new, |t| t.shape().to_vec())
            })
            .collect();
        Ok(())
    }
}

fn may_be_shape(t: &Tensor) -> bool {
    matches!(t.element_type(), ElementType::I64 | ElementType::I32) && t.len() <= MOST_SHAPE_VALUES
}

fn fact(t: &Tensor) -> Fact {
    Fact {
        ty: TensorType::known(t.element_type(), t.shape()),
        value: may_be_shape(t).then(|| Arc::new(t.clone())),
    }
}

/// Output shapes of a step for inputs that are all known, each within the limit.
fn concrete_shapes(
    step: &Step,
    facts: &[Option<Fact>],
    options: &SessionOptions,
) -> Result<Vec<Vec<usize>>, ModelError> {
    let types = step
        .op
        .infer(&Facts(facts))
        .map_err(|e| e.at(&step.label))?;
    types
        .iter()
        .map(|t| {
            let shape = t.shape.as_deref().and_then(known_shape).ok_or_else(|| {
                ModelError::operand("output", t.to_string(), "a shape that the inputs determine")
                    .at(&step.label)
            })?;
            check_size(&shape, &step.label, options)?;
            Ok(shape)
        })
        .collect()
}

/// Demands that a shape is within the limit; an empty one, too, but for its zeros.
pub(super) fn check_size(
    shape: &[usize],
    value: &str,
    options: &SessionOptions,
) -> Result<(), ModelError> {
    match extent(shape) {
        Some(n) if n <= options.max_elements => Ok(()),
        _ => Err(ModelError::TooLarge {
            value: value.to_owned(),
            shape: shape.to_vec(),
            max: options.max_elements,
        }),
    }
}

/// Runs a step on constants.
pub(super) fn run_constant(
    step: &Step,
    constants: &[Option<Arc<Tensor>>],
    options: &SessionOptions,
    pool: &mut Pool,
    workspace: &mut Workspace,
) -> Result<Vec<Tensor>, ModelError> {
    let facts: Vec<Option<Fact>> = constants
        .iter()
        .map(|c| c.as_ref().map(Fact::constant))
        .collect();
    let shapes = concrete_shapes(step, &facts, options)?;
    let args = constants
        .iter()
        .map(|c| c.as_deref().map(Arg::Borrowed))
        .collect();
    let mut cx = context(pool, workspace, options);
    step.op
        .run(&mut cx, &mut Inputs(args), &shapes)
        .map_err(|e| e.at(&step.label))
}
