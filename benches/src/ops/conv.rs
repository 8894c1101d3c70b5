//! Convolutions of one channels-last image, u8 by i8, whose sums are kept or scaled: through gathered
//! rows, or by the depthwise kernel where every channel has its own.

use std::sync::Arc;

use qkernels::{
    ConvShape, FilterLayout, Image, Isa, KernelError, Layout, MatRef, PackedConv, PackedDepthwise,
    Threads, Workspace, conv2d, depthwise,
};

use super::contest::{Call, Contest};
use super::finish::{FROM_ZERO, Finishing, Out, Output};
use super::gemm::Distribution;
use super::{Field, Job};
use crate::BenchError;
use crate::convs::Geometry;
use crate::data::Source;
use crate::limit::{Demand, Kind};
use crate::measure::Cell;
use crate::peer::{Conv, Task};
use crate::values::Values;

/// The name of the operation.
const OP: &str = "conv";

/// A job for each convolution, distribution of its weights, and output.
#[must_use]
pub fn jobs(convs: &[Geometry], distributions: &[Distribution], outputs: &[Output]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &geometry in convs {
        for &drawn in distributions {
            for &output in outputs {
                let data = drawn.label(&geometry.to_string());
                jobs.push(Job {
                    label: format!("{OP} {} {data}", names(output)),
                    build: Box::new(move |field| cell(geometry, drawn, output, field)),
                });
            }
        }
    }
    jobs
}

/// The names of the element types.
fn names(output: Output) -> String {
    format!("u8·i8→{}", output.name("i32"))
}

/// The image and the weights (outputs × inputs of a group × height × width of the kernel).
struct Problem {
    geometry: Geometry,
    x: Vec<u8>,
    weights: Vec<i8>,
    finishing: Finishing,
}

impl Problem {
    fn new(geometry: Geometry, drawn: Distribution, output: Output) -> Self {
        let mut source = Source::new(0xc0);
        let (_, k, n) = geometry.product();
        Self {
            geometry,
            x: source.u8s(geometry.height * geometry.width * geometry.inputs),
            weights: drawn.i8s(&mut source, n * k),
            // The image is what a `ReLU` leaves, around zero point 0, and so is a result of bytes: with
            // others, oneDNN leaves its fast code for depthwise convolutions.
            finishing: Finishing::new(output, (k, n), [0; 3], FROM_ZERO, false, &mut source),
        }
    }
}

fn cell(
    geometry: Geometry,
    drawn: Distribution,
    output: Output,
    field: &Field,
) -> Result<Cell, BenchError> {
    let (m, k, n) = geometry.product();
    let problem = Arc::new(Problem::new(geometry, drawn, output));
    let contest = Contest {
        op: OP,
        shape: (m, k, n),
        batch: 1,
        types: names(output),
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
            finish: problem.finishing.of_peers(),
        })),
    };
    let mut scalar =
        Runner::new(&problem, Isa::SCALAR, Threads::Single).map_err(contest.failed(Isa::SCALAR))?;
    scalar.run().map_err(contest.failed(Isa::SCALAR))?;
    let expected = scalar.out.at(&contest.places);
    contest.cell(
        field,
        expected.values(),
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
    out: Out,
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
            out: problem.finishing.out(m * n),
            workspace: Workspace::new(),
            threads,
        })
    }
}

impl Call for Runner {
    fn run(&mut self) -> Result<(), KernelError> {
        let Problem {
            geometry,
            x,
            finishing,
            ..
        } = &*self.problem;
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
        let out = self.out.as_mut(m, n)?;
        let (zp, epilogue) = finishing.ours();
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
        self.out.values()
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::ops::finish::tests::assert_spread;

    #[test]
    fn every_kind_runs_and_is_right() {
        let convs = "5x6x3-3x3s2-7,7x7x20-3x3s1-dw,9x4x16-1x1s1-5,8x8x33-5x5s2-dw";
        let convs = crate::convs::parse(convs).unwrap();
        let drawn = [Distribution::Uniform, Distribution::Bell];
        let jobs = jobs(&convs, &drawn, Output::value_variants());
        assert_eq!(jobs.len(), 2 * 3 * convs.len());
        let last = &jobs[jobs.len() - 1].label;
        assert!(last.contains("→f32") && last.ends_with("bell"), "{last}");
        crate::ops::tests::run_all(jobs);
    }

    #[test]
    fn outputs_are_neither_all_clamped_nor_all_equal() {
        for geometry in crate::convs::parse("9x9x64-3x3s1-dw,9x9x32-3x3s1-24").unwrap() {
            let problem = Problem::new(geometry, Distribution::Uniform, Output::U8);
            let mut runner = Runner::new(&Arc::new(problem), Isa::SCALAR, Threads::Single).unwrap();
            runner.run().unwrap();
            assert_spread(&runner.out);
        }
    }
}
