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

/// Independent lanes: two vectors of the widest tier, four of AVX2.
const LANES: usize = 32;

/// Bits of +∞: a magnitude from here on is not finite.
const INFINITY: u32 = 0x7f80_0000;

/// Lowest and highest of the lanes.
#[inline(always)]
fn ends(lo: &[f32; LANES], hi: &[f32; LANES]) -> (Option<f32>, Option<f32>) {
    let low = lo.iter().copied().fold(f32::INFINITY, f32::min);
    let high = hi.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // −0.0 + 0.0 = +0.0: which zero is met first must not show.
    if low <= high {
        (Some(low + 0.0), Some(high + 0.0))
    } else {
        (None, None)
    }
}

/// Calls `step(lane, value)` for every element.
#[inline(always)]
fn for_lanes(x: &[f32], mut step: impl FnMut(usize, f32)) {
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (i, &v) in block.iter().enumerate() {
            step(i, v);
        }
    }
    for (i, &v) in rest.iter().enumerate() {
        step(i, v);
    }
}

impl Task for Reduce<'_> {
    type Output = MinMax;

    /// What is not finite is rare: the first pass, of four instructions a vector, only notices it.
    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) -> MinMax {
        let mut lo = [f32::INFINITY; LANES];
        let mut hi = [f32::NEG_INFINITY; LANES];
        let mut magnitude = [0u32; LANES];
        for_lanes(self.x, |i, v| {
            lo[i] = if v < lo[i] { v } else { lo[i] };
            hi[i] = if v > hi[i] { v } else { hi[i] };
            let bits = v.to_bits() & 0x7fff_ffff;
            magnitude[i] = if bits > magnitude[i] {
                bits
            } else {
                magnitude[i]
            };
        });
        let mut found = MinMax::default();
        if magnitude.iter().all(|&m| m < INFINITY) {
            (found.min, found.max) = ends(&lo, &hi);
            return found;
        }

        lo = [f32::INFINITY; LANES];
        hi = [f32::NEG_INFINITY; LANES];
        for_lanes(self.x, |i, v| {
            let finite = v.to_bits() & 0x7fff_ffff < INFINITY;
            let (low, high) = if finite {
                (v, v)
            } else {
                (f32::INFINITY, f32::NEG_INFINITY)
            };
            lo[i] = if low < lo[i] { low } else { lo[i] };
            hi[i] = if high > hi[i] { high } else { hi[i] };
        });
        (found.min, found.max) = ends(&lo, &hi);
        for v in self.x {
            found.nan += u64::from(v.is_nan());
            found.pos_inf += u64::from(*v == f32::INFINITY);
            found.neg_inf += u64::from(*v == f32::NEG_INFINITY);
        }
        found
    }
}
