//! Each estimator against a slow reference on the raw values.

use proptest::prelude::*;
use qcalib::estimators::{LsqInit, MeanStd, MovingAverage, Mse, Percentile, Tails};
use qcalib::{Estimator, Method, Observer, ObserverKind, Policy, Target, ValueRange, ranges};
use qformat::{DType, Granularity, QParams, Scheme};

struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 40) as f32 + 0.5) / 16_777_216.0
    }

    fn laplace(&mut self) -> f32 {
        let sign = if self.uniform() < 0.5 { -1.0 } else { 1.0 };
        sign * -self.uniform().ln()
    }
}

/// Distributions that activations have, by name.
fn data(n: usize) -> Vec<(&'static str, Vec<f32>)> {
    let mut r = Random(7);
    let mut many =
        |f: &mut dyn FnMut(&mut Random) -> f32| -> Vec<f32> { (0..n).map(|_| f(&mut r)).collect() };
    let laplace = many(&mut |r| r.laplace());
    let relu = many(&mut |r| r.laplace().max(0.0));
    let below = many(&mut |r| r.laplace().min(0.0) * 1e-3);
    let uniform = many(&mut |r| r.uniform() * 3.0 - 1.0);
    let skewed = many(&mut |r| r.laplace().powi(2) - 0.5);
    let mut outlier = many(&mut |r| r.uniform() - 0.5);
    outlier[0] = 40.0;
    vec![
        ("laplace", laplace),
        ("relu", relu),
        ("below", below),
        ("uniform", uniform),
        ("skewed", skewed),
        ("outlier", outlier),
    ]
}

fn observe(kind: ObserverKind, x: &[f32]) -> Box<dyn Observer> {
    let mut o = kind
        .observer(Granularity::PerTensor, Policy::Error)
        .unwrap();
    o.observe(0, x, &[x.len()]).unwrap();
    o
}

fn range_of(x: &[f32], estimator: &dyn Estimator, dtype: DType, scheme: Scheme) -> ValueRange {
    let o = observe(ObserverKind::Histogram, x);
    ranges(&*o, estimator, Target::new(dtype, scheme).unwrap()).unwrap()[0]
}

fn squared_error(x: &[f32], min: f32, max: f32, dtype: DType, scheme: Scheme) -> f64 {
    let p = QParams::from_range(min, max, dtype, scheme).unwrap();
    x.iter().map(|&v| p.error(v).powi(2)).sum::<f64>() / x.len() as f64
}

/// The error on the values themselves is that of the best range on a grid, to 2 %.
#[test]
fn mse_is_as_good_as_a_search_on_the_values() {
    for (name, x) in data(4000) {
        let low = x.iter().copied().fold(0f32, f32::min);
        let high = x.iter().copied().fold(0f32, f32::max);
        for (dtype, scheme) in [
            (DType::U8, Scheme::Affine),
            (DType::I4, Scheme::Affine),
            (DType::I8, Scheme::Symmetric),
            (DType::I4, Scheme::Symmetric),
        ] {
            let r = range_of(&x, &Mse, dtype, scheme);
            let ours = squared_error(&x, r.min, r.max, dtype, scheme);
            let mut best = f64::INFINITY;
            for i in 1..=40 {
                for j in 1..=40 {
                    let (i, j) = (i as f32 / 40.0, j as f32 / 40.0);
                    best = best.min(squared_error(&x, low * i, high * j, dtype, scheme));
                }
            }
            assert!(
                ours <= 1.02 * best,
                "{name} {dtype} {scheme}: {ours:e}, best {best:e}"
            );
        }
    }
}

#[test]
fn the_error_that_mse_expects_is_the_one_that_the_values_have() {
    for (name, x) in data(50_000) {
        let o = observe(ObserverKind::Histogram, &x);
        for (dtype, share) in [(DType::I8, 0.3f32), (DType::I4, 1.0), (DType::U8, 0.7)] {
            let r = o.record(0).unwrap().extent.range().unwrap();
            let (min, max) = (r.min.min(0.0) * share, r.max.max(0.0) * share);
            let p = QParams::from_range(min, max, dtype, Scheme::Affine).unwrap();
            let expected = Mse::expected_error(&o.record(0).unwrap(), &p).unwrap();
            let found = squared_error(&x, min, max, dtype, Scheme::Affine);
            assert!(
                (expected - found).abs() <= 0.02 * found,
                "{name} {dtype}: {expected} {found}"
            );
        }
    }
}

/// With more levels than bins nothing can be gained, and with 2 bits much can.
#[test]
fn finer_targets_get_wider_ranges() {
    let (_, x) = data(20_000).swap_remove(0);
    for method in [Method::Mse, Method::Entropy] {
        let e = method.estimator().unwrap();
        for scheme in [Scheme::Affine, Scheme::Symmetric] {
            let widths: Vec<f32> = [DType::I4, DType::I8, DType::I16]
                .into_iter()
                .map(|d| range_of(&x, &*e, d, scheme))
                .map(|r| r.max - r.min)
                .collect();
            assert!(widths.is_sorted(), "{method} {scheme} {widths:?}");
            assert!(widths[0] < 0.9 * widths[2], "{method} {scheme} {widths:?}");
        }
    }
}

/// A single outlier far away is cut off, where min-max keeps it.
#[test]
fn outliers_are_cut() {
    let x = data(20_000).pop().unwrap().1;
    for scheme in [Scheme::Affine, Scheme::Symmetric] {
        let max = |m: Method| range_of(&x, &*m.estimator().unwrap(), DType::I8, scheme).max;
        assert_eq!(max(Method::MinMax), 40.0);
        assert!(max(Method::Percentile(99.99)) < 0.52);
        assert!(max(Method::Entropy) < 10.0, "{}", max(Method::Entropy));
    }
}

proptest! {
    /// Integers of which the largest is at least 1,024 lie on the lower edges of bins 1 wide.
    #[test]
    fn percentiles_are_those_of_the_sorted_values(
        mut x in prop::collection::vec(-1500i32..1500, 1..400),
        top in 1024i32..2048,
        percent in prop_oneof![Just(99.999), Just(99.0), Just(90.0), 1f64..=100.0],
    ) {
        x.push(top.max(*x.iter().max().unwrap()));
        let values: Vec<f32> = x.iter().map(|&v| v as f32).collect();
        let n = x.len() as f64;
        let outside = n - n * percent / 100.0;
        let e = Method::Percentile(percent).estimator().unwrap();

        // The value that stays although all larger ones go, and the outer edge of its bin.
        let kept = |mut sorted: Vec<i32>, outside: f64| {
            sorted.sort_unstable_by_key(|v| -v);
            let highest = sorted[0].max(0);
            match sorted[outside as usize] {
                v if v > 0 => (v + 1).min(highest),
                // Everything above zero may go.
                _ => 0,
            }
        };
        let r = range_of(&values, &*e, DType::U8, Scheme::Affine);
        prop_assert_eq!(r.max, kept(x.clone(), outside / 2.0) as f32);
        prop_assert_eq!(r.min, -kept(x.iter().map(|v| -v).collect(), outside / 2.0) as f32);

        let r = range_of(&values, &*e, DType::I8, Scheme::Symmetric);
        let t = kept(x.iter().map(|v| v.abs()).collect(), outside) as f32;
        prop_assert_eq!(r.max.max(-r.min), t);
        // The promise, on the values.
        let lost = x.iter().filter(|&&v| v.abs() as f32 > t).count();
        prop_assert!(lost as f64 <= outside);
    }

    #[test]
    fn the_moving_average_folds_in_the_order_of_the_indices(
        batches in prop::collection::vec((0u64..50, -1e3f32..1e3, 0f32..1e3), 1..20),
        constant in 0.001f64..=1.0,
    ) {
        let kind = ObserverKind::MovingAverage;
        let mut o = kind.observer(Granularity::PerTensor, Policy::Error).unwrap();
        for &(index, low, width) in &batches {
            o.observe(index, &[low, low + width], &[2]).unwrap();
        }
        // Batches of one index are one batch.
        let mut joined: Vec<(u64, f32, f32)> = Vec::new();
        let mut sorted = batches.clone();
        sorted.sort_by_key(|b| b.0);
        for (index, low, width) in sorted {
            match joined.last_mut() {
                Some(b) if b.0 == index => {
                    *b = (index, b.1.min(low), b.2.max(low + width));
                }
                _ => joined.push((index, low, low + width)),
            }
        }
        let (mut min, mut max) = (f64::from(joined[0].1), f64::from(joined[0].2));
        for &(_, low, high) in &joined[1..] {
            min += constant * (f64::from(low) - min);
            max += constant * (f64::from(high) - max);
        }
        let target = Target::new(DType::I8, Scheme::Affine).unwrap();
        let r = ranges(&*o, &MovingAverage::new(constant).unwrap(), target).unwrap()[0];
        prop_assert_eq!((r.min, r.max), (min as f32, max as f32));
    }
}

#[test]
fn the_averaging_constant_is_checked() {
    for c in [0.0, -0.1, 1.1, f64::NAN] {
        assert!(MovingAverage::new(c).is_err(), "{c}");
    }
}

/// The estimators of a density find the threshold that the histogram's search finds, where the
/// values have that density.
#[test]
fn clipping_by_density_is_as_good_as_the_search_where_the_density_is_right() {
    let mut r = Random(99);
    let gauss = |r: &mut Random| {
        let (u, v) = (r.uniform(), r.uniform());
        (-2.0 * u.ln()).sqrt() * (core::f32::consts::TAU * v).cos()
    };
    let n = 200_000;
    let laplace: Vec<f32> = (0..n).map(|_| r.laplace()).collect();
    let normal: Vec<f32> = (0..n).map(|_| gauss(&mut r)).collect();
    for (method, x) in [(Method::AciqLaplace, laplace), (Method::AciqGauss, normal)] {
        let relu: Vec<f32> = x.iter().map(|v| v.max(0.0)).collect();
        for (x, scheme) in [
            (&x, Scheme::Symmetric),
            (&x, Scheme::Affine),
            (&relu, Scheme::Affine),
        ] {
            let o = observe(ObserverKind::Moments, x);
            let target = Target::new(DType::I4, scheme).unwrap();
            let a = ranges(&*o, &*method.estimator().unwrap(), target).unwrap()[0];
            let b = range_of(x, &Mse, DType::I4, scheme);
            let cost = |r: ValueRange| squared_error(x, r.min, r.max, DType::I4, scheme);
            assert!(
                cost(a) < 1.05 * cost(b),
                "{method} {scheme}: {a:?} {b:?}, {} {}",
                cost(a),
                cost(b)
            );
        }
    }
}

#[test]
fn one_tail_keeps_the_other_end() {
    let x: Vec<f32> = (-1024..2048).map(|i| i as f32).collect();
    let range = |tails| {
        let e = Percentile::new(90.0).unwrap().with_tails(tails);
        let r = range_of(&x, &e, DType::U8, Scheme::Affine);
        (r.min, r.max)
    };
    // 307 of 3,072 values may go; bins are 1 wide and the bin below zero holds (−1, 0).
    assert_eq!(range(Tails::Upper), (-1024.0, 1741.0));
    assert_eq!(range(Tails::Lower), (-718.0, 2047.0));
    assert_eq!(range(Tails::Both), (-872.0, 1895.0));
}

proptest! {
    /// LSQ's start and the deviations around the mean against sums in f64, in two passes.
    #[test]
    fn moments_give_the_ranges_of_plain_sums(
        x in prop::collection::vec(prop_oneof![4 => -30f32..30.0, 1 => Just(0.0), 1 => 0f32..1e4], 1..300),
        offset in prop_oneof![Just(0f32), Just(1e6), -50f32..50.0],
        k in 0.1f64..6.0,
        dtype in prop::sample::select(&[DType::I4, DType::U4, DType::I8, DType::U8, DType::I16][..]),
        symmetric in any::<bool>(),
    ) {
        let x: Vec<f32> = x.iter().map(|v| v + offset).collect();
        let n = x.len() as f64;
        let wide = || x.iter().copied().map(f64::from);
        let mean = wide().sum::<f64>() / n;
        let mean_abs = wide().map(f64::abs).sum::<f64>() / n;
        let deviation = (wide().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
        let low = wide().fold(0.0, f64::min);
        let high = wide().fold(0.0, f64::max);

        let mut o = ObserverKind::Moments.observer(Granularity::PerTensor, Policy::Error).unwrap();
        o.observe(0, &x, &[x.len()]).unwrap();
        let scheme = if symmetric { Scheme::Symmetric } else { Scheme::Affine };
        let target = Target::new(dtype, scheme).unwrap();
        let close = |a: f32, b: f64, size: f64| (f64::from(a) - b).abs() <= 1e-6 * size + 1e-40;

        let r = ranges(&*o, &MeanStd::new(k).unwrap(), target).unwrap()[0];
        let (a, b) = ((mean - k * deviation).clamp(low, 0.0), (mean + k * deviation).clamp(0.0, high));
        let size = mean.abs() + k * deviation;
        prop_assert!(close(r.min, a, size) && close(r.max, b, size), "{:?} {} {}", r, a, b);

        // The levels below and above zero.
        let steps = f64::from(target.range().steps());
        let half = (steps / 2.0).floor();
        let negative = wide().any(|v| v < 0.0);
        let positive = wide().any(|v| v > 0.0);
        let (below, above) = match (symmetric, negative, positive) {
            (true, ..) => (half, half),
            (_, false, _) => (0.0, steps),
            (_, _, false) => (steps, 0.0),
            _ => (steps - half, half),
        };
        let levels = if above > 0.0 { above } else { below };
        let step = 2.0 * mean_abs / levels.sqrt();
        let r = ranges(&*o, &LsqInit, target).unwrap()[0];
        prop_assert!(close(r.min, -step * below, step * below), "{:?} {}", r, step * below);
        prop_assert!(close(r.max, step * above, step * above), "{:?} {}", r, step * above);
        let found = LsqInit::step(&o.record(0).unwrap(), levels as u32).unwrap();
        prop_assert!((found - step).abs() <= 1e-12 * step);
    }
}
