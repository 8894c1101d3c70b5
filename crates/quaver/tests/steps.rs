//! The six steps on small models: what is quantized, what is left, and what is refused.

mod common;

use common::{
    clip, convnet, count, dataset, digits_model, operators, relu, samples, shared_weight,
};
use quaver::calib::Policy;
use quaver::format::Scheme;
use quaver::model::{Attribute, Model, Node, Session, SessionOptions, Tensor};
use quaver::{
    Baseline, Calibrated, ConvertOptions, Dataset, Format, Method, Operators, QuantizeError,
    WeightGranularity,
};

fn calibrated(model: &Model, data: &Dataset) -> Calibrated {
    let chosen = Operators::new().choose(model).unwrap();
    let observing = chosen.observe(&Method::ALL, Policy::Error).unwrap();
    observing.calibrate(data.batches(4)).unwrap()
}

fn all_options() -> Vec<ConvertOptions> {
    let mut all = Vec::new();
    for method in Method::ALL {
        for weights in [WeightGranularity::PerTensor, WeightGranularity::PerChannel] {
            for activations in [Scheme::Affine, Scheme::Symmetric] {
                for format in [Format::Qdq, Format::QOperator] {
                    all.push(ConvertOptions {
                        method,
                        activations,
                        weights,
                        format,
                    });
                }
            }
        }
    }
    all
}

fn first_output(model: &Model, inputs: &[(String, Tensor)], fuse: bool) -> Vec<f32> {
    let mut s = Session::new(
        model,
        SessionOptions {
            fuse,
            ..SessionOptions::default()
        },
    )
    .unwrap();
    let inputs: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    s.run(&inputs).unwrap()[0]
        .1
        .as_slice::<f32>()
        .unwrap()
        .to_vec()
}

#[test]
fn every_combination_runs_and_stays_close_to_float() {
    for clamp in [relu(), clip("zero", "six"), clip("zero", "half")] {
        let model = convnet(clamp);
        let data = dataset(32, &[2, 6, 6], 7);
        let calibrated = calibrated(&model, &data);
        let mut baseline = Baseline::new(&model, &data, 8).unwrap();
        for options in all_options() {
            let converted = calibrated.convert(&options).unwrap();
            let evaluated = converted.evaluate(&mut baseline, None).unwrap();
            let sqnr = evaluated.evaluation().sqnr_db.unwrap_or(f64::INFINITY);
            // Uniform noise fills its range, so eight bits give about 40 dB less what three
            // quantized layers add; clipping methods may give some of it away.
            assert!(sqnr > 20.0, "{options:?}: {sqnr} dB");
        }
    }
}

#[test]
fn both_formats_compute_the_same_integers() {
    let model = convnet(relu());
    let data = dataset(16, &[2, 6, 6], 8);
    let calibrated = calibrated(&model, &data);
    for base in all_options()
        .into_iter()
        .filter(|o| o.format == Format::Qdq)
    {
        let other = ConvertOptions {
            format: Format::QOperator,
            ..base
        };
        let (a, b) = (
            calibrated.convert(&base).unwrap(),
            calibrated.convert(&other).unwrap(),
        );
        let batch = data.rows(0..16);
        assert_eq!(
            first_output(a.model(), &batch, true),
            first_output(b.model(), &batch, true),
            "{base:?}"
        );
    }
}

#[test]
fn a_shared_weight_is_quantized_once() {
    let model = shared_weight();
    let data = dataset(16, &[8], 9);
    let calibrated = calibrated(&model, &data);
    for options in all_options() {
        let q = calibrated.convert(&options).unwrap();
        let i8s = q
            .model()
            .graph
            .initializers
            .values()
            .filter(|i| i.tensor.rank() == 2 && i.tensor.as_slice::<i8>().is_some());
        assert_eq!(i8s.count(), 1, "{options:?}");
        assert!(
            q.model().graph.initializer("w").is_none(),
            "the float weight is gone"
        );
    }
    let dynamic = Operators::new().choose(&model).unwrap();
    let dynamic = dynamic.dynamic(WeightGranularity::PerTensor).unwrap();
    let quantized = |n: &&String| n.contains("w_quantized");
    assert_eq!(
        dynamic
            .model()
            .graph
            .initializers
            .keys()
            .filter(quantized)
            .count(),
        1
    );
}

#[test]
fn a_clamp_disappears_only_where_the_range_ends_at_it() {
    let data = dataset(16, &[2, 6, 6], 10);
    let convert = |clamp: Node, activations| {
        let options = ConvertOptions {
            activations,
            format: Format::QOperator,
            ..ConvertOptions::default()
        };
        let q = calibrated(&convnet(clamp), &data)
            .convert(&options)
            .unwrap();
        (count(q.model(), "Relu"), count(q.model(), "Clip"))
    };
    // The calibrated minimum after a rectifier is 0, so u8 saturates exactly there; i8 with
    // zero point 0 does not.
    assert_eq!(convert(relu(), Scheme::Affine), (0, 0));
    assert_eq!(convert(relu(), Scheme::Symmetric), (0, 1));
    assert_eq!(convert(clip("zero", "half"), Scheme::Affine), (0, 0));
    assert_eq!(convert(clip("zero", "half"), Scheme::Symmetric), (0, 1));
    // The data never reaches 6, so the upper bound lies outside the range and may go too.
    assert_eq!(convert(clip("zero", "six"), Scheme::Affine), (0, 0));
    // QDQ keeps the float operator: what may be fused is the runtime's to decide.
    let q = calibrated(&convnet(relu()), &data)
        .convert(&ConvertOptions::default())
        .unwrap();
    assert_eq!(count(q.model(), "Relu"), 1);
}

#[test]
fn observers_are_gone_and_integers_flow_through_what_passes_them_on() {
    let model = convnet(relu());
    let data = dataset(8, &[2, 6, 6], 11);
    let q = calibrated(&model, &data)
        .convert(&ConvertOptions {
            format: Format::QOperator,
            ..ConvertOptions::default()
        })
        .unwrap();
    assert_eq!(
        operators(q.model()),
        [
            "QuantizeLinear",
            "QLinearConv",
            "MaxPool",
            "Flatten",
            "MatMulInteger",
            "Cast",
            "Mul"
        ]
    );
    // Pooling takes the parameters of what it pools.
    let report = q.report();
    assert!(
        report
            .tensors
            .iter()
            .all(|t| t.name != "p" && t.name != "f")
    );
    assert!(report.nodes.iter().all(|n| n.quantized));
}

#[test]
fn patterns_choose_and_those_that_do_nothing_are_errors() {
    let model = digits_model();
    let names = |o: Operators| {
        o.choose(&model)
            .unwrap()
            .nodes()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let o = Operators::new;
    assert_eq!(
        names(o()),
        ["conv1", "conv2", "conv3", "conv4", "fc1", "fc2"]
    );
    assert_eq!(names(o().include(["Gemm"])), ["fc1", "fc2"]);
    assert_eq!(names(o().include(["conv[12]"])), ["conv1", "conv2"]);
    assert_eq!(names(o().exclude(["conv*", "fc2"])), ["fc1"]);
    assert_eq!(
        names(o().include(["Conv"]).exclude(["conv1"])),
        ["conv2", "conv3", "conv4"]
    );
    let refused = |o: Operators| o.choose(&model).unwrap_err();
    assert!(matches!(
        refused(o().exclude(["conv9"])),
        QuantizeError::NoMatch {
            list: "exclude",
            ..
        }
    ));
    assert!(matches!(
        refused(o().include(["MatMul"])),
        QuantizeError::NoMatch {
            list: "include",
            ..
        }
    ));
    assert!(matches!(
        refused(o().include(["Relu"])),
        QuantizeError::NotQuantizable { .. }
    ));
    assert!(matches!(
        refused(o().include(["a{b"])),
        QuantizeError::Pattern { .. }
    ));
    assert!(matches!(
        refused(o().exclude(["Conv", "Gemm"])),
        QuantizeError::NothingChosen { .. }
    ));
}

#[test]
fn excluded_nodes_stay_float_and_the_model_still_runs() {
    let model = digits_model();
    let chosen = Operators::new()
        .exclude(["conv1", "fc*"])
        .choose(&model)
        .unwrap();
    let mut observing = chosen.observe(&[Method::MinMax], Policy::Error).unwrap();
    observing
        .observe(&samples("image", 4, &[1, 28, 28], 12))
        .unwrap();
    let q = observing
        .finish()
        .unwrap()
        .convert(&ConvertOptions::default())
        .unwrap();
    assert!(q.model().graph.initializer("conv1.weight").is_some());
    assert!(q.model().graph.initializer("conv2.weight").is_none());
    assert_eq!(
        first_output(q.model(), &samples("image", 3, &[1, 28, 28], 13), true).len(),
        30
    );
}

#[test]
fn calibration_takes_batches_of_any_shape_and_says_what_is_wrong_with_data() {
    let model = digits_model();
    let observing = || {
        let chosen = Operators::new().choose(&model).unwrap();
        chosen
            .observe(&[Method::MinMax, Method::Entropy], Policy::Error)
            .unwrap()
    };
    let mut o = observing();
    for rows in [1, 7, 3] {
        o.observe(&samples("image", rows, &[1, 28, 28], rows as u64))
            .unwrap();
    }
    assert_eq!(o.finish().unwrap().batches(), 3);

    assert!(matches!(
        observing().finish(),
        Err(QuantizeError::NoBatches)
    ));
    let wrong_name = samples("picture", 1, &[1, 28, 28], 1);
    let e = observing().observe(&wrong_name).unwrap_err().to_string();
    assert!(e.contains("picture") && e.contains("image"), "{e}");
    let e = observing()
        .observe(&samples("image", 1, &[1, 27, 28], 1))
        .unwrap_err()
        .to_string();
    assert!(e.contains("image") && e.contains("27"), "{e}");
    let ints = vec![(
        "image".to_owned(),
        Tensor::new(&[1, 1, 28, 28], vec![0u8; 784]).unwrap(),
    )];
    let e = observing().observe(&ints).unwrap_err().to_string();
    assert!(e.contains("image") && e.contains("u8"), "{e}");
    let mut pixels = vec![0.5f32; 784];
    pixels[100] = f32::NAN;
    let nan = vec![(
        "image".to_owned(),
        Tensor::new(&[1, 1, 28, 28], pixels).unwrap(),
    )];
    let e = observing().observe(&nan).unwrap_err();
    assert!(
        matches!(&e, QuantizeError::Calibration { value, .. } if value == "image"),
        "{e}"
    );
    assert!(e.to_string().contains("NaN"), "{e}");
}

#[test]
fn a_method_must_have_been_observed() {
    let model = shared_weight();
    let chosen = Operators::new().choose(&model).unwrap();
    let data = dataset(4, &[8], 1);
    let c = chosen.observe(&[Method::MinMax], Policy::Error).unwrap();
    let c = c.calibrate(data.batches(2)).unwrap();
    let options = ConvertOptions {
        method: Method::Entropy,
        ..ConvertOptions::default()
    };
    assert!(matches!(
        c.convert(&options),
        Err(QuantizeError::NotObserved { .. })
    ));
    assert!(c.convert(&ConvertOptions::default()).is_ok());
}

#[test]
fn weights_that_are_not_numbers_and_impossible_nodes_are_named() {
    let mut model = shared_weight();
    model
        .graph
        .set_initializer("w", Tensor::new(&[8, 8], vec![f32::NAN; 64]).unwrap());
    let e = Operators::new().choose(&model).unwrap_err().to_string();
    assert!(e.contains("\"w\"") && e.contains("NaN"), "{e}");

    // A convolution whose weight is computed has no int8 form: alone it is refused by name.
    let mut model = convnet(relu());
    model
        .graph
        .nodes
        .insert(0, Node::new("grow", "Mul", ["w", "x_scale"], ["w2"]));
    model.graph.inputs.push(quaver::model::ValueInfo::tensor(
        "x_scale",
        quaver::model::ElementType::F32,
        vec![],
    ));
    model.graph.nodes[1].inputs[1] = "w2".to_owned();
    let o = Operators::new().include(["conv"]);
    let e = o.choose(&model).unwrap_err().to_string();
    assert!(e.contains("conv") && e.contains("w2"), "{e}");
    // Beside others it stays in float, and the report says why.
    let chosen = Operators::new().choose(&model).unwrap();
    let q = chosen.dynamic(WeightGranularity::PerTensor).unwrap();
    let skipped: Vec<_> = q.report().nodes.iter().filter(|n| !n.quantized).collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0].name, "conv");
}

#[test]
fn old_opsets_are_raised_where_meanings_stay_and_refused_where_not() {
    let mut model = convnet(relu());
    model.set_opset("", 11);
    let data = dataset(4, &[2, 6, 6], 1);
    let q = calibrated(&model, &data)
        .convert(&ConvertOptions::default())
        .unwrap();
    assert_eq!(q.model().opset(""), Some(13));
    model
        .graph
        .nodes
        .push(Node::new("softmax", "Softmax", ["y"], ["s"]));
    let e = Operators::new().choose(&model).unwrap_err();
    assert!(
        matches!(&e, QuantizeError::Opset { blocker, .. } if blocker.contains("softmax")),
        "{e}"
    );
}

#[test]
fn tiny_weights_and_large_biases_keep_their_meaning() {
    // With the scale of the weights alone, the bias would not fit into int32.
    let mut model = shared_weight();
    model
        .graph
        .set_initializer("w", Tensor::new(&[8, 8], vec![1e-12f32; 64]).unwrap());
    model
        .graph
        .set_initializer("b", Tensor::vector(vec![1000f32; 8]));
    let data = dataset(8, &[8], 3);
    for options in all_options()
        .into_iter()
        .filter(|o| o.method == Method::MinMax)
    {
        let q = calibrated(&model, &data).convert(&options).unwrap();
        let y = first_output(q.model(), &data.rows(0..8), true);
        assert!(
            y.iter().all(|v| (v - 1000.0).abs() < 5.0),
            "{options:?} {y:?}"
        );
    }
}

#[test]
fn saving_tries_the_model_and_leaves_the_old_file_when_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let data = dataset(4, &[2, 6, 6], 1);
    let q = calibrated(&convnet(relu()), &data)
        .convert(&ConvertOptions::default())
        .unwrap();
    q.save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(Model::from_bytes(&before).unwrap(), *q.model());

    // A model that cannot run: dynamic mode does not need to run it, saving does.
    let mut broken = convnet(relu());
    broken.graph.nodes[2].set_attribute("kernel_shape", Attribute::Ints(vec![2, 2, 2]));
    let chosen = Operators::new().choose(&broken).unwrap();
    let q = chosen.dynamic(WeightGranularity::PerChannel).unwrap();
    assert!(q.save(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// x [N, 4] → Gemm(w, transB) → MatMul(w) → y, with a symmetric w.
fn one_weight_read_both_ways() -> Model {
    let mut g = common::graph(4, 4);
    let n = common::noise(20, 16);
    let w: Vec<f32> = (0..16).map(|i| n[i] + n[i % 4 * 4 + i / 4]).collect();
    g.set_initializer("w", Tensor::new(&[4, 4], w).unwrap());
    g.nodes.push(
        Node::new("rows", "Gemm", ["x", "w"], ["h"]).with_attribute("transB", Attribute::Int(1)),
    );
    g.nodes
        .push(Node::new("columns", "MatMul", ["h", "w"], ["y"]));
    Model::new(g, 17)
}

#[test]
fn a_weight_read_by_rows_and_by_columns_has_its_axis_right() {
    let model = one_weight_read_both_ways();
    let data = dataset(8, &[4], 21);
    let q = calibrated(&model, &data)
        .convert(&ConvertOptions::default())
        .unwrap();
    let axes: Vec<i64> = q
        .model()
        .graph
        .nodes
        .iter()
        .filter(|n| n.name.starts_with("w_dequantize"))
        .filter_map(|n| n.int_attribute("axis"))
        .collect();
    assert_eq!(axes.len(), 2);
    assert!(axes.contains(&0) && axes.contains(&1), "{axes:?}");
}

#[test]
fn a_bias_shared_by_convolutions_of_two_ranks_keeps_its_channels() {
    use quaver::model::{ElementType, Graph, ValueInfo};
    let mut g = Graph::new("two ranks");
    for (name, rest) in [("x", &[2usize, 3][..]), ("z", &[2, 3, 3])] {
        let dims = std::iter::once(1)
            .chain(rest.iter().copied())
            .map(Into::into)
            .collect();
        g.inputs
            .push(ValueInfo::tensor(name, ElementType::F32, dims));
    }
    g.set_initializer("w1", Tensor::new(&[3, 2, 1], common::noise(1, 6)).unwrap());
    g.set_initializer(
        "w2",
        Tensor::new(&[3, 2, 1, 1], common::noise(2, 6)).unwrap(),
    );
    g.set_initializer("b", Tensor::vector(vec![1f32, 20.0, 300.0]));
    g.nodes
        .push(Node::new("line", "Conv", ["x", "w1", "b"], ["p"]));
    g.nodes
        .push(Node::new("plane", "Conv", ["z", "w2", "b"], ["q"]));
    g.outputs.push(ValueInfo::tensor(
        "q",
        ElementType::F32,
        [1, 3, 3, 3].map(Into::into).to_vec(),
    ));
    g.outputs.push(ValueInfo::tensor(
        "p",
        ElementType::F32,
        [1, 3, 3].map(Into::into).to_vec(),
    ));
    let model = Model::new(g, 17);
    let chosen = Operators::new().choose(&model).unwrap();
    let dynamic = chosen.dynamic(WeightGranularity::PerChannel).unwrap();
    let mut inputs = samples("x", 1, &[2, 3], 3);
    inputs.extend(samples("z", 1, &[2, 3, 3], 4));
    let (float, int8) = (
        first_output(&model, &inputs, true),
        first_output(dynamic.model(), &inputs, true),
    );
    for (f, q) in float.iter().zip(&int8) {
        assert!((f - q).abs() < 0.1, "{float:?}\n{int8:?}");
    }
}

#[test]
fn readers_in_float_of_what_no_site_computes_keep_it_exact() {
    let mut model = shared_weight();
    model
        .graph
        .nodes
        .push(Node::new("copy", "Identity", ["x"], ["kept"]));
    let kept = quaver::model::ValueInfo::tensor(
        "kept",
        quaver::model::ElementType::F32,
        vec![quaver::model::Dim::Symbol("N".to_owned()), 8.into()],
    );
    model.graph.outputs.insert(0, kept);
    let data = dataset(8, &[8], 22);
    let calibrated = calibrated(&model, &data);
    for options in all_options()
        .into_iter()
        .filter(|o| o.method == Method::MinMax)
    {
        let q = calibrated.convert(&options).unwrap();
        let batch = data.rows(0..8);
        assert_eq!(
            first_output(q.model(), &batch, true),
            batch[0].1.as_slice::<f32>().unwrap(),
            "{options:?}"
        );
    }
}

#[test]
fn the_other_spelling_of_the_standard_domain_is_understood() {
    let mut model = shared_weight();
    for n in &mut model.graph.nodes {
        n.domain = "ai.onnx".to_owned();
    }
    assert_eq!(Operators::new().choose(&model).unwrap().nodes().count(), 2);
}

#[test]
fn outputs_that_are_no_numbers_cannot_be_scored() {
    let model = shared_weight();
    let data = dataset(4, &[8], 23);
    let mut baseline = Baseline::new(&model, &data, 4).unwrap();
    let mut broken = model.clone();
    broken
        .graph
        .set_initializer("b", Tensor::vector(vec![f32::NAN; 8]));
    let e = baseline.evaluate(&broken, None).unwrap_err();
    assert!(
        matches!(&e, QuantizeError::Output { .. }) && e.to_string().contains("NaN"),
        "{e}"
    );
}

#[test]
fn weights_behind_constant_operators_are_weights() {
    let data = dataset(8, &[8], 24);
    for op in ["Identity", "Transpose"] {
        let mut model = shared_weight();
        model
            .graph
            .nodes
            .insert(0, Node::new("made", op, ["w"], ["v"]));
        model.graph.nodes[1].inputs[1] = "v".to_owned();
        let q = calibrated(&model, &data)
            .convert(&ConvertOptions::default())
            .unwrap();
        assert!(q.report().nodes.iter().all(|n| n.quantized), "{op}");
        let floats = q
            .model()
            .graph
            .initializers
            .values()
            .filter(|i| i.tensor.rank() == 2 && i.tensor.as_slice::<f32>().is_some());
        assert_eq!(floats.count(), 0, "{op}");
    }
}

#[test]
fn weights_that_are_also_inputs_are_quantized_and_no_longer_asked_for() {
    let mut model = shared_weight();
    model.graph.inputs.push(quaver::model::ValueInfo::tensor(
        "w",
        quaver::model::ElementType::F32,
        vec![8.into(), 8.into()],
    ));
    let data = dataset(8, &[8], 25);
    let q = calibrated(&model, &data)
        .convert(&ConvertOptions::default())
        .unwrap();
    assert_eq!(q.model().graph.inputs.len(), 1);
    assert!(q.model().graph.initializer("w").is_none());
}
