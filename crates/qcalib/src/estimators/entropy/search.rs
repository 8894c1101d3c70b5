//! The search for ends.

use alloc::vec;
use alloc::vec::Vec;

/// Candidates of each end in the first net of a search over both ends, less one.
const NET: usize = 32;

/// The best points of the net, among which valleys are looked for.
const POINTS: usize = 48;

/// Valleys that are descended into at most.
const STARTS: usize = 8;

/// Distance of the candidates that are tried first, to know early what the others must beat.
const STRIDE: usize = 32;

/// The end with the least divergence among `levels..=bins`, or `bins` if there is none. All are
/// tried; `divergence(end, limit)` may give up above the limit.
pub(super) fn best_end(
    bins: usize,
    levels: usize,
    divergence: impl Fn(usize, f64) -> f64,
) -> usize {
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
pub(super) fn best_ends(
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
