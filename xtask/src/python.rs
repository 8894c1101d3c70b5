//! The Python that holds the other tools which our files are checked against.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::{process, workspace};

/// Tells the tests where the operator tests of the ONNX standard lie.
pub(crate) const NODE_TESTS: &str = "QUAVER_ONNX_NODE_TESTS";

/// The interpreter that `QUAVER_PYTHON` names; without it one in a virtual environment below the
/// target folder, made on first use.
pub(crate) fn interpreter() -> Result<PathBuf, Error> {
    if let Some(given) = std::env::var_os("QUAVER_PYTHON").filter(|given| !given.is_empty()) {
        return Ok(PathBuf::from(given));
    }
    let script = workspace::root().join(".ci/python-env");
    let printed = process::output(
        Command::new("bash")
            .arg(&script)
            .arg(workspace::target().join("ci-venv")),
    )?;
    match printed.lines().last() {
        Some(line) if !line.trim().is_empty() => Ok(PathBuf::from(line.trim())),
        _ => Err(Error::Form {
            origin: script.display().to_string(),
            expected: "the last line should be the interpreter's path, but there is none".into(),
        }),
    }
}

/// The folder of the ONNX standard's own operator tests: the one that `QUAVER_ONNX_NODE_TESTS`
/// names, or the one that `.ci/python-env` laid beside its environment.
pub(crate) fn onnx_node_tests(python: &Path) -> Result<PathBuf, Error> {
    if let Some(given) = std::env::var_os(NODE_TESTS).filter(|given| !given.is_empty()) {
        return Ok(PathBuf::from(given));
    }
    let code = "import sys; print(sys.prefix)";
    let printed = process::output(Command::new(python).args(["-c", code]))?;
    let folder = Path::new(printed.trim()).join("onnx-node-tests/onnx/backend/test/data/node");
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(Error::Form {
            origin: python.display().to_string(),
            expected: format!(
                "the standard's operator tests should lie in {}; \
                 set {NODE_TESTS} to where they are, or unset QUAVER_PYTHON",
                folder.display()
            ),
        })
    }
}
