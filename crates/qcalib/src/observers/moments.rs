//! Mean, variance and mean magnitude, exact.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::fixed::Fixed;
use crate::grouped::{Accumulator, Grouped, GroupsWire, Piece};
use crate::observers::min_max::Nothing;
use crate::state::RecordWire;
use crate::{CalibError, Extent, ObserverKind, Policy, Record};
use qkernels::{Isa, MinMax, PowerWindow, power_sums};

/// Records the sums of `x`, `|x|` and `x²` without any rounding.
///
/// Floating-point sums depend on the order of their terms. These are integers: the sum of the
/// positive and that of the negative values in units of 2⁻¹⁴⁹, the sum of squares in units of
/// 2⁻²⁹⁸, so that mean, variance and mean magnitude are correctly rounded functions of the
/// multiset of values, and merging is exact like everything else here. A variance is the rounded
/// true one even where mean² is far larger. Such sums are the complete registers of Kulisch 2013
/// (*Computer arithmetic and validity*):
///
/// ```text
/// E[x] = Σx / n,  E[|x|] = Σ|x| / n,  E[x²] = Σx² / n,  Var[x] = (n · Σx² − (Σx)²) / n²
/// ```
///
/// Memory: 184 bytes a group.
///
/// ```
/// use qcalib::{Observer, Policy};
/// use qcalib::observers::MomentsObserver;
/// use qformat::Granularity;
///
/// let mut o = MomentsObserver::new(Granularity::PerTensor, Policy::Error)?;
/// o.observe(0, &[1e30, 1.0, -1e30, 3.0], &[4])?;
/// let s = o.record(0).unwrap().statistics()?;
/// assert_eq!(s.mean, 1.0); // any float sum in this order gives 0.75
/// assert_eq!((s.count, s.abs_max), (4, 1e30));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub type MomentsObserver = Grouped<MomentsAccumulator>;

/// The accumulator of [`MomentsObserver`].
pub(crate) type MomentsAccumulator = Moments;

/// Exact sums over the finite values of one group.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    zeros: u64,
    /// Magnitudes of the values above and below zero, in units of 2^[`UNIT`].
    positive: Fixed<6>,
    negative: Fixed<6>,
    /// Squares, in units of 2^(2 · [`UNIT`]).
    squares: Fixed<10>,
}

/// What the recorded values are like on average: exact sums, rounded to f64 at the end, once for
/// the sum and once for each division by the number of values.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Number of values, with those that [`Policy::Saturate`] puts at the ends.
    pub count: u64,
    /// How many of them are exactly ±0.
    pub zeros: u64,
    /// `E[x]`, in the unit of the values.
    pub mean: f64,
    /// `E[|x|]`, in the unit of the values.
    pub mean_abs: f64,
    /// `E[x²]`, in the square of that unit.
    pub mean_square: f64,
    /// `E[(x − E[x])²]`, of the values seen themselves (divided by their number, not one less).
    pub variance: f64,
    /// The largest magnitude of a finite value.
    pub abs_max: f32,
}

impl Statistics {
    /// The square root of the variance, in the unit of the values.
    #[must_use]
    pub fn std(&self) -> f64 {
        libm::sqrt(self.variance)
    }
}

/// The lowest bit of a sum stands for the smallest subnormal.
const UNIT: i32 = -149;

/// Fewer values are added one by one: sums in vectors have to be added up.
const SHORT: usize = 24;

/// Values that are skipped together where none is left over.
const CHUNK: usize = 64;

/// One in so many values is left to be added alone: it takes as long as so many in vectors.
const FEW: u64 = 16;

/// Rows from here on have the sign.
const NEGATIVE: usize = 1 << 8;

/// Sign and exponent as a number, and the significand. `|x|` is the significand times
/// `2^(UNIT + position(row))`.
#[inline]
fn parts(x: f32) -> (usize, u64) {
    let bits = x.to_bits();
    let hidden = u32::from(bits & 0x7f80_0000 != 0) << 23;
    (
        (bits >> 23) as usize,
        u64::from(bits & 0x007f_ffff | hidden),
    )
}

/// Position of a row's lowest bit.
fn position(row: usize) -> u32 {
    // Subnormals have the exponent of the smallest normal numbers.
    ((row & 0xff) as u32).saturating_sub(1)
}

impl Moments {
    /// Number of values that are exactly ±0.
    #[must_use]
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Where the magnitudes of a row's sign are summed.
    fn side(&mut self, row: usize) -> &mut Fixed<6> {
        if row < NEGATIVE {
            &mut self.positive
        } else {
            &mut self.negative
        }
    }

    /// Adds `n` times the same finite value.
    fn add_repeated(&mut self, x: f32, n: u64) {
        if x == 0.0 {
            self.zeros += n;
            return;
        }
        let (row, significand) = parts(x);
        // 24 and 48 bits times 64: in two halves of the count.
        for (n, shift) in [(n & 0xffff, 0), (n >> 16 & 0xffff, 16), (n >> 32, 32)] {
            let (high, low) = (n >> 16, n & 0xffff);
            for (n, shift) in [(low, shift), (high, shift + 16)] {
                self.side(row).add(significand * n, position(row) + shift);
                self.squares
                    .add(significand * significand * n, 2 * position(row) + shift);
            }
        }
    }

    /// Adds a finite value.
    fn add_one(&mut self, x: f32) {
        let (row, significand) = parts(x);
        self.zeros += u64::from(significand == 0);
        self.side(row).add(significand, position(row));
        self.squares
            .add(significand * significand, 2 * position(row));
    }

    fn add_short(&mut self, values: &[f32]) {
        values
            .iter()
            .filter(|v| v.is_finite())
            .for_each(|&v| self.add_one(v));
    }

    /// Adds values of which so many are not finite, and no finite one is beyond `max`. The window
    /// of binades below it mostly holds all; else lower windows follow until few values are left.
    fn add_long(&mut self, values: &[f32], non_finite: u64, max: f32) {
        let isa = Isa::detect();
        let mut left = values.len() as u64 - non_finite;
        let few = left / FEW;
        let (mut zeros, mut next) = (0, PowerWindow::below(max));
        while left > few
            && let Some(window) = next
        {
            let Ok(sums) = power_sums(isa, values, window) else {
                // Too many values for the first window.
                return self.add_short(values);
            };
            // A unit is at least 2^UNIT.
            let shift = (window.unit() - UNIT) as u32;
            self.positive.add_wide(sums.positive, shift);
            self.negative.add_wide(sums.negative, shift);
            self.squares.add_wide(sums.squares, 2 * shift);
            // Every window meets all zeros.
            left -= sums.held + sums.zeros - zeros;
            zeros = sums.zeros;
            next = window.lower();
        }
        self.zeros += zeros;
        let Some(window) = next.filter(|_| left > 0) else {
            return;
        };
        let is_left = |v: &f32| *v != 0.0 && v.abs() < window.end();
        for chunk in values.chunks(CHUNK) {
            // Without a branch, in vectors.
            if chunk.iter().fold(false, |any, v| any | is_left(v)) {
                chunk
                    .iter()
                    .filter(|v| is_left(v))
                    .for_each(|&v| self.add_one(v));
            }
        }
    }

    fn statistics(&self, count: u64, abs_max: f32) -> Statistics {
        let n = count as f64;
        let mut magnitudes = self.positive.clone();
        magnitudes.merge(&self.negative);
        let (sum, order) = self.positive.difference(&self.negative);
        let mean = quotient(&sum, UNIT, n);
        // n · Σx² − (Σx)², exact; never below zero (Cauchy-Schwarz).
        let all: Fixed<12> = self.squares.times_count(count);
        let (spread, _) = all.difference(&sum.times(&sum));
        Statistics {
            count,
            zeros: self.zeros,
            mean: if order == Ordering::Less { -mean } else { mean },
            mean_abs: quotient(&magnitudes, UNIT, n),
            mean_square: quotient(&self.squares, 2 * UNIT, n),
            variance: spread.to_f64(2 * UNIT) / n / n,
            abs_max,
        }
    }
}

fn quotient<const N: usize>(sum: &Fixed<N>, exponent: i32, n: f64) -> f64 {
    sum.to_f64(exponent) / n
}

impl Record<'_> {
    /// Mean, variance and mean magnitude of the values, with infinities where the policy puts
    /// them.
    ///
    /// # Errors
    ///
    /// [`CalibError::NoData`] when no finite value was seen, [`CalibError::Needs`] unless the
    /// observer was a [`MomentsObserver`].
    pub fn statistics(&self) -> Result<Statistics, CalibError> {
        self.statistics_for("statistics")
    }

    /// [`statistics`](Self::statistics) for the estimator of that name.
    pub(crate) fn statistics_for(&self, estimator: &'static str) -> Result<Statistics, CalibError> {
        let range = self.range()?;
        let moments = self.moments.ok_or(CalibError::Needs {
            estimator,
            needs: ObserverKind::Moments,
        })?;
        let (abs_max, finite) = (self.extent.magnitude(), self.extent.finite());
        if self.policy != Policy::Saturate {
            return Ok(moments.statistics(finite, abs_max));
        }
        let (above, below) = (self.extent.pos_inf(), self.extent.neg_inf());
        let mut moments = moments.clone();
        moments.add_repeated(range.max, above);
        moments.add_repeated(range.min, below);
        // No overflow: an extent checks the sum of all its counts.
        Ok(moments.statistics(finite + above + below, abs_max))
    }
}

impl Accumulator for Moments {
    const KIND: ObserverKind = ObserverKind::Moments;
    type Settings = Nothing;
    type Wire = MomentsWire;
    type Scratch = ();
    const STAGED_FROM: usize = 1 << 9;

    fn check_settings(_: &Nothing) -> Result<(), CalibError> {
        Ok(())
    }

    fn add(&mut self, _: &Nothing, _: &Extent, piece: Piece<'_>, (): &mut ()) {
        let MinMax { min, max, .. } = *piece.summary;
        match (min, max) {
            (Some(min), Some(max)) if piece.values.len() >= SHORT => {
                let non_finite = piece.summary.nan + piece.summary.pos_inf + piece.summary.neg_inf;
                self.add_long(piece.values, non_finite, max.max(-min));
            }
            _ => self.add_short(piece.values),
        }
    }

    fn merge(&mut self, _: &Nothing, _: &Extent, other: &Self) {
        self.zeros += other.zeros;
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
        self.squares.merge(&other.squares);
    }

    fn show<'a>(&'a self, record: &mut Record<'a>) {
        record.moments = Some(self);
    }

    fn to_wire(&self) -> MomentsWire {
        MomentsWire {
            zeros: self.zeros,
            positive: self.positive.limbs(),
            negative: self.negative.limbs(),
            squares: self.squares.limbs(),
        }
    }

    fn from_wire(
        _: &Nothing,
        extent: &Extent,
        group: usize,
        wire: MomentsWire,
    ) -> Result<Self, CalibError> {
        let bad = |field, reason| CalibError::State {
            field,
            group,
            reason,
        };
        const LIMBS: &str = "is not a number of the right size";
        let m = Moments {
            zeros: wire.zeros,
            positive: Fixed::from_limbs(&wire.positive).ok_or(bad("positive", LIMBS))?,
            negative: Fixed::from_limbs(&wire.negative).ok_or(bad("negative", LIMBS))?,
            squares: Fixed::from_limbs(&wire.squares).ok_or(bad("squares", LIMBS))?,
        };
        let n = extent.finite();
        if m.zeros > n {
            return Err(bad("zeros", "outnumber the finite values"));
        }
        let Some(range) = extent.range() else {
            let empty = m.positive.is_zero() && m.negative.is_zero() && m.squares.is_zero();
            return if empty {
                Ok(m)
            } else {
                Err(bad("squares", "are there without a finite value"))
            };
        };
        // What sums of so many values between these ends can be.
        let others = n - m.zeros;
        for (field, sum, end) in [
            ("positive", &m.positive, range.max.max(0.0)),
            ("negative", &m.negative, (-range.min).max(0.0)),
        ] {
            let (row, significand) = parts(end);
            let mut least = Fixed::default();
            least.add(significand, position(row));
            if *sum < least || *sum > least.times_count(others) {
                return Err(bad(field, "is not a sum of values that end there"));
            }
        }
        let (row, significand) = parts(extent.magnitude());
        let mut least = Fixed::default();
        least.add(significand * significand, 2 * position(row));
        if m.squares < least || m.squares > least.times_count(others) {
            return Err(bad("squares", "is not a sum of squares of such values"));
        }
        let mut magnitudes = m.positive.clone();
        magnitudes.merge(&m.negative);
        let square: Fixed<12> = magnitudes.times(&magnitudes);
        if m.squares.times_count::<12>(others) < square {
            return Err(bad("squares", "is less than the sums of the values allow"));
        }
        Ok(m)
    }

    fn record_wire(wire: GroupsWire<Self>) -> RecordWire {
        RecordWire::Moments(wire)
    }
}

/// [`Moments`] as it is stored: limbs of 64 bits, the lowest first.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MomentsWire {
    zeros: u64,
    positive: Vec<u64>,
    negative: Vec<u64>,
    squares: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            -4f32..4.0,
            any::<f32>(),
            Just(0.0),
            Just(f32::MAX),
            Just(1e-45)
        ]
    }

    fn of(x: &[f32]) -> Moments {
        let found = qkernels::abs_max(Isa::detect(), x);
        let mut m = Moments::default();
        m.add_long(x, found.nan + found.infinite, found.max.unwrap_or(0.0));
        m
    }

    proptest! {
        /// Integers whose sums f64 holds exactly.
        #[test]
        fn statistics_are_those_of_integers(x in prop::collection::vec(-4095i32..4096, 1..900)) {
            let values: Vec<f32> = x.iter().map(|&v| v as f32).collect();
            let s = of(&values).statistics(x.len() as u64, 0.0);
            let n = x.len() as i64;
            let sum: i64 = x.iter().map(|&v| i64::from(v)).sum();
            let squares: i64 = x.iter().map(|&v| i64::from(v) * i64::from(v)).sum();
            let magnitudes: i64 = x.iter().map(|&v| i64::from(v.abs())).sum();
            prop_assert_eq!(s.mean, sum as f64 / n as f64);
            prop_assert_eq!(s.mean_abs, magnitudes as f64 / n as f64);
            prop_assert_eq!(s.mean_square, squares as f64 / n as f64);
            let exact = (n * squares - sum * sum) as f64;
            prop_assert_eq!(s.variance, exact / n as f64 / n as f64);
            prop_assert_eq!(s.zeros as usize, x.iter().filter(|&&v| v == 0).count());
        }

        #[test]
        fn windows_single_values_and_repetition_agree(
            x in prop::collection::vec(value(), 1..400), n in 0u64..40,
        ) {
            let (mut long, mut short) = (of(&x), Moments::default());
            short.add_short(&x);
            prop_assert_eq!(long.to_wire().squares, short.to_wire().squares);
            prop_assert_eq!(&long.positive, &short.positive);
            prop_assert_eq!(&long.negative, &short.negative);
            prop_assert_eq!(long.zeros, short.zeros);
            if x[0].is_finite() {
                let repeated = alloc::vec![x[0]; n as usize];
                short.add_short(&repeated);
                long.add_repeated(x[0], n);
                prop_assert_eq!(long.to_wire().squares, short.to_wire().squares);
                prop_assert_eq!(&long.positive, &short.positive);
            }
        }
    }

    /// Of every binade, many values that only a lower window or none has room for.
    #[test]
    fn every_window_is_added_once() {
        for top in 0..255u32 {
            let value = |i: u32| {
                let exponent = top * (37 - i) / 37;
                f32::from_bits((exponent << 23) + i * 40_503)
            };
            let x: Vec<f32> = (0..37)
                .flat_map(|i| [value(i), -value(i), 1e-40, 1.3e-38, 0.0])
                .collect();
            let mut short = Moments::default();
            short.add_short(&x);
            let long = of(&x);
            assert_eq!(long.positive, short.positive, "{top}");
            assert_eq!(long.negative, short.negative, "{top}");
            assert_eq!(long.squares, short.squares, "{top}");
            assert_eq!(long.zeros, short.zeros, "{top}");
        }
        // A maximum whose windows once overlapped.
        let mut x = alloc::vec![1e-40; 30];
        x.extend([40.0, 1.3e-38]);
        let mut short = Moments::default();
        short.add_short(&x);
        assert_eq!(of(&x).squares, short.squares);
    }

    #[test]
    fn the_largest_sums_fit() {
        let mut m = Moments::default();
        m.add_repeated(f32::MAX, u64::MAX);
        let s = m.statistics(u64::MAX, f32::MAX);
        assert_eq!(s.mean, f64::from(f32::MAX));
        assert_eq!(s.mean_square, f64::from(f32::MAX) * f64::from(f32::MAX));
        assert_eq!(s.variance, 0.0);
    }
}
