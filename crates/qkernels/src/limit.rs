//! What the machine can do at best, to measure kernels against.
//!
//! ```
//! use std::time::Instant;
//! use qkernels::{Isa, limit};
//!
//! let start = Instant::now();
//! let operations = limit::int8_dot_loop(Isa::detect(), 10_000);
//! let gops = operations as f64 / start.elapsed().as_secs_f64() / 1e9;
//! assert!(gops > 0.0);
//! ```

use crate::Isa;
use crate::isa::{Task, Tier};

/// Repeats the multiply-accumulate instructions of the tier's byte kernel on registers only: no
/// memory, no dependencies that a kernel would not have. Gives the number of operations done, a
/// multiplication and an addition counting as two; divided by the time taken that is the limit no
/// kernel of the tier can pass on this core.
///
/// The time is the caller's to take. 100,000 iterations take under a millisecond on the vector
/// tiers. On the scalar tier it says what the compiler made of a plain loop.
#[must_use]
pub fn int8_dot_loop(isa: Isa, iterations: u64) -> u64 {
    struct Loop(u64);
    impl Task for Loop {
        type Output = u64;
        #[inline(always)]
        fn run<T: Tier>(self, tier: T) -> u64 {
            tier.int8_limit(self.0)
        }
    }
    isa.enter(Loop(iterations))
}
