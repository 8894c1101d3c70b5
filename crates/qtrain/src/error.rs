//! The one error type of the crate.

use qcalib::CalibError;
use qformat::FormatError;
use qmodel::ModelError;
use thiserror::Error;

/// What can go wrong while a network is loaded, calibrated, trained, corrected or written.
///
/// Every variant names what is at fault, what was given, and what is allowed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The tensor library refuses an operation.
    #[error("tensors: {0}")]
    Tensor(Box<candle_core::Error>),
    /// Calibration, a gradient or a correction refuses its arguments.
    #[error(transparent)]
    Calib(#[from] CalibError),
    /// Quantization parameters or a measure that are refused.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A model that cannot be read, run or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A part of a model that is not trained here.
    #[error("{place}: {given} is not supported: {allowed}")]
    Unsupported {
        /// The node, or the part of the model.
        place: String,
        /// What is there.
        given: String,
        /// What may be there.
        allowed: &'static str,
    },
    /// A data set that does not hold what it should.
    #[error("{file}: {problem}")]
    Data {
        /// The file.
        file: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A sample that cannot be trained on.
    #[error("sample {sample} has {given}: {allowed}")]
    Sample {
        /// Its index.
        sample: usize,
        /// What is wrong with it.
        given: String,
        /// What it may have.
        allowed: &'static str,
    },
    /// A setting outside its domain.
    #[error("{argument} {given} is not allowed: it must be {allowed}")]
    Setting {
        /// The setting.
        argument: &'static str,
        /// Its value.
        given: String,
        /// The domain.
        allowed: &'static str,
    },
    /// Two lists that must be equally long and are not.
    #[error("{given} {what} given, {expected} expected")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// How many there must be.
        expected: usize,
    },
    /// A loss that is no longer a number.
    #[error("the loss is {loss} at step {step}: a lower learning rate may help")]
    Diverged {
        /// The step, from 0.
        step: usize,
        /// The loss.
        loss: f32,
    },
    /// A written model that predicts something else than what was trained.
    #[error(
        "the written model predicts something else on {differing} of {samples} samples; at most \
         {allowed} may differ"
    )]
    Disagreement {
        /// Samples whose first choice differs.
        differing: usize,
        /// All samples.
        samples: usize,
        /// How many may.
        allowed: usize,
    },
    /// What was said could not be written.
    #[error("standard output: {0}")]
    Stdout(std::io::Error),
}

impl From<candle_core::Error> for TrainError {
    fn from(cause: candle_core::Error) -> Self {
        TrainError::Tensor(Box::new(cause))
    }
}
