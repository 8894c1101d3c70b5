//! Corrections leave the float network as it is, and do what they are for.

mod common;

use common::small_samples;
use qcalib::Method;
use qformat::Granularity;
use qformat::metrics::sqnr_db;
use qtrain::corrections::{
    Correction, Study, correct_biases, equalize_layers, round_biases, smooth_layers,
};
use qtrain::data::{self, Samples};
use qtrain::evaluate::logits;
use qtrain::graph::{Float, Graph};
use qtrain::quantized::{Fixed, Width, cover_weights};
use qtrain::{Network, TrainError, calibrate};

fn digits() -> (Network, Samples) {
    let few = data::calibration()
        .unwrap()
        .select(&(0..40).collect::<Vec<_>>());
    (Network::new(&data::model().unwrap()).unwrap(), few)
}

fn outputs(network: &Network, samples: &Samples) -> Vec<f32> {
    logits(&Graph::new(network).unwrap(), samples, &mut Float).unwrap()
}

#[test]
fn equalization_makes_channels_even_and_changes_nothing_else() {
    let (network, samples) = digits();
    let mut even = network.clone();
    let pairs = equalize_layers(&mut even).unwrap();
    assert_eq!(pairs.len(), 5);
    for p in &pairs {
        assert!(
            p.spread_after <= p.spread_before && p.spread_before > 1.5,
            "{p:?}"
        );
    }
    assert_ne!(even.layers[2].weight, network.layers[2].weight);
    // Only rounding: far below the noise of any quantizer.
    let db = sqnr_db(&outputs(&network, &samples), &outputs(&even, &samples)).unwrap();
    assert!(db > 100.0, "{db}");
}

#[test]
fn smoothing_changes_nothing_but_ranges() {
    let (network, samples) = digits();
    let mut smooth = network.clone();
    smooth_layers(&mut smooth, &samples, 0.5).unwrap();
    for (a, b) in network.layers.iter().zip(&smooth.layers) {
        assert_ne!(a.weight, b.weight);
    }
    let db = sqnr_db(&outputs(&network, &samples), &outputs(&smooth, &samples)).unwrap();
    assert!(db > 100.0, "{db}");
    let refused = smooth_layers(&mut smooth, &samples, 1.5);
    assert!(matches!(refused, Err(TrainError::Calib(_))));
}

#[test]
fn corrected_biases_take_the_mean_error_away() {
    let (network, samples) = digits();
    let width = Width {
        weights: 3,
        activations: 8,
    };
    let quantizers = cover_weights(&network, width, Granularity::PerTensor).unwrap();
    // The last layer alone is quantized, so that its inputs are the float network's.
    let mean_error = |corrected: &Network| {
        let mut quantized = corrected.clone();
        let last = quantized.layers.last_mut().unwrap();
        let mut w = vec![0f32; last.weight.len()];
        quantizers[5]
            .forward(&last.weight, last.shape(), &mut w)
            .unwrap();
        last.weight = w;
        let (a, b) = (outputs(&network, &samples), outputs(&quantized, &samples));
        let mut means = [0f64; 10];
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            means[i % 10] += f64::from(b - a) / samples.len() as f64;
        }
        means.iter().fold(0f64, |m, v| m.max(v.abs()))
    };
    let mut corrected = network.clone();
    correct_biases(&mut corrected, &quantizers, &samples).unwrap();
    let mut last_only = network.clone();
    last_only.layers[5]
        .bias
        .clone_from(&corrected.layers[5].bias);
    let (before, after) = (mean_error(&network), mean_error(&last_only));
    assert!(before > 0.05 && after < 1e-4, "{before} {after}");
    assert!(correct_biases(&mut corrected, &quantizers[1..], &samples).is_err());
}

#[test]
fn biases_of_whole_steps_cost_less_than_two_decibels_at_four_bits() {
    let (network, samples) = digits();
    for granularity in [Granularity::PerTensor, Granularity::PerChannel { axis: 0 }] {
        let mut q =
            calibrate::quantize(&network, &samples, Method::MinMax, Width::W4A4, granularity)
                .unwrap();
        let (before, mut rounded) = (q.clone(), network.clone());
        let largest = round_biases(&mut rounded, &mut q).unwrap();
        // Even at 4 bits a bias is a few dozen steps: no scale need be raised for it.
        assert_eq!(before, q);
        assert!(largest.iter().all(|&b| b > 1 && b < 1 << 16), "{largest:?}");
        for ((a, b), q) in network.layers.iter().zip(&rounded.layers).zip(&q) {
            assert_ne!(a.bias, b.bias);
            for (channel, (a, b)) in a.bias.iter().zip(&b.bias).enumerate() {
                let scales = q.weight.scales();
                let step = q.input.scales()[0] * scales[channel % scales.len()];
                assert!((a - b).abs() <= 0.501 * step, "{a} {b} {step}");
                let steps = b / step;
                assert!((steps - steps.round()).abs() < 1e-3, "{b} {step}");
            }
        }
        let of = |n: &Network| logits(&Graph::new(n).unwrap(), &samples, &mut Fixed(&q)).unwrap();
        let (float, with, without) = (outputs(&network, &samples), of(&rounded), of(&network));
        // Steps are coarse at 4 bits: 1.5 dB a tensor were measured.
        let before = sqnr_db(&float, &without).unwrap();
        let after = sqnr_db(&float, &with).unwrap();
        assert!(after > before - 2.0, "{after} {before}");
        assert!(round_biases(&mut rounded, &mut q[1..]).is_err());
    }
}

/// Where a step is far too fine for a bias, the weights' scale gives way.
#[test]
fn a_bias_beyond_the_accumulator_raises_the_scale_of_its_channel() {
    let (mut network, samples) = digits();
    let granularity = Granularity::PerChannel { axis: 0 };
    let mut q =
        calibrate::quantize(&network, &samples, Method::MinMax, Width::W4A4, granularity).unwrap();
    let before = q.clone();
    network.layers[2].bias[5] = 1e9;
    let largest = round_biases(&mut network, &mut q).unwrap();
    // As far as the scale's own rounding lets it.
    let limit = i32::MAX as u32 / 2;
    assert!(
        (limit - limit / 1_000_000..=limit).contains(&largest[2]),
        "{largest:?}"
    );
    for (channel, (a, b)) in before[2]
        .weight
        .scales()
        .iter()
        .zip(q[2].weight.scales())
        .enumerate()
    {
        assert_eq!(a != b, channel == 5, "{a} {b}");
    }
    assert!((network.layers[2].bias[5] / 1e9 - 1.0).abs() < 1e-6);
}

#[test]
fn the_study_has_a_cell_for_each_correction_and_width() {
    let network = Network::new(&common::small_model(true)).unwrap();
    let study = Study {
        widths: vec![
            Width::W4A4,
            Width {
                weights: 3,
                activations: 8,
            },
        ],
        granularity: Granularity::PerTensor,
        method: Method::MinMax,
    };
    let mut told = 0;
    let cells = study
        .run(
            &network,
            &small_samples(20, 1),
            &small_samples(30, 2),
            &mut |_| told += 1,
        )
        .unwrap();
    assert_eq!(
        (cells.len(), told),
        (2 * Correction::ALL.len(), cells.len())
    );
    for (i, c) in cells.iter().enumerate() {
        assert_eq!(
            (c.correction, c.width),
            (Correction::ALL[i / 2], study.widths[i % 2])
        );
        assert!(c.score.sqnr_db.is_some_and(|db| db > 3.0), "{c:?}");
    }
}
