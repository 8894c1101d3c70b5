//! Against the definition, step by step.

extern crate std;

use super::divergence::EPSILON;
use super::*;
use alloc::format;
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

/// Small ragged histograms, of which the first 50 bins are below zero.
fn ragged() -> impl Iterator<Item = Vec<u64>> {
    (0..40u64).map(|seed| {
        (0..120u64)
            .map(|i| {
                let x = (i as f64 - 50.0) / (6.0 + seed as f64 / 4.0);
                let noise = (i * 2_654_435_761 + seed * 97) % 7;
                (1e4 * (-x.abs()).exp()) as u64 * (7 + seed % 5 * noise) / 7
            })
            .collect()
    })
}

/// All pairs of at least `levels` bins.
fn pairs(below: usize, above: usize, levels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..=below)
        .flat_map(move |a| (0..=above).map(move |b| (a, b)))
        .filter(move |(a, b)| a + b >= levels)
}

/// The best of all pairs as the documentation of [`best_pair`] has it, each looked at.
fn best_of_all(line: &Line, below: usize, levels: usize) -> (usize, usize) {
    let above = line.bins() - below;
    let cost = |(a, b)| line.divergence(below - a, below + b, levels, f64::INFINITY);
    pairs(below, above, levels)
        .min_by(|&x, &y| {
            let rank = |(a, b)| (a + b, b);
            let (x, y) = ((cost(x), rank(x)), (cost(y), rank(y)));
            x.0.total_cmp(&y.0).then(y.1.cmp(&x.1))
        })
        .unwrap_or((below, above))
}

proptest! {
    /// Also from a start that is far off; few counts make many ties.
    #[test]
    fn the_best_pair_is_that_of_all_and_the_widest_of_equals(
        counts in prop_oneof![bins(), prop::collection::vec(0u64..3, 4..40)],
        below in 0usize..150,
        levels in 2usize..20,
        known in (0usize..150, 0usize..150),
    ) {
        prop_assume!(counts.iter().any(|&c| c > 0));
        let below = below % (counts.len() + 1);
        let above = counts.len() - below;
        let line = Line::new(&counts);
        let mut known = (known.0 % (below + 1), known.1 % (above + 1));
        if known.0 + known.1 < levels {
            known = (below, above);
        }
        let found = best_pair(&line, below, levels, known);
        prop_assert_eq!(found, best_of_all(&line, below, levels));
        let cost = |(a, b)| textbook(&counts, below - a, below + b, levels);
        for pair in pairs(below, above, levels) {
            prop_assert!(cost(found) <= cost(pair) + 1e-8, "{found:?} {pair:?}");
        }
    }
}

/// A density `exp(−|x|^power)` in `below + above` bins, of so many values drawn from it: the ends hold
/// a share of `e⁻⁹` of the peak.
fn drawn(below: usize, above: usize, power: f64, values: f64) -> Vec<u64> {
    let far = below.max(above) as f64;
    let density: Vec<f64> = (0..below + above)
        .map(|bin| (bin as f64 + 0.5 - below as f64).abs() / far)
        .map(|x| (-9.0 * x.powf(power)).exp())
        .collect();
    let all: f64 = density.iter().sum();
    let mut state = 7u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f64 + 0.5) / f64::from(1 << 24)
    };
    density
        .iter()
        .map(|share| {
            let mean = values * share / all;
            if mean > 30.0 {
                let normal: f64 = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
                return (mean + normal * mean.sqrt()).max(0.0) as u64;
            }
            // A Poisson count: exponential waits that fit into the mean.
            let (mut count, mut waited) = (0, -uniform().ln());
            while waited < mean {
                count += 1;
                waited -= uniform().ln();
            }
            count
        })
        .collect()
}

/// Powers of the density with light, usual and heavy tails.
const POWERS: [f64; 3] = [2.0, 1.0, 0.5];

#[test]
fn the_best_pair_is_that_of_all_in_long_histograms() {
    let mut narrower = 0;
    for power in POWERS {
        for values in [1e7, 3e4, 2e3] {
            let line = Line::new(&drawn(180, 240, power, values));
            for levels in [16, 100] {
                let (widest, place) = ((180, 240), format!("{power} {values} {levels}"));
                let best = best_of_all(&line, 180, levels);
                assert_eq!(best_pair(&line, 180, levels, widest), best, "{place}");
                narrower += usize::from(best != widest);
            }
        }
    }
    assert!(
        narrower >= 9,
        "only in {narrower} of 18 was one to be found"
    );
}

/// What the search loses of the best in histograms as long as real ones: printed, for the
/// documentation of [`Entropy`].
#[test]
fn the_search_loses_little_in_long_histograms() {
    let mut all = Vec::new();
    for (below, above) in [(2048, 2048), (600, 2048)] {
        for power in POWERS {
            for values in [1e6, 1e4] {
                let line = Line::new(&without_point_masses(&drawn(below, above, power, values)));
                for levels in [256, 16] {
                    let cost = |(a, b), limit| line.divergence(below - a, below + b, levels, limit);
                    let found = best_ends(below, above, levels, |a, b, l| cost((a, b), l));
                    let best = best_pair(&line, below, levels, found);
                    let lost = cost(found, f64::INFINITY) / cost(best, f64::INFINITY) - 1.0;
                    std::println!(
                        "{below} {above} bins, power {power}, {values} values, {levels} levels: \
                         {found:?} of {best:?} loses {:.2} %",
                        100.0 * lost
                    );
                    assert!(lost >= 0.0);
                    all.push(lost);
                }
            }
        }
    }
    all.sort_by(f64::total_cmp);
    std::println!(
        "median {:.4}, most {:.4}",
        all[all.len() / 2],
        all[all.len() - 1]
    );
    assert!(
        all[all.len() / 2] < 0.01 && all[all.len() - 1] < 0.1,
        "{all:?}"
    );
}

/// The search against every pair, on ragged data.
#[test]
fn the_search_comes_close_to_the_best_of_all_pairs() {
    let (below, above, levels) = (50, 70, 16);
    let mut gaps = Vec::new();
    for counts in ragged() {
        let cost = |(a, b)| textbook(&counts, below - a, below + b, levels);
        let line = Line::new(&counts);
        let found = best_ends(below, above, levels, |a, b, limit| {
            line.divergence(below - a, below + b, levels, limit)
        });
        let best = pairs(below, above, levels)
            .map(cost)
            .fold(f64::INFINITY, f64::min);
        gaps.push((cost(found) - best) / (cost((below, above)) - best));
    }
    // Small ragged histograms have many valleys; most of the lowest are found.
    assert!(gaps.iter().all(|&g| g < 0.2), "{gaps:?}");
    assert!(gaps.iter().filter(|&&g| g < 1e-6).count() >= 30, "{gaps:?}");
}
