//! The rules that one source file can break by itself.

use super::{Finding, code};

/// The longest a source file may be, in lines.
const MAX_LINES: usize = 800;

/// Where code may ask for the target's architecture: the table of instruction sets and its files.
const ARCH_PLACES: &[&str] = &[
    "crates/qkernels/src/isa.rs",
    "crates/qkernels/src/isa/",
    "crates/qkernels/src/arch",
];

/// What a crate says about `unsafe` in its root files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// `#![forbid(unsafe_code)]`.
    Forbid,
    /// `#![deny(unsafe_code)]`, and so many modules that allow it again.
    Deny(usize),
    /// Kernels: `unsafe` with an argument for each.
    Argued,
}

/// The crates that do not forbid `unsafe`; every other one does.
const EXCEPTIONS: &[(&str, Policy)] = &[
    ("qkernels", Policy::Argued),
    ("qmodel", Policy::Deny(1)),
    // Two of the peers that it measures against are behind pointers, its threads outlive the work
    // that they borrow, and its allocator is one.
    ("quaver-benches", Policy::Deny(4)),
];

/// Words that have no place in finished code.
const BANNED: &[(&str, &str)] = &[
    ("todo!", "finish it, or return a typed error"),
    ("unimplemented!", "finish it, or return a typed error"),
    ("dbg!", "take the debugging output away"),
];

/// Checks one file of the crate `member`.
pub(super) fn check(member: &str, file: &str, text: &str, findings: &mut Vec<Finding>) {
    let lines = text.lines().count();
    if lines > MAX_LINES {
        findings.push(Finding {
            place: file.to_owned(),
            message: format!("has {lines} lines, more than {MAX_LINES}: one thing a file"),
        });
    }
    if file
        .rsplit('/')
        .next()
        .is_some_and(|name| matches!(name, "utils.rs" | "util.rs"))
    {
        findings.push(Finding {
            place: file.to_owned(),
            message: "is named after nothing: name it for what it holds".to_owned(),
        });
    }
    let code = code::only(text);
    for (word, instead) in BANNED {
        for line in code::lines_with(&code, word) {
            findings.push(at(file, line, format!("`{word}` found: {instead}")));
        }
    }
    if !ARCH_PLACES.iter().any(|place| file.starts_with(place)) {
        for line in code::lines_with(&code, "target_arch") {
            findings.push(at(
                file,
                line,
                "asks for the target's architecture; only the table of instruction sets and its \
                 files may (crates/qkernels/src/isa.rs, src/arch/)"
                    .to_owned(),
            ));
        }
    }
    if member != "qkernels" {
        for line in code::lines_with(&code, "target_feature") {
            findings.push(at(
                file,
                line,
                "target features belong to qkernels".to_owned(),
            ));
        }
    }
}

/// Checks that a crate's root file states its policy about `unsafe`.
pub(super) fn check_root(member: &str, file: &str, text: &str, findings: &mut Vec<Finding>) {
    // A crate that may make exceptions need not make any.
    let enough: &[&str] = match policy(member) {
        Policy::Forbid => &["#![forbid(unsafe_code)]"],
        Policy::Deny(_) => &["#![deny(unsafe_code)]", "#![forbid(unsafe_code)]"],
        Policy::Argued => return,
    };
    if !code::only(text)
        .lines()
        .any(|line| enough.contains(&line.trim()))
    {
        findings.push(Finding {
            place: file.to_owned(),
            message: format!("should say `{}`", enough[0]),
        });
    }
}

/// The places of one file where `unsafe` is allowed again, by attributes of any number of lines.
pub(super) fn unsafe_exceptions(file: &str, text: &str) -> Vec<String> {
    let allows = |attribute: &str| {
        (code::has_word(attribute, "allow") || code::has_word(attribute, "expect"))
            && code::has_word(attribute, "unsafe_code")
    };
    code::attributes(&code::only(text))
        .into_iter()
        .filter(|(_, attribute)| allows(attribute))
        .map(|(line, _)| format!("{file}:{line}"))
        .collect()
}

/// Checks that a crate has no more exceptions than its policy grants.
pub(super) fn check_exceptions(member: &str, places: &[String], findings: &mut Vec<Finding>) {
    let granted = match policy(member) {
        Policy::Forbid => 0,
        Policy::Deny(granted) => granted,
        Policy::Argued => return,
    };
    for place in places.iter().skip(granted) {
        findings.push(Finding {
            place: place.clone(),
            message: format!("allows `unsafe`; `{member}` may do so in {granted} module(s)"),
        });
    }
}

fn policy(member: &str) -> Policy {
    EXCEPTIONS
        .iter()
        .find(|(name, _)| *name == member)
        .map_or(Policy::Forbid, |(_, policy)| *policy)
}

fn at(file: &str, line: usize, message: String) -> Finding {
    Finding {
        place: format!("{file}:{line}"),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(member: &str, file: &str, text: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        check(member, file, text, &mut findings);
        findings
    }

    #[test]
    fn unfinished_code_is_found_and_talk_of_it_is_not() {
        let findings = found("qmodel", "x.rs", "// todo!\nfn f() {\n    todo!()\n}\n");
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, "x.rs:3");
        assert_eq!(found("qmodel", "x.rs", "unimplemented!(\"soon\")").len(), 1);
    }

    #[test]
    fn the_architecture_is_asked_for_in_its_places_only() {
        let text = "#[cfg(target_arch = \"x86_64\")]\nmod x;\n";
        assert_eq!(
            found("qkernels", "crates/qkernels/src/gemm.rs", text).len(),
            1
        );
        assert_eq!(found("qkernels", "crates/qkernels/src/isa.rs", text), []);
        assert_eq!(
            found("qkernels", "crates/qkernels/src/arch/x86_64/avx2.rs", text),
            []
        );
        assert_eq!(
            found(
                "qcalib",
                "crates/qcalib/src/lib.rs",
                "if cfg!(target_arch = \"\")"
            )
            .len(),
            1
        );
    }

    #[test]
    fn target_features_are_the_kernels_matter() {
        let text = "#[target_feature(enable = \"avx2\")]";
        assert_eq!(found("qcalib", "crates/qcalib/src/lib.rs", text).len(), 1);
        assert_eq!(found("qkernels", "crates/qkernels/src/isa.rs", text), []);
    }

    #[test]
    fn long_files_are_named() {
        assert_eq!(found("a", "x.rs", &"\n".repeat(MAX_LINES)), []);
        let findings = found("a", "x.rs", &"\n".repeat(MAX_LINES + 1));
        assert!(
            findings[0].message.contains("801 lines"),
            "{}",
            findings[0].message
        );
    }

    #[test]
    fn files_are_named_for_what_they_hold() {
        assert_eq!(found("a", "src/utils.rs", "").len(), 1);
    }

    #[test]
    fn each_root_states_its_policy() {
        let root = |member, text| {
            let mut findings = Vec::new();
            check_root(member, "lib.rs", text, &mut findings);
            findings.len()
        };
        assert_eq!(root("qformat", "#![forbid(unsafe_code)]"), 0);
        assert_eq!(root("qformat", "// #![forbid(unsafe_code)]"), 1);
        assert_eq!(root("qformat", "#![deny(unsafe_code)]"), 1);
        assert_eq!(root("qmodel", "#![deny(unsafe_code)]"), 0);
        assert_eq!(root("qmodel", "#![forbid(unsafe_code)]"), 0);
        assert_eq!(root("qmodel", ""), 1);
        assert_eq!(root("qkernels", ""), 0);
    }

    #[test]
    fn exceptions_are_counted() {
        let places = unsafe_exceptions(
            "x.rs",
            "#[allow(unsafe_code)]\nmod a;\n// allow(unsafe_code)\n",
        );
        assert_eq!(places, ["x.rs:1"]);
        let places_in = |text| unsafe_exceptions("x.rs", text);
        assert_eq!(
            places_in(
                "//! Text.\n\n#![allow(\n    unsafe_code,\n    reason = \"[a] (b)\"\n)]\n\n\
                 #[cfg_attr(\n    x,\n    expect(dead_code,\n        unsafe_code))]\nmod a;\n"
            ),
            ["x.rs:3", "x.rs:8"]
        );
        assert_eq!(
            places_in("#[allow(dead_code)]\nmod a;\n#[deny(\n    unsafe_code\n)]\nmod b;\n"),
            [""; 0]
        );
        let count = |member, places: &[String]| {
            let mut findings = Vec::new();
            check_exceptions(member, places, &mut findings);
            findings.len()
        };
        assert_eq!(count("qmodel", &places), 0);
        assert_eq!(
            count("qmodel", &[places.clone(), places.clone()].concat()),
            1
        );
        assert_eq!(count("qcalib", &places), 1);
    }
}
