//! ONNX files: the protobuf schema, and the ways between it and the typed graph.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod proto;
