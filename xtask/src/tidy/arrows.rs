//! Which crate may depend on which: arrows point one way, and none reaches around another.

use super::Finding;
use crate::workspace::Member;

/// Each crate with the crates of this workspace that it may depend on.
///
/// A crate that is not listed is refused: a new crate states its place here first.
const ALLOWED: &[(&str, &[&str])] = &[
    ("qformat", &[]),
    ("qkernels", &["qformat"]),
    ("qcalib", &["qformat", "qkernels"]),
    // Models sit beside calibration, under the facade.
    ("qmodel", &["qformat", "qkernels"]),
    ("quaver", &["qformat", "qkernels", "qcalib", "qmodel"]),
    ("quaver-cli", &["quaver"]),
    // Training brings its own tensors; models and calibration are ours.
    ("qtrain", &["qformat", "qcalib", "qmodel"]),
    // What is timed is what users link: the kernels themselves, and whole models by the facade.
    ("quaver-benches", &["qformat", "qkernels", "quaver"]),
    ("xtask", &[]),
];

pub(super) fn check(members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == member.name) else {
            findings.push(Finding {
                place: member.name.clone(),
                message: "has no place among the arrows between crates: \
                          add it to xtask/src/tidy/arrows.rs and ARCHITECTURE.md"
                    .to_owned(),
            });
            continue;
        };
        for dependency in &member.depends_on {
            // A crate's tests may name the crate itself.
            if *dependency != member.name && !allowed.contains(&dependency.as_str()) {
                let may = if allowed.is_empty() {
                    "none".to_owned()
                } else {
                    allowed.join(", ")
                };
                findings.push(Finding {
                    place: member.name.clone(),
                    message: format!(
                        "depends on `{dependency}`; of this workspace's crates it may use: {may}"
                    ),
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, depends_on: &[&str]) -> Member {
        Member {
            name: name.to_owned(),
            folder: std::path::PathBuf::new(),
            depends_on: depends_on.iter().map(|&name| name.to_owned()).collect(),
            features: std::collections::BTreeMap::new(),
            roots: Vec::new(),
        }
    }

    #[test]
    fn an_arrow_that_points_back_is_found() {
        let findings = check(&[
            member("qformat", &["qkernels"]),
            member("qkernels", &["qformat"]),
        ]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, "qformat");
        assert!(
            findings[0].message.contains("`qkernels`"),
            "{}",
            findings[0].message
        );
    }

    #[test]
    fn reaching_around_the_facade_is_found() {
        assert_eq!(
            check(&[member("quaver-cli", &["quaver", "qmodel"])]).len(),
            1
        );
        assert_eq!(check(&[member("quaver-cli", &["quaver"])]), []);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert!(
            check(&[member("qnew", &[])])[0]
                .message
                .contains("no place")
        );
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Each crate may use only crates listed before it (the facade's users come last).
        let place = |name: &str| ALLOWED.iter().position(|(known, _)| *known == name);
        for (name, allowed) in ALLOWED {
            for dependency in *allowed {
                assert!(place(dependency) < place(name), "{name} -> {dependency}");
                assert!(
                    place(dependency).is_some(),
                    "{dependency} is no crate of the table"
                );
            }
        }
    }
}
