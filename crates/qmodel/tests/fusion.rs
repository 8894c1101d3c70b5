//! What fusion makes of a model gives what the model gives.

mod common;

use common::{Numbers, graph, run, slice, zero};
use proptest::prelude::*;
use qmodel::{Attribute, Dim, ElementType, Graph, Model, Node, Session, SessionOptions, Tensor};

/// How a small quantized convolutional network is made.
#[derive(Debug, Clone)]
struct Net {
    seed: u64,
    signed: bool,
    signed_weights: bool,
    per_channel: bool,
    relu: bool,
    pool: bool,
    group: usize,
    stride: usize,
    residual: bool,
    batch: usize,
}

fn nets() -> impl Strategy<Value = Net> {
    (
        any::<u64>(),
        any::<[bool; 6]>(),
        prop_oneof![Just(1usize), Just(2)],
        1usize..3,
        1usize..4,
        any::<bool>(),
    )
        .prop_map(|(seed, b, group, stride, batch, residual)| Net {
            seed,
            signed: b[0],
            signed_weights: b[1],
            per_channel: b[2],
            relu: b[3],
            pool: b[4],
            group,
            stride,
            residual,
            batch,
        })
}

const SIZE: usize = 9;
const CHANNELS: usize = 4;
const FILTERS: usize = 6;

impl Net {
    fn z(&self, z: i32) -> i32 {
        if self.signed { z - 128 } else { z }
    }

    fn weight_scales(&self) -> Vec<f32> {
        (0..if self.per_channel { FILTERS } else { 1 })
            .map(|i| 0.011 + i as f32 * 0.003)
            .collect()
    }

    fn attributes(&self, node: Node) -> Node {
        node.with_attribute("group", Attribute::Int(self.group as i64))
            .with_attribute("strides", Attribute::Ints(vec![self.stride as i64; 2]))
            .with_attribute("pads", Attribute::Ints(vec![1; 4]))
    }

    /// Input x, its quantization, and the constants.
    fn base(&self) -> (Graph, Numbers) {
        let mut r = Numbers(self.seed);
        let dims = vec![
            Dim::Symbol("N".into()),
            CHANNELS.into(),
            SIZE.into(),
            SIZE.into(),
        ];
        let mut g = graph(("x", ElementType::F32, dims), vec![], &["y"]);
        let per_group = CHANNELS / self.group;
        g.set_initializer(
            "w",
            r.bytes(&[FILTERS, per_group, 3, 3], self.signed_weights),
        );
        let n = self.weight_scales().len();
        let zw = if self.signed_weights { 5 } else { 131 };
        let zws = zero(zw, self.signed_weights);
        g.set_initializer(
            "zw",
            match (n, self.signed_weights) {
                (1, _) => zws,
                (_, true) => Tensor::vector(vec![zw as i8; n]),
                (_, false) => Tensor::vector(vec![zw as u8; n]),
            },
        );
        let scales = self.weight_scales();
        g.set_initializer(
            "sb",
            Tensor::vector(scales.iter().map(|s| 0.02 * s).collect()),
        );
        g.set_initializer(
            "sw",
            if n == 1 {
                Tensor::scalar(scales[0])
            } else {
                Tensor::vector(scales)
            },
        );
        let bias: Vec<i32> = (0..FILTERS).map(|_| r.below(3000) as i32 - 1500).collect();
        g.set_initializer("b", Tensor::vector(bias));
        g.set_initializer("sx", Tensor::scalar(0.02f32));
        g.set_initializer("zx", zero(self.z(117), self.signed));
        g.set_initializer("sy", Tensor::scalar(0.31f32));
        g.set_initializer(
            "zy",
            zero(self.z(if self.relu { 0 } else { 90 }), self.signed),
        );
        g.nodes
            .push(Node::new("qx", "QuantizeLinear", ["x", "sx", "zx"], ["xq"]));
        (g, r)
    }

    fn axis(&self, node: Node) -> Node {
        node.with_attribute("axis", Attribute::Int(0))
    }

    /// QDQ form; everything up to `yq`, then dequantized.
    fn qdq(&self) -> Model {
        let (mut g, _) = self.base();
        let dq = |n: &str, i: [&str; 3], o: &str| Node::new(n, "DequantizeLinear", i, [o]);
        g.nodes.push(dq("dx", ["xq", "sx", "zx"], "xd"));
        g.nodes.push(self.axis(dq("dw", ["w", "sw", "zw"], "wd")));
        let mut db = self.axis(dq("db", ["b", "sb", "sb"], "bd"));
        db.inputs.truncate(2);
        g.nodes.push(db);
        let conv = Node::new("conv", "Conv", ["xd", "wd", "bd"], ["c"]);
        g.nodes.push(self.attributes(conv));
        let last = if self.relu {
            g.nodes.push(Node::new("relu", "Relu", ["c"], ["r"]));
            "r"
        } else {
            "c"
        };
        g.nodes.push(Node::new(
            "qy",
            "QuantizeLinear",
            [last, "sy", "zy"],
            ["cq"],
        ));
        g.nodes.push(dq("dc", ["cq", "sy", "zy"], "cd"));
        let mut out = "cd";
        if self.pool {
            g.nodes.push(max_pool("cd", "p"));
            g.nodes
                .push(Node::new("qp", "QuantizeLinear", ["p", "sy", "zy"], ["pq"]));
            g.nodes.push(dq("dp", ["pq", "sy", "zy"], "pd"));
            out = "pd";
        }
        finish(&mut g, out, self.residual);
        Model::new(g, 17)
    }

    /// The same with `QLinearConv`.
    fn qoperator(&self) -> Model {
        let (mut g, _) = self.base();
        let inputs = ["xq", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"];
        g.nodes
            .push(self.attributes(Node::new("conv", "QLinearConv", inputs, ["cq"])));
        let mut out = "cq";
        if self.pool {
            g.nodes.push(max_pool("cq", "pq"));
            out = "pq";
        }
        g.nodes.push(Node::new(
            "dc",
            "DequantizeLinear",
            [out, "sy", "zy"],
            ["cd"],
        ));
        finish(&mut g, "cd", self.residual);
        Model::new(g, 17)
    }

    /// Dynamic: parameters of x at run time.
    fn dynamic(&self) -> Model {
        let (mut g, mut r) = self.base();
        g.nodes.clear();
        g.set_initializer("bias", r.reals(&[1, FILTERS, 1, 1]));
        let scales = self.weight_scales();
        let n = scales.len();
        g.set_initializer("sw", Tensor::new(&[n, 1, 1], scales).unwrap());
        g.nodes.push(Node::new(
            "dql",
            "DynamicQuantizeLinear",
            ["x"],
            ["xq", "xs", "xz"],
        ));
        g.nodes
            .push(Node::new("scales", "Mul", ["xs", "sw"], ["s"]));
        let conv = Node::new("conv", "ConvInteger", ["xq", "w", "xz", "zw"], ["i"]);
        g.nodes.push(self.attributes(conv));
        let cast = Node::new("cast", "Cast", ["i"], ["f"]);
        g.nodes.push(cast.with_attribute("to", Attribute::Int(1)));
        g.nodes.push(Node::new("mul", "Mul", ["f", "s"], ["m"]));
        g.nodes.push(Node::new("add", "Add", ["m", "bias"], ["a"]));
        let mut out = "a";
        if self.relu {
            g.nodes.push(Node::new("relu", "Relu", ["a"], ["r"]));
            out = "r";
        }
        if self.pool {
            g.nodes.push(max_pool(out, "p"));
            out = "p";
        }
        finish(&mut g, out, self.residual);
        Model::new(g, 17)
    }

    fn input(&self) -> Tensor {
        let mut r = Numbers(self.seed ^ 0xabcd);
        let shape = [self.batch, CHANNELS, SIZE, SIZE];
        let data = (0..shape.iter().product())
            .map(|_| r.real() * 3.0)
            .collect::<Vec<f32>>();
        Tensor::new(&shape, data).unwrap()
    }
}

fn max_pool(x: &str, y: &str) -> Node {
    Node::new("pool", "MaxPool", [x], [y])
        .with_attribute("kernel_shape", Attribute::Ints(vec![2, 2]))
        .with_attribute("strides", Attribute::Ints(vec![2, 1]))
        .with_attribute("pads", Attribute::Ints(vec![1, 0, 0, 1]))
}

/// Makes `y` of a value, plainly or by detours on which channels must be where they belong.
fn finish(g: &mut Graph, out: &str, residual: bool) {
    if residual {
        g.nodes.push(Node::new("two", "Add", [out, out], ["two"]));
        g.nodes.push(Node::new("sig", "Sigmoid", ["two"], ["sig"]));
        let cat = Node::new("cat", "Concat", ["sig", out], ["cat"]);
        g.nodes.push(cat.with_attribute("axis", Attribute::Int(1)));
        g.nodes.push(Node::new("flat", "Flatten", ["cat"], ["y"]));
    } else {
        g.nodes.push(Node::new("id", "Identity", [out], ["y"]));
    }
}

fn has_step(model: &Model, part: &str) -> bool {
    let session = Session::new(model, SessionOptions::default()).unwrap();
    session.steps().any(|s| s.contains(part))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn qdq_fused_is_qlinear_conv_to_the_bit(net in nets()) {
        let x = net.input();
        let qdq = net.qdq();
        prop_assert!(has_step(&qdq, "Conv node \"conv\" + "), "not fused");
        let expected = run(&net.qoperator(), &x, false).unwrap();
        prop_assert_eq!(&run(&qdq, &x, true).unwrap(), &expected);
        prop_assert_eq!(&run(&net.qoperator(), &x, true).unwrap(), &expected);
        if !net.residual {
            // Float arithmetic on the same values may round the other way near a middle.
            let float = run(&qdq, &x, false).unwrap();
            for (a, b) in slice::<f32>(&float).iter().zip(slice::<f32>(&expected)) {
                prop_assert!((a - b).abs() <= 0.3101, "{} and {}", a, b);
            }
        }
    }

    #[test]
    fn dynamic_fused_is_dynamic_to_the_bit(net in nets()) {
        let model = net.dynamic();
        prop_assert!(has_step(&model, "ConvInteger node \"conv\" + Cast"), "not fused");
        let x = net.input();
        prop_assert_eq!(run(&model, &x, true).unwrap(), run(&model, &x, false).unwrap());
    }

    #[test]
    fn products_fused_agree(
        seed in any::<u64>(), rows in 1usize..5, k in 1usize..40, n in 1usize..20,
        signed in any::<bool>(), trans_b in any::<bool>(), quantized in any::<bool>(),
    ) {
        let mut r = Numbers(seed);
        let x = r.reals(&[rows, k]);
        let mut g = graph(("x", ElementType::F32, vec![Dim::Symbol("N".into()), k.into()]), vec![], &["y"]);
        g.set_initializer("sx", Tensor::scalar(0.01f32));
        g.set_initializer("zx", zero(if signed { -3 } else { 120 }, signed));
        let shape = if trans_b { [n, k] } else { [k, n] };
        g.set_initializer("w", r.bytes(&shape, true));
        let scales: Vec<f32> = (0..n).map(|i| 0.02 + i as f32 * 0.001).collect();
        g.set_initializer("sw", Tensor::vector(scales));
        g.set_initializer("zw", Tensor::vector(vec![0i8; n]));
        g.set_initializer("bias", r.reals(&[n]));
        g.set_initializer("sy", Tensor::scalar(0.05f32));
        g.set_initializer("zy", zero(if signed { 7 } else { 127 }, signed));
        g.nodes.push(Node::new("qx", "QuantizeLinear", ["x", "sx", "zx"], ["xq"]));
        g.nodes.push(Node::new("dx", "DequantizeLinear", ["xq", "sx", "zx"], ["xd"]));
        g.nodes.push(Node::new("dw", "DequantizeLinear", ["w", "sw", "zw"], ["wd"])
            .with_attribute("axis", Attribute::Int(i64::from(!trans_b))));
        g.nodes.push(Node::new("fc", "Gemm", ["xd", "wd", "bias"], ["f"])
            .with_attribute("transB", Attribute::Int(i64::from(trans_b))));
        g.nodes.push(Node::new("clip", "Clip", ["f", "lo", "hi"], ["c"]));
        g.set_initializer("lo", Tensor::scalar(-0.6f32));
        g.set_initializer("hi", Tensor::scalar(0.9f32));
        if quantized {
            g.nodes.push(Node::new("qy", "QuantizeLinear", ["c", "sy", "zy"], ["yq"]));
            g.nodes.push(Node::new("dy", "DequantizeLinear", ["yq", "sy", "zy"], ["y"]));
        } else {
            g.nodes.push(Node::new("id", "Identity", ["c"], ["y"]));
        }
        let model = Model::new(g, 17);
        prop_assert!(has_step(&model, "Gemm node \"fc\" + Clip node \"clip\""), "not fused");
        let (fused, single) = (run(&model, &x, true).unwrap(), run(&model, &x, false).unwrap());
        let step = if quantized { 0.0501 } else { 1e-5 };
        for (a, b) in slice::<f32>(&fused).iter().zip(slice::<f32>(&single)) {
            prop_assert!((a - b).abs() <= step, "{} and {}", a, b);
        }
    }
}

#[test]
fn tiers_and_threads_give_the_same_bits() {
    let net = Net {
        seed: 21,
        signed: true,
        signed_weights: true,
        per_channel: true,
        relu: true,
        pool: true,
        group: 1,
        stride: 1,
        residual: true,
        batch: 3,
    };
    let x = net.input();
    let mut tiers = 0;
    for model in [net.qdq(), net.qoperator(), net.dynamic()] {
        let mut first = None;
        for isa in qkernels::Isa::available() {
            for threads in [qkernels::Threads::Single, qkernels::Threads::Rayon] {
                let options = SessionOptions {
                    isa,
                    threads,
                    ..Default::default()
                };
                let y = Session::new(&model, options)
                    .unwrap()
                    .run(&[("x", &x)])
                    .unwrap();
                assert_eq!(
                    first.get_or_insert_with(|| y.clone()),
                    &y,
                    "{isa} {threads:?}"
                );
                tiers += 1;
            }
        }
    }
    assert!(tiers >= 6);
}

#[test]
fn one_dimensional_channels_last_and_every_type_behind_it() {
    // A 1-D convolution, a pooling, and results that leave as f64, f16, i64 and u16.
    let cast = |o: &str, to: i64| {
        Node::new(o, "Cast", ["p"], [o]).with_attribute("to", Attribute::Int(to))
    };
    let mut g = graph(
        (
            "x",
            ElementType::F32,
            vec![Dim::Symbol("N".into()), 2.into(), 11.into()],
        ),
        vec![
            Node::new("q", "QuantizeLinear", ["x", "s", "z"], ["q"]),
            Node::new("d", "DequantizeLinear", ["q", "s", "z"], ["d"]),
            Node::new("dw", "DequantizeLinear", ["w", "s", "z"], ["dw"]),
            Node::new("conv", "Conv", ["d", "dw"], ["c"])
                .with_attribute("pads", Attribute::Ints(vec![1, 1])),
            Node::new("p", "MaxPool", ["c"], ["p"])
                .with_attribute("kernel_shape", Attribute::Ints(vec![2]))
                .with_attribute("strides", Attribute::Ints(vec![2])),
            cast("f64", 11),
            cast("f16", 10),
            cast("i64", 7),
            Node::new("wide", "QuantizeLinear", ["p", "s", "z16"], ["u16"]),
            Node::new("p2", "MaxPool", ["f64"], ["p2"])
                .with_attribute("kernel_shape", Attribute::Ints(vec![2])),
        ],
        &["f64", "f16", "i64", "u16", "p", "p2"],
    );
    let mut r = Numbers(9);
    g.set_initializer("s", Tensor::scalar(0.125f32));
    g.set_initializer("z", Tensor::scalar(2i8));
    g.set_initializer("z16", Tensor::scalar(9u16));
    g.set_initializer("w", r.bytes(&[5, 2, 3], true));
    let model = Model::new(g, 17);
    assert!(has_step(&model, "channels first"));
    let x = r.reals(&[2, 2, 11]);
    let all = |fuse| {
        let options = SessionOptions {
            fuse,
            ..Default::default()
        };
        Session::new(&model, options)
            .unwrap()
            .run(&[("x", &x)])
            .unwrap()
    };
    // Every number here is exact in f32, so the ways of computing cannot differ.
    assert_eq!(all(true), all(false));
}

#[test]
fn sums_of_quantized_tensors_are_those_of_the_single_steps() {
    // Two branches of one convolution each, joined, rectified and quantized; more elements than
    // one piece has.
    for (signed, relu) in [(false, true), (true, false)] {
        let dims = vec![Dim::Symbol("N".into()), 3.into(), 13.into(), 11.into()];
        let q = |n: &str, x: &str, y: &str| Node::new(n, "QuantizeLinear", [x, "s", "z"], [y]);
        let d = |n: &str, x: &str, y: &str| Node::new(n, "DequantizeLinear", [x, "s", "z"], [y]);
        let conv = |n: &str, w: &str, y: &str| {
            Node::new(n, "Conv", ["d", w], [y]).with_attribute("pads", Attribute::Ints(vec![1; 4]))
        };
        let dw = |n: &str, w: &str, y: &str| Node::new(n, "DequantizeLinear", [w, "sw"], [y]);
        let mut nodes = vec![
            q("q", "x", "q"),
            d("d", "q", "d"),
            dw("dw1", "w1", "dw1"),
            dw("dw2", "w2", "dw2"),
            conv("c1", "dw1", "c1"),
            q("q1", "c1", "q1"),
            d("d1", "q1", "d1"),
            conv("c2", "dw2", "c2"),
            q("q2", "c2", "q2"),
            d("d2", "q2", "d2"),
            Node::new("add", "Add", ["d1", "d2"], ["a"]),
        ];
        let sum = if relu {
            nodes.push(Node::new("relu", "Relu", ["a"], ["r"]));
            "r"
        } else {
            "a"
        };
        nodes.push(q("q3", sum, "q3"));
        nodes.push(d("d3", "q3", "y"));
        let mut g = graph(("x", ElementType::F32, dims), nodes, &["y", "q1", "q2"]);
        let mut r = Numbers(31);
        g.set_initializer("s", Tensor::scalar(0.05f32));
        g.set_initializer("z", zero(if signed { -3 } else { 119 }, signed));
        g.set_initializer("w1", r.bytes(&[7, 3, 3, 3], true));
        g.set_initializer("w2", r.bytes(&[7, 3, 3, 3], true));
        g.set_initializer("sw", Tensor::scalar(0.01f32));
        let model = Model::new(g, 17);
        assert!(has_step(&model, "Add node \"add\" + "));
        let x = r.reals(&[2, 3, 13, 11]);
        let mut session = Session::new(&model, SessionOptions::default()).unwrap();
        let out = session.run(&[("x", &x)]).unwrap();
        // By definition, from the quantized branches.
        let reals = |t: &Tensor| -> Vec<f32> {
            let z = if signed { -3 } else { 119 };
            let real = |q: i32| (q - z) as f32 * 0.05;
            match t.as_slice::<u8>() {
                Some(v) => v.iter().map(|&q| real(i32::from(q))).collect(),
                None => slice::<i8>(t).iter().map(|&q| real(i32::from(q))).collect(),
            }
        };
        let (a, b) = (reals(&out[1].1), reals(&out[2].1));
        let (low, high) = if signed {
            (-128.0, 127.0)
        } else {
            (0.0, 255.0)
        };
        let z = if signed { -3.0 } else { 119.0 };
        for (i, &y) in slice::<f32>(&out[0].1).iter().enumerate() {
            let sum = a[i] + b[i];
            let sum = if relu { sum.max(0.0) } else { sum };
            let q = ((sum / 0.05f32).round_ties_even() + z).clamp(low, high);
            assert_eq!(y, (q - z) * 0.05);
        }
    }
}

#[test]
fn a_bias_for_each_row_is_not_one_for_each_column() {
    // Two rows and two columns: only the shape of C tells.
    let run_with = |c: &[usize]| {
        let mut g = graph(
            ("x", ElementType::F32, vec![2.into(), 3.into()]),
            vec![
                Node::new("q", "QuantizeLinear", ["x", "s", "z"], ["q"]),
                Node::new("d", "DequantizeLinear", ["q", "s", "z"], ["d"]),
                Node::new("dw", "DequantizeLinear", ["w", "s", "z"], ["dw"]),
                Node::new("fc", "Gemm", ["d", "dw", "c"], ["y"]),
            ],
            &["y"],
        );
        g.set_initializer("s", Tensor::scalar(0.5f32));
        g.set_initializer("z", Tensor::scalar(0i8));
        g.set_initializer("w", Tensor::new(&[3, 2], vec![1i8, 2, 3, 4, 5, 6]).unwrap());
        g.set_initializer("c", Tensor::new(c, vec![100f32, 200.0]).unwrap());
        let x = Tensor::new(&[2, 3], vec![1f32, 0.5, 2.0, -1.0, 0.0, 3.0]).unwrap();
        let model = Model::new(g, 17);
        let single = run(&model, &x, false).unwrap();
        assert_eq!(run(&model, &x, true).unwrap(), single);
        single
    };
    assert_ne!(run_with(&[2, 1]), run_with(&[1, 2]));
}

#[test]
fn values_that_others_read_stay() {
    let net = Net {
        seed: 7,
        signed: false,
        signed_weights: true,
        per_channel: false,
        relu: true,
        pool: false,
        group: 1,
        stride: 1,
        residual: false,
        batch: 2,
    };
    let mut model = net.qdq();
    // The float result of the convolution is returned too, and so is the quantized one.
    let float = qmodel::TensorType::unknown(ElementType::F32);
    model
        .graph
        .outputs
        .push(qmodel::ValueInfo::new("c", float.clone()));
    model
        .graph
        .outputs
        .push(qmodel::ValueInfo::new("cq", float));
    let x = net.input();
    let run = |fuse| {
        let options = SessionOptions {
            fuse,
            ..Default::default()
        };
        Session::new(&model, options)
            .unwrap()
            .run(&[("x", &x)])
            .unwrap()
    };
    let (fused, single) = (run(true), run(false));
    let names: Vec<&str> = fused.iter().map(|o| o.0.as_str()).collect();
    assert_eq!(names, ["y", "c", "cq"]);
    for ((_, a), (_, b)) in fused.iter().zip(&single) {
        assert_eq!((a.element_type(), a.shape()), (b.element_type(), b.shape()));
        if let (Some(a), Some(b)) = (a.as_slice::<f32>(), b.as_slice::<f32>()) {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 0.3101));
        }
    }
}

#[test]
fn bytes_pass_through_what_only_moves_them() {
    // Q, DQ, Transpose, Relu, Reshape, Q, DQ: one table and two moves of bytes.
    let mut g = graph(
        ("x", ElementType::F32, vec![2.into(), 3.into()]),
        vec![
            Node::new("q", "QuantizeLinear", ["x", "s", "z"], ["q"]),
            Node::new("d", "DequantizeLinear", ["q", "s", "z"], ["d"]),
            Node::new("t", "Transpose", ["d"], ["t"]),
            Node::new("r", "Relu", ["t"], ["r"]),
            Node::new("s", "Reshape", ["r", "shape"], ["f"]),
            Node::new("q2", "QuantizeLinear", ["f", "s2", "z"], ["q2"]),
            Node::new("d2", "DequantizeLinear", ["q2", "s2", "z"], ["y"]),
        ],
        &["y"],
    );
    g.set_initializer("s", Tensor::scalar(0.1f32));
    g.set_initializer("s2", Tensor::scalar(0.25f32));
    g.set_initializer("z", Tensor::scalar(3i8));
    g.set_initializer("shape", Tensor::vector(vec![-1i64]));
    let model = Model::new(g, 17);
    let x = Tensor::new(&[2, 3], vec![-1f32, 2.0, 0.3, 50.0, -0.04, 0.26]).unwrap();
    assert_eq!(
        run(&model, &x, true).unwrap(),
        run(&model, &x, false).unwrap()
    );
    let session = Session::new(&model, SessionOptions::default()).unwrap();
    let floats = session
        .steps()
        .filter(|s| s.starts_with("DequantizeLinear"))
        .count();
    assert_eq!(floats, 1, "{session:?}");
}

/// Three channels and what multiplies them; the numbers that a scale never is are among them.
const FACTORS: [[f32; 3]; 8] = [
    [0.01, 0.02, 0.03],
    [-0.01, 0.02, -0.03],
    [-2.5, -1.0, -1e-4],
    [0.0, -0.0, 0.5],
    [f32::INFINITY, f32::NEG_INFINITY, f32::NAN],
    [f32::MIN_POSITIVE, f32::MAX, -f32::MAX],
    [-0.0, -0.0, -0.0],
    [1e-45, -1e-45, 1.0],
];

/// An integer operator on `q`, quantized with one zero point from `x` as the model runs, with
/// factors that are constants or that come from the scale of the quantization.
fn dynamic_with(conv: bool, constant: bool, many: bool, factors: &[f32; 3], bias: &[f32]) -> Graph {
    let mut r = Numbers(77);
    let (op, x, w): (_, &[usize], &[usize]) = if conv {
        ("ConvInteger", &[2, 2, 5, 4], &[3, 2, 3, 3])
    } else {
        ("MatMulInteger", &[5, 7], &[7, 3])
    };
    let dims = x.iter().map(|&d| Dim::Known(d)).collect();
    let cast = Node::new("cast", "Cast", ["i"], ["f"]).with_attribute("to", Attribute::Int(1));
    let mut g = graph(
        ("x", ElementType::F32, dims),
        vec![
            Node::new("q", "DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            Node::new("op", op, ["q", "w", "z"], ["i"]),
            cast,
        ],
        &["y"],
    );
    g.set_initializer("w", r.bytes(w, true));
    let along = |v: &[f32]| {
        let shape: &[usize] = match (v.len(), conv) {
            (1, _) => &[],
            (_, true) => &[3, 1, 1],
            (_, false) => &[3],
        };
        Tensor::new(shape, v.to_vec()).unwrap()
    };
    g.set_initializer("factor", along(&factors[..if many { 3 } else { 1 }]));
    let factor = if constant {
        "factor"
    } else {
        g.nodes
            .push(Node::new("scale", "Mul", ["s", "factor"], ["sf"]));
        "sf"
    };
    g.nodes.push(Node::new("mul", "Mul", ["f", factor], ["m"]));
    if !bias.is_empty() {
        g.set_initializer("bias", along(bias));
        g.nodes.push(Node::new("add", "Add", ["m", "bias"], ["b"]));
    }
    g
}

#[test]
fn factors_of_any_kind_give_the_bits_of_the_single_steps() {
    let bits = |t: &Tensor| -> Vec<u32> {
        // Only the sign and the payload of NaN are nobody's business.
        let number = |v: &f32| if v.is_nan() { f32::NAN } else { *v };
        slice::<f32>(t)
            .iter()
            .map(|v| number(v).to_bits())
            .collect()
    };
    let clips: [Option<(f32, f32)>; 4] = [
        None,
        Some((0.0, 0.0)),
        Some((-0.0, 40.0)),
        Some((-3.0, -0.0)),
    ];
    let biases: [&[f32]; 4] = [
        &[],
        &[-0.0],
        &[0.5, -0.0, -7.0],
        &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY],
    ];
    let (mut negative, mut zero_below, mut nans) = (0, 0, 0);
    for case in 0..FACTORS.len() * 2 * 2 * 2 * clips.len() * biases.len() * 2 {
        let mut rest = case;
        let mut pick = |n: usize| {
            let at = rest % n;
            rest /= n;
            at
        };
        let (conv, constant, many, relu) = (pick(2) == 1, pick(2) == 1, pick(2) == 1, pick(2) == 1);
        let (clip, bias, factors) = (clips[pick(4)], biases[pick(4)], &FACTORS[pick(8)]);
        let mut g = dynamic_with(conv, constant, many, factors, bias);
        let mut out = g.nodes.last().unwrap().outputs[0].clone();
        if relu {
            g.nodes
                .push(Node::new("relu", "Relu", [out], ["r".to_owned()]));
            out = "r".to_owned();
        }
        if let Some((low, high)) = clip {
            g.set_initializer("low", Tensor::scalar(low));
            g.set_initializer("high", Tensor::scalar(high));
            g.nodes
                .push(Node::new("clip", "Clip", [&out, "low", "high"], ["c"]));
            out = "c".to_owned();
        }
        g.nodes
            .push(Node::new("id", "Identity", [out], ["y".to_owned()]));
        let model = Model::new(g, 17);
        assert!(has_step(&model, "node \"op\" + Cast"), "not fused");
        let mut x = Numbers(case as u64).reals(if conv { &[2, 2, 5, 4] } else { &[5, 7] });
        if case % 3 == 0 {
            // Sums of zero, too.
            x = Tensor::new(x.shape(), vec![0f32; x.len()]).unwrap();
        }
        let single = bits(&run(&model, &x, false).unwrap());
        for v in single.iter().map(|&b| f32::from_bits(b)) {
            negative += usize::from(v < 0.0);
            zero_below += usize::from(v == 0.0 && v.is_sign_negative());
            nans += usize::from(v.is_nan());
        }
        for isa in qkernels::Isa::available() {
            let options = SessionOptions {
                isa,
                ..Default::default()
            };
            let mut session = Session::new(&model, options).unwrap();
            let fused = session.run(&[("x", &x)]).unwrap().swap_remove(0).1;
            assert_eq!(bits(&fused), single, "{factors:?} {bias:?} {clip:?} {isa}");
        }
    }
    assert!(negative > 1000 && zero_below > 1000 && nans > 1000);
}

#[test]
fn what_never_runs_is_not_refused() {
    let mut g = graph(
        ("x", ElementType::F32, vec![2.into(), 3.into()]),
        vec![
            Node::new("q", "QuantizeLinear", ["x", "s", "z"], ["q"]),
            Node::new(
                "dead",
                "QLinearMatMul",
                ["q", "s", "z", "w", "negative", "z", "s", "z"],
                ["nobody"],
            ),
            Node::new("d", "DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        &["y"],
    );
    g.set_initializer("s", Tensor::scalar(0.1f32));
    g.set_initializer("negative", Tensor::scalar(-0.1f32));
    g.set_initializer("z", Tensor::scalar(3i8));
    g.set_initializer("w", Numbers(3).bytes(&[3, 4], true));
    let model = Model::new(g, 17);
    let x = Numbers(4).reals(&[2, 3]);
    assert_eq!(
        run(&model, &x, true).unwrap(),
        run(&model, &x, false).unwrap()
    );
}

#[test]
fn products_whose_factor_is_no_f32_run_step_by_step() {
    let mut g = graph(
        ("x", ElementType::F32, vec![2.into(), 3.into()]),
        vec![
            Node::new("q", "QuantizeLinear", ["x", "one", "z"], ["q"]),
            Node::new("d", "DequantizeLinear", ["q", "one", "z"], ["d"]),
            Node::new("dw", "DequantizeLinear", ["w", "large", "z"], ["dw"]),
            Node::new("fc", "MatMul", ["d", "dw"], ["f"]),
            Node::new("qy", "QuantizeLinear", ["f", "tiny", "z"], ["qy"]),
            Node::new("dy", "DequantizeLinear", ["qy", "tiny", "z"], ["y"]),
        ],
        &["y"],
    );
    g.set_initializer("one", Tensor::scalar(1f32));
    g.set_initializer("large", Tensor::scalar(1e3f32));
    g.set_initializer("tiny", Tensor::scalar(2e-38f32));
    g.set_initializer("z", Tensor::scalar(3i8));
    g.set_initializer("w", Numbers(3).bytes(&[3, 4], true));
    let model = Model::new(g, 17);
    // Sums of zero times an infinite factor would be NaN.
    let x = Tensor::new(&[2, 3], vec![0f32; 6]).unwrap();
    let single = run(&model, &x, false).unwrap();
    assert_eq!(slice::<f32>(&single), [0.0; 8]);
    assert_eq!(run(&model, &x, true).unwrap(), single);
}
