//! Broken, absurd and malicious models: an error each, never a panic.

mod common;

use common::{Numbers, graph, run_op};
use qmodel::{
    Attribute, Dim, ElementType, Graph, Model, ModelError, Node, Session, SessionOptions, Tensor,
    ValueInfo,
};

/// A model with a bit of everything, small enough that most bytes are structure.
fn sample() -> Model {
    let dims = vec![Dim::Symbol("N".into()), 2.into(), 6.into(), 6.into()];
    let mut r = Numbers(3);
    let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
    let mut g = graph(
        ("x", ElementType::F32, dims),
        vec![
            Node::new("q", "QuantizeLinear", ["x", "s", "z"], ["xq"]),
            Node::new("d", "DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            Node::new("dw", "DequantizeLinear", ["w", "sw", "zw"], ["wd"])
                .with_attribute("axis", Attribute::Int(0)),
            Node::new("c", "Conv", ["xd", "wd"], ["c"])
                .with_attribute("pads", ints(&[1, 1, 1, 1]))
                .with_attribute("strides", ints(&[2, 1]))
                .with_attribute("dilations", ints(&[1, 1])),
            Node::new("r", "Relu", ["c"], ["r"]),
            Node::new("qr", "QuantizeLinear", ["r", "s", "z"], ["rq"]),
            Node::new("dr", "DequantizeLinear", ["rq", "s", "z"], ["rd"]),
            Node::new("p", "MaxPool", ["rd"], ["p"])
                .with_attribute("kernel_shape", ints(&[2, 2]))
                .with_attribute("strides", ints(&[2, 2]))
                .with_attribute("ceil_mode", Attribute::Int(1)),
            Node::new("a", "AveragePool", ["p"], ["a"])
                .with_attribute("kernel_shape", ints(&[1, 2])),
            Node::new("f", "Reshape", ["a", "shape"], ["f"]),
            Node::new("g", "Gemm", ["f", "fw", "fb"], ["g"])
                .with_attribute("transB", Attribute::Int(1)),
            Node::new("sm", "Softmax", ["g"], ["y"]),
            Node::new("dyn", "DynamicQuantizeLinear", ["f"], ["fq", "fs", "fz"]),
            Node::new("mi", "MatMulInteger", ["fq", "mw", "fz"], ["mi"]),
            Node::new("cast", "Cast", ["mi"], ["mf"]).with_attribute("to", Attribute::Int(1)),
            Node::new("ms", "Mul", ["mf", "fs"], ["m"]),
            Node::new("t", "Transpose", ["m"], ["t"]).with_attribute("perm", ints(&[1, 0])),
            Node::new("k", "Concat", ["t", "t"], ["z2"]).with_attribute("axis", Attribute::Int(1)),
        ],
        &["y", "z2"],
    );
    g.set_initializer("s", Tensor::scalar(0.05f32));
    g.set_initializer("z", Tensor::scalar(3i8));
    g.set_initializer("w", r.bytes(&[3, 2, 3, 3], true));
    g.set_initializer("sw", Tensor::vector(vec![0.1f32, 0.2, 0.3]));
    g.set_initializer("zw", Tensor::vector(vec![0i8; 3]));
    g.set_initializer("shape", Tensor::vector(vec![0i64, -1]));
    g.set_initializer("fw", r.reals(&[4, 12]));
    g.set_initializer("fb", r.reals(&[4]));
    g.set_initializer("mw", r.bytes(&[12, 2], true));
    Model::new(g, 17)
}

/// Loads and runs what may be a model, with small limits; how far it came.
fn drive(bytes: &[u8]) -> usize {
    let Ok(model) = Model::from_bytes(bytes) else {
        return 0;
    };
    // What was read can be written.
    let _ = model.to_bytes();
    let _ = qmodel::infer_shapes(&model);
    let mut reached = 1;
    for fuse in [false, true] {
        let options = SessionOptions {
            fuse,
            max_elements: 1 << 20,
            ..Default::default()
        };
        let Ok(mut session) = Session::new(&model, options) else {
            continue;
        };
        let inputs: Vec<(String, Tensor)> = session
            .inputs()
            .filter_map(|(name, ty)| {
                let dims = ty.shape.clone().unwrap_or_default();
                let shape: Vec<usize> = dims
                    .iter()
                    .map(|d| d.known().unwrap_or(2).min(64))
                    .collect();
                let n = shape.iter().product::<usize>();
                let data = qmodel::TensorData::zeros(ty.element, n.min(1 << 16));
                Tensor::new(&shape, data).ok().map(|t| (name.to_owned(), t))
            })
            .collect();
        let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        reached = reached.max(2);
        if session.run(&given).is_ok() && session.run_observed(&given, &mut |_, _| {}).is_ok() {
            reached = 3;
        }
    }
    reached
}

#[test]
fn the_sample_itself_runs() {
    assert_eq!(drive(&sample().to_bytes()), 3);
}

#[test]
fn every_truncation_of_the_sample_is_survived() {
    let bytes = sample().to_bytes();
    for n in 0..bytes.len() {
        drive(&bytes[..n]);
    }
}

#[test]
fn bit_flips_of_the_sample_are_survived() {
    let bytes = sample().to_bytes();
    let mut reached = [0usize; 4];
    let mut r = Numbers(11);
    for i in 0..6000 {
        let mut b = bytes.clone();
        // One to three flips, the first of them at every place in turn.
        b[i % bytes.len()] ^= 1 << r.below(8);
        for _ in 0..r.below(3) {
            let at = r.below(b.len());
            b[at] ^= 1 << r.below(8);
        }
        reached[drive(&b)] += 1;
    }
    // Mutations must get past each gate, or they test nothing behind it.
    assert!(reached.iter().all(|&n| n > 20), "{reached:?}");
}

#[test]
fn mutations_of_real_models_are_survived() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/digits");
    let mut files = vec![format!("{folder}/digits.onnx")];
    for name in ["static_qdq", "static_qoperator", "dynamic"] {
        files.push(format!("{folder}/ort/ort_{name}.onnx"));
    }
    let mut r = Numbers(5);
    let mut ran = 0;
    for file in files {
        let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(drive(&bytes), 3, "{file} itself");
        // Names and attributes of nodes come first; weights follow.
        let head = bytes.len().min(8 * 1024);
        for i in 0..120 {
            let mut b = bytes.clone();
            match i % 4 {
                0 => b.truncate(r.below(bytes.len())),
                1 => b[r.below(bytes.len())] ^= 1 << r.below(8),
                _ => b[r.below(head)] ^= 1 << r.below(8),
            }
            drive(&b);
            ran += 1;
        }
    }
    assert_eq!(ran, 4 * 120);
}

fn with_conv(attributes: &[(&str, Attribute)], w: &[usize]) -> Result<Tensor, ModelError> {
    let x = Tensor::new(&[1, 1, 4, 4], vec![1f32; 16]).unwrap();
    let mut node = Node::new("n", "Conv", ["x", "w"], ["y"]);
    for (name, value) in attributes {
        node.set_attribute(*name, value.clone());
    }
    let n = w.iter().product();
    run_op(
        node,
        &x,
        &[("w", Tensor::new(w, vec![1f32; n]).unwrap())],
        17,
    )
}

#[test]
fn absurd_convolutions_are_refused() {
    let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
    let bad: &[(&str, Attribute)] = &[
        ("pads", ints(&[-1, 0, 0, 0])),
        ("pads", ints(&[i64::MAX, 0, 0, 0])),
        ("pads", ints(&[1 << 30, 1 << 30, 1 << 30, 1 << 30])),
        ("pads", ints(&[1, 1, 1])),
        ("strides", ints(&[0, 1])),
        ("strides", ints(&[-1, 1])),
        ("strides", ints(&[1])),
        ("dilations", ints(&[1 << 40, 1])),
        ("dilations", ints(&[5, 5])),
        ("group", Attribute::Int(0)),
        ("group", Attribute::Int(-3)),
        ("group", Attribute::Int(2)),
        ("kernel_shape", ints(&[2, 2])),
        ("auto_pad", Attribute::String("SIDEWAYS".into())),
    ];
    for (name, value) in bad {
        let e = with_conv(&[(*name, value.clone())], &[1, 1, 3, 3])
            .unwrap_err()
            .to_string();
        assert!(e.contains("Conv node \"n\""), "{name} {value:?}: {e}");
    }
    for w in [
        &[1, 1, 5, 5][..],
        &[1, 2, 1, 1],
        &[1, 1, 3],
        &[1, 1, 0, 3],
        &[1],
    ] {
        assert!(with_conv(&[], w).is_err(), "{w:?}");
    }
    // No filters is legal: an empty result.
    assert_eq!(with_conv(&[], &[0, 1, 3, 3]).unwrap().shape(), [1, 0, 2, 2]);
}

#[test]
fn absurd_shapes_are_refused_before_memory_is_asked_for() {
    let x = Tensor::vector(vec![1f32; 4]);
    let reshape = |shape: &[i64]| {
        let node = Node::new("n", "Reshape", ["x", "shape"], ["y"]);
        run_op(node, &x, &[("shape", Tensor::vector(shape.to_vec()))], 17)
    };
    for shape in [
        &[i64::MAX, i64::MAX][..],
        &[1 << 62, 4],
        &[-2],
        &[-1, -1],
        &[3, -1],
        &[0, 0, 4],
        &[5],
    ] {
        assert!(
            matches!(reshape(shape), Err(ModelError::Operand { .. })),
            "{shape:?}"
        );
    }
    // A product of broadcasting that would fill the memory.
    let tall = Tensor::new(&[1 << 17, 1], vec![0f32; 1 << 17]).unwrap();
    let wide = Tensor::new(&[1, 1 << 17], vec![0f32; 1 << 17]).unwrap();
    let e = run_op(
        Node::new("n", "Add", ["x", "w"], ["y"]),
        &tall,
        &[("w", wide)],
        17,
    );
    assert!(matches!(e, Err(ModelError::TooLarge { value, .. }) if value.contains("\"n\"")));
}

#[test]
fn empty_tensors_of_absurd_shape_end_at_once() {
    let empty = |shape: &[usize]| Tensor::new(shape, Vec::<f32>::new());
    assert!(empty(&[1 << 40, 1 << 40, 0]).is_err());
    // Countable, but beyond the limit.
    let x = empty(&[1 << 40, 0]).unwrap();
    let e = run_op(Node::new("n", "Relu", ["x"], ["y"]), &x, &[], 17).unwrap_err();
    assert!(matches!(e, ModelError::TooLarge { .. }), "{e}");
    let w = empty(&[1 << 40, 0, 1, 1]).unwrap();
    let e = with_conv_of(&w).unwrap_err();
    assert!(matches!(e, ModelError::TooLarge { value, .. } if value == "w"));
    // No channels: sums of nothing, over more pixels than one tile has.
    let x = empty(&[1, 0, 90, 90]).unwrap();
    let w = empty(&[2, 0, 1, 1]).unwrap();
    let y = run_op(
        Node::new("n", "Conv", ["x", "w"], ["y"]),
        &x,
        &[("w", w)],
        17,
    )
    .unwrap();
    assert_eq!(
        (y.shape(), y.as_slice::<f32>().unwrap()[0]),
        (&[1, 2, 90, 90][..], 0.0)
    );
    let x = empty(&[1 << 20, 0, 3]).unwrap();
    let w = Tensor::new(&[1, 3, 2], vec![1f32; 6]).unwrap();
    let y = run_op(
        Node::new("n", "MatMul", ["x", "w"], ["y"]),
        &x,
        &[("w", w)],
        17,
    )
    .unwrap();
    assert_eq!(y.shape(), [1 << 20, 0, 2]);
}

fn with_conv_of(w: &Tensor) -> Result<Tensor, ModelError> {
    let x = Tensor::new(&[1, 1, 4, 4], vec![1f32; 16]).unwrap();
    run_op(
        Node::new("n", "Conv", ["x", "w"], ["y"]),
        &x,
        &[("w", w.clone())],
        17,
    )
}

#[test]
fn a_group_that_nothing_checks_before_the_run_is_refused() {
    // Without a rank of x, shapes are only compared when it runs.
    // Without weights, any number of filters divides into as many groups.
    for (group, weights) in [
        (1 << 50, [0, 1, 1, 1]),
        (1 << 29, [1 << 29, 0, 1, 1]),
        (1 << 25, [1 << 25, 0, 3, 3]),
    ] {
        let mut g = Graph::new("g");
        let unknown = |e| qmodel::TensorType::unknown(e);
        g.inputs.push(ValueInfo::new("x", unknown(ElementType::U8)));
        g.outputs
            .push(ValueInfo::new("y", unknown(ElementType::U8)));
        let names = ["x", "s", "z", "w", "s", "z", "s", "z"];
        let node = Node::new("n", "QLinearConv", names, ["y"]);
        g.nodes
            .push(node.with_attribute("group", Attribute::Int(group)));
        g.set_initializer("s", Tensor::scalar(1f32));
        g.set_initializer("z", Tensor::scalar(0u8));
        g.set_initializer("w", Tensor::new(&weights, Vec::<u8>::new()).unwrap());
        let e = Session::new(&Model::new(g, 17), SessionOptions::default()).unwrap_err();
        assert!(e.to_string().contains("QLinearConv node \"n\""), "{e}");
    }
}

#[test]
fn broken_graphs_are_refused() {
    let add = |n: &str, i: [&str; 2], o: &str| Node::new(n, "Add", i, [o]);
    let fails = |nodes: Vec<Node>| {
        let g = graph(("x", ElementType::F32, vec![1.into()]), nodes, &["y"]);
        Model::from_bytes(&Model::new(g, 17).to_bytes()).unwrap_err()
    };
    let e = fails(vec![add("a", ["x", "b"], "y"), add("b", ["y", "x"], "b")]);
    assert!(
        matches!(&e, ModelError::Cycle { nodes } if nodes.contains("\"a\"")),
        "{e}"
    );
    let e = fails(vec![add("a", ["x", "missing"], "y")]);
    assert!(e.to_string().contains("missing"), "{e}");
    let e = fails(vec![add("a", ["x", "x"], "y"), add("b", ["x", "x"], "y")]);
    assert!(
        matches!(&e, ModelError::DuplicateValue { value } if value == "y"),
        "{e}"
    );
    let e = fails(vec![]);
    assert!(
        matches!(&e, ModelError::UndefinedValue { value, .. } if value == "y"),
        "{e}"
    );
}

#[test]
fn self_consuming_and_repeated_values_run() {
    let mut g = graph(
        ("x", ElementType::F32, vec![2.into()]),
        vec![
            Node::new("r", "Relu", ["x"], ["r"]),
            Node::new("m", "Mul", ["r", "r"], ["m"]),
            Node::new("a", "Add", ["m", "x"], ["y"]),
        ],
        &["y", "x", "k", "r"],
    );
    g.set_initializer("k", Tensor::scalar(5f32));
    let model = Model::new(g, 17);
    let mut s = Session::new(&model, SessionOptions::default()).unwrap();
    let x = Tensor::vector(vec![-2f32, 3.0]);
    for _ in 0..3 {
        let y = s.run(&[("x", &x)]).unwrap();
        assert_eq!(y[0].1.as_slice::<f32>(), Some(&[-2.0, 12.0][..]));
        assert_eq!(y[1].1, x);
        assert_eq!(y[2].1, Tensor::scalar(5f32));
        assert_eq!(y[3].1.as_slice::<f32>(), Some(&[0.0, 3.0][..]));
    }
}

#[test]
fn inputs_that_are_not_the_models_are_refused_by_name() {
    let mut g = Graph::new("g");
    let n = || Dim::Symbol("N".into());
    g.inputs.push(ValueInfo::tensor(
        "a",
        ElementType::F32,
        vec![n(), 3.into()],
    ));
    g.inputs.push(ValueInfo::tensor(
        "b",
        ElementType::F32,
        vec![n(), 1.into()],
    ));
    g.outputs.push(ValueInfo::tensor(
        "y",
        ElementType::F32,
        vec![n(), 3.into()],
    ));
    g.nodes.push(Node::new("add", "Add", ["a", "b"], ["y"]));
    let mut s = Session::new(&Model::new(g, 17), SessionOptions::default()).unwrap();
    let f = |shape: &[usize]| Tensor::new(shape, vec![0f32; shape.iter().product()]).unwrap();
    let (a, b) = (f(&[2, 3]), f(&[2, 1]));
    assert!(s.run(&[("b", &b), ("a", &a)]).is_ok());
    let e = s.run(&[("image", &a)]).unwrap_err().to_string();
    assert_eq!(
        e,
        "input \"image\" does not exist: the model's inputs are \"a\" (f32[N, 3]), \"b\" (f32[N, 1])"
    );
    assert!(matches!(s.run(&[("a", &a)]), Err(ModelError::MissingInput { name }) if name == "b"));
    assert!(matches!(
        s.run(&[("a", &a), ("a", &a)]),
        Err(ModelError::DuplicateInput { name }) if name == "a"
    ));
    let ints = Tensor::new(&[2, 1], vec![0i64; 2]).unwrap();
    assert!(matches!(
        s.run(&[("a", &a), ("b", &ints)]),
        Err(ModelError::InputType { name, given: ElementType::I64, expected: ElementType::F32 }) if name == "b"
    ));
    // Wrong size, wrong rank, and an N that differs between inputs.
    for (a, b) in [
        (f(&[2, 4]), f(&[2, 1])),
        (f(&[3]), f(&[2, 1])),
        (f(&[2, 3]), f(&[3, 1])),
    ] {
        let e = s.run(&[("a", &a), ("b", &b)]).unwrap_err();
        assert!(matches!(e, ModelError::InputShape { .. }), "{e}");
    }
}

#[test]
fn observation_shows_every_float_once_by_name() {
    let model = sample();
    let mut s = Session::new(&model, SessionOptions::default()).unwrap();
    let x = Tensor::new(&[2, 2, 6, 6], vec![0.5f32; 144]).unwrap();
    let mut seen = Vec::new();
    s.run_observed(&[("x", &x)], &mut |name, t| {
        assert_eq!(t.element_type(), ElementType::F32);
        seen.push(name.to_owned());
    })
    .unwrap();
    assert_eq!(seen[0], "x");
    for name in [
        "xd", "c", "r", "rd", "p", "a", "f", "g", "y", "mf", "m", "t", "z2",
    ] {
        assert_eq!(
            seen.iter().filter(|s| *s == name).count(),
            1,
            "{name} in {seen:?}"
        );
    }
    // Constants and integers are not shown.
    for name in ["wd", "w", "xq", "mi"] {
        assert!(!seen.iter().any(|s| s == name), "{name}");
    }
}
