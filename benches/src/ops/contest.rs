//! One piece of work, done by ours on every tier and team and by every peer.

use std::hint::black_box;
use std::sync::Arc;

use qkernels::{Isa, KernelError, Threads};

use super::{Field, Judge, OURS, check_answers, peers};
use crate::BenchError;
use crate::limit::Demand;
use crate::measure::{Cell, Contender, Work};
use crate::peer::Task;
use crate::values::Values;

/// A call of ours with its own memory.
pub(super) trait Call: Send {
    /// Does the work once.
    fn run(&mut self) -> Result<(), KernelError>;

    /// The answer of the last run.
    fn answer(&self) -> Values<'_>;
}

/// The work.
pub(super) struct Contest<'a> {
    /// The operation.
    pub(super) op: &'static str,
    /// M, K, N.
    pub(super) shape: (usize, usize, usize),
    /// How many such products one call does.
    pub(super) batch: usize,
    /// The element types, in and out.
    pub(super) types: String,
    /// What is said of the data beside its shape.
    pub(super) data: String,
    /// Multiplications and additions of one call.
    pub(super) ops: f64,
    /// Where answers are compared.
    pub(super) places: Vec<usize>,
    /// Whether the bits are the same on every tier; else they may only be close.
    pub(super) exact: bool,
    /// The work in the peers' words; none if it is ours alone.
    pub(super) task: Option<Task<'a>>,
}

impl Contest<'_> {
    /// Names the work in an error of a kernel.
    pub(super) fn failed(&self, isa: Isa) -> impl FnOnce(KernelError) -> BenchError {
        let (op, shape, isa) = (self.op, self.label(), isa.name());
        move |source| BenchError::Kernel {
            op,
            shape,
            isa,
            source,
        }
    }

    fn label(&self) -> String {
        let (m, k, n) = self.shape;
        format!("{m}x{k}x{n}")
    }

    /// The cell: `ours` makes a call for a tier, whose answers must be `expected` at the places.
    pub(super) fn cell(
        self,
        field: &Field,
        expected: Values<'_>,
        demands: impl Fn(Isa) -> Vec<Demand>,
        mut ours: impl FnMut(Isa, Threads<'static>) -> Result<Box<dyn Call>, KernelError>,
    ) -> Result<Cell, BenchError> {
        let all: Vec<usize> = (0..expected.len()).collect();
        let bits = expected.bits(&all);
        let slack = self.task.as_ref().map_or(0.0, Task::slack);
        let mut contenders = Vec::new();
        for (index, team) in field.teams.iter().enumerate() {
            for &isa in &field.isas {
                let mut call = ours(isa, team.policy()).map_err(self.failed(isa))?;
                team.run(|| call.run()).map_err(self.failed(isa))?;
                let found = call.answer();
                let close = found.agreement(&self.places, &expected, slack) >= 1.0;
                if self.exact || !close {
                    let found = found.bits(&self.places);
                    check_answers(self.op, &self.label(), isa, &found, &bits)?;
                }
                contenders.push(Contender {
                    library: OURS,
                    types: self.types.clone(),
                    isa: isa.name(),
                    team: Arc::clone(team),
                    demands: demands(isa),
                    repeats: 1,
                    agreement: None,
                    detail: None,
                    call: Box::new(move || {
                        let done = call.run();
                        debug_assert!(done.is_ok(), "the same call has succeeded before");
                        let _ = black_box(done);
                    }),
                });
            }
            if let Some(task) = &self.task {
                let judge = Judge {
                    types: &self.types,
                    demands: &demands(field.best()),
                    places: &self.places,
                    expected,
                    slack,
                };
                contenders.extend(peers(field, index, task, &judge)?);
            }
        }
        Ok(Cell {
            op: self.op,
            shape: self.shape,
            batch: self.batch,
            data: self.data,
            work: Work::Ops(self.ops),
            contenders,
        })
    }
}
