//! The one error type of the crate.

use std::path::PathBuf;

use thiserror::Error;

use crate::ElementType;

/// Everything that can be wrong with a model, its inputs, or an operator in it.
///
/// Every variant names the culprit (file, tensor, value, node), what was given, and what is
/// allowed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// Bytes that are not an ONNX protobuf message.
    #[error("not a readable ONNX {what}: {source}")]
    Decode {
        /// The message that was expected: `model` or `tensor`.
        what: &'static str,
        /// What the protobuf decoder says.
        #[source]
        source: prost::DecodeError,
    },
    /// A part that every model needs and this one lacks.
    #[error("the model has no {what}")]
    Missing {
        /// The part.
        what: &'static str,
    },
    /// A tensor whose contents are in another file.
    #[error("tensor \"{tensor}\" keeps its data in an external file, which is not supported")]
    ExternalData {
        /// Name of the tensor.
        tensor: String,
    },
    /// An element type that this crate does not store.
    #[error("{what} \"{name}\" has element type {given}, which is not supported: {allowed} are")]
    ElementType {
        /// `tensor`, `value` or `attribute`.
        what: &'static str,
        /// Its name.
        name: String,
        /// ONNX's name of the type, or its number.
        given: String,
        /// The types that are.
        allowed: &'static str,
    },
    /// A tensor with a negative dimension, or with more elements than can be counted.
    #[error(
        "tensor \"{tensor}\" has dimensions {dims:?}: each must be at least 0 and their product must fit"
    )]
    Dims {
        /// Name of the tensor.
        tensor: String,
        /// Dimensions as given.
        dims: Vec<i64>,
    },
    /// A tensor whose data does not fill its shape.
    #[error("tensor \"{tensor}\": {given} {unit} of data given, shape {shape:?} needs {expected}")]
    DataLength {
        /// Name of the tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes or elements there are.
        given: usize,
        /// Bytes or elements there must be.
        expected: usize,
        /// `bytes` or `elements`.
        unit: &'static str,
    },
    /// A tensor beyond the limit on elements.
    #[error("\"{value}\" of shape {shape:?} would have more than {max} elements, the limit")]
    TooLarge {
        /// Name of the value or node.
        value: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The limit.
        max: usize,
    },
    /// Two definitions of one value.
    #[error("value \"{value}\" is defined twice")]
    DuplicateValue {
        /// Name of the value.
        value: String,
    },
    /// A node that reads a value which nothing defines.
    #[error("{node} reads \"{value}\", which no input, initializer or node defines")]
    UndefinedValue {
        /// The node, as [`Node::label`](crate::Node::label) writes it, or `graph output`.
        node: String,
        /// The value.
        value: String,
    },
    /// Nodes that wait for each other.
    #[error("the graph has a cycle through {nodes}")]
    Cycle {
        /// Labels of some nodes on or behind the cycle.
        nodes: String,
    },
    /// An operator that the registry does not have, in this domain and version.
    #[error(
        "{node}: operator {op} of domain \"{domain}\", version {version}, is not supported{hint}"
    )]
    UnknownOperator {
        /// The node.
        node: String,
        /// The operator.
        op: String,
        /// Its domain; `ai.onnx` for the default one.
        domain: String,
        /// The version of the domain that the model imports.
        version: i64,
        /// What would be supported, where anything near is.
        hint: String,
    },
    /// A domain that a node uses and the model does not import.
    #[error("{node}: the model imports no version of domain \"{domain}\"")]
    MissingOpset {
        /// The node.
        node: String,
        /// The domain.
        domain: String,
    },
    /// An attribute that is missing, of the wrong kind, out of range, or unknown.
    #[error("{node}: attribute {attribute} = {given} is not allowed: {allowed}")]
    Attribute {
        /// The node.
        node: String,
        /// The attribute.
        attribute: String,
        /// What was given.
        given: String,
        /// What is allowed.
        allowed: String,
    },
    /// A wrong number of inputs or outputs.
    #[error("{node}: {given} {what} given, {allowed} allowed")]
    Arity {
        /// The node.
        node: String,
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// How many there may be.
        allowed: String,
    },
    /// An operand of an element type that the operator does not take.
    #[error("{node}: {operand} has element type {given}, {allowed} allowed")]
    OperandType {
        /// The node.
        node: String,
        /// The operand.
        operand: String,
        /// Its type.
        given: ElementType,
        /// The types that would do.
        allowed: String,
    },
    /// An operand of a shape or value that the operator does not take.
    #[error("{node}: {operand} = {given} is not allowed: {allowed}")]
    Operand {
        /// The node.
        node: String,
        /// The operand.
        operand: String,
        /// Its shape or value.
        given: String,
        /// What would do.
        allowed: String,
    },
    /// Quantization parameters that are not valid.
    #[error("{node}: {source}")]
    Quantization {
        /// The node.
        node: String,
        /// What is wrong with them.
        #[source]
        source: qformat::FormatError,
    },
    /// A kernel that refuses its arguments: a sum that could leave 32 bits, for one.
    #[error("{node}: {source}")]
    Kernel {
        /// The node.
        node: String,
        /// What the kernel says.
        #[source]
        source: qkernels::KernelError,
    },
    /// An input name that the graph does not have.
    #[error("input \"{given}\" does not exist: the model's inputs are {allowed}")]
    WrongInputName {
        /// The name as given.
        given: String,
        /// The names that exist.
        allowed: String,
    },
    /// An input given twice.
    #[error("input \"{name}\" is given twice")]
    DuplicateInput {
        /// The name.
        name: String,
    },
    /// An input that is not given.
    #[error("input \"{name}\" is missing")]
    MissingInput {
        /// The name.
        name: String,
    },
    /// An input of the wrong element type.
    #[error("input \"{name}\" has element type {given}, {expected} expected")]
    InputType {
        /// The name.
        name: String,
        /// The type as given.
        given: ElementType,
        /// The type that the model declares.
        expected: ElementType,
    },
    /// An input of the wrong rank, or with a wrong dimension.
    #[error("input \"{name}\" has shape {given:?}, {expected} expected")]
    InputShape {
        /// The name.
        name: String,
        /// The shape as given.
        given: Vec<usize>,
        /// The shape that the model declares.
        expected: String,
    },
}

impl ModelError {
    /// An operand that a node does not take; the node is named by [`at`](Self::at).
    pub(crate) fn operand(
        operand: impl Into<String>,
        given: impl Into<String>,
        allowed: impl Into<String>,
    ) -> ModelError {
        ModelError::Operand {
            node: String::new(),
            operand: operand.into(),
            given: given.into(),
            allowed: allowed.into(),
        }
    }

    /// An operand of a type that a node does not take; the node is named by [`at`](Self::at).
    pub(crate) fn operand_type(
        operand: impl Into<String>,
        given: ElementType,
        allowed: impl Into<String>,
    ) -> ModelError {
        ModelError::OperandType {
            node: String::new(),
            operand: operand.into(),
            given,
            allowed: allowed.into(),
        }
    }

    /// The same error with the node named, where it is not yet.
    pub(crate) fn at(mut self, label: &str) -> ModelError {
        match &mut self {
            ModelError::Attribute { node, .. }
            | ModelError::Arity { node, .. }
            | ModelError::OperandType { node, .. }
            | ModelError::Operand { node, .. }
            | ModelError::Kernel { node, .. }
            | ModelError::Quantization { node, .. }
                if node.is_empty() =>
            {
                label.clone_into(node);
            }
            ModelError::TooLarge { value, .. } if value.is_empty() => label.clone_into(value),
            _ => {}
        }
        self
    }
}

impl From<qformat::FormatError> for ModelError {
    fn from(source: qformat::FormatError) -> ModelError {
        ModelError::Quantization {
            node: String::new(),
            source,
        }
    }
}

impl From<qkernels::KernelError> for ModelError {
    fn from(source: qkernels::KernelError) -> ModelError {
        ModelError::Kernel {
            node: String::new(),
            source,
        }
    }
}
