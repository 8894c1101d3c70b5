//! The range whose quantized distribution says most about the original.

use alloc::vec::Vec;
use qformat::Scheme;

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
///   the range. After a ReLU they would otherwise outweigh everything else.
/// * **Symmetric** targets are judged by `|x|` and the levels of one side (128 for i8 and u8),
///   and all candidates are tried. Values on one side only, as after a ReLU, give the same
///   threshold there; half of the integers then stay unused, which is the scheme's price.
/// * **Affine** targets use all levels (256 for 8 bits) over both ends. If all values lie on one
///   side, all candidates of the other end are tried; else a net of 33 × 33 candidates, and the
///   neighbourhood of the best with ever smaller steps.
///
/// A range always has at least `L` bins. With no more bins than levels (16-bit targets, say)
/// nothing is lost inside any range, and the observed range is the answer. The widest of equally
/// good ranges wins. Reads the record of a
/// [`HistogramObserver`](crate::observers::HistogramObserver), which has 1,024 to 2,048 bins on
/// its longer side; ONNX Runtime's defaults of 128 bins for 128 levels leave one candidate only.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Entropy;

/// Share of the even distribution in `Q`.
const EPSILON: f64 = 1e-4;

/// Candidates of each end in the first net of a search over both ends, less one.
const NET: usize = 32;

impl Estimator for Entropy {
    fn name(&self) -> &'static str {
        "entropy"
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
                let line = Line::new(counts.magnitudes());
                counts.within(best_end(line.bins(), levels, |t| {
                    line.divergence(0, t, levels)
                }))
            }
            Scheme::Affine => {
                let below = counts.negative.len();
                let above = counts.positive.len();
                let mut all: Vec<u64> = counts.negative.iter().rev().copied().collect();
                all.extend_from_slice(&counts.positive);
                let line = Line::new(all);
                let divergence = |a: usize, b: usize| line.divergence(below - a, below + b, levels);
                let (a, b) = if below == 0 {
                    (0, best_end(above, levels, |b| divergence(0, b)))
                } else if above == 0 {
                    (best_end(below, levels, |a| divergence(a, 0)), 0)
                } else {
                    best_ends(below, above, levels, divergence)
                };
                counts.between(a, b)
            }
        })
    }
}

/// The end with the least divergence among `levels..=bins`, or `bins` if there is none.
fn best_end(bins: usize, levels: usize, divergence: impl Fn(usize) -> f64) -> usize {
    let mut best = (bins, f64::INFINITY);
    for t in (levels..=bins).rev() {
        let d = divergence(t);
        if d < best.1 {
            best = (t, d);
        }
    }
    best.0
}

/// The same over both ends, counted from zero outwards.
fn best_ends(
    below: usize,
    above: usize,
    levels: usize,
    divergence: impl Fn(usize, usize) -> f64,
) -> (usize, usize) {
    let mut best = ((below, above), f64::INFINITY);
    let mut offer = |a: usize, b: usize| {
        if a <= below && b <= above && a + b >= levels {
            let d = divergence(a, b);
            if d < best.1 {
                best = ((a, b), d);
            }
        }
        best.0
    };
    // From the widest inwards.
    let mut centre = (below, above);
    for i in (0..=NET).rev() {
        for j in (0..=NET).rev() {
            centre = offer(below * i / NET, above * j / NET);
        }
    }
    let mut step = (below.div_ceil(NET), above.div_ceil(NET));
    while step != (1, 1) {
        step = (step.0.div_ceil(2), step.1.div_ceil(2));
        // Until the best stays where it is: a valley may run along both ends.
        for _ in 0..4 {
            let (a, b) = centre;
            for a in [a.saturating_sub(step.0), a, a + step.0] {
                for b in [b.saturating_sub(step.1), b, b + step.1] {
                    centre = offer(a, b);
                }
            }
            if centre == (a, b) {
                break;
            }
        }
    }
    centre
}

/// Neighbouring bins, with the sums that make a candidate's divergence cost O(levels).
struct Line {
    counts: Vec<u64>,
    /// Sums over the bins before each: of the counts, of `c · ln c`, and of the bins in use.
    before: Vec<Sums>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: f64,
    entropy: f64,
    used: u32,
}

/// `x · ln x`, 0 at 0.
fn x_ln_x(x: f64) -> f64 {
    if x > 0.0 { x * libm::log(x) } else { 0.0 }
}

impl Line {
    fn new(counts: Vec<u64>) -> Line {
        let mut sum = Sums::default();
        let mut before = Vec::with_capacity(counts.len() + 1);
        before.push(sum);
        for &c in &counts {
            // Counts above 2^53 round: relative weights are all that matters here.
            sum.count += c as f64;
            sum.entropy += x_ln_x(c as f64);
            sum.used += u32::from(c > 0);
            before.push(sum);
        }
        Line { counts, before }
    }

    fn bins(&self) -> usize {
        self.counts.len()
    }

    /// Divergence of the candidate `start..end` in nats.
    fn divergence(&self, start: usize, end: usize, levels: usize) -> f64 {
        let bins = end - start;
        let Some(last) = self.before.last() else {
            return f64::INFINITY;
        };
        let (from, to) = (self.before[start], self.before[end]);
        let inside = to.count - from.count;
        let total = last.count;
        if bins == 0 || inside <= 0.0 {
            return f64::INFINITY;
        }
        // What clipping adds to the outermost bins.
        let (low, high) = (from.count, total - to.count);
        let edge = |bin: usize| self.counts[bin] as f64;
        // Bins that are in use only because of it, and Σ P ln P with the edges put right.
        let (mut used, mut entropy) = (to.used - from.used, to.entropy - from.entropy);
        let first_is_new = low > 0.0 && self.counts[start] == 0;
        let last_is_new = high > 0.0 && self.counts[end - 1] == 0 && !(bins == 1 && first_is_new);
        used += u32::from(first_is_new) + u32::from(last_is_new);
        let edges: &[(usize, f64)] = if bins == 1 {
            &[(start, low + high)]
        } else {
            &[(start, low), (end - 1, high)]
        };
        for &(bin, more) in edges {
            entropy += x_ln_x(edge(bin) + more) - x_ln_x(edge(bin));
        }
        let even = EPSILON / f64::from(used);
        let spread = (1.0 - EPSILON) / inside;
        let mut cross = 0.0;
        let mut a = start;
        for j in 1..=levels {
            let b = start + j * bins / levels;
            if a == b {
                continue;
            }
            let q = self.before[b].count - self.before[a].count;
            let mut used = self.before[b].used - self.before[a].used;
            let mut p = q;
            if a == start {
                p += low;
                used += u32::from(first_is_new);
            }
            if b == end {
                p += high;
                used += u32::from(last_is_new);
            }
            if p > 0.0 {
                cross += p * libm::log(spread * q / f64::from(used) + even);
            }
            a = b;
        }
        // Σ (P/N) ln(P/N) − Σ (P/N) ln Q
        (entropy - cross) / total - libm::log(total)
    }
}
