//! The Python that holds the other tools which our files are checked against.

use std::path::PathBuf;
use std::process::Command;

use crate::error::Error;
use crate::{process, workspace};

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

/// The folder of the ONNX standard's own operator tests, in the `onnx` package.
pub(crate) fn onnx_node_tests(python: &PathBuf) -> Result<PathBuf, Error> {
    let code = "import onnx.backend.test, os; \
                print(os.path.join(os.path.dirname(onnx.backend.test.__file__), 'data', 'node'))";
    let printed = process::output(Command::new(python).args(["-c", code]))?;
    let folder = PathBuf::from(printed.trim());
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(Error::Form {
            origin: "the Python package onnx".to_owned(),
            expected: format!("its operator tests should lie in {}", folder.display()),
        })
    }
}
