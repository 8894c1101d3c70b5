//! `HistogramCollector` and `PercentileCalibrater`.

use alloc::vec::Vec;

use super::super::numpy::{arange, arange_len, histogram, histogram_between};
use super::super::{check_bins, ends, floor_divide, joined};
use crate::{CalibError, ValueRange};

/// The tool's histogram of one tensor.
#[derive(Debug, Clone)]
pub(super) struct Collected {
    pub(super) counts: Vec<i64>,
    pub(super) edges: Vec<f32>,
    pub(super) seen: ValueRange,
    threshold: f32,
}

impl Collected {
    /// `collect_value`: bins over `[−t, t]`, and whole bins on both sides when the data grows.
    pub(super) fn add_values(
        old: Option<&Collected>,
        x: &[f32],
        bins: usize,
    ) -> Result<Collected, CalibError> {
        let new = ends(x)?.ok_or(CalibError::NoData { group: 0 })?;
        let threshold = new.min.abs().max(new.max.abs());
        let Some(old) = old else {
            let (counts, edges) = histogram(x, bins, (-threshold, threshold))?;
            return Ok(Collected {
                counts,
                edges,
                seen: new,
                threshold,
            });
        };
        let seen = old.seen_with(new);
        let bins = old.counts.len();
        if threshold <= old.threshold {
            let (mut counts, _) = histogram(x, bins, (-old.threshold, old.threshold))?;
            counts
                .iter_mut()
                .zip(&old.counts)
                .for_each(|(n, o)| *n += o);
            return Ok(Collected {
                counts,
                edges: old.edges.clone(),
                seen,
                threshold: old.threshold,
            });
        }
        let (threshold, more, bins) = if old.threshold == 0.0 {
            (threshold, 0, bins)
        } else {
            let stride = 2.0 * old.threshold / bins as f32;
            let more = floor_divide(threshold - old.threshold, stride) + 1.0;
            let grown = check_bins("bins", bins as f64 + 2.0 * f64::from(more))?;
            let threshold = more * stride + old.threshold;
            (threshold, (grown - bins) / 2, grown)
        };
        let (mut counts, edges) = histogram(x, bins, (-threshold, threshold))?;
        counts
            .iter_mut()
            .skip(more)
            .zip(&old.counts)
            .for_each(|(n, o)| *n += o);
        Ok(Collected {
            counts,
            edges,
            seen,
            threshold,
        })
    }

    /// `collect_absolute_value`: bins of `|x|` over what the first call saw, and more at the top.
    pub(super) fn add_magnitudes(
        old: Option<&Collected>,
        x: &[f32],
        bins: usize,
    ) -> Result<Collected, CalibError> {
        let new = ends(x)?.ok_or(CalibError::NoData { group: 0 })?;
        let magnitudes: Vec<f32> = x.iter().map(|v| v.abs()).collect();
        let m = ends(&magnitudes)?.ok_or(CalibError::NoData { group: 0 })?;
        let Some(old) = old else {
            let (counts, edges) = histogram(&magnitudes, bins, (m.min, m.max))?;
            return Ok(Collected {
                counts,
                edges,
                seen: new,
                threshold: m.max,
            });
        };
        let mut edges = old.edges.clone();
        if let (Some(&last), [first, second, ..]) = (edges.last(), &edges[..])
            && m.max > last
        {
            let width = second - first;
            let (start, stop) = (last + width, m.max + width);
            let more = arange_len(start, stop, width);
            // Adding nothing is right where rounding leaves no room for an edge.
            if more >= 1.0 {
                let had = edges.len() - 1;
                let all = check_bins("bins", had as f64 + more)?;
                edges.extend(arange(start, width, all - had));
            }
        }
        let mut counts = histogram_between(&magnitudes, &edges);
        counts
            .iter_mut()
            .zip(&old.counts)
            .for_each(|(n, o)| *n += o);
        Ok(Collected {
            counts,
            edges,
            seen: old.seen_with(new),
            threshold: old.threshold,
        })
    }

    fn seen_with(&self, new: ValueRange) -> ValueRange {
        ValueRange {
            min: self.seen.min.min(new.min),
            max: self.seen.max.max(new.max),
        }
    }

    /// A range brought inside what was seen.
    pub(super) fn clip(&self, r: ValueRange) -> ValueRange {
        ValueRange {
            min: if r.min < self.seen.min {
                self.seen.min
            } else {
                r.min
            },
            max: if r.max > self.seen.max {
                self.seen.max
            } else {
                r.max
            },
        }
    }
}

/// What `create_calibrator` takes for the percentile method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PercentileSettings {
    /// Bins of the first histogram.
    pub num_bins: usize,
    /// Percentage that is kept.
    pub percentile: f64,
    /// Whether the range is that of `|x|`, mirrored.
    pub symmetric: bool,
}

impl Default for PercentileSettings {
    fn default() -> Self {
        PercentileSettings {
            num_bins: 2048,
            percentile: 99.999,
            symmetric: true,
        }
    }
}

/// ONNX Runtime's `PercentileCalibrater` (`compute_percentile` of `quantization/calibrate.py`).
///
/// With the percentage `p` and the share `F(j)` of the values in the first `j + 1` bins, summed in
/// f64, `e(s)` is the lower edge of the first bin with `F ≥ s`. The range is `[−e(p / 100),
/// e(p / 100)]` of `|x|` where `symmetric`, else `[e(c), e(1 − c)]` with `c = (100 − p) / 200`; it is
/// then brought inside what was seen.
///
/// ```
/// use qcalib::compat::onnxruntime::{Percentile, PercentileSettings};
/// let mut c = Percentile::new(PercentileSettings::default())?;
/// c.collect(&[&[0.25, -1.0, 0.5]])?;
/// assert_eq!(c.range()?.min, -0.9996338);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Percentile {
    settings: PercentileSettings,
    collected: Option<Collected>,
}

impl Percentile {
    /// A calibrator that has seen nothing.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] for a percentile outside `[0, 100]` or a number of bins outside
    /// `[1, 2^22]`.
    pub fn new(settings: PercentileSettings) -> Result<Self, CalibError> {
        check_bins("num_bins", settings.num_bins as f64)?;
        if !(0.0..=100.0).contains(&settings.percentile) {
            return Err(CalibError::Setting {
                argument: "percentile",
                given: settings.percentile,
                allowed: "from 0 to 100",
            });
        }
        Ok(Percentile {
            settings,
            collected: None,
        })
    }

    /// One call of `collect_data` with these batches, which count as one array.
    ///
    /// # Errors
    ///
    /// [`CalibError::NonFinite`], [`CalibError::NoData`] for no values, [`CalibError::Setting`]
    /// when the histogram would have too many bins.
    pub fn collect(&mut self, batches: &[&[f32]]) -> Result<(), CalibError> {
        let x = joined(batches)?;
        let (old, bins) = (self.collected.as_ref(), self.settings.num_bins);
        self.collected = Some(if self.settings.symmetric {
            Collected::add_magnitudes(old, &x, bins)?
        } else {
            Collected::add_values(old, &x, bins)?
        });
        Ok(())
    }

    /// What `compute_data` gives, in the unit of the values.
    ///
    /// # Errors
    ///
    /// [`CalibError::NoData`] before the first [`collect`](Self::collect).
    pub fn range(&self) -> Result<ValueRange, CalibError> {
        let c = self
            .collected
            .as_ref()
            .ok_or(CalibError::NoData { group: 0 })?;
        let total = c.counts.iter().sum::<i64>() as f64;
        let mut sum = 0.0;
        let shares: Vec<f64> = c
            .counts
            .iter()
            .map(|&n| {
                sum += n as f64 / total;
                sum
            })
            .collect();
        // The first bin that reaches the share; the last edge if none does.
        let edge = |share: f64| c.edges[shares.partition_point(|&s| s < share)];
        let p = self.settings.percentile;
        let range = if self.settings.symmetric {
            let t = edge(p / 100.0);
            ValueRange { min: -t, max: t }
        } else {
            let cut = (100.0 - p) / 200.0;
            ValueRange {
                min: edge(cut),
                max: edge(1.0 - cut),
            }
        };
        Ok(c.clip(range))
    }
}
