//! Operators of the domain `com.microsoft`, as ONNX Runtime's quantizers write them; its
//! `ContribOperators.md` defines them.

pub(crate) mod qgemm;
pub(crate) mod qlinearadd;
pub(crate) mod qlinearaveragepool;
pub(crate) mod qlinearconcat;
pub(crate) mod qlinearglobalaveragepool;
pub(crate) mod qlinearmul;
pub(crate) mod qlinearsigmoid;

mod bytes;
