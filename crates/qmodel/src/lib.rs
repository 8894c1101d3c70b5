//! A model as a graph: ONNX files in and out, shape inference, and an executor for float32, QDQ
//! and int8 forms.
//!
//! | module or type | answers |
//! |---|---|
//! | [`Model`] | a file: load, save, operator sets, metadata |
//! | [`Graph`], [`Node`], [`Attribute`] | the typed graph, made to be rewritten |
//! | [`infer_shapes`] | the type of every value, with symbolic dimensions |
//! | [`Session`] | running a model; [`operators`] is what it can run |
//! | [`Tensor`], [`ElementType`] | data |
//! | [`Dim`], [`TensorType`], [`ValueInfo`] | what is known of values before they are computed |
//! | [`ModelError`] | everything that can be wrong |
#![deny(unsafe_code)]

mod error;
mod graph;
mod integer;
mod model;
mod node;
mod onnx;
mod ops;
mod product;
mod session;
mod shape;
mod tensor;
mod value;

pub use error::ModelError;
pub use graph::{Graph, Initializer, Links, Names};
pub use model::{Model, OpsetImport};
pub use node::{Attribute, NamedAttribute, Node, OpaqueAttribute};
pub use ops::registry::operators;
pub use session::{Session, SessionOptions};
pub use shape::infer_shapes;
pub use tensor::{ElementType, Tensor, TensorData, TensorElement};
pub use value::{Dim, OpaqueType, TensorType, ValueInfo, ValueType};
