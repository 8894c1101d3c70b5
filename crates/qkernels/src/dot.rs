//! Dot products of bytes.

use crate::error::check_len;
use crate::isa::{Task, Tier};
use crate::zero_point::{ZeroPoints, check_depth};
use crate::{Isa, KernelError, Lhs};

/// `Σ a[i] · b[i]`, exact in i32.
///
/// # Errors
///
/// [`KernelError::Length`] when the lengths differ, [`KernelError::Depth`] when the sum could
/// leave i32: beyond 65,793 elements for u8, 131,071 for i8.
///
/// ```
/// use qkernels::{Isa, dot};
/// assert_eq!(dot(Isa::detect(), &[255u8, 1], &[-128i8, 3])?, -32_637);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
pub fn dot<A: Lhs>(isa: Isa, a: &[A], b: &[i8]) -> Result<i32, KernelError> {
    check_len("b", b.len(), a.len())?;
    let range = A::DTYPE.int_range().unwrap_or((i32::MIN, i32::MAX));
    check_depth(a.len(), &ZeroPoints::default(), range, (-128, 127))?;
    Ok(isa.enter(Dot { a, b }))
}

struct Dot<'a, A> {
    a: &'a [A],
    b: &'a [i8],
}

impl<A: Lhs> Task for Dot<'_, A> {
    type Output = i32;

    #[inline(always)]
    fn run<T: Tier>(self, tier: T) -> i32 {
        tier.dot(self.a, self.b)
    }
}
