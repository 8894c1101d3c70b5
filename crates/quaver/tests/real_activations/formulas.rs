//! Methods that are formulas: means over all values in f64, and the papers' equations solved anew.

use qcalib::{Target, ValueRange};
use qformat::Scheme;

use crate::activation::Activation;

/// Half a unit in the last place of f32, and as much again for sums of half a million terms taken
/// in another order (which differ by 10⁻¹¹ at most).
const ROUNDING: f64 = 1.2e-7;

/// Both ends are what a formula gives, but for the rounding to f32.
pub(crate) fn near(chosen: ValueRange, (min, max): (f64, f64), place: &str) {
    let close = |got: f32, want: f64| (f64::from(got) - want).abs() <= ROUNDING * want.abs();
    assert!(
        close(chosen.min, min) && close(chosen.max, max),
        "{place}, but the formula gives {min} and {max}"
    );
}

/// The mean of a function of the values.
fn mean(values: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    values.iter().map(|&v| f(f64::from(v))).sum::<f64>() / values.len() as f64
}

/// The values that are not exactly zero.
fn nonzero(a: &Activation) -> Vec<f32> {
    a.sorted.iter().copied().filter(|&v| v != 0.0).collect()
}

/// `centre ± reach` inside the ends, which are widened to hold zero.
fn around(a: &Activation, centre: f64, reach: f64) -> (f64, f64) {
    let (min, max) = a.ends();
    (
        (centre - reach).max(f64::from(min)).min(0.0),
        (centre + reach).min(f64::from(max)).max(0.0),
    )
}

/// The average in closed form: with `n` batches, the first weighs `(1 − c)^(n − 1)`, and batch `i`
/// after it `c · (1 − c)^(n − 1 − i)`.
pub(crate) fn moving_average(a: &Activation, c: f64) -> (f64, f64) {
    let last = a.batches.len() - 1;
    let average = |end: fn(&[f32]) -> f32| -> f64 {
        let ends = a.batches.iter().map(|b| f64::from(end(b)));
        ends.enumerate()
            .map(|(i, e)| e * (1.0 - c).powi((last - i) as i32) * if i == 0 { 1.0 } else { c })
            .sum()
    };
    (
        average(|b| b.iter().copied().fold(f32::INFINITY, f32::min)),
        average(|b| b.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
    )
}

/// `μ ± k · σ`, with the variance as the mean of squared distances from the mean.
pub(crate) fn mean_std(a: &Activation, k: f64) -> (f64, f64) {
    let mu = mean(&a.sorted, |v| v);
    let sigma = mean(&a.sorted, |v| (v - mu) * (v - mu)).sqrt();
    around(a, mu, k * sigma)
}

/// `S = 2 · E|x| / √Qp`, and what `Qn` steps below zero and `Qp` above it span.
pub(crate) fn lsq(a: &Activation, target: Target) -> (f64, f64) {
    let steps = f64::from(target.range().steps());
    let (below, above) = match target.scheme() {
        Scheme::Symmetric => (steps / 2.0, steps / 2.0),
        // All levels on the one side there is; the network has none of negative values alone.
        Scheme::Affine if a.one_sided() => (0.0, steps),
        Scheme::Affine => ((steps / 2.0).ceil(), (steps / 2.0).floor()),
    };
    let step = 2.0 * mean(&a.sorted, f64::abs) / above.sqrt();
    (-step * below, step * above)
}

/// Banner et al. 2019 with Laplace's density: `α = c · b`.
///
/// Centred at zero, `b` is the mean magnitude of what is not exactly zero (a rectifier's zeros are
/// no part of the tail), and one side alone has `2L` levels over the whole density. Affine ranges
/// of both signs are centred at the mean and take `b` from the variance, `σ² = 2b²`.
pub(crate) fn laplace(a: &Activation, target: Target) -> (f64, f64) {
    let levels = f64::from(target.range().steps()) + 1.0;
    // The derivative 2α / 3L² − 2 · exp(−α) vanishes where α + ln α = ln 3L²: Newton's method.
    let solve = |levels: f64| {
        let right = (3.0 * levels * levels).ln();
        (0..50).fold(right, |x, _| x - (x + x.ln() - right) / (1.0 + 1.0 / x))
    };
    let b = || mean(&nonzero(a), f64::abs);
    match target.scheme() {
        Scheme::Symmetric => around(a, 0.0, solve(levels) * b()),
        Scheme::Affine if a.one_sided() => around(a, 0.0, solve(2.0 * levels) * b()),
        Scheme::Affine => {
            let mu = mean(&a.sorted, |v| v);
            let variance = mean(&a.sorted, |v| (v - mu) * (v - mu));
            around(a, mu, solve(levels) * (variance / 2.0).sqrt())
        }
    }
}

/// The same with the normal density, `α = c · σ`.
pub(crate) fn gauss(a: &Activation, target: Target) -> (f64, f64) {
    let levels = f64::from(target.range().steps()) + 1.0;
    let sigma = || mean(&nonzero(a), |v| v * v).sqrt();
    match target.scheme() {
        Scheme::Symmetric => around(a, 0.0, normal(levels) * sigma()),
        Scheme::Affine if a.one_sided() => around(a, 0.0, normal(2.0 * levels) * sigma()),
        Scheme::Affine => {
            let mu = mean(&a.sorted, |v| v);
            let deviation = mean(&a.sorted, |v| (v - mu) * (v - mu)).sqrt();
            around(a, mu, normal(levels) * deviation)
        }
    }
}

/// The root of the cost's derivative, `2α / 3L² − 4 · ∫ (x − α) φ(x) dx` from α on. The integral is
/// taken by Simpson's rule, so no error function is needed; the root is found by bisection.
fn normal(levels: f64) -> f64 {
    let tail = |alpha: f64| {
        let (n, h) = (4000, 12.0 / 4000.0);
        let f = |i: i32| {
            let (d, x) = (f64::from(i) * h, alpha + f64::from(i) * h);
            d * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
        };
        let weight = |i| if i % 2 == 1 { 4.0 } else { 2.0 };
        h / 3.0 * (f(0) + f(n) + (1..n).map(|i| weight(i) * f(i)).sum::<f64>())
    };
    let (mut low, mut high) = (0.0, 20.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if 2.0 * middle / (3.0 * levels * levels) < 4.0 * tail(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}
