//! Dot products of vectors.

use half::{bf16, f16};

use crate::error::check_len;
use crate::isa::{Task, Tier};
use crate::zero_point::check_depth;
use crate::{Isa, KernelError, Lhs, Operand, ZeroPoints};

/// `Σ a[i] · b[i]` of bytes, u8 and i8 in any combination, exact in i32.
///
/// # Errors
///
/// [`KernelError::Length`] when the lengths differ, [`KernelError::Depth`] when the sum could leave
/// i32: beyond 65,793 elements of u8 by i8, 131,071 of i8 by i8, 33,025 of u8 by u8.
///
/// ```
/// use qkernels::{Isa, dot};
/// assert_eq!(dot(Isa::detect(), &[255u8, 1], &[-128i8, 3])?, -32_637);
/// assert_eq!(dot(Isa::detect(), &[-1i8, 2], &[200u8, 200])?, 200);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
pub fn dot<A: Lhs, B: Lhs>(isa: Isa, a: &[A], b: &[B]) -> Result<i32, KernelError> {
    check_len("b", b.len(), a.len())?;
    let range = |dtype: qformat::DType| dtype.int_range().unwrap_or((i32::MIN, i32::MAX));
    let zp = ZeroPoints::default();
    check_depth(a.len(), &zp, range(A::DTYPE), range(B::DTYPE))?;
    Ok(isa.enter(Dot { a, b }))
}

/// The sum as a task, for slices of equal length that were checked.
pub(crate) struct Dot<'a, A, B> {
    pub(crate) a: &'a [A],
    pub(crate) b: &'a [B],
}

/// Bytes of B that are made signed at a time, on the stack.
const SIGNED: usize = 512;

impl<A: Lhs, B: Lhs> Task for Dot<'_, A, B> {
    type Output = i32;

    #[inline(always)]
    fn run<T: Tier>(self, tier: T) -> i32 {
        let Dot { a, b } = self;
        if B::DTYPE.is_signed() {
            return tier.dot(a, bytemuck::cast_slice(b));
        }
        if A::DTYPE.is_signed() {
            // The signed one comes second.
            return tier.dot::<u8>(bytemuck::cast_slice(b), bytemuck::cast_slice(a));
        }
        // b = (b − 128) + 128. Modulo 2^32 on the way: the whole sum fits.
        let b: &[u8] = bytemuck::cast_slice(b);
        let mut sum = tier.sum(a).wrapping_mul(128);
        let mut signed = [0i8; SIGNED];
        for (a, b) in a.chunks(SIGNED).zip(b.chunks(SIGNED)) {
            for (to, &b) in signed.iter_mut().zip(b) {
                *to = (b ^ 0x80) as i8;
            }
            sum = sum.wrapping_add(tier.dot(a, &signed[..a.len()]));
        }
        sum
    }
}

/// `Σ a[i] · b[i]` of i16, exact in i64 at every length.
///
/// # Errors
///
/// [`KernelError::Length`] when the lengths differ.
///
/// ```
/// use qkernels::{Isa, dot_i64};
/// assert_eq!(dot_i64(Isa::detect(), &[i16::MIN; 3], &[i16::MIN; 3])?, 3 << 30);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
pub fn dot_i64(isa: Isa, a: &[i16], b: &[i16]) -> Result<i64, KernelError> {
    struct Sum<'a>(&'a [i16], &'a [i16]);
    impl Task for Sum<'_> {
        type Output = i64;
        #[inline(always)]
        fn run<T: Tier>(self, _tier: T) -> i64 {
            let products = self.0.iter().zip(self.1);
            products.fold(0, |sum, (&a, &b)| {
                sum + i64::from(i32::from(a) * i32::from(b))
            })
        }
    }
    check_len("b", b.len(), a.len())?;
    Ok(isa.enter_shared(Sum(a, b)))
}

/// Floats of 16 bits: f16 and bf16.
pub trait HalfFloat: Operand {}

impl HalfFloat for f16 {}
impl HalfFloat for bf16 {}

/// Lanes that a dot product of floats is summed in.
pub(crate) const DOT_LANES: usize = 64;

/// `Σ a[i] · b[i]` of f16 or bf16 in f32, in an order that no tier changes: element `i` is added to
/// lane `i mod 64` by a fused multiply-add, in the order of `i`; then lane `j` takes lane `j + 32`,
/// then `j + 16`, and so on down to one. A NaN is always the same quiet one.
///
/// # Errors
///
/// [`KernelError::Length`] when the lengths differ.
///
/// ```
/// use half::bf16;
/// use qkernels::{Isa, dot_f32};
/// let a = [1.5, 2.0].map(bf16::from_f32);
/// assert_eq!(dot_f32(Isa::detect(), &a, &a)?, 6.25);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
pub fn dot_f32<F: HalfFloat>(isa: Isa, a: &[F], b: &[F]) -> Result<f32, KernelError> {
    struct Sum<'a, F>(&'a [F], &'a [F]);
    impl<F: HalfFloat> Task for Sum<'_, F> {
        type Output = f32;
        #[inline(always)]
        fn run<T: Tier>(self, tier: T) -> f32 {
            use crate::elementwise::Elementwise as _;
            let mut lanes = tier.elementwise().dot_lanes(self.0, self.1);
            let mut half = DOT_LANES / 2;
            while half > 0 {
                for j in 0..half {
                    lanes[j] += lanes[j + half];
                }
                half /= 2;
            }
            if lanes[0].is_nan() {
                f32::NAN
            } else {
                lanes[0]
            }
        }
    }
    check_len("b", b.len(), a.len())?;
    Ok(isa.enter_shared(Sum(a, b)))
}
