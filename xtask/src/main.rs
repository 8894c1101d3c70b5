//! The project's chores, one subcommand each: `cargo xtask NAME`.
//!
//! | chore | what it does |
//! |---|---|
//! | `bench` | times the kernels and models beside the machine's measured limits |
//! | `ci` | everything that must hold before a change is merged |
//! | `cross` | runs the tests for other processors under qemu |
//! | `leak` | proves by disassembly that functions keep to the instructions of their tier |
//! | `sanitize` | runs the kernels' tests under `AddressSanitizer` |
//! | `exhaustive` | compares operations with their reference on all 2^32 inputs |
//! | `tidy` | the architecture's invariants, read from the sources and the manifests |
//! | `features` | builds and tests the feature subsets of the crates that have features |
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod cross;
mod error;
mod exhaustive;
mod features;
mod leak;
mod process;
mod python;
mod sanitize;
mod test_programs;
mod tidy;
mod tiers;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

/// The project's chores.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "\
Examples:
  cargo xtask ci                         everything that must hold before a merge
  cargo xtask ci --list                  its steps, with what each is for
  cargo xtask ci --from tidy             go on at a step
  cargo xtask tidy                       only the architecture's invariants
  cargo xtask cross aarch64              the tests on ARM, under qemu
  cargo xtask leak                       instructions where they must not be
  cargo xtask exhaustive --op quantize   all 2^32 inputs of one operation
  cargo xtask features qkernels          the feature subsets of one crate
  cargo xtask bench gemm --isa all       every tier of instructions, side by side
  cargo xtask bench --help               what else can be timed"
)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Time kernels and models beside the machine's measured limits (in release).
    #[command(disable_help_flag = true)]
    Bench(bench::Args),
    /// Run every check that must hold before a change is merged.
    Ci(ci::Args),
    /// Build the tests for other processors and run them under qemu.
    Cross(cross::Args),
    /// Disassemble the kernels and prove that no instruction stands outside of its tier.
    Leak(leak::Args),
    /// Run the kernels' tests with every access to memory checked (needs a nightly compiler).
    Sanitize(sanitize::Args),
    /// Compare operations with their reference on every input that there is.
    Exhaustive(exhaustive::Args),
    /// Check the architecture's invariants.
    Tidy,
    /// Build and test the feature subsets of the crates that have features.
    Features(features::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().chore {
        Chore::Bench(args) => bench::run(&args),
        Chore::Ci(args) => ci::run(&args),
        Chore::Cross(args) => cross::run(&args),
        Chore::Leak(args) => leak::run(&args),
        Chore::Sanitize(args) => sanitize::run(&args),
        Chore::Exhaustive(args) => exhaustive::run(&args),
        Chore::Tidy => tidy::run(),
        Chore::Features(args) => features::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The program has said itself what is wrong; its status is passed on.
        Err(Error::Status { code, .. }) if code != 0 => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
