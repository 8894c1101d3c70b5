//! The command as a user meets it: on the digits model, on other tools' files, and on bad input.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::{Array, Dimension, IntoDimension};
use ndarray_npy::{NpzWriter, WritableElement};
use quaver::Method;
use serde_json::Value;
use tempfile::TempDir;

fn digits(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/digits")
        .join(name)
}

fn quaver(folder: &TempDir, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quaver"))
        .args(args)
        .current_dir(folder.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

/// Runs the command and expects success.
fn succeeds(folder: &TempDir, args: &[&str]) -> String {
    let out = quaver(folder, args);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{args:?}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Runs the command and expects an error that is no panic and names all of `culprits`.
fn fails(folder: &TempDir, args: &[&str], culprits: &[&str]) {
    let out = quaver(folder, args);
    // Long messages are wrapped; a culprit may contain the place.
    let stderr = String::from_utf8_lossy(&out.stderr);
    let flat: String = stderr
        .replace("│", " ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(!out.status.success(), "{args:?} succeeded");
    assert!(!flat.contains("panicked"), "{args:?}\n{stderr}");
    for c in culprits {
        assert!(
            flat.contains(c),
            "{args:?}: \"{c}\" is not named in\n{stderr}"
        );
    }
}

fn json(folder: &TempDir, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.path().join(name)).unwrap()).unwrap()
}

fn path(name: &str) -> String {
    digits(name).to_str().unwrap().to_owned()
}

/// Scores of a model on the test digits against the float model.
fn scores(folder: &TempDir, model: &str) -> (f64, f64) {
    let (test, float) = (path("test.npz"), path("digits.onnx"));
    succeeds(
        folder,
        &[
            "evaluate",
            model,
            "--data",
            &test,
            "--against",
            &float,
            "--json",
            "scores.json",
        ],
    );
    let scores = json(folder, "scores.json");
    assert_eq!(scores["samples"], 1000);
    (
        scores["accuracy"].as_f64().unwrap(),
        scores["against"]["agreement"].as_f64().unwrap(),
    )
}

#[test]
fn models_quantized_each_way_keep_their_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (path("digits.onnx"), path("calibration.npz"));
    for how in [
        &["--mode", "static"][..],
        &["--format", "qoperator", "--per-tensor"],
        &["--method", "mse", "--scheme", "symmetric"],
        &["--method", "percentile=99.99", "--exclude", "fc2"],
        &["--mode", "dynamic"],
    ] {
        let mut args = vec!["quantize", &model, "--calibration", &data, "-o", "q.onnx"];
        args.extend(["--report", "report.json"]);
        args.extend(how);
        succeeds(&folder, &args);
        let report = json(&folder, "report.json");
        assert!(report["quantized_bytes"].as_u64() < report["float_bytes"].as_u64());
        let (accuracy, agreement) = scores(&folder, "q.onnx");
        assert!(
            accuracy >= 0.993 && agreement >= 0.997,
            "{how:?}: {accuracy} {agreement}"
        );
    }
}

#[test]
fn files_that_onnxruntime_quantized_run_with_their_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "ort_static_qdq",
        "ort_static_qdq_per_channel",
        "ort_static_qoperator",
        "ort_dynamic",
    ] {
        // All four score 996 of 1,000 in ONNX Runtime and agree with float everywhere.
        let (accuracy, agreement) = scores(&folder, &path(&format!("ort/{name}.onnx")));
        assert!(
            accuracy >= 0.995 && agreement >= 0.999,
            "{name}: {accuracy} {agreement}"
        );
    }
}

#[test]
fn outputs_are_written_as_arrays_and_do_not_depend_on_fusion() {
    let folder = tempfile::tempdir().unwrap();
    let (model, test) = (path("ort/ort_static_qoperator.onnx"), path("test.npz"));
    let said = succeeds(&folder, &["run", &model, "--data", &test, "-o", "a.npz"]);
    assert!(said.contains("99.60 %"), "{said}");
    succeeds(
        &folder,
        &[
            "run",
            &model,
            "--data",
            &test,
            "--batch",
            "7",
            "--no-fuse",
            "-o",
            "b.npz",
        ],
    );
    succeeds(
        &folder,
        &[
            "run", &model, "--data", &test, "--isa", "scalar", "--batch", "64", "-o", "c.npz",
        ],
    );
    let bytes = |name| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("a.npz"), bytes("b.npz"));
    assert_eq!(bytes("a.npz"), bytes("c.npz"));
}

#[test]
fn the_demo_runs_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let said = succeeds(
        &folder,
        &["demo", "--time-budget", "1", "--json", "demo.json"],
    );
    assert!(said.contains("best: "), "{said}");
    assert!(said.contains("highest accuracy, then agreement"), "{said}");
    assert_eq!(
        said.lines()
            .filter(|l| l.starts_with('*') && !l.contains("best"))
            .count(),
        1
    );
    assert_eq!(said.lines().filter(|l| l.contains('─')).count(), 1);
    for line in said.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let demo = json(&folder, "demo.json");
    let rows = demo["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 42);
    let distinct: std::collections::HashSet<String> = rows
        .iter()
        .map(|r| {
            format!(
                "{} {} {} {}",
                r["mode"], r["method"], r["weights"], r["activations"]
            )
        })
        .collect();
    assert_eq!(distinct.len(), rows.len());
    // Each method of the list, with weights per tensor and per channel × affine and symmetric.
    for method in Method::ALL {
        let own = rows.iter().filter(|r| r["method"] == method.to_string());
        assert_eq!(own.count(), 4, "{method}");
    }
    let float = demo["float"]["accuracy"].as_f64().unwrap();
    assert!(float >= 0.98);
    assert!(demo["best"]["accuracy"].as_f64().unwrap() >= float - 0.003);
    assert!(folder.path().join("digits.int8.onnx").exists());
}

#[test]
fn inspection_shows_models_and_bits() {
    let folder = tempfile::tempdir().unwrap();
    let said = succeeds(&folder, &["inspect", &path("digits.onnx")]);
    for part in [
        "image f32[N, 1, 28, 28]",
        "conv1.weight f32[16, 1, 3, 3]",
        "4 Conv",
        "opset ai.onnx 17",
    ] {
        assert!(said.contains(part), "\"{part}\" is not in\n{said}");
    }
    let said = succeeds(&folder, &["inspect", "bits", "3.14", "--as", "bf16"]);
    assert!(
        said.contains("10000000  1001001") && said.contains("3.140625"),
        "{said}"
    );
    let said = succeeds(&folder, &["inspect", "bits", "-3", "--as", "i8"]);
    assert!(said.contains("hex 0xfd"), "{said}");
    fails(
        &folder,
        &["inspect", "bits", "pi"],
        &["pi", "is not a number"],
    );
    fails(
        &folder,
        &["inspect", "bits", "1", "--as", "f9"],
        &["f9", "bf16"],
    );
}

#[test]
fn help_teaches_with_examples() {
    let folder = tempfile::tempdir().unwrap();
    for command in [
        "demo",
        "quantize",
        "calibrate",
        "run",
        "evaluate",
        "explain",
        "inspect",
    ] {
        let said = succeeds(&folder, &[command, "--help"]);
        assert!(
            said.contains("Examples:") && said.contains(&format!("quaver {command}")),
            "{said}"
        );
    }
}

#[test]
fn bad_requests_name_the_culprit_and_leave_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (path("digits.onnx"), path("calibration.npz"));
    let old = folder.path().join("out.onnx");
    std::fs::write(&old, b"the old file").unwrap();
    let quantize = |extra: &[&'static str], culprits: &[&str]| {
        let mut args = vec!["quantize", &model, "--calibration", &data, "-o", "out.onnx"];
        args.extend(extra);
        fails(&folder, &args, culprits);
        assert_eq!(std::fs::read(&old).unwrap(), b"the old file");
    };
    quantize(&["--exclude", "conv9"], &["exclude", "conv9", "conv1"]);
    quantize(&["--include", "Relu"], &["Relu", "Conv, Gemm, MatMul"]);
    quantize(&["--method", "magic"], &["magic", "minmax"]);
    quantize(&["--scheme", "odd"], &["odd", "affine"]);
    quantize(&["--format", "tflite"], &["tflite", "qdq"]);
    fails(
        &folder,
        &["quantize", &model, "-o", "out.onnx"],
        &["--calibration", "dynamic"],
    );
    fails(
        &folder,
        &[
            "quantize",
            "none.onnx",
            "--mode",
            "dynamic",
            "-o",
            "out.onnx",
        ],
        &["none.onnx"],
    );
    fails(
        &folder,
        &[
            "quantize",
            &model,
            "--calibration",
            "none.npz",
            "-o",
            "out.onnx",
        ],
        &["none.npz"],
    );
    fails(
        &folder,
        &[
            "run", &model, "--data", &data, "--isa", "mmx", "-o", "x.npz",
        ],
        &["mmx", "scalar"],
    );
    // A folder that does not exist: nothing can be written, and the reason names the path.
    fails(
        &folder,
        &[
            "quantize",
            &model,
            "--mode",
            "dynamic",
            "-o",
            "no/such/out.onnx",
        ],
        &["no/such/out.onnx"],
    );
    assert_eq!(std::fs::read(&old).unwrap(), b"the old file");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing else is left behind"
    );
}

#[test]
fn damaged_files_are_errors_and_leave_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = std::fs::read(digits("digits.onnx")).unwrap();
    let data = std::fs::read(digits("calibration.npz")).unwrap();
    for share in [0, 1, 10, 50, 99] {
        std::fs::write(at("m.onnx"), &model[..model.len() * share / 100]).unwrap();
        std::fs::write(at("d.npz"), &data[..data.len() * share / 100]).unwrap();
        fails(
            &folder,
            &["quantize", "m.onnx", "--mode", "dynamic", "-o", "out.onnx"],
            &["m.onnx"],
        );
        let float = path("digits.onnx");
        fails(
            &folder,
            &[
                "quantize",
                &float,
                "--calibration",
                "d.npz",
                "-o",
                "out.onnx",
            ],
            &["d.npz"],
        );
        assert!(!at("out.onnx").exists());
    }
    // An operator that nobody has: the node, the operator, the domain and the version.
    let mut strange = quaver::model::Model::from_bytes(&model).unwrap();
    strange.graph.nodes[1].op_type = "Frobnicate".to_owned();
    std::fs::write(at("m.onnx"), strange.to_bytes()).unwrap();
    fails(
        &folder,
        &["quantize", "m.onnx", "--mode", "dynamic", "-o", "out.onnx"],
        &["relu1", "Frobnicate", "ai.onnx", "17"],
    );
    assert!(!at("out.onnx").exists());
}

/// Writes one array as an archive.
fn npz<T: WritableElement + Clone>(path: &Path, name: &str, shape: &[usize], value: T) {
    let dims = shape.into_dimension();
    let array = Array::from_elem(dims.clone(), value);
    assert_eq!(array.len(), dims.size());
    let mut writer = NpzWriter::new(File::create(path).unwrap());
    writer.add_array(name, &array).unwrap();
    writer.finish().unwrap();
}

#[test]
fn data_that_does_not_fit_the_model_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let model = path("digits.onnx");
    let data = folder.path().join("d.npz");
    let refused = |culprits: &[&str]| {
        for command in [
            &["quantize", &model, "--calibration", "d.npz", "-o", "out"][..],
            &["run", &model, "--data", "d.npz", "-o", "out"],
        ] {
            fails(&folder, command, culprits);
            assert_eq!(
                std::fs::read_dir(folder.path()).unwrap().count(),
                1,
                "{culprits:?}"
            );
        }
    };
    npz(&data, "picture", &[2, 1, 28, 28], 0f32);
    refused(&["d.npz", "picture", "image"]);
    npz(&data, "image", &[2, 1, 28, 29], 0f32);
    refused(&["image", "29", "f32[N, 1, 28, 28]"]);
    npz(&data, "image", &[2, 28, 28], 0f32);
    refused(&["image", "[2, 28, 28]"]);
    npz(&data, "image", &[2, 1, 28, 28], 0f64);
    refused(&["image", "f64", "f32"]);
    npz(&data, "image", &[2, 1, 28, 28], 0u8);
    refused(&["image", "u8", "f32"]);
    npz(&data, "image", &[0, 1, 28, 28], 0f32);
    refused(&["no samples"]);
    npz(&data, "label", &[3], 0i64);
    refused(&["d.npz", "image"]);

    let quantize = ["quantize", &model, "--calibration", "d.npz", "-o", "out"];
    for (value, kind) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        npz(&data, "image", &[2, 1, 28, 28], value);
        fails(&folder, &quantize, &["image", kind, "--non-finite"]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

/// Expects an error of the command line: exit code 2.
fn misused(folder: &TempDir, args: &[&str], culprits: &[&str]) {
    fails(folder, args, culprits);
    assert_eq!(quaver(folder, args).status.code(), Some(2), "{args:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error_unless_its_reader_has_gone() {
    use std::process::Stdio;
    let command = |out: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quaver"));
        command.args(["inspect", &path("digits.onnx")]);
        command.stdout(out).stderr(Stdio::piped());
        command.spawn().unwrap().wait_with_output().unwrap()
    };
    let full = File::options().write(true).open("/dev/full").unwrap();
    let out = command(full.into());
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("standard output") && !stderr.contains("panicked"),
        "{stderr}"
    );
    // A pipe that nobody reads any more.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = command(writer.into());
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && stderr.is_empty(), "{stderr}");
}

#[test]
fn outputs_that_are_inputs_or_each_other_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(digits("digits.onnx"), at("m.onnx")).unwrap();
    std::fs::copy(digits("calibration.npz"), at("d.npz")).unwrap();
    let before = std::fs::read(at("m.onnx")).unwrap();
    let dynamic = ["quantize", "m.onnx", "--mode", "dynamic", "-o"];
    let with = |more: &[&'static str]| [&dynamic[..], more].concat();
    misused(&folder, &with(&["./m.onnx"]), &["--output", "model"]);
    misused(
        &folder,
        &with(&["x", "--report", "./x"]),
        &["--report", "--output"],
    );
    misused(
        &folder,
        &["run", "m.onnx", "--data", "d.npz", "-o", "d.npz"],
        &["--output", "--data"],
    );
    fails(
        &folder,
        &["demo", "-o", "no/such.onnx"],
        &["no/such.onnx: "],
    );
    assert_eq!(std::fs::read(at("m.onnx")).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[cfg(unix)]
#[test]
fn links_stay_links_and_devices_stay_devices() {
    let folder = tempfile::tempdir().unwrap();
    let (model, link) = (path("digits.onnx"), folder.path().join("link"));
    std::os::unix::fs::symlink("real.onnx", &link).unwrap();
    for out in ["link", "/dev/null"] {
        succeeds(
            &folder,
            &["quantize", &model, "--mode", "dynamic", "-o", out],
        );
    }
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert!(quaver::model::Model::load(folder.path().join("real.onnx")).is_ok());
    assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
}

#[test]
fn models_of_a_fixed_batch_run_without_being_told_it() {
    use quaver::model::{Dim, Model, ValueType};
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::load(digits("digits.onnx")).unwrap();
    for value in &mut model.graph.inputs {
        if let ValueType::Tensor(ty) = &mut value.ty {
            ty.shape.as_mut().unwrap()[0] = Dim::Known(4);
        }
    }
    model.save(folder.path().join("m.onnx")).unwrap();
    let data = folder.path().join("d.npz");
    npz(&data, "image", &[8, 1, 28, 28], 0.5f32);
    for command in [
        "run m.onnx --data d.npz -o out.npz",
        "quantize m.onnx --calibration d.npz -o q.onnx --report r.json",
        "evaluate q.onnx --data d.npz --against m.onnx",
    ] {
        succeeds(&folder, &command.split(' ').collect::<Vec<_>>());
    }
    assert_eq!(
        json(&folder, "r.json")["evaluation"]["latency"][0]["batch"],
        4
    );
    let run = |batch| {
        [
            "run", "m.onnx", "--data", "d.npz", "-o", "x", "--batch", batch,
        ]
    };
    fails(&folder, &run("3"), &["image", "--batch"]);
    misused(&folder, &run("0"), &["--batch"]);
}

#[test]
fn options_that_would_do_nothing_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let model = path("digits.onnx");
    let dynamic = ["quantize", &model, "-o", "x", "--mode", "dynamic"];
    for extra in [
        ["--method", "mse"],
        ["--scheme", "affine"],
        ["--format", "qdq"],
        ["--include", ""],
        ["--exclude", ""],
    ] {
        misused(&folder, &[&dynamic[..], &extra].concat(), &extra[..1]);
    }
    misused(
        &folder,
        &["quantize", &model, "-o", "x"],
        &["--calibration"],
    );
    let out = Command::new(env!("CARGO_BIN_EXE_quaver"))
        .args(["inspect", &model])
        .env("QUAVER_ISA", "bogus")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        stderr.contains("QUAVER_ISA") && stderr.contains("bogus"),
        "{stderr}"
    );
}

#[test]
fn errors_say_their_cause_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = quaver(&folder, &["inspect", "none.onnx"]);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(stderr.matches("os error").count(), 1, "{stderr}");
}

#[test]
fn kinds_of_data_that_do_not_do_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (model, at) = (path("digits.onnx"), folder.path().join("d.npz"));
    let run = ["run", &model, "--data", "d.npz", "-o", "out.npz"];
    let array = |descr: &str| {
        let head = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (0,), }}");
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend(format!("{head:<117}\n").bytes());
        bytes
    };
    std::fs::write(&at, array("<f4")).unwrap();
    fails(&folder, &run, &["d.npz", "numpy.savez"]);
    for descr in ["<f2", ">f4", "<u4"] {
        let mut archive = zip::ZipWriter::new(File::create(&at).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file("image.npy", options).unwrap();
        std::io::Write::write_all(&mut archive, &array(descr)).unwrap();
        archive.finish().unwrap();
        fails(&folder, &run, &["image", "float32", "little-endian"]);
    }
    // Labels as a column.
    let mut archive = NpzWriter::new(File::create(&at).unwrap());
    let images = Array::from_elem((2, 1, 28, 28), 0f32);
    archive.add_array("image", &images).unwrap();
    archive
        .add_array("label", &Array::from_elem((2, 1), 1i32))
        .unwrap();
    archive.finish().unwrap();
    assert!(succeeds(&folder, &run).contains("accuracy"));
}

#[test]
fn inspected_numbers_say_what_became_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let bits = |value: &str, format: &str| {
        let said = succeeds(&folder, &["inspect", "bits", value, "--as", format]);
        said.lines().last().unwrap().to_owned()
    };
    for (value, format, last) in [
        ("300", "u8", "saturated to 255"),
        ("-1e30", "i8", "saturated to -128"),
        ("100", "q4.3", "saturated to 15.875"),
        ("3.14", "bf16", "rounded to 3.140625"),
        ("2.5", "i8", "rounded to 2"),
        ("nan", "i8", "NaN became 0"),
        ("1e9", "f16", "overflowed to inf"),
    ] {
        assert_eq!(bits(value, format), last, "{value} as {format}");
    }
    for (value, format) in [
        ("9223372036854775807", "i64"),
        ("0XFF", "u8"),
        ("inf", "f16"),
        ("0.5", "f32"),
    ] {
        let last = bits(value, format);
        assert!(
            !last.contains("rounded") && !last.contains("saturated"),
            "{value} as {format}: {last}"
        );
    }
    assert!(bits("9223372036854775807", "i64").contains("9223372036854775807"));
    misused(
        &folder,
        &["inspect", "bits", "0x1ff", "--as", "i8"],
        &["9 bits", "i8 has 8"],
    );
    for text in ["0x", "0x+5", "0xg"] {
        misused(&folder, &["inspect", "bits", text], &["is not a number"]);
    }
}
