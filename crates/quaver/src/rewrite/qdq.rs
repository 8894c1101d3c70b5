//! The QDQ form: float operators between `DequantizeLinear` and `QuantizeLinear`, which every
//! runtime can run and which those with int8 kernels fuse.

use qmodel::{Attribute, Graph, Node, Tensor};

use super::weights::{Storage, Weights, bias};
use super::{Rewriter, integers};
use crate::placement::{Placement, activations};
use crate::ranges::Ranges;
use crate::{QuantizeError, WeightGranularity};

/// Rewrites a graph into QDQ form.
pub(crate) fn rewrite(
    graph: &Graph,
    placement: &Placement,
    ranges: &Ranges,
    granularity: WeightGranularity,
) -> Result<Graph, QuantizeError> {
    let mut r = Rewriter::new(graph);
    for value in &placement.quantized {
        let root = placement.root(value);
        let p = r.params(root, &ranges.params(root)?)?;
        let quantized = r.names.fresh(&format!("{value}_quantized"));
        let restored = r.names.fresh(&format!("{value}_dequantized"));
        // Before the pair is there, so that it reads the value itself.
        redirect(&mut r.graph, placement, value, &restored);
        let q = r.node(
            &format!("{value}_quantize"),
            "QuantizeLinear",
            &[value, &p.scale, &p.zero_point],
            &quantized,
        );
        let dq = r.node(
            &format!("{value}_dequantize"),
            "DequantizeLinear",
            &[&quantized, &p.scale, &p.zero_point],
            &restored,
        );
        r.graph.nodes.extend([q, dq]);
    }

    let mut weights = Weights::default();
    for site in &placement.sites {
        let Some(name) = &site.weight else { continue };
        let node = &graph.nodes[site.node];
        let mut scale = None;
        for value in activations(site, node) {
            scale = Some(ranges.params(placement.root(value))?.scale());
        }
        let weight = weights.get(&mut r, site, name, Storage::Plain, granularity, scale)?;
        let restored = dequantized(&mut r, name, &weight.quantized, |output, r| {
            let inputs = [&*weight.quantized, &*weight.scale, &*weight.zero_point];
            with_axis(
                r.node(
                    &format!("{name}_dequantize"),
                    "DequantizeLinear",
                    &inputs,
                    output,
                ),
                weight.axis,
            )
        });
        r.graph.nodes[site.node].inputs[1] = restored;

        let (Some(bias_name), Some(scale)) = (&site.bias, scale) else {
            continue;
        };
        let Some(b) = bias(&r, site, &weight, scale)? else {
            continue;
        };
        let axis = (b.scales.len() > 1).then_some(0);
        let shape: &[usize] = if axis.is_some() {
            &[b.scales.len()]
        } else {
            &[]
        };
        let values = integers(qformat::DType::I32, &[b.values.len()], &b.values)?;
        let scales = Tensor::new(shape, b.scales)?;
        // Named after the node: nodes that share a bias multiply it by scales of their own.
        let stem = format!("{}_{bias_name}", node.display_name());
        let q = r.constant(&format!("{stem}_quantized"), values);
        let s = r.constant(&format!("{stem}_scale"), scales);
        let restored = r.names.fresh(&format!("{stem}_dequantized"));
        let dq = r.node(
            &format!("{stem}_dequantize"),
            "DequantizeLinear",
            &[&q, &s],
            &restored,
        );
        r.graph.nodes.push(with_axis(dq, axis));
        r.graph.nodes[site.node].inputs[2] = restored;
    }
    r.finish()
}

/// Makes the readers of a quantized value read what its integers stand for: all of them where a
/// site computes the value, so that it need not compute it in float too; else only the sites and
/// the operators that pass it on to one. Other readers keep the float value.
fn redirect(graph: &mut Graph, placement: &Placement, value: &str, restored: &str) {
    if placement.leaves_site(value) {
        graph.replace_uses(value, restored);
        return;
    }
    for site in &placement.sites {
        let count = if site.weight.is_some() { 1 } else { 2 };
        for input in graph.nodes[site.node].inputs.iter_mut().take(count) {
            if input == value {
                restored.clone_into(input);
            }
        }
    }
    for node in &mut graph.nodes {
        if placement.passes_on(node) && node.inputs[0] == value {
            restored.clone_into(&mut node.inputs[0]);
        }
    }
}

/// The output of the `DequantizeLinear` of a constant: the one that is there, or a new one.
fn dequantized(
    r: &mut Rewriter,
    name: &str,
    quantized: &str,
    make: impl FnOnce(&str, &mut Rewriter) -> Node,
) -> String {
    if let Some(known) = r.graph.consumers(quantized).first() {
        return r.graph.nodes[*known].outputs[0].clone();
    }
    let output = r.names.fresh(&format!("{name}_dequantized"));
    let node = make(&output, r);
    r.graph.nodes.push(node);
    output
}

fn with_axis(node: Node, axis: Option<usize>) -> Node {
    match axis {
        // Axes are below the rank of a tensor, far from i64's end.
        Some(a) => node.with_attribute("axis", Attribute::Int(a as i64)),
        None => node,
    }
}
