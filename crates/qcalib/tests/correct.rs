//! Corrections leave the float network what it was and make the quantized one better.

use proptest::prelude::*;
use qcalib::correct::{
    bias_correction, bias_scale_floor, channel_abs_max, equalize, quantize_bias, scale_channels,
    smooth, unscale_inputs, zero_point_sums,
};
use qcalib::{CalibError, fake_quantize};
use qformat::{DType, Granularity, QuantSpec, Scheme, TensorQParams};
use serde_json::json;

mod drawn;
use drawn::draw;

/// `w · x + b`, row-major `outputs × inputs`.
fn linear(w: &[f32], b: &[f32], x: &[f32]) -> Vec<f64> {
    w.chunks_exact(x.len())
        .zip(b)
        .map(|(row, &b)| {
            let dot: f64 = row
                .iter()
                .zip(x)
                .map(|(&w, &x)| f64::from(w) * f64::from(x))
                .sum();
            dot + f64::from(b)
        })
        .collect()
}

fn relu(x: Vec<f64>) -> Vec<f32> {
    x.into_iter().map(|v| v.max(0.0) as f32).collect()
}

fn quantized(w: &[f32], shape: &[usize], dtype: DType) -> Vec<f32> {
    let spec = QuantSpec {
        dtype,
        scheme: Scheme::Symmetric,
        granularity: Granularity::PerTensor,
    };
    let p = TensorQParams::from_data(w, shape, spec).unwrap();
    let mut out = vec![0.0; w.len()];
    fake_quantize(w, shape, &p, &mut out).unwrap();
    out
}

fn values(seed: u64, n: usize, scale: f64) -> Vec<f32> {
    draw(&json!(["uniform", seed, n, scale]))
}

fn squares(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

/// Two layers with channels of very different ranges, as depthwise networks have them.
fn uneven(seed: u64) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (mut w1, mut b1) = (values(seed, 8 * 6, 1.0), values(seed + 1, 8, 1.0));
    let w2 = values(seed + 2, 4 * 8, 1.0);
    for (i, row) in w1.chunks_exact_mut(6).enumerate() {
        let s = 2f32.powi(i as i32 - 4);
        row.iter_mut().for_each(|w| *w *= s);
        b1[i] *= s;
    }
    (w1, b1, w2)
}

#[test]
fn equalization_keeps_the_network_and_helps_its_quantized_form() {
    for power_of_two in [false, true] {
        let (mut before, mut after) = (0.0, 0.0);
        for seed in (0..60).step_by(3) {
            let (w1, b1, w2) = uneven(seed);
            let (mut e1, mut eb, mut e2) = (w1.clone(), b1.clone(), w2.clone());
            let e = equalize(&mut e1, Some(&mut eb), &mut e2, 8, [4, 8, 1], power_of_two).unwrap();
            assert!(e.spread_after < e.spread_before, "{e:?}");
            let (made, read) = (
                channel_abs_max(&e1, [1, 8, 6]).unwrap(),
                channel_abs_max(&e2, [4, 8, 1]).unwrap(),
            );
            let allowed = if power_of_two { 2.001 } else { 1.001 };
            for (a, b) in made.iter().zip(&read) {
                assert!(a / b < allowed && b / a < allowed, "{a} {b}");
            }
            let zero = [0.0; 4];
            let net = |w1: &[f32], b1: &[f32], w2: &[f32], x: &[f32]| {
                linear(w2, &zero, &relu(linear(w1, b1, x)))
            };
            let (q1, q2) = (
                quantized(&w1, &[8, 6], DType::I8),
                quantized(&w2, &[4, 8], DType::I8),
            );
            let (qe1, qe2) = (
                quantized(&e1, &[8, 6], DType::I8),
                quantized(&e2, &[4, 8], DType::I8),
            );
            for batch in 0..20 {
                let x = values(1000 + batch, 6, 2.0);
                let y = net(&w1, &b1, &w2, &x);
                let same = net(&e1, &eb, &e2, &x);
                if power_of_two {
                    assert_eq!(y, same);
                } else {
                    assert!(squares(&y, &same) < 1e-9 * (1.0 + squares(&y, &[0.0; 4])));
                }
                before += squares(&y, &net(&q1, &b1, &q2, &x));
                after += squares(&y, &net(&qe1, &eb, &qe2, &x));
            }
        }
        assert!(after < 0.7 * before, "{after} {before}");
    }
}

#[test]
fn channels_of_zeros_and_bad_sizes_are_left_alone() {
    let (mut w1, mut w2) = (vec![0.0, 0.0, 1.0, 2.0], vec![1.0, 4.0]);
    let e = equalize(&mut w1, None, &mut w2, 2, [1, 2, 1], false).unwrap();
    assert_eq!(e.factors[0], 1.0);
    assert!(w1.iter().chain(&w2).all(|v| v.is_finite()));
    let before = (w1.clone(), w2.clone());
    assert!(equalize(&mut w1, None, &mut w2, 3, [1, 2, 1], false).is_err());
    assert!(equalize(&mut w1, None, &mut w2, 2, [2, 2, 1], false).is_err());
    assert!(equalize(&mut w1, None, &mut w2, 2, [1, 1, 2], false).is_err());
    assert!(equalize(&mut w1, Some(&mut [0.0]), &mut w2, 2, [1, 2, 1], false).is_err());
    assert_eq!((&w1, &w2), (&before.0, &before.1));
    w1[0] = f32::NAN;
    assert!(equalize(&mut w1, None, &mut w2, 2, [1, 2, 1], false).is_err());
    assert!(equalize(&mut [], None, &mut [], 0, [0, 0, 0], false).is_ok());
    assert!(scale_channels(&mut [1.0; 3], &[1.0; 2]).is_err());
    assert!(unscale_inputs(&mut [1.0; 3], [1, 3, 1], &[1.0; 2]).is_err());
}

/// With means that are exact, the mean output is exact.
#[test]
fn bias_correction_restores_the_mean_output() {
    let (w, b) = (values(5, 4 * 6 * 9, 1.0), values(6, 4, 1.0));
    let q = quantized(&w, &[4, 6, 9], DType::I4);
    let samples: Vec<Vec<f32>> = (0..50)
        .map(|s| {
            values(100 + s, 6 * 9, 1.0)
                .iter()
                .map(|v| v + 0.7)
                .collect()
        })
        .collect();
    // Every input channel has one mean over its nine positions.
    let means: Vec<f32> = (0..6)
        .map(|c| {
            let sum: f64 = samples
                .iter()
                .flat_map(|x| &x[c * 9..c * 9 + 9])
                .map(|&v| f64::from(v))
                .sum();
            (sum / 450.0) as f32
        })
        .collect();
    let corrected = bias_correction(&w, &q, [4, 6, 9], &means, Some(&b)).unwrap();
    let mean = |w: &[f32], b: &[f32]| -> Vec<f64> {
        let mut sum = vec![0.0; 4];
        for x in &samples {
            for (s, y) in sum.iter_mut().zip(linear(w, b, x)) {
                *s += y / samples.len() as f64;
            }
        }
        sum
    };
    let target = mean(&w, &b);
    let (plain, better) = (
        squares(&target, &mean(&q, &b)),
        squares(&target, &mean(&q, &corrected)),
    );
    // The nine positions of a channel have means of their own, which the correction does not see.
    assert!(better < 0.2 * plain, "{better} {plain}");
    // For a matrix nothing is left over.
    let (w, q) = (&w[..24], &quantized(&w[..24], &[4, 6], DType::I4)[..]);
    let corrected = bias_correction(w, q, [4, 6, 1], &means, None).unwrap();
    let (a, b) = (linear(w, &[0.0; 4], &means), linear(q, &corrected, &means));
    assert!(squares(&a, &b) < 1e-9, "{a:?} {b:?}");
    assert!(bias_correction(w, q, [4, 6, 1], &means[..5], None).is_err());
    assert!(bias_correction(w, &q[..23], [4, 6, 1], &means, None).is_err());
    assert!(bias_correction(w, q, [4, 6, 1], &means, Some(&[0.0; 3])).is_err());
}

#[test]
fn smoothing_keeps_the_layer_and_helps_its_quantized_form() {
    let w = values(9, 4 * 6, 1.0);
    let samples: Vec<Vec<f32>> = (0..30)
        .map(|s| {
            let mut x = values(300 + s, 6, 1.0);
            x[2] *= 60.0; // one channel of outliers
            x
        })
        .collect();
    let x = samples.concat();
    let seen = channel_abs_max(&x, [30, 6, 1]).unwrap();
    let s = smooth(&seen, &channel_abs_max(&w, [4, 6, 1]).unwrap(), 0.5).unwrap();
    let (mut ws, mut xs) = (w.clone(), x.clone());
    unscale_inputs(&mut ws, [4, 6, 1], &s).unwrap();
    let inverse: Vec<f32> = s.iter().map(|s| 1.0 / s).collect();
    unscale_inputs(&mut xs, [30, 6, 1], &inverse).unwrap();
    let (mut plain, mut better) = (0.0, 0.0);
    let (qx, qw) = (
        quantized(&x, &[30, 6], DType::I8),
        quantized(&w, &[4, 6], DType::I8),
    );
    let (qxs, qws) = (
        quantized(&xs, &[30, 6], DType::I8),
        quantized(&ws, &[4, 6], DType::I8),
    );
    for i in 0..30 {
        let at = i * 6..i * 6 + 6;
        let y = linear(&w, &[0.0; 4], &x[at.clone()]);
        let same = linear(&ws, &[0.0; 4], &xs[at.clone()]);
        assert!(squares(&y, &same) < 1e-7 * (1.0 + squares(&y, &[0.0; 4])));
        plain += squares(&y, &linear(&qw, &[0.0; 4], &qx[at.clone()]));
        better += squares(&y, &linear(&qws, &[0.0; 4], &qxs[at]));
    }
    assert!(better < 0.3 * plain, "{better} {plain}");
    // The ends of the strength: all with the activations, or all with the weights.
    let s = smooth(&[8.0, 0.0, 3.0], &[2.0, 1.0, 0.0], 0.0).unwrap();
    assert_eq!(s, [0.5, 1.0, 1.0]);
    assert_eq!(smooth(&[8.0], &[2.0], 1.0).unwrap(), [8.0]);
    assert!(smooth(&[1.0], &[1.0], 1.5).is_err());
    assert!(smooth(&[1.0], &[1.0, 2.0], 0.5).is_err());
    assert!(smooth(&[-1.0], &[1.0], 0.5).is_err() && smooth(&[f32::NAN], &[1.0], 0.5).is_err());
    assert!(smooth(&[f32::MAX], &[f32::from_bits(1)], 0.5).unwrap()[0].is_finite());
}

proptest! {
    #[test]
    fn biases_are_rounded_to_half_a_step_or_refused(
        bias in prop::collection::vec(prop_oneof![-1e3f32..1e3, any::<f32>()], 1..6),
        activation in 1e-4f32..1.0,
        weights in prop::collection::vec(1e-6f32..1.0, 6),
        one in any::<bool>(),
        limit in prop_oneof![Just(i32::MAX), 1000..1_000_000],
    ) {
        let scales = if one { &weights[..1] } else { &weights[..bias.len()] };
        match quantize_bias(&bias, activation, scales) {
            Ok(q) => for ((&b, &v), &s) in bias.iter().zip(&q.values).zip(&q.scales) {
                let error = f64::from(v) * f64::from(s) - f64::from(b);
                prop_assert!(error.abs() <= 0.5000001 * f64::from(s));
            },
            Err(CalibError::Overflow { channel, bias: b, scale }) => {
                prop_assert_eq!(bias[channel], b);
                prop_assert!(f64::from(b).abs() / f64::from(scale) > 2_147_483_647.0);
            }
            Err(e) => prop_assert!(bias.iter().any(|b| !b.is_finite()), "{}", e),
        }
        if let Ok(raised) = bias_scale_floor(&bias, activation, scales, limit) {
            prop_assert!(raised.iter().zip(scales).all(|(a, b)| a >= b));
            let q = quantize_bias(&bias, activation, &raised).unwrap();
            prop_assert!(q.values.iter().all(|v| v.unsigned_abs() <= limit.unsigned_abs()));
            // No larger than it must be.
            if raised.len() == bias.len() {
                for ((&r, &s), &v) in raised.iter().zip(scales).zip(&q.values) {
                    prop_assert!(r == s || f64::from(v).abs() >= 0.99 * f64::from(limit) - 1.0);
                }
            }
        } else {
            prop_assert!(bias.iter().any(|b| !b.is_finite() || b.abs() > 1e30));
        }
    }

    #[test]
    fn zero_point_sums_turn_plain_products_into_shifted_ones(
        w in prop::collection::vec(any::<i8>(), 12), a in prop::collection::vec(any::<u8>(), 4),
        zero in 0i32..256,
    ) {
        let sums = zero_point_sums(&w, 3, 4, zero).unwrap();
        for (row, sum) in w.chunks_exact(4).zip(sums) {
            let plain: i32 = row.iter().zip(&a).map(|(&w, &a)| i32::from(w) * i32::from(a)).sum();
            let shifted: i32 = row.iter().zip(&a).map(|(&w, &a)| i32::from(w) * (i32::from(a) - zero)).sum();
            prop_assert_eq!(plain + sum, shifted);
        }
    }
}

#[test]
fn sums_and_sizes_of_biases_are_checked() {
    assert!(zero_point_sums(&[1; 5], 2, 3, 1).is_err());
    assert_eq!(zero_point_sums(&[], 2, 0, 1).unwrap(), [0, 0]);
    assert!(matches!(
        zero_point_sums(&[127; 2], 1, 2, i32::MIN),
        Err(CalibError::Overflow { channel: 0, .. })
    ));
    assert!(quantize_bias(&[1.0; 3], 1.0, &[1.0; 2]).is_err());
    assert!(quantize_bias(&[1.0], 1e-30, &[1e-30]).is_err());
    assert!(quantize_bias(&[f32::NAN], 1.0, &[1.0]).is_err());
    assert!(bias_scale_floor(&[1.0], 1.0, &[1.0], 0).is_err());
    assert!(bias_scale_floor(&[1.0], 0.0, &[1.0], 9).is_err());
    assert!(bias_scale_floor(&[f32::INFINITY], 1.0, &[1.0], 9).is_err());
    assert!(bias_scale_floor(&[f32::MAX], 1e-3, &[1.0], 1).is_err());
}

/// Tensors without values may claim shapes of any size.
#[test]
fn shapes_that_no_memory_holds_are_errors() {
    const HUGE: usize = usize::MAX;
    let memory =
        |e: CalibError| assert!(matches!(e, CalibError::Memory { given: HUGE, .. }), "{e}");
    memory(channel_abs_max(&[], [0, HUGE, 1]).unwrap_err());
    memory(zero_point_sums(&[], HUGE, 0, 1).unwrap_err());
    memory(bias_correction(&[], &[], [HUGE, 0, 0], &[], None).unwrap_err());
    memory(equalize(&mut [], None, &mut [], HUGE, [0, HUGE, 1], false).unwrap_err());
    let e = bias_correction(&[], &[], [0, 2, HUGE], &[1.0; 2], None).unwrap_err();
    assert!(matches!(e, CalibError::Format(_)), "{e}");
    assert_eq!(
        bias_correction(&[], &[], [0, 2, 3], &[1.0; 2], None),
        Ok(vec![])
    );
}

#[test]
fn factors_that_would_leave_no_weights_are_refused() {
    let setting = |r: Result<(), CalibError>| assert!(matches!(r, Err(CalibError::Setting { .. })));
    for factor in [0.0, f32::NAN, f32::INFINITY, 1e-30] {
        let mut w = [1.0, 3e38];
        setting(scale_channels(&mut w, &[1.0, factor]));
        assert_eq!(w, [1.0, 3e38]);
    }
    for factor in [f32::NAN, f32::INFINITY, 1e30] {
        let mut w = [1.0, 3e38];
        setting(unscale_inputs(&mut w, [1, 2, 1], &[1.0, factor]));
        assert_eq!(w, [1.0, 3e38]);
    }
    // A bias that its factor would overflow leaves everything as it was.
    let (mut w1, mut b1, mut w2) = ([1e-6, 1.0], [3e38, 1.0], [1.0, 1.0]);
    let e = equalize(&mut w1, Some(&mut b1), &mut w2, 2, [1, 2, 1], false);
    assert!(matches!(e, Err(CalibError::Setting { .. })));
    assert_eq!((w1, b1, w2), ([1e-6, 1.0], [3e38, 1.0], [1.0, 1.0]));
}
