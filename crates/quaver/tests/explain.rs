//! What explanations say of models whose weak spot is known.

mod common;

use common::{convnet, dataset, digits_model, noise, relu};
use quaver::calib::Policy;
use quaver::explain::{Action, Role, Sqnr, Stage};
use quaver::model::{Attribute, Dim, ElementType, Graph, Model, Node, Tensor, ValueInfo};
use quaver::{
    Baseline, Calibrated, ConvertOptions, Dataset, ExplainOptions, Explanation, Format, Method,
    Operators, QuantizeError, WeightGranularity,
};

fn calibrated(model: &Model, data: &Dataset, methods: &[Method]) -> Calibrated {
    Operators::new()
        .choose(model)
        .unwrap()
        .observe(methods, Policy::Error)
        .unwrap()
        .calibrate(data.batches(2000))
        .unwrap()
}

fn explained(model: &Model, data: &Dataset, options: &ExplainOptions) -> Explanation {
    calibrated(model, data, &Method::ALL)
        .explain(data, options, &mut |_| ())
        .unwrap()
}

/// x [N, 16] → first → Relu → second → Relu → third → y [N, 8], where `second` has one weight that
/// outgrows the others so far that a scale for all of them rounds them away.
fn one_bad_layer() -> Model {
    let mut g = Graph::new("one bad layer");
    let dims = |n: usize| vec![Dim::Symbol("N".to_owned()), Dim::Known(n)];
    g.inputs
        .push(ValueInfo::tensor("x", ElementType::F32, dims(16)));
    g.outputs
        .push(ValueInfo::tensor("y", ElementType::F32, dims(8)));
    let mut second = noise(2, 256);
    second[0] = 40.0;
    g.set_initializer("w1", Tensor::new(&[16, 16], noise(1, 256)).unwrap());
    g.set_initializer("w2", Tensor::new(&[16, 16], second).unwrap());
    g.set_initializer("w3", Tensor::new(&[16, 8], noise(3, 128)).unwrap());
    g.nodes = vec![
        Node::new("first", "MatMul", ["x", "w1"], ["a"]),
        Node::new("relu1", "Relu", ["a"], ["b"]),
        Node::new("second", "MatMul", ["b", "w2"], ["c"]),
        Node::new("relu2", "Relu", ["c"], ["d"]),
        Node::new("third", "MatMul", ["d", "w3"], ["y"]),
    ];
    Model::new(g, 17)
}

/// Samples of 16 numbers in [-1, 1) but for one of `outlier`.
fn with_outlier(rows: usize, outlier: f32) -> Dataset {
    let mut x = noise(7, rows * 16);
    x[5] = outlier;
    let x = Tensor::new(&[rows, 16], x).unwrap();
    Dataset::new(vec![("x".to_owned(), x)], None).unwrap()
}

/// The suggestion for `x` of a model that was calibrated with an outlier and is run without it, with
/// its method.
fn suggested_for_x(
    rows: usize,
    outlier: f32,
    methods: &[Method],
) -> (Explanation, Calibrated, Dataset, String) {
    let (model, data) = (one_bad_layer(), with_outlier(rows, outlier));
    let calibrated = calibrated(&model, &data, methods);
    let rest = Dataset::new(data.rows(1..201), None).unwrap();
    let options = ExplainOptions {
        methods: methods.to_vec(),
        ..ExplainOptions::default()
    };
    let e = calibrated.explain(&rest, &options, &mut |_| ()).unwrap();
    let x = e.tensors.iter().find(|t| t.name == "x").unwrap();
    assert_eq!((x.role, x.max), (Role::Activation, outlier));
    assert_eq!(x.count, 16 * rows as u64);
    let minmax = x.chosen().unwrap();
    assert_eq!((minmax.method.as_str(), minmax.clipped()), ("minmax", 0.0));
    // One value far out leaves all integers above those of 1 unused.
    assert!(minmax.dead_codes > 0.9, "{minmax:?}");
    let method = e.suggestions.iter().find_map(|s| match &s.action {
        Action::SwitchTensor { tensor, method, .. } if tensor == "x" => {
            assert!(s.gain_db.unwrap() > 1.0, "{s:?}");
            Some(method.clone())
        }
        _ => None,
    });
    let method = method.expect("nothing is suggested for x");
    (e, calibrated, rest, method)
}

#[test]
fn an_outlier_among_many_values_is_best_cut_off() {
    // Of a million values the steps that one outlier takes away cost more than it is worth.
    let methods = [Method::MinMax, Method::Mse, Method::Percentile(99.999)];
    let (e, _, _, method) = suggested_for_x(60_000, 60.0, &methods);
    assert!(
        method == "mse" || method.starts_with("percentile"),
        "{method}"
    );
    let x = e.tensors.iter().find(|t| t.name == "x").unwrap();
    let best = x.methods.iter().find(|m| m.method == method).unwrap();
    assert!(best.clipped() > 0.0 && best.max < 2.0, "{best:?}");
    assert!(best.switch_db.unwrap() > 0.0, "{best:?}");
}

#[test]
fn an_outlier_among_few_values_is_cut_off_on_trial_and_the_gain_is_that_of_a_conversion() {
    // Here the outlier is most of the signal of x, so that no estimate would cut it off.
    let (e, calibrated, rest, method) = suggested_for_x(300, 60.0, &Method::ALL);
    let found = e
        .suggestions
        .iter()
        .find(|s| matches!(&s.action, Action::SwitchTensor { tensor, .. } if tensor == "x"));
    let s = found.unwrap();
    assert_eq!(s.before, e.quality);
    // The same change by hand.
    let options = ConvertOptions::default();
    let methods = [("x".to_owned(), method.parse().unwrap())].into();
    let converted = calibrated.convert_mixed(&options, &methods).unwrap();
    assert_eq!(converted.report().tensor_methods["x"], method);
    let mut baseline = Baseline::new(&one_bad_layer(), &rest, 50).unwrap();
    let by_hand = baseline.evaluate(converted.model(), None).unwrap();
    assert_eq!(s.after.sqnr, Sqnr::Db(by_hand.sqnr_db.unwrap()));
    let before = calibrated.convert(&options).unwrap();
    let before = baseline.evaluate(before.model(), None).unwrap();
    assert_eq!(s.before.sqnr, Sqnr::Db(before.sqnr_db.unwrap()));
}

#[test]
fn the_layer_that_hurts_comes_first_and_leaving_it_in_float_helps_most() {
    let options = ExplainOptions {
        convert: ConvertOptions {
            weights: WeightGranularity::PerTensor,
            ..ConvertOptions::default()
        },
        ..ExplainOptions::default()
    };
    let data = with_outlier(100, 1.0);
    let e = explained(&one_bad_layer(), &data, &options);
    let names: Vec<&str> = e.layers.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names[0], "second", "{names:?}");
    let db = |s: Sqnr| s.db().unwrap();
    assert!(db(e.layers[0].alone.sqnr) < db(e.layers[1].alone.sqnr) - 3.0);
    let float: Vec<_> = e
        .suggestions
        .iter()
        .filter(|s| matches!(s.action, Action::KeepFloat { .. }))
        .collect();
    assert!(
        matches!(&float[0].action, Action::KeepFloat { layer, named: true, .. } if layer == "second"),
        "{float:?}"
    );
    // Sorted, and every gain is the difference of what it stands between.
    let gains: Vec<f64> = e.suggestions.iter().map(|s| s.gain_db.unwrap()).collect();
    assert!(gains.is_sorted_by(|a, b| a >= b), "{gains:?}");
    for s in &e.suggestions {
        assert_eq!(s.gain_db, s.after.sqnr.gain_over(s.before.sqnr));
        assert!(s.gain_db.unwrap() >= options.least_gain_db);
    }
    // The weight is the noisiest tensor, and least of all its own layer's fault.
    assert_eq!(
        (e.tensors[0].name.as_str(), e.tensors[0].role),
        ("w2", Role::Weight)
    );
    assert_eq!(e.tensors[0].readers, ["second"]);
}

#[test]
fn shares_of_time_make_one() {
    let e = explained(
        &digits_model(),
        &digits_data(100),
        &ExplainOptions {
            rounds: 3,
            methods: vec![Method::MinMax, Method::Mse],
            ..ExplainOptions::default()
        },
    );
    let shares: Vec<f64> = e.layers.iter().map(|l| l.time_share.unwrap()).collect();
    let sum = shares.iter().sum::<f64>() + e.other_share.unwrap();
    assert!((sum - 1.0).abs() < 1e-9, "{shares:?}");
    assert!(shares.iter().all(|&s| s > 0.0 && s < 1.0), "{shares:?}");
}

#[test]
fn without_rounds_nothing_is_timed_and_without_trials_nothing_tried() {
    let options = ExplainOptions {
        rounds: 0,
        trials: 0,
        ..ExplainOptions::default()
    };
    let e = explained(&convnet(relu()), &dataset(40, &[2, 6, 6], 1), &options);
    assert!(e.layers.iter().all(|l| l.time_share.is_none()));
    assert_eq!(e.other_share, None);
    // But for the best method, which was run anyway.
    assert_eq!(e.tried, 1);
}

#[test]
fn a_layer_behind_a_step_without_a_float_result_is_not_timed() {
    let mut model = one_bad_layer();
    // Integers between two layers: the time of `third` is not its own.
    let cast = Node::new("cast", "Cast", ["d"], ["s"]).with_attribute("to", Attribute::Int(7));
    model.graph.nodes.insert(4, cast);
    let dims = vec![Dim::Symbol("N".to_owned()), Dim::Known(16)];
    let ty = ValueInfo::tensor("s", ElementType::I64, dims);
    model.graph.outputs.push(ty);
    let e = explained(&model, &with_outlier(60, 1.0), &ExplainOptions::default());
    for l in &e.layers {
        assert_eq!(l.time_share.is_none(), l.name == "third", "{l:?}");
    }
    let timed: f64 = e.layers.iter().filter_map(|l| l.time_share).sum();
    assert!((timed + e.other_share.unwrap() - 1.0).abs() < 1e-9);
}

#[test]
fn numbers_of_activations_are_those_of_the_converted_model_and_the_values() {
    let (model, data) = (convnet(relu()), dataset(40, &[2, 6, 6], 1));
    for format in [Format::Qdq, Format::QOperator] {
        let convert = ConvertOptions {
            format,
            method: Method::Mse,
            ..ConvertOptions::default()
        };
        let options = ExplainOptions {
            convert,
            ..ExplainOptions::default()
        };
        let calibrated = calibrated(&model, &data, &Method::ALL);
        let e = calibrated.explain(&data, &options, &mut |_| ()).unwrap();
        let report = calibrated.convert(&convert).unwrap();
        let written = &report.report().tensors;
        let activations = || e.tensors.iter().filter(|t| t.role == Role::Activation);
        assert_eq!(activations().count(), written.len());
        for t in written {
            let chosen = activations()
                .find(|a| a.name == t.name)
                .and_then(|a| a.chosen())
                .unwrap();
            assert_eq!(
                (chosen.scale, chosen.zero_point, chosen.min, chosen.max),
                (t.scale, t.zero_point, t.min, t.max)
            );
            assert_eq!(chosen.switch_db, Some(0.0));
        }
        // Histograms hold every value, and few bins.
        for t in &e.tensors {
            let h = &t.histogram;
            assert_eq!(
                h.zeros + h.counts.iter().sum::<u64>(),
                t.count,
                "{}",
                t.name
            );
            assert_eq!(h.edges.len(), h.counts.len() + 1);
            assert!(h.counts.len() <= options.bins);
            assert!(h.edges.is_sorted_by(|a, b| a < b), "{:?}", h.edges);
            assert!(h.edges[0] <= t.min && t.max <= h.edges[h.edges.len() - 1]);
        }
        let quality = e.methods.iter().find(|m| m.chosen).unwrap();
        assert_eq!(
            (quality.method.as_str(), quality.quality),
            ("mse", e.quality)
        );
        assert!(e.quality.agreement.is_some() && e.quality.accuracy.is_none());
    }
}

#[test]
fn weights_are_clipped_by_channel_and_counted_one_by_one() {
    let data = with_outlier(60, 1.0);
    let e = explained(&one_bad_layer(), &data, &ExplainOptions::default());
    let w2 = e.tensors.iter().find(|t| t.name == "w2").unwrap();
    assert_eq!(w2.count, 256);
    let by = |m: &str| w2.methods.iter().find(|e| e.method == m).unwrap();
    let (minmax, mse) = (by("minmax"), by("mse"));
    assert!(minmax.chosen && minmax.clipped() == 0.0);
    // The channel of the large weight is the widest; the others have no more than 1 to cover.
    assert_eq!(minmax.scale, 40.0 / 127.0);
    assert!(minmax.least_scale <= 1.0 / 127.0);
    // Each channel's largest weight is at an end: 16 of 256 at least.
    assert!(minmax.saturated >= 16.0 / 256.0);
    assert!(mse.sqnr.db() >= minmax.sqnr.db(), "{mse:?} {minmax:?}");

    // Converted by hand.
    let calibrated = calibrated(&one_bad_layer(), &data, &Method::ALL);
    let methods = [("w2".to_owned(), Method::Percentile(90.0))].into();
    let converted = calibrated
        .convert_mixed(&ConvertOptions::default(), &methods)
        .unwrap();
    let scales = |m: &Model| -> Vec<f32> {
        let t = m.graph.initializer("w2_scale").unwrap();
        t.as_slice::<f32>().unwrap().to_vec()
    };
    let plain = calibrated.convert(&ConvertOptions::default()).unwrap();
    let (cut, whole) = (scales(converted.model()), scales(plain.model()));
    assert!(cut.iter().zip(&whole).all(|(a, b)| a <= b) && cut[0] < 0.1 * whole[0]);
    converted.checked_bytes().unwrap();
}

#[test]
fn a_weight_that_is_read_in_float_too_is_clipped_for_the_layer_only() {
    let mut model = one_bad_layer();
    let nodes = &mut model.graph.nodes;
    nodes.insert(4, Node::new("add", "Add", ["d", "w2"], ["sum"]));
    let ty = ValueInfo::tensor(
        "sum",
        ElementType::F32,
        vec![Dim::Known(16), Dim::Known(16)],
    );
    model.graph.outputs.push(ty);
    let data = with_outlier(16, 1.0);
    let calibrated = Operators::new()
        .choose(&model)
        .unwrap()
        .observe(&Method::ALL, Policy::Error)
        .unwrap()
        .calibrate(data.batches(16))
        .unwrap();
    let methods = [("w2".to_owned(), Method::Percentile(90.0))].into();
    let converted = calibrated
        .convert_mixed(&ConvertOptions::default(), &methods)
        .unwrap();
    let graph = &converted.model().graph;
    let kept = graph.initializer("w2").unwrap().as_slice::<f32>().unwrap();
    assert_eq!(kept[0], 40.0);
    assert!(graph.initializer("w2_clipped_scale").is_some());
    converted.checked_bytes().unwrap();
}

#[test]
fn names_that_are_no_tensor_are_refused_with_those_that_are() {
    let data = with_outlier(20, 1.0);
    let calibrated = calibrated(&one_bad_layer(), &data, &[Method::MinMax]);
    let methods = [("nope".to_owned(), Method::MinMax)].into();
    let e = calibrated
        .convert_mixed(&ConvertOptions::default(), &methods)
        .unwrap_err();
    assert!(matches!(&e, QuantizeError::NoTensor { given, .. } if given == "nope"));
    assert!(e.to_string().contains("w2"), "{e}");
}

#[test]
fn json_reads_back_equal_and_other_versions_are_refused() {
    let options = ExplainOptions {
        methods: vec![Method::Percentile(99.9), Method::AciqGauss],
        ..ExplainOptions::default()
    };
    let e = explained(&convnet(relu()), &dataset(40, &[2, 6, 6], 1), &options);
    let text = serde_json::to_string_pretty(&e).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), e);
    let names: Vec<&str> = e.tensors[0]
        .methods
        .iter()
        .map(|m| m.method.as_str())
        .collect();
    assert_eq!(names, ["percentile=99.9", "aciq-gauss", "minmax"]);
    let other = text.replace("\"version\": 1,", "\"version\": 2,");
    let error = serde_json::from_str::<Explanation>(&other).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn what_was_not_observed_is_an_error() {
    let data = with_outlier(20, 1.0);
    let few = calibrated(&one_bad_layer(), &data, &[Method::MinMax]);
    let e = few.explain(&data, &ExplainOptions::default(), &mut |_| ());
    assert!(matches!(e, Err(QuantizeError::NotObserved { .. })), "{e:?}");
    // Ends alone tell no distribution.
    let options = ExplainOptions {
        methods: Vec::new(),
        ..ExplainOptions::default()
    };
    let e = few.explain(&data, &options, &mut |_| ());
    assert!(
        matches!(&e, Err(QuantizeError::NotObserved { needs, .. }) if needs == "histogram"),
        "{e:?}"
    );
}

#[test]
fn nothing_but_zeros_is_explained_without_a_number() {
    let x = Tensor::new(&[20, 16], vec![0f32; 320]).unwrap();
    let data = Dataset::new(vec![("x".to_owned(), x)], None).unwrap();
    let options = ExplainOptions {
        batch: 0,
        bins: 0,
        ..ExplainOptions::default()
    };
    let e = explained(&one_bad_layer(), &data, &options);
    assert_eq!(e.quality.sqnr, Sqnr::Noiseless);
    assert!(e.suggestions.is_empty(), "{:?}", e.suggestions);
    let x = e.tensors.iter().find(|t| t.name == "x").unwrap();
    assert_eq!((x.histogram.zeros, x.histogram.counts.len()), (320, 0));
    let text = serde_json::to_string(&e).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), e);
}

#[test]
fn sequences_have_no_largest_class() {
    let mut g = Graph::new("sequence");
    let dims = |n: usize| vec![Dim::Symbol("N".to_owned()), Dim::Known(3), Dim::Known(n)];
    g.inputs
        .push(ValueInfo::tensor("x", ElementType::F32, dims(4)));
    g.outputs
        .push(ValueInfo::tensor("y", ElementType::F32, dims(5)));
    g.set_initializer("w", Tensor::new(&[4, 5], noise(1, 20)).unwrap());
    // Without a name, by which no list would know it.
    g.nodes = vec![Node::new("", "MatMul", ["x", "w"], ["y"])];
    let data = dataset(20, &[3, 4], 1);
    let e = explained(&Model::new(g, 17), &data, &ExplainOptions::default());
    assert_eq!(e.quality.agreement, None);
    assert_eq!((e.layers[0].name.as_str(), e.layers[0].named), ("y", false));
}

#[test]
fn samples_are_capped_at_whole_batches_and_steps_are_told() {
    let data = with_outlier(90, 1.0);
    let options = ExplainOptions {
        samples: 50,
        batch: 20,
        rounds: 2,
        ..ExplainOptions::default()
    };
    let mut stages = Vec::new();
    let e = calibrated(&one_bad_layer(), &data, &Method::ALL)
        .explain(&data, &options, &mut |p| {
            assert!(p.done < p.total, "{p:?}");
            if stages.last() != Some(&p.stage) {
                stages.push(p.stage);
            }
        })
        .unwrap();
    assert_eq!(e.settings.samples, 40);
    use Stage::{Layers, Methods, Suggestions, Tensors, Timing};
    assert_eq!(stages, [Tensors, Timing, Methods, Layers, Suggestions]);
}

/// Digits that are noise: what layers cost does not depend on them.
fn digits_data(rows: usize) -> Dataset {
    let x = Tensor::new(&[rows, 1, 28, 28], noise(1, rows * 784)).unwrap();
    Dataset::new(vec![("image".to_owned(), x)], None).unwrap()
}
