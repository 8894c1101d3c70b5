//! A record's histogram as estimators weigh it: infinities in their place.

use alloc::vec::Vec;

use crate::observers::Histogram;
use crate::{CalibError, ObserverKind, Policy, Record, ValueRange};

/// Counts of one group, with what the policy adds to them.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    /// Width of a bin.
    pub(crate) width: f64,
    /// Values that are exactly 0.
    pub(crate) zeros: u64,
    /// From zero outwards.
    pub(crate) negative: Vec<u64>,
    pub(crate) positive: Vec<u64>,
    /// The ends of the finite values.
    pub(crate) range: ValueRange,
}

impl Counts {
    /// Reads a record's histogram for the estimator of that name.
    pub(crate) fn of(record: &Record<'_>, estimator: &'static str) -> Result<Self, CalibError> {
        let range = record.range()?;
        let needs = CalibError::Needs {
            estimator,
            needs: ObserverKind::Histogram,
        };
        let h: &Histogram = record.histogram.ok_or(needs)?;
        let mut counts = Counts {
            width: h.width(),
            zeros: h.zeros(),
            negative: h.negative().to_vec(),
            positive: h.positive().to_vec(),
            range,
        };
        if record.policy == Policy::Saturate {
            // The sum of all counts of an extent fits, so no bin can overflow.
            counts.add(h, range.max, record.extent.pos_inf());
            counts.add(h, range.min, record.extent.neg_inf());
        }
        Ok(counts)
    }

    fn add(&mut self, h: &Histogram, at: f32, n: u64) {
        if at == 0.0 {
            self.zeros += n;
            return;
        }
        let side = if at < 0.0 {
            &mut self.negative
        } else {
            &mut self.positive
        };
        if let Some(c) = side.get_mut(h.bin_of(at)) {
            *c += n;
        }
    }

    /// Number of values.
    pub(crate) fn total(&self) -> u64 {
        self.zeros + self.negative.iter().sum::<u64>() + self.positive.iter().sum::<u64>()
    }

    /// Counts of `|x|` from zero outwards, without the exact zeros.
    pub(crate) fn magnitudes(&self) -> Vec<u64> {
        let (a, b) = (&self.negative, &self.positive);
        let (longer, shorter) = if a.len() > b.len() { (a, b) } else { (b, a) };
        let mut sum = longer.clone();
        for (s, c) in sum.iter_mut().zip(shorter) {
            *s += c;
        }
        sum
    }

    /// The edges `−lower · w` and `upper · w`, brought inside the observed range, or to zero
    /// where that lies wholly on the other side.
    pub(crate) fn between(&self, lower: usize, upper: usize) -> ValueRange {
        let ValueRange { min, max } = self.range;
        // Products of at most 17 bits and a power of two: exact in f64, and in f32 once they are
        // no larger than a finite end.
        let low = -(lower as f64 * self.width);
        let high = upper as f64 * self.width;
        let min = if f64::from(min.min(0.0)) > low {
            min.min(0.0)
        } else {
            low as f32
        };
        let max = if f64::from(max.max(0.0)) < high {
            max.max(0.0)
        } else {
            high as f32
        };
        // −0.0 from an empty side.
        ValueRange {
            min: min + 0.0,
            max: max + 0.0,
        }
    }

    /// [`between`](Self::between) for a threshold on `|x|`.
    pub(crate) fn within(&self, threshold: usize) -> ValueRange {
        self.between(threshold, threshold)
    }
}
