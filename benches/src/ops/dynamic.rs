//! Products of f32 activations with i8 weights: quantized in the call, multiplied, scaled to f32.

use std::sync::Arc;

use qkernels::{
    Dynamic, Epilogue, Isa, KernelError, Layout, MatMut, MatRef, OutMut, PackedB, Scale, Threads,
    Workspace, ZeroPoint, gemm_dynamic,
};

use super::contest::{Call, Contest};
use super::{Field, Job};
use crate::BenchError;
use crate::data::Source;
use crate::limit::{Demand, Kind};
use crate::measure::Cell;
use crate::shapes::Shape;
use crate::values::Values;

/// The name of the operation.
const OP: &str = "gemm_dynamic";

/// The scale of the weights.
const SCALE: f32 = 0.01;

/// A job for each shape, with a range for the whole tensor and one for every row.
#[must_use]
pub fn jobs(shapes: &[Shape]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &shape in shapes {
        for how in [Dynamic::Tensor, Dynamic::Row] {
            jobs.push(Job {
                label: format!("{OP} {shape} {}", name(how)),
                build: Box::new(move |field| cell(shape, how, field)),
            });
        }
    }
    jobs
}

fn name(how: Dynamic) -> &'static str {
    if how.per_row() { "row" } else { "tensor" }
}

fn cell(shape: Shape, how: Dynamic, field: &Field) -> Result<Cell, BenchError> {
    let Shape { m, k, n } = shape;
    let mut source = Source::new(0xd1);
    let problem = Arc::new((source.f32s(m * k), shape, how));
    let b = source.i8s(k * n);
    let pack = |isa| PackedB::pack(isa, MatRef::new(&b, k, n)?, Layout::RowMajor);
    let contest = Contest {
        op: OP,
        shape: (m, k, n),
        batch: 1,
        types: "f32·i8→f32".to_owned(),
        data: name(how).to_owned(),
        ops: shape.ops(),
        places: super::gemm::scattered(m)
            .flat_map(|row| row * n..(row + 1) * n)
            .collect(),
        exact: true,
        task: None,
    };
    // The range is that of all rows, so that all are needed: on the best tier, whose parts are each
    // compared with the scalar tier's elsewhere, unless the product is small.
    let reference = if shape.ops() < SMALL {
        Isa::SCALAR
    } else {
        field.best()
    };
    let mut whole = pack(reference)
        .map(|packed| Runner::new(&problem, packed, Threads::Single))
        .map_err(contest.failed(reference))?;
    whole.run().map_err(contest.failed(reference))?;
    let expected: Vec<f32> = contest.places.iter().map(|&at| whole.out[at]).collect();
    contest.cell(
        field,
        Values::F32(&expected),
        |isa| {
            vec![Demand {
                kind: Kind::Multiply(isa),
                amount: shape.ops(),
            }]
        },
        |isa, threads| Ok(Box::new(Runner::new(&problem, pack(isa)?, threads))),
    )
}

/// Operations that the scalar tier does in about a second.
const SMALL: f64 = 1e9;

struct Runner {
    problem: Arc<(Vec<f32>, Shape, Dynamic)>,
    packed: PackedB,
    out: Vec<f32>,
    workspace: Workspace,
    threads: Threads<'static>,
}

impl Runner {
    fn new(
        problem: &Arc<(Vec<f32>, Shape, Dynamic)>,
        packed: PackedB,
        threads: Threads<'static>,
    ) -> Self {
        let Shape { m, n, .. } = problem.1;
        Self {
            problem: Arc::clone(problem),
            packed,
            out: vec![0.0; m * n],
            workspace: Workspace::new(),
            threads,
        }
    }
}

impl Call for Runner {
    fn run(&mut self) -> Result<(), KernelError> {
        let (a, Shape { m, k, n }, how) = &*self.problem;
        gemm_dynamic(
            MatRef::new(a, *m, *k)?,
            &self.packed,
            ZeroPoint::Tensor(0),
            *how,
            &Epilogue {
                scale: Scale::Tensor(SCALE),
                ..Epilogue::default()
            },
            OutMut::F32(MatMut::new(&mut self.out, *m, *n)?),
            &mut self.workspace,
            self.threads,
        )
    }

    fn answer(&self) -> Values<'_> {
        Values::F32(&self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_runs_and_is_right() {
        let shapes = crate::shapes::parse("1x1x1,3x7x5,40x33x17").unwrap();
        crate::ops::tests::run_all(jobs(&shapes));
    }
}
