//! Who does the work.

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::workspace::Line;

/// The caller's own threads: whatever runs loops in parallel in the program that links us.
///
/// ```
/// use std::thread;
/// use qkernels::ParallelFor;
///
/// /// Starts threads for every call; a real pool keeps them.
/// struct Scoped(usize);
///
/// impl ParallelFor for Scoped {
///     fn threads(&self) -> usize {
///         self.0
///     }
///     fn run(&self, shares: usize, work: &(dyn Fn(usize) + Sync)) {
///         thread::scope(|s| {
///             for share in 1..shares {
///                 s.spawn(move || work(share));
///             }
///             work(0);
///         });
///     }
/// }
/// # let pool = Scoped(2);
/// # let sum = std::sync::atomic::AtomicUsize::new(0);
/// # pool.run(3, &|i| { sum.fetch_add(i, std::sync::atomic::Ordering::Relaxed); });
/// # assert_eq!(sum.into_inner(), 3);
/// ```
pub trait ParallelFor: Sync {
    /// How many threads there are: work is cut into at most so many shares.
    fn threads(&self) -> usize;

    /// Calls `work` once for every share in `0..shares`, in any order and on any threads, and
    /// returns when all are done.
    fn run(&self, shares: usize, work: &(dyn Fn(usize) + Sync));
}

/// Which threads a call may use. Nothing is ever spawned behind the caller's back, and the result
/// does not depend on the choice.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub enum Threads<'a> {
    /// The calling thread.
    #[default]
    Single,
    /// The rayon pool that the caller runs in (the global one outside of any). Small problems
    /// stay on the calling thread.
    #[cfg(feature = "rayon")]
    Rayon,
    /// The caller's own loop.
    Custom(&'a dyn ParallelFor),
}

/// Two loops of callers are equal when they are the same one.
impl PartialEq for Threads<'_> {
    fn eq(&self, other: &Threads<'_>) -> bool {
        match (self, other) {
            (Threads::Single, Threads::Single) => true,
            #[cfg(feature = "rayon")]
            (Threads::Rayon, Threads::Rayon) => true,
            (Threads::Custom(a), Threads::Custom(b)) => core::ptr::addr_eq(*a, *b),
            _ => false,
        }
    }
}

impl Eq for Threads<'_> {}

impl fmt::Debug for Threads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threads::Single => f.write_str("Single"),
            #[cfg(feature = "rayon")]
            Threads::Rayon => f.write_str("Rayon"),
            Threads::Custom(pool) => write!(f, "Custom({} threads)", pool.threads()),
        }
    }
}

/// Scratch of all shares, handed out one share at a time.
struct Scratch {
    first: *mut Line,
    size: usize,
}

// SAFETY: a `Scratch` is an exclusively borrowed slice of plain data, of which every share takes a
// part of its own, once.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// The part of a share.
    ///
    /// # Safety
    ///
    /// `share` is inside the slice, and no other reference to this part is in use.
    #[allow(clippy::mut_from_ref, reason = "that is what the caller promises")]
    unsafe fn part(&self, share: usize) -> &mut [Line] {
        // SAFETY: as promised by the caller.
        unsafe { core::slice::from_raw_parts_mut(self.first.add(share * self.size), self.size) }
    }
}

impl Threads<'_> {
    /// How many threads there are at most.
    pub(crate) fn count(self) -> usize {
        match self {
            Threads::Single => 1,
            #[cfg(feature = "rayon")]
            Threads::Rayon => rayon::current_num_threads(),
            Threads::Custom(pool) => pool.threads().max(1),
        }
    }

    /// Runs `work` for every share, each with its own `size` lines of scratch.
    pub(crate) fn for_each(
        self,
        shares: usize,
        scratch: &mut [Line],
        size: usize,
        work: &(dyn Fn(usize, &mut [Line]) + Sync),
    ) {
        // Without the loops below, which divide.
        if shares == 1 {
            return work(0, &mut scratch[..size]);
        }
        match self {
            #[cfg(feature = "rayon")]
            Threads::Rayon if shares > 1 => fork(0, shares, scratch, size, work),
            Threads::Custom(pool) if shares > 1 => {
                assert!(scratch.len() / size.max(1) >= shares || size == 0);
                let scratch = Scratch {
                    first: scratch.as_mut_ptr(),
                    size,
                };
                // Whatever numbers a foreign loop calls with, and however often: every share is
                // taken once, by whoever comes next.
                let next = AtomicUsize::new(0);
                let take = |_: usize| {
                    let share = next.fetch_add(1, Ordering::Relaxed);
                    if share < shares {
                        // SAFETY: below the count that the slice holds, and taken once.
                        work(share, unsafe { scratch.part(share) });
                    }
                };
                pool.run(shares, &take);
                // What a loop that called too seldom has left.
                while next.load(Ordering::Relaxed) < shares {
                    take(0);
                }
            }
            _ => {
                for (i, scratch) in scratch.chunks_exact_mut(size).take(shares).enumerate() {
                    work(i, scratch);
                }
            }
        }
    }
}

/// Halves the shares until one is left: no allocation, and no lock beyond the pool's own.
#[cfg(feature = "rayon")]
fn fork(
    first: usize,
    count: usize,
    scratch: &mut [Line],
    size: usize,
    work: &(dyn Fn(usize, &mut [Line]) + Sync),
) {
    if count == 1 {
        return work(first, scratch);
    }
    let half = count / 2;
    let (left, right) = scratch.split_at_mut(half * size);
    rayon::join(
        || fork(first, half, left, size, work),
        || fork(first + half, count - half, right, size, work),
    );
}
