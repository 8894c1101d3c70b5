//! What is known about a value before it is computed: element type and dimensions.

use std::fmt;

use crate::ElementType;
use crate::onnx::proto;

/// One dimension of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A number.
    Known(usize),
    /// A name that stands for one number throughout the model, such as the batch size `N`.
    Symbol(String),
    /// Nothing is known.
    Unknown,
}

impl Dim {
    /// The number, where it is known.
    #[must_use]
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(n) => Some(*n),
            Dim::Symbol(_) | Dim::Unknown => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Symbol(s) => f.write_str(s),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::Known(n)
    }
}

/// Element type and shape of a tensor value; `shape` is `None` where even the rank is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// The element type.
    pub element: ElementType,
    /// The dimensions, outermost first.
    pub shape: Option<Vec<Dim>>,
}

impl TensorType {
    /// A type whose dimensions are all known.
    #[must_use]
    pub fn known(element: ElementType, shape: &[usize]) -> TensorType {
        TensorType {
            element,
            shape: Some(shape.iter().map(|&d| Dim::Known(d)).collect()),
        }
    }

    /// A type of unknown rank.
    #[must_use]
    pub fn unknown(element: ElementType) -> TensorType {
        TensorType {
            element,
            shape: None,
        }
    }
}

impl fmt::Display for TensorType {
    /// `f32[N, 1, 28, 28]`, or `f32[...]` for an unknown rank.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.element)?;
        match &self.shape {
            Some(dims) => write_dims(f, dims),
            None => f.write_str("[...]"),
        }
    }
}

/// `[N, 1, 28, 28]`.
fn write_dims(f: &mut fmt::Formatter<'_>, dims: &[Dim]) -> fmt::Result {
    f.write_str("[")?;
    for (i, d) in dims.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{d}")?;
    }
    f.write_str("]")
}

/// The type of a value as a model declares it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ValueType {
    /// A tensor of a type that this crate knows.
    Tensor(TensorType),
    /// Anything else (sequences, strings, sparse tensors, or nothing at all): kept as the file
    /// has it, not computed with.
    Opaque(OpaqueType),
}

/// A type that is only carried from file to file.
#[derive(Debug, Clone, PartialEq)]
pub struct OpaqueType(pub(crate) Option<Box<proto::TypeProto>>);

/// A named value with its declared type: a graph's input, output, or intermediate value.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueInfo {
    /// Name of the value.
    pub name: String,
    /// Its type.
    pub ty: ValueType,
    /// Documentation.
    pub doc_string: String,
    /// Free key and value pairs.
    pub metadata: Vec<(String, String)>,
    /// The type as the file had it, where it says more than `ty` (denotations, negative sizes);
    /// written again while `ty` still says the same.
    pub(crate) original: Option<Box<proto::TypeProto>>,
}

impl ValueInfo {
    /// A tensor value.
    ///
    /// ```
    /// use qmodel::{Dim, ElementType, ValueInfo};
    /// let x = ValueInfo::tensor("x", ElementType::F32, vec![Dim::Symbol("N".into()), 10.into()]);
    /// assert_eq!(x.tensor_type().unwrap().to_string(), "f32[N, 10]");
    /// ```
    #[must_use]
    pub fn tensor(name: impl Into<String>, element: ElementType, shape: Vec<Dim>) -> ValueInfo {
        ValueInfo::new(
            name,
            TensorType {
                element,
                shape: Some(shape),
            },
        )
    }

    /// A tensor value of a given type.
    #[must_use]
    pub fn new(name: impl Into<String>, ty: TensorType) -> ValueInfo {
        ValueInfo {
            name: name.into(),
            ty: ValueType::Tensor(ty),
            doc_string: String::new(),
            metadata: Vec::new(),
            original: None,
        }
    }

    /// The type, where it is that of a tensor.
    #[must_use]
    pub fn tensor_type(&self) -> Option<&TensorType> {
        match &self.ty {
            ValueType::Tensor(t) => Some(t),
            ValueType::Opaque(_) => None,
        }
    }
}
