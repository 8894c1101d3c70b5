//! The tier that runs everywhere: plain Rust.

use crate::isa::{Task, Tier};

/// The proof that plain Rust runs.
#[derive(Clone, Copy)]
pub(crate) struct Scalar(());

impl Scalar {
    pub(crate) const NEW: Scalar = Scalar(());
}

impl Tier for Scalar {
    fn detect() -> Option<Self> {
        Some(Scalar::NEW)
    }

    #[inline(always)]
    fn enter<K: Task>(self, task: K) -> K::Output {
        task.run(self)
    }
}
