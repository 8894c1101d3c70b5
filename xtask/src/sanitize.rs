//! `cargo xtask sanitize`: the kernels' tests under `AddressSanitizer`.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use crate::error::Error;
use crate::{process, test_programs, tiers, workspace};

/// Cases that a property test draws here, where everything is slower; the environment variable
/// overrules it.
const PROPTEST_CASES: &str = "32";

/// Run the kernels' tests with every access to memory checked.
///
/// The sanitizer finds reads and writes past the ends of slices, uses of what was freed, and
/// leaks, in code compiled here on every tier that this processor has. The option of the compiler is
/// only in nightly ones: without one nothing is run, which is an error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask sanitize                            every test of the kernels' library
  cargo xtask sanitize -- gemm                    tests with `gemm` in their names
  cargo xtask sanitize --toolchain nightly-2026-05-15

What it needs: `rustup toolchain install nightly`, of a version that builds the workspace.")]
pub(crate) struct Args {
    /// The nightly toolchain, as rustup calls it.
    #[arg(long, value_name = "NAME", default_value = NIGHTLY)]
    toolchain: String,
    /// Seconds that one test program may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    limit: u64,
    /// What test programs are given: parts of the names of tests, or their options.
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<String>,
}

/// The features of the kernels that switch these tiers on, and what their tests need beside them.
fn features(tiers: &[&str]) -> String {
    let gates = tiers::TIERS
        .iter()
        .filter(|tier| tiers.contains(&tier.name))
        .filter_map(|tier| tier.feature);
    let features: BTreeSet<&str> = ["std", "rayon"].into_iter().chain(gates).collect();
    Vec::from_iter(features).join(",")
}

/// The toolchain that is taken if none is named.
const NIGHTLY: &str = "nightly";

/// Whether the toolchain is there that is taken if none is named.
pub(crate) fn available() -> bool {
    has(NIGHTLY)
}

fn has(toolchain: &str) -> bool {
    process::quietly(Command::new("rustup").args(["run", toolchain, "rustc", "--version"]))
}

/// Builds with the sanitizer, and runs.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let absent = |missing: String, remedy: &str| Error::Absent {
        what: "AddressSanitizer over the kernels' tests".to_owned(),
        missing,
        remedy: remedy.to_owned(),
    };
    if !cfg!(target_os = "linux") {
        return Err(absent("Linux".to_owned(), "run it there"));
    }
    if !has(&args.toolchain) {
        return Err(absent(
            format!("toolchain `{}`", args.toolchain),
            "`rustup toolchain install nightly` fetches one",
        ));
    }
    let tiers = tiers::expected_here()?;
    println!("AddressSanitizer: {} must run", tiers.join(", "));
    for name in tiers::table()? {
        if !tiers.contains(&name.as_str()) {
            println!("NOT RUN: tier {name}, which this processor does not have");
        }
    }
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = Command::new("rustup");
    cargo
        .args([
            "run",
            &args.toolchain,
            "cargo",
            "test",
            "--quiet",
            "--package",
            "qkernels",
            "--no-default-features",
            "--features",
            &features(&tiers),
        ])
        // Instrumented code of tiers that do not run here would take longer to build than the rest to
        // run, and optimising it further finds nothing more.
        .args(["--config", "profile.dev.package.qkernels.opt-level=1"])
        .args(["--config", "profile.dev.debug=false"])
        // With a target named, build scripts and macros of the compiler are left as they are.
        .args([
            "--lib",
            "--test",
            "tiers",
            "--target",
            &target,
            "--target-dir",
        ])
        .arg(workspace::target().join("sanitize"))
        .current_dir(workspace::root())
        .env("RUSTFLAGS", "-Zsanitizer=address")
        // What the toolchain that runs this chore has set.
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN");
    println!("$ {}", process::shown(&cargo));
    let mut passed = 0;
    for program in test_programs::build(&mut cargo)? {
        let mut command = program.command(&[]);
        command
            .args(&args.filter)
            .env("QUAVER_EXPECT_ISA", tiers.join(","))
            .env_remove("QUAVER_TEST_ISA")
            .env_remove("QUAVER_ISA");
        if std::env::var_os("PROPTEST_CASES").is_none() {
            command.env("PROPTEST_CASES", PROPTEST_CASES);
        }
        let limit = Duration::from_secs(args.limit);
        passed += test_programs::run(&mut command, &program.name, limit)?;
    }
    if passed == 0 {
        return Err(Error::Missed(format!(
            "no test matches `{}`",
            args.filter.join(" ")
        )));
    }
    Ok(())
}
