//! The architecture's invariants, checked on the sources and manifests themselves.
//!
//! Each rule is a function from what it reads to [`Finding`]s, so that a test can hand it a bad
//! example. Clippy checks what it can (`undocumented_unsafe_blocks`, `missing_docs`); here is the
//! rest.

mod arrows;
mod code;
mod rules;

use crate::error::Error;
use crate::workspace::{self, Member};

/// One broken invariant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Where: a file with a line, or a crate.
    place: String,
    /// What is wrong and what is allowed.
    message: String,
}

/// Checks every invariant and prints each that is broken.
pub(crate) fn run() -> Result<(), Error> {
    let members = workspace::members()?;
    let mut findings = arrows::check(&members);
    let mut files = 0;
    for member in &members {
        for path in workspace::rust_files(&member.folder)? {
            let text = read(&path)?;
            files += 1;
            rules::check(
                &member.name,
                &workspace::relative(&path),
                &text,
                &mut findings,
            );
        }
        unsafe_policy(member, &mut findings)?;
    }
    if files == 0 {
        return Err(Error::Form {
            origin: workspace::root().display().to_string(),
            expected: "the crates should have source files, but none was found".to_owned(),
        });
    }
    for Finding { place, message } in &findings {
        println!("{place}: {message}");
    }
    if findings.is_empty() {
        println!(
            "tidy: {files} files of {} crates keep the invariants",
            members.len()
        );
        Ok(())
    } else {
        Err(Error::Untidy {
            count: findings.len(),
        })
    }
}

/// Hands a crate's root files, and the count of its exceptions, to the rule about `unsafe`.
fn unsafe_policy(member: &Member, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let mut exceptions = Vec::new();
    for path in workspace::rust_files(&member.folder)? {
        exceptions.extend(rules::unsafe_exceptions(
            &workspace::relative(&path),
            &read(&path)?,
        ));
    }
    for root in &member.roots {
        let text = read(root)?;
        rules::check_root(&member.name, &workspace::relative(root), &text, findings);
    }
    rules::check_exceptions(&member.name, &exceptions, findings);
    Ok(())
}

fn read(path: &std::path::Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })
}
