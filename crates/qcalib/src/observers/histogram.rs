//! A histogram that grows exactly.

use alloc::vec::Vec;

use crate::grouped::{Accumulator, Grouped, GroupsWire, Piece};
use crate::state::RecordWire;
use crate::{CalibError, Extent, ObserverKind, Policy, Record};
use qformat::Granularity;
use qkernels::{HistogramMut, Isa, histogram};

/// Records how many values fall into each of a fixed number of bins.
///
/// Bins have the width `2^k` and are anchored at 0, so that doubling the width joins pairs of
/// bins, which is exact. `k` follows from the largest magnitude `m` seen and nothing else: with
/// `B` bins a side it is the smallest integer with `m < B · 2^k`, but at least −149 (the width of
/// the smallest subnormal); between `B / 2` and `B` bins are in use on the longer side. Which bin
/// a value falls into, `trunc(x / 2^k)`, is exact in binary arithmetic. Therefore the state after
/// a merge is byte for byte that of one pass over all data. (Doubling all widths to merge exactly is
/// the idea of the exponential histogram of OpenTelemetry's metrics data model, section
/// `ExponentialHistogram`, whose buckets are `base^j` wide; those here have one width.)
///
/// Negative and positive values have bins of their own: the two sides mirror each other exactly,
/// so a histogram of `|x|` is their sum. Exact zeros are counted apart, because every quantizer
/// represents them exactly.
///
/// Memory: at most `2 · B` counts of 8 bytes a group (B = 2,048 unless told otherwise: the bins
/// of TensorRT and PyTorch), and only up to the outermost value of each side; with room to count
/// in, and under [`Policy::Error`] as much again for a batch that may still be refused.
///
/// ```
/// use qcalib::{Observer, Policy};
/// use qcalib::observers::HistogramObserver;
/// use qformat::Granularity;
///
/// let mut o = HistogramObserver::with_bins(Granularity::PerTensor, Policy::Error, 16)?;
/// o.observe(0, &[0.0, 0.6, -1.9, 7.5], &[4])?;
/// let h = o.record(0).unwrap().histogram.unwrap();
/// assert_eq!(h.width(), 0.5); // 7.5 < 16 · 0.5
/// assert_eq!(h.zeros(), 1);
/// assert_eq!(h.negative(), [0, 0, 0, 1]); // −1.9 is in (−2, −1.5]
/// assert_eq!(h.positive()[15], 1);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub type HistogramObserver = Grouped<HistogramAccumulator>;

/// The accumulator of [`HistogramObserver`].
pub(crate) type HistogramAccumulator = Histogram;

/// The smallest `k`: bins as wide as the smallest subnormal tell all f32 values apart.
const MIN_EXPONENT: i32 = -149;

/// Values that are skipped together where none lies beyond the bins.
const CHUNK: usize = 64;

/// Counts of values in bins of equal width.
#[derive(Debug, Clone)]
pub struct Histogram {
    exponent: i32,
    zeros: u64,
    /// Index `j` counts the values with `trunc(|x| / 2^k) = j`; the last count is not zero.
    negative: Vec<u64>,
    positive: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            exponent: MIN_EXPONENT,
            zeros: 0,
            negative: Vec::new(),
            positive: Vec::new(),
        }
    }
}

/// What the user chooses.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistogramSettings {
    bins: u32,
}

impl Default for HistogramSettings {
    fn default() -> Self {
        HistogramSettings { bins: 2048 }
    }
}

impl Grouped<HistogramAccumulator> {
    /// An observer with at most `bins` bins on each side of zero: a power of two from 16 to
    /// 65,536.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] for another number of bins, [`CalibError::Format`] for
    /// blocks of no elements.
    pub fn with_bins(
        granularity: Granularity,
        policy: Policy,
        bins: u32,
    ) -> Result<Self, CalibError> {
        Self::with_settings(granularity, policy, HistogramSettings { bins })
    }

    /// The largest number of bins on each side of zero.
    #[must_use]
    pub fn bins(&self) -> u32 {
        self.settings().bins
    }
}

impl Histogram {
    /// `k`: bins are `2^k` wide; from −149 to 124.
    #[must_use]
    pub fn exponent(&self) -> i32 {
        self.exponent
    }

    /// The width of a bin, `2^k`, in the unit of the values.
    #[must_use]
    pub fn width(&self) -> f64 {
        pow2(self.exponent)
    }

    /// Number of values that are exactly ±0.
    #[must_use]
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Counts of the negative values: index `j` is the bin `(−(j + 1) · w, −j · w]`, without 0.
    /// Empty, or ends in the bin of the lowest value.
    #[must_use]
    pub fn negative(&self) -> &[u64] {
        &self.negative
    }

    /// Counts of the positive values: index `j` is the bin `[j · w, (j + 1) · w)`, without 0.
    /// Empty, or ends in the bin of the highest value.
    #[must_use]
    pub fn positive(&self) -> &[u64] {
        &self.positive
    }

    /// The bin that a value would fall into, counted from zero outwards.
    #[must_use]
    pub(crate) fn bin_of(&self, x: f32) -> usize {
        bin(x, self.exponent)
    }

    /// Widens the bins to those of `extent`, unless they are wider already, and makes room for its
    /// ends.
    fn fit(&mut self, settings: &HistogramSettings, extent: &Extent) {
        // Bins that were taken over may be wider than the values need.
        let exponent = exponent_for(extent.magnitude(), settings.bins).max(self.exponent);
        let wider = exponent.abs_diff(self.exponent).min(31);
        self.exponent = exponent;
        let (negative, positive) = lengths(extent, exponent);
        for (side, len) in [
            (&mut self.negative, negative),
            (&mut self.positive, positive),
        ] {
            if wider > 0 {
                join_bins(side, wider);
            }
            // Never shorter: the ends only move outwards.
            side.resize(len.max(side.len()), 0);
        }
    }

    fn count(&mut self, x: f32) {
        if x == 0.0 {
            self.zeros += 1;
            return;
        }
        let side = if x < 0.0 {
            &mut self.negative
        } else {
            &mut self.positive
        };
        if let Some(c) = side.get_mut(bin(x, self.exponent)) {
            *c += 1;
        }
    }

    /// Counts values of any kind with the kernel; what is not finite is nowhere counted. Gives how
    /// many finite values lie beyond the bins, or `None` where nothing was counted.
    fn count_inside(&mut self, values: &[f32], scratch: &mut Vec<u16>) -> Option<u64> {
        let into = HistogramMut {
            exponent: self.exponent,
            positive: &mut self.positive,
            negative: &mut self.negative,
        };
        // Exponent and bins are always ones that the kernel takes.
        let rest = histogram(Isa::detect(), values, into, scratch).ok()?;
        self.zeros += rest.zeros;
        Some(rest.outside)
    }

    /// The ends of the bins: finite values at and beyond them, on either side, are in none.
    fn ends(&self) -> (f32, f32) {
        // A side without bins ends at the smallest subnormal, so that zeros lie inside. Else ends
        // have 17 bits: exact, or 2^128, which becomes infinite.
        let end = |side: &[u64]| match side.len() {
            0 => f32::from_bits(1),
            bins => (bins as f64 * self.width()) as f32,
        };
        (-end(&self.negative), end(&self.positive))
    }

    /// Counts the finite values at and beyond the ends, of which there are `left`.
    fn count_beyond(&mut self, values: &[f32], (low, high): (f32, f32), mut left: u64) {
        let beyond = |v: f32| v >= high || v <= low;
        let mut count = |chunk: &[f32]| {
            for &v in chunk.iter().filter(|v| beyond(**v) && v.is_finite()) {
                self.count(v);
                left = left.saturating_sub(1);
            }
            left > 0
        };
        let (chunks, last) = values.as_chunks::<CHUNK>();
        for chunk in chunks {
            // Without an exit inside, which vectorises; few chunks have any.
            let any = chunk.iter().fold(false, |any, &v| any | beyond(v));
            if any && !count(chunk) {
                return;
            }
        }
        count(last);
    }

    fn count_each(&mut self, values: &[f32]) {
        for &v in values.iter().filter(|v| v.is_finite()) {
            self.count(v);
        }
    }
}

/// `2^k` for the exponents of bins, exact.
pub(crate) fn pow2(k: i32) -> f64 {
    // −149 ≤ k ≤ 127, so the biased exponent is between 874 and 1150.
    f64::from_bits(((k + 1023) as u64) << 52)
}

/// `floor(log2(x))` of a positive finite value.
fn log2_floor(x: f32) -> i32 {
    let bits = x.to_bits() & 0x7fff_ffff;
    match bits >> 23 {
        0 => MIN_EXPONENT + 31 - bits.leading_zeros() as i32,
        e => e as i32 - 127,
    }
}

/// The smallest `k ≥ −149` with `magnitude < bins · 2^k`.
fn exponent_for(magnitude: f32, bins: u32) -> i32 {
    if magnitude > 0.0 {
        (log2_floor(magnitude) + 1 - bins.trailing_zeros() as i32).max(MIN_EXPONENT)
    } else {
        MIN_EXPONENT
    }
}

/// `trunc(|x| / 2^k)` in integers. `k ≥ −149`.
fn bin(x: f32, k: i32) -> usize {
    let bits = x.to_bits() & 0x7fff_ffff;
    let (field, fraction) = (bits >> 23, bits & 0x007f_ffff);
    // |x| = significand · 2^exponent
    let (significand, exponent) = match field {
        0 => (fraction, MIN_EXPONENT),
        e => (fraction | 1 << 23, e as i32 - 150),
    };
    let shift = k - exponent;
    if shift >= 0 {
        (significand >> shift.min(31)) as usize
    } else {
        // Only for values beyond all bins: k is at most 14 below the largest value's exponent.
        (significand as usize) << (-shift).min(31)
    }
}

/// Lengths of the negative and the positive side: up to the bin of the outermost value.
fn lengths(extent: &Extent, k: i32) -> (usize, usize) {
    extent.range().map_or((0, 0), |r| {
        let side = |outside: bool, end: f32| if outside { bin(end, k) + 1 } else { 0 };
        (side(r.min < 0.0, r.min), side(r.max > 0.0, r.max))
    })
}

/// Joins `2^shift` neighbours from zero outwards.
fn join_bins(side: &mut Vec<u64>, shift: u32) {
    let Some(last) = side.len().checked_sub(1) else {
        return;
    };
    for j in 1..=last {
        let c = core::mem::take(&mut side[j]);
        side[j >> shift] += c;
    }
    side.truncate((last >> shift) + 1);
}

impl Accumulator for Histogram {
    const KIND: ObserverKind = ObserverKind::Histogram;
    type Settings = HistogramSettings;
    type Wire = HistogramWire;
    type Scratch = Vec<u16>;
    // All bins are emptied and added.
    const STAGED_FROM: usize = 1 << 15;

    fn check_settings(settings: &HistogramSettings) -> Result<(), CalibError> {
        let HistogramSettings { bins } = *settings;
        if bins.is_power_of_two() && (16..=65_536).contains(&bins) {
            Ok(())
        } else {
            let allowed = "a power of two from 16 to 65536";
            Err(CalibError::Setting {
                argument: "bins",
                given: bins.into(),
                allowed,
            })
        }
    }

    fn add(
        &mut self,
        settings: &HistogramSettings,
        extent: &Extent,
        piece: Piece<'_>,
        scratch: &mut Vec<u16>,
    ) {
        let ends = self.ends();
        self.fit(settings, extent);
        match piece.left {
            Some(0) => {}
            Some(left) => self.count_beyond(piece.values, ends, left),
            None => {
                if self.count_inside(piece.values, scratch).is_none() {
                    self.count_each(piece.values);
                }
            }
        }
    }

    /// Counts into the bins that are there, once there are some.
    fn begin(&mut self, values: &[f32], scratch: &mut Vec<u16>) -> Option<u64> {
        if self.negative.is_empty() && self.positive.is_empty() {
            return None;
        }
        self.count_inside(values, scratch)
    }

    fn empty_as(&mut self, other: &Self) {
        self.exponent = other.exponent;
        self.zeros = 0;
        for (side, like) in [
            (&mut self.negative, &other.negative),
            (&mut self.positive, &other.positive),
        ] {
            side.clear();
            side.resize(like.len(), 0);
        }
    }

    fn merge(&mut self, settings: &HistogramSettings, extent: &Extent, other: &Self) {
        self.fit(settings, extent);
        let shift = self.exponent.abs_diff(other.exponent).min(31);
        self.zeros += other.zeros;
        for (side, more) in [
            (&mut self.negative, &other.negative),
            (&mut self.positive, &other.positive),
        ] {
            if shift == 0 {
                side.iter_mut().zip(more).for_each(|(sum, &c)| *sum += c);
                continue;
            }
            for (j, &c) in more.iter().enumerate() {
                if let Some(sum) = side.get_mut(j >> shift) {
                    *sum += c;
                }
            }
        }
    }

    fn show<'a>(&'a self, record: &mut Record<'a>) {
        record.histogram = Some(self);
    }

    fn to_wire(&self) -> HistogramWire {
        let Histogram {
            exponent,
            zeros,
            ref negative,
            ref positive,
        } = *self;
        HistogramWire {
            exponent,
            zeros,
            negative: negative.clone(),
            positive: positive.clone(),
        }
    }

    fn from_wire(
        settings: &HistogramSettings,
        extent: &Extent,
        group: usize,
        wire: HistogramWire,
    ) -> Result<Self, CalibError> {
        let bad = |field, reason| {
            Err(CalibError::State {
                field,
                group,
                reason,
            })
        };
        let HistogramWire {
            exponent,
            zeros,
            negative,
            positive,
        } = wire;
        if exponent != exponent_for(extent.magnitude(), settings.bins) {
            return bad("exponent", "is not that of the largest magnitude");
        }
        let expected = lengths(extent, exponent);
        if negative.len() != expected.0 {
            return bad("negative", "does not end in the bin of the lowest value");
        }
        if positive.len() != expected.1 {
            return bad("positive", "does not end in the bin of the highest value");
        }
        let sum = negative
            .iter()
            .chain(&positive)
            .try_fold(zeros, |s, &c| s.checked_add(c));
        if sum != Some(extent.finite()) {
            return bad(
                "negative",
                "and the other counts do not add up to the finite values",
            );
        }
        let h = Histogram {
            exponent,
            zeros,
            negative,
            positive,
        };
        if let Some(r) = extent.range() {
            if h.innermost(r.min, r.max) {
                return Ok(h);
            }
            return bad("range", "has an end that no count agrees with");
        }
        Ok(h)
    }

    fn record_wire(wire: GroupsWire<Self>) -> RecordWire {
        RecordWire::Histogram(wire)
    }
}

impl Histogram {
    /// Whether the bins that hold the ends have counts, and nothing lies beyond them.
    fn innermost(&self, min: f32, max: f32) -> bool {
        let outermost = |side: &[u64]| side.last().is_none_or(|&c| c > 0);
        let first = |side: &[u64]| side.iter().position(|&c| c > 0);
        let zero_is_inside = min <= 0.0 && max >= 0.0;
        let zero_is_end = min == 0.0 || max == 0.0;
        outermost(&self.negative)
            && outermost(&self.positive)
            && (self.zeros == 0 || zero_is_inside)
            && (self.zeros > 0 || !zero_is_end)
            && (min <= 0.0 || first(&self.positive) == Some(bin(min, self.exponent)))
            && (max >= 0.0 || first(&self.negative) == Some(bin(max, self.exponent)))
    }
}

/// [`Histogram`] as it is stored.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistogramWire {
    exponent: i32,
    zeros: u64,
    negative: Vec<u64>,
    positive: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference_bin(x: f32, k: i32) -> usize {
        // f64 holds every f32 and every quotient by a power of two exactly.
        (f64::from(x).abs() / pow2(k)) as usize
    }

    #[test]
    fn exponents_follow_from_the_magnitude_at_every_power_of_two() {
        for e in -149..=127 {
            let m = pow2(e) as f32;
            for m in [m, m.next_down(), m.next_up()] {
                for bins in [16, 2048, 65_536] {
                    let k = exponent_for(m, bins);
                    assert!((-149..=124).contains(&k));
                    assert!(f64::from(m) < f64::from(bins) * pow2(k), "{m:e} {bins}");
                    if k > MIN_EXPONENT {
                        assert!(
                            f64::from(m) >= f64::from(bins) * pow2(k) / 2.0,
                            "{m:e} {bins}"
                        );
                    }
                }
            }
        }
        assert_eq!(exponent_for(f32::MAX, 2048), 117);
    }

    proptest! {
        #[test]
        fn bins_are_exact(x in any::<f32>(), top in any::<f32>(), b in 4u32..=16) {
            prop_assume!(x.is_finite() && top.is_finite());
            let top = top.abs().max(x.abs());
            let k = exponent_for(top, 1 << b);
            prop_assert_eq!(bin(x, k), reference_bin(x, k));
            prop_assert!(bin(top, k) < 1 << b);
        }

        #[test]
        fn the_fast_count_equals_the_plain_one(
            mut x in prop::collection::vec(prop_oneof![
                4 => -100f32..100.0, 1 => Just(0.0), 1 => Just(-0.0), 1 => any::<f32>(),
                1 => (0i32..40, -140i32..20).prop_map(|(j, k)| (f64::from(j) * pow2(k)) as f32),
            ], 1..400),
            b in 4u32..=11,
            scale in prop_oneof![Just(1.0f32), Just(1e-38), Just(1e-42), Just(1e30)],
        ) {
            x.iter_mut().for_each(|v| *v *= scale);
            x.retain(|v| v.is_finite());
            let settings = HistogramSettings { bins: 1 << b };
            let mut extent = Extent::default();
            extent.add(x.len(), &qkernels::min_max(qkernels::Isa::detect(), &x));
            let (mut fast, mut plain) = (Histogram::default(), Histogram::default());
            fast.fit(&settings, &extent);
            plain.fit(&settings, &extent);
            let mut scratch = Vec::new();
            prop_assert_eq!(fast.count_inside(&x, &mut scratch), Some(0));
            x.iter().for_each(|&v| plain.count(v));
            prop_assert_eq!((fast.zeros, &fast.negative, &fast.positive),
                (plain.zeros, &plain.negative, &plain.positive));
        }

        /// Pieces of growing and of shrinking magnitudes, the later ones counted in part before
        /// their ends are known.
        #[test]
        fn what_lies_beyond_the_bins_is_counted_after_them(
            pieces in prop::collection::vec(
                (prop::collection::vec(-1f32..1.0, 1..300), -140i32..120, any::<bool>()),
                1..6,
            ),
        ) {
            let settings = HistogramSettings { bins: 16 };
            let (mut extent, mut scratch) = (Extent::default(), Vec::new());
            let (mut one, mut plain) = (Histogram::default(), Histogram::default());
            let (mut begun, mut all) = (0, 0);
            for (mut values, exponent, special) in pieces {
                values.iter_mut().for_each(|v| *v *= pow2(exponent) as f32);
                if special {
                    values.extend([0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0]);
                }
                let left = one.begin(&values, &mut scratch);
                begun += usize::from(left.is_some());
                let summary = qkernels::min_max(Isa::detect(), &values);
                extent.add(values.len(), &summary);
                let piece = Piece { batch: 0, values: &values, summary: &summary, left };
                one.add(&settings, &extent, piece, &mut scratch);
                plain.fit(&settings, &extent);
                plain.count_each(&values);
                prop_assert_eq!((one.exponent, one.zeros, &one.negative, &one.positive),
                    (plain.exponent, plain.zeros, &plain.negative, &plain.positive));
                all += 1;
            }
            // Until a value other than zero came there are no bins to begin with.
            prop_assert!(begun + 1 >= all, "{} of {} pieces were begun", begun, all);
        }
    }
}
