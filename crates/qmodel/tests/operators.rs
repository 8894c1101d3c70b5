//! Operators against plain loops and examples worked out by hand.

mod common;

use common::{Numbers, run_op, slice, zero};
use proptest::prelude::*;
use qmodel::{Attribute, ElementType, ModelError, Node, Tensor};

/// The geometry of a 2-D convolution; the same along both axes but for the kernel.
#[derive(Debug, Clone)]
struct Case {
    batch: usize,
    group: usize,
    channels: usize,
    filters: usize,
    size: (usize, usize),
    kernel: (usize, usize),
    stride: usize,
    dilation: usize,
    pads: (usize, usize),
}

fn cases() -> impl Strategy<Value = Case> {
    let small = 1usize..4;
    (
        (1usize..3, small.clone(), small.clone(), small.clone()),
        (4usize..8, 4usize..8),
        (small.clone(), 1usize..4),
        (1usize..3, 1usize..3),
        (0usize..3, 0usize..3),
    )
        .prop_map(
            |((batch, group, channels, filters), size, kernel, (stride, dilation), pads)| Case {
                batch,
                group,
                channels,
                filters,
                size,
                kernel,
                stride,
                dilation,
                pads,
            },
        )
        .prop_filter("the kernel fits", |c| {
            let room = c.size.0.min(c.size.1) + c.pads.0 + c.pads.1;
            room > (c.kernel.0.max(c.kernel.1) - 1) * c.dilation
        })
}

impl Case {
    fn out(&self) -> (usize, usize) {
        let one = |size: usize, kernel: usize| {
            (size + self.pads.0 + self.pads.1 - (kernel - 1) * self.dilation - 1) / self.stride + 1
        };
        (
            one(self.size.0, self.kernel.0),
            one(self.size.1, self.kernel.1),
        )
    }

    fn x_shape(&self) -> [usize; 4] {
        [
            self.batch,
            self.group * self.channels,
            self.size.0,
            self.size.1,
        ]
    }

    fn w_shape(&self) -> [usize; 4] {
        [
            self.group * self.filters,
            self.channels,
            self.kernel.0,
            self.kernel.1,
        ]
    }

    fn node(&self, op: &str, inputs: &[&str]) -> Node {
        let int = |v: usize| v as i64;
        let (b, e) = (int(self.pads.0), int(self.pads.1));
        Node::new("n", op, inputs.iter().copied(), ["y"])
            .with_attribute("group", Attribute::Int(int(self.group)))
            .with_attribute("strides", Attribute::Ints(vec![int(self.stride); 2]))
            .with_attribute("dilations", Attribute::Ints(vec![int(self.dilation); 2]))
            .with_attribute("pads", Attribute::Ints(vec![b, b, e, e]))
    }

    /// Seven loops: `f` maps the operands' elements before they are multiplied.
    fn naive<X: Copy, W: Copy>(
        &self,
        x: &[X],
        w: &[W],
        f: impl Fn(X) -> f64,
        g: impl Fn(W, usize) -> f64,
    ) -> Vec<f64> {
        let (oh, ow) = self.out();
        let (h, wd) = self.size;
        let (kh, kw) = self.kernel;
        let mut out = Vec::new();
        for n in 0..self.batch {
            for o in 0..self.group * self.filters {
                for oy in 0..oh {
                    for ox in 0..ow {
                        let mut sum = 0.0;
                        for c in 0..self.channels {
                            for ky in 0..kh {
                                for kx in 0..kw {
                                    let iy = (oy * self.stride + ky * self.dilation)
                                        .wrapping_sub(self.pads.0);
                                    let ix = (ox * self.stride + kx * self.dilation)
                                        .wrapping_sub(self.pads.0);
                                    if iy < h && ix < wd {
                                        let c_in = o / self.filters * self.channels + c;
                                        let at = ((n * self.group * self.channels + c_in) * h + iy)
                                            * wd
                                            + ix;
                                        let wt = ((o * self.channels + c) * kh + ky) * kw + kx;
                                        sum += f(x[at]) * g(w[wt], o);
                                    }
                                }
                            }
                        }
                        out.push(sum);
                    }
                }
            }
        }
        out
    }
}

proptest! {
    #[test]
    fn conv_is_seven_loops(case in cases(), seed in any::<u64>()) {
        let mut r = Numbers(seed);
        let (x, w) = (r.reals(&case.x_shape()), r.reals(&case.w_shape()));
        let b = r.reals(&[case.w_shape()[0]]);
        let per = case.out().0 * case.out().1;
        let expected: Vec<f32> = case
            .naive(slice::<f32>(&x), slice::<f32>(&w), f64::from, |w, _| f64::from(w))
            .iter()
            .enumerate()
            .map(|(i, s)| (s + f64::from(slice::<f32>(&b)[i / per % case.w_shape()[0]])) as f32)
            .collect();
        let node = case.node("Conv", &["x", "w", "b"]);
        let y = run_op(node, &x, &[("w", w), ("b", b)], 17).unwrap();
        // The numbers are such that every sum is exact.
        prop_assert_eq!(slice::<f32>(&y), &expected[..]);
    }

    #[test]
    fn conv_integer_is_seven_loops(
        case in cases(), seed in any::<u64>(), xs in any::<bool>(), ws in any::<bool>(),
    ) {
        let mut r = Numbers(seed);
        let (x, w) = (r.bytes(&case.x_shape(), xs), r.bytes(&case.w_shape(), ws));
        let (zx, zw) = (3, if ws { -7 } else { 130 });
        let as_reals = |t: &Tensor| -> Vec<f64> {
            match t.as_slice::<u8>() {
                Some(v) => v.iter().map(|&v| f64::from(v)).collect(),
                None => slice::<i8>(t).iter().map(|&v| f64::from(v)).collect(),
            }
        };
        let expected: Vec<i32> = case
            .naive(&as_reals(&x), &as_reals(&w), |v| v - f64::from(zx), |v, _| v - f64::from(zw))
            .iter()
            .map(|&s| s as i32)
            .collect();
        let node = case.node("ConvInteger", &["x", "w", "zx", "zw"]);
        let constants = [("w", w), ("zx", zero(zx, xs)), ("zw", zero(zw, ws))];
        let y = run_op(node, &x, &constants, 17).unwrap();
        prop_assert_eq!(slice::<i32>(&y), &expected[..]);
    }

    #[test]
    fn qlinear_conv_requantizes_the_seven_loops(
        case in cases(), seed in any::<u64>(), per_filter in any::<bool>(),
    ) {
        let mut r = Numbers(seed);
        let filters = case.w_shape()[0];
        let (x, w) = (r.bytes(&case.x_shape(), false), r.bytes(&case.w_shape(), true));
        let scales: Vec<f32> =
            (0..if per_filter { filters } else { 1 }).map(|i| 0.01 + i as f32 * 0.003).collect();
        let bias: Vec<i32> = (0..filters).map(|_| r.below(4000) as i32 - 2000).collect();
        let (sx, zx, sy, zy) = (0.05f32, 100, 0.7f32, -4);
        let per = case.out().0 * case.out().1;
        let sums = case.naive(
            slice::<u8>(&x), slice::<i8>(&w), |v| f64::from(v) - f64::from(zx), |v, _| f64::from(v),
        );
        let expected: Vec<i8> = sums.iter().enumerate().map(|(i, s)| {
            let o = i / per % filters;
            let m = sx * scales[if per_filter { o } else { 0 }] / sy;
            let v = ((*s as i32 + bias[o]) as f32 * m).round_ties_even() + zy as f32;
            v.clamp(-128.0, 127.0) as i8
        }).collect();
        let node = case.node("QLinearConv", &["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"]);
        let n = scales.len();
        let zw = if per_filter { Tensor::vector(vec![0i8; n]) } else { Tensor::scalar(0i8) };
        let y = run_op(node, &x, &[
            ("sx", Tensor::scalar(sx)), ("zx", Tensor::scalar(zx as u8)), ("w", w),
            ("sw", Tensor::vector(scales)), ("zw", zw), ("sy", Tensor::scalar(sy)),
            ("zy", Tensor::scalar(zy as i8)), ("b", Tensor::vector(bias)),
        ], 17).unwrap();
        prop_assert_eq!(slice::<i8>(&y), &expected[..]);
    }

    #[test]
    fn poolings_are_loops(case in cases(), seed in any::<u64>(), ceil in any::<bool>()) {
        prop_assume!(case.pads.0 < case.kernel.0.min(case.kernel.1));
        prop_assume!(case.pads.1 < case.kernel.0.min(case.kernel.1));
        let mut r = Numbers(seed);
        let x = r.reals(&case.x_shape());
        let kernel = vec![case.kernel.0 as i64, case.kernel.1 as i64];
        let (b, e) = (case.pads.0 as i64, case.pads.1 as i64);
        for (op, largest) in [("MaxPool", true), ("AveragePool", false)] {
            let node = Node::new("n", op, ["x"], ["y"])
                .with_attribute("kernel_shape", Attribute::Ints(kernel.clone()))
                .with_attribute("strides", Attribute::Ints(vec![case.stride as i64; 2]))
                .with_attribute("pads", Attribute::Ints(vec![b, b, e, e]))
                .with_attribute("ceil_mode", Attribute::Int(i64::from(ceil)));
            let y = run_op(node, &x, &[], 17).unwrap();
            let [.., oh, ow] = *y.shape() else { unreachable!() };
            let (h, w) = case.size;
            for (p, plane) in slice::<f32>(&x).chunks(h * w).enumerate() {
                for oy in 0..oh {
                    for ox in 0..ow {
                        let mut inside = Vec::new();
                        for ky in 0..case.kernel.0 {
                            for kx in 0..case.kernel.1 {
                                let iy = (oy * case.stride + ky).wrapping_sub(case.pads.0);
                                let ix = (ox * case.stride + kx).wrapping_sub(case.pads.0);
                                if iy < h && ix < w {
                                    inside.push(plane[iy * w + ix]);
                                }
                            }
                        }
                        let expected = if largest {
                            inside.iter().copied().fold(f32::MIN, f32::max)
                        } else {
                            inside.iter().sum::<f32>() / inside.len() as f32
                        };
                        prop_assert_eq!(slice::<f32>(&y)[(p * oh + oy) * ow + ox], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn matmul_integer_broadcasts(seed in any::<u64>(), m in 1usize..4, k in 1usize..9, n in 1usize..5) {
        let mut r = Numbers(seed);
        let (a, b) = (r.bytes(&[2, 1, m, k], false), r.bytes(&[3, k, n], true));
        let node = Node::new("n", "MatMulInteger", ["x", "b", "za"], ["y"]);
        let y = run_op(node, &a, &[("b", b.clone()), ("za", Tensor::scalar(9u8))], 17).unwrap();
        prop_assert_eq!(y.shape(), &[2, 3, m, n]);
        for (i, &v) in slice::<i32>(&y).iter().enumerate() {
            let (p, q) = (i / (3 * m * n), i / (m * n) % 3);
            let (row, col) = (i / n % m, i % n);
            let sum: i32 = (0..k).map(|l| {
                (i32::from(slice::<u8>(&a)[(p * m + row) * k + l]) - 9)
                    * i32::from(slice::<i8>(&b)[(q * k + l) * n + col])
            }).sum();
            prop_assert_eq!(v, sum);
        }
    }

    #[test]
    fn transpose_moves_every_element(shape in prop::collection::vec(1usize..4, 1..5), seed in any::<u64>()) {
        let mut r = Numbers(seed);
        let mut perm: Vec<usize> = (0..shape.len()).collect();
        for i in (1..perm.len()).rev() {
            perm.swap(i, r.below(i + 1));
        }
        let x = r.reals(&shape);
        let ints = perm.iter().map(|&p| p as i64).collect();
        let node = Node::new("n", "Transpose", ["x"], ["y"])
            .with_attribute("perm", Attribute::Ints(ints));
        let y = run_op(node, &x, &[], 17).unwrap();
        for (i, &v) in slice::<f32>(&y).iter().enumerate() {
            let (mut rest, mut at) = (i, vec![0; shape.len()]);
            for d in (0..shape.len()).rev() {
                at[perm[d]] = rest % y.shape()[d];
                rest /= y.shape()[d];
            }
            let from = at.iter().zip(&shape).fold(0, |n, (i, d)| n * d + i);
            prop_assert_eq!(v, slice::<f32>(&x)[from]);
        }
    }

    #[test]
    fn add_broadcasts_like_nested_loops(mask in 0u8..64, seed in any::<u64>()) {
        let mut r = Numbers(seed);
        let full = [2usize, 3, 4];
        let part = |bits: u8| -> Vec<usize> {
            full.iter().enumerate().map(|(i, &d)| if bits >> i & 1 == 1 { 1 } else { d }).collect()
        };
        let (sa, sb) = (part(mask & 7), part(mask >> 3));
        let (a, b) = (r.reals(&sa), r.reals(&sb));
        let y = run_op(Node::new("n", "Add", ["x", "b"], ["y"]), &a, &[("b", b.clone())], 17).unwrap();
        let at = |t: &Tensor, shape: &[usize], i: [usize; 3]| {
            let j = (0..3).fold(0, |n, d| n * shape[d] + i[d].min(shape[d] - 1));
            slice::<f32>(t)[j]
        };
        let out = y.shape().to_vec();
        for i in 0..out[0] { for j in 0..out[1] { for k in 0..out[2] {
            let expected = at(&a, &sa, [i, j, k]) + at(&b, &sb, [i, j, k]);
            prop_assert_eq!(at(&y, &out, [i, j, k]), expected);
        }}}
    }
}

#[test]
fn one_dimensional_convolution() {
    let x = Tensor::new(&[1, 1, 5], vec![1f32, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let w = Tensor::new(&[1, 1, 2], vec![1f32, 10.0]).unwrap();
    let node = Node::new("n", "Conv", ["x", "w"], ["y"])
        .with_attribute("strides", Attribute::Ints(vec![2]))
        .with_attribute("auto_pad", Attribute::String("SAME_UPPER".into()));
    let y = run_op(node, &x, &[("w", w)], 11).unwrap();
    assert_eq!(slice::<f32>(&y), [21.0, 43.0, 5.0]);
}

#[test]
fn gemm_scales_transposes_and_adds() {
    let a = Tensor::new(&[2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let b = Tensor::new(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
    let node = Node::new("n", "Gemm", ["x", "b", "c"], ["y"])
        .with_attribute("alpha", Attribute::Float(2.0))
        .with_attribute("beta", Attribute::Float(0.5))
        .with_attribute("transA", Attribute::Int(1));
    let y = run_op(node, &a, &[("b", b), ("c", Tensor::scalar(4f32))], 17).unwrap();
    assert_eq!(y.shape(), [3, 2]);
    assert_eq!(slice::<f32>(&y), [28.0, 38.0, 36.0, 50.0, 44.0, 62.0]);
}

#[test]
fn softmax_before_version_13_takes_the_rest_as_one() {
    let x = Tensor::new(&[1, 2, 2], vec![0f32; 4]).unwrap();
    let node = || Node::new("n", "Softmax", ["x"], ["y"]);
    assert_eq!(
        slice::<f32>(&run_op(node(), &x, &[], 11).unwrap()),
        [0.25; 4]
    );
    assert_eq!(
        slice::<f32>(&run_op(node(), &x, &[], 13).unwrap()),
        [0.5; 4]
    );
}

#[test]
fn clip_takes_bounds_from_attributes_or_inputs() {
    let x = Tensor::vector(vec![-2f32, 0.5, f32::NAN, 9.0]);
    let old = Node::new("n", "Clip", ["x"], ["y"])
        .with_attribute("min", Attribute::Float(-1.0))
        .with_attribute("max", Attribute::Float(1.0));
    let new = Node::new("n", "Clip", ["x", "lo", "hi"], ["y"]);
    let bounds = [("lo", Tensor::scalar(-1f32)), ("hi", Tensor::scalar(1f32))];
    for y in [
        run_op(old, &x, &[], 10).unwrap(),
        run_op(new, &x, &bounds, 13).unwrap(),
    ] {
        assert_eq!(slice::<f32>(&y)[..2], [-1.0, 0.5]);
        assert!(slice::<f32>(&y)[2].is_nan());
        assert_eq!(slice::<f32>(&y)[3], 1.0);
    }
}

#[test]
fn quantization_along_an_axis_and_back() {
    let x = Tensor::new(&[2, 2], vec![1f32, 2.0, 1.0, 2.0]).unwrap();
    let constants = [
        ("s", Tensor::vector(vec![0.5f32, 0.25])),
        ("z", Tensor::vector(vec![0i8, 1])),
    ];
    let node = Node::new("n", "QuantizeLinear", ["x", "s", "z"], ["y"])
        .with_attribute("axis", Attribute::Int(0));
    let q = run_op(node, &x, &constants, 13).unwrap();
    assert_eq!(slice::<i8>(&q), [2, 4, 5, 9]);
    let node = Node::new("n", "DequantizeLinear", ["x", "s", "z"], ["y"])
        .with_attribute("axis", Attribute::Int(0));
    assert_eq!(run_op(node, &q, &constants, 13).unwrap(), x);
}

#[test]
fn qgemm_adds_its_bias_to_the_sums() {
    let a = Tensor::new(&[1, 2], vec![3u8, 5]).unwrap();
    let constants = || {
        vec![
            ("sa", Tensor::scalar(0.5f32)),
            ("za", Tensor::scalar(1u8)),
            ("b", Tensor::new(&[2, 2], vec![1i8, 2, 3, 4]).unwrap()),
            ("sb", Tensor::scalar(0.5f32)),
            ("zb", Tensor::scalar(0i8)),
            ("c", Tensor::vector(vec![2i32, -100])),
            ("sy", Tensor::scalar(1f32)),
            ("zy", Tensor::scalar(10u8)),
        ]
    };
    let node = |n: usize| {
        Node::new(
            "n",
            "QGemm",
            ["x", "sa", "za", "b", "sb", "zb", "c", "sy", "zy"][..n].to_vec(),
            ["y"],
        )
        .with_domain("com.microsoft")
        .with_attribute("transB", Attribute::Int(1))
    };
    // (2·1 + 4·2 + 2) · 0.25 = 3; (2·3 + 4·4 − 100) · 0.25 = −19.5, below the range of u8.
    let y = run_op(node(9), &a, &constants(), 17).unwrap();
    assert_eq!(slice::<u8>(&y), [13, 0]);
    let y = run_op(node(7), &a, &constants(), 17).unwrap();
    assert_eq!(slice::<f32>(&y), [3.0, -19.5]);
}

#[test]
fn elementwise_operators_of_com_microsoft() {
    let x = Tensor::vector(vec![0u8, 128, 255]);
    let run = |op: &str, inputs: &[&str], constants: &[(&str, Tensor)], axis: Option<i64>| {
        let mut node =
            Node::new("n", op, inputs.iter().copied(), ["y"]).with_domain("com.microsoft");
        if let Some(axis) = axis {
            node.set_attribute("axis", Attribute::Int(axis));
        }
        run_op(node, &x, constants, 17).unwrap()
    };
    let s = |v: f32| Tensor::scalar(v);
    let z = |v: u8| Tensor::scalar(v);
    let two = [
        ("s", s(1.0)),
        ("z", z(0)),
        ("b", Tensor::vector(vec![10u8])),
        ("sy", s(2.0)),
        ("zy", z(1)),
    ];
    let y = run(
        "QLinearAdd",
        &["x", "s", "z", "b", "s", "z", "sy", "zy"],
        &two,
        None,
    );
    assert_eq!(slice::<u8>(&y), [6, 70, 133]); // 132.5 rounds to even, plus 1
    let y = run(
        "QLinearMul",
        &["x", "s", "z", "b", "s", "z", "sy", "zy"],
        &two,
        None,
    );
    assert_eq!(slice::<u8>(&y), [1, 255, 255]);
    let one = [
        ("s", s(0.1)),
        ("z", z(128)),
        ("sy", s(1.0 / 256.0)),
        ("zy", z(0)),
    ];
    let y = run("QLinearSigmoid", &["x", "s", "z", "sy", "zy"], &one, None);
    assert_eq!(slice::<u8>(&y), [0, 128, 255]);
    let parts = [
        ("s", s(1.0)),
        ("z", z(0)),
        ("b", Tensor::vector(vec![10u8])),
        ("sb", s(2.0)),
    ];
    let y = run(
        "QLinearConcat",
        &["s", "z", "x", "s", "z", "b", "sb", "z"],
        &parts,
        Some(0),
    );
    assert_eq!(slice::<u8>(&y), [0, 128, 255, 20]);
}

#[test]
fn refusals_name_the_node_and_what_is_wrong() {
    let x = Tensor::new(&[1, 1, 4, 4], vec![0f32; 16]).unwrap();
    let fail = |node: Node, opset: i64| run_op(node, &x, &[], opset).unwrap_err().to_string();
    let e = fail(Node::new("odd", "Made", ["x"], ["y"]), 17);
    assert_eq!(
        e,
        "Made node \"odd\": operator Made of domain \"ai.onnx\", version 17, is not supported"
    );
    let e = fail(Node::new("p", "MaxPool", ["x"], ["y"]), 17);
    assert!(
        e.contains("MaxPool node \"p\": attribute kernel_shape"),
        "{e}"
    );
    let node = Node::new("p", "MaxPool", ["x"], ["y"])
        .with_attribute("kernel_shape", Attribute::Ints(vec![5, 5]));
    let e = fail(node, 17);
    assert!(e.contains("kernel extent 5"), "{e}");
    let node = Node::new("r", "Relu", ["x"], ["y"]).with_attribute("alpha", Attribute::Float(1.0));
    assert!(
        matches!(run_op(node, &x, &[], 17), Err(ModelError::Attribute { attribute, .. }) if attribute == "alpha")
    );
    let e = fail(Node::new("a", "Add", ["x"], ["y"]), 6);
    assert!(e.contains("version 6") && e.contains("7 to"), "{e}");
    let ints = Tensor::vector(vec![1i64]);
    assert!(matches!(
        run_op(Node::new("s", "Sigmoid", ["x"], ["y"]), &ints, &[], 17),
        Err(ModelError::OperandType { node, given: ElementType::I64, .. }) if node == "Sigmoid node \"s\""
    ));
    let node = Node::new("q", "QuantizeLinear", ["x", "s"], ["y"]);
    let e = run_op(node, &x, &[("s", Tensor::scalar(-1f32))], 13)
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("QuantizeLinear node \"q\"") && e.contains("-1"),
        "{e}"
    );
}
