//! Calibration in shards, as a user runs it.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn digits(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/digits")
        .join(name);
    path.to_str().unwrap().to_owned()
}

fn quaver(folder: &TempDir, line: &str) -> Output {
    let line = line
        .replace("MODEL", &digits("digits.onnx"))
        .replace("DATA", &digits("calibration.npz"));
    Command::new(env!("CARGO_BIN_EXE_quaver"))
        .args(line.split_whitespace())
        .current_dir(folder.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

fn succeeds(folder: &TempDir, line: &str) {
    let out = quaver(folder, line);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{line}\n{stderr}");
}

fn fails(folder: &TempDir, line: &str, culprit: &str) {
    let out = quaver(folder, line);
    let stderr = String::from_utf8_lossy(&out.stderr).replace('│', " ");
    let flat = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!out.status.success(), "{line} succeeded");
    assert!(
        flat.contains(culprit) && !flat.contains("panicked"),
        "{line}\n{stderr}"
    );
}

#[test]
fn shards_give_the_bytes_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    succeeds(&folder, "calibrate MODEL --calibration DATA -o one.qcal");
    for i in 1..=3 {
        succeeds(
            &folder,
            &format!("calibrate MODEL --calibration DATA --shard {i}/3 -o p{i}.qcal"),
        );
    }
    for parts in ["p1.qcal p2.qcal p3.qcal", "p3.qcal p1.qcal p2.qcal"] {
        succeeds(&folder, &format!("calibrate merge {parts} -o all.qcal"));
        assert!(bytes("all.qcal") == bytes("one.qcal"), "{parts}");
    }
    // As many threads as there are processors took part above.
    for threads in 1..=3 {
        let line = "calibrate MODEL --calibration DATA -o threads.qcal";
        succeeds(&folder, &format!("{line} --threads {threads}"));
        assert!(
            bytes("threads.qcal") == bytes("one.qcal"),
            "{threads} threads"
        );
    }
    for how in [
        "--method moving-average",
        "--method entropy --format qoperator",
        "--method mse --scheme symmetric --exclude fc2",
        "--method lsq --per-tensor",
    ] {
        for (from, to) in [
            ("--calibration DATA", "a.onnx"),
            ("--calibration DATA --threads 3", "b.onnx"),
            ("--from all.qcal", "c.onnx"),
        ] {
            succeeds(&folder, &format!("quantize MODEL {from} {how} -o {to}"));
        }
        assert!(bytes("a.onnx") == bytes("b.onnx"), "{how}, 3 threads");
        assert!(bytes("a.onnx") == bytes("c.onnx"), "{how}, from shards");
    }
}

#[test]
fn shards_that_do_not_fit_are_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let part = "calibrate MODEL --calibration DATA";
    succeeds(
        &folder,
        &format!("{part} --method minmax --shard 1/2 -o p1.qcal"),
    );
    succeeds(
        &folder,
        &format!("{part} --method minmax --shard 2/2 --batch 20 -o b.qcal"),
    );
    succeeds(
        &folder,
        &format!("{part} --method mse --shard 2/2 -o m.qcal"),
    );
    let bytes = std::fs::read(at("p1.qcal")).unwrap();
    std::fs::write(at("cut.qcal"), &bytes[..bytes.len() - 1]).unwrap();
    let mut flipped = bytes;
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(at("flipped.qcal"), &flipped).unwrap();
    for (parts, culprit) in [
        ("p1.qcal p1.qcal", "batch 0 was observed before"),
        ("p1.qcal b.qcal", "batches of 20"),
        ("p1.qcal m.qcal", "list of observers"),
        ("p1.qcal cut.qcal", "cut.qcal"),
        ("flipped.qcal", "damaged"),
        ("none.qcal", "none.qcal"),
    ] {
        fails(
            &folder,
            &format!("calibrate merge {parts} -o all.qcal"),
            culprit,
        );
    }
    fails(
        &folder,
        "quantize MODEL --from p1.qcal -o all.qcal",
        "lacks batches 10 to 19 of 20",
    );
    fails(&folder, &format!("{part} --shard 4/3 -o all.qcal"), "1/3");
    fails(
        &folder,
        &format!("{part} --threads 0 -o all.qcal"),
        "--threads",
    );
    fails(
        &folder,
        "quantize MODEL --from p1.qcal --threads 2 -o all.qcal",
        "--threads does nothing with --from",
    );
    assert!(!at("all.qcal").exists());
}
