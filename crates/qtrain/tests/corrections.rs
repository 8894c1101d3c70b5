//! Corrections leave the float network as it is, and do what they are for.

mod common;

use common::small_samples;
use qcalib::Method;
use qformat::Granularity;
use qformat::metrics::sqnr_db;
use qtrain::corrections::{Correction, Study, correct_biases, equalize_layers, smooth_layers};
use qtrain::data::{self, Samples};
use qtrain::evaluate::logits;
use qtrain::graph::{Float, Graph};
use qtrain::quantized::{Width, cover_weights};
use qtrain::{Network, TrainError};

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
