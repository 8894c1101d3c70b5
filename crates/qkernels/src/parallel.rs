//! Who does the work.

use crate::workspace::Line;

/// Which threads a call may use. Nothing is ever spawned behind the caller's back, and the result
/// does not depend on the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Threads {
    /// The calling thread.
    #[default]
    Single,
    /// The rayon pool that the caller runs in (the global one outside of any). Small problems
    /// stay on the calling thread.
    #[cfg(feature = "rayon")]
    Rayon,
}

impl Threads {
    /// How many threads there are at most.
    pub(crate) fn count(self) -> usize {
        match self {
            Threads::Single => 1,
            #[cfg(feature = "rayon")]
            Threads::Rayon => rayon::current_num_threads(),
        }
    }

    /// Runs `work` for every share, each with its own `size` lines of scratch.
    pub(crate) fn for_each(
        self,
        shares: usize,
        scratch: &mut [Line],
        size: usize,
        work: &(impl Fn(usize, &mut [Line]) + Sync),
    ) {
        match self {
            #[cfg(feature = "rayon")]
            Threads::Rayon if shares > 1 => fork(0, shares, scratch, size, work),
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
    work: &(impl Fn(usize, &mut [Line]) + Sync),
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
