//! `HistogramObserver`.

use alloc::vec::Vec;

use super::super::{ToolParams, check_bins, ends, floor_divide};
use super::qparams::{TorchQuantizer, TorchType};
use crate::{CalibError, ValueRange};

/// PyTorch's `HistogramObserver`.
///
/// A histogram between the ends of the data, joined with that of the next batch on a finer grid,
/// and a search that takes 10⁻⁵ of the values off one end or the other as long as the squared
/// error falls. The search counts on all 256 levels of the type, whatever the quantizer uses.
///
/// ```
/// use qcalib::compat::torch::{Histogram, TorchQuantizer};
/// let mut o = Histogram::new(TorchQuantizer::default(), 2048)?;
/// o.observe(&[0.0, 1.0, 2.0, 10.0])?;
/// assert!(o.range().unwrap().max <= 10.0);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Histogram {
    quantizer: TorchQuantizer,
    histogram: Vec<f32>,
    seen: Option<ValueRange>,
}

/// The finer grid on which histograms are joined.
const UPSAMPLE: usize = 128;

/// 2^125: the range that is seen may grow to twice that of the data, and its width is that of both
/// sides.
const MOST: f32 = f32::from_bits(0x7e00_0000);

impl Histogram {
    /// An observer that has seen nothing; the tool's number of bins is 2048 by default.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] for a number of bins outside `[1, 2^22]`.
    pub fn new(quantizer: TorchQuantizer, bins: usize) -> Result<Self, CalibError> {
        check_bins("bins", bins as f64)?;
        Ok(Histogram {
            quantizer,
            histogram: alloc::vec![0.0; bins],
            seen: None,
        })
    }

    /// The ends that it has recorded, which can lie beyond those of the data.
    #[must_use]
    pub fn seen(&self) -> Option<ValueRange> {
        self.seen
    }

    /// The counts, which are no integers once histograms were joined.
    #[must_use]
    pub fn histogram(&self) -> &[f32] {
        &self.histogram
    }

    /// Shows it the next batch.
    ///
    /// # Errors
    ///
    /// [`CalibError::NonFinite`], and [`CalibError::Setting`] for values beyond ±2^125 (the tool
    /// gives NaN) and when the range has grown so much that the joined grid would have more than
    /// 2^30 cells (the tool runs out of memory).
    pub fn observe(&mut self, x: &[f32]) -> Result<(), CalibError> {
        let Some(new) = ends(x)? else {
            return Ok(()); // the tool returns at once
        };
        let bins = self.histogram.len();
        if let Some(far) = [new.min, new.max].into_iter().find(|v| v.abs() > MOST) {
            return Err(CalibError::Setting {
                argument: "value",
                given: far.into(),
                allowed: "at most 2^125 in magnitude: the tool's widths overflow beyond",
            });
        }
        // A constant so far is forgotten.
        let Some(old) = self.seen.filter(|r| r.min != r.max) else {
            self.histogram = histc(x, bins, new);
            self.seen = Some(new);
            return Ok(());
        };
        let min = new.min.min(old.min);
        let max = new.max.max(old.max);
        let fine = (old.max - old.min) / (bins * UPSAMPLE) as f32;
        let downsample = libm::ceilf((max - min) / (bins as f32 * fine));
        let fits = downsample <= (1 << 30) as f32 / bins as f32;
        if !fits {
            return Err(CalibError::Setting {
                argument: "growth of the range",
                given: downsample.into(),
                allowed: "such that the joined grid has at most 2^30 cells",
            });
        }
        let extra = downsample * (bins as f32 * fine) - (max - min);
        let seen = ValueRange {
            min,
            max: max + extra,
        };
        let start = libm::rintf((old.min - min) / fine);
        let mut counts = histc(x, bins, seen);
        if seen == old {
            for (n, o) in counts.iter_mut().zip(&self.histogram) {
                *n += o;
            }
        } else {
            // Both fit: the grid was checked to have at most 2^30 cells.
            self.join(&mut counts, downsample as usize, start as usize);
        }
        self.histogram = counts;
        self.seen = Some(seen);
        Ok(())
    }

    /// Adds the old histogram, every bin cut into [`UPSAMPLE`] cells from `start` on, of which
    /// `downsample` make a new bin.
    fn join(&self, counts: &mut [f32], downsample: usize, start: usize) {
        let mut integral = 0.0f64;
        let mut before = 0.0f32;
        let mut cell = 0usize;
        for n in counts {
            for _ in 0..downsample {
                let old = cell
                    .checked_sub(start)
                    .and_then(|at| self.histogram.get(at / UPSAMPLE));
                integral += f64::from(old.copied().unwrap_or(0.0));
                cell += 1;
            }
            let share = (integral - f64::from(before)) / UPSAMPLE as f64;
            *n += share as f32;
            before = integral as f32;
        }
    }

    /// `_non_linear_param_search`: the range in the unit of the values, or `None` before the first
    /// batch.
    #[must_use]
    pub fn range(&self) -> Option<ValueRange> {
        const STEP: f64 = 1e-5;
        let seen = self.seen?;
        let bins = self.histogram.len();
        let width = (seen.max - seen.min) / bins as f32;
        let total = f64::from(cascade_sum(&self.histogram));
        let mut sum = 0.0f64;
        let sums: Vec<f32> = self
            .histogram
            .iter()
            .map(|&n| {
                sum += f64::from(n);
                sum as f32
            })
            .collect();
        let (mut alpha, mut beta) = (0.0f64, 1.0f64);
        let (mut start, mut end) = (0, bins - 1);
        let mut least = f64::INFINITY;
        while alpha < beta {
            let (next_alpha, next_beta) = (alpha + STEP, beta - STEP);
            let (mut left, mut right) = (start, end);
            while left < end && sums[left] < (next_alpha * total) as f32 {
                left += 1;
            }
            while right > start && sums[right] > (next_beta * total) as f32 {
                right -= 1;
            }
            let (mut next_start, mut next_end) = (start, end);
            if left - start > end - right {
                next_start = left;
                alpha = next_alpha;
            } else {
                next_end = right;
                beta = next_beta;
            }
            if (next_start, next_end) == (start, end) {
                continue;
            }
            let norm = self.error(seen, next_start, next_end);
            if norm > least {
                break;
            }
            least = norm;
            (start, end) = (next_start, next_end);
        }
        Some(ValueRange {
            min: seen.min + width * start as f32,
            max: seen.min + width * (end + 1) as f32,
        })
    }

    /// `_compute_quantization_error` of the bins `start..=end`.
    fn error(&self, seen: ValueRange, start: usize, end: usize) -> f64 {
        let levels = match self.quantizer.dtype {
            TorchType::QInt8 | TorchType::QUInt8 => 256.0,
        };
        let bins = self.histogram.len();
        let width = (f64::from(seen.max) - f64::from(seen.min)) / bins as f64;
        let step = width * (end as f64 - start as f64 + 1.0) / levels;
        if step == 0.0 {
            return 0.0;
        }
        // Python's floats meet tensors as f32.
        let (width, half, step) = (width as f32, (step / 2.0) as f32, step as f32);
        let last = levels as f32 - 1.0;
        let cube = |x: f32| x * x * x;
        let norms: Vec<f32> = (0..bins)
            .map(|bin| {
                let begin = (bin as f32 - start as f32) * width;
                let stop = begin + width;
                let first_level = floor_divide(begin, step).clamp(0.0, last);
                let last_level = floor_divide(stop, step).clamp(0.0, last);
                let density = self.histogram[bin] / width;
                let norm = |from: f32, to: f32| density * ((cube(to) - cube(from)) / 3.0);
                let mut sum = norm(begin - (first_level + 0.5) * step, half);
                sum += (last_level - first_level - 1.0) * norm(-half, half);
                sum + norm(-half, stop - (last_level * step + half))
            })
            .collect();
        f64::from(cascade_sum(&norms))
    }

    /// `calculate_qparams`; scale 1 and zero point 0 before the first batch.
    ///
    /// # Errors
    ///
    /// Those of [`TorchQuantizer::params`].
    pub fn params(&self) -> Result<ToolParams, CalibError> {
        self.quantizer.params(self.range())
    }
}

/// `torch.histc` between ends that are cut to integers.
fn histc(x: &[f32], bins: usize, r: ValueRange) -> Vec<f32> {
    let mut counts = alloc::vec![0.0; bins];
    let (mut low, mut high) = (libm::truncf(r.min), libm::truncf(r.max));
    if low == high {
        let mut ends = x
            .iter()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &v| {
                (a.min(v), b.max(v))
            });
        if ends.0 == ends.1 {
            ends = (ends.0 - 1.0, ends.1 + 1.0);
        }
        (low, high) = ends;
    }
    for &v in x.iter().filter(|&&v| v >= low && v <= high) {
        // Between 0 and the number of bins.
        let bin = ((v - low) * bins as f32 / (high - low)) as usize;
        if let Some(c) = counts.get_mut(bin.min(bins - 1)) {
            *c += 1.0;
        }
    }
    counts
}

/// `torch.sum` of contiguous f32 in the build for vectors of eight: four of them side by side, in
/// a cascade of four levels.
fn cascade_sum(x: &[f32]) -> f32 {
    const LANES: usize = 8;
    const SIDE: usize = 4;
    const LEVELS: usize = 4;
    type Vector = [f32; LANES];
    let add = |a: &mut Vector, b: &Vector| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    let (vectors, rest) = x.as_chunks::<LANES>();
    let (groups, single) = vectors.as_chunks::<SIDE>();
    let log2 = usize::BITS - groups.len().max(1).next_power_of_two().leading_zeros() - 1;
    let power = (log2 as usize / LEVELS).max(4);
    let step = 1usize << power;
    let mut sums = [[[0.0f32; LANES]; SIDE]; LEVELS];
    let mut done = 0;
    let (whole, partial) = groups.split_at(groups.len() / step * step);
    for chunk in whole.chunks_exact(step) {
        for group in chunk {
            sums[0].iter_mut().zip(group).for_each(|(s, v)| add(s, v));
        }
        done += step;
        for level in 1..LEVELS {
            let lower = core::mem::take(&mut sums[level - 1]);
            sums[level]
                .iter_mut()
                .zip(&lower)
                .for_each(|(s, v)| add(s, v));
            if done & ((step - 1) << (level * power)) != 0 {
                break;
            }
        }
    }
    for group in partial {
        sums[0].iter_mut().zip(group).for_each(|(s, v)| add(s, v));
    }
    let [mut total, upper @ ..] = sums;
    for level in &upper {
        total.iter_mut().zip(level).for_each(|(s, v)| add(s, v));
    }
    let [mut first, others @ ..] = total;
    single.iter().for_each(|v| add(&mut first, v));
    others.iter().for_each(|v| add(&mut first, v));
    let tail = rest.iter().fold(0.0, |s, v| s + v);
    first.iter().fold(tail, |s, v| s + v)
}
