//! What peers are asked to do.

use qformat::{DType, QParams};

use crate::convs::Geometry;
use crate::shapes::Shape;
use crate::values::Values;

/// One piece of work, with the numbers that go in.
#[derive(Debug, Clone, Copy)]
pub enum Task<'a> {
    /// A matrix product.
    MatMul(MatMul<'a>),
    /// A convolution.
    Conv(Conv<'a>),
    /// A value for each value.
    Map(Map<'a>),
}

/// C = A·B, `batch` times: A is M×K, B is K×N, C is M×N, all row by row.
#[derive(Debug, Clone, Copy)]
pub struct MatMul<'a> {
    /// Each product.
    pub shape: Shape,
    /// How many products, one behind the other in A, B and C.
    pub batch: usize,
    /// The left operands.
    pub a: Values<'a>,
    /// The right operands.
    pub b: Values<'a>,
    /// How the right operands are to be held.
    pub weights: Weights,
    /// What becomes of the sums.
    pub finish: Finish<'a>,
}

/// How the right operands of a product are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// Packed ahead, so many equal copies, which the calls take in turn.
    Packed(usize),
    /// As they are: activations that are new in each call.
    Plain,
}

/// What becomes of the sums.
#[derive(Debug, Clone, Copy)]
pub enum Finish<'a> {
    /// They are stored as they are: i32 for integers, f32 for floats.
    Sums,
    /// Zero points, bias and scales are applied.
    Scaled(Scaled<'a>),
}

/// `(sum of (a − zero_point_a)·(b − zero_point_b) + bias) · scale`, for each output channel.
#[derive(Debug, Clone, Copy)]
pub struct Scaled<'a> {
    /// The zero point of A.
    pub zero_point_a: i32,
    /// The zero point of B.
    pub zero_point_b: i32,
    /// Added to the sums of each output channel.
    pub bias: &'a [i32],
    /// A factor for each output channel.
    pub scales: &'a [f32],
    /// To what.
    pub output: Requantize,
}

/// What scaled sums become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requantize {
    /// f32, negative values cut off.
    Relu,
    /// u8 around this zero point.
    U8(i32),
}

impl Finish<'_> {
    /// The element type of the result of integer operands.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Finish::Sums => DType::I32,
            Finish::Scaled(scaled) => match scaled.output {
                Requantize::Relu => DType::F32,
                Requantize::U8(_) => DType::U8,
            },
        }
    }
}

/// A convolution of activations in NHWC order; weights are outputs × inputs of a group × kernel
/// height × kernel width.
#[derive(Debug, Clone, Copy)]
pub struct Conv<'a> {
    /// The sizes.
    pub geometry: Geometry,
    /// The activations, u8 or i8.
    pub a: Values<'a>,
    /// The weights.
    pub weights: &'a [i8],
    /// What becomes of the sums; the weights' zero point is 0.
    pub finish: Finish<'a>,
}

/// A value for each value.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    /// Which.
    pub op: MapOp,
    /// The values.
    pub input: Values<'a>,
    /// The element type of the result.
    pub output: DType,
}

/// What happens to each value.
#[derive(Debug, Clone, Copy)]
pub enum MapOp {
    /// One float type to another.
    Convert,
    /// f32 to an integer type.
    Quantize(QParams),
    /// An integer type to f32.
    Dequantize(QParams),
}
