//! Every pair of ends: which has the least divergence, without looking closely at most.
//!
//! A candidate of `n` bins has segments of `⌊n / levels⌋` bins and of one more. So candidates are
//! taken band by band, those of one `⌊n / levels⌋` together, and what any of them costs is bounded by
//! parts that its two ends set by themselves:
//!
//! * the outermost segments, with what is clipped onto them ([`Line::least_end`]);
//! * the segments between. The least [loss](Line::loss) of any chain of such segments that ends at
//!   bin `x`, wherever it began, is a path's length, and so is the loss from `x` to `y`: it is no less
//!   than the difference of the two least ones.
//!
//! A pair whose bound is above the best known divergence costs one addition. The others have their
//! losses added up from a table; few are left of which the divergence itself is needed.

use alloc::vec::Vec;

use super::divergence::{Line, SLACK, Side};

/// The pair of ends, counted in bins from zero outwards, with the least divergence of all pairs with
/// at least `levels` bins between them; `known` is one of them, or the widest. `below` bins of the
/// line are below zero.
///
/// The widest of equally good ones wins, and of equally wide ones that which reaches further up.
pub(super) fn best_pair(
    line: &Line,
    below: usize,
    levels: usize,
    known: (usize, usize),
) -> (usize, usize) {
    let (start, end) = (below - known.0, below + known.1);
    if end - start < levels {
        return known; // no pair is wider than the widest
    }
    let mut best = Best {
        start,
        end,
        divergence: line.divergence(start, end, levels, f64::INFINITY),
    };
    let mut losses = losses_of(line, 1);
    for whole in 1..=line.bins() / levels {
        let longer = losses_of(line, whole + 1);
        let band = Band {
            line,
            zero: below,
            levels,
            whole,
            chain: chain(line.bins(), whole, [&losses, &longer]),
            losses: [&losses, &longer],
        };
        band.scan(&mut best);
        losses = longer;
    }
    (below - best.start, best.end - below)
}

/// The best candidate so far.
struct Best {
    start: usize,
    end: usize,
    divergence: f64,
}

impl Best {
    fn offer(&mut self, other: Best) {
        let rank = |c: &Best| (c.end - c.start, c.end);
        if other.divergence < self.divergence
            || other.divergence == self.divergence && rank(&other) > rank(self)
        {
            *self = other;
        }
    }

    /// The bound above which no other can win, in counts: rounding may make a bound too large.
    fn limit(&self, total: f64) -> f64 {
        (self.divergence + SLACK * (1.0 + self.divergence)) * total
    }
}

/// The losses of all segments of so many bins, by their first.
fn losses_of(line: &Line, bins: usize) -> Vec<f64> {
    (bins..=line.bins())
        .map(|end| line.loss(end - bins, end))
        .collect()
}

/// For each bin the least loss of a chain that ends at it, of segments of `whole` bins and of one
/// more, whose losses are given.
fn chain(bins: usize, whole: usize, losses: [&[f64]; 2]) -> Vec<f64> {
    let mut chain: Vec<f64> = Vec::with_capacity(bins + 1);
    for end in 0..=bins {
        let by = |more: usize| {
            let start = end.checked_sub(whole + more)?;
            Some(chain[start] + losses[more][start])
        };
        chain.push(match (by(0), by(1)) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b).unwrap_or(0.0),
        });
    }
    chain
}

/// The candidates whose segments all have `whole` bins or one more.
struct Band<'a> {
    line: &'a Line,
    /// The bins below zero.
    zero: usize,
    levels: usize,
    whole: usize,
    /// Losses of the segments of either length.
    losses: [&'a [f64]; 2],
    /// The least loss of a chain of them up to each bin.
    chain: Vec<f64>,
}

impl Band<'_> {
    /// Looks at all of them.
    fn scan(&self, best: &mut Best) {
        let (bins, total) = (self.line.bins(), self.line.total());
        let narrowest = self.whole * self.levels;
        let widest = (narrowest + self.levels - 1).min(bins);
        let (low, high) = (self.zero.saturating_sub(widest), self.zero.max(narrowest));
        let above: Vec<[f64; 2]> = (high..=bins).map(|end| self.above(end)).collect();
        for start in low..=self.zero.min(bins - narrowest) {
            let below = self.below(start);
            let mut most = best.limit(total) - below;
            for end in (start + narrowest).max(self.zero)..=(start + widest).min(bins) {
                let uneven = usize::from(end > start + narrowest);
                if above[end - high][uneven] > most {
                    continue;
                }
                let divergence =
                    self.line
                        .divergence_unless(start, end, self.levels, best.divergence, |most| {
                            self.lose_more(start, end, most)
                        });
                if divergence <= best.divergence {
                    best.offer(Best {
                        start,
                        end,
                        divergence,
                    });
                    most = best.limit(total) - below;
                }
            }
        }
    }

    /// What a candidate costs at least because of its start.
    fn below(&self, start: usize) -> f64 {
        let first = start..start + self.whole;
        let inside = start..(start + self.whole * self.levels).max(self.zero);
        let chain = self.chain[first.end];
        self.line.least_end(first, inside, Side::Low) - chain
    }

    /// What it costs at least because of its end, where the last segment has `whole` bins, and
    /// where it has one more.
    fn above(&self, end: usize) -> [f64; 2] {
        [0, 1].map(|more| {
            let Some(start) = end.checked_sub(self.whole * self.levels + more) else {
                return f64::INFINITY; // there is no such candidate
            };
            let last = end - self.whole - more..end;
            let chain = self.chain[last.start];
            let inside = start.min(self.zero)..end;
            self.line.least_end(last, inside, Side::High) + chain
        })
    }

    /// Whether the segments of a candidate, all but the outermost, lose more than `most`.
    fn lose_more(&self, start: usize, end: usize, most: f64) -> bool {
        let part = end - start - self.whole * self.levels;
        let last = end - self.whole - usize::from(part > 0);
        let (mut at, mut over, mut lost) = (start + self.whole, part, 0.0);
        while at < last {
            if lost + self.chain[last] - self.chain[at] > most {
                return true;
            }
            for _ in 0..STRETCH {
                if at >= last {
                    break;
                }
                over += part;
                let more = usize::from(over >= self.levels);
                over -= more * self.levels;
                lost += self.losses[more][at];
                at += self.whole + more;
            }
        }
        lost > most
    }
}

/// Segments between two looks at the bound.
const STRETCH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever comes first.
    #[test]
    fn the_widest_of_equals_wins_and_then_the_higher() {
        let ranked = [
            (0.5, 3, 4),
            (1.0, 2, 9),
            (1.0, 1, 8),
            (1.0, 3, 9),
            (2.0, 0, 9),
        ];
        for (i, &better) in ranked.iter().enumerate() {
            for &worse in &ranked[i + 1..] {
                for (first, second) in [(better, worse), (worse, better)] {
                    let candidate = |(divergence, start, end)| Best {
                        start,
                        end,
                        divergence,
                    };
                    let mut best = candidate(first);
                    best.offer(candidate(second));
                    assert_eq!((best.divergence, best.start, best.end), better, "{worse:?}");
                }
            }
        }
    }
}
