//! Small models and data for the tests of the six steps.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::path::PathBuf;

use quaver::model::{Attribute, Dim, ElementType, Graph, Model, Node, Tensor, ValueInfo};
use quaver::{Batch, Dataset};

/// A file of `models/digits`.
pub(crate) fn digits(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/digits")
        .join(name)
}

/// The float digits model.
pub(crate) fn digits_model() -> Model {
    Model::load(digits("digits.onnx")).unwrap()
}

/// Pseudo-random numbers in [-1, 1), the same for the same seed.
pub(crate) fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            s = s
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (s >> 40) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

fn symbolic(rest: &[usize]) -> Vec<Dim> {
    let mut dims = vec![Dim::Symbol("N".to_owned())];
    dims.extend(rest.iter().map(|&d| Dim::Known(d)));
    dims
}

/// `x [N, features]` in, `y [N, width]` out.
pub(crate) fn graph(features: usize, width: usize) -> Graph {
    let mut g = Graph::new("test");
    g.inputs.push(ValueInfo::tensor(
        "x",
        ElementType::F32,
        symbolic(&[features]),
    ));
    g.outputs
        .push(ValueInfo::tensor("y", ElementType::F32, symbolic(&[width])));
    g
}

/// x → Gemm → Relu → Gemm (the same weight) → y, with biases.
pub(crate) fn shared_weight() -> Model {
    let mut g = graph(8, 8);
    g.set_initializer("w", Tensor::new(&[8, 8], noise(1, 64)).unwrap());
    g.set_initializer("b", Tensor::vector(noise(2, 8)));
    let gemm = |name, i, o| {
        Node::new(name, "Gemm", [i, "w", "b"], [o]).with_attribute("transB", Attribute::Int(1))
    };
    g.nodes.push(gemm("first", "x", "h"));
    g.nodes.push(Node::new("relu", "Relu", ["h"], ["r"]));
    g.nodes.push(gemm("second", "r", "y"));
    Model::new(g, 17)
}

/// x [N, 2, 6, 6] → Conv 3×3 → `clamp` → `MaxPool` → `Flatten` → `MatMul` → y [N, 5].
pub(crate) fn convnet(clamp: Node) -> Model {
    let mut g = Graph::new("convnet");
    g.inputs.push(ValueInfo::tensor(
        "x",
        ElementType::F32,
        symbolic(&[2, 6, 6]),
    ));
    g.outputs
        .push(ValueInfo::tensor("y", ElementType::F32, symbolic(&[5])));
    g.set_initializer("w", Tensor::new(&[4, 2, 3, 3], noise(3, 72)).unwrap());
    g.set_initializer("b", Tensor::vector(noise(4, 4)));
    g.set_initializer("v", Tensor::new(&[36, 5], noise(5, 180)).unwrap());
    g.set_initializer("zero", Tensor::scalar(0f32));
    g.set_initializer("six", Tensor::scalar(6f32));
    g.set_initializer("half", Tensor::scalar(0.5f32));
    g.nodes.push(
        Node::new("conv", "Conv", ["x", "w", "b"], ["c"])
            .with_attribute("pads", Attribute::Ints(vec![1; 4])),
    );
    g.nodes.push(clamp);
    g.nodes.push(
        Node::new("pool", "MaxPool", ["r"], ["p"])
            .with_attribute("kernel_shape", Attribute::Ints(vec![2, 2]))
            .with_attribute("strides", Attribute::Ints(vec![2, 2])),
    );
    g.nodes.push(Node::new("flatten", "Flatten", ["p"], ["f"]));
    g.nodes.push(Node::new("head", "MatMul", ["f", "v"], ["y"]));
    Model::new(g, 17)
}

/// `Relu` from `c` to `r`.
pub(crate) fn relu() -> Node {
    Node::new("clamp", "Relu", ["c"], ["r"])
}

/// `Clip` from `c` to `r` between two of the constants of [`convnet`].
pub(crate) fn clip(min: &str, max: &str) -> Node {
    Node::new("clamp", "Clip", ["c", min, max], ["r"])
}

/// `rows` samples for one input.
pub(crate) fn samples(name: &str, rows: usize, rest: &[usize], seed: u64) -> Batch {
    let mut shape = vec![rows];
    shape.extend(rest);
    let n = shape.iter().product();
    vec![(
        name.to_owned(),
        Tensor::new(&shape, noise(seed, n)).unwrap(),
    )]
}

/// The same as a data set.
pub(crate) fn dataset(rows: usize, rest: &[usize], seed: u64) -> Dataset {
    Dataset::new(samples("x", rows, rest, seed), None).unwrap()
}

/// Operator types of a model's nodes, in order.
pub(crate) fn operators(model: &Model) -> Vec<&str> {
    model
        .graph
        .nodes
        .iter()
        .map(|n| n.op_type.as_str())
        .collect()
}

/// How often an operator occurs.
pub(crate) fn count(model: &Model, op: &str) -> usize {
    operators(model).iter().filter(|o| **o == op).count()
}
