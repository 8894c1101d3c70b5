//! Who does the work.

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
