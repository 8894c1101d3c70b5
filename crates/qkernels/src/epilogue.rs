//! What happens to the exact sums before they are stored: the types that describe it.

use qformat::{DType, QParams};

use crate::KernelError;
use crate::view::MatMut;

/// Multiplies the sums before they become f32, u8 or i8.
#[derive(Debug, Clone, Copy, Default)]
pub enum Scale<'a> {
    /// No multiplication.
    #[default]
    None,
    /// One factor for all elements: `S_a · S_b` to dequantize, `S_a · S_b / S_out` to requantize.
    Tensor(f32),
    /// One factor for every output column.
    Channel(&'a [f32]),
}

/// What happens to the exact sums before they are stored.
///
/// For the sum `acc` of one output element, zero points already taken off, in this order:
///
/// 1. `acc + bias` in i32 (exact: a bias that could overflow is refused);
/// 2. `v = f32(acc) · scale`, one rounding for the conversion and one for the product;
/// 3. `v + bias_f32`, one rounding;
/// 4. f32 output: `v > min ? v : min`, then `v < max ? v : max` (NaN becomes `min`);
///    u8 and i8 output: `rne(v) + zero_point`, saturated to `[min, max]`, NaN gives `min`.
///
/// No step is fused with another, so every tier gives the same bits.
///
/// ```
/// use qkernels::{Epilogue, Scale};
/// let bias = [3, -4];
/// let ep = Epilogue { bias: Some(&bias), scale: Scale::Tensor(0.5), ..Epilogue::default() };
/// assert!(ep.clamp.is_none());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added to the sums of every row: one value a column, in units of the accumulator
    /// (`S_a · S_b`).
    pub bias: Option<&'a [i32]>,
    /// Factors; not possible with i32 output.
    pub scale: Scale<'a>,
    /// Added after scaling: one value a column, in units of the scaled value; not possible with
    /// i32 output.
    pub bias_f32: Option<&'a [f32]>,
    /// Lower and upper limit of f32 outputs: `(0.0, f32::INFINITY)` is a `ReLU`. Quantized outputs
    /// are limited by [`OutParams`] instead.
    pub clamp: Option<(f32, f32)>,
}

/// How a quantized output stores its values.
///
/// A `ReLU` between quantized tensors is `min` raised to the zero point; a clamp is `min` and `max`
/// at the quantized limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutParams {
    /// Added after rounding: the integer that stands for 0.0.
    pub zero_point: i32,
    /// Lowest value stored.
    pub min: i32,
    /// Highest value stored.
    pub max: i32,
}

impl From<&QParams> for OutParams {
    fn from(p: &QParams) -> OutParams {
        OutParams {
            zero_point: p.zero_point(),
            min: p.range().min(),
            max: p.range().max(),
        }
    }
}

impl OutParams {
    pub(crate) fn check(&self, dtype: DType) -> Result<(), KernelError> {
        let OutParams {
            zero_point,
            min,
            max,
        } = *self;
        let inside = |v: i32| {
            dtype
                .int_range()
                .is_some_and(|(lo, hi)| (lo..=hi).contains(&v))
        };
        if inside(zero_point) && inside(min) && inside(max) && min <= max {
            Ok(())
        } else {
            Err(KernelError::OutParams {
                zero_point,
                min,
                max,
                dtype,
            })
        }
    }
}

/// Where the results go, and in which type.
#[derive(Debug)]
pub enum OutMut<'a> {
    /// The sums themselves (plus the integer bias).
    I32(MatMut<'a, i32>),
    /// Scaled sums.
    F32(MatMut<'a, f32>),
    /// Requantized to u8.
    U8(MatMut<'a, u8>, OutParams),
    /// Requantized to i8.
    I8(MatMut<'a, i8>, OutParams),
}

impl OutMut<'_> {
    /// Rows and columns of the output.
    #[must_use]
    pub const fn shape(&self) -> (usize, usize) {
        match self {
            OutMut::I32(m) => (m.rows(), m.cols()),
            OutMut::F32(m) => (m.rows(), m.cols()),
            OutMut::U8(m, _) => (m.rows(), m.cols()),
            OutMut::I8(m, _) => (m.rows(), m.cols()),
        }
    }

    /// Element type of the output.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        match self {
            OutMut::I32(_) => DType::I32,
            OutMut::F32(_) => DType::F32,
            OutMut::U8(..) => DType::U8,
            OutMut::I8(..) => DType::I8,
        }
    }
}

impl Epilogue<'_> {
    /// Checks lengths against `n` columns and the steps against the output.
    pub(crate) fn check(&self, n: usize, out: &OutMut<'_>) -> Result<(), KernelError> {
        let output = out.dtype();
        if let Some(bias) = self.bias {
            crate::error::check_len("bias", bias.len(), n)?;
        }
        if let Scale::Channel(scale) = self.scale {
            crate::error::check_len("scale", scale.len(), n)?;
        }
        if let Some(bias) = self.bias_f32 {
            crate::error::check_len("bias_f32", bias.len(), n)?;
        }
        if let Some((min, max)) = self.clamp
            && (min.is_nan() || max.is_nan() || min > max)
        {
            return Err(KernelError::Clamp { min, max });
        }
        let refuse = |step, hint| Err(KernelError::Epilogue { step, output, hint });
        match out {
            OutMut::I32(_) => {
                if !matches!(self.scale, Scale::None) {
                    return refuse("scale", "use f32, u8 or i8 output");
                }
                if self.bias_f32.is_some() {
                    return refuse("bias_f32", "use bias");
                }
                if self.clamp.is_some() {
                    return refuse("clamp", "use f32, u8 or i8 output");
                }
            }
            OutMut::F32(_) => {}
            OutMut::U8(_, p) | OutMut::I8(_, p) => {
                p.check(output)?;
                if self.clamp.is_some() {
                    return refuse("clamp", "use min and max of the output parameters");
                }
            }
        }
        Ok(())
    }
}
