//! The QOperator form: integer operators of the ONNX standard, nothing to fuse.
//!
//! * `Conv` becomes `QLinearConv`.
//! * `MatMul` and `Gemm` become `QLinearMatMul` where their output is quantized and there is no
//!   bias, else `MatMulInteger` with the int32 bias added and the sum scaled to float (the
//!   standard has no quantized `Gemm`).
//! * Operators that pass values on run on the integers.
//! * A `Relu` or `Clip` behind a `QLinearConv` or `QLinearMatMul` disappears where the quantized
//!   range ends at its bounds, and becomes a `Clip` of integers where it does not. Both are exact:
//!   quantization is monotone, so clamping commutes with it.

use std::collections::{HashMap, HashSet};

use qformat::{DType, QParams};
use qmodel::{Attribute, Graph, Node, Tensor};

use super::weights::{Storage, Weight, Weights, bias, matmul_storage};
use super::{Rewriter, integers};
use crate::placement::{Clamp, Kind, Placement, Site};
use crate::ranges::Ranges;
use crate::{QuantizeError, WeightGranularity};

/// Rewrites a graph into QOperator form.
pub(crate) fn rewrite(
    graph: &Graph,
    placement: &Placement,
    ranges: &Ranges,
    granularity: WeightGranularity,
) -> Result<Graph, QuantizeError> {
    let mut form = Form {
        r: Rewriter::new(graph),
        placement,
        ranges,
        granularity,
        weights: Weights::default(),
        integers: HashMap::new(),
        nodes: Vec::new(),
    };
    let sites: HashMap<usize, &Site> = placement.sites.iter().map(|s| (s.node, s)).collect();
    let mut absorbed: HashSet<usize> = HashSet::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        if absorbed.contains(&i) {
            continue;
        }
        match sites.get(&i) {
            Some(site) => absorbed.extend(form.site(site, node)?),
            None => form.other(node)?,
        }
    }
    form.r.graph.nodes = form.nodes;
    form.r.finish()
}

struct Form<'a> {
    r: Rewriter,
    placement: &'a Placement,
    ranges: &'a Ranges,
    granularity: WeightGranularity,
    weights: Weights,
    /// For values that exist as integers: the name of those.
    integers: HashMap<String, String>,
    /// The nodes of the new graph.
    nodes: Vec<Node>,
}

/// The integers of an activation, with the names and values of their parameters.
struct Activation {
    quantized: String,
    scale_name: String,
    zero_point_name: String,
    params: QParams,
}

impl Form<'_> {
    /// The integers of a value, quantized here if no integer operator computed them.
    fn activation(&mut self, value: &str) -> Result<Activation, QuantizeError> {
        let root = self.placement.root(value);
        let params = self.ranges.params(root)?;
        let names = self.r.params(root, &params)?;
        let quantized = match self.integers.get(value) {
            Some(q) => q.clone(),
            None => {
                let q = self.r.names.fresh(&format!("{value}_quantized"));
                let inputs = [value, &names.scale, &names.zero_point];
                let node = self
                    .r
                    .node(&format!("{value}_quantize"), "QuantizeLinear", &inputs, &q);
                self.nodes.push(node);
                self.integers.insert(value.to_owned(), q.clone());
                q
            }
        };
        Ok(Activation {
            quantized,
            scale_name: names.scale,
            zero_point_name: names.zero_point,
            params,
        })
    }

    /// Records that `value` exists as the integers `quantized`, and defines it in float for
    /// whoever reads it so (the node is removed again where nobody does).
    fn define(&mut self, value: &str, quantized: String) -> Result<(), QuantizeError> {
        let root = self.placement.root(value);
        let names = self.r.params(root, &self.ranges.params(root)?)?;
        let inputs = [&*quantized, &*names.scale, &*names.zero_point];
        let dq = self.r.node(
            &format!("{value}_dequantize"),
            "DequantizeLinear",
            &inputs,
            value,
        );
        self.nodes.push(dq);
        self.integers.insert(value.to_owned(), quantized);
        Ok(())
    }

    /// A node that is not a site: on integers where it passes on a quantized value, else as it is.
    fn other(&mut self, node: &Node) -> Result<(), QuantizeError> {
        let (Some(from), Some(to), true) = (
            node.input(0),
            node.output(0),
            self.placement.passes_on(node),
        ) else {
            self.nodes.push(node.clone());
            return Ok(());
        };
        let (from, to) = (from.to_owned(), to.to_owned());
        let a = self.activation(&from)?;
        let quantized = self.r.names.fresh(&format!("{to}_quantized"));
        let mut integer = node.clone();
        integer.inputs[0] = a.quantized;
        integer.outputs[0].clone_from(&quantized);
        self.nodes.push(integer);
        self.define(&to, quantized)
    }

    /// A site. Returns the index of the clamp that it took in.
    fn site(&mut self, site: &Site, node: &Node) -> Result<Option<usize>, QuantizeError> {
        let a = self.activation(&node.inputs[0])?;
        let storage = if site.kind == Kind::Conv {
            Storage::Plain
        } else {
            matmul_storage(site)
        };
        let weight = match &site.weight {
            Some(name) => Some(self.weights.get(
                &mut self.r,
                site,
                name,
                storage,
                self.granularity,
                Some(a.params.scale()),
            )?),
            None => None,
        };
        // The second operand: a weight, or another activation.
        let (b, b_scale, b_zero, b_scales) = match &weight {
            Some(w) => (
                w.quantized.clone(),
                w.scale.clone(),
                w.zero_point.clone(),
                w.params.scales().collect::<Vec<_>>(),
            ),
            None => {
                let b = self.activation(&node.inputs[1])?;
                (
                    b.quantized,
                    b.scale_name,
                    b.zero_point_name,
                    vec![b.params.scale()],
                )
            }
        };
        let linear = match site.kind {
            Kind::Conv => true,
            Kind::Gemm => false,
            Kind::MatMul => self.placement.is_quantized(&site.output),
        };
        if !linear {
            self.matmul_integer(site, node, &a, (&b, &b_zero, &b_scales), weight.as_ref())?;
            return Ok(None);
        }

        let root = self.placement.root(&site.output);
        let out = self.ranges.params(root)?;
        let names = self.r.params(root, &out)?;
        let op = if site.kind == Kind::Conv {
            "QLinearConv"
        } else {
            "QLinearMatMul"
        };
        let mut inputs: Vec<String> = vec![
            a.quantized,
            a.scale_name,
            a.zero_point_name,
            b,
            b_scale,
            b_zero,
            names.scale,
            names.zero_point,
        ];
        // A convolution is only a site when its bias is a constant of this form.
        if let Some(w) = &weight
            && let Some(q) = bias(&self.r, site, w, a.params.scale())?
        {
            let values = integers(DType::I32, &[q.values.len()], &q.values)?;
            let stem = format!("{}_{}", node.display_name(), node.inputs[2]);
            inputs.push(self.r.constant(&format!("{stem}_quantized"), values));
        }
        let clamp = site.clamp.and_then(|(_, c)| IntegerClamp::new(c, &out));
        let raw = self.r.names.fresh(&format!("{}_quantized", site.output));
        let mut integer = node.clone();
        integer.op_type = op.to_owned();
        integer.inputs = inputs;
        integer.outputs = vec![raw.clone()];
        self.nodes.push(integer);
        let quantized = match clamp {
            None => raw,
            Some(c) => {
                let clipped = self.r.names.fresh(&format!("{}_clipped", site.output));
                let lo = integers(out.dtype(), &[], &[c.min])?;
                let hi = integers(out.dtype(), &[], &[c.max])?;
                let lo = self.r.constant(&format!("{}_clip_min", site.output), lo);
                let hi = self.r.constant(&format!("{}_clip_max", site.output), hi);
                let wanted = format!("{}_clip", site.output);
                let clip = self.r.node(&wanted, "Clip", &[&raw, &lo, &hi], &clipped);
                self.nodes.push(clip);
                clipped
            }
        };
        self.define(&site.output, quantized)?;
        Ok(site.clamp.map(|(i, _)| i))
    }

    /// `MatMulInteger`, bias, cast and scale: ends in float, under the name of the node's output.
    fn matmul_integer(
        &mut self,
        site: &Site,
        node: &Node,
        a: &Activation,
        (b, b_zero, b_scales): (&str, &str, &[f32]),
        weight: Option<&Weight>,
    ) -> Result<(), QuantizeError> {
        let name = node.display_name();
        let mut sum = self.r.names.fresh(&format!("{name}_int32"));
        let product = self.r.node(
            &format!("{name}_quantized"),
            "MatMulInteger",
            &[&a.quantized, b, &a.zero_point_name, b_zero],
            &sum,
        );
        self.nodes.push(product);
        let quantized_bias = match weight {
            Some(w) => bias(&self.r, site, w, a.params.scale())?,
            None => None,
        };
        let float_bias = if quantized_bias.is_some() {
            None
        } else {
            node.input(2)
        };
        if let Some(q) = quantized_bias {
            let values = integers(DType::I32, &[q.values.len()], &q.values)?;
            let c = self.r.constant(&format!("{name}_bias_quantized"), values);
            let with_bias = self.r.names.fresh(&format!("{name}_int32_biased"));
            let add = self
                .r
                .node(&format!("{name}_add_bias"), "Add", &[&sum, &c], &with_bias);
            self.nodes.push(add);
            sum = with_bias;
        }
        let float = |key: &str| match node.attribute(key) {
            Some(Attribute::Float(v)) => *v,
            _ => 1.0,
        };
        let multiplier: Vec<f32> = b_scales
            .iter()
            .map(|s| s * a.params.scale() * float("alpha"))
            .collect();
        let shape: &[usize] = if multiplier.len() > 1 {
            &[multiplier.len()]
        } else {
            &[]
        };
        let multiplier = Tensor::new(shape, multiplier)?;
        let multiplier = self.r.constant(&format!("{name}_multiplier"), multiplier);
        let cast = self.r.names.fresh(&format!("{name}_float"));
        let node_cast = self
            .r
            .node(&format!("{name}_cast"), "Cast", &[&sum], &cast)
            .with_attribute("to", Attribute::Int(i64::from(DType::F32.onnx_code())));
        self.nodes.push(node_cast);
        scaled(
            &mut self.r,
            &mut self.nodes,
            node,
            (&cast, &multiplier),
            float_bias,
        )
    }
}

/// `Mul`, and `Add` of a float bias (times `beta`) where there is one, into the node's output.
pub(super) fn scaled(
    r: &mut Rewriter,
    nodes: &mut Vec<Node>,
    node: &Node,
    (sum, multiplier): (&str, &str),
    bias: Option<&str>,
) -> Result<(), QuantizeError> {
    let output = node.outputs[0].as_str();
    let name = node.display_name();
    let Some(bias) = bias else {
        let mul = r.node(&format!("{name}_scale"), "Mul", &[sum, multiplier], output);
        nodes.push(mul);
        return Ok(());
    };
    let product = r.names.fresh(&format!("{name}_scaled"));
    let mul = r.node(
        &format!("{name}_scale"),
        "Mul",
        &[sum, multiplier],
        &product,
    );
    nodes.push(mul);
    let mut bias = bias.to_owned();
    if let Some(Attribute::Float(beta)) = node.attribute("beta")
        && *beta != 1.0
    {
        let beta = r.constant(&format!("{name}_beta"), Tensor::scalar(*beta));
        let times = r.names.fresh(&format!("{name}_beta_bias"));
        let mul = r.node(
            &format!("{name}_scale_bias"),
            "Mul",
            &[&bias, &beta],
            &times,
        );
        nodes.push(mul);
        bias = times;
    }
    let add = r.node(
        &format!("{name}_add_bias"),
        "Add",
        &[&product, &bias],
        output,
    );
    nodes.push(add);
    Ok(())
}

/// A clamp in the integers of an output.
#[derive(Debug, PartialEq)]
struct IntegerClamp {
    min: i32,
    max: i32,
}

impl IntegerClamp {
    /// The clamp, or `None` where saturation to the type's range already does it.
    fn new(clamp: Clamp, out: &QParams) -> Option<IntegerClamp> {
        let (min, max) = (out.quantize(clamp.min), out.quantize(clamp.max));
        // Operators saturate to the whole type, which may be wider than the scheme's range.
        let whole = out.dtype().int_range()?;
        // The low end of a symmetric range is one above the type's: nothing quantizes below it,
        // so a clamp that lies there clips nothing that the parameters can represent.
        let implied = (min <= whole.0 || clamp.min == f32::NEG_INFINITY)
            && (max >= whole.1 || clamp.max == f32::INFINITY);
        (!implied).then_some(IntegerClamp { min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qformat::Scheme;

    #[test]
    fn a_clamp_is_implied_only_where_the_range_ends_at_it() {
        let relu = Clamp {
            min: 0.0,
            max: f32::INFINITY,
        };
        let relu6 = Clamp { min: 0.0, max: 6.0 };
        let tight = QParams::from_range(0.0, 6.0, DType::U8, Scheme::Affine).unwrap();
        assert_eq!(IntegerClamp::new(relu, &tight), None);
        assert_eq!(IntegerClamp::new(relu6, &tight), None);
        let low = QParams::from_range(-1.0, 6.0, DType::U8, Scheme::Affine).unwrap();
        let z = low.zero_point();
        assert_eq!(
            IntegerClamp::new(relu, &low),
            Some(IntegerClamp { min: z, max: 255 })
        );
        let high = QParams::from_range(0.0, 12.0, DType::U8, Scheme::Affine).unwrap();
        assert_eq!(
            IntegerClamp::new(relu6, &high),
            Some(IntegerClamp { min: 0, max: 128 })
        );
        let symmetric = QParams::from_range(-6.0, 6.0, DType::I8, Scheme::Symmetric).unwrap();
        assert_eq!(
            IntegerClamp::new(relu, &symmetric),
            Some(IntegerClamp { min: 0, max: 127 })
        );
    }
}
