//! `qtrain`: quantization-aware training of the digit classifier, and what corrections are worth.
#![forbid(unsafe_code)]

mod commands;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use qtrain::TrainError;

/// Train the digit classifier for four bits, and measure what corrections do without training.
///
/// Model and data are built in. Results depend on the options and the machine alone, not on the
/// run.
#[derive(Debug, Parser)]
#[command(name = "qtrain", version, arg_required_else_help = true)]
#[command(after_help = "Examples:
  qtrain train -o digits.w4a4.onnx
  qtrain corrections

Exit codes:
  0  done
  1  a file is at fault, training diverged, or the written model predicts something else
  2  the command line is at fault: options and their values")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(commands::train::Args),
    Corrections(commands::corrections::Args),
}

fn main() -> ExitCode {
    let outcome = match &Cli::parse().command {
        Command::Train(args) => commands::train::run(args),
        Command::Corrections(args) => commands::corrections::run(args),
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    // There is no place left to say that standard error is closed; the exit code stays.
    let _ = writeln!(std::io::stderr().lock(), "error: {error}");
    match error {
        TrainError::Setting { .. } => ExitCode::from(2),
        _ => ExitCode::from(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
