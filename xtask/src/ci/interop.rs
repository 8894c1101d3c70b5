//! Files of ours in ONNX Runtime, and files of its own tool in ours: the same top-1.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Task, demo, program};
use crate::error::Error;
use crate::{python, workspace};

/// Ways to quantize whose files are compared, by what the file is called.
const OURS: &[(&str, &[&str])] = &[
    ("static-qdq", &["--mode", "static"]),
    (
        "static-qoperator",
        &["--mode", "static", "--format", "qoperator"],
    ),
    ("dynamic", &["--mode", "dynamic"]),
];

/// Files that ONNX Runtime's tool made, in `models/digits/ort`.
const THEIRS: &[&str] = &[
    "ort_static_qdq",
    "ort_static_qdq_per_channel",
    "ort_static_qoperator",
    "ort_dynamic",
];

/// Quantizes the digits model each way, and trains it for four bits, and compares the predictions of
/// both executors; then runs what ONNX Runtime's own tool made.
pub(super) fn interop() -> Result<Vec<Task>, Error> {
    let python = python::interpreter()?;
    let digits = workspace::root().join("models/digits");
    let scratch = scratch()?;
    let mut tasks = Vec::new();
    for (name, how) in OURS {
        let model = scratch.join(format!("{name}.onnx"));
        let mut quantize = quaver("quantize");
        quantize
            .arg(digits.join("digits.onnx"))
            .arg("--calibration")
            .arg(digits.join("calibration.npz"))
            .args(*how)
            .arg("-o")
            .arg(&model);
        tasks.push(Task::Run(quantize));
        compare(&python, &model, &scratch, &[], &mut tasks);
    }
    // Four bits, trained for a moment: what is compared is the file, not how good it is.
    let trained = scratch.join("trained-w4a4.onnx");
    let mut train = Command::new(program("debug", "qtrain"));
    train.args(["train", "--quick", "-o"]).arg(&trained);
    tasks.push(Task::Run(train));
    compare(&python, &trained, &scratch, &["--as-written"], &mut tasks);
    for name in THEIRS {
        let model = digits.join(format!("ort/{name}.onnx"));
        compare(&python, &model, &scratch, &[], &mut tasks);
    }
    Ok(tasks)
}

/// Runs the demo and checks its report.
pub(super) fn demo() -> Result<Vec<Task>, Error> {
    let scratch = scratch()?;
    let report = scratch.join("demo.json");
    let mut run = quaver("demo");
    run.arg("--json").arg(&report).current_dir(&scratch);
    Ok(vec![
        Task::Run(run),
        Task::Verify {
            file: report,
            promise: "every row plausible, the best as accurate as float",
            check: demo::check,
        },
    ])
}

fn compare(python: &Path, model: &Path, scratch: &Path, options: &[&str], tasks: &mut Vec<Task>) {
    let root = workspace::root();
    let data = root.join("models/digits/test.npz");
    let logits = scratch.join("logits.npz");
    let mut run = quaver("run");
    run.arg(model)
        .arg("--data")
        .arg(&data)
        .arg("-o")
        .arg(&logits);
    tasks.push(Task::Run(run));
    let mut check = Command::new(python);
    check
        .arg(root.join("scripts/check_ort.py"))
        .arg(model)
        .arg(&data);
    check.arg("--quaver-logits").arg(&logits).args(options);
    tasks.push(Task::Run(check));
}

fn quaver(subcommand: &str) -> Command {
    let mut command = Command::new(program("release", "quaver"));
    command.arg(subcommand);
    command
}

/// The folder for what these steps write.
fn scratch() -> Result<PathBuf, Error> {
    let folder = workspace::target().join("ci");
    std::fs::create_dir_all(&folder).map_err(|source| Error::Io {
        path: folder.clone(),
        source,
    })?;
    Ok(folder)
}
