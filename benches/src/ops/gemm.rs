//! Matrix products with weights packed ahead.

mod problem;

use std::sync::Arc;

use clap::ValueEnum;
use qformat::{bf16, f16};
use qkernels::{Arithmetic, Isa, Layout, MatRef, Operand, PackedB};

use self::problem::{Problem, Runner};
use super::contest::Contest;
use super::finish::Output;
use super::{Field, Job};
use crate::BenchError;
use crate::data::Source;
use crate::limit::{Demand, Kind};
use crate::measure::Cell;
use crate::peer::{self, MatMul, Task};
use crate::shapes::Shape;
use crate::values::Element;

/// The types of activations and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Types {
    /// u8 activations by i8 weights.
    #[value(name = "u8i8")]
    U8I8,
    /// i8 by i8.
    #[value(name = "i8i8")]
    I8I8,
    /// u8 by u8.
    #[value(name = "u8u8")]
    U8U8,
    /// i8 activations by u8 weights.
    #[value(name = "i8u8")]
    I8U8,
    /// i16 by i16, small enough to sum in i32.
    #[value(name = "i16")]
    I16I16,
    /// f16 by f16, summed in f32 in a fixed order.
    #[value(name = "f16")]
    F16F16,
    /// bf16 by bf16, summed in f32 in a fixed order.
    #[value(name = "bf16")]
    Bf16Bf16,
    /// bf16 by bf16 as the processor's own instruction rounds.
    #[value(name = "bf16-hardware")]
    Bf16Hardware,
}

impl Types {
    /// Left, right, and what their sums are.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Types::U8I8 => ("u8", "i8", "i32"),
            Types::I8I8 => ("i8", "i8", "i32"),
            Types::U8U8 => ("u8", "u8", "i32"),
            Types::I8U8 => ("i8", "u8", "i32"),
            Types::I16I16 => ("i16", "i16", "i32"),
            Types::F16F16 => ("f16", "f16", "f32"),
            Types::Bf16Bf16 | Types::Bf16Hardware => ("bf16", "bf16", "f32"),
        }
    }

    /// Whether sums may be scaled and requantized: those of bytes.
    fn scales(self) -> bool {
        matches!(self, Types::U8I8 | Types::I8I8 | Types::U8U8 | Types::I8U8)
    }
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
    /// Of seven bits, with which the 16-bit sums of other libraries do not saturate.
    Reduced,
}

impl Distribution {
    /// What is said of data whose weights are drawn so: `bell` behind it, say, or nothing.
    pub(super) fn label(self, data: &str) -> String {
        match self {
            Distribution::Uniform => data.to_owned(),
            Distribution::Bell => format!("{data} bell"),
            Distribution::Reduced => format!("{data} reduced"),
        }
    }

    /// Signed bytes drawn so.
    pub(super) fn i8s(self, source: &mut Source, len: usize) -> Vec<i8> {
        match self {
            Distribution::Uniform => source.i8s(len),
            Distribution::Bell => source.bell_i8s(len),
            Distribution::Reduced => source.reduced_i8s(len),
        }
    }
}

/// What is asked for: each combination becomes a cell.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The shapes.
    pub shapes: Vec<Shape>,
    /// The types of the operands.
    pub types: Vec<Types>,
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
    types: Types,
    output: Output,
    weights: Weights,
    distribution: Distribution,
}

impl Spec {
    /// What is said of the weights: `hot`, or `hot bell`.
    fn data(&self) -> String {
        if self.types == Types::Bf16Hardware {
            return "hardware".to_owned();
        }
        self.distribution.label(self.weights.name())
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

/// The name of the operation.
const OP: &str = "gemm";

/// A job for each combination.
#[must_use]
pub fn jobs(wanted: &Wanted) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &shape in &wanted.shapes {
        for &weights in &wanted.weights {
            for &distribution in &wanted.distributions {
                for &types in &wanted.types {
                    for &output in &wanted.outputs {
                        if output != Output::Sums && !types.scales() {
                            continue;
                        }
                        let spec = Spec {
                            shape,
                            types,
                            output,
                            weights,
                            distribution,
                        };
                        jobs.push(Job {
                            label: format!("{OP} {} {shape} {}", names(spec), spec.data()),
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
fn names(spec: Spec) -> String {
    let (a, b, sums) = spec.types.names();
    format!("{a}·{b}→{}", spec.output.name(sums))
}

/// Operands of a type, drawn so that no arithmetic leaves its bounds.
trait Drawn: Operand + Element {
    /// So many of them.
    fn drawn(how: Distribution, source: &mut Source, len: usize) -> Vec<Self>;
}

/// The largest i16 whose square fits i32 16,384 times: more than any shape here is deep.
const LARGEST_I16: f32 = 362.0;

impl Drawn for u8 {
    fn drawn(how: Distribution, source: &mut Source, len: usize) -> Vec<Self> {
        if how == Distribution::Uniform {
            return source.u8s(len);
        }
        let bytes = how.i8s(source, len).into_iter();
        bytes.map(|byte| byte.cast_unsigned() ^ 0x80).collect()
    }
}

impl Drawn for i8 {
    fn drawn(how: Distribution, source: &mut Source, len: usize) -> Vec<Self> {
        how.i8s(source, len)
    }
}

impl Drawn for i16 {
    fn drawn(how: Distribution, source: &mut Source, len: usize) -> Vec<Self> {
        let unit = match how {
            Distribution::Uniform => LARGEST_I16 / 128.0,
            Distribution::Bell | Distribution::Reduced => 1.0,
        };
        let bytes = how.i8s(source, len).into_iter();
        bytes.map(|byte| (f32::from(byte) * unit) as i16).collect()
    }
}

/// Floats are bell-shaped however weights are to be.
impl Drawn for f16 {
    fn drawn(_how: Distribution, source: &mut Source, len: usize) -> Vec<Self> {
        source.f32s(len).into_iter().map(f16::from_f32).collect()
    }
}

/// Floats are bell-shaped however weights are to be.
impl Drawn for bf16 {
    fn drawn(_how: Distribution, source: &mut Source, len: usize) -> Vec<Self> {
        source.f32s(len).into_iter().map(bf16::from_f32).collect()
    }
}

fn cell(spec: Spec, field: &Field) -> Result<Cell, BenchError> {
    match spec.types {
        Types::U8I8 => cell_of::<u8, i8>(spec, field, (128, 2)),
        Types::I8I8 => cell_of::<i8, i8>(spec, field, (-3, 2)),
        Types::U8U8 => cell_of::<u8, u8>(spec, field, (128, 130)),
        Types::I8U8 => cell_of::<i8, u8>(spec, field, (-3, 130)),
        Types::I16I16 => cell_of::<i16, i16>(spec, field, (0, 0)),
        Types::F16F16 => cell_of::<f16, f16>(spec, field, (0, 0)),
        Types::Bf16Bf16 | Types::Bf16Hardware => cell_of::<bf16, bf16>(spec, field, (0, 0)),
    }
}

fn cell_of<A: Drawn, B: Drawn>(
    spec: Spec,
    field: &Field,
    zero_points: (i32, i32),
) -> Result<Cell, BenchError> {
    let Shape { m, k, n } = spec.shape;
    let mut source = Source::new(0x5eed);
    let a = A::drawn(Distribution::Uniform, &mut source, m * k);
    let b = B::drawn(spec.distribution, &mut source, k * n);
    let arithmetic = match spec.types {
        Types::Bf16Hardware => Arithmetic::Bf16Hardware,
        _ => A::ARITHMETIC,
    };
    let problem = Arc::new(Problem::new(spec, a, zero_points, &mut source));
    let copies = match spec.weights {
        Weights::Hot => 1,
        // Packing pads small weights, so this is enough at the least.
        Weights::Cold => (2 * field.machine.l3)
            .div_ceil(k * n * size_of::<B>())
            .min(1 << 16),
    };
    let bytes = k * n * size_of::<B>();
    let task = Task::MatMul(MatMul {
        shape: spec.shape,
        batch: 1,
        a: A::values(&problem.a),
        b: B::values(&b),
        weights: peer::Weights::Packed(copies),
        finish: problem.finishing.of_peers(),
    });
    let rows: Vec<usize> = scattered(m).collect();
    let contest = Contest {
        op: OP,
        shape: (m, k, n),
        batch: 1,
        types: names(spec),
        data: spec.data(),
        ops: spec.shape.ops(),
        places: rows.iter().flat_map(|row| row * n..(row + 1) * n).collect(),
        exact: arithmetic.exact(),
        task: Some(task),
    };
    let pack = |isa| PackedB::pack_with(isa, MatRef::new(&b, k, n)?, Layout::RowMajor, arithmetic);
    let mut packs: Vec<(Isa, Arc<Vec<PackedB>>)> = Vec::new();
    let reference = pack(Isa::SCALAR).and_then(|scalar| problem.rows(&rows).answer(&scalar));
    let expected = reference.map_err(contest.failed(Isa::SCALAR))?;
    contest.cell(
        field,
        expected.values(),
        |isa| demands(spec, arithmetic, isa, bytes, copies),
        |isa, threads| {
            // The same weights serve every team.
            let packed = match packs.iter().find(|(packed, _)| *packed == isa) {
                Some((_, packed)) => Arc::clone(packed),
                None => {
                    let packed = Arc::new(vec![pack(isa)?; copies]);
                    packs.push((isa, Arc::clone(&packed)));
                    packed
                }
            };
            Ok(Box::new(Runner::new(&problem, &packed, threads)))
        },
    )
}

/// What a product asks of the machine at the least, with weights of so many bytes.
fn demands(
    spec: Spec,
    arithmetic: Arithmetic,
    isa: Isa,
    bytes: usize,
    copies: usize,
) -> Vec<Demand> {
    let mut demands = Vec::new();
    let amount = spec.shape.ops();
    match arithmetic {
        Arithmetic::Int8 => demands.push(Demand {
            kind: Kind::Multiply(isa),
            amount,
        }),
        Arithmetic::F16 | Arithmetic::Bf16 => demands.push(Demand {
            kind: Kind::Fused,
            amount,
        }),
        // There is no loop of these instructions to measure against.
        _ => {}
    }
    if spec.shape.m <= ROWS_THAT_STREAM && bytes * copies > BYTES_NEVER_WAITED_FOR {
        demands.push(Demand {
            kind: Kind::Read(bytes * copies),
            amount: bytes as f64,
        });
    }
    demands
}

/// Up to [`ROWS_CHECKED`] rows of `m`, evenly scattered, with both ends.
pub(super) fn scattered(m: usize) -> impl Iterator<Item = usize> {
    let count = m.min(ROWS_CHECKED);
    (0..count).map(move |i| {
        if count == 1 {
            0
        } else {
            i * (m - 1) / (count - 1)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finish::tests::assert_spread;
    use crate::ops::tests::{field, run_all};

    #[test]
    fn every_combination_runs_and_is_right() {
        run_all(jobs(&Wanted {
            shapes: crate::shapes::parse("1x1x1,3x7x5,40x33x17").unwrap(),
            types: Types::value_variants().to_vec(),
            outputs: vec![Output::Sums, Output::U8, Output::F32],
            weights: vec![Weights::Hot],
            distributions: Distribution::value_variants().to_vec(),
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
            types: Types::U8I8,
            output: Output::Sums,
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
        let shape = Shape {
            m: 8,
            k: 256,
            n: 32,
        };
        let spec = Spec {
            shape,
            types: Types::U8I8,
            output: Output::U8,
            weights: Weights::Hot,
            distribution: Distribution::Uniform,
        };
        let mut source = Source::new(9);
        let (a, b) = (source.u8s(shape.m * shape.k), source.i8s(shape.k * shape.n));
        let problem = Problem::new(spec, a, (128, 2), &mut source);
        let b = MatRef::new(&b, shape.k, shape.n).unwrap();
        let packed = PackedB::pack(Isa::SCALAR, b, Layout::RowMajor).unwrap();
        assert_spread(&problem.answer(&packed).unwrap());
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
