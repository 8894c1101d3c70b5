//! Products of many pairs of matrices, B packed inside the call: attention's scores and values.

use std::sync::Arc;

use qkernels::{
    Arithmetic, BatchMut, BatchOut, BatchRef, Epilogue, Isa, KernelError, Operand, Threads,
    Workspace, ZeroPoints, gemm_batch,
};

use super::contest::{Call, Contest};
use super::gemm::Distribution;
use super::{Field, Job};
use crate::BenchError;
use crate::data::Source;
use crate::limit::{Demand, Kind};
use crate::measure::Cell;
use crate::peer::{Finish, MatMul, Task, Weights};
use crate::shapes::Shape;
use crate::values::{Element, Values};

/// The name of the operation.
const OP: &str = "gemm_batch";

/// Products of one shape.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// How many.
    pub count: usize,
    /// Each of them.
    pub shape: Shape,
    /// What they are.
    pub kind: Attention,
}

/// The two products of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Queries by keys, i8 by i8; the keys lie as they are made, a row each, so B is transposed.
    Scores,
    /// The same with keys that lie as columns.
    ScoresOfColumns,
    /// Probabilities by values, u8 by i8.
    Values,
}

impl Attention {
    fn name(self) -> &'static str {
        match self {
            Attention::Scores => "scores",
            Attention::ScoresOfColumns => "scores kn",
            Attention::Values => "values",
        }
    }
}

const fn batch(kind: Attention, count: usize, m: usize, k: usize, n: usize) -> Batch {
    let shape = Shape { m, k, n };
    Batch { count, shape, kind }
}

/// Twelve heads of 64: BERT-base at a length of 128 and of 384, ViT-B/16 at 197, and one query
/// against 1024 keys.
pub const ATTENTION: &[Batch] = &[
    batch(Attention::Scores, 12, 128, 64, 128),
    batch(Attention::ScoresOfColumns, 12, 128, 64, 128),
    batch(Attention::Values, 12, 128, 128, 64),
    batch(Attention::Scores, 12, 384, 64, 384),
    batch(Attention::ScoresOfColumns, 12, 384, 64, 384),
    batch(Attention::Values, 12, 384, 384, 64),
    batch(Attention::Scores, 12, 197, 64, 197),
    batch(Attention::Values, 12, 197, 197, 64),
    batch(Attention::Scores, 12, 1, 64, 1024),
    batch(Attention::Values, 12, 1, 1024, 64),
];

/// A job for each batch and distribution of its right operands.
#[must_use]
pub fn jobs(batches: &[Batch], distributions: &[Distribution]) -> Vec<Job> {
    batches
        .iter()
        .flat_map(|&batch| distributions.iter().map(move |&drawn| (batch, drawn)))
        .map(|(batch, drawn)| Job {
            label: format!(
                "{OP} {}·{} {}",
                batch.count,
                batch.shape,
                drawn.label(batch.kind.name())
            ),
            build: Box::new(move |field| match batch.kind {
                Attention::Values => cell::<u8>(batch, drawn, Source::u8s, field),
                _ => cell::<i8>(batch, drawn, Source::i8s, field),
            }),
        })
        .collect()
}

/// The operands.
struct Problem<A> {
    batch: Batch,
    a: Vec<A>,
    b: Vec<i8>,
}

fn cell<A: Operand + Element>(
    batch: Batch,
    drawn: Distribution,
    draw: fn(&mut Source, usize) -> Vec<A>,
    field: &Field,
) -> Result<Cell, BenchError> {
    let Batch { count, shape, kind } = batch;
    let Shape { m, k, n } = shape;
    let mut source = Source::new(0xba7c);
    let problem = Arc::new(Problem {
        batch,
        a: draw(&mut source, count * m * k),
        b: drawn.i8s(&mut source, count * k * n),
    });
    let task = MatMul {
        shape,
        batch: count,
        a: A::values(&problem.a),
        b: Values::I8(&problem.b),
        weights: Weights::Plain,
        finish: Finish::Sums,
    };
    let places: Vec<usize> = [0, count / 2, count - 1]
        .into_iter()
        .flat_map(|matrix| super::gemm::scattered(m).map(move |row| matrix * m + row))
        .flat_map(|row| row * n..(row + 1) * n)
        .collect();
    let contest = Contest {
        op: OP,
        shape: (m, k, n),
        batch: count,
        types: format!("{}·i8→i32", <A as Element>::DTYPE),
        data: drawn.label(kind.name()),
        ops: shape.ops() * count as f64,
        places,
        exact: true,
        // A peer's right operands are K × N.
        task: (kind != Attention::Scores).then_some(Task::MatMul(task)),
    };
    let mut scalar = Runner::new(&problem, Isa::SCALAR, Threads::Single);
    scalar.run().map_err(contest.failed(Isa::SCALAR))?;
    let expected: Vec<i32> = contest.places.iter().map(|&at| scalar.out[at]).collect();
    let amount = contest.ops;
    contest.cell(
        field,
        Values::I32(&expected),
        |isa| {
            vec![Demand {
                kind: Kind::Multiply(isa),
                amount,
            }]
        },
        |isa, threads| Ok(Box::new(Runner::new(&problem, isa, threads))),
    )
}

struct Runner<A> {
    problem: Arc<Problem<A>>,
    isa: Isa,
    out: Vec<i32>,
    workspace: Workspace,
    threads: Threads<'static>,
}

impl<A: Operand> Runner<A> {
    fn new(problem: &Arc<Problem<A>>, isa: Isa, threads: Threads<'static>) -> Self {
        let Batch { count, shape, .. } = problem.batch;
        Self {
            problem: Arc::clone(problem),
            isa,
            out: vec![0; count * shape.m * shape.n],
            workspace: Workspace::new(),
            threads,
        }
    }
}

impl<A: Operand + Element> Call for Runner<A> {
    fn run(&mut self) -> Result<(), KernelError> {
        let Problem { batch, a, b } = &*self.problem;
        let Batch { count, shape, kind } = *batch;
        let Shape { m, k, n } = shape;
        let b = if kind == Attention::Scores {
            BatchRef::new(b, count, n, k)?.transposed()
        } else {
            BatchRef::new(b, count, k, n)?
        };
        gemm_batch(
            self.isa,
            Arithmetic::Int8,
            BatchRef::new(a, count, m, k)?,
            b,
            ZeroPoints::default(),
            &Epilogue::default(),
            BatchOut::I32(BatchMut::new(&mut self.out, count, m, n)?),
            &mut self.workspace,
            self.threads,
        )
    }

    fn answer(&self) -> Values<'_> {
        Values::I32(&self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_runs_and_is_right() {
        use Attention::{Scores, ScoresOfColumns, Values};
        // One product, fewer than threads, and edges that no tile divides.
        let batches = [Scores, ScoresOfColumns, Values].map(|kind| {
            [
                batch(kind, 1, 1, 1, 1),
                batch(kind, 2, 3, 7, 5),
                batch(kind, 5, 40, 33, 17),
            ]
        });
        crate::ops::tests::run_all(jobs(
            batches.as_flattened(),
            &[Distribution::Uniform, Distribution::Reduced],
        ));
    }
}
