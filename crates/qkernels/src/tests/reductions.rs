//! Ranges, histograms and sums against plain passes, on every tier.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::data::{Rng, cases, rounds, tiers};
use super::elementwise::floats;
use crate::{
    AbsMax, HistogramMut, Isa, KernelError, Lhs, MatRef, MinMax, PowerSums, PowerWindow, Unbinned,
    abs_max, col_sums, histogram, min_max, power_sums, row_sums,
};

fn check_range(isa: Isa, x: &[f32]) {
    let finite = || x.iter().copied().filter(|v| v.is_finite());
    let expected = MinMax {
        min: finite().reduce(f32::min).map(|v| v + 0.0),
        max: finite().reduce(f32::max).map(|v| v + 0.0),
        nan: x.iter().filter(|v| v.is_nan()).count() as u64,
        pos_inf: x.iter().filter(|&&v| v == f32::INFINITY).count() as u64,
        neg_inf: x.iter().filter(|&&v| v == f32::NEG_INFINITY).count() as u64,
    };
    let found = min_max(isa, x);
    assert_eq!(found, expected, "{isa}");
    let bits = |v: Option<f32>| v.map(f32::to_bits);
    assert_eq!(bits(found.min), bits(expected.min), "{isa}");
    assert_eq!(bits(found.max), bits(expected.max), "{isa}");
    let expected = AbsMax {
        max: finite().map(f32::abs).reduce(f32::max),
        nan: expected.nan,
        infinite: expected.pos_inf + expected.neg_inf,
    };
    assert_eq!(abs_max(isa, x), expected, "{isa}");
}

/// The bin of a finite value that is not zero, in integers: `trunc(|x| / 2^k)`.
fn bin(x: f32, k: i32) -> u128 {
    let bits = x.to_bits() & 0x7fff_ffff;
    let (significand, exponent) = match bits >> 23 {
        0 => (bits, -149),
        e => (bits & 0x7f_ffff | 1 << 23, e as i32 - 150),
    };
    match k - exponent {
        shift @ 0.. => u128::from(significand)
            .checked_shr(shift as u32)
            .unwrap_or(0),
        // Far beyond all bins anyway.
        shift => u128::from(significand) << (-shift).min(100),
    }
}

fn check_histogram(isa: Isa, x: &[f32], k: i32, lens: (usize, usize), scratch: &mut Vec<u16>) {
    let mut expected = (vec![1u64; lens.0], vec![2u64; lens.1], Unbinned::default());
    for &v in x {
        let rest = &mut expected.2;
        let counter = if v.is_nan() {
            &mut rest.nan
        } else if v == f32::INFINITY {
            &mut rest.pos_inf
        } else if v == f32::NEG_INFINITY {
            &mut rest.neg_inf
        } else if v == 0.0 {
            &mut rest.zeros
        } else {
            let side = if v > 0.0 {
                &mut expected.0
            } else {
                &mut expected.1
            };
            match usize::try_from(bin(v, k))
                .ok()
                .and_then(|j| side.get_mut(j))
            {
                Some(counter) => counter,
                None => &mut rest.outside,
            }
        };
        *counter += 1;
    }
    let (mut positive, mut negative) = (vec![1u64; lens.0], vec![2u64; lens.1]);
    let into = HistogramMut {
        exponent: k,
        positive: &mut positive,
        negative: &mut negative,
    };
    let rest = histogram(isa, x, into, scratch).unwrap();
    let what = (x.len(), k, lens);
    assert_eq!((positive, negative, rest), expected, "{isa} {what:?}");
    // What is left there must not matter.
    scratch.fill(u16::MAX);
}

#[test]
fn bins_must_be_possible() {
    for (exponent, n) in [(-150, 1), (128, 1), (0, (1 << 20) + 1)] {
        let mut side = vec![0; n];
        let into = HistogramMut {
            exponent,
            positive: &mut [],
            negative: &mut side,
        };
        assert!(matches!(
            histogram(Isa::SCALAR, &[1.0], into, &mut Vec::new()),
            Err(KernelError::Bins { .. })
        ));
    }
}

/// The first and the last value of every bin, for every width.
#[test]
fn edges_of_bins_are_exact() {
    for isa in tiers() {
        let mut scratch = Vec::new();
        for k in -149..=127 {
            let width = 2f64.powi(k);
            let edges = (1..40).flat_map(|j| {
                let edge = (f64::from(j) * width) as f32;
                [edge, edge.next_down(), -edge, -edge.next_down()]
            });
            let x: Vec<f32> = edges.collect();
            check_histogram(isa, &x, k, (30, 37), &mut scratch);
        }
    }
}

/// More values than 16-bit counters can count, all in one bin, and all 0; with a chunk begun.
#[test]
fn no_counter_of_a_histogram_overflows() {
    for isa in tiers() {
        let mut scratch = Vec::new();
        for value in [2.5, -2.5, 0.0] {
            for n in [130_559, 130_560, 130_815, 131_072, 300_001] {
                check_histogram(isa, &vec![value; n], 0, (4, 5), &mut scratch);
            }
        }
    }
}

/// Significand and exponent: `|x|` is their `m · 2^e`.
fn parts(x: f32) -> (u128, i32) {
    let bits = x.to_bits() & 0x7fff_ffff;
    match bits >> 23 {
        0 => (u128::from(bits), -149),
        e => (u128::from(bits & 0x7f_ffff | 1 << 23), e as i32 - 150),
    }
}

/// The exact sums of the binades from that of `max` down, in integers.
fn check_power_sums(x: &[f32], max: f32) {
    let window = PowerWindow::below(max).unwrap();
    let (significand, exponent) = parts(max);
    let top = (exponent + 127 - significand.leading_zeros() as i32).max(-126);
    let lowest = if top - 21 <= -126 { -149 } else { top - 21 };
    let mut expected = PowerSums::default();
    for &v in x {
        let (m, e) = parts(v);
        let highest = e + 127 - m.leading_zeros() as i32;
        let held = v.is_finite() && v != 0.0 && (lowest..=top).contains(&highest);
        assert_eq!(window.holds(v), held, "{v:e} {max:e}");
        expected.zeros += u64::from(v == 0.0);
        if !held {
            continue;
        }
        expected.held += 1;
        let units = m << (e - window.unit());
        if v > 0.0 {
            expected.positive += units;
        } else {
            expected.negative += units;
        }
        expected.squares += units * units;
    }
    for isa in tiers() {
        let what = (x.len(), max);
        assert_eq!(
            power_sums(isa, x, window).unwrap(),
            expected,
            "{isa} {what:?}"
        );
    }
}

/// The largest sums, of either sign and of both, for every binade; every length around a step.
#[test]
fn power_sums_are_exact_at_the_ends_of_every_window() {
    assert_eq!(PowerWindow::below(f32::INFINITY), None);
    assert_eq!(PowerWindow::below(f32::NAN), None);
    assert_eq!(PowerWindow::below(0.0), PowerWindow::below(-1e-45));
    for binade in 0..255u32 {
        let largest = f32::from_bits(binade << 23 | 0x7f_ffff);
        let next = f32::from_bits((binade.max(21) - 20) << 23).next_down();
        let n = 4096 + binade as usize % 17;
        check_power_sums(&vec![largest; n], largest);
        check_power_sums(&vec![-largest; n], -largest);
        let x: Vec<f32> = (0..n)
            .map(|i| {
                [
                    largest,
                    -largest,
                    next,
                    largest.next_up(),
                    -next.next_down(),
                ][i * 7 % 5]
            })
            .collect();
        check_power_sums(&x, largest);
    }
}

fn check_sums<A: Lhs>(seed: u64, rows: usize, cols: usize, from_byte: fn(u8) -> A) {
    let stride = cols + 3;
    let data: Vec<A> = Rng(seed)
        .bytes(rows * stride)
        .into_iter()
        .map(from_byte)
        .collect();
    let m = MatRef::with_stride(&data, rows, cols, stride).unwrap();
    let at = |i: usize, j: usize| data[i * stride + j].to_i32();
    let by_row: Vec<i32> = (0..rows)
        .map(|i| (0..cols).map(|j| at(i, j)).sum())
        .collect();
    let by_col: Vec<i32> = (0..cols)
        .map(|j| (0..rows).map(|i| at(i, j)).sum())
        .collect();
    for isa in tiers() {
        let mut sums = vec![7; rows];
        row_sums(isa, m, &mut sums).unwrap();
        assert_eq!(sums, by_row, "{isa} {rows}x{cols}");
        let mut sums = vec![7; cols];
        col_sums(isa, m, &mut sums).unwrap();
        assert_eq!(sums, by_col, "{isa} {rows}x{cols}");
    }
}

/// Rows around the 4 that are added at once and the 256 that fit 16 bits, columns around a chunk
/// of 1024; data of equal extremes among them.
#[test]
fn sums_equal_plain_sums() {
    for rows in [0, 1, 3, 4, 5, 255, 256, 257, 258, 515] {
        for cols in [0, 1, 31, 64, 100, 1023, 1024, 1025] {
            for seed in 0..u64::from(rounds(4)) {
                check_sums::<u8>(seed, rows, cols, |b| b);
                check_sums::<i8>(seed, rows, cols, |b| b as i8);
            }
        }
    }
}

#[test]
fn sums_are_exact_at_the_bound_and_refused_beyond() {
    let n = 8_421_504;
    let ones = vec![255u8; n + 1];
    for isa in tiers() {
        let mut sum = [0];
        row_sums(isa, MatRef::new(&ones, 1, n).unwrap(), &mut sum).unwrap();
        assert_eq!(sum, [2_147_483_520]);
        col_sums(isa, MatRef::new(&ones, n, 1).unwrap(), &mut sum).unwrap();
        assert_eq!(sum, [2_147_483_520]);
        let long = MatRef::new(&ones, 1, n + 1).unwrap();
        assert!(matches!(
            row_sums(isa, long, &mut sum),
            Err(KernelError::Depth { max: 8_421_504, .. })
        ));
    }
    let lowest = vec![-128i8; 16_777_216];
    for isa in tiers() {
        let mut sum = [0];
        let m = MatRef::new(&lowest, 16_777_215, 1).unwrap();
        col_sums(isa, m, &mut sum).unwrap();
        assert_eq!(sum, [-2_147_483_520]);
        assert!(matches!(
            col_sums(isa, MatRef::new(&lowest, 16_777_216, 1).unwrap(), &mut sum),
            Err(KernelError::Depth {
                max: 16_777_215,
                ..
            })
        ));
        assert!(row_sums(isa, m, &mut sum).is_err());
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn ranges_equal_a_plain_pass(seed in any::<u64>(), n in 0usize..1200, special in any::<bool>()) {
        let mut x = floats(seed, n);
        if !special {
            x.iter_mut().for_each(|v| *v = if v.is_finite() { *v } else { -0.0 });
        }
        for isa in tiers() {
            for start in 0..n.min(3) {
                check_range(isa, &x[start..]);
            }
            check_range(isa, &x);
        }
    }

    #[test]
    fn histograms_equal_a_plain_pass(
        seed in any::<u64>(),
        n in 0usize..3000,
        k in -149i32..=127,
        lens in (0usize..300, 0usize..300),
    ) {
        let mut x = floats(seed, n);
        // Half of the values near the bins.
        let width = 2f64.powi(k);
        for (i, v) in x.iter_mut().enumerate().filter(|(i, _)| i % 2 == 0) {
            *v = ((i as f64 * 0.37 - 200.0) * width) as f32;
        }
        let mut scratch = Vec::new();
        for isa in tiers() {
            check_histogram(isa, &x, k, lens, &mut scratch);
            check_histogram(isa, &x, k, (lens.1, lens.0), &mut scratch);
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn power_sums_equal_sums_of_integers(
        seed in any::<u64>(), n in 0usize..5000, max in any::<f32>(), near in any::<bool>(),
    ) {
        prop_assume!(max.is_finite());
        let mut x = floats(seed, n);
        if near {
            let mut rng = Rng(seed);
            let spread = |v: &mut f32| *v = max * rng.next() as i32 as f32 * 2f32.powi(-31);
            x.iter_mut().for_each(spread);
        }
        for start in 0..n.min(3) {
            check_power_sums(&x[start..], max);
        }
    }
}

/// A transposed view has the sums of the other direction.
#[test]
fn sums_of_a_transposed_view() {
    let data: Vec<u8> = (0..60).collect();
    for isa in tiers() {
        let m = MatRef::with_stride(&data, 4, 11, 15).unwrap();
        let (mut rows, mut cols) = ([0; 4], [0; 11]);
        crate::row_sums(isa, m, &mut rows).unwrap();
        crate::col_sums(isa, m, &mut cols).unwrap();
        let (mut turned_rows, mut turned_cols) = ([0; 11], [0; 4]);
        crate::row_sums(isa, m.transposed(), &mut turned_rows).unwrap();
        crate::col_sums(isa, m.transposed(), &mut turned_cols).unwrap();
        assert_eq!((turned_rows, turned_cols), (cols, rows));
    }
}
