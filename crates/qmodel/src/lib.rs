//! A model as a graph: ONNX files in and out, shape inference, and an executor for float32, QDQ
//! and int8 forms.
//!
//! | module or type | answers |
//! |---|---|
//! | [`Model`] | a file: load, save, operator sets, metadata |
//! | [`Graph`], [`Node`], [`Attribute`] | the typed graph, made to be rewritten |
//! | [`infer_shapes`] | the type of every value, with symbolic dimensions |
//! | [`fold_constants`] | computing what only constants go into, for good |
//! | [`Session`] | running a model; [`operators`] is what it can run |
//! | [`Tensor`], [`ElementType`] | data |
//! | [`Dim`], [`TensorType`], [`ValueInfo`] | what is known of values before they are computed |
//! | [`ModelError`] | everything that can be wrong |
//!
//! # From a file to a run
//!
//! `onnx` takes the protobuf messages apart and puts them together again; `graph` is what a
//! quantizer rewrites. [`Session::new`] makes a plan: one step for each node, built through the
//! table in `ops/registry.rs`, then fused by the rules in `session/fuse` (their module says what
//! that changes in the results), constants run ahead, and the last use of every value noted.
//! [`Session::run`] walks through the steps with a pool of buffers.
//!
//! # Adding an operator
//!
//! A file in `ops` with a `build` function, an `infer` that also checks shapes, and a `run`; and
//! one line in `ops/registry.rs`. The standard's node tests (`tests/onnx_node_tests.rs`) then find
//! its cases by themselves.
//!
//! # Bad input
//!
//! Nothing here panics on any bytes, model or tensor: sizes are compared with the data that is
//! there, shapes with [`SessionOptions::max_elements`], before memory is asked for.
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
pub use session::{Session, SessionOptions, fold_constants};
pub use shape::infer_shapes;
pub use tensor::{ElementType, Tensor, TensorData, TensorElement};
pub use value::{Dim, OpaqueType, TensorType, ValueInfo, ValueType};
