//! The divergence between a histogram and what quantization leaves of it, candidate by candidate.

use alloc::vec::Vec;

use super::log::ln;

/// Share of the even distribution in `Q`.
pub(super) const EPSILON: f64 = 1e-4;

/// Neighbouring bins, with the sums that make a candidate's divergence cost O(levels).
pub(super) struct Line {
    counts: Vec<f64>,
    /// Sums over the bins before each.
    before: Vec<Sums>,
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
        Line {
            counts,
            before,
            reciprocals,
        }
    }

    pub(super) fn bins(&self) -> usize {
        self.counts.len()
    }

    /// Divergence of the candidate `start..end` in nats, or infinity as soon as it is known to be
    /// above `limit`.
    pub(super) fn divergence(&self, start: usize, end: usize, levels: usize, limit: f64) -> f64 {
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
        let clipped = |at: f64, more: f64| x_ln_x(at + more) - x_ln_x(at);
        let new = |is: bool| u32::from(is);
        if alone {
            let more = if bins == 1 {
                clipped(first, low + high)
            } else {
                clipped(first, low) + clipped(top, high)
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
        let mut sum = clipped(first, low) + clipped(top, high);
        for (cross, rest) in ends {
            sum += rest - cross;
        }
        // Rounding in the prefix sums must not make a partial sum look too large.
        let limit = (limit + 1e-9 * (1.0 + limit)) * total;
        // Bins below the levels leave segments empty, which does no harm.
        let (mut a, mut over) = (first_end, part);
        while a < last_start {
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
            if sum > limit {
                return f64::INFINITY;
            }
        }
        sum / total
    }
}

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
