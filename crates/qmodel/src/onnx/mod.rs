//! ONNX files: the protobuf schema, and the ways between it and the typed graph.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod proto;

use prost::Message as _;

use crate::{ModelError, Tensor};

impl Tensor {
    /// Reads a serialised `TensorProto` (a `.pb` file): its name and the tensor.
    ///
    /// # Errors
    ///
    /// [`ModelError::Decode`] for bytes that are no tensor, and errors naming the tensor for
    /// external data, unsupported element types, and data that does not fill its shape.
    ///
    /// ```
    /// use qmodel::Tensor;
    /// let t = Tensor::vector(vec![1f32, 2.0]);
    /// let (name, read) = Tensor::from_onnx_bytes(&t.to_onnx_bytes("x"))?;
    /// assert_eq!((name.as_str(), read), ("x", t));
    /// # Ok::<(), qmodel::ModelError>(())
    /// ```
    pub fn from_onnx_bytes(bytes: &[u8]) -> Result<(String, Tensor), ModelError> {
        let mut message =
            proto::TensorProto::decode(bytes).map_err(|source| ModelError::Decode {
                what: "tensor",
                source,
            })?;
        let name = std::mem::take(&mut message.name);
        let tensor = decode::tensor(message, &name)?;
        Ok((name, tensor))
    }

    /// The bytes of a serialised `TensorProto` of this name.
    #[must_use]
    pub fn to_onnx_bytes(&self, name: &str) -> Vec<u8> {
        proto::TensorProto {
            name: name.to_owned(),
            ..encode::tensor(self)
        }
        .encode_to_vec()
    }
}
