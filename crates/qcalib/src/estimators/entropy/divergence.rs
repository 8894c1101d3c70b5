//! The divergence between a histogram and what quantization leaves of it, candidate by candidate.

use alloc::vec::Vec;
use core::ops::Range;

use crate::estimators::log::ln;

/// Share of the even distribution in `Q`.
pub(super) const EPSILON: f64 = 1e-4;

/// Neighbouring bins, with the sums that make a candidate's divergence cost O(levels).
pub(super) struct Line {
    counts: Vec<f64>,
    /// Sums over the bins before each.
    before: Vec<Sums>,
    /// By how much `Σ p · ln p` grows when all bins before each are added to it, and all after.
    clipped: Vec<(f64, f64)>,
    /// `1 / n` for every number of bins in use, and 0 for none.
    reciprocals: Vec<f64>,
}

/// Sums over bins: of the counts, of `c · ln c`, and of the bins in use.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: f64,
    entropy: f64,
    used: u32,
}

/// `x · ln x`, 0 at 0.
fn x_ln_x(x: f64) -> f64 {
    if x > 0.0 { x * ln(x) } else { 0.0 }
}

/// What a whole candidate has in common for its segments.
struct Candidate {
    /// Factor that makes a segment's count, spread over one bin, its part of `N · Q`.
    spread: f64,
    /// The even part of `N · Q`.
    even: f64,
}

impl Line {
    pub(super) fn new(counts: &[u64]) -> Line {
        // Counts above 2^53 round: relative weights are all that matters here.
        let counts: Vec<f64> = counts.iter().map(|&c| c as f64).collect();
        let mut sum = Sums::default();
        let mut before = Vec::with_capacity(counts.len() + 1);
        before.push(sum);
        for &c in &counts {
            sum.count += c;
            sum.entropy += x_ln_x(c);
            sum.used += u32::from(c > 0.0);
            before.push(sum);
        }
        let reciprocals = (0..=sum.used + 2)
            .map(|n| if n == 0 { 0.0 } else { 1.0 / f64::from(n) })
            .collect();
        let more = |at: f64, more: f64| x_ln_x(at + more) - x_ln_x(at);
        let clipped = counts
            .iter()
            .zip(before.iter().zip(&before[1..]))
            .map(|(&c, (from, to))| (more(c, from.count), more(c, sum.count - to.count)))
            .collect();
        Line {
            counts,
            before,
            clipped,
            reciprocals,
        }
    }

    pub(super) fn bins(&self) -> usize {
        self.counts.len()
    }

    /// Divergence of the candidate `start..end` in nats, or infinity as soon as it is known to be
    /// above `limit`.
    pub(super) fn divergence(&self, start: usize, end: usize, levels: usize, limit: f64) -> f64 {
        self.divergence_unless(start, end, levels, limit, |_| false)
    }

    /// The same, or infinity if `lose_more(most)` says that the [losses](Self::loss) of all segments
    /// but the outermost are above `most` together.
    pub(super) fn divergence_unless(
        &self,
        start: usize,
        end: usize,
        levels: usize,
        limit: f64,
        lose_more: impl FnOnce(f64) -> bool,
    ) -> f64 {
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
        // What clipping adds to the outermost bins, which may be in use only because of it.
        let (low, high) = (from.count, total - to.count);
        let (first, top) = (self.counts[start], self.counts[end - 1]);
        let first_is_new = low > 0.0 && first == 0.0;
        let last_is_new = high > 0.0 && top == 0.0 && !(bins == 1 && first_is_new);
        let used = to.used - from.used + u32::from(first_is_new) + u32::from(last_is_new);
        // All in counts instead of shares: N · D = Σ p ln(p / NQ) − p + NQ, whose terms are none
        // below zero and whose last two cancel in sum, so a partial sum bounds the whole.
        let candidate = Candidate {
            spread: (1.0 - EPSILON) / inside * total,
            even: EPSILON * total * self.reciprocals[used as usize],
        };
        // Segment j of the m bins starts at floor(j · m / levels); the first and the last hold
        // what clips and weigh most, so they are looked at first.
        let (whole, part) = (bins / levels, bins % levels);
        let first_end = start + whole;
        let last_start = start + ((levels - 1) * bins) / levels;
        let alone = levels == 1 || last_start == start;
        let (low_clipped, high_clipped) = (self.clipped[start].0, self.clipped[end - 1].1);
        let new = |is: bool| u32::from(is);
        if alone {
            let more = if bins == 1 {
                x_ln_x(first + (low + high)) - x_ln_x(first)
            } else {
                low_clipped + high_clipped
            };
            let new = new(first_is_new) + new(last_is_new);
            let (cross, whole) = candidate.segment(&from, &to, low + high, new, &self.reciprocals);
            return (more + whole - cross) / total;
        }
        let at = |bin: usize| &self.before[bin];
        let ends = [
            candidate.segment(
                &from,
                at(first_end),
                low,
                new(first_is_new),
                &self.reciprocals,
            ),
            candidate.segment(
                at(last_start),
                &to,
                high,
                new(last_is_new),
                &self.reciprocals,
            ),
        ];
        let mut sum = low_clipped + high_clipped;
        for (cross, rest) in ends {
            sum += rest - cross;
        }
        // Rounding in the prefix sums must not make a partial sum look too large.
        let limit = (limit + SLACK * (1.0 + limit)) * total;
        // A segment of count q in u bins costs its loss and q · g(s + e · u / q) with g(t) = t − 1
        // − ln t, where s and e are the candidate's factors; and g grows above 1.
        let surplus = if candidate.spread > 1.0 {
            candidate.spread - 1.0 - ln(candidate.spread)
        } else {
            0.0
        };
        let missing = |a: usize| surplus * (at(last_start).count - at(a).count).max(0.0);
        if lose_more(limit - sum - missing(first_end)) {
            return f64::INFINITY;
        }
        // Bins below the levels leave segments empty, which does no harm.
        let (mut a, mut over) = (first_end, part);
        while a < last_start {
            if sum + missing(a) > limit {
                return f64::INFINITY;
            }
            let stretch = at(a);
            let mut cross = 0.0;
            for _ in 0..STRETCH {
                let mut b = a + whole;
                over += part;
                if over >= levels {
                    over -= levels;
                    b += 1;
                }
                let (from, to) = (at(a), at(b));
                let q = to.count - from.count;
                if q > 0.0 {
                    let share = self.reciprocals[(to.used - from.used) as usize];
                    cross += q * ln(candidate.spread * q * share + candidate.even);
                }
                a = b;
                if a >= last_start {
                    break;
                }
            }
            sum += candidate.rest(stretch, at(a), 0.0, 0) - cross;
        }
        sum / total
    }

    /// What is lost of the bins `start..end` when their count `q` is spread evenly over the `u` in
    /// use, `Σ c · ln(c · u / q)` in counts. As a segment of a candidate they cost at least that, if
    /// nothing is clipped onto them.
    pub(super) fn loss(&self, start: usize, end: usize) -> f64 {
        let (from, to) = (&self.before[start], &self.before[end]);
        let q = to.count - from.count;
        if q <= 0.0 {
            return 0.0;
        }
        let share = self.reciprocals[(to.used - from.used) as usize];
        to.entropy - from.entropy - q * ln(q * share)
    }

    /// The least that a candidate's outermost segment costs in counts: the first, onto which all
    /// before it is clipped, or the last, onto which all after it is. The candidate has at least the
    /// bins `inside`.
    pub(super) fn least_end(&self, segment: Range<usize>, inside: Range<usize>, side: Side) -> f64 {
        let Some(last) = self.before.last() else {
            return 0.0;
        };
        let (from, to) = (&self.before[segment.start], &self.before[segment.end]);
        let (outer, clips, grows) = match side {
            Side::Low => (segment.start, from.count, self.clipped[segment.start].0),
            Side::High => (
                segment.end - 1,
                last.count - to.count,
                self.clipped[segment.end - 1].1,
            ),
        };
        let new = u32::from(clips > 0.0 && self.counts[outer] == 0.0);
        let q = to.count - from.count;
        let (p, used) = (q + clips, to.used - from.used + new);
        if p <= 0.0 {
            return 0.0;
        }
        // The wider the candidate, the less of Q is in its outermost segment.
        let (a, b) = (&self.before[inside.start], &self.before[inside.end]);
        let (kept, support) = (b.count - a.count, b.used - a.used);
        let share = self.reciprocals[used as usize];
        let most = if kept > 0.0 {
            last.count
                * ((1.0 - EPSILON) * q * share / kept
                    + EPSILON * self.reciprocals[support as usize])
        } else {
            f64::INFINITY
        };
        // p · ln NQ − u · NQ is largest where NQ = p / u.
        let nq = most.min(p * share);
        to.entropy - from.entropy + grows - p * ln(nq) - p + nq * f64::from(used)
    }

    /// Number of values.
    pub(super) fn total(&self) -> f64 {
        self.before.last().map_or(0.0, |last| last.count)
    }
}

/// An end of a candidate.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Low,
    High,
}

/// By how much a bound may be above a divergence because of rounding, relative to `1 + D`.
pub(super) const SLACK: f64 = 1e-9;

/// Segments between two looks at the limit.
const STRETCH: usize = 24;

impl Candidate {
    /// `Σ p ln NQ` and `Σ p ln p − p + NQ` over the bins of one segment, where the entropy of what
    /// clips is not yet in: `more` is its count, and `new` of the bins are in use because of it
    /// alone.
    fn segment(
        &self,
        from: &Sums,
        to: &Sums,
        more: f64,
        new: u32,
        reciprocals: &[f64],
    ) -> (f64, f64) {
        let q = to.count - from.count;
        let used = to.used - from.used + new;
        let p = q + more;
        if p <= 0.0 {
            return (0.0, 0.0);
        }
        let nq = self.spread * q * reciprocals[used as usize] + self.even;
        (p * ln(nq), self.rest(from, to, more, new))
    }

    /// `Σ p ln p − p + NQ` over the bins of any number of segments.
    fn rest(&self, from: &Sums, to: &Sums, more: f64, new: u32) -> f64 {
        let q = to.count - from.count;
        let used = f64::from(to.used - from.used + new);
        to.entropy - from.entropy - (q + more) + self.spread * q + self.even * used
    }
}
