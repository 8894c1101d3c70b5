//! Integer convolutions of every kind give the sums that the definition gives.

mod common;

use common::{Numbers, graph, run, slice, zero};
use qkernels::{Isa, Threads};
use qmodel::{
    Attribute, Dim, ElementType, Graph, Model, ModelError, Node, Session, SessionOptions, Tensor,
};

/// A convolution of images of `size`.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// Images, channels, filters, groups.
    sizes: [usize; 4],
    size: [usize; 2],
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Top, left, bottom, right.
    pads: [usize; 4],
    /// Says the padding instead of `pads`, which are then what it comes to.
    auto_pad: Option<&'static str>,
}

const PLAIN: Case = Case {
    sizes: [2, 3, 5, 1],
    size: [7, 6],
    kernel: [3, 3],
    strides: [1, 1],
    dilations: [1, 1],
    pads: [1; 4],
    auto_pad: None,
};

/// A filter for every channel, at a channel count beyond one vector of any tier.
const DEPTHWISE: Case = Case {
    sizes: [2, 70, 70, 70],
    ..PLAIN
};

/// One for each kernel that may run, and for everything that moves its window.
const CASES: [Case; 18] = [
    PLAIN,
    Case {
        strides: [2, 3],
        ..PLAIN
    },
    Case {
        dilations: [2, 1],
        pads: [2, 0, 3, 1],
        ..PLAIN
    },
    // SAME at an even kernel: the odd one goes to the end, or to the beginning.
    Case {
        kernel: [2, 4],
        pads: [0, 1, 1, 2],
        auto_pad: Some("SAME_UPPER"),
        ..PLAIN
    },
    Case {
        kernel: [2, 4],
        pads: [1, 2, 0, 1],
        auto_pad: Some("SAME_LOWER"),
        ..PLAIN
    },
    Case {
        sizes: [3, 6, 9, 3],
        ..PLAIN
    },
    Case {
        sizes: [1, 4, 2, 2],
        strides: [2, 1],
        pads: [0, 2, 1, 0],
        ..PLAIN
    },
    // Two filters for every channel are no depthwise convolution.
    Case {
        sizes: [1, 5, 10, 5],
        ..PLAIN
    },
    // Pixels by themselves, in one group and in more.
    Case {
        sizes: [2, 8, 5, 1],
        kernel: [1, 1],
        pads: [0; 4],
        ..PLAIN
    },
    Case {
        sizes: [2, 8, 6, 2],
        kernel: [1, 1],
        pads: [0; 4],
        auto_pad: Some("SAME_UPPER"),
        ..PLAIN
    },
    // Pixels by themselves, but not all of them, or more than all.
    Case {
        sizes: [2, 8, 6, 2],
        kernel: [1, 1],
        pads: [0; 4],
        strides: [2, 2],
        ..PLAIN
    },
    Case {
        kernel: [1, 1],
        ..PLAIN
    },
    DEPTHWISE,
    Case {
        strides: [2, 2],
        pads: [0, 1, 2, 0],
        ..DEPTHWISE
    },
    Case {
        sizes: [1, 3, 3, 3],
        kernel: [5, 2],
        dilations: [1, 3],
        pads: [2, 3, 1, 2],
        ..DEPTHWISE
    },
    Case {
        kernel: [1, 1],
        pads: [0; 4],
        ..DEPTHWISE
    },
    Case {
        sizes: [2, 1, 1, 1],
        ..PLAIN
    },
    // Windows mostly in the padding, so wide that the depthwise kernel is not taken.
    Case {
        sizes: [1, 3, 3, 3],
        size: [4, 4],
        kernel: [2, 2],
        strides: [1 << 24, 1 << 24],
        dilations: [1 << 24, 1 << 24],
        pads: [1 << 24; 4],
        auto_pad: None,
    },
];

impl Case {
    fn node(&self, op: &str, inputs: &[&str], output: &str) -> Node {
        let ints = |v: &[usize]| Attribute::Ints(v.iter().map(|&n| n as i64).collect());
        let node = Node::new("conv", op, inputs.iter().copied(), [output])
            .with_attribute("group", Attribute::Int(self.sizes[3] as i64))
            .with_attribute("strides", ints(&self.strides))
            .with_attribute("dilations", ints(&self.dilations));
        match self.auto_pad {
            Some(how) => node.with_attribute("auto_pad", Attribute::String(how.into())),
            None => node.with_attribute("pads", ints(&self.pads)),
        }
    }

    fn x_shape(&self) -> [usize; 4] {
        [self.sizes[0], self.sizes[1], self.size[0], self.size[1]]
    }

    fn w_shape(&self) -> [usize; 4] {
        let [_, channels, filters, group] = self.sizes;
        [filters, channels / group, self.kernel[0], self.kernel[1]]
    }

    fn output(&self, axis: usize) -> usize {
        let padded = self.size[axis] + self.pads[axis] + self.pads[axis + 2];
        (padded - (self.kernel[axis] - 1) * self.dilations[axis] - 1) / self.strides[axis] + 1
    }

    /// The sums by definition, one product at a time.
    fn sums(&self, x: &[i32], x_zero: i32, w: &[i32], w_zero: &[i32]) -> Vec<i32> {
        let [images, channels, filters, group] = self.sizes;
        let [height, width] = self.size;
        let each = channels / group;
        let mut sums = Vec::new();
        for (n, f) in (0..images).flat_map(|n| (0..filters).map(move |f| (n, f))) {
            let first = f / (filters / group) * each;
            for (oy, ox) in
                (0..self.output(0)).flat_map(|y| (0..self.output(1)).map(move |x| (y, x)))
            {
                let mut sum = 0;
                for (c, ky, kx) in (0..each).flat_map(|c| {
                    (0..self.kernel[0])
                        .flat_map(move |y| (0..self.kernel[1]).map(move |x| (c, y, x)))
                }) {
                    let at = |o: usize, k: usize, i: usize| {
                        (o * self.strides[i] + k * self.dilations[i]).wrapping_sub(self.pads[i])
                    };
                    let (y, x_at) = (at(oy, ky, 0), at(ox, kx, 1));
                    if y < height && x_at < width {
                        let a = x[((n * channels + first + c) * height + y) * width + x_at];
                        let b = w[((f * each + c) * self.kernel[0] + ky) * self.kernel[1] + kx];
                        sum += (a - x_zero) * (b - w_zero[f]);
                    }
                }
                sums.push(sum);
            }
        }
        sums
    }
}

fn integers(t: &Tensor) -> Vec<i32> {
    match t.as_slice::<u8>() {
        Some(v) => v.iter().map(|&q| q.into()).collect(),
        None => slice::<i8>(t).iter().map(|&q| q.into()).collect(),
    }
}

/// The input of a case.
fn input(shape: [usize; 4], element: ElementType) -> (&'static str, ElementType, Vec<Dim>) {
    let mut dims: Vec<Dim> = shape.iter().map(|&d| Dim::Known(d)).collect();
    dims[0] = Dim::Symbol("N".into());
    ("x", element, dims)
}

/// Every tier and several threads.
fn sessions(model: &Model) -> impl Iterator<Item = (String, Session)> + '_ {
    let threads = [Threads::Single, Threads::Rayon];
    Isa::available()
        .flat_map(move |isa| threads.map(|threads| (isa, threads)))
        .map(|(isa, threads)| {
            let options = SessionOptions {
                isa,
                threads,
                ..Default::default()
            };
            let name = format!("{isa} {threads:?}");
            (name, Session::new(model, options).unwrap())
        })
}

#[test]
fn sums_are_those_of_the_definition() {
    let mut ran = 0;
    for (i, case) in CASES.iter().enumerate() {
        for types in 0..4 {
            let (x_signed, w_signed) = (types & 1 == 1, types & 2 == 2);
            let mut r = Numbers((i * 4 + types) as u64);
            let x = r.bytes(&case.x_shape(), x_signed);
            let w = r.bytes(&case.w_shape(), w_signed);
            // One zero point, or one for every filter.
            let filters = case.sizes[2];
            let zeros = r.bytes(&[if i % 2 == 0 { 1 } else { filters }], w_signed);
            let x_zero = if x_signed { -9 } else { 131 };
            let mut each = integers(&zeros);
            each.resize(filters, each[0]);
            let expected = case.sums(&integers(&x), x_zero, &integers(&w), &each);

            let element = if x_signed {
                ElementType::I8
            } else {
                ElementType::U8
            };
            let conv = case.node("ConvInteger", &["x", "w", "zx", "zw"], "sums");
            // In one step with a factor; and the sums as they are.
            let mut g = graph(
                input(case.x_shape(), element),
                vec![
                    conv,
                    Node::new("cast", "Cast", ["sums"], ["f"])
                        .with_attribute("to", Attribute::Int(1)),
                    Node::new("mul", "Mul", ["f", "half"], ["y"]),
                ],
                &["y"],
            );
            g.set_initializer("w", w);
            g.set_initializer("zx", zero(x_zero, x_signed));
            g.set_initializer("zw", zeros);
            g.set_initializer("half", Tensor::scalar(0.5f32));
            let model = Model::new(g.clone(), 17);
            let halves: Vec<f32> = expected.iter().map(|&s| s as f32 * 0.5).collect();
            for (name, mut session) in sessions(&model) {
                let fused = session.steps().any(|s| s.contains("\"conv\" + Cast"));
                assert!(fused, "{case:?} {session:?}");
                let y = session.run(&[("x", &x)]).unwrap().swap_remove(0).1;
                assert_eq!(slice::<f32>(&y), halves, "{case:?} {types} {name}");
                ran += 1;
            }
            g.nodes.truncate(1);
            g.outputs[0] =
                qmodel::ValueInfo::new("sums", qmodel::TensorType::unknown(ElementType::I32));
            let y = run(&Model::new(g, 17), &x, true).unwrap();
            assert_eq!(slice::<i32>(&y), expected, "{case:?} {types}");
        }
    }
    assert!(ran >= CASES.len() * 8);
}

/// A pointwise, a depthwise and a grouped convolution, one behind the other.
fn separable(batch: usize) -> (Model, Tensor) {
    let mut r = Numbers(5);
    let shape = [batch, 6, 9, 8];
    let layers = [
        ("wide", [20, 6, 1, 1], 1, 1),
        ("deep", [20, 1, 3, 3], 20, 2),
        ("grouped", [8, 5, 3, 3], 4, 1),
    ];
    let mut g: Graph = graph(input(shape, ElementType::U8), vec![], &["grouped"]);
    g.set_initializer("sx", Tensor::scalar(0.02f32));
    g.set_initializer("z", Tensor::scalar(117u8));
    let mut from = "x";
    for (name, w, group, stride) in layers {
        let named = |part: &str| format!("{part} of {name}");
        g.set_initializer(named("w"), r.bytes(&w, true));
        let scales: Vec<f32> = (0..w[0]).map(|i| 0.004 + i as f32 * 0.0003).collect();
        g.set_initializer(named("s"), Tensor::vector(scales));
        g.set_initializer(named("zw"), Tensor::vector(vec![3i8; w[0]]));
        let bias: Vec<i32> = (0..w[0]).map(|_| r.below(3000) as i32 - 1500).collect();
        g.set_initializer(named("b"), Tensor::vector(bias));
        let (w_name, s, zw, b) = (named("w"), named("s"), named("zw"), named("b"));
        let inputs = [from, "sx", "z", &w_name, &s, &zw, "sx", "z", &b];
        let pad = (w[2] / 2) as i64;
        let node = Node::new(name, "QLinearConv", inputs, [name])
            .with_attribute("group", Attribute::Int(group))
            .with_attribute("strides", Attribute::Ints(vec![stride; 2]))
            .with_attribute("pads", Attribute::Ints(vec![pad; 4]));
        g.nodes.push(node);
        from = name;
    }
    (Model::new(g, 17), r.bytes(&shape, false))
}

#[test]
fn chains_give_the_bits_of_single_steps() {
    for batch in [1, 3] {
        let (model, x) = separable(batch);
        let single = run(&model, &x, false).unwrap();
        let distinct = integers(&single)
            .into_iter()
            .collect::<std::collections::HashSet<_>>();
        assert!(distinct.len() > 20, "nearly everything saturates");
        for (name, mut session) in sessions(&model) {
            let fused = session.run(&[("x", &x)]).unwrap().swap_remove(0).1;
            assert_eq!(fused, single, "{batch} {name}");
        }
    }
}

#[test]
fn groups_that_do_not_divide_are_refused() {
    let with_group = |group: i64, w: &[usize]| -> Result<Tensor, ModelError> {
        let mut r = Numbers(1);
        let x = r.bytes(&[1, 4, 5, 5], false);
        let node = Node::new("conv", "ConvInteger", ["x", "w"], ["y"])
            .with_attribute("group", Attribute::Int(group));
        let mut g = graph(input([1, 4, 5, 5], ElementType::U8), vec![node], &["y"]);
        g.set_initializer("w", r.bytes(w, true));
        run(&Model::new(g, 17), &x, true)
    };
    assert!(with_group(4, &[4, 1, 3, 3]).is_ok());
    for (group, w) in [
        (0, [4, 1, 3, 3]),
        (-4, [4, 1, 3, 3]),
        (3, [4, 1, 3, 3]),
        (4, [6, 1, 3, 3]),
        (4, [4, 2, 3, 3]),
        (1 << 40, [4, 1, 3, 3]),
        (i64::MAX, [0, 1, 3, 3]),
        (2, [4, 2, 6, 6]),
        (4, [4, 1, 0, 3]),
    ] {
        let e = with_group(group, &w).unwrap_err().to_string();
        assert!(
            e.contains("ConvInteger node \"conv\""),
            "{group} {w:?}: {e}"
        );
    }
}
