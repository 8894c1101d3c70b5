//! The command: what is refused before any work, and with which exit code.

use std::process::{Command, Output};

fn qtrain(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qtrain"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn bad_options_are_refused_at_once() {
    for (args, word) in [
        (&["train", "--weight-bits", "1"][..], "bits of weights 1"),
        (
            &["train", "--activation-bits", "5"],
            "bits of activations 5",
        ),
        (&["train", "--start", "guess"], "\"guess\""),
        (&["train", "--quick", "--epochs", "3"], "--epochs"),
        (&["corrections", "--method", "percentile=0"], "percentile"),
    ] {
        let out = qtrain(args);
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(word), "{args:?}: {text}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/folder/out.onnx");
    for path in [missing.as_path(), folder.path()] {
        let out = qtrain(&["train", "-o", path.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert!(out.stdout.is_empty());
    }
}

#[test]
fn help_names_both_commands() {
    let out = qtrain(&["--help"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("train") && text.contains("corrections") && out.status.success());
}
