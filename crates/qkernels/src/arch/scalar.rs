//! The tier that runs everywhere: plain Rust.

use super::plain::{self, Plain};
use crate::depthwise::lanes::PlainLanes;
use crate::elementwise::Elementwise;
use crate::isa::{Task, Tier};

/// The proof that plain Rust runs.
#[derive(Clone, Copy)]
pub(crate) struct Scalar(());

impl Scalar {
    pub(crate) const NEW: Scalar = Scalar(());
}

impl Tier for Scalar {
    type Int8 = Plain<plain::Int8>;
    type Int16 = Plain<plain::Int16>;
    type F16 = Plain<plain::F16>;
    type F16Sums = Plain<plain::F16Sums>;
    type Bf16 = Plain<plain::Bf16>;
    type Bf16Hardware = Plain<plain::Bf16>;
    type Elementwise = Scalar;
    type Depthwise = PlainLanes;

    fn detect() -> Option<Self> {
        Some(Scalar::NEW)
    }

    fn depthwise(self) -> PlainLanes {
        PlainLanes
    }

    #[inline(always)]
    fn elementwise(self) -> Scalar {
        self
    }

    // A function of its own, as of other tiers: inlined, its loops would be compiled wherever they
    // are called.
    #[inline(never)]
    fn enter<K: Task>(self, task: K) -> K::Output {
        task.run(self)
    }
}

/// The plain forms.
impl Elementwise for Scalar {
    type Home = Scalar;
}
