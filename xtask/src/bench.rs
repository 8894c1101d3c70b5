//! `cargo xtask bench`: hands over to the program that measures, built in release.

use std::collections::BTreeMap;
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
    let mut command = process::cargo(["run", "--quiet", "--release", "--package", PACKAGE]);
    let features = peers(&args.rest, &features()?)?;
    if !features.is_empty() {
        command.args(["--features", &features.join(",")]);
    }
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

/// The measuring program's package.
const PACKAGE: &str = "quaver-benches";

/// What the feature of a peer is called, before the peer's name.
const PREFIX: &str = "peer-";

/// The features of the measuring program.
fn features() -> Result<BTreeMap<String, Vec<String>>, Error> {
    workspace::members()?
        .into_iter()
        .find(|member| member.name == PACKAGE)
        .map(|member| member.features)
        .ok_or_else(|| Error::Form {
            origin: "cargo metadata".to_owned(),
            expected: format!("crate `{PACKAGE}` should be in the workspace"),
        })
}

/// The features that `--peer NAME`, `--peer=NAME` and `--peer NAME,NAME` ask for, each once: other
/// libraries are only built where they are measured.
fn peers(
    args: &[OsString],
    features: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<String>, Error> {
    let mut wanted: Vec<String> = Vec::new();
    let mut args = args.iter().map(|arg| arg.to_string_lossy());
    while let Some(arg) = args.next() {
        let names = match arg.strip_prefix("--peer=") {
            Some(names) => names.to_owned(),
            // Without a value it is for the program to complain.
            None if arg == "--peer" => args.next().unwrap_or_default().into_owned(),
            None => continue,
        };
        for name in names.split(',').filter(|name| !name.is_empty()) {
            let feature = format!("{PREFIX}{name}");
            if !features.contains_key(&feature) {
                let known: Vec<&str> = features
                    .keys()
                    .filter_map(|feature| feature.strip_prefix(PREFIX))
                    .collect();
                return Err(Error::Unknown {
                    kind: "peer",
                    given: name.to_owned(),
                    known: known.join(", "),
                });
            }
            if !wanted.contains(&feature) {
                wanted.push(feature);
            }
        }
    }
    Ok(wanted)
}

/// The commit that is measured, marked where the work tree differs; none outside a repository.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"])
        .current_dir(workspace::root());
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(args: &[&str]) -> Result<Vec<String>, String> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let features = ["default", "peer-half", "peer-onednn"]
            .map(|name| (name.to_owned(), Vec::new()))
            .into();
        peers(&args, &features).map_err(|error| error.to_string())
    }

    #[test]
    fn peers_switch_on_their_features() {
        assert_eq!(wanted(&["gemm", "--isa", "all"]).unwrap(), [""; 0]);
        assert_eq!(
            wanted(&["gemm", "--peer", "onednn", "--peer=half,onednn"]).unwrap(),
            ["peer-onednn", "peer-half"]
        );
        assert_eq!(wanted(&["gemm", "--peer"]).unwrap(), [""; 0]);
    }

    #[test]
    fn an_unknown_peer_is_an_error_that_names_the_known_ones() {
        let error = wanted(&["--peer", "mkl"]).unwrap_err();
        assert!(
            error.contains("`mkl`") && error.contains("half, onednn"),
            "{error}"
        );
    }
}
