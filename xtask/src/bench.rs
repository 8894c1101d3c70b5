//! `cargo xtask bench`: hands over to the program that measures, built in release.

use std::ffi::OsString;
use std::process::Command;

use crate::error::Error;
use crate::{process, workspace};

/// Everything is for the measuring program, `--help` too.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments of the measuring program; `cargo xtask bench --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Builds the measuring program in release and runs it where the caller stands, so that relative
/// paths are the caller's.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let manifest = workspace::root().join("Cargo.toml");
    let mut command =
        process::cargo(["run", "--quiet", "--release", "--package", "quaver-benches"]);
    if let Ok(here) = std::env::current_dir() {
        command.current_dir(here);
    }
    command
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--")
        .args(&args.rest);
    if let Some(commit) = commit() {
        command.env("QUAVER_COMMIT", commit);
    }
    process::run(&mut command)
}

/// The commit that is measured, marked where the work tree differs; none outside a repository.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"])
        .current_dir(workspace::root());
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
