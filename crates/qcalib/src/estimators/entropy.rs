//! The range whose quantized distribution says most about the original.

mod all_pairs;
mod divergence;
mod search;

use alloc::vec::Vec;
use qformat::Scheme;

use self::all_pairs::best_pair;
use self::divergence::Line;
use self::search::{best_end, best_ends};
use super::counts::Counts;
use crate::{CalibError, Estimator, Record, Target, ValueRange};

/// The range with the least Kullback-Leibler divergence between the distribution of the values
/// and that of the quantized values.
///
/// For a candidate range of whole bins with counts `c`, and the `L` levels of the target
///
/// * `P` is `c` with everything outside added to the outermost bins: what clipping does;
/// * `Q` is `c` without what is outside, cut into `L` segments of equal length (segment `j` of
///   `m` bins starts at `floor(j · m / L)`), each spread evenly over those of its bins where `P`
///   is not zero;
/// * both are normalised, and `Q` is mixed with `ε = 10⁻⁴` of an even distribution over the bins
///   where `P` is not zero, so that `D = Σ P · ln(P / Q)` is finite.
///
/// This is TensorRT's method (Migacz 2017, *8-bit Inference with TensorRT*, GTC; Wu et al. 2020,
/// arXiv 2004.09602, §5.1). The talk leaves open how uneven segments are cut and how zeros are
/// smoothed; both are fixed above. Three choices of ours:
///
/// * Exact zeros are left out: every candidate represents them exactly, so they say nothing about
///   the range. After a rectifier they would otherwise outweigh everything else.
/// * Other values that recur exactly (the bias of a channel over an empty background) are point
///   masses too, and the divergence, made for densities, would give up most of the range to keep
///   them apart from their neighbours. A bin counts at most 4 times the median of the
///   8 nearest bins in use on either side, which leaves smooth densities as they
///   are.
/// * **Symmetric** targets are judged by `|x|` and the levels of one side (128 for i8 and u8),
///   and all candidates are tried. Values on one side only, as after a rectifier, give the same
///   threshold there; half of the integers then stay unused, which is the scheme's price.
/// * **Affine** targets use all levels (256 for 8 bits) over both ends. If all values lie on one
///   side, all candidates of the other end are tried. With values on both sides there are up to
///   4 million pairs of ends, and two ways to choose one.
///
/// [`new`](Self::new) makes a **search** for the pair: a net of 33 × 33 candidates, and a descent
/// into each of its best eight valleys with ever smaller steps. What it finds is never worse than
/// the best of the net or the widest range, but need not be the best of all pairs.
///
/// [`all_pairs`](Self::all_pairs) finds the best of **all pairs**. Most are ruled out unseen, since
/// a lower bound of their divergence is above the least one known. Of equally good and equally wide
/// pairs that which reaches further up wins.
///
/// | the search | against the best of all pairs |
/// |---|---|
/// | divergence, 24 drawn histograms of 2,648 or 4,096 bins | 0.4 % above in the median, 5.5 % at most |
/// | divergence, the 6 activations of the digits model with both signs | up to 3.3 % above with 8 bits, 1.0 % with 4 |
/// | time, 2 × 2,048 bins, 8 bits, Zen 4 class | 0.9 ms against 22 ms |
///
/// The first is printed by `cargo test --release -p qcalib --lib the_search -- --nocapture`, the
/// second by `cargo test -p quaver --test real_activations the_search -- --nocapture`, the third by
/// `cargo run --release -p qcalib --example figures`. Ragged histograms, in which many pairs are
/// nearly as good as the best, take longer: `cargo xtask bench calib` has one of 60 ms.
///
/// The range is in the unit of the values. It always has at least `L` bins. With no more bins than
/// levels (16-bit targets, say) nothing is lost inside any range, and the observed range is the
/// answer. The widest of equally good ranges wins. Reads the record of a
/// [`HistogramObserver`](crate::observers::HistogramObserver), which has 1,024 to 2,048 bins on its
/// longer side; ONNX Runtime's defaults of 128 bins for 128 levels leave one candidate only.
///
/// ```
/// use qcalib::estimators::Entropy;
/// use qcalib::{Observer, ObserverKind, Policy, Target, ranges};
/// use qformat::{DType, Granularity, Scheme};
///
/// let mut o = ObserverKind::Histogram.observer(Granularity::PerTensor, Policy::Error)?;
/// // An exponential distribution, and an outlier.
/// let x: Vec<f32> = (0..4000).map(|i| -(1.0 - i as f32 / 4000.0).ln()).chain([30.0]).collect();
/// o.observe(0, &x, &[x.len()])?;
/// let r = ranges(&*o, &Entropy::new(), Target::new(DType::I8, Scheme::Symmetric)?)?[0];
/// assert!(r.max > 3.0 && r.max < 10.0, "{r:?}");
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entropy {
    /// Whether all pairs of ends are candidates.
    all_pairs: bool,
}

impl Entropy {
    /// A search where there are two ends to choose.
    #[must_use]
    pub const fn new() -> Self {
        Entropy { all_pairs: false }
    }

    /// The best of all pairs where there are two ends to choose, and the same as [`new`](Self::new)
    /// where there is one.
    #[must_use]
    pub const fn all_pairs() -> Self {
        Entropy { all_pairs: true }
    }
}

/// How far a bin may stand above the median of its neighbours.
const PEAK: u64 = 4;

/// Bins in use on either side that a bin is compared with.
const NEIGHBOURS: usize = 8;

impl Estimator for Entropy {
    fn name(&self) -> &'static str {
        if self.all_pairs {
            "entropy-all"
        } else {
            "entropy"
        }
    }

    fn range(&self, record: &Record<'_>, target: Target) -> Result<ValueRange, CalibError> {
        let counts = Counts::of(record, self.name())?;
        // The levels of one side and zero, or all of them.
        let steps = target.range().steps();
        let levels = match target.scheme() {
            Scheme::Symmetric => steps / 2,
            Scheme::Affine => steps,
        };
        // More levels than any histogram has bins are as good as the largest number.
        let levels = usize::try_from(levels).map_or(usize::MAX, |l| l.saturating_add(1));
        Ok(match target.scheme() {
            Scheme::Symmetric => {
                let line = Line::new(&without_point_masses(&counts.magnitudes()));
                counts.within(best_end(line.bins(), levels, |t, limit| {
                    line.divergence(0, t, levels, limit)
                }))
            }
            Scheme::Affine => {
                let below = counts.negative.len();
                let above = counts.positive.len();
                let mut all: Vec<u64> = counts.negative.iter().rev().copied().collect();
                all.extend_from_slice(&counts.positive);
                let line = Line::new(&without_point_masses(&all));
                let divergence = |a: usize, b: usize, limit: f64| {
                    line.divergence(below - a, below + b, levels, limit)
                };
                let (a, b) = if below == 0 {
                    (0, best_end(above, levels, |b, l| divergence(0, b, l)))
                } else if above == 0 {
                    (best_end(below, levels, |a, l| divergence(a, 0, l)), 0)
                } else {
                    let found = best_ends(below, above, levels, divergence);
                    if self.all_pairs {
                        best_pair(&line, below, levels, found)
                    } else {
                        found
                    }
                };
                counts.between(a, b)
            }
        })
    }
}

/// Counts in which no bin stands far above its neighbours.
fn without_point_masses(counts: &[u64]) -> Vec<u64> {
    let (used, values): (Vec<usize>, Vec<u64>) = counts
        .iter()
        .enumerate()
        .filter(|&(_, &c)| c > 0)
        .map(|(i, &c)| (i, c))
        .unzip();
    let mut limited = counts.to_vec();
    let mut around = Vec::with_capacity(2 * NEIGHBOURS);
    for (at, (&bin, &count)) in used.iter().zip(&values).enumerate() {
        let before = &values[at.saturating_sub(NEIGHBOURS)..at];
        let after = &values[at + 1..values.len().min(at + 1 + NEIGHBOURS)];
        let n = before.len() + after.len();
        if n < NEIGHBOURS {
            continue; // too few to say what is usual here
        }
        // Mostly the median is seen to be large enough without looking for it.
        let least = count.div_ceil(PEAK);
        let large = |side: &[u64]| side.iter().map(|&c| usize::from(c >= least)).sum::<usize>();
        if large(before) + large(after) >= n - n / 2 {
            continue;
        }
        around.clear();
        around.extend(before.iter().chain(after).copied());
        let (_, &mut median, _) = around.select_nth_unstable(n / 2);
        limited[bin] = count.min(median.saturating_mul(PEAK));
    }
    limited
}

#[cfg(test)]
mod tests;
