//! Methods that look at the distribution: ranks, and divergences by the book.

use std::ops::{Range, RangeInclusive};

use qcalib::estimators::Tails;
use qcalib::{Target, ValueRange};
use qformat::Scheme;

use crate::activation::Activation;

/// One end of a range that may leave `allowed` of the values beyond it, where `sorted` are the
/// values that count, in ascending order, `end` is the chosen one, and the largest value is `seen`.
///
/// The rank decides exactly: no more are beyond the end than allowed, one bin nearer to zero more
/// would be, and so the end is less than a bin from the value of that rank.
fn check_rank(sorted: &[f32], allowed: usize, end: f64, seen: f64, width: f64, place: &str) {
    let beyond = |edge: f64| sorted.len() - sorted.partition_point(|&v| f64::from(v) < edge);
    if end == 0.0 {
        assert!(
            beyond(f64::MIN_POSITIVE) <= allowed,
            "{place}: all are beyond"
        );
        return;
    }
    // An end inside the last bin is that of the values: nothing is beyond it.
    let edge = (end / width).ceil() * width;
    assert!(
        end == edge || end == seen,
        "{place}: {end} is no edge of a bin of {width}"
    );
    let (at, nearer) = (
        if end == seen { 0 } else { beyond(edge) },
        beyond(edge - width),
    );
    assert!(
        at <= allowed,
        "{place}: {at} beyond {end}, {allowed} allowed"
    );
    assert!(
        nearer > allowed,
        "{place}: {nearer} beyond one bin less than {end}, {allowed} allowed"
    );
    let exact = f64::from(sorted[sorted.len() - 1 - allowed]);
    assert!(
        exact <= end && end <= exact + width,
        "{place}: {end}, but the rank is {exact}"
    );
}

pub(crate) fn check_percentile(
    a: &Activation,
    chosen: ValueRange,
    percent: f64,
    tails: Tails,
    target: Target,
    place: &str,
) {
    let (n, width) = (a.sorted.len(), a.bin_width());
    let (min, max) = (f64::from(a.ends().0), f64::from(a.ends().1));
    let (low, high) = (f64::from(chosen.min), f64::from(chosen.max));
    // In thousandths of a percent the share is an integer.
    let share = 100_000 - (percent * 1000.0).round() as usize;
    let allowed = |ends: usize| n * share / 100_000 / ends;
    if target.scheme() == Scheme::Symmetric {
        // The longer side decides; the shorter is cut at the same edge, or ends before it.
        let end = high.max(-low);
        check_rank(&a.magnitudes, allowed(1), end, max.max(-min), width, place);
        assert!(
            high == end.min(max.max(0.0)) && -low == end.min(-min.min(0.0)),
            "{place}"
        );
        return;
    }
    let (below, above) = match tails {
        Tails::Both => (allowed(2), allowed(2)),
        Tails::Upper => (0, allowed(1)),
        Tails::Lower => (allowed(1), 0),
    };
    check_rank(&a.sorted, above, high, max, width, place);
    let mirrored: Vec<f32> = a.sorted.iter().rev().map(|v| -v).collect();
    check_rank(&mirrored, below, -low, -min, width, place);
}

/// Weight of the even distribution that is mixed in, so that no bin is without hope.
const EPSILON: f64 = 1e-4;

/// Counts of values that are not exactly zero: of `bins` bins from zero outwards.
fn count(values: impl Iterator<Item = f64>, bins: usize, width: f64) -> Vec<u64> {
    let mut counts = vec![0; bins];
    for v in values {
        counts[(v / width) as usize] += 1;
    }
    counts
}

/// No bin above 4 times the median of the 8 nearest bins in use on either side.
fn limited(counts: &[u64]) -> Vec<u64> {
    let used: Vec<usize> = (0..counts.len()).filter(|&i| counts[i] > 0).collect();
    let mut limited = counts.to_vec();
    for (at, &bin) in used.iter().enumerate() {
        let around = at.saturating_sub(8)..(at + 9).min(used.len());
        let mut others: Vec<u64> = around
            .filter(|&i| i != at)
            .map(|i| counts[used[i]])
            .collect();
        others.sort_unstable();
        if others.len() >= 8 {
            limited[bin] = limited[bin].min(4 * others[others.len() / 2]);
        }
    }
    limited
}

/// The divergence of what `levels` levels make of the bins `inside`, step by step as the method is
/// defined.
fn divergence(counts: &[u64], inside: Range<usize>, levels: usize) -> f64 {
    let Range { start, end } = inside;
    let mut p: Vec<f64> = counts[start..end].iter().map(|&c| c as f64).collect();
    let bins = p.len();
    p[0] += counts[..start].iter().sum::<u64>() as f64;
    p[bins - 1] += counts[end..].iter().sum::<u64>() as f64;
    let all: f64 = p.iter().sum();
    let kept = counts[start..end].iter().sum::<u64>() as f64;
    if kept == 0.0 {
        return f64::INFINITY;
    }
    let support = p.iter().filter(|&&p| p > 0.0).count() as f64;
    let mut sum = 0.0;
    for level in 0..levels {
        let segment = level * bins / levels..(level + 1) * bins / levels;
        let mass = segment
            .clone()
            .map(|i| counts[start + i] as f64)
            .sum::<f64>();
        let used = segment.clone().filter(|&i| p[i] > 0.0).count() as f64;
        let q = (1.0 - EPSILON) * mass / used / kept + EPSILON / support;
        for p in segment.map(|i| p[i] / all).filter(|&p| p > 0.0) {
            sum += p * (p / q).ln();
        }
    }
    sum
}

/// The bins of a tensor and what a range of them loses, for one target.
struct Bins {
    counts: Vec<u64>,
    /// Bins below zero, and above.
    below: usize,
    above: usize,
    width: f64,
    levels: usize,
}

impl Bins {
    fn of(a: &Activation, target: Target) -> Bins {
        let width = a.bin_width();
        let value = |v: &f32| f64::from(*v);
        let bins = |v: f64| if v > 0.0 { (v / width) as usize + 1 } else { 0 };
        let (min, max) = (f64::from(a.ends().0), f64::from(a.ends().1));
        let (mut below, mut above) = (bins(-min), bins(max));
        let steps = target.range().steps() as usize;
        let symmetric = target.scheme() == Scheme::Symmetric;
        let side = |values: &[f32], sign: f64, bins| {
            let values = values.iter().map(|v| sign * value(v));
            count(values.filter(|&v| v > 0.0), bins, width)
        };
        let counts = if symmetric {
            above = below.max(above);
            below = 0;
            side(&a.magnitudes, 1.0, above)
        } else {
            let mut counts = side(&a.sorted, -1.0, below);
            counts.reverse();
            counts.extend(side(&a.sorted, 1.0, above));
            counts
        };
        Bins {
            counts: limited(&counts),
            below,
            above,
            width,
            levels: if symmetric { steps / 2 } else { steps } + 1,
        }
    }

    /// A chosen end as a number of bins of `all`. The end of the values is what all bins give, and
    /// where it is an edge itself, all but the last.
    fn edges(&self, end: f32, all: usize) -> RangeInclusive<usize> {
        let bins = (f64::from(end).abs() / self.width).ceil() as usize;
        if bins + 1 == all {
            bins..=all
        } else {
            bins..=bins
        }
    }

    /// The divergence of so many bins on either side.
    fn pair(&self, a: usize, b: usize) -> f64 {
        let inside = self.below - a..self.below + b;
        divergence(&self.counts, inside, self.levels)
    }

    /// The divergence of a range of both signs.
    fn range(&self, chosen: ValueRange) -> f64 {
        let mut least = f64::INFINITY;
        for a in self.edges(chosen.min, self.below) {
            for b in self.edges(chosen.max, self.above) {
                least = least.min(self.pair(a, b));
            }
        }
        least
    }

    /// No pair of these ends loses less than `ours`.
    fn check_pairs(&self, ours: f64, pairs: impl Iterator<Item = (usize, usize)>, place: &str) {
        for (a, b) in pairs.filter(|(a, b)| a + b >= self.levels) {
            let other = self.pair(a, b);
            // Both are sums of thousands of terms.
            assert!(
                ours <= other + 1e-9,
                "{place} has {ours}, but {a} and {b} bins have {other}"
            );
        }
    }
}

/// Shares of the bins on either side at which a range of both signs is tried.
const PLANE: usize = 24;

/// Bins around the best of all pairs at which others are tried.
const AROUND: usize = 3;

pub(crate) fn check_entropy(
    a: &Activation,
    chosen: ValueRange,
    all_pairs: bool,
    target: Target,
    place: &str,
) {
    let bins = Bins::of(a, target);
    let (below, above) = (bins.below, bins.above);
    if below == 0 {
        let end = chosen.max.max(-chosen.min);
        check_line(&bins.counts, bins.edges(end, above), bins.levels, place);
        return;
    }
    let ours = bins.range(chosen);
    let plane = (1..=PLANE)
        .flat_map(|i| (1..=PLANE).map(move |j| (i, j)))
        .map(|(i, j)| (below * i / PLANE, above * j / PLANE));
    bins.check_pairs(ours, plane, place);
    if all_pairs {
        let near = |end: f32, all| {
            let edges = bins.edges(end, all);
            edges.start().saturating_sub(AROUND)..=(edges.end() + AROUND).min(all)
        };
        let around =
            near(chosen.min, below).flat_map(|a| near(chosen.max, above).map(move |b| (a, b)));
        bins.check_pairs(ours, around, place);
    }
}

/// What a range of both signs loses, as a share of what the best does.
pub(crate) fn entropy_lost(
    a: &Activation,
    chosen: ValueRange,
    best: ValueRange,
    target: Target,
) -> f64 {
    let bins = Bins::of(a, target);
    bins.range(chosen) / bins.range(best) - 1.0
}

/// The chosen number of bins is the best of all.
fn check_line(counts: &[u64], chosen: RangeInclusive<usize>, levels: usize, place: &str) {
    let of = |t: usize| divergence(counts, 0..t, levels);
    let ours = chosen.clone().map(of).fold(f64::INFINITY, f64::min);
    for t in levels..=counts.len() {
        let other = of(t);
        // Both are sums of two thousand terms.
        assert!(
            ours <= other + 1e-9,
            "{place}: {chosen:?} bins have {ours}, but {t} have {other}"
        );
    }
}
