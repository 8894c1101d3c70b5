//! Nodes and their attributes.

use std::sync::Arc;

use crate::Tensor;
use crate::onnx::proto;

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A number.
    Float(f32),
    /// Text.
    String(String),
    /// A tensor.
    Tensor(Arc<Tensor>),
    /// Integers.
    Ints(Vec<i64>),
    /// Numbers.
    Floats(Vec<f32>),
    /// Texts.
    Strings(Vec<String>),
    /// Anything else (subgraphs, types, references, bytes that are not text): kept as the file
    /// has it.
    Opaque(OpaqueAttribute),
}

impl Attribute {
    /// The kind, for error messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Attribute::Int(v) => v.to_string(),
            Attribute::Float(v) => v.to_string(),
            Attribute::String(v) => format!("\"{v}\""),
            Attribute::Tensor(t) => format!("a {} tensor {:?}", t.element_type(), t.shape()),
            Attribute::Ints(v) => format!("{:?}", &v[..v.len().min(16)]),
            Attribute::Floats(v) => format!("{:?}", &v[..v.len().min(16)]),
            Attribute::Strings(v) => format!("{:?}", &v[..v.len().min(16)]),
            Attribute::Opaque(_) => "a subgraph, type or reference".to_owned(),
        }
    }
}

/// An attribute that is only carried from file to file.
#[derive(Debug, Clone, PartialEq)]
pub struct OpaqueAttribute(pub(crate) Box<proto::AttributeProto>);

impl OpaqueAttribute {
    /// Calls `f` on every value name that a subgraph in this attribute reads. Names that the
    /// subgraph defines itself are among them.
    fn visit(&self, f: &mut dyn FnMut(&str)) {
        fn graph(g: &proto::GraphProto, f: &mut dyn FnMut(&str)) {
            for n in &g.node {
                n.input.iter().for_each(|i| f(i));
                for a in &n.attribute {
                    a.g.iter().chain(&a.graphs).for_each(|g| graph(g, f));
                }
            }
            g.output.iter().for_each(|o| f(&o.name));
        }
        self.0
            .g
            .iter()
            .chain(&self.0.graphs)
            .for_each(|g| graph(g, f));
    }
}

/// A named attribute of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Attribute,
    /// Documentation.
    pub doc_string: String,
}

/// One application of an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Name; may be empty.
    pub name: String,
    /// The operator: `Conv`.
    pub op_type: String,
    /// The operator's domain; empty for the standard one.
    pub domain: String,
    /// Names of the values read; an empty name is an optional input that is not given.
    pub inputs: Vec<String>,
    /// Names of the values defined; an empty name is an optional output that is not wanted.
    pub outputs: Vec<String>,
    /// Attributes, in file order.
    pub attributes: Vec<NamedAttribute>,
    /// Documentation.
    pub doc_string: String,
    /// Free key and value pairs.
    pub metadata: Vec<(String, String)>,
    pub(crate) overload: String,
    pub(crate) devices: Vec<proto::NodeDeviceConfigurationProto>,
}

impl Node {
    /// A node of the standard domain without attributes.
    ///
    /// ```
    /// use qmodel::{Attribute, Node};
    /// let n = Node::new("relu", "Relu", ["x"], ["y"]);
    /// assert_eq!(n.label(), "Relu node \"relu\"");
    /// let q = Node::new("q", "QuantizeLinear", ["x", "s", "z"], ["y"])
    ///     .with_attribute("axis", Attribute::Int(0));
    /// assert_eq!(q.attribute("axis"), Some(&Attribute::Int(0)));
    /// ```
    #[must_use]
    pub fn new<I: Into<String>, O: Into<String>>(
        name: impl Into<String>,
        op_type: impl Into<String>,
        inputs: impl IntoIterator<Item = I>,
        outputs: impl IntoIterator<Item = O>,
    ) -> Node {
        Node {
            name: name.into(),
            op_type: op_type.into(),
            domain: String::new(),
            inputs: inputs.into_iter().map(Into::into).collect(),
            outputs: outputs.into_iter().map(Into::into).collect(),
            attributes: Vec::new(),
            doc_string: String::new(),
            metadata: Vec::new(),
            overload: String::new(),
            devices: Vec::new(),
        }
    }

    /// The node with another domain.
    #[must_use]
    pub fn with_domain(mut self, domain: impl Into<String>) -> Node {
        self.domain = domain.into();
        self
    }

    /// The node with an attribute more.
    #[must_use]
    pub fn with_attribute(mut self, name: impl Into<String>, value: Attribute) -> Node {
        self.set_attribute(name, value);
        self
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes
            .iter()
            .find(|a| a.name == name)
            .map(|a| &a.value)
    }

    /// The value of an integer attribute; `None` also where it is of another kind.
    #[must_use]
    pub fn int_attribute(&self, name: &str) -> Option<i64> {
        match self.attribute(name) {
            Some(Attribute::Int(v)) => Some(*v),
            _ => None,
        }
    }

    /// Sets or replaces an attribute.
    pub fn set_attribute(&mut self, name: impl Into<String>, value: Attribute) {
        let name = name.into();
        match self.attributes.iter_mut().find(|a| a.name == name) {
            Some(a) => a.value = value,
            None => {
                self.attributes.push(NamedAttribute {
                    name,
                    value,
                    doc_string: String::new(),
                });
            }
        }
    }

    /// Whether the domain is the standard one (`""` or `"ai.onnx"`).
    #[must_use]
    pub fn is_standard(&self) -> bool {
        canonical_domain(&self.domain).is_empty()
    }

    /// Whether this is the operator `op` of the standard domain.
    #[must_use]
    pub fn is(&self, op: &str) -> bool {
        self.op_type == op && self.is_standard()
    }

    /// Input `i`; `None` where it is not given.
    #[must_use]
    pub fn input(&self, i: usize) -> Option<&str> {
        self.inputs
            .get(i)
            .map(String::as_str)
            .filter(|s| !s.is_empty())
    }

    /// Output `i`; `None` where it is not wanted.
    #[must_use]
    pub fn output(&self, i: usize) -> Option<&str> {
        self.outputs
            .get(i)
            .map(String::as_str)
            .filter(|s| !s.is_empty())
    }

    /// How error messages call this node: `Conv node "conv1"`, or `Conv node of "y"` (its first
    /// output) where it has no name.
    #[must_use]
    pub fn label(&self) -> String {
        if self.name.is_empty() {
            let output = self.outputs.iter().find(|o| !o.is_empty());
            format!(
                "{} node of \"{}\"",
                self.op_type,
                output.map_or("", String::as_str)
            )
        } else {
            format!("{} node \"{}\"", self.op_type, self.name)
        }
    }

    /// The shortest way to call this node: its name, or its first output where it has none, or the
    /// operator where it has neither.
    ///
    /// ```
    /// use qmodel::Node;
    /// assert_eq!(Node::new("fc", "MatMul", ["x", "w"], ["y"]).display_name(), "fc");
    /// assert_eq!(Node::new("", "MatMul", ["x", "w"], ["y"]).display_name(), "y");
    /// ```
    #[must_use]
    pub fn display_name(&self) -> &str {
        [&self.name]
            .into_iter()
            .chain(&self.outputs)
            .find(|name| !name.is_empty())
            .unwrap_or(&self.op_type)
    }

    /// Calls `f` on every value that the node reads, also from inside subgraphs (where names that
    /// the subgraph itself defines are called too).
    pub(crate) fn for_each_use(&self, f: &mut dyn FnMut(&str)) {
        self.inputs
            .iter()
            .filter(|i| !i.is_empty())
            .for_each(|i| f(i));
        for a in &self.attributes {
            if let Attribute::Opaque(o) = &a.value {
                o.visit(f);
            }
        }
    }

    /// Whether the node carries subgraphs.
    #[must_use]
    pub fn has_subgraphs(&self) -> bool {
        self.attributes.iter().any(|a| match &a.value {
            Attribute::Opaque(o) => o.0.g.is_some() || !o.0.graphs.is_empty(),
            _ => false,
        })
    }
}

/// `""` for both spellings of the standard domain.
pub(crate) fn canonical_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}
