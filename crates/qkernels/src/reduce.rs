//! Reductions over floats.

use crate::Isa;
use crate::isa::{Task, Tier};

/// What [`min_max`] found.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MinMax {
    /// Lowest finite value; `None` when there is none. A zero is always +0.0.
    pub min: Option<f32>,
    /// Highest finite value; `None` when there is none. A zero is always +0.0.
    pub max: Option<f32>,
    /// How many elements are NaN.
    pub nan: u64,
    /// How many elements are +∞.
    pub pos_inf: u64,
    /// How many elements are −∞.
    pub neg_inf: u64,
}

impl MinMax {
    /// Whether every element was finite.
    #[must_use]
    pub const fn all_finite(&self) -> bool {
        self.nan == 0 && self.pos_inf == 0 && self.neg_inf == 0
    }

    /// What one pass over both inputs would have found.
    #[must_use]
    pub fn merge(self, other: MinMax) -> MinMax {
        let pick = |a: Option<f32>, b: Option<f32>, f: fn(f32, f32) -> f32| match (a, b) {
            (Some(a), Some(b)) => Some(f(a, b)),
            (a, b) => a.or(b),
        };
        MinMax {
            min: pick(self.min, other.min, f32::min),
            max: pick(self.max, other.max, f32::max),
            nan: self.nan + other.nan,
            pos_inf: self.pos_inf + other.pos_inf,
            neg_inf: self.neg_inf + other.neg_inf,
        }
    }
}

/// Lowest and highest finite value of `x`, and how many elements are not finite.
///
/// ```
/// use qkernels::{Isa, min_max};
/// let found = min_max(Isa::detect(), &[1.0, f32::NAN, -2.0, f32::INFINITY]);
/// assert_eq!((found.min, found.max), (Some(-2.0), Some(1.0)));
/// assert_eq!((found.nan, found.pos_inf, found.neg_inf), (1, 1, 0));
/// ```
#[must_use]
pub fn min_max(isa: Isa, x: &[f32]) -> MinMax {
    isa.enter(Reduce { x })
}

struct Reduce<'a> {
    x: &'a [f32],
}

/// Independent lanes: four vectors of the widest tier, enough to hide the latency of a minimum.
const LANES: usize = 64;

impl Task for Reduce<'_> {
    type Output = MinMax;

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) -> MinMax {
        // Counting is rare work: a first pass finds the extremes and whether anything is not
        // finite; only then a second one counts.
        let mut lo = [f32::INFINITY; LANES];
        let mut hi = [f32::NEG_INFINITY; LANES];
        let mut odd = [0u32; LANES];
        let mut step = |i: usize, v: f32| {
            let finite = v.abs() < f32::INFINITY;
            odd[i] |= u32::from(!finite);
            lo[i] = if finite && v < lo[i] { v } else { lo[i] };
            hi[i] = if finite && v > hi[i] { v } else { hi[i] };
        };
        let (blocks, rest) = self.x.as_chunks::<LANES>();
        for block in blocks {
            for (i, &v) in block.iter().enumerate() {
                step(i, v);
            }
        }
        for (i, &v) in rest.iter().enumerate() {
            step(i, v);
        }
        let low = lo.iter().copied().fold(f32::INFINITY, f32::min);
        let high = hi.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut found = MinMax::default();
        if low <= high {
            // −0.0 + 0.0 = +0.0: which zero is met first must not show.
            (found.min, found.max) = (Some(low + 0.0), Some(high + 0.0));
        }
        if odd.iter().any(|&o| o != 0) {
            for v in self.x {
                found.nan += u64::from(v.is_nan());
                found.pos_inf += u64::from(*v == f32::INFINITY);
                found.neg_inf += u64::from(*v == f32::NEG_INFINITY);
            }
        }
        found
    }
}
