//! Every subset of features that a user may reasonably pick builds and passes its tests.

mod no_std;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::error::Error;
use crate::tiers::{SCALAR, TIERS};
use crate::workspace::{self, Member};
use crate::{process, tiers};

/// The crates that have features, and whether their tests are run for each subset too.
const CRATES: &[(&str, bool)] = &[("qformat", false), ("qkernels", true), ("qcalib", false)];

/// Cases a property test draws here: the full number runs once, with all features, in the workspace's
/// own tests.
const PROPTEST_CASES: &str = "16";

/// Optimised, tests of kernels take minutes to compile and seconds to run; as they are, half of that.
const PLAIN: &str = "profile.dev.package.qkernels.opt-level=0";

/// Build and test the feature subsets of the crates that have features.
///
/// For each crate: no feature, each alone, each with `std`, and all of them, as the manifest lists
/// them. `qkernels` also runs its tests, since its features decide which instructions are
/// dispatched to: the tiers that are compiled in and that this processor has must run, each in the
/// first subset that has it; what no tier changes runs once more beside the most tiers. What has no
/// tier here is built only, and said so; `cargo xtask cross` runs it.
///
/// Each crate is also linked, without its features, into a library that has no `std` at all.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask features               every crate
  cargo xtask features qkernels      one crate
  cargo xtask features --check-only  build, but run no tests")]
pub(crate) struct Args {
    /// The crates to try; all that have features if none is named.
    crates: Vec<String>,
    /// Build every subset, but run no tests.
    #[arg(long)]
    check_only: bool,
}

/// Builds and tests each subset of each crate.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    for given in &args.crates {
        if !CRATES.iter().any(|(name, _)| name == given) {
            return Err(Error::Unknown {
                kind: "crate with features",
                given: given.clone(),
                known: CRATES
                    .iter()
                    .map(|(name, _)| *name)
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
    }
    let members = workspace::members()?;
    let expected = tiers::expected_here()?;
    for &(name, tested) in CRATES {
        if !args.crates.is_empty() && !args.crates.iter().any(|given| given == name) {
            continue;
        }
        let member = members
            .iter()
            .find(|member| member.name == name)
            .ok_or_else(|| Error::Form {
                origin: "cargo metadata".to_owned(),
                expected: format!("crate `{name}` should be in the workspace"),
            })?;
        let subsets: Vec<_> = subsets(member)
            .into_iter()
            .map(|subset| {
                let tests = if tested && !args.check_only {
                    tests(member, &subset, &expected)
                } else {
                    Tests::Elsewhere
                };
                (subset, tests)
            })
            .collect();
        let largest = largest(&subsets);
        let mut passed = BTreeSet::new();
        for (index, (subset, tests)) in subsets.iter().enumerate() {
            try_subset(name, subset, tests, largest == Some(index), &mut passed)?;
        }
        no_std::check(name)?;
    }
    Ok(())
}

/// What testing a subset says.
#[derive(Debug, PartialEq, Eq)]
enum Tests {
    /// That these tiers give the right bits when they are compiled alone.
    Here(Vec<&'static str>),
    /// Nothing on this processor, which has no tier of this feature.
    Nowhere(String),
    /// Nothing that another run does not say: without `std` a tier's feature changes nothing that
    /// runs, nor does `std` without a tier, and the default features are the workspace's own tests.
    Elsewhere,
}

fn tests(member: &Member, subset: &str, expected: &[&'static str]) -> Tests {
    let on = closure(&member.features, subset);
    let mut usual = closure(&member.features, "default");
    usual.remove("default");
    let only_std = on.len() == 1 && on.contains("std");
    if !(on.is_empty() || on.contains("std")) || only_std || on == usual {
        return Tests::Elsewhere;
    }
    let compiled = tiers::compiled_with(expected, &on);
    for feature in &on {
        let mut of_feature = TIERS
            .iter()
            .filter(|tier| tier.feature == Some(feature.as_str()))
            .peekable();
        let idle =
            of_feature.peek().is_some() && !of_feature.any(|tier| compiled.contains(&tier.name));
        // Beside features that do run, an idle one changes nothing.
        if idle && compiled == [SCALAR] {
            return Tests::Nowhere(feature.clone());
        }
    }
    Tests::Here(compiled)
}

/// Which subset is tested with the most tiers compiled in.
fn largest(subsets: &[(String, Tests)]) -> Option<usize> {
    subsets
        .iter()
        .enumerate()
        .filter_map(|(index, (_, tests))| match tests {
            Tests::Here(tiers) => Some((tiers.len(), index)),
            _ => None,
        })
        .max()
        .map(|(_, index)| index)
}

/// Parts the tiers of a subset into those to go through and those that passed before. The `largest`
/// subset goes through the scalar one, and thereby what no tier changes, again: there it is compiled
/// beside other code than where it passed.
fn parted(
    tiers: &[&'static str],
    passed: &BTreeSet<&'static str>,
    largest: bool,
) -> (Vec<&'static str>, Vec<&'static str>) {
    if !largest {
        return tiers::untested(tiers, passed);
    }
    let mut passed = passed.clone();
    passed.remove(SCALAR);
    tiers::untested(tiers, &passed)
}

/// Builds a subset and runs what tests it has, through the tiers that have not `passed` yet.
fn try_subset(
    name: &str,
    features: &str,
    tests: &Tests,
    largest: bool,
    passed: &mut BTreeSet<&'static str>,
) -> Result<(), Error> {
    let start = Instant::now();
    let subset = [
        "--package",
        name,
        "--no-default-features",
        "--features",
        features,
    ];
    // The library alone first: a test's dependencies would turn on what the library forgot to ask for.
    let mut check = process::cargo(["clippy", "--quiet"]);
    process::run(check.args(subset).args(["--", "--deny", "warnings"]))?;
    let mut again = String::new();
    if let Tests::Here(tiers) = tests {
        let (picked, done) = parted(tiers, passed, largest);
        if !done.is_empty() {
            again = format!("; NOT RUN again: {}", tiers::shown(&done));
        }
        let mut test = process::cargo(["test", "--quiet", "--lib", "--tests"]);
        test.args(subset).args(["--config", PLAIN]);
        test.env_remove("QUAVER_ISA");
        test.env("QUAVER_EXPECT_ISA", tiers.join(","));
        test.env("QUAVER_TEST_ISA", picked.join(","));
        process::run(test.env("PROPTEST_CASES", PROPTEST_CASES))?;
        passed.extend(picked);
    }
    let shown = if features.is_empty() {
        "no feature"
    } else {
        features
    };
    let what = match tests {
        Tests::Here(tiers) => {
            format!("builds and passes its tests on {}{again}", tiers.join(", "))
        }
        Tests::Nowhere(feature) => {
            format!("builds; NOT RUN: this processor has no tier of `{feature}`")
        }
        Tests::Elsewhere => "builds".to_owned(),
    };
    println!(
        "features: {name} with {shown} {what} ({:.0} s)",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// No feature, each alone, each with `std`, and all of them, as `--features` takes them. Subsets that
/// turn on the same features are tried once.
///
/// Without `std` the tiers are chosen when compiling, so only with it does a tier alone run here.
fn subsets(member: &Member) -> Vec<String> {
    let names: Vec<&str> = member
        .features
        .keys()
        .map(String::as_str)
        .filter(|&name| name != "default")
        .collect();
    let mut wanted = vec![String::new()];
    wanted.extend(names.iter().map(|&name| name.to_owned()));
    if names.contains(&"std") {
        wanted.extend(names.iter().map(|name| format!("std,{name}")));
    }
    wanted.push(names.join(","));
    let mut seen = BTreeSet::new();
    wanted.retain(|subset| seen.insert(closure(&member.features, subset)));
    wanted
}

/// The features that a subset turns on, with those that these turn on in turn.
fn closure(features: &BTreeMap<String, Vec<String>>, subset: &str) -> BTreeSet<String> {
    let mut on = BTreeSet::new();
    let mut open: Vec<&str> = subset.split(',').filter(|name| !name.is_empty()).collect();
    while let Some(name) = open.pop() {
        if let Some(enables) = features.get(name)
            && on.insert(name.to_owned())
        {
            open.extend(enables.iter().map(String::as_str));
        }
    }
    on
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(features: &[(&str, &[&str])]) -> Member {
        Member {
            name: "x".to_owned(),
            folder: std::path::PathBuf::new(),
            depends_on: Vec::new(),
            features: features
                .iter()
                .map(|(name, enables)| {
                    (
                        (*name).to_owned(),
                        enables.iter().map(|&e| e.to_owned()).collect(),
                    )
                })
                .collect(),
            roots: Vec::new(),
        }
    }

    #[test]
    fn none_each_and_all() {
        let member = member(&[
            ("default", &["a"]),
            ("a", &[]),
            ("b", &["dep:b"]),
            ("c", &["b"]),
        ]);
        assert_eq!(subsets(&member), ["", "a", "b", "c", "a,b,c"]);
    }

    #[test]
    fn each_tier_is_tried_with_run_time_detection_too() {
        let member = member(&[("avx2", &[]), ("rayon", &["std"]), ("std", &[])]);
        assert_eq!(
            subsets(&member),
            ["", "avx2", "rayon", "std", "std,avx2", "avx2,rayon,std"]
        );
    }

    #[test]
    fn what_no_other_run_tests_is_tested() {
        let member = member(&[
            ("default", &["avx2", "neon", "std"]),
            ("avx2", &[]),
            ("neon", &[]),
            ("std", &[]),
        ]);
        let tests = |subset| tests(&member, subset, &["scalar", "avx2"]);
        assert_eq!(tests(""), Tests::Here(vec!["scalar"]));
        assert_eq!(tests("std"), Tests::Elsewhere);
        assert_eq!(tests("std,avx2"), Tests::Here(vec!["scalar", "avx2"]));
        assert_eq!(tests("std,neon"), Tests::Nowhere("neon".to_owned()));
        assert_eq!(tests("avx2"), Tests::Elsewhere);
        assert_eq!(tests("avx2,neon,std"), Tests::Elsewhere);
    }

    #[test]
    fn scalar_code_runs_again_beside_the_most_tiers() {
        let here = |tiers: &[&'static str]| Tests::Here(tiers.to_vec());
        let subsets = [
            ("".to_owned(), here(&["scalar"])),
            (
                "std,a".to_owned(),
                here(&["scalar", "avx512bw", "avx512_vnni"]),
            ),
            ("std,b".to_owned(), here(&["scalar", "avx2"])),
            ("a,b,std".to_owned(), Tests::Elsewhere),
        ];
        assert_eq!(largest(&subsets), Some(1));
        assert_eq!(largest(&subsets[3..]), None);

        let passed = BTreeSet::from(["scalar", "avx2"]);
        let tiers = ["scalar", "avx2", "avx512bw"];
        assert_eq!(
            parted(&tiers, &passed, false),
            (vec!["avx512bw"], vec!["scalar", "avx2"])
        );
        assert_eq!(
            parted(&tiers, &passed, true),
            (vec!["scalar", "avx512bw"], vec!["avx2"])
        );
        assert_eq!(
            parted(&["scalar"], &passed, false),
            (vec!["scalar"], vec![])
        );
    }

    #[test]
    fn equal_subsets_are_tried_once() {
        assert_eq!(
            subsets(&member(&[("default", &["std"]), ("std", &["y/std"])])),
            ["", "std"]
        );
        assert_eq!(subsets(&member(&[])), [""]);
    }
}
