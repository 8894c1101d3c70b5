//! All values but a given share.

use super::counts::Counts;
use crate::{CalibError, Estimator, Record, Target, ValueRange};
use qformat::Scheme;

/// The narrowest range, in whole bins, that leaves at most a given share of the values outside.
///
/// With the percentage `p` and `n` values, under
///
/// * the symmetric scheme: `[−t, t]`, `t` the lowest bin edge with at most
///   `floor(n · (100 − p) / 100)` values of `|x|` in the bins beyond it;
/// * the affine scheme: `[a, b]`, where each end by itself leaves at most
///   `floor(n · (100 − p) / 200)` values in the bins beyond it: half of the share a side.
///
/// With [`Tails::Upper`] or [`Tails::Lower`] the affine scheme takes the whole share from one end
/// and keeps the other: right for values whose other end is sharp, such as those after a GELU.
///
/// Counts are compared as integers and the outer edge of the last bin that is kept is the answer:
/// nothing is interpolated, so the share promised is kept for every distribution, and equal
/// states give equal ranges. The answer is in the unit of the values, is brought inside the
/// observed range and holds zero.
/// The two-sided treatment and the default of 99.999 are those of ONNX Runtime's percentile
/// calibrator; the method is described by Wu et al. 2020 (arXiv 2004.09602, §5.1). Reads the
/// record of a [`HistogramObserver`](crate::observers::HistogramObserver).
///
/// ```
/// use qcalib::estimators::Percentile;
/// use qcalib::{Observer, ObserverKind, Policy, Target, ranges};
/// use qformat::{DType, Granularity, Scheme};
///
/// let mut o = ObserverKind::Histogram.observer(Granularity::PerTensor, Policy::Error)?;
/// let x: Vec<f32> = (0..1000).map(|i| i as f32 / 1000.0).chain([50.0]).collect();
/// o.observe(0, &x, &[x.len()])?;
/// let target = Target::new(DType::U8, Scheme::Symmetric)?;
/// let r = ranges(&*o, &Percentile::new(99.9)?, target)?[0];
/// assert!(r.max > 0.99 && r.max < 1.1); // one of 1,001 values may go: the outlier
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentile {
    percent: f64,
    tails: Tails,
}

/// The ends of an affine range that values may be left outside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tails {
    /// Half of the share at each end.
    #[default]
    Both,
    /// All of it above; the lowest value stays in.
    Upper,
    /// All of it below; the highest value stays in.
    Lower,
}

impl Percentile {
    /// ONNX Runtime's default.
    pub const DEFAULT_PERCENT: f64 = 99.999;

    /// A range that keeps `percent` of the values, in percent.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] unless `0 < percent <= 100`.
    pub fn new(percent: f64) -> Result<Self, CalibError> {
        if percent > 0.0 && percent <= 100.0 {
            Ok(Percentile {
                percent,
                tails: Tails::Both,
            })
        } else {
            let allowed = "above 0 and at most 100";
            Err(CalibError::Setting {
                argument: "percentile",
                given: percent,
                allowed,
            })
        }
    }

    /// The same share, taken from other ends. The symmetric scheme has one threshold and no ends
    /// to choose from.
    #[must_use]
    pub const fn with_tails(self, tails: Tails) -> Self {
        Percentile { tails, ..self }
    }

    /// How many of `n` values each of `ends` ends may leave outside.
    fn allowance(self, n: u64, ends: f64) -> u64 {
        // In this order 99.9 % of 1,000 is 999 although 99.9 has no exact binary form: the product
        // rounds. The conversion truncates, and saturates where 2^64 is rounded to.
        let n = n as f64;
        ((n - n * self.percent / 100.0) / ends) as u64
    }
}

impl Default for Percentile {
    fn default() -> Self {
        Percentile {
            percent: Self::DEFAULT_PERCENT,
            tails: Tails::Both,
        }
    }
}

/// Number of bins that stay when bins are dropped from the far end as long as no more than
/// `allowance` values are lost.
fn keep(side: &[u64], mut allowance: u64) -> usize {
    for (j, &c) in side.iter().enumerate().rev() {
        match allowance.checked_sub(c) {
            Some(left) => allowance = left,
            None => return j + 1,
        }
    }
    0
}

impl Estimator for Percentile {
    fn name(&self) -> &'static str {
        "percentile"
    }

    fn range(&self, record: &Record<'_>, target: Target) -> Result<ValueRange, CalibError> {
        let counts = Counts::of(record, self.name())?;
        let n = counts.total();
        Ok(match target.scheme() {
            Scheme::Symmetric => counts.within(keep(&counts.magnitudes(), self.allowance(n, 1.0))),
            // An end that moves past zero stays there: every range holds zero.
            Scheme::Affine => {
                let (below, above) = match self.tails {
                    Tails::Both => (self.allowance(n, 2.0), self.allowance(n, 2.0)),
                    Tails::Upper => (0, self.allowance(n, 1.0)),
                    Tails::Lower => (self.allowance(n, 1.0), 0),
                };
                counts.between(keep(&counts.negative, below), keep(&counts.positive, above))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_dropped_only_whole() {
        assert_eq!(keep(&[5, 0, 3, 2], 0), 4);
        assert_eq!(keep(&[5, 0, 3, 2], 2), 3);
        assert_eq!(keep(&[5, 0, 3, 2], 4), 3);
        assert_eq!(keep(&[5, 0, 3, 2], 5), 1);
        assert_eq!(keep(&[5, 0, 3, 2], 11), 0);
        assert_eq!(keep(&[], 7), 0);
    }

    #[test]
    fn the_domain_is_checked() {
        for p in [0.0, -1.0, 100.1, f64::NAN, f64::INFINITY] {
            assert!(Percentile::new(p).is_err(), "{p}");
        }
        assert!(Percentile::new(100.0).is_ok());
    }

    #[test]
    fn allowances_are_those_of_decimal_arithmetic() {
        let allowed = |p, n, ends| Percentile::new(p).unwrap().allowance(n, ends);
        for (p, n, one, two) in [
            (99.9, 1000, 1, 0),
            (99.9, 2000, 2, 1),
            (99.999, 100_000, 1, 0),
            (99.999, 99_999, 0, 0),
            (99.99, 1_000_000, 100, 50),
            (50.0, 7, 3, 1),
            (100.0, u64::MAX, 0, 0),
        ] {
            assert_eq!(
                (allowed(p, n, 1.0), allowed(p, n, 2.0)),
                (one, two),
                "{p} {n}"
            );
        }
    }
}
