//! Numbers that tests draw, and small networks.

#![allow(dead_code, reason = "each test file uses a part")]

use qmodel::{Attribute, ElementType, Graph, Model, Node, Tensor, ValueInfo};
use qtrain::data::Samples;

/// Evenly spread numbers in `[-1, 1)`, the same on every machine.
pub(crate) fn drawn(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A chain for images of 6 × 6: a convolution to 4 channels, pooled to 3 × 3 and flattened, two
/// matrices to 3 classes; after the convolution a batch normalization, where asked for.
pub(crate) fn small_model(norm: bool) -> Model {
    let mut g = Graph::new("small");
    let dims = vec![
        qmodel::Dim::Symbol("N".into()),
        1.into(),
        6.into(),
        6.into(),
    ];
    g.inputs
        .push(ValueInfo::tensor("x", ElementType::F32, dims));
    let out = vec![qmodel::Dim::Symbol("N".into()), 3.into()];
    g.outputs
        .push(ValueInfo::tensor("y", ElementType::F32, out));
    let constants = [
        ("conv.w", vec![4, 1, 3, 3], 0.5),
        ("conv.b", vec![4], 0.1),
        ("a.w", vec![5, 36], 0.3),
        ("a.b", vec![5], 0.1),
        ("b.w", vec![3, 5], 0.8),
        ("b.b", vec![3], 0.1),
    ];
    for (i, (name, shape, size)) in constants.into_iter().enumerate() {
        let values = drawn(shape.iter().product(), i as u64 + 1);
        let values: Vec<f32> = values.iter().map(|v| v * size).collect();
        g.set_initializer(name, Tensor::new(&shape, values).unwrap());
    }
    let conv_out = if norm { "c0" } else { "c" };
    g.nodes.push(
        Node::new("conv", "Conv", ["x", "conv.w", "conv.b"], [conv_out])
            .with_attribute("pads", Attribute::Ints(vec![1; 4])),
    );
    if norm {
        for (name, values) in [
            ("gamma", vec![1.5f32, 0.5, -1.0, 2.0]),
            ("beta", vec![0.1, -0.2, 0.3, 0.0]),
            ("mean", vec![0.2, -0.1, 0.0, 0.4]),
            ("variance", vec![0.5, 2.0, 1.0, 0.25]),
        ] {
            g.set_initializer(name, Tensor::vector(values));
        }
        let inputs = ["c0", "gamma", "beta", "mean", "variance"];
        g.nodes
            .push(Node::new("norm", "BatchNormalization", inputs, ["c"]));
    }
    g.nodes.push(Node::new("r", "Relu", ["c"], ["r"]));
    g.nodes.push(
        Node::new("pool", "MaxPool", ["r"], ["p"])
            .with_attribute("kernel_shape", Attribute::Ints(vec![2, 2]))
            .with_attribute("strides", Attribute::Ints(vec![2, 2])),
    );
    g.nodes.push(Node::new("flat", "Flatten", ["p"], ["f"]));
    let gemm = |name: &str, x: &str, y: &str| {
        let inputs = [x.to_owned(), format!("{name}.w"), format!("{name}.b")];
        Node::new(name, "Gemm", inputs, [y]).with_attribute("transB", Attribute::Int(1))
    };
    g.nodes.push(gemm("a", "f", "h"));
    g.nodes.push(Node::new("r2", "Relu", ["h"], ["h2"]));
    g.nodes.push(gemm("b", "h2", "y"));
    Model::new(g, 17)
}

/// Images for [`small_model`], in `[0, 1]`; the class says which third of the rows is bright.
pub(crate) fn small_samples(count: usize, seed: u64) -> Samples {
    let labels: Vec<u32> = (0..count as u32).map(|i| i % 3).collect();
    let noise = drawn(count * 36, seed);
    let images = noise.iter().enumerate().map(|(i, n)| {
        let (sample, row) = (i / 36, i % 36 / 6);
        let bright = (row / 2) as u32 == labels[sample];
        (0.3 + 0.25 * n + if bright { 0.35 } else { 0.0 }).clamp(0.0, 1.0)
    });
    Samples {
        images: images.collect(),
        pixels: 36,
        labels,
    }
}
