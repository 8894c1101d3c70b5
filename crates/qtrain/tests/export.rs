//! Written models predict what was trained.

mod common;

use common::{small_model, small_samples};
use qcalib::Method;
use qformat::Granularity;
use qmodel::{ElementType, Model, Session, SessionOptions};
use qtrain::evaluate::logits;
use qtrain::graph::Graph;
use qtrain::quantized::{Fixed, LayerQuantizers, Width};
use qtrain::{Network, TrainError, calibrate, export};

const GRANULARITIES: [Granularity; 2] =
    [Granularity::PerTensor, Granularity::PerChannel { axis: 0 }];

fn quantized(width: Width, granularity: Granularity) -> (Network, Vec<LayerQuantizers>) {
    let network = Network::new(&small_model(true)).unwrap();
    let samples = small_samples(30, 1);
    let q = calibrate::quantize(&network, &samples, Method::MinMax, width, granularity).unwrap();
    (network, q)
}

#[test]
fn written_models_give_the_outputs_of_the_training_graph() {
    for weights in [2, 3, 4, 8] {
        for activations in [4, 8] {
            for granularity in GRANULARITIES {
                let width = Width {
                    weights,
                    activations,
                };
                let (network, q) = quantized(width, granularity);
                let written = export::model(&network, &q).unwrap();
                let read = Model::from_bytes(&written.to_bytes()).unwrap();
                assert_eq!(read, written);
                // Some beyond what was calibrated, some negative.
                let mut samples = small_samples(40, 2);
                samples.images.iter_mut().for_each(|v| *v = *v * 1.4 - 0.1);
                let graph = Graph::new(&network).unwrap();
                let ours = logits(
                    &graph,
                    &{
                        let mut s = samples.clone();
                        // Inputs of the training graph are not negative.
                        s.images.iter_mut().for_each(|v| *v = v.max(0.0));
                        s
                    },
                    &mut Fixed(&q),
                )
                .unwrap();
                let theirs = export::run(&network, &read, &samples).unwrap();
                // Sums of multiples of one step, in another order: nearly the same everywhere, but
                // where a value beside the middle goes the other way.
                let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
                let same = ours.iter().zip(&theirs).filter(|&p| near(p)).count();
                assert!(
                    same * 100 >= ours.len() * 97,
                    "{width} {granularity}: {same}"
                );
                assert!(export::compare(&ours, &theirs, 3, 1).is_ok());
            }
        }
    }
}

#[test]
fn the_executor_runs_it_in_integers() {
    let (network, q) = quantized(Width::W4A4, Granularity::PerTensor);
    let model = export::model(&network, &q).unwrap();
    let session = Session::new(&model, SessionOptions::default()).unwrap();
    let steps: Vec<&str> = session.steps().collect();
    // Nothing becomes float again before the last product.
    assert!(
        steps.iter().all(|s| !s.starts_with("DequantizeLinear")),
        "{steps:?}"
    );
    let products = steps
        .iter()
        .filter(|s| s.starts_with("Conv") || s.starts_with("Gemm"));
    let fused: Vec<bool> = products.map(|s| s.contains("+ QuantizeLinear")).collect();
    assert_eq!(fused, [true, true, false], "{steps:?}");
    let single = SessionOptions {
        fuse: false,
        ..SessionOptions::default()
    };
    assert!(Session::new(&model, single).unwrap().steps().count() > steps.len());
}

#[test]
fn weights_use_the_levels_of_their_bits() {
    for (weights, most) in [(2, 1), (3, 3), (4, 7), (8, 127)] {
        let width = Width {
            weights,
            activations: 4,
        };
        let (network, q) = quantized(width, Granularity::PerChannel { axis: 0 });
        let model = export::model(&network, &q).unwrap();
        let mut seen = 0;
        for i in model.graph.initializers.values() {
            if let Some(v) = i.tensor.as_slice::<i8>() {
                seen += 1;
                // The largest weight of each channel is at the end of the range.
                assert_eq!(
                    v.iter().map(|v| i32::from(v.unsigned_abs())).max(),
                    Some(most)
                );
            }
            if i.tensor.element_type() == ElementType::U8 {
                assert_eq!(i.tensor.as_slice::<u8>(), Some(&[240][..]));
            }
        }
        assert_eq!(seen, 3);
    }
}

#[test]
fn quantizers_that_do_not_fit_are_errors() {
    let (network, q) = quantized(Width::W4A4, Granularity::PerTensor);
    assert!(matches!(
        export::model(&network, &q[..2]),
        Err(TrainError::Count {
            given: 2,
            expected: 3,
            ..
        })
    ));
    let mut signed = q.clone();
    signed[1].input = signed[1].weight.clone();
    assert!(matches!(
        export::model(&network, &signed),
        Err(TrainError::Setting { .. })
    ));
    let samples = small_samples(3, 1);
    let graph = Graph::new(&network).unwrap();
    assert!(logits(&graph, &samples, &mut Fixed(&q[..1])).is_err());
    for width in [
        Width {
            weights: 1,
            activations: 4,
        },
        Width {
            weights: 9,
            activations: 4,
        },
    ] {
        assert!(matches!(
            width.weight_levels(),
            Err(TrainError::Setting { .. })
        ));
    }
    let odd = Width {
        weights: 4,
        activations: 5,
    };
    assert!(matches!(
        odd.activation_spec(),
        Err(TrainError::Setting { .. })
    ));
}

#[test]
fn a_model_that_predicts_something_else_is_an_error() {
    let (a, b) = ([1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(export::compare(&a, &a, 2, 0).unwrap(), 0);
    assert_eq!(export::compare(&a, &b, 2, 1).unwrap(), 1);
    assert!(matches!(
        export::compare(&a, &b, 2, 0),
        Err(TrainError::Disagreement {
            differing: 1,
            samples: 2,
            allowed: 0
        })
    ));
    assert!(export::compare(&a, &b[..2], 2, 9).is_err());
}
