//! The ONNX standard's own operator tests.
//!
//! They lie in the `onnx` Python package (up to 1.18) under `backend/test/data/node`; point
//! `QUAVER_ONNX_NODE_TESTS` at that folder to run them. Without it nothing runs, and the test says
//! so; with it, running none is a failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qmodel::{Model, ModelError, Session, SessionOptions, Tensor, TensorData};

/// Cases of supported operators that ask for more than is supported, and why.
const BEYOND: &[(&str, &str)] = &[
    ("test_averagepool_3d", "3-D"),
    ("test_maxpool_3d", "3-D"),
    ("test_maxpool_with_argmax", "indices output"),
    ("test_batchnorm_example_training_mode", "training"),
    ("test_batchnorm_epsilon_training_mode", "training"),
    ("test_quantizelinear_blocked", "block quantization"),
    ("test_dequantizelinear_blocked", "block quantization"),
    (
        "test_cast_BFLOAT16_to_FLOAT",
        "the files hold bfloat16 as uint16",
    ),
    (
        "test_cast_FLOAT_to_BFLOAT16",
        "the files hold bfloat16 as uint16",
    ),
    (
        "test_castlike_BFLOAT16_to_FLOAT",
        "the files hold bfloat16 as uint16",
    ),
    (
        "test_castlike_FLOAT_to_BFLOAT16",
        "the files hold bfloat16 as uint16",
    ),
    (
        "test_qlinearmatmul_2D_int8_float32",
        "expected values wrap where the standard saturates",
    ),
    (
        "test_qlinearmatmul_3D_int8_float32",
        "expected values wrap where the standard saturates",
    ),
    ("test_qlinearmatmul_2D_int8_float16", "f16 scales"),
    ("test_qlinearmatmul_2D_uint8_float16", "f16 scales"),
    ("test_qlinearmatmul_3D_int8_float16", "f16 scales"),
    ("test_qlinearmatmul_3D_uint8_float16", "f16 scales"),
];

enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

#[test]
fn node_tests_of_the_standard() {
    let Some(folder) = std::env::var_os("QUAVER_ONNX_NODE_TESTS") else {
        eprintln!("QUAVER_ONNX_NODE_TESTS is not set: the standard's node tests did not run");
        return;
    };
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", Path::new(&folder).display()))
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("model.onnx").is_file())
        .collect();
    cases.sort();
    let (mut passed, mut failures) = (0, Vec::new());
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        for fuse in [false, true] {
            match run_case(case, &name, fuse) {
                Outcome::Passed => passed += 1,
                Outcome::Skipped(why) => *skipped.entry(why).or_default() += 1,
                Outcome::Failed(why) => failures.push(format!("{name} (fuse {fuse}): {why}")),
            }
        }
    }
    for (why, n) in &skipped {
        eprintln!("skipped {n}: {why}");
    }
    let total: usize = skipped.values().sum();
    eprintln!(
        "node tests: {passed} ran and passed, {} failed, {total} skipped",
        failures.len()
    );
    assert!(failures.is_empty(), "failed:\n{}", failures.join("\n"));
    assert!(passed > 0, "no node test ran");
}

fn run_case(case: &Path, name: &str, fuse: bool) -> Outcome {
    if let Some((_, why)) = BEYOND.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return Outcome::Skipped((*why).to_owned());
    }
    let model = match Model::load(case.join("model.onnx")) {
        Ok(m) => m,
        Err(e @ ModelError::ElementType { .. }) => return skip(&e),
        Err(e) => return Outcome::Failed(e.to_string()),
    };
    let mut session = match Session::new(
        &model,
        SessionOptions {
            fuse,
            ..Default::default()
        },
    ) {
        Ok(s) => s,
        Err(e) if is_unsupported(&e, &model) => return skip(&e),
        Err(e) => return Outcome::Failed(e.to_string()),
    };
    // One case has its expected values with four digits.
    let rounded = name == "test_averagepool_2d_ceil_last_window_starts_on_pad";
    let absolute = if rounded { 5e-5 } else { 1e-6 };
    for set in 0.. {
        let set = case.join(format!("test_data_set_{set}"));
        if !set.is_dir() {
            break;
        }
        let (inputs, expected) = match (read(&set, "input"), read(&set, "output")) {
            (Ok(i), Ok(o)) => (i, o),
            (Err(e), _) | (_, Err(e)) => return skip(&e),
        };
        let names: Vec<String> = session.inputs().map(|(n, _)| n.to_owned()).collect();
        let given: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&inputs).collect();
        let outputs = match session.run(&given) {
            Ok(o) => o,
            Err(e) => return Outcome::Failed(e.to_string()),
        };
        for ((name, got), want) in outputs.iter().zip(&expected) {
            if let Some(why) = difference(got, want, absolute) {
                return Outcome::Failed(format!("output {name}: {why}"));
            }
        }
    }
    Outcome::Passed
}

/// Operators and element types that this crate leaves out.
fn is_unsupported(e: &ModelError, model: &Model) -> bool {
    let all_known =
        model.graph.nodes.iter().all(|n| {
            qmodel::operators().any(|(domain, op, _)| n.domain == domain && n.op_type == op)
        });
    match e {
        ModelError::UnknownOperator { .. } | ModelError::MissingOpset { .. } => !all_known,
        ModelError::ElementType { .. } => true,
        // Casts and quantizations to 8-bit and smaller floats, and to 4-bit integers.
        ModelError::Attribute { attribute, .. } => attribute == "to" || attribute == "output_dtype",
        ModelError::OperandType { given, .. } => matches!(given.name(), "f16" | "f64" | "bf16"),
        _ => false,
    }
}

fn skip(e: &ModelError) -> Outcome {
    // The kind of reason, without names.
    let debug = format!("{e:?}");
    let kind = debug
        .split(['{', '('])
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    Outcome::Skipped(kind)
}

fn read(set: &Path, kind: &str) -> Result<Vec<Tensor>, ModelError> {
    let mut tensors = Vec::new();
    for i in 0.. {
        let Ok(bytes) = std::fs::read(set.join(format!("{kind}_{i}.pb"))) else {
            break;
        };
        tensors.push(Tensor::from_onnx_bytes(&bytes)?.1);
    }
    Ok(tensors)
}

/// Integers must be equal; floats within what another order of summation can do.
fn difference(got: &Tensor, want: &Tensor, absolute: f32) -> Option<String> {
    if got.element_type() != want.element_type() || got.shape() != want.shape() {
        return Some(format!(
            "{} {:?}, expected {} {:?}",
            got.element_type(),
            got.shape(),
            want.element_type(),
            want.shape()
        ));
    }
    if let (TensorData::F32(a), TensorData::F32(b)) = (got.data(), want.data()) {
        let close = |x: f32, y: f32| {
            x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= absolute + 2e-5 * y.abs()
        };
        let i = a.iter().zip(b).position(|(&x, &y)| !close(x, y))?;
        return Some(format!("[{i}] = {}, expected {}", a[i], b[i]));
    }
    // Debug text also equates NaN with NaN.
    (got != want && format!("{:?}", got.data()) != format!("{:?}", want.data()))
        .then(|| format!("{:?}, expected {:?}", got.data(), want.data()))
}
