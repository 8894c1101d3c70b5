//! The quantization core for inference runtimes: one facade over formats, kernels, calibration
//! and models, and the six steps from a float model to a quantized one as types.
//!
//! # The six steps
//!
//! ```no_run
//! use quaver::calib::Policy;
//! use quaver::model::{Model, Tensor};
//! use quaver::{Baseline, ConvertOptions, Dataset, Method, Operators};
//!
//! # fn load() -> Dataset { unreachable!() }
//! let model = Model::load("model.onnx")?;
//! let data: Dataset = load();
//!
//! let chosen = Operators::new().exclude(["head/*"]).choose(&model)?; // 1. choose operators
//! let observing = chosen.observe(&[Method::MinMax, Method::Mse], Policy::Error)?; // 2. observe
//! let calibrated = observing.calibrate(data.batches(10))?; // 3. calibrate
//! let options = ConvertOptions { method: Method::Mse, ..ConvertOptions::default() };
//! let converted = calibrated.convert(&options)?; // 4. convert
//! converted.save("model.int8.onnx")?;
//!
//! let mut baseline = Baseline::new(&model, &data, 100)?;
//! let evaluated = converted.evaluate(&mut baseline, None)?; // 5. evaluate
//! println!("{:?}", evaluated.report()); // 6. report
//! # Ok::<(), quaver::QuantizeError>(())
//! ```
//!
//! Each step consumes what the step before it returned, so a wrong order does not compile:
//!
//! ```compile_fail,E0599
//! # let chosen: quaver::Chosen = unreachable!();
//! let converted = chosen.convert(&quaver::ConvertOptions::default()); // not calibrated
//! ```
//!
//! What each choice of step 4 would cost, and what would help: [`mod@explain`]. Calibration can be
//! spread over machines: [`Recorded`]. It can be skipped where ranges are taken at run time:
//! [`Chosen::dynamic`].
//!
//! # The crates below
//!
//! | module | crate | answers |
//! |---|---|---|
//! | [`mod@format`] | `qformat` | what a quantized number is |
//! | [`kernels`] | `qkernels` | how it is computed fast |
//! | [`calib`] | `qcalib` | how ranges are found |
//! | [`model`] | `qmodel` | graphs, ONNX files, the executor |
#![forbid(unsafe_code)]

pub use qcalib as calib;
pub use qformat as format;
pub use qkernels as kernels;
pub use qmodel as model;

mod batches;
mod data;
mod each;
mod error;
mod evaluate;
pub mod explain;
mod mixed;
mod operators;
mod options;
mod parallel;
mod placement;
mod ranges;
mod recorded;
mod report;
mod rewrite;
mod steps;

pub use batches::BatchPlan;
pub use data::{Batch, Dataset, join_rows};
pub use error::QuantizeError;
pub use evaluate::{Baseline, Evaluation, Latency, LatencyOptions, Outputs};
pub use explain::{ExplainOptions, Explanation};
pub use operators::{DEFAULT_TYPES, Operators};
pub use options::{ConvertOptions, Format, WeightGranularity};
pub use qcalib::Method;
pub use recorded::Recorded;
pub use report::{Mode, NodeReport, Report, TensorReport};
pub use steps::{Calibrated, Chosen, Converted, Evaluated, Observing};
