//! `EntropyCalibrater`.

use alloc::vec::Vec;

use super::super::numpy::pairwise_sum;
use super::super::{check_bins, joined};
use super::histogram::Collected;
use crate::{CalibError, ValueRange};

/// What `create_calibrator` takes for the entropy method. (Its `symmetric` has no effect: the
/// candidates always are.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntropySettings {
    /// Bins of the first histogram.
    pub num_bins: usize,
    /// Levels that the quantized distribution has.
    pub num_quantized_bins: usize,
}

impl Default for EntropySettings {
    fn default() -> Self {
        EntropySettings {
            num_bins: 128,
            num_quantized_bins: 128,
        }
    }
}

/// ONNX Runtime's `EntropyCalibrater` (`get_entropy_threshold` of `quantization/calibrate.py`).
///
/// The histogram is symmetric about zero, and candidate `i` keeps the `2 i + 1` bins (or the `2 i`
/// that there are) around the middle, from `i = levels / 2` outwards. Of each
///
/// * `P` are the counts inside, with those outside added to the outermost bins;
/// * `Q` are the counts inside, joined in `levels` runs of `bins / levels` (rounded down) bins, each
///   spread evenly, cut to an integer, over the bins of its run where `P` is not 0 (the last run
///   takes the counts of what is left over);
/// * zeros of both become 10⁻⁴ at the other bins' expense, and both are normalised;
///
/// and the first with the least `Σ P · ln(P / Q)` gives the range, brought inside what was seen.
///
/// ```
/// use qcalib::compat::onnxruntime::{Entropy, EntropySettings};
/// let mut c = Entropy::new(EntropySettings::default())?;
/// c.collect(&[&[0.25, -1.0, 0.5]])?;
/// let r = c.range()?; // the one candidate, inside what was seen
/// assert_eq!((r.min, r.max), (-1.0, 0.5));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Entropy {
    settings: EntropySettings,
    collected: Option<Collected>,
}

impl Entropy {
    /// A calibrator that has seen nothing.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] unless `1 <= num_quantized_bins <= num_bins <= 2^22`.
    pub fn new(settings: EntropySettings) -> Result<Self, CalibError> {
        check_bins("num_bins", settings.num_bins as f64)?;
        if !(1..=settings.num_bins).contains(&settings.num_quantized_bins) {
            return Err(CalibError::Setting {
                argument: "num_quantized_bins",
                given: settings.num_quantized_bins as f64,
                allowed: "at least 1 and at most num_bins",
            });
        }
        Ok(Entropy {
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
        let old = self.collected.as_ref();
        self.collected = Some(Collected::add_values(old, &x, self.settings.num_bins)?);
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
        let levels = self.settings.num_quantized_bins;
        let (bins, zero) = (c.counts.len(), c.counts.len() / 2);
        let mut before = Vec::with_capacity(bins + 1);
        let mut sum = 0;
        before.push(sum);
        for n in &c.counts {
            sum += n;
            before.push(sum);
        }
        let mut best = (f32::INFINITY, None);
        for reach in levels / 2..=zero {
            let (start, end) = (zero - reach, (zero + reach + 1).min(bins));
            let divergence = divergence(&c.counts, &before, start, end, levels);
            // The first of equals, and the first of all if none is finite.
            if best.1.is_none() || divergence < best.0 {
                best = (divergence, Some((start, end)));
            }
        }
        let (start, end) = best.1.unwrap_or((0, bins));
        Ok(c.clip(ValueRange {
            min: c.edges[start],
            max: c.edges[end],
        }))
    }
}

fn divergence(counts: &[i64], before: &[i64], start: usize, end: usize, levels: usize) -> f32 {
    let inside = &counts[start..end];
    let bins = inside.len();
    let mut p = inside.to_vec();
    if let Some(first) = p.first_mut() {
        *first += before[start];
    }
    if let Some(last) = p.last_mut() {
        *last += before[counts.len()] - before[end];
    }
    let merged = bins / levels;
    let mut q = alloc::vec![0i64; bins];
    for level in 0..levels {
        let (from, to) = (level * merged, (level + 1) * merged);
        let mut mass = before[start + to] - before[start + from];
        if level == levels - 1 {
            mass += before[end] - before[start + levels * merged];
        }
        let used = p[from..to].iter().filter(|&&n| n != 0).count();
        if used != 0 {
            // Cut to an integer, as the tool's array is one.
            q[from..to].fill((mass as f64 / used as f64) as i64);
        }
    }
    let (Some(p), Some(q)) = (smoothed(&p), smoothed(&q)) else {
        return f32::INFINITY;
    };
    let (sum_p, sum_q) = (pairwise_sum(&p), pairwise_sum(&q));
    let terms: Vec<f32> = p
        .iter()
        .zip(&q)
        .map(|(&p, &q)| {
            let (p, q) = (p / sum_p, q / sum_q);
            match () {
                () if p > 0.0 && q > 0.0 => p * libm::log(f64::from(p / q)) as f32,
                () if p == 0.0 && q >= 0.0 => 0.0,
                () => f32::INFINITY,
            }
        })
        .collect();
    pairwise_sum(&terms)
}

/// `smooth_distribution`: zeros become 10⁻⁴, at the others' expense.
fn smoothed(counts: &[i64]) -> Option<Vec<f32>> {
    const EPSILON: f64 = 1e-4;
    let zeros = counts.iter().filter(|&&n| n == 0).count();
    let others = counts.len() - zeros;
    if others == 0 {
        return None;
    }
    let less = EPSILON * zeros as f64 / others as f64;
    let change = |n: i64| {
        if n == 0 {
            EPSILON as f32
        } else {
            -(less as f32)
        }
    };
    Some(counts.iter().map(|&n| n as f32 + change(n)).collect())
}
