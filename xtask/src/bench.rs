//! `cargo xtask bench`: hands over to the program that measures, built in release.

use std::ffi::OsString;

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
    process::run(&mut command)
}
