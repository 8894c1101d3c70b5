//! Networks as they are read, against the executor.

mod common;

use common::{drawn, small_model, small_samples};
use qmodel::{Attribute, Model, Node, Tensor};
use qtrain::data::{self, Samples};
use qtrain::evaluate::logits;
use qtrain::graph::{Float, Graph};
use qtrain::{Network, Passing, Product, TrainError, export};

/// The largest difference between the training graph and the executor, relative to the largest
/// output.
fn apart(model: &Model, samples: &Samples) -> f32 {
    let network = Network::new(model).unwrap();
    let ours = logits(&Graph::new(&network).unwrap(), samples, &mut Float).unwrap();
    let theirs = export::run(&network, model, samples).unwrap();
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
    let pairs = ours.iter().zip(&theirs);
    pairs.fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn the_graph_computes_what_the_executor_does() {
    let test = data::test().unwrap();
    let few = test.select(&(0..20).collect::<Vec<_>>());
    assert!(apart(&data::model().unwrap(), &few) < 1e-5);
    assert!(apart(&small_model(false), &small_samples(7, 1)) < 1e-5);
}

#[test]
fn batch_normalizations_are_folded() {
    let model = small_model(true);
    assert!(apart(&model, &small_samples(7, 1)) < 1e-5);
    let (plain, folded) = (small_model(false), Network::new(&model).unwrap());
    assert_ne!(
        folded.layers[0].weight,
        Network::new(&plain).unwrap().layers[0].weight
    );
    assert_eq!(folded.layers.len(), 3);
}

#[test]
fn layers_are_those_of_the_file() {
    let network = Network::new(&data::model().unwrap()).unwrap();
    assert_eq!(network.sample, [1, 28, 28]);
    assert_eq!(network.classes(), 10);
    let fc1 = &network.layers[4];
    assert_eq!(fc1.before, [Passing::MaxPool { size: 2 }, Passing::Flatten]);
    assert_eq!((fc1.product, fc1.extents()), (Product::Dense, [64, 576, 1]));
    assert_eq!(network.layers[0].product, Product::Conv { size: 3, pad: 1 });
    assert_eq!(network.layers[1].extents(), [32, 16, 9]);
    assert!(network.layers[..5].iter().all(|l| l.relu) && !network.layers[5].relu);
}

#[test]
fn what_is_not_trained_here_is_an_error_that_names_the_node() {
    let node = |m: &mut Model, name: &str| -> usize {
        m.graph.nodes.iter().position(|n| n.name == name).unwrap()
    };
    type Change = fn(&mut Model, &dyn Fn(&mut Model, &str) -> usize);
    let changes: [(&str, Change); 9] = [
        ("conv", |m, at| {
            let i = at(m, "conv");
            m.graph.nodes[i].set_attribute("strides", Attribute::Ints(vec![2, 2]));
        }),
        ("conv", |m, at| {
            let i = at(m, "conv");
            m.graph.nodes[i].set_attribute("auto_pad", Attribute::String("SAME_UPPER".into()));
        }),
        ("conv", |m, at| {
            let i = at(m, "conv");
            m.graph.nodes[i].set_attribute("pads", Attribute::Ints(vec![i64::MAX; 4]));
        }),
        ("conv", |m, at| {
            let i = at(m, "conv");
            m.graph.nodes[i].set_attribute("pads", Attribute::Ints(vec![]));
        }),
        ("pool", |m, at| {
            let i = at(m, "pool");
            m.graph.nodes[i].set_attribute("strides", Attribute::Ints(vec![1, 1]));
        }),
        ("a", |m, at| {
            let i = at(m, "a");
            m.graph.nodes[i].set_attribute("alpha", Attribute::Float(0.5));
        }),
        ("r", |m, at| {
            let i = at(m, "r");
            m.graph.nodes[i] = Node::new("r", "Sigmoid", ["c"], ["r"]);
        }),
        // Its output is quantized without a sign.
        ("a", |m, at| {
            let i = at(m, "r2");
            m.graph.nodes[i] = Node::new("r2", "Flatten", ["h"], ["h2"]);
        }),
        ("graph", |m, _| {
            m.graph.nodes.push(Node::new("more", "Relu", ["p"], ["q"]));
        }),
    ];
    for (place, change) in changes {
        let mut model = small_model(false);
        change(&mut model, &node);
        match Network::new(&model) {
            Err(TrainError::Unsupported { place: named, .. }) => {
                assert!(named.contains(place), "{named}");
            }
            other => panic!("{place}: {other:?}"),
        }
    }
    let mut norm = small_model(true);
    norm.graph
        .set_initializer("variance", Tensor::vector(vec![-1f32; 4]));
    assert!(matches!(Network::new(&norm), Err(TrainError::Calib(_))));
    assert!(Network::new(&Model::new(qmodel::Graph::new("empty"), 17)).is_err());
}

#[test]
fn gradients_of_the_network_are_differences_of_its_loss() {
    let network = Network::new(&small_model(false)).unwrap();
    let samples = small_samples(6, 3);
    let graph = Graph::trainable(&network).unwrap();
    let weighed = |graph: &Graph<'_>| {
        let images = graph.images(samples.images.clone()).unwrap();
        let y = graph.logits(&images, &mut Float).unwrap();
        let dy = drawn(y.elem_count(), 8);
        let dy = candle_core::Tensor::from_vec(dy, y.dims(), y.device()).unwrap();
        (y * dy).unwrap().sum_all().unwrap()
    };
    let loss = weighed(&graph);
    let gradients = loss.backward().unwrap();
    for (i, layer) in network.layers.iter().enumerate() {
        let d: Vec<f32> = gradients
            .get(&graph.parameters()[i])
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        for k in (0..layer.weight.len()).step_by(7) {
            let at = |change: f32| {
                let mut moved = network.clone();
                moved.layers[i].weight[k] += change;
                let loss = weighed(&Graph::new(&moved).unwrap());
                f64::from(loss.to_scalar::<f32>().unwrap())
            };
            let h = 1e-3;
            let difference = (at(h) - at(-h)) / f64::from(2.0 * h);
            let allowed = 2e-2 * f64::from(d[k]).abs().max(0.5);
            assert!(
                (difference - f64::from(d[k])).abs() < allowed,
                "{i} {k}: {difference} {}",
                d[k]
            );
        }
    }
}

#[test]
fn no_test_digit_is_trained_on() {
    let (training, calibration) = (data::training().unwrap(), data::calibration().unwrap());
    let test = data::test().unwrap();
    assert_eq!(
        (training.len(), calibration.len(), test.len()),
        (4000, 200, 1000)
    );
    let bits = |s: &Samples, i: usize| s.image(i).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let trained: std::collections::HashMap<_, _> = (0..training.len())
        .map(|i| (bits(&training, i), training.labels[i]))
        .collect();
    assert_eq!(trained.len(), 4000);
    assert!((0..test.len()).all(|i| !trained.contains_key(&bits(&test, i))));
    let known = |i| trained.get(&bits(&calibration, i)) == Some(&calibration.labels[i]);
    assert!((0..calibration.len()).all(known));
    for s in [&training, &test] {
        let each = (0..10).map(|c| s.labels.iter().filter(|&&l| l == c).count());
        assert!(each.into_iter().all(|n| n == s.len() / 10));
    }
    let (rest, held) = training.hold_out(500, &calibration);
    assert_eq!((rest.len(), held.len()), (3500, 500));
    let calibrated: Vec<_> = (0..200).map(|i| bits(&calibration, i)).collect();
    assert!((0..500).all(|i| !calibrated.contains(&bits(&held, i))));
    let all = |s: &Samples| (0..s.len()).map(|i| bits(s, i)).collect::<Vec<_>>();
    let mut both = [all(&rest), all(&held)].concat();
    both.sort();
    both.dedup();
    assert_eq!(both.len(), 4000);
    assert_eq!(training.hold_out(9999, &calibration).0, {
        let (known, _) = training.hold_out(3800, &calibration);
        known
    });
}
