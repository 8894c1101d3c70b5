//! f16 and bf16 to f32 and back, equal to the `half` crate for every input.
//!
//! Narrowing rounds to nearest even, keeps ±∞ and subnormals, and quietens NaN: the sign and the
//! upper payload bits stay and the quiet bit is set. Widening is exact, and quietens NaN alike.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::elementwise::Elementwise;
use crate::error::check_len;
use crate::isa::{Task, Tier};
use crate::{Isa, KernelError};

macro_rules! conversions {
    ($(
        $(#[$doc:meta])*
        $name:ident($task:ident): $from:ty => $to:ty,
        |$ops:ident, $x:ident, $out:ident| $body:expr;
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// [`KernelError::Length`] when the lengths differ.
        pub fn $name(isa: Isa, x: &[$from], out: &mut [$to]) -> Result<(), KernelError> {
            check_len("out", out.len(), x.len())?;
            isa.enter_shared($task { x, out });
            Ok(())
        }

        struct $task<'a> {
            x: &'a [$from],
            out: &'a mut [$to],
        }

        impl Task for $task<'_> {
            type Output = ();

            #[inline(always)]
            fn run<T: Tier>(self, tier: T) {
                let $ops = tier.elementwise();
                let ($x, $out) = (self.x, self.out);
                $body
            }
        }
    )*};
}

conversions! {
    /// Rounds f32 to f16.
    ///
    /// ```
    /// use qkernels::{Isa, convert::f32_to_f16};
    /// use half::f16;
    /// let mut h = [f16::ZERO; 2];
    /// f32_to_f16(Isa::detect(), &[1.0, 1e9], &mut h)?;
    /// assert_eq!(h, [f16::ONE, f16::INFINITY]);
    /// # Ok::<(), qkernels::KernelError>(())
    /// ```
    f32_to_f16(NarrowF16): f32 => f16,
    |ops, x, out| ops.f32_to_f16(x, out.reinterpret_cast_mut());
    /// Widens f16 to f32.
    f16_to_f32(WidenF16): f16 => f32,
    |ops, x, out| ops.f16_to_f32(x.reinterpret_cast(), out);
    /// Rounds f32 to bf16.
    f32_to_bf16(NarrowBf16): f32 => bf16,
    |ops, x, out| ops.f32_to_bf16(x, out.reinterpret_cast_mut());
    /// Widens bf16 to f32.
    bf16_to_f32(WidenBf16): bf16 => f32,
    |ops, x, out| ops.bf16_to_f32(x.reinterpret_cast(), out);
}
