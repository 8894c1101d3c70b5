//! How many samples run at once.

use clap::builder::RangedU64ValueParser;
use quaver::model::Model;

/// Samples in a run, unless the model or the person decides.
pub(crate) const DEFAULT: usize = 100;

/// Samples in a calibration pass, unless the model or the person decides.
pub(crate) const CALIBRATION: usize = 10;

/// Reads a value of `--batch`: one sample or more.
pub(crate) fn parser() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// The first dimension that the inputs of a model are fixed to, as exporters without dynamic axes
/// fix it; the model takes no other number of samples.
pub(crate) fn fixed(model: &Model) -> Option<usize> {
    model
        .graph
        .required_inputs()
        .filter_map(|input| input.tensor_type()?.shape.as_ref()?.first()?.known())
        .find(|&n| n > 0)
}

/// Batch sizes to time models at that run side by side: the one they take, or `open` where they
/// take any.
pub(crate) fn timed(models: &[&Model], open: &[usize]) -> Vec<usize> {
    match models.iter().find_map(|m| fixed(m)) {
        Some(n) => vec![n],
        None => {
            let mut sizes = open.to_vec();
            sizes.dedup();
            sizes
        }
    }
}
