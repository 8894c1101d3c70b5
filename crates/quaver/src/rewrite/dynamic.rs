//! The dynamic form: activations quantized at run time with the range of the batch at hand, int8
//! weights, sums scaled back to float. No calibration.

use std::collections::HashMap;

use qformat::DType;
use qmodel::{Attribute, Graph, Node, Tensor};

use super::Rewriter;
use super::qoperator::scaled;
use super::weights::{Storage, Weights, matmul_storage};
use crate::placement::{Kind, Placement, Site};
use crate::{QuantizeError, WeightGranularity};

/// Rewrites a graph into dynamic form.
pub(crate) fn rewrite(
    graph: &Graph,
    placement: &Placement,
    granularity: WeightGranularity,
) -> Result<Graph, QuantizeError> {
    let mut r = Rewriter::new(graph);
    let mut nodes = Vec::new();
    let mut weights = Weights::default();
    let mut done: HashMap<String, Activation> = HashMap::new();
    let sites: HashMap<usize, &Site> = placement.sites.iter().map(|s| (s.node, s)).collect();
    for (i, node) in graph.nodes.iter().enumerate() {
        let Some(site) = sites.get(&i) else {
            nodes.push(node.clone());
            continue;
        };
        let name = node.display_name();
        let a = activation(&mut r, &mut nodes, &mut done, &node.inputs[0]);
        let alpha = match node.attribute("alpha") {
            Some(Attribute::Float(v)) => *v,
            _ => 1.0,
        };
        // The second operand, and its scale as it meets the sum.
        let (b, b_zero, b_scale) = match &site.weight {
            Some(weight) => {
                let storage = match site.kind {
                    // Older runtimes have ConvInteger for unsigned weights only.
                    Kind::Conv => Storage::Unsigned,
                    Kind::Gemm | Kind::MatMul => matmul_storage(site),
                };
                let w = weights.get(&mut r, site, weight, storage, granularity, None)?;
                let scales: Vec<f32> = w.params.scales().map(|s| s * alpha).collect();
                let shape = channel_shape(site.kind, scales.len(), graph, weight);
                let scale = r.constant(
                    &format!("{name}_weight_multiplier"),
                    Tensor::new(&shape, scales)?,
                );
                // Channels have scales of their own, but they share the zero point.
                let offset = if storage == Storage::Unsigned { 128 } else { 0 };
                let dtype = if storage == Storage::Unsigned {
                    DType::U8
                } else {
                    DType::I8
                };
                let zero = r.constant(
                    &format!("{name}_weight_zero_point"),
                    super::integers(dtype, &[], &[offset])?,
                );
                (w.quantized, zero, scale)
            }
            None => {
                let b = activation(&mut r, &mut nodes, &mut done, &node.inputs[1]);
                (b.quantized, b.zero_point, b.scale)
            }
        };
        let op = if site.kind == Kind::Conv {
            "ConvInteger"
        } else {
            "MatMulInteger"
        };
        let sum = r.names.fresh(&format!("{name}_int32"));
        let inputs = [&*a.quantized, &*b, &*a.zero_point, &*b_zero];
        let mut integer = r.node(&format!("{name}_quantized"), op, &inputs, &sum);
        if site.kind == Kind::Conv {
            integer.attributes.clone_from(&node.attributes);
        }
        let float = r.names.fresh(&format!("{name}_float"));
        let cast = r
            .node(&format!("{name}_cast"), "Cast", &[&sum], &float)
            .with_attribute("to", Attribute::Int(i64::from(DType::F32.onnx_code())));
        let multiplier = r.names.fresh(&format!("{name}_multiplier"));
        let mul = r.node(
            &format!("{name}_scales"),
            "Mul",
            &[&a.scale, &b_scale],
            &multiplier,
        );
        nodes.extend([integer, cast, mul]);
        let rank = site
            .weight
            .as_ref()
            .and_then(|w| graph.initializer(w))
            .map_or(0, |w| w.rank());
        let bias = match (site.kind, node.input(2)) {
            (Kind::Conv, Some(bias)) => Some(broadcast_bias(&mut r, bias, rank, name)?),
            (_, bias) => bias.map(str::to_owned),
        };
        scaled(
            &mut r,
            &mut nodes,
            node,
            (&float, &multiplier),
            bias.as_deref(),
        )?;
    }
    r.graph.nodes = nodes;
    r.finish()
}

/// An activation as `DynamicQuantizeLinear` leaves it.
#[derive(Debug, Clone)]
struct Activation {
    quantized: String,
    scale: String,
    zero_point: String,
}

/// Quantizes a value at run time, once for all who read it.
fn activation(
    r: &mut Rewriter,
    nodes: &mut Vec<Node>,
    done: &mut HashMap<String, Activation>,
    value: &str,
) -> Activation {
    if let Some(a) = done.get(value) {
        return a.clone();
    }
    let a = Activation {
        quantized: r.names.fresh(&format!("{value}_quantized")),
        scale: r.names.fresh(&format!("{value}_scale")),
        zero_point: r.names.fresh(&format!("{value}_zero_point")),
    };
    let name = r.names.fresh(&format!("{value}_quantize"));
    let outputs = [&*a.quantized, &*a.scale, &*a.zero_point];
    nodes.push(Node::new(name, "DynamicQuantizeLinear", [value], outputs));
    done.insert(value.to_owned(), a.clone());
    a
}

/// The shape in which one scale per channel meets the output: `[C, 1, 1]` for a 2-D convolution.
fn channel_shape(kind: Kind, scales: usize, graph: &Graph, weight: &str) -> Vec<usize> {
    if scales == 1 {
        return Vec::new();
    }
    let spatial = match kind {
        Kind::Conv => graph
            .initializer(weight)
            .map_or(0, |w| w.rank().saturating_sub(2)),
        Kind::Gemm | Kind::MatMul => 0,
    };
    std::iter::once(scales)
        .chain(std::iter::repeat_n(1, spatial))
        .collect()
}

/// A convolution's constant bias in the shape in which it meets the output of a weight of `rank`.
fn broadcast_bias(
    r: &mut Rewriter,
    bias: &str,
    rank: usize,
    name: &str,
) -> Result<String, QuantizeError> {
    let constant = r
        .graph
        .initializer(bias)
        .ok_or_else(|| QuantizeError::Unobserved {
            value: bias.to_owned(),
        })?;
    let mut shape = vec![constant.len()];
    shape.extend(std::iter::repeat_n(1, rank.saturating_sub(2)));
    let tensor = constant.as_ref().clone().reshaped(&shape)?;
    Ok(r.constant(&format!("{name}_bias"), tensor))
}
