//! Running models.

mod execute;
mod fold;
mod fuse;
mod fused;
mod plan;
mod pool;

use std::collections::HashMap;

use qkernels::{Isa, Threads, Workspace};

use self::execute::Machine;
pub use self::fold::fold_constants;
pub(crate) use self::fused::conv::FusedConv;
use self::plan::Plan;
pub(crate) use self::pool::Pool;
use crate::shape::matches;
use crate::{Model, ModelError, Tensor, TensorType};

/// How a [`Session`] runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Instruction set tier of the integer kernels.
    pub isa: Isa,
    /// Who does the work.
    pub threads: Threads<'static>,
    /// Whether chains of operators may run as one: integer convolutions and products with their
    /// requantization, float ones with their activation.
    pub fuse: bool,
    /// No tensor may have more elements than this; checked before memory is asked for. A tensor
    /// without elements counts by its dimensions other than zero.
    pub max_elements: usize,
}

impl Default for SessionOptions {
    /// The best tier, one thread, fusion, and at most 2^29 elements a tensor (2 GiB of f32).
    fn default() -> Self {
        SessionOptions {
            isa: Isa::detect(),
            threads: Threads::Single,
            fuse: true,
            max_elements: 1 << 29,
        }
    }
}

/// A model, ready to run.
///
/// Constants are computed and weights packed when the session is made. A run frees each
/// intermediate value after its last use and keeps the buffers, so memory depends on the largest
/// run, not on the number of runs.
///
/// ```
/// use qmodel::{ElementType, Graph, Model, Node, Session, SessionOptions, Tensor, ValueInfo};
///
/// let mut g = Graph::new("demo");
/// g.inputs.push(ValueInfo::tensor("x", ElementType::F32, vec![2.into()]));
/// g.outputs.push(ValueInfo::tensor("y", ElementType::F32, vec![2.into()]));
/// g.nodes.push(Node::new("relu", "Relu", ["x"], ["y"]));
/// let mut session = Session::new(&Model::new(g, 17), SessionOptions::default())?;
/// let y = session.run(&[("x", &Tensor::vector(vec![-1f32, 2.0]))])?;
/// assert_eq!(y[0].1.as_slice::<f32>(), Some(&[0.0, 2.0][..]));
/// # Ok::<(), qmodel::ModelError>(())
/// ```
pub struct Session {
    model: Model,
    options: SessionOptions,
    plan: Plan,
    machine: Machine,
    /// Made at the first observed run, where the session fuses.
    observed: Option<(Plan, Machine)>,
    pool: Pool,
    workspace: Workspace,
}

impl Session {
    /// Compiles a model.
    ///
    /// # Errors
    ///
    /// Those of [`Graph::validate`](crate::Graph::validate) and
    /// [`infer_shapes`](crate::infer_shapes), and [`ModelError::TooLarge`].
    pub fn new(model: &Model, options: SessionOptions) -> Result<Session, ModelError> {
        let mut pool = Pool::default();
        let mut workspace = Workspace::new();
        let plan = Plan::new(model, &options, options.fuse, &mut pool, &mut workspace)?;
        Ok(Session {
            model: model.clone(),
            machine: Machine::new(&plan),
            observed: None,
            options,
            plan,
            pool,
            workspace,
        })
    }

    /// The inputs that a run takes, with their types.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &TensorType)> {
        self.plan.inputs()
    }

    /// The outputs that a run gives, in order.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.model.graph.outputs.iter().map(|o| o.name.as_str())
    }

    /// How the session runs.
    #[must_use]
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// What a run does, step by step, after fusion: operator and node of each.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.plan.labels()
    }

    /// Runs the model: inputs by name, outputs by name in the model's order.
    ///
    /// # Errors
    ///
    /// [`ModelError::WrongInputName`], [`ModelError::DuplicateInput`],
    /// [`ModelError::MissingInput`], [`ModelError::InputType`], [`ModelError::InputShape`] for
    /// inputs that are not those of the model; errors of operators for shapes that they refuse;
    /// [`ModelError::TooLarge`].
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, ModelError> {
        let given = self.check(inputs)?;
        let outputs = self.machine.run(
            &self.plan,
            &given,
            &self.options,
            &mut self.pool,
            &mut self.workspace,
            None,
        )?;
        Ok(self.named(outputs))
    }

    /// Runs the model without fusion and shows every float32 value to `observe` by name: the
    /// inputs first, then each result right when it is there. Constants are not shown.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_observed(
        &mut self,
        inputs: &[(&str, &Tensor)],
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Vec<(String, Tensor)>, ModelError> {
        let given = self.check(inputs)?;
        let (pool, workspace) = (&mut self.pool, &mut self.workspace);
        let (plan, machine) = match &mut self.observed {
            // A session without fusion runs what is observed anyway.
            None if !self.options.fuse => (&self.plan, &mut self.machine),
            Some((plan, machine)) => (&*plan, machine),
            none => {
                let plan = Plan::new(&self.model, &self.options, false, pool, workspace)?;
                let machine = Machine::new(&plan);
                let (plan, machine) = none.insert((plan, machine));
                (&*plan, machine)
            }
        };
        let outputs = machine.run(plan, &given, &self.options, pool, workspace, Some(observe))?;
        Ok(self.named(outputs))
    }

    /// Takes the buffers of tensors that are no longer needed, such as the outputs of an earlier
    /// run: the next run then need not allocate its own.
    pub fn recycle(&mut self, tensors: impl IntoIterator<Item = Tensor>) {
        tensors.into_iter().for_each(|t| self.pool.give(t));
    }

    fn named(&self, outputs: Vec<Tensor>) -> Vec<(String, Tensor)> {
        self.outputs().map(str::to_owned).zip(outputs).collect()
    }

    /// Puts inputs in the model's order, after checking that they are what it declares.
    fn check<'t>(&self, inputs: &[(&str, &'t Tensor)]) -> Result<Vec<&'t Tensor>, ModelError> {
        let declared: Vec<(&str, &TensorType)> = self.inputs().collect();
        let mut given: Vec<Option<&'t Tensor>> = vec![None; declared.len()];
        for &(name, tensor) in inputs {
            let Some(i) = declared.iter().position(|d| d.0 == name) else {
                let names: Vec<String> = declared
                    .iter()
                    .map(|(n, t)| format!("\"{n}\" ({t})"))
                    .collect();
                return Err(ModelError::WrongInputName {
                    given: name.to_owned(),
                    allowed: names.join(", "),
                });
            };
            if given[i].replace(tensor).is_some() {
                return Err(ModelError::DuplicateInput {
                    name: name.to_owned(),
                });
            }
        }
        let mut symbols = HashMap::new();
        declared
            .into_iter()
            .zip(given)
            .map(|((name, ty), tensor)| {
                let name = || name.to_owned();
                let t = tensor.ok_or_else(|| ModelError::MissingInput { name: name() })?;
                if t.element_type() != ty.element {
                    return Err(ModelError::InputType {
                        name: name(),
                        given: t.element_type(),
                        expected: ty.element,
                    });
                }
                if !matches(ty, t.shape(), &mut symbols) {
                    return Err(ModelError::InputShape {
                        name: name(),
                        given: t.shape().to_vec(),
                        expected: ty.to_string(),
                    });
                }
                Ok(t)
            })
            .collect()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("graph", &self.model.graph.name)
            .field("options", &self.options)
            .field("steps", &self.steps().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attribute, Dim, ElementType, Graph, Node, ValueInfo};

    #[test]
    fn memory_does_not_grow_with_the_number_of_runs() {
        let mut g = Graph::new("g");
        let dims = vec![Dim::Symbol("N".into()), 1.into(), 8.into(), 8.into()];
        g.inputs
            .push(ValueInfo::tensor("x", ElementType::F32, dims));
        g.outputs
            .push(ValueInfo::new("y", TensorType::unknown(ElementType::F32)));
        g.set_initializer("w", Tensor::new(&[3, 1, 3, 3], vec![0.5f32; 27]).unwrap());
        g.nodes = vec![
            Node::new("c", "Conv", ["x", "w"], ["c"])
                .with_attribute("pads", Attribute::Ints(vec![1; 4])),
            Node::new("s", "Sigmoid", ["c"], ["s"]),
            Node::new("a", "Add", ["s", "c"], ["a"]),
            Node::new("d", "DynamicQuantizeLinear", ["a"], ["q", "qs", "qz"]),
            Node::new("dq", "DequantizeLinear", ["q", "qs", "qz"], ["y"]),
        ];
        let mut session = Session::new(&Model::new(g, 17), SessionOptions::default()).unwrap();
        let mut round = || {
            for batch in [1usize, 5, 2] {
                let x = Tensor::new(&[batch, 1, 8, 8], vec![0.1f32; batch * 64]).unwrap();
                session.run(&[("x", &x)]).unwrap();
                session.run_observed(&[("x", &x)], &mut |_, _| {}).unwrap();
            }
            session.pool.held()
        };
        let few = (0..8).map(|_| round()).last();
        assert_eq!((0..200).map(|_| round()).last(), few);
    }
}
