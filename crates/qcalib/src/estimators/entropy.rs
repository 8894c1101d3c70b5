//! The range whose quantized distribution says most about the original.

use alloc::vec;
use alloc::vec::Vec;
use qformat::Scheme;

use super::counts::Counts;
use super::divergence::Line;
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
///   4 million pairs, too many to try; so this is a **search**: a net of 33 × 33 candidates, and a
///   descent into each of its best eight valleys with ever smaller steps. What it finds is never
///   worse than the best of the net or the widest range, but need not be the best of all pairs. The
///   tests try all pairs of 40 small ragged histograms: at least 30 answers are the best, and none
///   loses more than a fifth of what the best gains over the widest range.
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
/// let r = ranges(&*o, &Entropy, Target::new(DType::I8, Scheme::Symmetric)?)?[0];
/// assert!(r.max > 3.0 && r.max < 10.0, "{r:?}");
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Entropy;

/// How far a bin may stand above the median of its neighbours.
const PEAK: u64 = 4;

/// Bins in use on either side that a bin is compared with.
const NEIGHBOURS: usize = 8;

/// Candidates of each end in the first net of a search over both ends, less one.
const NET: usize = 32;

/// The best points of the net, among which valleys are looked for.
const POINTS: usize = 48;

/// Valleys that are descended into at most.
const STARTS: usize = 8;

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
                    best_ends(below, above, levels, divergence)
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

/// Distance of the candidates that are tried first, to know early what the others must beat.
const STRIDE: usize = 32;

/// The end with the least divergence among `levels..=bins`, or `bins` if there is none. All are
/// tried; `divergence(end, limit)` may give up above the limit.
fn best_end(bins: usize, levels: usize, divergence: impl Fn(usize, f64) -> f64) -> usize {
    let mut limit = f64::INFINITY;
    for t in (levels..=bins).rev().step_by(STRIDE) {
        limit = limit.min(divergence(t, limit));
    }
    let mut best = (bins, f64::INFINITY);
    for t in (levels..=bins).rev() {
        let d = divergence(t, limit.min(best.1));
        if d < best.1 {
            best = (t, d);
        }
    }
    best.0
}

/// The same over both ends, counted from zero outwards: a net over all pairs, then a descent from
/// each of its best points with ever smaller steps.
fn best_ends(
    below: usize,
    above: usize,
    levels: usize,
    divergence: impl Fn(usize, usize, f64) -> f64,
) -> (usize, usize) {
    let at = |(a, b): (usize, usize), limit: f64| {
        let allowed = a <= below && b <= above && a + b >= levels;
        if allowed {
            divergence(a, b, limit)
        } else {
            f64::INFINITY
        }
    };
    // The best points of the net, widest first among equals: it is walked from the widest inwards
    // and only a smaller divergence goes before another.
    let mut points: Vec<((usize, usize), f64)> = Vec::with_capacity(POINTS + 1);
    let ends = |(i, j): (usize, usize)| (below * i / NET, above * j / NET);
    for i in (0..=NET).rev() {
        for j in (0..=NET).rev() {
            let limit = match points.get(POINTS - 1) {
                Some(&(_, worst)) => worst,
                None => f64::INFINITY,
            };
            let d = at(ends((i, j)), limit);
            if d < limit {
                let place = points.partition_point(|&(_, known)| known <= d);
                points.insert(place, ((i, j), d));
                points.truncate(POINTS);
            }
        }
    }
    // A point beside a better one leads to the same valley.
    let beside = |(i, j): (usize, usize), &((k, l), _): &((usize, usize), f64)| {
        i.abs_diff(k) <= 1 && j.abs_diff(l) <= 1
    };
    let valleys = points
        .iter()
        .enumerate()
        .filter(|&(n, &(p, _))| !points[..n].iter().any(|better| beside(p, better)))
        .map(|(_, &(p, d))| (ends(p), d))
        .take(STARTS);
    let mut best = ((below, above), f64::INFINITY);
    for start in valleys {
        let mut here = start;
        let mut step = (below.div_ceil(NET), above.div_ceil(NET));
        // What has lost against an earlier point of the descent loses against all later ones.
        let mut seen = vec![start.0];
        loop {
            let (a, b) = here.0;
            for a in [a.saturating_sub(step.0), a, a + step.0] {
                for b in [b.saturating_sub(step.1), b, b + step.1] {
                    if seen.contains(&(a, b)) {
                        continue;
                    }
                    seen.push((a, b));
                    let d = at((a, b), here.1);
                    if d < here.1 {
                        here = ((a, b), d);
                    }
                }
            }
            if here.0 != (a, b) {
                continue;
            }
            if step == (1, 1) {
                break;
            }
            step = (step.0.div_ceil(2), step.1.div_ceil(2));
            seen.clear();
            seen.push(here.0);
        }
        if here.1 < best.1 {
            best = here;
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::super::divergence::EPSILON;
    use super::*;
    use proptest::prelude::*;

    /// The definition in the documentation of [`Entropy`], step by step.
    fn textbook(counts: &[u64], start: usize, end: usize, levels: usize) -> f64 {
        let all: u64 = counts.iter().sum();
        let inside = &counts[start..end];
        let bins = inside.len();
        let kept: u64 = inside.iter().sum();
        if kept == 0 {
            return f64::INFINITY;
        }
        let mut p: Vec<f64> = inside.iter().map(|&c| c as f64).collect();
        p[0] += counts[..start].iter().sum::<u64>() as f64;
        p[bins - 1] += counts[end..].iter().sum::<u64>() as f64;
        let support = p.iter().filter(|&&p| p > 0.0).count() as f64;
        let mut q = alloc::vec![0.0; bins];
        for j in 0..levels {
            let segment = j * bins / levels..(j + 1) * bins / levels;
            let mass: u64 = inside[segment.clone()].iter().sum();
            let used = p[segment.clone()].iter().filter(|&&p| p > 0.0).count() as f64;
            for i in segment {
                if p[i] > 0.0 {
                    q[i] = (1.0 - EPSILON) * mass as f64 / used / kept as f64 + EPSILON / support;
                }
            }
        }
        let all = all as f64;
        let term = |(p, q): (&f64, &f64)| {
            if *p > 0.0 {
                p / all * (p / all / q).ln()
            } else {
                0.0
            }
        };
        p.iter().zip(&q).map(term).sum()
    }

    fn bins() -> impl Strategy<Value = Vec<u64>> {
        let count = prop_oneof![3 => 0u64..50, 2 => Just(0), 1 => 0u64..100_000];
        prop::collection::vec(count, 4..150)
    }

    proptest! {
        #[test]
        fn the_sums_give_the_textbook_divergence(
            counts in bins(), levels in 2usize..20, a in 0usize..150, b in 0usize..150,
        ) {
            let (a, b) = (a.min(b) % counts.len(), a.max(b) % (counts.len() + 1));
            prop_assume!(a < b && b - a >= levels);
            let fast = Line::new(&counts).divergence(a, b, levels, f64::INFINITY);
            let slow = textbook(&counts, a, b, levels);
            prop_assert!((fast - slow).abs() < 1e-8 || fast == slow, "{fast} {slow}");
        }

        #[test]
        fn one_end_is_the_best_of_all_candidates(counts in bins(), levels in 2usize..20) {
            let line = Line::new(&counts);
            let end = best_end(line.bins(), levels, |t, l| line.divergence(0, t, levels, l));
            for t in levels..=counts.len() {
                prop_assert!(textbook(&counts, 0, end, levels)
                    <= textbook(&counts, 0, t, levels) + 1e-8);
            }
        }
    }

    #[test]
    fn point_masses_are_cut_and_smooth_densities_are_not() {
        let smooth: Vec<u64> = (0..200).map(|i| 10_000 - 40 * i).collect();
        assert_eq!(without_point_masses(&smooth), smooth);
        let mut spiked = smooth.clone();
        spiked[20] = 1 << 40;
        let cut = without_point_masses(&spiked);
        assert!(cut[20] <= 5 * smooth[20] && cut[21] == smooth[21]);
        let few = [1, 0, 1_000_000, 3];
        assert_eq!(without_point_masses(&few), few);
    }

    /// The net over both ends against every pair, on smooth and on ragged data.
    #[test]
    fn two_ends_come_close_to_the_best_of_all_pairs() {
        let mut gaps = Vec::new();
        for seed in 0..40u64 {
            let counts: Vec<u64> = (0..120u64)
                .map(|i| {
                    let x = (i as f64 - 50.0) / (6.0 + seed as f64 / 4.0);
                    let noise = (i * 2_654_435_761 + seed * 97) % 7;
                    (1e4 * (-x.abs()).exp()) as u64 * (7 + seed % 5 * noise) / 7
                })
                .collect();
            let (below, above, levels) = (50, 70, 16);
            let divergence = |a: usize, b: usize| textbook(&counts, below - a, below + b, levels);
            let line = Line::new(&counts);
            let (a, b) = best_ends(below, above, levels, |a, b, limit| {
                line.divergence(below - a, below + b, levels, limit)
            });
            let mut best = f64::INFINITY;
            for a in 0..=below {
                for b in 0..=above {
                    if a + b >= levels {
                        best = best.min(divergence(a, b));
                    }
                }
            }
            let widest = divergence(below, above);
            let gap = divergence(a, b) - best;
            gaps.push(gap / (widest - best));
        }
        // Small ragged histograms have many valleys; most of the lowest are found.
        assert!(gaps.iter().all(|&g| g < 0.2), "{gaps:?}");
        assert!(gaps.iter().filter(|&&g| g < 1e-6).count() >= 30, "{gaps:?}");
    }
}
