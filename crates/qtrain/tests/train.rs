//! Training: the loss falls, seeds decide, phases follow each other.

mod common;

use common::{small_model, small_samples};
use qcalib::Method;
use qcalib::train::Phase;
use qformat::Granularity;
use qtrain::evaluate::{logits, score};
use qtrain::graph::{Float, Graph};
use qtrain::quantized::Fixed;
use qtrain::quantized::Width;
use qtrain::train::{Event, Ranges, TrainOptions, Trained, train};
use qtrain::{Network, TrainError, calibrate, data};

fn options() -> TrainOptions {
    TrainOptions {
        method: Method::MinMax,
        width: Width {
            weights: 3,
            activations: 4,
        },
        epochs: 12,
        batch: 10,
        rate: 3e-2,
        distill: 0.0,
        ..TrainOptions::default()
    }
}

fn run(options: &TrainOptions) -> Result<(Trained, Vec<Event>), TrainError> {
    let network = Network::new(&small_model(true)).unwrap();
    let (training, held_out) = (small_samples(90, 1), small_samples(30, 2));
    let mut events = Vec::new();
    let trained = train(
        &network,
        &training,
        &training,
        &held_out,
        options,
        &mut |e| events.push(e),
    )?;
    Ok((trained, events))
}

#[test]
fn the_loss_falls_with_learned_and_with_observed_ranges() {
    for ranges in [Ranges::Learned, Ranges::Observed] {
        for granularity in [Granularity::PerTensor, Granularity::PerChannel { axis: 0 }] {
            let (trained, events) = run(&TrainOptions {
                ranges,
                granularity,
                ..options()
            })
            .unwrap();
            let (first, last) = (trained.losses[0], trained.losses[11]);
            assert!(last < 0.7 * first, "{ranges:?}: {first} to {last}");
            let Some(Event::Epoch { held_out, .. }) = events.last() else {
                panic!("{events:?}");
            };
            // Untrained, a third is right by chance.
            assert!(held_out.accuracy > 0.6, "{ranges:?}: {held_out:?}");
        }
    }
}

/// The real network at four bits: what post-training quantization loses, a few steps of training on
/// 400 digits mostly win back. Measured on digits that neither was shown.
#[test]
fn training_beats_calibration_alone_on_digits_at_four_bits() {
    let network = Network::new(&data::model().unwrap()).unwrap();
    let rows = |count| (0..count).collect::<Vec<_>>();
    let calibration = data::calibration().unwrap().select(&rows(50));
    let training = data::training().unwrap().select(&rows(400));
    let test = data::test().unwrap().select(&rows(200));
    let options = TrainOptions {
        epochs: 4,
        batch: 10,
        ..TrainOptions::default()
    };
    let float = logits(&Graph::new(&network).unwrap(), &test, &mut Float).unwrap();
    let rate = |network: &Network, quantizers: &[_]| {
        let graph = Graph::new(network).unwrap();
        let outputs = logits(&graph, &test, &mut Fixed(quantizers)).unwrap();
        score(&outputs, &float, &test.labels).unwrap()
    };
    let q = calibrate::quantize(
        &network,
        &calibration,
        options.method,
        options.width,
        options.granularity,
    )
    .unwrap();
    let before = rate(&network, &q);
    let held_out = test.select(&rows(50));
    let trained = train(
        &network,
        &training,
        &calibration,
        &held_out,
        &options,
        &mut |_| (),
    )
    .unwrap();
    let after = rate(&trained.network, &trained.quantizers);
    let (lost, won) = (before.sqnr_db.unwrap(), after.sqnr_db.unwrap());
    println!("{before:?} {after:?}");
    assert!(
        won > lost + 3.0,
        "{lost} dB without training, {won} dB with"
    );
    assert!(after.accuracy >= before.accuracy, "{before:?} {after:?}");
}

#[test]
fn a_seed_decides_every_bit() {
    let short = TrainOptions {
        epochs: 2,
        ..options()
    };
    let (a, _) = run(&short).unwrap();
    let (b, _) = run(&short).unwrap();
    assert_eq!(
        (&a.network, &a.quantizers, &a.losses),
        (&b.network, &b.quantizers, &b.losses)
    );
    let (c, _) = run(&TrainOptions { seed: 2, ..short }).unwrap();
    assert_ne!(a.network, c.network);
}

#[test]
fn ranges_adapt_and_then_freeze() {
    let phases = |freeze_after| {
        let (trained, events) = run(&TrainOptions {
            freeze_after,
            ..options()
        })
        .unwrap();
        let phases = events.iter().filter_map(|e| match e {
            Event::Step { phase, .. } => Some(*phase),
            Event::Epoch { .. } => None,
        });
        (trained, phases.collect::<Vec<_>>())
    };
    let (moved, half) = phases(0.5);
    assert_eq!(half.len(), 108);
    assert!(half[..54].iter().all(|&p| p == Phase::Adapt));
    assert!(half[54..].iter().all(|&p| p == Phase::Frozen));
    let (still, none) = phases(0.0);
    assert!(none.iter().all(|&p| p == Phase::Frozen));
    let (_, all) = phases(1.0);
    assert!(all.iter().all(|&p| p == Phase::Adapt));
    assert_ne!(moved.quantizers, still.quantizers);
}

#[test]
fn settings_outside_their_domain_are_errors() {
    let refused = |o: TrainOptions| {
        let outcome = run(&o).map(|_| ());
        assert!(
            matches!(outcome, Err(TrainError::Setting { .. })),
            "{outcome:?}"
        );
    };
    refused(TrainOptions {
        epochs: 0,
        ..options()
    });
    refused(TrainOptions {
        batch: 0,
        ..options()
    });
    refused(TrainOptions {
        rate: f64::NAN,
        ..options()
    });
    refused(TrainOptions {
        scale_rate: -1.0,
        ..options()
    });
    refused(TrainOptions {
        distill: f64::INFINITY,
        ..options()
    });
    refused(TrainOptions {
        freeze_after: 1.1,
        ..options()
    });
    // Three bits have no type that ranges are estimated for.
    refused(TrainOptions {
        method: Method::Mse,
        ..options()
    });
    let wild = run(&TrainOptions {
        rate: 1e30,
        ..options()
    })
    .map(|_| ());
    assert!(
        matches!(
            wild,
            Err(TrainError::Diverged { .. } | TrainError::Tensor(_))
        ),
        "{wild:?}"
    );
}

#[test]
fn samples_that_do_not_fit_are_errors() {
    let network = Network::new(&small_model(true)).unwrap();
    let good = small_samples(9, 1);
    let refused = |training: &qtrain::data::Samples| {
        let outcome = train(&network, training, &good, &good, &options(), &mut |_| ());
        assert!(outcome.is_err());
    };
    let mut labels = good.clone();
    labels.labels.push(0);
    refused(&labels);
    labels = good.clone();
    labels.labels[4] = 3; // classes are 0 to 2
    refused(&labels);
    let mut pixels = good.clone();
    pixels.images.pop();
    refused(&pixels);
    let mut broken = good.clone();
    broken.images[7] = f32::NAN;
    refused(&broken);
}
