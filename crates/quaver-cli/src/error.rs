//! Errors as people read them: what is wrong, and what to do.

use std::path::PathBuf;

use miette::Diagnostic;
use quaver::QuantizeError;
use quaver::calib::CalibError;
use quaver::model::ModelError;
use thiserror::Error;

/// Everything that a subcommand can fail with.
///
/// Messages include what caused them, so no variant has a `source`: the report would print the
/// cause a second time.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// A file that cannot be read or written.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        path: PathBuf,
        cause: std::io::Error,
    },
    /// What was said could not be written.
    #[error("standard output: {cause}")]
    Stdout { cause: std::io::Error },
    /// A data file that is not a readable archive of arrays.
    #[error("{path}: {problem}", path = path.display())]
    Data { path: PathBuf, problem: String },
    /// An array that the model has no input for, or an input without an array.
    #[error("{path}: {problem}; the model's inputs are {inputs}", path = path.display())]
    Arrays {
        path: PathBuf,
        problem: String,
        inputs: String,
    },
    /// A model file with something wrong in it.
    #[error("{path}: {cause}", path = path.display())]
    Model {
        path: PathBuf,
        cause: Box<ModelError>,
    },
    /// A file of recorded calibration.
    #[error("{path}: {cause}", path = path.display())]
    Recorded {
        path: PathBuf,
        cause: Box<QuantizeError>,
    },
    /// Anything on the way through the six steps.
    #[error("{0}")]
    Quantize(Box<QuantizeError>),
    /// A plot that could not be drawn.
    #[error("the plot of a tensor cannot be drawn: {0}")]
    Plot(String),
    /// Options that do not go together, or values that they do not take.
    #[error("{0}")]
    Usage(String),
    /// A value that is not one of a format's numbers.
    #[error(
        "\"{given}\" is not a number: write it like 3.14, -1e-3, inf, nan, or as bits like 0x4049"
    )]
    Number { given: String },
}

impl CliError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> CliError {
        let path = path.into();
        move |cause| CliError::Io { path, cause }
    }

    pub(crate) fn model(path: impl Into<PathBuf>) -> impl FnOnce(ModelError) -> CliError {
        let path = path.into();
        // Errors of the file system name the file themselves.
        move |cause| match cause {
            ModelError::Io { path, source } => CliError::Io {
                path,
                cause: source,
            },
            cause => CliError::Model {
                path,
                cause: Box::new(cause),
            },
        }
    }

    /// The exit code: 2 for what the command line is to blame for, as the parser of arguments has
    /// it, and 1 for all else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) | CliError::Number { .. } => 2,
            _ => 1,
        }
    }
}

impl From<QuantizeError> for CliError {
    fn from(cause: QuantizeError) -> Self {
        CliError::Quantize(Box::new(cause))
    }
}

impl Diagnostic for CliError {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        let text = match self {
            CliError::Data { .. } => {
                "data files are .npz archives as numpy.savez writes them: one array an input, \
                 named like it, and the labels as `label`"
            }
            CliError::Arrays { .. } => {
                "name the arrays like the model's inputs (`quaver inspect MODEL` lists them): \
                 numpy.savez(\"data.npz\", NAME=array)"
            }
            CliError::Model { cause, .. } => model_help(cause)?,
            CliError::Quantize(cause) => match cause.as_ref() {
                QuantizeError::Model(cause) => model_help(cause)?,
                QuantizeError::Calibration {
                    source: CalibError::NonFinite { .. },
                    ..
                } => {
                    "look for broken samples, or choose what happens to such values with \
                     --non-finite ignore|saturate"
                }
                QuantizeError::NoMatch { .. } | QuantizeError::NotQuantizable { .. } => {
                    "`quaver inspect MODEL` lists the nodes"
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(Box::new(text))
    }
}

/// What to do about an error in a model.
fn model_help(error: &ModelError) -> Option<&'static str> {
    match error {
        ModelError::UnknownOperator { .. } => Some(
            "this operator is not supported; `quaver inspect MODEL` lists the operators a model \
             uses",
        ),
        ModelError::Decode { .. } => Some("the file is damaged or is not an ONNX model"),
        ModelError::InputShape { .. } => Some(
            "`quaver inspect MODEL` shows the shape of every input; where its first dimension is \
             fixed, --batch must be that number, and the number of samples a multiple of it",
        ),
        ModelError::InputType { .. } => {
            Some("`quaver inspect MODEL` shows the type and shape of every input")
        }
        _ => None,
    }
}
