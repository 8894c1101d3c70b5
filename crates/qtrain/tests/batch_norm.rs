//! Batch normalizations: read apart, inserted without effect, trained, frozen, and folded into what
//! is written.

mod common;

use common::{drawn, small_model, small_samples};
use qcalib::Method;
use qcalib::train::{BatchNorm, Phase};
use qformat::Granularity;
use qmodel::{Attribute, Model, Node, Tensor};
use qtrain::data::{self, Samples};
use qtrain::evaluate::{logits, score};
use qtrain::graph::{Float, Graph};
use qtrain::quantized::{Fixed, Width};
use qtrain::train::{Event, Ranges, TrainOptions, Trained, train_normalized};
use qtrain::{Network, Normalized, TrainError, batch_norm, calibrate, export};

/// The largest difference between outputs, relative to the largest.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0f32, |m, v| m.max(v.abs()));
    let pairs = a.iter().zip(b);
    pairs.fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

fn float(network: &Network, samples: &Samples) -> Vec<f32> {
    logits(&Graph::new(network).unwrap(), samples, &mut Float).unwrap()
}

fn norms_in(model: &Model) -> usize {
    let nodes = model.graph.nodes.iter();
    nodes.filter(|n| n.is("BatchNormalization")).count()
}

#[test]
fn an_inserted_normalization_changes_nothing() {
    let digits = data::test().unwrap().select(&(0..20).collect::<Vec<_>>());
    let cases = [
        (data::model().unwrap(), digits, 4),
        (small_model(false), small_samples(20, 1), 1),
    ];
    for (model, samples, convolutions) in cases {
        let network = Network::new(&model).unwrap();
        let with = batch_norm::insert(&model, &samples).unwrap();
        assert_eq!(norms_in(&with), convolutions);
        // Neither in the executor, which runs the normalizations, nor folded.
        let before = export::run(&network, &model, &samples).unwrap();
        let after = export::run(&network, &with, &samples).unwrap();
        assert!(apart(&after, &before) < 1e-5, "{}", apart(&after, &before));
        let normalized = Normalized::new(&with).unwrap();
        let folded = float(normalized.folded(), &samples);
        assert!(apart(&folded, &float(&network, &samples)) < 1e-5);
        // They are read back, and the weights before them are those of the file.
        for (layer, own) in network.layers.iter().zip(normalized.layers()) {
            if let Some(own) = own {
                assert_eq!(own.weight, layer.weight);
                let sigma = own.norm.variance.iter().map(|v| (v + 1e-5).sqrt());
                let pairs = own.norm.gamma.iter().zip(sigma);
                assert!(pairs.into_iter().all(|(g, s)| (g - s).abs() < 1e-6 * s));
            }
        }
        // A second time there is nothing left to insert.
        assert_eq!(batch_norm::insert(&with, &samples).unwrap(), with);
    }
    let none = Samples {
        pixels: 36,
        ..Samples::default()
    };
    assert!(matches!(
        batch_norm::insert(&small_model(false), &none),
        Err(TrainError::Count { given: 0, .. })
    ));
}

#[test]
fn statistics_are_those_of_the_samples() {
    // One filter of one weight passes the image on: its statistics are the pixels'.
    let mut model = small_model(false);
    let mut filters = vec![0f32; 4 * 9];
    (0..4).for_each(|c| filters[c * 9 + 4] = 1.0);
    let filters = Tensor::new(&[4, 1, 3, 3], filters).unwrap();
    model.graph.set_initializer("conv.w", filters);
    let bias = Tensor::vector(vec![0.0f32, 0.5, 1.0, 0.0]);
    model.graph.set_initializer("conv.b", bias);
    let samples = small_samples(250, 3); // two whole batches and a half
    let count = samples.images.len() as f64;
    let mean = samples.images.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let squares = samples
        .images
        .iter()
        .map(|&v| (f64::from(v) - mean).powi(2));
    let variance = squares.sum::<f64>() / count;
    let with = batch_norm::insert(&model, &samples).unwrap();
    let norm = Normalized::new(&with).unwrap().layers()[0]
        .clone()
        .unwrap()
        .norm;
    for (c, b) in [0.0, 0.5, 1.0, 0.0].into_iter().enumerate() {
        // The bias is in β, and no longer in the mean, for the layer has none.
        assert!((f64::from(norm.mean[c]) - mean).abs() < 1e-6);
        assert!((f64::from(norm.beta[c]) - mean - b).abs() < 1e-6);
        assert!((f64::from(norm.variance[c]) - variance).abs() < 1e-6);
    }
}

#[test]
fn a_file_with_normalizations_is_read_apart() {
    let model = small_model(true);
    let normalized = Normalized::new(&model).unwrap();
    assert_eq!(normalized.folded(), &Network::new(&model).unwrap());
    let own = normalized.layers()[0].as_ref().unwrap();
    assert_eq!(own.norm.gamma, [1.5, 0.5, -1.0, 2.0]);
    let plain = Network::new(&small_model(false)).unwrap();
    assert_eq!(own.weight, plain.layers[0].weight);
    let means = [0.2, -0.1, 0.0, 0.4].iter().zip(&plain.layers[0].bias);
    assert_eq!(own.norm.mean, means.map(|(m, b)| m - b).collect::<Vec<_>>());
    assert!(normalized.layers()[1..].iter().all(Option::is_none));
    // Two in a row: the first is folded, the function is the same.
    let mut twice = model.clone();
    let end = twice.graph.nodes.iter().position(|n| n.name == "norm");
    let end = end.unwrap();
    twice.graph.nodes[end].outputs = vec!["c1".into()];
    let inputs = ["c1", "gamma", "beta", "mean", "variance"];
    let second = Node::new("again", "BatchNormalization", inputs, ["c"]);
    twice.graph.nodes.insert(end + 1, second);
    let twice = Normalized::new(&twice).unwrap();
    let again = twice.layers()[0].as_ref().unwrap();
    assert_ne!(again.weight, own.weight);
    let (w, _) = again.norm.fold(&again.weight, &[4, 1, 3, 3], None).unwrap();
    assert_eq!(w, twice.folded().layers[0].weight);
}

/// [`small_model`] with a second convolution behind the first, of this name.
fn two_convolutions(second: &str) -> Model {
    let mut model = small_model(false);
    let graph = &mut model.graph;
    let filters: Vec<f32> = drawn(4 * 4 * 9, 11).iter().map(|v| v * 0.3).collect();
    graph.set_initializer("conv2.w", Tensor::new(&[4, 4, 3, 3], filters).unwrap());
    graph.set_initializer("conv2.b", Tensor::vector(vec![0.1f32, 0.0, -0.1, 0.2]));
    let conv = Node::new(second, "Conv", ["r", "conv2.w", "conv2.b"], ["c2"]);
    let pads = Attribute::Ints(vec![1; 4]);
    let pool = graph.nodes.iter().position(|n| n.name == "pool").unwrap();
    graph.nodes[pool].inputs = vec!["r3".into()];
    graph.nodes.insert(pool, conv.with_attribute("pads", pads));
    let relu = Node::new("r3", "Relu", ["c2"], ["r3"]);
    graph.nodes.insert(pool + 1, relu);
    graph.validate().unwrap();
    model
}

#[test]
fn layers_of_equal_names_are_told_apart() {
    let samples = small_samples(30, 1);
    let read = |second| {
        let model = two_convolutions(second);
        let with = batch_norm::insert(&model, &samples).unwrap();
        assert_eq!(norms_in(&with), 2);
        let network = Network::new(&model).unwrap();
        let after = export::run(&network, &with, &samples).unwrap();
        assert!(apart(&after, &float(&network, &samples)) < 1e-5);
        (network, Normalized::new(&with).unwrap())
    };
    let (_, unique) = read("other");
    let (network, equal) = read("conv");
    let names: Vec<&str> = network.layers.iter().map(|l| l.node.as_str()).collect();
    assert_eq!(names, ["conv", "conv", "a", "b"]);
    // Both normalizations are found, each with its own convolution's weights.
    assert_eq!(equal.layers(), unique.layers());
    for (layer, own) in network.layers.iter().zip(equal.layers()).take(2) {
        assert_eq!(own.as_ref().unwrap().weight, layer.weight);
    }
    // What is written has each layer's own weights, too.
    let network = equal.folded();
    let (width, weights) = (Width::W4A4, Granularity::PerTensor);
    let q = calibrate::quantize(network, &samples, Method::MinMax, width, weights).unwrap();
    let graph = Graph::new(network).unwrap();
    let ours = logits(&graph, &samples, &mut Fixed(&q)).unwrap();
    let written = export::model(network, &q).unwrap();
    let theirs = export::run(network, &written, &samples).unwrap();
    let near = ours.iter().zip(&theirs);
    let near = near.filter(|(a, b)| (*a - *b).abs() < 1e-4);
    assert!(near.count() * 100 >= ours.len() * 97);
}

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

fn start() -> Normalized {
    Normalized::new(&small_model(true)).unwrap()
}

/// The running statistics of the file are not those of the samples.
fn run(options: &TrainOptions) -> (Trained, Vec<Event>) {
    run_from(&start(), options)
}

fn run_from(start: &Normalized, options: &TrainOptions) -> (Trained, Vec<Event>) {
    let (training, held_out) = (small_samples(90, 1), small_samples(30, 2));
    let mut events = Vec::new();
    let trained = train_normalized(start, &training, &training, &held_out, options, &mut |e| {
        events.push(e);
    });
    (trained.unwrap(), events)
}

fn first(trained: &Trained) -> &BatchNorm {
    trained.norms[0].as_ref().unwrap()
}

#[test]
fn the_loss_falls_and_the_written_model_is_what_was_trained() {
    let inserted = batch_norm::insert(&small_model(false), &small_samples(90, 1)).unwrap();
    let inserted = Normalized::new(&inserted).unwrap();
    for ranges in [Ranges::Learned, Ranges::Observed] {
        let options = TrainOptions {
            ranges,
            epochs: 24,
            ..options()
        };
        let (trained, events) = run_from(&inserted, &options);
        let (begin, end) = (trained.losses[0], trained.losses[23]);
        assert!(end < 0.5 * begin, "{ranges:?}: {begin} to {end}");
        let Some(Event::Epoch { held_out, .. }) = events.last() else {
            panic!("{events:?}");
        };
        // Untrained, a third is right by chance.
        assert!(held_out.accuracy > 0.8, "{ranges:?}: {held_out:?}");

        let samples = small_samples(40, 5);
        let graph = Graph::new(&trained.network).unwrap();
        let ours = logits(&graph, &samples, &mut Fixed(&trained.quantizers)).unwrap();
        let written = export::model(&trained.network, &trained.quantizers).unwrap();
        assert_eq!(norms_in(&written), 0);
        let theirs = export::run(&trained.network, &written, &samples).unwrap();
        assert_eq!(export::compare(&ours, &theirs, 3, 0).unwrap(), 0);
        let near = ours
            .iter()
            .zip(&theirs)
            .filter(|(a, b)| (*a - *b).abs() < 1e-4);
        assert!(near.count() * 100 >= ours.len() * 97);
    }
}

#[test]
fn statistics_move_until_ranges_freeze_and_not_after() {
    let given = start().layers()[0].clone().unwrap().norm;
    let bits = |n: &BatchNorm| {
        let values = n.mean.iter().chain(&n.variance);
        values.map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    // One step an epoch, the first of which is the same in all runs.
    let steps = |epochs, freeze_after| {
        let (trained, events) = run(&TrainOptions {
            epochs,
            freeze_after,
            batch: 90,
            ..options()
        });
        assert!(first(&trained).frozen);
        let adapting = events.iter().filter(|e| {
            matches!(
                e,
                Event::Step {
                    phase: Phase::Adapt,
                    ..
                }
            )
        });
        (bits(first(&trained)), adapting.count(), trained)
    };
    let (never, none, frozen) = steps(2, 0.0);
    assert_eq!((never, none), (bits(&given), 0));
    // γ and β are trained on.
    assert_ne!(first(&frozen).gamma, given.gamma);
    assert_ne!(first(&frozen).beta, given.beta);
    let (once, one, _) = steps(1, 1.0);
    assert_ne!((&once, one), (&bits(&given), 0));
    let (then_frozen, one, _) = steps(2, 0.5);
    assert_eq!((&then_frozen, one), (&once, 1));
    let (twice, two, _) = steps(2, 1.0);
    assert_eq!(two, 2);
    assert_ne!(twice, once);
    let (still, _) = run(&TrainOptions {
        momentum: 0.0,
        epochs: 1,
        ..options()
    });
    assert_eq!(bits(first(&still)), bits(&given));
}

#[test]
fn a_momentum_outside_its_domain_is_an_error() {
    let samples = small_samples(9, 1);
    for momentum in [-0.1, 1.5, f32::NAN] {
        let o = TrainOptions {
            momentum,
            ..options()
        };
        let outcome = train_normalized(&start(), &samples, &samples, &samples, &o, &mut |_| ());
        assert!(matches!(
            outcome,
            Err(TrainError::Setting {
                argument: "momentum",
                ..
            })
        ));
    }
}

/// The real network: 60 steps with statistics of batches, then frozen ones, on 300 digits. Measured
/// on digits that it was not shown.
#[test]
fn training_with_statistics_of_batches_beats_calibration_on_digits_at_four_bits() {
    let model = data::model().unwrap();
    let rows = |count| (0..count).collect::<Vec<_>>();
    let calibration = data::calibration().unwrap().select(&rows(50));
    let training = data::training().unwrap().select(&rows(300));
    let test = data::test().unwrap().select(&rows(200));
    let network = Network::new(&model).unwrap();
    let reference = float(&network, &test);
    let options = TrainOptions {
        epochs: 2,
        batch: 10,
        ..TrainOptions::default()
    };
    let rate = |network: &Network, quantizers: &[_]| {
        let graph = Graph::new(network).unwrap();
        let outputs = logits(&graph, &test, &mut Fixed(quantizers)).unwrap();
        let score = score(&outputs, &reference, &test.labels).unwrap();
        (outputs, score)
    };
    let (width, weights) = (options.width, options.granularity);
    let q = calibrate::quantize(&network, &calibration, options.method, width, weights).unwrap();
    let (_, before) = rate(&network, &q);
    let inserted = batch_norm::insert(&model, &training).unwrap();
    let normalized = Normalized::new(&inserted).unwrap();
    let held_out = test.select(&rows(50));
    let trained = train_normalized(
        &normalized,
        &training,
        &calibration,
        &held_out,
        &options,
        &mut |_| (),
    );
    let trained = trained.unwrap();
    let (outputs, after) = rate(&trained.network, &trained.quantizers);
    println!("{before:?} {after:?}");
    let (lost, won) = (before.sqnr_db.unwrap(), after.sqnr_db.unwrap());
    assert!(
        won > lost + 0.5,
        "{lost} dB without training, {won} dB with"
    );
    assert_eq!(trained.norms.iter().flatten().count(), 4);
    assert!(trained.norms.iter().flatten().all(|n| n.frozen));
    let written = export::model(&trained.network, &trained.quantizers).unwrap();
    let executed = export::run(&trained.network, &written, &test).unwrap();
    assert_eq!(export::compare(&outputs, &executed, 10, 0).unwrap(), 0);
}
