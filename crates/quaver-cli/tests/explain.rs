//! `quaver explain` as a user meets it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::Array2;
use ndarray_npy::NpzWriter;
use quaver::Explanation;
use quaver::explain::{Action, Role};
use quaver::model::{Dim, ElementType, Graph, Model, Node, Tensor, ValueInfo};
use tempfile::TempDir;

/// A name that is markup, an attempt at an attribute, a terminal's control sequence, and text that
/// runs the other way.
const HOSTILE: &str = "<script>alert('x')</script>\"&\u{1b}[2J\u{202e}";

fn digits(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/digits")
        .join(name);
    path.to_str().unwrap().to_owned()
}

fn quaver(folder: &TempDir, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quaver"))
        .args(args)
        .current_dir(folder.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

fn succeeds(folder: &TempDir, args: &[&str]) -> String {
    let out = quaver(folder, args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}\n{stderr}");
    String::from_utf8(out.stdout).unwrap()
}

fn read(folder: &TempDir, name: &str) -> String {
    std::fs::read_to_string(folder.path().join(name)).unwrap()
}

/// x → `MatMul` → Relu → `MatMul` → y, where every name is hostile and one sample is an outlier.
fn hostile(folder: &TempDir) {
    let value = |what: &str| format!("{what}{HOSTILE}");
    let dims = |n: usize| vec![Dim::Symbol("N".to_owned()), Dim::Known(n)];
    let mut g = Graph::new(HOSTILE);
    g.inputs
        .push(ValueInfo::tensor("x", ElementType::F32, dims(4)));
    g.outputs
        .push(ValueInfo::tensor("y", ElementType::F32, dims(3)));
    let numbers = |n: usize| -> Vec<f32> { (0..n).map(|i| (i as f32 * 0.7).sin()).collect() };
    g.set_initializer(value("w"), Tensor::new(&[4, 6], numbers(24)).unwrap());
    g.set_initializer(value("v"), Tensor::new(&[6, 3], numbers(18)).unwrap());
    let (w, v, h, r) = (value("w"), value("v"), value("h"), value("r"));
    g.nodes = vec![
        Node::new(value("first"), "MatMul", ["x", w.as_str()], [h.as_str()]),
        Node::new("relu", "Relu", [h.as_str()], [r.as_str()]),
        Node::new(value("second"), "MatMul", [r.as_str(), v.as_str()], ["y"]),
    ];
    Model::new(g, 17)
        .save(folder.path().join("hostile.onnx"))
        .unwrap();
    let mut x = Array2::from_shape_fn((40, 4), |(i, j)| ((i * 4 + j) as f32 * 1.3).cos());
    x[[3, 2]] = 30.0;
    let mut npz = NpzWriter::new(File::create(folder.path().join("data.npz")).unwrap());
    npz.add_array("x", &x).unwrap();
    npz.finish().unwrap();
}

/// What every page must be: whole, one file, and asking nobody for anything.
fn check_page(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    for tag in [
        "details", "table", "svg", "div", "p", "span", "ol", "li", "main",
    ] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        let closed = page.matches(&format!("</{tag}>")).count();
        assert_eq!(opened, closed, "{tag}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
    // The one address that is there names SVG, and is fetched by nobody.
    let rest = page.replace("http://www.w3.org/2000/svg", "");
    for outside in [
        "http:", "https:", "src=", "url(", "@import", "<script", "<link",
    ] {
        assert!(!rest.contains(outside), "{outside}");
    }
}

#[test]
fn the_digits_model_is_explained_in_all_three_forms() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (digits("digits.onnx"), digits("calibration.npz"));
    let text = succeeds(
        &folder,
        &[
            "explain",
            &model,
            "--calibration",
            &data,
            "-o",
            "r.html",
            "--json",
            "r.json",
            "--samples",
            "60",
            "--rounds",
            "3",
            "--top",
            "4",
        ],
    );
    let e: Explanation = serde_json::from_str(&read(&folder, "r.json")).unwrap();
    assert_eq!((e.version, e.settings.samples), (Explanation::VERSION, 60));
    let timed: f64 = e.layers.iter().map(|l| l.time_share.unwrap()).sum();
    assert!((timed + e.other_share.unwrap() - 1.0).abs() < 1e-9);

    let page = read(&folder, "r.html");
    check_page(&page);
    assert_eq!(page.matches("<svg ").count(), e.tensors.len());
    assert!(e.layers.iter().all(|l| page.contains(&l.name)));
    assert!(e.layers[..4].iter().all(|l| text.contains(&l.name)));
    for m in &e.methods {
        assert!(page.contains(&m.method) && text.contains(&m.method));
    }
    let rows = text.lines().filter(|l| l.contains("▁") || l.contains("█"));
    assert!(rows.count() >= 4, "{text}");
    assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn json_on_standard_output_is_alone_there() {
    let folder = tempfile::tempdir().unwrap();
    hostile(&folder);
    let args = ["explain", "hostile.onnx", "--calibration", "data.npz"];
    let text = succeeds(
        &folder,
        &[&args[..], &["--json", "-", "--rounds", "0"]].concat(),
    );
    let e: Explanation = serde_json::from_str(&text).unwrap();
    assert_eq!(e.model, HOSTILE);
    assert_eq!(e.other_share, None);
}

#[test]
fn hostile_names_are_text_on_the_page_and_in_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    hostile(&folder);
    let text = succeeds(
        &folder,
        &[
            "explain",
            "hostile.onnx",
            "--calibration",
            "data.npz",
            "-o",
            "r.html",
        ],
    );
    assert!(
        !text.contains('\u{1b}') && !text.contains('\u{202e}'),
        "{text}"
    );
    let page = read(&folder, "r.html");
    check_page(&page);
    assert!(page.contains("first&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;"));
    assert!(!page.contains('\u{1b}') && !page.contains("alert('x')"));
}

#[test]
fn suggestions_are_carried_out_by_quantize() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (digits("digits.onnx"), digits("calibration.npz"));
    let run = |command: &str, args: &[&str]| {
        let base = [command, &model, "--calibration", &data];
        succeeds(&folder, &[&base[..], args].concat())
    };
    run("explain", &["--json", "r.json", "--rounds", "0"]);
    let e: Explanation = serde_json::from_str(&read(&folder, "r.json")).unwrap();
    // The options of this model are those of the explained one but for the change.
    let quantized = |options: &[&str]| {
        let rest = ["-o", "q.onnx", "--report", "q.json"];
        run("quantize", &[&rest[..], options].concat());
        let report: serde_json::Value = serde_json::from_str(&read(&folder, "q.json")).unwrap();
        report["evaluation"]["sqnr_db"].as_f64()
    };
    let mut kinds = Vec::new();
    for s in &e.suggestions {
        let (kind, after) = match &s.action {
            Action::SwitchMethod { method } => ("method", quantized(&["--method", method])),
            Action::SwitchTensor {
                tensor,
                method,
                role,
            } => {
                let option = format!("{tensor}={method}");
                let kind = match role {
                    Role::Activation => "activation",
                    Role::Weight => "weight",
                };
                (kind, quantized(&["--tensor-method", &option]))
            }
            Action::KeepFloat { layer, .. } => ("float", quantized(&["--exclude", layer])),
            other => panic!("{other:?}"),
        };
        assert_eq!(after, s.after.sqnr.db(), "{s:?}");
        kinds.push(kind);
    }
    for kind in ["method", "activation", "weight", "float"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
}

#[test]
fn what_fails_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    hostile(&folder);
    std::fs::write(folder.path().join("r.html"), "old").unwrap();
    std::fs::write(folder.path().join("broken.onnx"), "no model").unwrap();
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    let (calibration, model) = (["--calibration", "data.npz"], "hostile.onnx");
    for (args, code, culprit) in [
        (vec!["broken.onnx", "-o", "r.html"], 1, "broken.onnx"),
        (vec![model, "-o", "no/such/r.html"], 1, "no/such/r.html"),
        (vec![model, "-o", "r.html", "--json", "r.html"], 2, "--json"),
        (vec![model, "-o", "data.npz"], 2, "--output"),
        (vec![model, "-o", "r.html", "--exclude", "none"], 1, "none"),
        (vec![model, "-o", "r.html", "--method", "best"], 2, "best"),
        (vec![model, "-o", "r.html", "--top", "0"], 2, "--top"),
        (
            vec![model, "-o", "r.html", "--samples", "0"],
            2,
            "--samples",
        ),
    ] {
        let out = quaver(&folder, &[&["explain"], &args[..], &calibration].concat());
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}\n{stderr}");
        assert!(stderr.contains(culprit), "{args:?}\n{stderr}");
        assert!(out.stdout.is_empty(), "{args:?}");
        assert_eq!(read(&folder, "r.html"), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before);
    }
}
