//! Errors as people read them: what is wrong, and what to do.

use std::path::PathBuf;

use miette::Diagnostic;
use quaver::QuantizeError;
use quaver::calib::CalibError;
use quaver::model::ModelError;
use thiserror::Error;

/// Everything that a subcommand can fail with.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// A file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
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
    #[error("{path}: {source}", path = path.display())]
    Model {
        path: PathBuf,
        #[source]
        source: Box<ModelError>,
    },
    /// Anything on the way through the six steps.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// An option without which another makes no sense.
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
        move |source| CliError::Io { path, source }
    }

    pub(crate) fn model(path: impl Into<PathBuf>) -> impl FnOnce(ModelError) -> CliError {
        let path = path.into();
        // Errors of the file system name the file themselves.
        move |source| match source {
            ModelError::Io { path, source } => CliError::Io { path, source },
            source => CliError::Model {
                path,
                source: Box::new(source),
            },
        }
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
            CliError::Model { source, .. } => model_help(source)?,
            CliError::Quantize(QuantizeError::Model(source)) => model_help(source)?,
            CliError::Quantize(QuantizeError::Calibration {
                source: CalibError::NonFinite { .. },
                ..
            }) => {
                "look for broken samples, or choose what happens to such values with \
                 --non-finite ignore|saturate"
            }
            CliError::Quantize(
                QuantizeError::NoMatch { .. } | QuantizeError::NotQuantizable { .. },
            ) => "`quaver inspect MODEL` lists the nodes",
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
        ModelError::InputShape { .. } | ModelError::InputType { .. } => {
            Some("`quaver inspect MODEL` shows the type and shape of every input")
        }
        _ => None,
    }
}
