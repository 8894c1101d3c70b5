//! The one error type of the facade.

use qcalib::CalibError;
use qformat::FormatError;
use qmodel::ModelError;
use thiserror::Error;

/// What can go wrong on the way from a float model to a quantized one.
///
/// Every variant names the culprit, what was given, and what is allowed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The model, its inputs, or an operator in it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Quantization parameters that do not exist.
    #[error("{value}: {source}")]
    Format {
        /// The value or constant.
        value: String,
        /// What is wrong.
        #[source]
        source: FormatError,
    },
    /// Calibration data that gives no range.
    #[error("value \"{value}\": {source}")]
    Calibration {
        /// The value that was observed.
        value: String,
        /// What is wrong.
        #[source]
        source: CalibError,
    },
    /// An include or exclude pattern that is not a glob.
    #[error("pattern \"{given}\" is not a valid glob: {source}")]
    Pattern {
        /// The pattern.
        given: String,
        /// Why.
        #[source]
        source: globset::Error,
    },
    /// An include or exclude pattern that matches nothing.
    #[error(
        "{list} pattern \"{given}\" matches no node: use a node's exact name, a glob over names, \
         or an operator type; the model's nodes are {known}"
    )]
    NoMatch {
        /// `include` or `exclude`.
        list: &'static str,
        /// The pattern.
        given: String,
        /// Names it could have matched.
        known: String,
    },
    /// An include pattern that matches only operators that have no int8 form.
    #[error("include pattern \"{given}\" matches no operator that can be quantized ({allowed})")]
    NotQuantizable {
        /// The pattern.
        given: String,
        /// The operators that can be.
        allowed: String,
    },
    /// Nothing is left to quantize.
    #[error("no operator is chosen: the model has none of {allowed} that the lists leave in")]
    NothingChosen {
        /// The operators that can be quantized.
        allowed: String,
    },
    /// Every chosen operator has to stay in float.
    #[error("none of the chosen operators can be quantized: {reasons}")]
    NothingQuantizable {
        /// Each node and its reason.
        reasons: String,
    },
    /// A model whose operator set is too old for quantized models.
    #[error(
        "the model uses opset {given}; quantized models need at least {needed}, and {blocker} \
         may have changed its meaning in between: convert the model first, with onnx.version_converter \
         for example"
    )]
    Opset {
        /// The version of the standard operators that the model imports.
        given: i64,
        /// The lowest version that has what quantized models need.
        needed: i64,
        /// The operator that stands in the way.
        blocker: String,
    },
    /// A data set without arrays or samples.
    #[error("the data holds no samples: at least one array with at least one row is needed")]
    EmptyData,
    /// Calibration without a single batch.
    #[error("calibration saw no batch: at least one is needed")]
    NoBatches,
    /// Arrays with different numbers of samples.
    #[error(
        "array \"{name}\" has shape {given:?}: its first axis must have {expected} rows, as the first array has"
    )]
    Rows {
        /// The array.
        name: String,
        /// Its shape.
        given: Vec<usize>,
        /// Rows of the first array.
        expected: usize,
    },
    /// A value whose range was not observed.
    #[error(
        "value \"{value}\" was never computed during calibration as a float32 with a finite element, so it has no range"
    )]
    Unobserved {
        /// The value.
        value: String,
    },
    /// A method for a tensor that is not quantized.
    #[error("\"{given}\" is no tensor that gets a range: those of this model are {known}")]
    NoTensor {
        /// The name.
        given: String,
        /// Names that exist.
        known: String,
    },
    /// A method whose observer did not run.
    #[error(
        "method \"{method}\" needs a {needs} observer, which calibration did not place: name the method when observers are placed"
    )]
    NotObserved {
        /// The method.
        method: String,
        /// The observer it reads.
        needs: String,
    },
    /// Bytes that are no recorded calibration.
    #[error("this is no recorded calibration: such files start with \"QCAL\"")]
    StateMagic,
    /// A recorded calibration of another version.
    #[error("the recorded calibration has version {given}: this build reads version {expected}")]
    StateVersion {
        /// Its version.
        given: u32,
        /// The version that is read.
        expected: u32,
    },
    /// A recorded calibration that was cut off, or has something after its end.
    #[error("the recorded calibration has {given} bytes, but {expected} belong to it")]
    StateLength {
        /// Bytes that are there.
        given: u64,
        /// Bytes that belong to it.
        expected: u64,
    },
    /// A recorded calibration whose bytes changed after it was written.
    #[error(
        "the recorded calibration is damaged: its checksum is {given:#010x}, not {expected:#010x}"
    )]
    StateChecksum {
        /// That of the bytes that are there.
        given: u32,
        /// That which was stored with them.
        expected: u32,
    },
    /// A recorded calibration that no calibration writes.
    #[error("the recorded calibration is not valid: {problem}")]
    StateContent {
        /// What is wrong.
        problem: String,
    },
    /// Recorded calibrations that do not belong together, or to another model.
    #[error("the recorded calibration does not fit: its {what} is {given}, {expected} is needed")]
    StateMismatch {
        /// What differs.
        what: &'static str,
        /// What was given.
        given: String,
        /// What it must be.
        expected: String,
    },
    /// A batch that was observed twice.
    #[error("batch {batch} was observed before: every batch of the data set counts once")]
    Overlap {
        /// Its number, from 0.
        batch: u64,
    },
    /// A recorded calibration that lacks a part of the data set.
    #[error(
        "the recorded calibration lacks batches {first} to {last} of {total} (counted from 0): \
         merge all shards"
    )]
    Incomplete {
        /// The first batch of the first gap.
        first: u64,
        /// The last batch of that gap.
        last: u64,
        /// Batches of the data set.
        total: u64,
    },
    /// A value that is to be quantized and is not in the recorded calibration.
    #[error(
        "value \"{value}\" is not in the recorded calibration: calibrate with all operators that \
         are to be quantized"
    )]
    NotRecorded {
        /// The value.
        value: String,
    },
    /// An output that cannot be compared or scored.
    #[error("output \"{output}\" {problem}")]
    Output {
        /// Name of the output.
        output: String,
        /// What is wrong, and what would do.
        problem: String,
    },
    /// A name that no option has.
    #[error("{what} \"{given}\" is unknown: use one of {allowed}")]
    Name {
        /// What was being named.
        what: &'static str,
        /// The name as given.
        given: String,
        /// The names that exist.
        allowed: &'static str,
    },
}
