//! f32 to integers and back.
//!
//! One loop for all tiers, written so that the compiler vectorises it inside each tier's door:
//! division, two clamps that send NaN to the lowest value, and rounding by adding 1.5 · 2^23,
//! which is round-half-even in the processor's default mode and leaves the integer in the low
//! bits. Clamping before rounding gives the same value as after it, because rounding is monotone
//! and the limits are integers.

use qformat::{QParams, QuantElement};

use crate::error::check_len;
use crate::isa::{Task, Tier};
use crate::{Isa, KernelError};

/// 1.5 · 2^23: a float of magnitude up to 2^22 added to it has its integer part, rounded half to
/// even, in the low bits of the sum.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// Limits within which [`round_clamped`] is exact.
pub(crate) const ROUND_LIMIT: i32 = 1 << 22;

/// `rne(v)` limited to `[lo, hi]`; NaN gives `lo`. The limits must be integers within
/// ±[`ROUND_LIMIT`].
#[inline(always)]
pub(crate) fn round_clamped(v: f32, lo: f32, hi: f32) -> i32 {
    // In this form NaN takes `lo`, and each line is one vector instruction.
    let v = if v > lo { v } else { lo };
    let v = if v < hi { v } else { hi };
    ((v + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// The limits that `[min, max]` puts on a rounded value before the zero point is added, if they
/// are small enough for [`round_clamped`].
#[inline]
pub(crate) fn limits(zero_point: i32, min: i32, max: i32) -> Option<(f32, f32)> {
    let (lo, hi) = (min.checked_sub(zero_point)?, max.checked_sub(zero_point)?);
    let small = -ROUND_LIMIT..=ROUND_LIMIT;
    // Exact: integers below 2^24.
    (small.contains(&lo) && small.contains(&hi)).then_some((lo as f32, hi as f32))
}

pub(crate) fn check_type<T: QuantElement>(params: &QParams) -> Result<(), KernelError> {
    if params.dtype() == T::DTYPE {
        Ok(())
    } else {
        Err(KernelError::Type {
            given: params.dtype(),
            expected: T::DTYPE,
        })
    }
}

/// Quantizes: `out[i] = saturate(rne(x[i] / S) + Z)`, as [`QParams::quantize`] but vectorised.
/// ±∞ saturates, NaN gives the lowest value.
///
/// # Errors
///
/// [`KernelError::Length`] when the lengths differ, [`KernelError::Type`] when the parameters are
/// for another type than `T`.
///
/// ```
/// use qformat::{DType, QParams, Scheme};
/// use qkernels::{Isa, quantize};
/// let p = QParams::new(0.5, 3, DType::U8, Scheme::Affine)?;
/// let mut q = [0u8; 3];
/// quantize(Isa::detect(), &[1.25, -9.0, f32::INFINITY], &p, &mut q)?;
/// assert_eq!(q, [5, 0, 255]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn quantize<T: QuantElement>(
    isa: Isa,
    x: &[f32],
    params: &QParams,
    out: &mut [T],
) -> Result<(), KernelError> {
    check_type::<T>(params)?;
    check_len("out", out.len(), x.len())?;
    isa.enter(Quantize { x, params, out });
    Ok(())
}

struct Quantize<'a, T> {
    x: &'a [f32],
    params: &'a QParams,
    out: &'a mut [T],
}

impl<E: QuantElement> Task for Quantize<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) {
        let p = self.params;
        let (scale, z) = (p.scale(), p.zero_point());
        match limits(z, p.range().min(), p.range().max()) {
            Some((lo, hi)) => {
                for (o, &x) in self.out.iter_mut().zip(self.x) {
                    *o = E::saturate(round_clamped(x / scale, lo, hi) + z);
                }
            }
            // i32: its range is wider than f32's integers.
            None => {
                for (o, &x) in self.out.iter_mut().zip(self.x) {
                    *o = E::saturate(p.quantize(x));
                }
            }
        }
    }
}

/// Dequantizes: `out[i] = S · (q[i] − Z)`, as [`QParams::dequantize`] but vectorised.
///
/// # Errors
///
/// As [`quantize`].
///
/// ```
/// use qformat::{DType, QParams, Scheme};
/// use qkernels::{Isa, dequantize};
/// let p = QParams::new(0.5, 3, DType::U8, Scheme::Affine)?;
/// let mut x = [0f32; 2];
/// dequantize(Isa::detect(), &[5u8, 0], &p, &mut x)?;
/// assert_eq!(x, [1.0, -1.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn dequantize<T: QuantElement>(
    isa: Isa,
    q: &[T],
    params: &QParams,
    out: &mut [f32],
) -> Result<(), KernelError> {
    check_type::<T>(params)?;
    check_len("out", out.len(), q.len())?;
    isa.enter(Dequantize { q, params, out });
    Ok(())
}

struct Dequantize<'a, T> {
    q: &'a [T],
    params: &'a QParams,
    out: &'a mut [f32],
}

impl<E: QuantElement> Task for Dequantize<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) {
        let p = self.params;
        let (scale, z) = (p.scale(), p.zero_point());
        if E::DTYPE.bits() <= 16 {
            // Both are below 2^16, so the difference fits.
            for (o, &q) in self.out.iter_mut().zip(self.q) {
                *o = (q.to_i32() - z) as f32 * scale;
            }
        } else {
            for (o, &q) in self.out.iter_mut().zip(self.q) {
                *o = p.dequantize(q.to_i32());
            }
        }
    }
}
