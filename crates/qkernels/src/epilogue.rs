//! What happens to the exact sums before they are stored: the types that describe it.

use half::{bf16, f16};
use qformat::{DType, QParams};

use crate::view::{MatMut, MatRef};
use crate::{Arithmetic, KernelError};

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

/// A tensor that is added to the product, element by element: the other branch of a residual
/// block.
///
/// Of the same shape as the output.
#[derive(Debug, Clone, Copy)]
pub enum Residual<'a> {
    /// In units of the scaled value.
    F32(MatRef<'a, f32>),
    /// Quantized: adds `(q − zero_point) · multiplier`, the difference exact, the product rounded.
    /// The multiplier is `S_residual` with float output, `S_residual / S_out` with a quantized one.
    U8 {
        /// The quantized elements.
        q: MatRef<'a, u8>,
        /// The integer that stands for 0.0.
        zero_point: u8,
        /// Factor to the unit of the scaled value.
        multiplier: f32,
    },
    /// As [`U8`](Self::U8), signed.
    I8 {
        /// The quantized elements.
        q: MatRef<'a, i8>,
        /// The integer that stands for 0.0.
        zero_point: i8,
        /// Factor to the unit of the scaled value.
        multiplier: f32,
    },
}

impl Residual<'_> {
    /// Rows and columns.
    fn shape(&self) -> (usize, usize) {
        match self {
            Residual::F32(m) => (m.rows(), m.cols()),
            Residual::U8 { q, .. } => (q.rows(), q.cols()),
            Residual::I8 { q, .. } => (q.rows(), q.cols()),
        }
    }

    /// Adds the elements of row `i` from column `j` on.
    #[inline(always)]
    pub(crate) fn add(&self, i: usize, j: usize, v: &mut [f32]) {
        #[inline(always)]
        fn quantized<T: Copy + Into<i32>>(
            q: &MatRef<'_, T>,
            (i, j): (usize, usize),
            zero_point: i32,
            multiplier: f32,
            v: &mut [f32],
        ) {
            for (v, q) in v.iter_mut().zip(q.elements(i).skip(j)) {
                *v += (q.into() - zero_point) as f32 * multiplier;
            }
        }
        match *self {
            Residual::F32(m) => {
                for (v, x) in v.iter_mut().zip(m.elements(i).skip(j)) {
                    *v += x;
                }
            }
            Residual::U8 {
                q,
                zero_point,
                multiplier,
            } => quantized(&q, (i, j), zero_point.into(), multiplier, v),
            Residual::I8 {
                q,
                zero_point,
                multiplier,
            } => quantized(&q, (i, j), zero_point.into(), multiplier, v),
        }
    }
}

/// What happens to the sums before they are stored.
///
/// For the sum `acc` of one output element, zero points already taken off, in this order:
///
/// 1. integers: `acc + bias` in i32 (exact: a bias that could overflow is refused);
/// 2. `v = f32(acc) · scale`, one rounding for the conversion and one for the product; with
///    `row_scale` the factor is `row_scale · scale`, rounded first;
/// 3. `v + bias_f32`, one rounding;
/// 4. `v + residual`, one rounding;
/// 5. float output: `v > min ? v : min`, then `v < max ? v : max` (NaN becomes `min`; without a
///    clamp every NaN is stored as the same quiet one), then rounded to the output's type;
///    u8 and i8 output: `rne(v) + zero_point`, saturated to `[min, max]`, NaN gives `min`;
/// 6. u8 and i8 output: `table[q]`.
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
    /// Factors; not possible with integer sums as output.
    pub scale: Scale<'a>,
    /// One more factor for every output row (a scale of each row of A); not possible with integer
    /// sums as output.
    pub row_scale: Option<&'a [f32]>,
    /// Added after scaling: one value a column, in units of the scaled value; not possible with
    /// i32 output.
    pub bias_f32: Option<&'a [f32]>,
    /// Added after the bias; not possible with integer sums as output.
    pub residual: Option<Residual<'a>>,
    /// Lower and upper limit of float outputs: `(0.0, f32::INFINITY)` is a `ReLU`. Quantized outputs
    /// are limited by [`OutParams`] instead.
    pub clamp: Option<(f32, f32)>,
    /// Any function between two tensors of bytes, GELU or `SiLU` say: the stored byte is the one
    /// that the table has for the requantized one. It is indexed by the byte's bits, so an i8 of
    /// −1 takes entry 255. Only with u8 and i8 output.
    pub table: Option<&'a [u8; 256]>,
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
    /// The integer sums themselves (plus the integer bias).
    I32(MatMut<'a, i32>),
    /// Scaled sums.
    F32(MatMut<'a, f32>),
    /// Scaled sums, rounded to f16.
    F16(MatMut<'a, f16>),
    /// Scaled sums, rounded to bf16.
    Bf16(MatMut<'a, bf16>),
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
            OutMut::F16(m) => (m.rows(), m.cols()),
            OutMut::Bf16(m) => (m.rows(), m.cols()),
            OutMut::F32(m) => (m.rows(), m.cols()),
            OutMut::U8(m, _) => (m.rows(), m.cols()),
            OutMut::I8(m, _) => (m.rows(), m.cols()),
        }
    }

    /// Parameters of a quantized output.
    pub(crate) const fn params(&self) -> Option<OutParams> {
        match self {
            OutMut::U8(_, p) | OutMut::I8(_, p) => Some(*p),
            _ => None,
        }
    }

    /// Element type of the output.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        match self {
            OutMut::I32(_) => DType::I32,
            OutMut::F16(_) => DType::F16,
            OutMut::Bf16(_) => DType::Bf16,
            OutMut::F32(_) => DType::F32,
            OutMut::U8(..) => DType::U8,
            OutMut::I8(..) => DType::I8,
        }
    }
}

impl Epilogue<'_> {
    /// Whether it leaves sums of floats as they are.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.scale, Scale::None)
            && self.row_scale.is_none()
            && self.bias_f32.is_none()
            && self.residual.is_none()
            && self.clamp.is_none()
    }

    /// Checks that the bias cannot push a sum of magnitude up to `bound` out of i32.
    pub(crate) fn check_bias(&self, bound: i32) -> Result<(), KernelError> {
        let max = i32::MAX - bound;
        let bias = self.bias.unwrap_or_default();
        // Their ends are found in vectors, the one that is largest in magnitude is not.
        let ends = |(low, high): (i32, i32), &v: &i32| (low.min(v), high.max(v));
        let (low, high) = bias.iter().fold((0, 0), ends);
        let given = if low.unsigned_abs() > high.unsigned_abs() {
            low
        } else {
            high
        };
        if given.unsigned_abs() > max.unsigned_abs() {
            return Err(KernelError::Bias { given, max });
        }
        Ok(())
    }

    /// Checks lengths against the output's shape, and the steps against its type.
    pub(crate) fn check(
        &self,
        output: DType,
        (m, n): (usize, usize),
        params: Option<OutParams>,
        arithmetic: Arithmetic,
    ) -> Result<(), KernelError> {
        if let Some(bias) = self.bias {
            crate::error::check_len("bias", bias.len(), n)?;
        }
        if let Scale::Channel(scale) = self.scale {
            crate::error::check_len("scale", scale.len(), n)?;
        }
        if let Some(scale) = self.row_scale {
            crate::error::check_len("row_scale", scale.len(), m)?;
        }
        if let Some(bias) = self.bias_f32 {
            crate::error::check_len("bias_f32", bias.len(), n)?;
        }
        if let Some(residual) = &self.residual {
            crate::error::check_shape("residual", residual.shape(), (m, n))?;
        }
        if let Some((min, max)) = self.clamp
            && (min.is_nan() || max.is_nan() || min > max)
        {
            return Err(KernelError::Clamp { min, max });
        }
        let refuse = |step, hint| Err(KernelError::Epilogue { step, output, hint });
        if self.bias.is_some() && !arithmetic.integer() {
            return refuse("bias", "sums of floats take bias_f32");
        }
        match params {
            None if output == DType::I32 => {
                const FLOATS: &str = "use f32, u8 or i8 output";
                if !arithmetic.integer() {
                    return refuse("integer output", "sums of floats are stored as floats");
                }
                if !matches!(self.scale, Scale::None) {
                    return refuse("scale", FLOATS);
                }
                if self.row_scale.is_some() {
                    return refuse("row_scale", FLOATS);
                }
                if self.bias_f32.is_some() {
                    return refuse("bias_f32", "use bias");
                }
                if self.residual.is_some() {
                    return refuse("residual", FLOATS);
                }
                if self.clamp.is_some() {
                    return refuse("clamp", FLOATS);
                }
            }
            None => {}
            Some(p) => {
                p.check(output)?;
                if self.clamp.is_some() {
                    return refuse("clamp", "use min and max of the output parameters");
                }
            }
        }
        if self.table.is_some() && params.is_none() {
            return refuse("table", "use u8 or i8 output");
        }
        Ok(())
    }
}
