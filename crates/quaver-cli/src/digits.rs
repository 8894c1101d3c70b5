//! The digits model and its data, embedded for the demo.

use std::path::Path;

use quaver::Dataset;
use quaver::model::Model;

use crate::error::CliError;
use crate::npz;

const MODEL: &[u8] = include_bytes!("../../../models/digits/digits.onnx");
const CALIBRATION: &[u8] = include_bytes!("../../../models/digits/calibration.npz");
const TEST: &[u8] = include_bytes!("../../../models/digits/test.npz");

/// The float model.
pub(crate) fn model() -> Result<Model, CliError> {
    Model::from_bytes(MODEL).map_err(CliError::model("models/digits/digits.onnx"))
}

/// 200 digits to calibrate with.
pub(crate) fn calibration(model: &Model) -> Result<Dataset, CliError> {
    dataset(CALIBRATION, "models/digits/calibration.npz", model)
}

/// 1,000 held-out digits with labels.
pub(crate) fn test(model: &Model) -> Result<Dataset, CliError> {
    dataset(TEST, "models/digits/test.npz", model)
}

fn dataset(bytes: &[u8], path: &str, model: &Model) -> Result<Dataset, CliError> {
    let path = Path::new(path);
    let arrays = npz::parse(bytes).map_err(|problem| CliError::Data {
        path: path.to_owned(),
        problem,
    })?;
    npz::dataset(arrays, path, model)
}
