//! The workspace as cargo sees it, and its source files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Error;
use crate::process;

/// One crate of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// The package's name.
    pub(crate) name: String,
    /// The folder of its manifest.
    pub(crate) folder: PathBuf,
    /// The crates of this workspace that it depends on, of every kind (also for tests and builds).
    pub(crate) depends_on: Vec<String>,
    /// Its features, each with what it turns on.
    pub(crate) features: BTreeMap<String, Vec<String>>,
    /// The root files of its library and programs.
    pub(crate) roots: Vec<PathBuf>,
}

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// All crates of the workspace, by name.
pub(crate) fn members() -> Result<Vec<Member>, Error> {
    let text = process::output(&mut process::cargo([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--offline",
    ]))?;
    parse(&text)
}

fn parse(metadata: &str) -> Result<Vec<Member>, Error> {
    let wrong = |expected: String| Error::Form {
        origin: "cargo metadata".to_owned(),
        expected,
    };
    let document: Value = serde_json::from_str(metadata).map_err(|e| wrong(e.to_string()))?;
    let packages = document["packages"]
        .as_array()
        .ok_or_else(|| wrong("a list `packages` should be there".to_owned()))?;
    let mut members = Vec::with_capacity(packages.len());
    for package in packages {
        let name = text(&package["name"]);
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let folder = manifest
            .parent()
            .ok_or_else(|| wrong(format!("package `{name}` should have a manifest path")))?;
        let mut depends_on: Vec<String> = list(&package["dependencies"])
            // A path makes it one of ours.
            .filter(|dependency| dependency["path"].is_string())
            .map(|dependency| text(&dependency["name"]))
            .collect();
        depends_on.sort_unstable();
        depends_on.dedup();
        let features = package["features"].as_object().map(|features| {
            features
                .iter()
                .map(|(name, enables)| (name.clone(), list(enables).map(text).collect()))
                .collect()
        });
        let roots = list(&package["targets"])
            .filter(|target| {
                list(&target["kind"]).any(|kind| kind == "lib" || kind == "bin" || kind == "cdylib")
            })
            .map(|target| PathBuf::from(text(&target["src_path"])))
            .collect();
        members.push(Member {
            name,
            folder: folder.to_path_buf(),
            depends_on,
            features: features.unwrap_or_default(),
            roots,
        });
    }
    if members.is_empty() {
        return Err(wrong("at least one package should be there".to_owned()));
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Every file below `folder` whose name ends in `.rs`, sorted; build folders are left out.
pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let failed = |source| Error::Io {
            path: folder.clone(),
            source,
        };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A path as seen from the workspace's root, with `/` on every system.
pub(crate) fn relative(path: &Path) -> String {
    let root = root();
    path.strip_prefix(&root)
        .unwrap_or(path)
        .to_string_lossy()
        .replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let members = parse(
            r#"{"packages": [
                {"name": "b", "manifest_path": "/w/b/Cargo.toml",
                 "dependencies": [{"name": "a", "path": "/w/a"}, {"name": "serde"},
                                  {"name": "a", "path": "/w/a", "kind": "dev"}],
                 "features": {"default": ["std"], "std": []},
                 "targets": [{"kind": ["lib"], "src_path": "/w/b/src/lib.rs"},
                             {"kind": ["bench"], "src_path": "/w/b/benches/x.rs"}]},
                {"name": "a", "manifest_path": "/w/a/Cargo.toml", "dependencies": [],
                 "features": {}, "targets": []}]}"#,
        )
        .unwrap();
        assert_eq!(members[0].name, "a");
        assert_eq!(members[1].depends_on, ["a"]);
        assert_eq!(members[1].features["default"], ["std"]);
        assert_eq!(members[1].roots, [PathBuf::from("/w/b/src/lib.rs")]);
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "{}", r#"{"packages": []}"#, r#"{"packages": 3}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn this_file_is_among_the_sources() {
        let files = rust_files(&root().join("xtask")).unwrap();
        assert!(
            files
                .iter()
                .any(|file| relative(file) == "xtask/src/workspace.rs")
        );
    }
}
