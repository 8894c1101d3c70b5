//! f32 to integers and back.
//!
//! # A quotient without dividing
//!
//! The contract rounds twice: `fl(x / S)` to f32, then to an integer. The vector tiers get the same
//! integer from two multiplications. With `h = RN(1/S)` and `l = RN(1/S − h)`,
//! `t = RN(x·h + RN(x·l))` (one fused multiply-add; Brisebarre and Muller, "Correctly rounded
//! multiplication by arbitrary precision constants", IEEE Trans. Computers 57, 2008) is
//! `fl(q(1 + δ))` with `q = x/S` and `|δ| < 2^−46.9`: 2^−53 from 1/S taken in f64, and twice 2^−24
//! of `l`, itself 2^−24 of `h`. Where can the integers of `fl(q)` and `t` differ?
//!
//! 1. Only a half-integer T = n + ½ separates integers. For B-bit types `|n| < 2^B` (beyond, both
//!    saturate), so T = T′·2^e with T′ odd and below 2^(B+1). Its f32 neighbours are one ulp away,
//!    and `fl` changes sides of T only at the midpoints M = T ± ulp/2: as a 25-bit integer (below a
//!    power of two a 26-bit one less 1, the same) `m = T′·2^j ± 1` with `j ≥ 24 − B`.
//! 2. With the significands `a`, `b` of x and S (24 bits) and the right `s ≥ 24`, q = M would be
//!    `a·2^s = b·m`: impossible, because the odd m would divide a, which is smaller.
//! 3. So q is beside M, and t on another side only if `|q/M − 1| ≤ |δ|`, that is
//!    `a·2^s − b·m = c` with `0 < |c| ≤ b·m·|δ| < 2^(24 + 25 − 46.9) < 5`. Modulo 2^(24−B) this
//!    says `b ≡ ±c`.
//!
//! So only significands b within 4 of a multiple of 2^(24−B), but not such a multiple, are open, and
//! for each the congruence leaves a few T to try. A test tries all of them, and exponents do not
//! matter. For bytes not one of the 1,024 open significands errs: two products serve every scale.
//! For 16 bits 405 of 8.4 million err, all with |c| = 1. One scale in 128 is that near and takes two steps
//! more (Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor",
//! 1990): `r = x − t·S`, exact because t is within one ulp of q, and `RN(t + r·h)`, which is
//! `fl(x / S)` because h is the rounded 1/S. Scales outside [2^−100, 2^100], whose steps could
//! overflow or underflow, divide.
//!
//! x is first limited above, by the smaller of x and a value that saturates, so that ∞ does not
//! meet a zero; NaN stays NaN. `cvtps2dq` gives the lowest i32 for NaN, and for −∞ and whatever
//! lies below −2^31: after saturating narrowing all are the lowest value.
//!
//! The plain form divides, clamps so that NaN takes the lowest value, and rounds by adding
//! 1.5 · 2^23, which is round-half-even in the processor's default mode and leaves the integer in
//! the low bits. Clamping before rounding gives the same value as after it, because rounding is
//! monotone and the limits are integers.

use qformat::{QParams, QuantElement};

use crate::elementwise::Elementwise;
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

/// How a tier with fused multiply-add may divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// `RN(x·h + RN(x·l))`.
    Product,
    /// As [`Product`](Self::Product), with the remainder put right.
    Corrected,
    /// `x / S`.
    Division,
}

/// A scale, and how to divide by it.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "only the vector tiers do not divide")]
pub(crate) struct Divisor {
    scale: f32,
    /// `RN(1/S)` and the rounded rest of `1/S`.
    inverse: (f32, f32),
    method: Method,
}

#[allow(dead_code, reason = "only the vector tiers do not divide")]
impl Divisor {
    /// To divide for integers of 8 or 16 bits by a positive finite scale; see the head of the file.
    #[inline]
    pub(crate) fn new(scale: f32, bits: u32) -> Divisor {
        /// 2^−100 and 2^100.
        const SAFE: core::ops::RangeInclusive<f32> = 7.888_609e-31..=1.267_650_6e30;
        let inverse = 1.0 / f64::from(scale);
        let high = inverse as f32;
        let near = bits > 8 && matches!(scale.to_bits() % 256, 1 | 255);
        let method = if !SAFE.contains(&scale) {
            Method::Division
        } else if near {
            Method::Corrected
        } else {
            Method::Product
        };
        Divisor {
            scale,
            inverse: (high, (inverse - f64::from(high)) as f32),
            method,
        }
    }

    /// S.
    #[inline(always)]
    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }

    /// `RN(1/S)` and the rounded rest of `1/S`.
    #[inline(always)]
    pub(crate) fn inverse(&self) -> (f32, f32) {
        self.inverse
    }

    /// The cheapest exact way.
    #[inline(always)]
    pub(crate) fn method(&self) -> Method {
        self.method
    }
}

/// Where rounded values go: a zero point and a range of 16 bits or fewer that ends, above, where
/// the type does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    zero_point: i32,
    min: i32,
    limits: (f32, f32),
}

#[allow(dead_code, reason = "`min` and `top` are for the vector tiers")]
impl Target {
    /// The target of the parameters; `None` where it is too wide for [`round_clamped`].
    #[inline]
    pub(crate) fn new(params: &QParams) -> Option<Target> {
        let (zero_point, range) = (params.zero_point(), params.range());
        Some(Target {
            zero_point,
            min: range.min(),
            limits: limits(zero_point, range.min(), range.max())?,
        })
    }

    /// Z.
    #[inline(always)]
    pub(crate) fn zero_point(&self) -> i32 {
        self.zero_point
    }

    /// The lowest value.
    #[inline(always)]
    pub(crate) fn min(&self) -> i32 {
        self.min
    }

    /// The ends of the range before the zero point is added.
    #[inline(always)]
    pub(crate) fn limits(&self) -> (f32, f32) {
        self.limits
    }

    /// A quotient that saturates, as do all above it.
    #[inline(always)]
    pub(crate) fn top(&self) -> f32 {
        self.limits.1 + 1.0
    }
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
    isa.enter_shared(Quantize { x, params, out });
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
    fn run<T: Tier>(self, tier: T) {
        let p = self.params;
        match Target::new(p) {
            Some(to) => {
                let by = Divisor::new(p.scale(), E::DTYPE.bits());
                tier.elementwise().quantize(self.x, &by, &to, self.out);
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
    isa.enter_shared(Dequantize { q, params, out });
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
    fn run<T: Tier>(self, tier: T) {
        let p = self.params;
        if E::DTYPE.bits() <= 16 {
            let ops = tier.elementwise();
            ops.dequantize(self.q, p.scale(), p.zero_point(), self.out);
        } else {
            for (o, &q) in self.out.iter_mut().zip(self.q) {
                *o = p.dequantize(q.to_i32());
            }
        }
    }
}
