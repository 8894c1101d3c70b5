//! Quantization-aware training of the digit classifier, and what corrections are worth.
//!
//! At eight bits, choosing ranges well is enough. At four, what rounding does to a network is
//! large enough that the network should know of it: it is trained further while its operands are
//! rounded as they will be.
//!
//! | module | answers |
//! |---|---|
//! | [`Network`] | an ONNX model as a chain of layers, batch normalizations folded |
//! | [`Normalized`] | the same with its batch normalizations apart, and [how to insert them](batch_norm::insert) |
//! | [`graph`] | the forward pass on candle; [`graph::Operands`] decides what happens to operands |
//! | [`ops`] | fake quantization with qcalib's gradients, and convolutions, as candle operators |
//! | [`calibrate`] | quantizers without training, by a method of calibration |
//! | [`train`] | training with fake quantization and batch statistics: observe, adapt, freeze |
//! | [`export`] | the result as a standard ONNX file |
//! | [`corrections`] | bias correction, equalization, smoothing: what each is worth |
//! | [`evaluate`] | accuracy, agreement and noise |
//!
//! ```
//! use qcalib::Method;
//! use qformat::Granularity;
//! use qtrain::quantized::{Fixed, Width};
//! use qtrain::{Network, calibrate, data, evaluate, export, graph::Graph};
//!
//! let network = Network::new(&data::model()?)?;
//! let digits = data::calibration()?.select(&[0, 1, 2, 3, 4, 5, 6, 7]);
//!
//! // Four bits without training: eight digits choose the ranges of activations.
//! let (method, weights) = (Method::MinMax, Granularity::PerTensor);
//! let quantizers = calibrate::quantize(&network, &digits, method, Width::W4A4, weights)?;
//!
//! // The written model predicts, in the executor, what the quantized graph does.
//! let graph = Graph::new(&network)?;
//! let ours = evaluate::logits(&graph, &digits, &mut Fixed(&quantizers))?;
//! let written = export::model(&network, &quantizers)?;
//! let executed = export::run(&network, &written, &digits)?;
//! assert_eq!(export::compare(&ours, &executed, network.classes(), 0)?, 0);
//! # Ok::<(), qtrain::TrainError>(())
//! ```
//!
//! # Determinism
//!
//! Samples are drawn by a seed, and no sum is split over threads in an order that depends on them:
//! the same arguments give the same bits on the same machine. Another processor multiplies
//! matrices in another order, so there expect the accuracy to agree and the bits not to.
#![forbid(unsafe_code)]

pub mod batch_norm;
pub mod calibrate;
pub mod corrections;
pub mod data;
mod error;
pub mod evaluate;
pub mod export;
pub mod graph;
mod network;
pub mod ops;
pub mod quantized;
pub mod train;

pub use batch_norm::Normalized;
pub use error::TrainError;
pub use network::{Layer, Network, Passing, Product};
