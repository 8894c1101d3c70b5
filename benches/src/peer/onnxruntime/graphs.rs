//! The graph of an operator or two that does a task.

use qformat::{DType, QParams};
use quaver::QuantizeError;
use quaver::model::{
    Attribute, ElementType, Graph, Model, Node, OpsetImport, Tensor, TensorData, TensorType,
    ValueInfo,
};

use crate::peer::task::{Finish, Map, MapOp, MatMul, Requantize, Scaled, Task, Weights};
use crate::values::Values;

/// The standard operators' version: the first with 16-bit quantization.
const OPSET: i64 = 21;

/// Its IR version.
const IR_VERSION: i64 = 10;

/// ONNX Runtime's own operators.
const CONTRIB: &str = "com.microsoft";

/// What changes from call to call.
pub(super) struct Input<'a> {
    pub(super) name: &'static str,
    pub(super) values: Values<'a>,
    pub(super) shape: Vec<usize>,
}

/// A small graph, whose result is called `c`.
pub(super) struct Small<'a> {
    nodes: Vec<Node>,
    constants: Vec<(&'static str, Tensor)>,
    pub(super) inputs: Vec<Input<'a>>,
    pub(super) output: DType,
    pub(super) output_shape: Vec<usize>,
}

/// The graph for a task; none if there is no such operator.
pub(super) fn of<'a>(task: &Task<'a>) -> Option<Small<'a>> {
    match task {
        Task::MatMul(task) => matmul(task),
        Task::Map(task) => map(task),
        Task::Conv(_) => None,
    }
}

impl Small<'_> {
    /// The model's file.
    pub(super) fn model(&self) -> Result<Vec<u8>, QuantizeError> {
        let mut graph = Graph::new("bench");
        for (name, tensor) in &self.constants {
            graph.set_initializer(*name, tensor.clone());
        }
        for input in &self.inputs {
            let ty = TensorType::known(element(input.values.dtype()), &input.shape);
            graph.inputs.push(ValueInfo::new(input.name, ty));
        }
        graph.nodes.clone_from(&self.nodes);
        let ty = TensorType::known(element(self.output), &self.output_shape);
        graph.outputs.push(ValueInfo::new("c", ty));
        let mut model = Model::new(graph, OPSET);
        model.ir_version = IR_VERSION;
        model.opset_imports.push(OpsetImport {
            domain: CONTRIB.to_owned(),
            version: 1,
        });
        Ok(model.to_bytes())
    }
}

fn matmul<'a>(task: &MatMul<'a>) -> Option<Small<'a>> {
    if !matches!(task.a.dtype(), DType::U8 | DType::I8)
        || !matches!(task.b.dtype(), DType::U8 | DType::I8)
    {
        return None;
    }
    let shape = |rows, columns| {
        let mut shape = vec![rows, columns];
        if task.batch > 1 {
            shape.insert(0, task.batch);
        }
        shape
    };
    let (m, k, n) = (task.shape.m, task.shape.k, task.shape.n);
    let mut inputs = vec![Input {
        name: "a",
        values: task.a,
        shape: shape(m, k),
    }];
    let mut constants = Vec::new();
    match task.weights {
        Weights::Packed(_) => constants.push(("b", tensor(task.b, &shape(k, n))?)),
        Weights::Plain => inputs.push(Input {
            name: "b",
            values: task.b,
            shape: shape(k, n),
        }),
    }
    let nodes = match task.finish {
        Finish::Sums => vec![Node::new("product", "MatMulInteger", ["a", "b"], ["c"])],
        Finish::Scaled(scaled) if task.batch == 1 && scales(task, scaled.output) => {
            constants.extend(scaled_constants(task, &scaled)?);
            scaled_nodes(&scaled)
        }
        Finish::Scaled(_) => return None,
    };
    Some(Small {
        nodes,
        constants,
        inputs,
        output: task.finish.dtype(),
        output_shape: shape(m, n),
    })
}

/// Whether there is an operator that scales these operands' sums to this: `QGemm` stores the type
/// that A has, and `MatMulIntegerToFloat` knows no i8 by u8.
fn scales(task: &MatMul<'_>, output: Requantize) -> bool {
    match output {
        Requantize::U8(_) => task.a.dtype() == DType::U8,
        Requantize::Relu => (task.a.dtype(), task.b.dtype()) != (DType::I8, DType::U8),
    }
}

/// With a bias, so that the same sums come out: the standard's own operators have none.
fn scaled_nodes(scaled: &Scaled<'_>) -> Vec<Node> {
    match scaled.output {
        Requantize::U8(_) => {
            let inputs = [
                "a", "one", "zero_a", "b", "scales", "zero_b", "bias", "one", "zero_c",
            ];
            vec![Node::new("product", "QGemm", inputs, ["c"]).with_domain(CONTRIB)]
        }
        Requantize::Relu => {
            let inputs = ["a", "b", "one", "scales", "zero_a", "zero_b", "bias"];
            vec![
                Node::new("product", "MatMulIntegerToFloat", inputs, ["sums"]).with_domain(CONTRIB),
                Node::new("relu", "Relu", ["sums"], ["c"]),
            ]
        }
    }
}

fn scaled_constants(task: &MatMul<'_>, scaled: &Scaled<'_>) -> Option<Vec<(&'static str, Tensor)>> {
    let n = task.shape.n;
    let mut constants = vec![
        ("one", Tensor::scalar(1.0_f32)),
        ("scales", Tensor::vector(scaled.scales.to_vec())),
        (
            "zero_a",
            zero_point(task.a.dtype(), scaled.zero_point_a, 0)?,
        ),
        (
            "zero_b",
            zero_point(task.b.dtype(), scaled.zero_point_b, n)?,
        ),
    ];
    match scaled.output {
        Requantize::U8(zero_point_c) => {
            constants.push(("zero_c", zero_point(DType::U8, zero_point_c, 0)?));
            constants.push(("bias", Tensor::vector(scaled.bias.to_vec())));
        }
        Requantize::Relu => {
            let bias: Vec<f32> = scaled
                .bias
                .iter()
                .zip(scaled.scales)
                .map(|(&bias, &scale)| bias as f32 * scale)
                .collect();
            constants.push(("bias", Tensor::vector(bias)));
        }
    }
    Some(constants)
}

/// A zero point as the operators take it: for the tensor, or repeated for `channels`.
fn zero_point(dtype: DType, value: i32, channels: usize) -> Option<Tensor> {
    let shape: &[usize] = if channels == 0 { &[] } else { &[channels] };
    let len = channels.max(1);
    let data: TensorData = match dtype {
        DType::U8 => vec![u8::try_from(value).ok()?; len].into(),
        DType::I8 => vec![i8::try_from(value).ok()?; len].into(),
        DType::U16 => vec![u16::try_from(value).ok()?; len].into(),
        DType::I16 => vec![i16::try_from(value).ok()?; len].into(),
        _ => return None,
    };
    Tensor::new(shape, data).ok()
}

fn map<'a>(task: &Map<'a>) -> Option<Small<'a>> {
    let shape = vec![task.input.len()];
    let quantized = |dtype, params: QParams| {
        Some(vec![
            ("scale", Tensor::scalar(params.scale())),
            ("zero", zero_point(dtype, params.zero_point(), 0)?),
        ])
    };
    let (node, constants) = match task.op {
        MapOp::Convert => {
            let to = Attribute::Int(i64::from(element(task.output).onnx_code()));
            let node = Node::new("convert", "Cast", ["a"], ["c"]).with_attribute("to", to);
            (node, Vec::new())
        }
        MapOp::Quantize(params) => {
            let node = Node::new("quantize", "QuantizeLinear", ["a", "scale", "zero"], ["c"]);
            (node, quantized(task.output, params)?)
        }
        MapOp::Dequantize(params) => {
            let node = Node::new(
                "dequantize",
                "DequantizeLinear",
                ["a", "scale", "zero"],
                ["c"],
            );
            (node, quantized(task.input.dtype(), params)?)
        }
    };
    Some(Small {
        nodes: vec![node],
        constants,
        inputs: vec![Input {
            name: "a",
            values: task.input,
            shape: shape.clone(),
        }],
        output: task.output,
        output_shape: shape,
    })
}

fn tensor(values: Values<'_>, shape: &[usize]) -> Option<Tensor> {
    match values {
        Values::U8(values) => Tensor::new(shape, values.to_vec()).ok(),
        Values::I8(values) => Tensor::new(shape, values.to_vec()).ok(),
        _ => None,
    }
}

/// The model format's name of a type; all that a task has are in it.
fn element(dtype: DType) -> ElementType {
    ElementType::from_onnx_code(dtype.onnx_code()).unwrap_or(ElementType::F32)
}
