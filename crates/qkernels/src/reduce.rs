//! Reductions over floats.

use crate::elementwise::Elementwise;
use crate::isa::{Task, Tier};
use crate::{Isa, portable};

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

/// What [`abs_max`] found.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AbsMax {
    /// Largest magnitude of a finite value; `None` when there is none.
    pub max: Option<f32>,
    /// How many elements are NaN.
    pub nan: u64,
    /// How many elements are +∞ or −∞.
    pub infinite: u64,
}

impl AbsMax {
    /// Whether every element was finite.
    #[must_use]
    pub const fn all_finite(&self) -> bool {
        self.nan == 0 && self.infinite == 0
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
    isa.enter_shared(Range { x })
}

/// Largest magnitude of the finite values of `x`, and how many elements are not finite: the
/// range of a symmetric quantizer in one pass.
///
/// ```
/// use qkernels::{Isa, abs_max};
/// let found = abs_max(Isa::detect(), &[1.0, -2.0, f32::NEG_INFINITY]);
/// assert_eq!((found.max, found.nan, found.infinite), (Some(2.0), 0, 1));
/// ```
#[must_use]
pub fn abs_max(isa: Isa, x: &[f32]) -> AbsMax {
    isa.enter_shared(Magnitude { x })
}

/// Bits of +∞: a magnitude from here on is not finite.
const INFINITY: u32 = 0x7f80_0000;

/// [`min_max`] inside a door.
pub(crate) struct Range<'a> {
    pub(crate) x: &'a [f32],
}

impl Task for Range<'_> {
    type Output = MinMax;

    /// What is not finite is rare: the first pass only notices it.
    #[inline(always)]
    fn run<T: Tier>(self, tier: T) -> MinMax {
        let mut found = MinMax::default();
        let range = match tier.elementwise().finite_range(self.x) {
            Some(range) => range,
            None => {
                for v in self.x {
                    found.nan += u64::from(v.is_nan());
                    found.pos_inf += u64::from(*v == f32::INFINITY);
                    found.neg_inf += u64::from(*v == f32::NEG_INFINITY);
                }
                portable::range_of_finite(self.x)
            }
        };
        if range.0 <= range.1 {
            // −0.0 + 0.0 = +0.0: which zero is met first must not show.
            (found.min, found.max) = (Some(range.0 + 0.0), Some(range.1 + 0.0));
        }
        found
    }
}

struct Magnitude<'a> {
    x: &'a [f32],
}

impl Task for Magnitude<'_> {
    type Output = AbsMax;

    #[inline(always)]
    fn run<T: Tier>(self, tier: T) -> AbsMax {
        let mut found = AbsMax::default();
        let mut bits = tier.elementwise().magnitude(self.x);
        let mut any = !self.x.is_empty();
        if bits >= INFINITY {
            for v in self.x {
                found.nan += u64::from(v.is_nan());
                found.infinite += u64::from(v.is_infinite());
            }
            bits = portable::magnitude_of_finite(self.x);
            any = found.nan + found.infinite < self.x.len() as u64;
        }
        found.max = any.then(|| f32::from_bits(bits));
        found
    }
}
