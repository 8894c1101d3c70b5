//! From a placement and ranges to a quantized graph.
//!
//! | module | writes |
//! |---|---|
//! | [`qdq`] | `QuantizeLinear`/`DequantizeLinear` pairs around float operators |
//! | [`qoperator`] | integer operators: `QLinearConv`, `QLinearMatMul`, `MatMulInteger` |
//! | [`dynamic`] | `DynamicQuantizeLinear` and integer operators, ranges at run time |
//! | [`weights`] | int8 weights and int32 biases, each once |

pub(crate) mod dynamic;
pub(crate) mod qdq;
pub(crate) mod qoperator;
pub(crate) mod weights;

use std::collections::HashMap;

use qformat::{DType, QParams};
use qmodel::{Graph, Model, Names, Node, Tensor};

use crate::QuantizeError;

/// Lowest version of the standard operators that has per-axis `DequantizeLinear`.
const OPSET: i64 = 13;

/// Lowest version whose operators in [`UNCHANGED`] mean what they mean in [`OPSET`].
const OLDEST: i64 = 9;

/// Operators whose uses in opset 9 to 12 are valid and mean the same in opset 13.
const UNCHANGED: [&str; 24] = [
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Concat",
    "Constant",
    "Conv",
    "Div",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Neg",
    "Relu",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Sub",
    "Tanh",
    "Transpose",
];

/// Raises the model's opset to what quantized operators need, where that changes no meaning.
pub(crate) fn raise_opset(model: &mut Model) -> Result<(), QuantizeError> {
    let given = model.opset("").unwrap_or(0);
    if given < OPSET {
        let blocker = model.graph.nodes.iter().find(|n| {
            n.is_standard() && (given < OLDEST || !UNCHANGED.contains(&n.op_type.as_str()))
        });
        if let Some(n) = blocker {
            return Err(QuantizeError::Opset {
                given,
                needed: OPSET,
                blocker: n.label(),
            });
        }
        model.set_opset("", OPSET);
    }
    // Version 7 is the file format of opset 12 and 13.
    model.ir_version = model.ir_version.max(7);
    Ok(())
}

/// Scale and zero point as constants of the graph.
#[derive(Debug, Clone)]
pub(crate) struct ParamNames {
    pub(crate) scale: String,
    pub(crate) zero_point: String,
}

/// A graph that is being rewritten, with the names in use.
#[derive(Debug)]
pub(crate) struct Rewriter {
    pub(crate) graph: Graph,
    pub(crate) names: Names,
    /// Scale and zero point of activations, by root value.
    params: HashMap<String, ParamNames>,
}

impl Rewriter {
    pub(crate) fn new(graph: &Graph) -> Rewriter {
        Rewriter {
            graph: graph.clone(),
            names: graph.names(),
            params: HashMap::new(),
        }
    }

    /// Adds a constant under `wanted` or the nearest free name.
    pub(crate) fn constant(&mut self, wanted: &str, tensor: Tensor) -> String {
        let name = self.names.fresh(wanted);
        self.graph.set_initializer(name.as_str(), tensor);
        name
    }

    /// A new node (not yet in the graph) with one output, both named after `wanted`.
    pub(crate) fn node(&mut self, wanted: &str, op: &str, inputs: &[&str], output: &str) -> Node {
        let name = self.names.fresh(wanted);
        Node::new(name, op, inputs.iter().copied(), [output])
    }

    /// The constants of an activation's scale and zero point, made once per root value.
    pub(crate) fn params(&mut self, root: &str, p: &QParams) -> Result<ParamNames, QuantizeError> {
        if let Some(known) = self.params.get(root) {
            return Ok(known.clone());
        }
        let names = ParamNames {
            scale: self.constant(&format!("{root}_scale"), Tensor::scalar(p.scale())),
            zero_point: self.constant(
                &format!("{root}_zero_point"),
                integers(p.dtype(), &[], &[p.zero_point()])?,
            ),
        };
        self.params.insert(root.to_owned(), names.clone());
        Ok(names)
    }

    /// The finished graph: sorted, without what nothing reads any more, and valid.
    pub(crate) fn finish(mut self) -> Result<Graph, QuantizeError> {
        self.graph.sort()?;
        self.graph.remove_dead();
        self.graph.validate()?;
        Ok(self.graph)
    }
}

/// Integers as a tensor of a quantized type; values saturate at its ends.
pub(crate) fn integers(
    dtype: DType,
    shape: &[usize],
    values: &[i32],
) -> Result<Tensor, QuantizeError> {
    fn cast<T: qformat::QuantElement>(values: &[i32]) -> Vec<T> {
        values.iter().map(|&v| T::saturate(v)).collect()
    }
    Ok(match dtype {
        DType::U8 => Tensor::new(shape, cast::<u8>(values)),
        DType::I8 => Tensor::new(shape, cast::<i8>(values)),
        DType::U16 => Tensor::new(shape, cast::<u16>(values)),
        DType::I16 => Tensor::new(shape, cast::<i16>(values)),
        _ => Tensor::new(shape, values.to_vec()),
    }?)
}
