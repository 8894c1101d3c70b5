//! Tests as programs: built by cargo, run by a chore, which can put an emulator before them and a
//! limit on their time.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::Error;
use crate::process;

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TestProgram {
    /// The crate's folder, where cargo would run the program.
    pub(crate) folder: PathBuf,
    /// What is tested: the crate, or a file of its tests.
    pub(crate) name: String,
    /// The program.
    pub(crate) path: PathBuf,
}

/// Builds what `cargo` (a `cargo test` without `--no-run`) would run.
///
/// # Errors
///
/// When it does not build, or when there is no test to run.
pub(crate) fn build(cargo: &mut Command) -> Result<Vec<TestProgram>, Error> {
    cargo.args(["--no-run", "--message-format=json-render-diagnostics"]);
    cargo.stdin(Stdio::null());
    let messages = process::output(cargo)?;
    let programs = parse(&messages);
    if programs.is_empty() {
        return Err(Error::Form {
            origin: process::shown(cargo),
            expected: "it should build test programs, but there is none".to_owned(),
        });
    }
    Ok(programs)
}

fn parse(messages: &str) -> Vec<TestProgram> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| {
            let path = PathBuf::from(message["executable"].as_str()?);
            let manifest = PathBuf::from(message["manifest_path"].as_str()?);
            let folder = manifest.parent()?.to_path_buf();
            let package = folder.file_name()?.to_string_lossy().into_owned();
            let target = message["target"]["name"].as_str()?;
            Some(TestProgram {
                name: if target == package {
                    package
                } else {
                    format!("{package}/{target}")
                },
                folder,
                path,
            })
        })
        .collect()
}

impl TestProgram {
    /// Whether this tests a crate of that name.
    pub(crate) fn is_of(&self, krate: &str) -> bool {
        self.folder.file_name().is_some_and(|name| name == krate)
    }

    /// A command that runs the program as cargo would, behind `before` (an emulator with its
    /// arguments; nothing if empty).
    pub(crate) fn command(&self, before: &[String]) -> Command {
        let mut command = match before {
            [] => Command::new(&self.path),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.path);
                command
            }
        };
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// Runs a test program for at most so long; says what ran and how long it took.
///
/// What it prints is shown where it fails.
pub(crate) fn run(command: &mut Command, what: &str, limit: Duration) -> Result<u64, Error> {
    let start = Instant::now();
    let printed = process::output_within(command.arg("--color=never"), limit)?;
    let passed = passed(&printed).ok_or_else(|| Error::Form {
        origin: process::shown(command),
        expected: "its last line should count the tests that passed".to_owned(),
    })?;
    println!(
        "    {what}: {passed} tests passed in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    Ok(passed)
}

/// The count in `test result: ok. 27 passed; …`.
fn passed(printed: &str) -> Option<u64> {
    let line = printed
        .lines()
        .rev()
        .find(|line| line.starts_with("test result: ok."))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":null}
not json
{"manifest_path":"/w/q/Cargo.toml","target":{"name":"q"},"profile":{"test":true},"executable":"/t/q-1"}
{"manifest_path":"/w/q/Cargo.toml","target":{"name":"tiers"},"profile":{"test":true},"executable":"/t/t-2"}
{"reason":"build-finished","success":true}"#;
        let programs = parse(messages);
        let names: Vec<&str> = programs.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["q", "q/tiers"]);
        assert_eq!(programs[0].folder, PathBuf::from("/w/q"));
        assert!(programs[1].is_of("q") && !programs[1].is_of("tiers"));
    }

    #[test]
    fn what_passed_is_counted() {
        let printed = "running 2 tests\n\ntest result: ok. 2 passed; 0 failed; 0 ignored\n\n";
        assert_eq!(passed(printed), Some(2));
        assert_eq!(passed("test result: FAILED. 1 passed; 1 failed"), None);
        assert_eq!(passed(""), None);
    }

    #[test]
    fn an_emulator_stands_before_the_program() {
        let program = TestProgram {
            folder: PathBuf::from("/w/q"),
            name: "q".to_owned(),
            path: PathBuf::from("/t/q-1"),
        };
        let before = ["qemu".to_owned(), "-cpu".to_owned(), "max".to_owned()];
        assert!(process::shown(&program.command(&before)).ends_with("qemu -cpu max /t/q-1"));
        assert!(process::shown(&program.command(&[])).ends_with("/t/q-1"));
    }
}
