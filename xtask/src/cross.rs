//! `cargo xtask cross`: the tests on processors that are not here, under qemu.

mod target;
mod toolchain;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::Error;
use crate::{process, test_programs, tiers, workspace};
use target::{Level, TARGETS, Target};
use toolchain::Toolchain;

/// Cases that a property test draws under emulation, which is 20 to 50 times slower; the
/// environment variable overrules it.
const PROPTEST_CASES: &str = "8";

/// Fully optimised, tests of kernels take minutes to compile; this is enough to emulate them.
const PLAIN: &str = "profile.dev.package.qkernels.opt-level=1";

/// Crates in which no tier changes anything.
const WITHOUT_TIERS: &[&str] = &["qformat"];

/// Build the tests for other processors and run them under qemu.
///
/// Each level is a model of processor that has some tiers of instructions and lacks the others, so
/// it proves two things: these tiers give the right bits, and no instruction of a higher tier is
/// met on the way. A tier that should have run and did not is a failure.
///
/// Where several levels of a processor are run, each goes through the tiers that the levels before
/// it lack, since those which they have were tested there; that is said.
///
/// Emulation proves correctness, never speed.
#[derive(clap::Args)]
#[command(after_help = "\
Targets and levels:
  aarch64   neon      Cortex-A72: NEON alone
            dotprod   Neoverse-N1: and sdot, udot
            i8mm      every extension that qemu knows
  s390x     scalar    big-endian
  x86_64    scalar    Nehalem: SSE 4.2, none of the tiers above scalar
            avx2      Haswell: AVX2, FMA and F16C, no AVX-512

Examples:
  cargo xtask cross                            every target and level
  cargo xtask cross aarch64 --level dotprod    one level
  cargo xtask cross s390x -- gemm              tests with `gemm` in their names
  cargo xtask cross x86_64 --package qkernels  one crate

What it needs on Debian and its kin (`.ci/run` installs it):
  qemu-user; for aarch64 and s390x a C cross-compiler (gcc-aarch64-linux-gnu …) and a Rust standard
  library: `rustup target add aarch64-unknown-linux-gnu`, or libstd-rust-web-dev:arm64 beside
  rustc-web; for s390x also what `.ci/s390x-std` fetches. QUAVER_CROSS_RUSTC names another compiler,
  QUAVER_S390X_STD another folder of its standard library.")]
pub(crate) struct Args {
    /// The processors; all if none is named.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// The levels to run, by name; all of each target if none is named. Repeatable.
    #[arg(long = "level", value_name = "LEVEL")]
    levels: Vec<String>,
    /// The crates whose tests run. Repeatable.
    #[arg(long = "package", value_name = "CRATE", default_values = ["qformat", "qkernels"])]
    packages: Vec<String>,
    /// Seconds that one test program may take at one level.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
    /// What test programs are given: parts of the names of tests, or their options.
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<String>,
}

/// What ran at one level.
#[derive(Default)]
struct Passed {
    /// Programs that were not left out.
    programs: usize,
    /// Their tests that passed.
    tests: u64,
    /// Of these, the tests in crates that have tiers.
    of_tiers: u64,
}

impl Passed {
    fn add(&mut self, tests: u64, has_tiers: bool) {
        self.programs += 1;
        self.tests += tests;
        if has_tiers {
            self.of_tiers += tests;
        }
    }

    /// Whether programs ran, but none of their tests did.
    fn nothing(&self) -> bool {
        self.programs > 0 && self.tests == 0
    }
}

/// Builds once a target, and runs every program at every level picked.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let picked = pick(&args.targets, &args.levels)?;
    let mut covered = BTreeSet::new();
    for (target, levels) in picked {
        let toolchain = Toolchain::find(target)?;
        println!("{}: built by {}", target.name, toolchain.describe());
        let mut cargo = process::cargo(["test", "--quiet", "--lib", "--tests"]);
        for package in &args.packages {
            cargo.args(["--package", package]);
        }
        cargo.args(["--config", PLAIN]);
        // Another compiler than the workspace's: beside its files, not among them.
        cargo.arg("--target-dir");
        cargo.arg(workspace::target().join("cross"));
        toolchain.prepare(&mut cargo);
        let programs = test_programs::build(&mut cargo)?;
        let mut tested = BTreeSet::new();
        for level in levels {
            let tiers = tiers::expected_with(level.flags)?;
            let (picked, again) = tiers::untested(&tiers, &tested);
            println!(
                "{} as {}: {} must run",
                target.name,
                level.cpu,
                tiers.join(", ")
            );
            if !again.is_empty() {
                println!(
                    "    NOT RUN again: {}, which passed before",
                    tiers::shown(&again)
                );
            }
            let mut passed = Passed::default();
            for program in &programs {
                let has_tiers = !WITHOUT_TIERS.iter().any(|krate| program.is_of(krate));
                if !again.is_empty() && !has_tiers {
                    println!("    {}: NOT RUN again", program.name);
                    continue;
                }
                let mut command = program.command(&toolchain.emulator(level));
                command
                    .args(&args.filter)
                    .env("QUAVER_EXPECT_ISA", tiers.join(","))
                    .env("QUAVER_TEST_ISA", picked.join(","))
                    .env_remove("QUAVER_ISA");
                if std::env::var_os("PROPTEST_CASES").is_none() {
                    command.env("PROPTEST_CASES", PROPTEST_CASES);
                }
                let limit = Duration::from_secs(args.limit);
                let tests = test_programs::run(&mut command, &program.name, limit)?;
                passed.add(tests, has_tiers);
            }
            if passed.nothing() {
                return Err(Error::Missed(format!(
                    "no test of {} matches `{}`",
                    args.packages.join(", "),
                    args.filter.join(" ")
                )));
            }
            if passed.of_tiers > 0 {
                tested.extend(picked);
            }
        }
        covered.extend(tested);
    }
    for name in tiers::table()? {
        if !covered.contains(&name.as_str()) {
            println!("NOT RUN: tier {name}, at none of these levels");
        }
    }
    Ok(())
}

/// The targets and their levels that the names pick.
fn pick(
    targets: &[String],
    levels: &[String],
) -> Result<Vec<(&'static Target, Vec<&'static Level>)>, Error> {
    for given in targets {
        if !TARGETS.iter().any(|target| target.name == given) {
            return Err(Error::Unknown {
                kind: "target",
                given: given.clone(),
                known: joined(TARGETS.iter().map(|target| target.name)),
            });
        }
    }
    let picked: Vec<_> = TARGETS
        .iter()
        .filter(|target| targets.is_empty() || targets.iter().any(|given| given == target.name))
        .collect();
    for given in levels {
        let mut known = picked.iter().flat_map(|target| target.levels);
        if !known.any(|level| level.name == given) {
            return Err(Error::Unknown {
                kind: "level of these targets",
                given: given.clone(),
                known: joined(
                    picked
                        .iter()
                        .flat_map(|target| target.levels)
                        .map(|level| level.name),
                ),
            });
        }
    }
    Ok(picked
        .into_iter()
        .map(|target| {
            let wanted = target.levels.iter().filter(|level| {
                levels.is_empty() || levels.iter().any(|given| given == level.name)
            });
            (target, wanted.collect::<Vec<_>>())
        })
        .filter(|(_, levels)| !levels.is_empty())
        .collect())
}

fn joined(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(targets: &[&str], levels: &[&str]) -> Result<Vec<String>, String> {
        let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let picked = pick(&owned(targets), &owned(levels)).map_err(|error| error.to_string())?;
        Ok(picked
            .into_iter()
            .flat_map(|(target, levels)| {
                levels
                    .into_iter()
                    .map(move |level| format!("{} {}", target.name, level.name))
            })
            .collect())
    }

    #[test]
    fn names_pick_targets_and_levels() {
        let all: usize = TARGETS.iter().map(|target| target.levels.len()).sum();
        assert_eq!(picked(&[], &[]).unwrap().len(), all);
        assert_eq!(
            picked(&["aarch64"], &[]).unwrap(),
            ["aarch64 neon", "aarch64 dotprod", "aarch64 i8mm"]
        );
        assert_eq!(picked(&[], &["avx2"]).unwrap(), ["x86_64 avx2"]);
        assert_eq!(picked(&["s390x"], &["scalar"]).unwrap(), ["s390x scalar"]);
    }

    #[test]
    fn programs_without_a_test_are_nothing_and_prove_no_tier() {
        let passed = |programs: &[(u64, bool)]| {
            let mut passed = Passed::default();
            for &(tests, has_tiers) in programs {
                passed.add(tests, has_tiers);
            }
            (passed.nothing(), passed.of_tiers)
        };
        // All were left out: they passed at a level before.
        assert_eq!(passed(&[]), (false, 0));
        assert_eq!(passed(&[(0, true)]), (true, 0));
        assert_eq!(passed(&[(3, false), (0, true)]), (false, 0));
        assert_eq!(passed(&[(0, false), (2, true), (1, true)]), (false, 3));
    }

    #[test]
    fn unknown_names_are_errors_that_name_the_known_ones() {
        let error = picked(&["arm"], &[]).unwrap_err();
        assert!(
            error.contains("`arm`") && error.contains("aarch64"),
            "{error}"
        );
        let error = picked(&["s390x"], &["neon"]).unwrap_err();
        assert!(
            error.contains("`neon`") && error.contains("scalar"),
            "{error}"
        );
    }
}
