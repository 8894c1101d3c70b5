//! What the tests share: small models, and numbers that are the same at every run.
#![allow(dead_code, unreachable_pub)] // Each test uses its part.

use qmodel::{
    Dim, ElementType, Graph, Model, ModelError, Node, Session, SessionOptions, Tensor,
    TensorElement, ValueInfo,
};

/// A linear congruential generator (Knuth's MMIX constants).
#[derive(Debug, Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as u32
    }

    /// In `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    /// In `[-1, 1)`, in steps of 1/64, so that sums of products are exact in f32.
    pub fn real(&mut self) -> f32 {
        (self.below(128) as f32 - 64.0) / 64.0
    }

    pub fn reals(&mut self, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        Tensor::new(shape, (0..n).map(|_| self.real()).collect::<Vec<f32>>()).unwrap()
    }

    pub fn bytes(&mut self, shape: &[usize], signed: bool) -> Tensor {
        let n: usize = shape.iter().product();
        let bytes: Vec<u8> = (0..n).map(|_| self.next() as u8).collect();
        if signed {
            Tensor::new(shape, bytes.iter().map(|&b| b as i8).collect::<Vec<_>>()).unwrap()
        } else {
            Tensor::new(shape, bytes).unwrap()
        }
    }
}

/// A scalar zero point of the given signedness.
pub fn zero(value: i32, signed: bool) -> Tensor {
    if signed {
        Tensor::scalar(value as i8)
    } else {
        Tensor::scalar(value as u8)
    }
}

/// A graph with one input and the given nodes; the outputs have no declared shape.
pub fn graph(input: (&str, ElementType, Vec<Dim>), nodes: Vec<Node>, outputs: &[&str]) -> Graph {
    let mut g = Graph::new("test");
    g.inputs.push(ValueInfo::tensor(input.0, input.1, input.2));
    for o in outputs {
        let ty = qmodel::TensorType::unknown(ElementType::F32);
        g.outputs.push(ValueInfo::new(*o, ty));
    }
    g.nodes = nodes;
    g
}

/// A model whose operands are all constants but `x`, run once.
pub fn run_op(
    node: Node,
    x: &Tensor,
    constants: &[(&str, Tensor)],
    opset: i64,
) -> Result<Tensor, ModelError> {
    let dims = x.shape().iter().map(|&d| Dim::Known(d)).collect();
    let mut g = graph(("x", x.element_type(), dims), vec![node], &["y"]);
    for (name, t) in constants {
        g.set_initializer(*name, t.clone());
    }
    run(&Model::new(g, opset), x, false)
}

/// Runs a model of one input `x`; the first output.
pub fn run(model: &Model, x: &Tensor, fuse: bool) -> Result<Tensor, ModelError> {
    let mut session = Session::new(
        model,
        SessionOptions {
            fuse,
            ..Default::default()
        },
    )?;
    Ok(session.run(&[("x", x)])?.swap_remove(0).1)
}

pub fn slice<T: TensorElement>(t: &Tensor) -> &[T] {
    t.as_slice::<T>().unwrap()
}
