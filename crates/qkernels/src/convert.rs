//! f16 and bf16 to f32 and back, equal to the `half` crate for every input.
//!
//! Narrowing rounds to nearest even, keeps ±∞ and subnormals, and quietens NaN: the sign and the
//! upper payload bits stay and the quiet bit is set. Widening is exact, and quietens NaN alike.

use half::{bf16, f16};

use crate::error::check_len;
use crate::isa::{Task, Tier};
use crate::{Isa, KernelError};

macro_rules! conversions {
    ($(
        $(#[$doc:meta])*
        $name:ident($task:ident): $from:ty => $to:ty, $one:expr;
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// [`KernelError::Length`] when the lengths differ.
        pub fn $name(isa: Isa, x: &[$from], out: &mut [$to]) -> Result<(), KernelError> {
            check_len("out", out.len(), x.len())?;
            isa.enter($task { x, out });
            Ok(())
        }

        struct $task<'a> {
            x: &'a [$from],
            out: &'a mut [$to],
        }

        impl Task for $task<'_> {
            type Output = ();

            #[inline(always)]
            fn run<T: Tier>(self, _tier: T) {
                for (o, &x) in self.out.iter_mut().zip(self.x) {
                    *o = $one(x);
                }
            }
        }
    )*};
}

conversions! {
    /// Rounds f32 to f16.
    f32_to_f16(NarrowF16): f32 => f16, f16::from_f32_const;
    /// Widens f16 to f32.
    f16_to_f32(WidenF16): f16 => f32, f16::to_f32_const;
    /// Rounds f32 to bf16.
    f32_to_bf16(NarrowBf16): f32 => bf16, bf16::from_f32;
    /// Widens bf16 to f32.
    bf16_to_f32(WidenBf16): bf16 => f32, bf16::to_f32;
}
