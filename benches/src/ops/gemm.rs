//! Integer matrix products with weights packed ahead.

use std::hint::black_box;
use std::sync::Arc;

use clap::ValueEnum;
use qkernels::{
    Epilogue, Isa, KernelError, Layout, Lhs, MatMut, MatRef, OutMut, OutParams, PackedB, Scale,
    Threads, Workspace, ZeroPoint, ZeroPoints, gemm,
};

use super::{Field, Job, Judge, OURS, check_answers, peers};
use crate::BenchError;
use crate::data::Source;
use crate::limit::{Demand, Kind};
use crate::measure::{Cell, Contender, Work};
use crate::peer::{self, Finish, MatMul, Requantize, Scaled, Task};
use crate::shapes::Shape;
use crate::values::{Element, Values};

/// The type of the left operand; the right one, the weights, is i8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Left {
    /// u8 activations by i8 weights.
    #[value(name = "u8i8")]
    U8,
    /// i8 activations by i8 weights.
    #[value(name = "i8i8")]
    I8,
}

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Stored as they are.
    I32,
    /// Zero points of both sides, bias, a scale for each channel, requantized.
    U8,
    /// Zero points of both sides, bias, a scale for each channel, `ReLU`.
    F32,
}

/// Where the weights are when a call begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// As the call before left them: in cache, if they fit.
    Hot,
    /// In memory: each call takes the next of many copies, together larger than the caches.
    Cold,
}

impl Weights {
    fn name(self) -> &'static str {
        match self {
            Weights::Hot => "hot",
            Weights::Cold => "cold",
        }
    }
}

/// How the weights are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// Every byte alike: the worst case of shortcuts.
    Uniform,
    /// Bell-shaped, as trained weights are.
    Bell,
}

/// What is asked for: each combination becomes a cell.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The shapes.
    pub shapes: Vec<Shape>,
    /// The types of the left operand.
    pub lefts: Vec<Left>,
    /// The outputs.
    pub outputs: Vec<Output>,
    /// Where the weights are.
    pub weights: Vec<Weights>,
    /// How they are distributed.
    pub distributions: Vec<Distribution>,
}

/// One cell.
#[derive(Debug, Clone, Copy)]
struct Spec {
    shape: Shape,
    left: Left,
    output: Output,
    weights: Weights,
    distribution: Distribution,
}

impl Spec {
    /// What is said of the weights: `hot`, or `hot bell`.
    fn data(&self) -> String {
        match self.distribution {
            Distribution::Uniform => self.weights.name().to_owned(),
            Distribution::Bell => format!("{} bell", self.weights.name()),
        }
    }
}

/// Up to this many rows of A, the weights are read so often in proportion to the work that memory
/// may be what limits.
const ROWS_THAT_STREAM: usize = 32;

/// Weights up to this many bytes stay in the first-level cache, which feeds any kernel.
const BYTES_NEVER_WAITED_FOR: usize = 32 << 10;

/// Rows whose answers are checked: scattered over A, first and last among them. A row of the result
/// depends on one row of A alone.
const ROWS_CHECKED: usize = 24;

/// The zero point of the weights where zero points are used.
const WEIGHTS_ZERO_POINT: i32 = 2;

/// The zero point of u8 results.
const OUTPUT_ZERO_POINT: i32 = 128;

/// A job for each combination.
#[must_use]
pub fn jobs(wanted: &Wanted) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &shape in &wanted.shapes {
        for &weights in &wanted.weights {
            for &distribution in &wanted.distributions {
                for &left in &wanted.lefts {
                    for &output in &wanted.outputs {
                        let spec = Spec {
                            shape,
                            left,
                            output,
                            weights,
                            distribution,
                        };
                        jobs.push(Job {
                            label: format!("gemm {} {shape} {}", types(spec), spec.data()),
                            build: Box::new(move |field| cell(spec, field)),
                        });
                    }
                }
            }
        }
    }
    jobs
}

/// The names of the element types, as in `u8·i8→i32`.
fn types(spec: Spec) -> String {
    let left = match spec.left {
        Left::U8 => "u8",
        Left::I8 => "i8",
    };
    let output = match spec.output {
        Output::I32 => "i32",
        Output::U8 => "u8",
        Output::F32 => "f32",
    };
    format!("{left}·i8→{output}")
}

fn cell(spec: Spec, field: &Field) -> Result<Cell, BenchError> {
    let mut source = Source::new(0x5eed);
    let elements = spec.shape.m * spec.shape.k;
    match spec.left {
        Left::U8 => cell_of(spec, field, source.u8s(elements), source, 128),
        Left::I8 => cell_of(spec, field, source.i8s(elements), source, -3),
    }
}

fn cell_of<A: Lhs + Element>(
    spec: Spec,
    field: &Field,
    a: Vec<A>,
    mut source: Source,
    zero_point: i32,
) -> Result<Cell, BenchError> {
    let op = "gemm";
    let Shape { m, k, n } = spec.shape;
    let shape = spec.shape.to_string();
    let failed = |isa: Isa| {
        let shape = shape.clone();
        move |source| BenchError::Kernel {
            op,
            shape,
            isa: isa.name(),
            source,
        }
    };
    let b = match spec.distribution {
        Distribution::Uniform => source.i8s(k * n),
        Distribution::Bell => source.bell_i8s(k * n),
    };
    let pack = |isa| {
        MatRef::new(&b, k, n)
            .and_then(|b| PackedB::pack(isa, b, Layout::RowMajor))
            .map_err(failed(isa))
    };
    let problem = Arc::new(Problem::new(spec, a, zero_point, &mut source));
    let rows: Vec<usize> = scattered(m).collect();
    let places: Vec<usize> = rows.iter().flat_map(|row| row * n..(row + 1) * n).collect();
    let expected = problem
        .rows(&rows)
        .answer(&pack(Isa::SCALAR)?)
        .map_err(failed(Isa::SCALAR))?;
    let bits = expected.bits(0..expected.values().len());
    let copies = match spec.weights {
        Weights::Hot => 1,
        // Packing pads small weights, so this is enough at the least.
        Weights::Cold => (2 * field.machine.l3).div_ceil(k * n).min(1 << 16),
    };
    let packs = field
        .isas
        .iter()
        .map(|&isa| Ok((isa, Arc::new(vec![pack(isa)?; copies]))))
        .collect::<Result<Vec<_>, BenchError>>()?;
    let mut contenders = Vec::new();
    for (index, team) in field.teams.iter().enumerate() {
        for (isa, packs) in &packs {
            let isa = *isa;
            let mut runner = Runner::new(&problem, packs, team.policy());
            team.run(|| runner.run()).map_err(failed(isa))?;
            let found = runner.out.bits(places.iter().copied());
            check_answers(op, &shape, isa, &found, &bits)?;
            contenders.push(Contender {
                library: OURS,
                types: types(spec),
                isa: isa.name(),
                team: Arc::clone(team),
                demands: demands(spec, isa, copies),
                repeats: 1,
                agreement: None,
                detail: None,
                call: Box::new(move || {
                    let done = runner.run();
                    debug_assert!(done.is_ok(), "the same call has succeeded before");
                    let _ = black_box(done);
                }),
            });
        }
        let task = Task::MatMul(MatMul {
            shape: spec.shape,
            batch: 1,
            a: A::values(&problem.a),
            b: Values::I8(&b),
            weights: peer::Weights::Packed(copies),
            finish: problem.finish(),
        });
        let judge = Judge {
            types: &types(spec),
            demands: &demands(spec, field.best(), copies),
            places: &places,
            expected: expected.values(),
        };
        contenders.extend(peers(field, index, &task, &judge)?);
    }
    Ok(Cell {
        op,
        shape: (m, k, n),
        batch: 1,
        data: spec.data(),
        work: Work::Ops(spec.shape.ops()),
        contenders,
    })
}

/// What a product asks of the machine at the least.
fn demands(spec: Spec, isa: Isa, copies: usize) -> Vec<Demand> {
    let Shape { m, k, n } = spec.shape;
    let mut demands = vec![Demand {
        kind: Kind::Multiply(isa),
        amount: spec.shape.ops(),
    }];
    if m <= ROWS_THAT_STREAM && k * n * copies > BYTES_NEVER_WAITED_FOR {
        demands.push(Demand {
            kind: Kind::Read(k * n * copies),
            amount: (k * n) as f64,
        });
    }
    demands
}

/// Up to [`ROWS_CHECKED`] rows of `m`, evenly scattered, with both ends.
fn scattered(m: usize) -> impl Iterator<Item = usize> {
    let count = m.min(ROWS_CHECKED);
    (0..count).map(move |i| {
        if count == 1 {
            0
        } else {
            i * (m - 1) / (count - 1)
        }
    })
}

/// One product: everything but the packed weights.
struct Problem<A> {
    a: Vec<A>,
    shape: Shape,
    zero_point: i32,
    output: Output,
    scales: Vec<f32>,
    bias: Vec<i32>,
}

impl<A: Lhs> Problem<A> {
    fn new(spec: Spec, a: Vec<A>, zero_point: i32, source: &mut Source) -> Self {
        let Shape { k, n, .. } = spec.shape;
        // Full-range bytes deviate by 74 from their middle, so a sum of k products by 74²·√k. This
        // brings the deviation to between 32 and 64 output steps: few outputs saturate.
        let deviation = 74.0 * 74.0 * (k as f32).sqrt();
        let scales = (0..n)
            .map(|j| 32.0 * (1.0 + j as f32 / n as f32) / deviation)
            .collect();
        let bias = source.sums(n).into_iter().map(|sum| sum >> 8).collect();
        Self {
            a,
            shape: spec.shape,
            zero_point,
            output: spec.output,
            scales,
            bias,
        }
    }

    /// The same product with some of A's rows only.
    fn rows(&self, rows: &[usize]) -> Self {
        let k = self.shape.k;
        Self {
            a: rows
                .iter()
                .flat_map(|row| &self.a[row * k..(row + 1) * k])
                .copied()
                .collect(),
            shape: Shape {
                m: rows.len(),
                ..self.shape
            },
            zero_point: self.zero_point,
            output: self.output,
            scales: self.scales.clone(),
            bias: self.bias.clone(),
        }
    }

    /// The whole result.
    fn answer(&self, b: &PackedB) -> Result<Out, KernelError> {
        let Shape { m, n, .. } = self.shape;
        let mut out = Out::new(self.output, m * n);
        self.run(b, &mut out, &mut Workspace::new(), Threads::Single)?;
        Ok(out)
    }

    /// What becomes of the sums, in the peers' words.
    fn finish(&self) -> Finish<'_> {
        let output = match self.output {
            Output::I32 => return Finish::Sums,
            Output::U8 => Requantize::U8(OUTPUT_ZERO_POINT),
            Output::F32 => Requantize::Relu,
        };
        Finish::Scaled(Scaled {
            zero_point_a: self.zero_point,
            zero_point_b: WEIGHTS_ZERO_POINT,
            bias: &self.bias,
            scales: &self.scales,
            output,
        })
    }

    fn run(
        &self,
        b: &PackedB,
        out: &mut Out,
        ws: &mut Workspace,
        threads: Threads<'static>,
    ) -> Result<(), KernelError> {
        let Shape { m, k, n } = self.shape;
        let a = MatRef::new(&self.a, m, k)?;
        let zero_points = ZeroPoints {
            a: ZeroPoint::Tensor(self.zero_point),
            b: ZeroPoint::Tensor(WEIGHTS_ZERO_POINT),
        };
        let scaled = Epilogue {
            bias: Some(&self.bias),
            scale: Scale::Channel(&self.scales),
            ..Epilogue::default()
        };
        match out {
            Out::I32(out) => {
                let out = OutMut::I32(MatMut::new(out, m, n)?);
                gemm(
                    a,
                    b,
                    ZeroPoints::default(),
                    &Epilogue::default(),
                    out,
                    ws,
                    threads,
                )
            }
            Out::U8(out) => {
                let params = OutParams {
                    zero_point: OUTPUT_ZERO_POINT,
                    min: 0,
                    max: 255,
                };
                let out = OutMut::U8(MatMut::new(out, m, n)?, params);
                gemm(a, b, zero_points, &scaled, out, ws, threads)
            }
            Out::F32(out) => {
                let clamped = Epilogue {
                    clamp: Some((0.0, f32::INFINITY)),
                    ..scaled
                };
                let out = OutMut::F32(MatMut::new(out, m, n)?);
                gemm(a, b, zero_points, &clamped, out, ws, threads)
            }
        }
    }
}

/// The result, in whichever type was asked for.
#[derive(Debug, Clone)]
enum Out {
    I32(Vec<i32>),
    U8(Vec<u8>),
    F32(Vec<f32>),
}

impl Out {
    fn new(output: Output, len: usize) -> Self {
        match output {
            Output::I32 => Out::I32(vec![0; len]),
            Output::U8 => Out::U8(vec![0; len]),
            Output::F32 => Out::F32(vec![0.0; len]),
        }
    }

    fn values(&self) -> Values<'_> {
        match self {
            Out::I32(out) => Values::I32(out),
            Out::U8(out) => Values::U8(out),
            Out::F32(out) => Values::F32(out),
        }
    }

    /// The bits of the elements at some places.
    fn bits(&self, places: impl Iterator<Item = usize>) -> Vec<u32> {
        places
            .map(|at| match self {
                Out::I32(out) => out[at].cast_unsigned(),
                Out::U8(out) => u32::from(out[at]),
                Out::F32(out) => out[at].to_bits(),
            })
            .collect()
    }
}

/// One contender's own output and scratch memory.
struct Runner<A> {
    problem: Arc<Problem<A>>,
    packs: Arc<Vec<PackedB>>,
    next: usize,
    out: Out,
    workspace: Workspace,
    threads: Threads<'static>,
}

impl<A: Lhs> Runner<A> {
    fn new(
        problem: &Arc<Problem<A>>,
        packs: &Arc<Vec<PackedB>>,
        threads: Threads<'static>,
    ) -> Self {
        Self {
            problem: Arc::clone(problem),
            packs: Arc::clone(packs),
            next: 0,
            out: Out::new(problem.output, problem.shape.m * problem.shape.n),
            workspace: Workspace::new(),
            threads,
        }
    }

    fn run(&mut self) -> Result<(), KernelError> {
        let pack = &self.packs[self.next];
        self.next = if self.next + 1 == self.packs.len() {
            0
        } else {
            self.next + 1
        };
        self.problem
            .run(pack, &mut self.out, &mut self.workspace, self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{field, run_all};

    #[test]
    fn every_combination_runs_and_is_right() {
        run_all(jobs(&Wanted {
            shapes: crate::shapes::parse("1x1x1,3x7x5,40x33x17").unwrap(),
            lefts: vec![Left::U8, Left::I8],
            outputs: vec![Output::I32, Output::U8, Output::F32],
            weights: vec![Weights::Hot],
            distributions: vec![Distribution::Uniform, Distribution::Bell],
        }));
    }

    #[test]
    fn cold_weights_are_more_than_the_caches_hold() {
        let field = Field {
            isas: vec![Isa::SCALAR],
            ..field()
        };
        let spec = Spec {
            shape: Shape {
                m: 1,
                k: 1024,
                n: 1024,
            },
            left: Left::U8,
            output: Output::I32,
            weights: Weights::Cold,
            distribution: Distribution::Uniform,
        };
        let cell = cell(spec, &field).unwrap();
        let most = cell.contenders[0]
            .demands
            .iter()
            .find_map(|demand| match demand.kind {
                Kind::Read(bytes) => Some(bytes),
                _ => None,
            });
        assert!(most.unwrap() >= 2 * field.machine.l3);
    }

    #[test]
    fn outputs_are_neither_all_clamped_nor_all_equal() {
        // A requantization that always saturates would be another thing to time.
        let shape = Shape {
            m: 8,
            k: 256,
            n: 32,
        };
        let spec = Spec {
            shape,
            left: Left::U8,
            output: Output::U8,
            weights: Weights::Hot,
            distribution: Distribution::Uniform,
        };
        let mut source = Source::new(9);
        let (a, b) = (source.u8s(shape.m * shape.k), source.i8s(shape.k * shape.n));
        let problem = Problem::new(spec, a, 128, &mut source);
        let b = MatRef::new(&b, shape.k, shape.n).unwrap();
        let packed = PackedB::pack(Isa::SCALAR, b, Layout::RowMajor).unwrap();
        let answer = problem.answer(&packed).unwrap().bits(0..shape.m * shape.n);
        let clamped = answer.iter().filter(|&&q| q == 0 || q == 255).count();
        assert!(
            clamped < answer.len() / 5,
            "{clamped} of {} are at an end",
            answer.len()
        );
        assert!(answer.iter().any(|&q| q.abs_diff(answer[0]) > 16));
    }

    #[test]
    fn scattered_rows_are_inside_and_have_both_ends() {
        for m in [1, 2, 23, 24, 25, 1000] {
            let rows: Vec<usize> = scattered(m).collect();
            assert_eq!(rows[0], 0);
            assert_eq!(rows[rows.len() - 1], m - 1);
            assert!(rows.is_sorted_by(|a, b| a < b), "{m}: {rows:?}");
        }
    }
}
