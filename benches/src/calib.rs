//! Calibration: observers and estimators by themselves, and whole calibrations beside ONNX
//! Runtime's.
//!
//! | module | answers |
//! |---|---|
//! | [`observers`] | how fast tensors are recorded, beside reading them and beside `NumPy` |
//! | [`estimators`] | how long choosing a range takes, method by method |
//! | [`whole`] | whole calibrations in processes of their own: time, peak memory, and ranges |
//!
//! The peers are Python's: a script (`scripts/calibrate.py`) that the interpreter of
//! `QUAVER_PYTHON` runs as a child and that is asked line by line. Without one, what is missing is
//! said.

mod child;
pub mod estimators;
mod examples;
pub mod observers;
pub mod serve;
pub mod whole;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ops::Job;
use crate::sizes::Size;

/// The variable that names the interpreter.
const PYTHON: &str = "QUAVER_PYTHON";

/// The interpreter that `QUAVER_PYTHON` names, if it names one.
#[must_use]
pub fn python() -> Option<PathBuf> {
    std::env::var_os(PYTHON)
        .filter(|given| !given.is_empty())
        .map(PathBuf::from)
}

/// What is missing without an interpreter.
#[must_use]
pub fn not_run() -> String {
    format!(
        "NOT RUN: NumPy beside the observers, ONNX Runtime's calibrators beside whole calibrations: \
         {PYTHON} names no interpreter (one with numpy, onnx and onnxruntime)"
    )
}

/// A job for each observer and size, and one for each kind of histogram that ranges are chosen from.
#[must_use]
pub fn jobs(sizes: &[Size], python: Option<&Path>) -> Vec<Job> {
    let mut jobs = observers::jobs(sizes, python);
    jobs.extend(estimators::jobs());
    jobs
}

/// The script of the peers, run by an interpreter.
fn script(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/calibrate.py"));
    command
}
