//! Convolutions of one channels-last image, u8 by i8, summed in i32: through gathered rows, or by
//! the depthwise kernel where every channel has its own.

use std::sync::Arc;

use qkernels::{
    ConvShape, Epilogue, FilterLayout, Image, Isa, KernelError, Layout, MatMut, MatRef, OutMut,
    PackedConv, PackedDepthwise, Threads, Workspace, ZeroPoints, conv2d, depthwise,
};

use super::contest::{Call, Contest};
use super::gemm::Distribution;
use super::{Field, Job};
use crate::BenchError;
use crate::convs::Geometry;
use crate::data::Source;
use crate::limit::{Demand, Kind};
use crate::measure::Cell;
use crate::peer::{Conv, Finish, Task};
use crate::values::Values;

/// The name of the operation.
const OP: &str = "conv";

/// A job for each convolution and distribution of its weights.
#[must_use]
pub fn jobs(convs: &[Geometry], distributions: &[Distribution]) -> Vec<Job> {
    convs
        .iter()
        .flat_map(|&geometry| distributions.iter().map(move |&drawn| (geometry, drawn)))
        .map(|(geometry, drawn)| Job {
            label: format!("{OP} {}", drawn.label(&geometry.to_string())),
            build: Box::new(move |field| cell(geometry, drawn, field)),
        })
        .collect()
}

/// The image and the weights (outputs × inputs of a group × height × width of the kernel).
struct Problem {
    geometry: Geometry,
    x: Vec<u8>,
    weights: Vec<i8>,
}

fn cell(geometry: Geometry, drawn: Distribution, field: &Field) -> Result<Cell, BenchError> {
    let mut source = Source::new(0xc0);
    let (m, k, n) = geometry.product();
    let problem = Arc::new(Problem {
        geometry,
        x: source.u8s(geometry.height * geometry.width * geometry.inputs),
        weights: drawn.i8s(&mut source, n * k),
    });
    let contest = Contest {
        op: OP,
        shape: (m, k, n),
        batch: 1,
        types: "u8·i8→i32".to_owned(),
        data: drawn.label(&geometry.to_string()),
        ops: geometry.ops(),
        places: super::gemm::scattered(m)
            .flat_map(|row| row * n..(row + 1) * n)
            .collect(),
        exact: true,
        task: Some(Task::Conv(Conv {
            geometry,
            a: Values::U8(&problem.x),
            weights: &problem.weights,
            finish: Finish::Sums,
        })),
    };
    let mut scalar =
        Runner::new(&problem, Isa::SCALAR, Threads::Single).map_err(contest.failed(Isa::SCALAR))?;
    scalar.run().map_err(contest.failed(Isa::SCALAR))?;
    let expected: Vec<i32> = contest.places.iter().map(|&at| scalar.out[at]).collect();
    contest.cell(
        field,
        Values::I32(&expected),
        |isa| {
            vec![Demand {
                kind: Kind::Multiply(isa),
                amount: geometry.ops(),
            }]
        },
        |isa, threads| Ok(Box::new(Runner::new(&problem, isa, threads)?)),
    )
}

/// Weights as a tier wants them.
enum Packed {
    Whole(PackedConv),
    Depthwise(PackedDepthwise),
}

struct Runner {
    problem: Arc<Problem>,
    packed: Packed,
    out: Vec<i32>,
    workspace: Workspace,
    threads: Threads<'static>,
}

impl Runner {
    fn new(
        problem: &Arc<Problem>,
        isa: Isa,
        threads: Threads<'static>,
    ) -> Result<Self, KernelError> {
        let Geometry {
            inputs,
            outputs,
            groups,
            kernel,
            ..
        } = problem.geometry;
        let weights = &problem.weights;
        let packed = if groups == inputs && groups == outputs {
            let weights = MatRef::new(weights, outputs, kernel * kernel)?;
            let kernel = [kernel, kernel];
            Packed::Depthwise(PackedDepthwise::pack(
                isa,
                kernel,
                weights,
                Layout::Transposed,
            )?)
        } else {
            let dims = [outputs, inputs / groups, kernel, kernel];
            let layout = FilterLayout::Oihw;
            Packed::Whole(PackedConv::pack(isa, weights, dims, layout, groups)?)
        };
        let (m, _, n) = problem.geometry.product();
        Ok(Self {
            problem: Arc::clone(problem),
            packed,
            out: vec![0; m * n],
            workspace: Workspace::new(),
            threads,
        })
    }
}

impl Call for Runner {
    fn run(&mut self) -> Result<(), KernelError> {
        let Problem { geometry, x, .. } = &*self.problem;
        let Geometry {
            height,
            width,
            inputs,
            kernel,
            stride,
            ..
        } = *geometry;
        let shape = ConvShape {
            strides: [stride; 2],
            pads: [geometry.padding(); 4],
            ..ConvShape::new([1, height, width], [kernel; 2])
        };
        let x = MatRef::new(x, height * width, inputs)?;
        let (m, _, n) = geometry.product();
        let out = OutMut::I32(MatMut::new(&mut self.out, m, n)?);
        let (zp, epilogue) = (ZeroPoints::default(), Epilogue::default());
        let (ws, threads) = (&mut self.workspace, self.threads);
        match &self.packed {
            Packed::Whole(weights) => {
                let x = Image::ChannelsLast(x);
                conv2d(x, &shape, weights, zp, &epilogue, out, ws, threads)
            }
            Packed::Depthwise(weights) => {
                depthwise(x, &shape, weights, zp, &epilogue, out, ws, threads)
            }
        }
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
        let convs = "5x6x3-3x3s2-7,7x7x20-3x3s1-dw,9x4x16-1x1s1-5,8x8x33-5x5s2-dw";
        let convs = crate::convs::parse(convs).unwrap();
        let jobs = jobs(&convs, &[Distribution::Uniform, Distribution::Bell]);
        assert_eq!(jobs.len(), 2 * convs.len());
        assert!(jobs[1].label.ends_with("bell"), "{}", jobs[1].label);
        crate::ops::tests::run_all(jobs);
    }
}
