//! Where quantization goes: the sites that are quantized, and the values they read and write.
//!
//! A *site* is a chosen node that has an int8 form, with the `Relu` or `Clip` that follows it. Its
//! activations are quantized. Where an activation comes out of an operator that only moves or
//! selects values ([`PASS_THROUGH`]), the value before that operator is quantized with the same
//! parameters, so that the operator runs on integers and nothing is rounded twice.

use std::collections::{HashMap, HashSet};

use qmodel::{Attribute, ElementType, Graph, Links, Model, Node, Tensor};

/// Operators that return values of their first input unchanged: their output needs no range of
/// its own.
pub(crate) const PASS_THROUGH: [&str; 7] = [
    "MaxPool",
    "Flatten",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Identity",
];

/// The operators with an int8 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Conv,
    Gemm,
    MatMul,
}

impl Kind {
    /// The kind of an operator type of the standard domain, if it has an int8 form: the one list
    /// of them.
    pub(crate) fn of(op_type: &str) -> Option<Kind> {
        match op_type {
            "Conv" => Some(Kind::Conv),
            "Gemm" => Some(Kind::Gemm),
            "MatMul" => Some(Kind::MatMul),
            _ => None,
        }
    }
}

/// The clamp that follows a site, in real numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Clamp {
    pub(crate) min: f32,
    pub(crate) max: f32,
}

/// A node that is quantized.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Index of the node.
    pub(crate) node: usize,
    pub(crate) kind: Kind,
    /// Name of the constant weight (input 1); `None` where two activations are multiplied.
    pub(crate) weight: Option<String>,
    /// Axis of the weight that counts output channels; `None` where scales per channel do not
    /// apply.
    pub(crate) channel_axis: Option<usize>,
    /// Name of the constant bias (input 2), when it has one element per output channel and
    /// enters the sum with factor 1.
    pub(crate) bias: Option<String>,
    /// The `Relu` or `Clip` that alone reads the node's output.
    pub(crate) clamp: Option<(usize, Clamp)>,
    /// The value that leaves the site: the node's output, or that of its clamp.
    pub(crate) output: String,
}

/// A chosen node that stays in float, and why.
#[derive(Debug, Clone)]
pub(crate) struct Skipped {
    pub(crate) node: usize,
    pub(crate) reason: String,
}

/// Everything that is known about the quantized model before any range is.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    pub(crate) sites: Vec<Site>,
    pub(crate) skipped: Vec<Skipped>,
    /// For every value that a site reads, and those between it and its root: the root, whose
    /// range it shares.
    roots: HashMap<String, String>,
    /// The keys of `roots` in the order in which they are computed.
    pub(crate) quantized: Vec<String>,
}

impl Placement {
    pub(crate) fn new(model: &Model, chosen: &[usize]) -> Placement {
        let graph = &model.graph;
        let links = graph.links();
        let (mut sites, mut skipped) = (Vec::new(), Vec::new());
        for &node in chosen {
            match site(graph, &links, node) {
                Ok(s) => sites.push(s),
                Err(reason) => skipped.push(Skipped { node, reason }),
            }
        }
        let mut roots = HashMap::new();
        for s in &sites {
            for value in activations(s, &graph.nodes[s.node]) {
                let chain = chain(graph, &links, value);
                let root = chain.last().copied().unwrap_or(value).to_owned();
                for v in chain {
                    roots.insert(v.to_owned(), root.clone());
                }
            }
        }
        let quantized = in_order(graph, |v| roots.contains_key(v));
        Placement {
            sites,
            skipped,
            roots,
            quantized,
        }
    }

    /// The value whose range `value` shares; itself where it is not among the quantized ones.
    pub(crate) fn root<'a>(&'a self, value: &'a str) -> &'a str {
        self.roots.get(value).map_or(value, String::as_str)
    }

    /// Whether `value`'s root leaves a site: it can then be computed as integers, and whoever
    /// reads it should read those, or the site would have to compute it twice.
    pub(crate) fn leaves_site(&self, value: &str) -> bool {
        let root = self.root(value);
        self.sites.iter().any(|s| s.output == root)
    }

    /// Whether a node passes a quantized value on to a site: its input and output share a root.
    pub(crate) fn passes_on(&self, node: &Node) -> bool {
        let (Some(from), Some(to)) = (node.input(0), node.output(0)) else {
            return false;
        };
        PASS_THROUGH.iter().any(|op| node.is(op))
            && self
                .roots
                .get(to)
                .is_some_and(|r| self.roots.get(from) == Some(r))
    }

    /// Whether some site reads `value`, perhaps through operators that pass it on.
    pub(crate) fn is_quantized(&self, value: &str) -> bool {
        self.roots.contains_key(value)
    }

    /// The values whose ranges are needed: the roots, and what leaves the sites.
    pub(crate) fn observed(&self, graph: &Graph) -> Vec<String> {
        let mut wanted: HashSet<&str> = self.roots.values().map(String::as_str).collect();
        wanted.extend(self.sites.iter().map(|s| s.output.as_str()));
        in_order(graph, |v| wanted.contains(v))
    }
}

/// The values of the graph that `keep` accepts, inputs first and then as nodes compute them.
fn in_order(graph: &Graph, keep: impl Fn(&str) -> bool) -> Vec<String> {
    let inputs = graph.inputs.iter().map(|i| &i.name);
    let computed = graph.nodes.iter().flat_map(|n| &n.outputs);
    inputs
        .chain(computed)
        .filter(|v| keep(v))
        .cloned()
        .collect()
}

/// The activations that a site reads.
pub(crate) fn activations<'a>(site: &Site, node: &'a Node) -> impl Iterator<Item = &'a str> {
    let count = if site.weight.is_some() { 1 } else { 2 };
    node.inputs.iter().take(count).map(String::as_str)
}

/// `value` and the values it is passed on from, its root last.
fn chain<'g>(graph: &'g Graph, links: &Links<'_>, value: &'g str) -> Vec<&'g str> {
    let mut chain = vec![value];
    let mut at = value;
    // The graph is acyclic, so this ends.
    while let Some(node) = links.producer(at).map(|i| &graph.nodes[i]) {
        let passes = PASS_THROUGH.iter().any(|op| node.is(op))
            && node.outputs.iter().filter(|o| !o.is_empty()).count() == 1;
        match node.input(0) {
            Some(from) if passes && graph.initializer(from).is_none() => {
                chain.push(from);
                at = from;
            }
            _ => break,
        }
    }
    chain
}

/// The site of a node, or why it has none.
fn site(graph: &Graph, links: &Links<'_>, index: usize) -> Result<Site, String> {
    let node = &graph.nodes[index];
    let Some(kind) = Kind::of(&node.op_type) else {
        return Err("it has no int8 form".to_owned());
    };
    let (Some(data), Some(second), Some(output)) = (node.input(0), node.input(1), node.output(0))
    else {
        return Err("it lacks an input or output".to_owned());
    };
    if graph.initializer(data).is_some() {
        return Err(format!("its first input \"{data}\" is a constant"));
    }
    let weight = graph.initializer(second);
    if let Some(w) = weight
        && w.element_type() != ElementType::F32
    {
        return Err(format!(
            "its weight \"{second}\" has element type {}",
            w.element_type()
        ));
    }
    let flag = |name| node.int_attribute(name).unwrap_or(0) != 0;
    let channel_axis = match (kind, weight) {
        (Kind::Conv, Some(w)) if w.rank() >= 3 => Some(0),
        (Kind::Gemm, Some(w)) if w.rank() == 2 => Some(usize::from(!flag("transB"))),
        (Kind::MatMul, Some(w)) if w.rank() == 2 => Some(1),
        (Kind::MatMul, _) => None,
        (_, Some(w)) => return Err(format!("its weight \"{second}\" has rank {}", w.rank())),
        (_, None) => return Err(format!("its weight \"{second}\" is not a constant")),
    };
    if kind == Kind::Gemm && flag("transA") {
        return Err("it transposes its activation (transA = 1)".to_owned());
    }
    let plain = |name| match node.attribute(name) {
        None => true,
        Some(Attribute::Float(v)) => *v == 1.0,
        Some(_) => false,
    };
    let channels = channel_axis.and_then(|a| weight.map(|w| w.shape()[a]));
    let bias = node.input(2).filter(|b| {
        let fits = |t: &Tensor| {
            t.element_type() == ElementType::F32 && t.rank() == 1 && Some(t.len()) == channels
        };
        graph.initializer(b).is_some_and(|t| fits(t)) && plain("alpha") && plain("beta")
    });
    if kind == Kind::Conv && bias.is_none() && node.input(2).is_some() {
        return Err("its bias is not a constant of one element per output channel".to_owned());
    }
    let clamp = links
        .only_consumer(output)
        .and_then(|i| clamp_of(graph, &graph.nodes[i]).map(|c| (i, c)));
    let leaves = clamp
        .and_then(|(i, _)| graph.nodes[i].output(0))
        .unwrap_or(output);
    Ok(Site {
        node: index,
        kind,
        weight: weight.is_some().then(|| second.to_owned()),
        channel_axis,
        bias: bias.map(str::to_owned),
        clamp,
        output: leaves.to_owned(),
    })
}

/// The clamp that a node is, when its bounds are known.
fn clamp_of(graph: &Graph, node: &Node) -> Option<Clamp> {
    if node.is("Relu") {
        return Some(Clamp {
            min: 0.0,
            max: f32::INFINITY,
        });
    }
    if !node.is("Clip") {
        return None;
    }
    // Bounds are attributes before opset 11 and inputs since; either may be absent.
    let bound = |slot: usize, attribute: &str, absent: f32| match (
        node.input(slot),
        node.attribute(attribute),
    ) {
        (Some(name), _) => match graph.initializer(name)?.as_slice::<f32>()? {
            [v] => Some(*v),
            _ => None,
        },
        (None, Some(Attribute::Float(v))) => Some(*v),
        (None, Some(_)) => None,
        (None, None) => Some(absent),
    };
    let min = bound(1, "min", f32::NEG_INFINITY)?;
    let max = bound(2, "max", f32::INFINITY)?;
    (min <= max).then_some(Clamp { min, max })
}
