//! A model as a graph: ONNX files in and out, shape inference, and an executor for float32, QDQ
//! and int8 forms.
//!
//! | module or type | answers |
//! |---|---|
//! | [`Model`] | a file: load, save, operator sets, metadata |
//! | [`Graph`], [`Node`], [`Attribute`] | the typed graph, made to be rewritten |
//! | [`Tensor`], [`ElementType`] | data |
//! | [`Dim`], [`TensorType`], [`ValueInfo`] | what is known of values before they are computed |
//! | [`ModelError`] | everything that can be wrong |
#![deny(unsafe_code)]

mod error;
mod graph;
mod model;
mod node;
mod onnx;
mod tensor;
mod value;

pub use error::ModelError;
pub use graph::{Graph, Initializer, Links, Names};
pub use model::{Model, OpsetImport};
pub use node::{Attribute, NamedAttribute, Node, OpaqueAttribute};
pub use tensor::{ElementType, Tensor, TensorData, TensorElement};
pub use value::{Dim, OpaqueType, TensorType, ValueInfo, ValueType};
