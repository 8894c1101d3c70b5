//! The `quaver` command: quantize, run, evaluate and inspect models, and a demo of the six steps.
#![forbid(unsafe_code)]

// First, so that its macro reaches the modules after it.
#[macro_use]
mod say;

mod batch;
mod commands;
mod digits;
mod error;
mod npz;
mod options;
mod output;
mod progress;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use quaver::kernels::Isa;

use crate::error::CliError;

/// Quantize neural networks to int8, run them, and see what it costs and why.
///
/// Start with `quaver demo`: it takes a small digit classifier through all six steps (choose
/// operators, try dynamic, try static, calibrate, convert, evaluate) in under a minute.
#[derive(Debug, Parser)]
#[command(name = "quaver", version, arg_required_else_help = true)]
#[command(after_help = "Examples:
  quaver demo
  quaver quantize model.onnx --calibration data.npz -o model.int8.onnx
  quaver evaluate model.int8.onnx --data test.npz --against model.onnx
  quaver explain model.onnx --calibration data.npz -o report.html
  quaver run model.int8.onnx --data test.npz -o outputs.npz
  quaver inspect model.int8.onnx
  quaver inspect bits 3.14 --as bf16

Environment:
  QUAVER_ISA   caps the instruction set (scalar, avx2, avx512_vnni); results do not change

Exit codes:
  0  done
  1  a file, a model or data is at fault
  2  the command line is at fault: options, their values, QUAVER_ISA")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(commands::demo::Args),
    Quantize(commands::quantize::Args),
    Calibrate(commands::calibrate::Args),
    Run(commands::run::Args),
    Evaluate(commands::evaluate::Args),
    Explain(commands::explain::Args),
    Inspect(commands::inspect::Args),
}

fn run(command: &Command) -> Result<(), CliError> {
    // The library falls back to scalar code on a name that it does not know; a person wants to
    // hear of it instead.
    Isa::from_env().map_err(|e| CliError::Usage(format!("QUAVER_ISA: {e}")))?;
    match command {
        Command::Demo(args) => commands::demo::run(args),
        Command::Quantize(args) => commands::quantize::run(args),
        Command::Calibrate(args) => commands::calibrate::run(args),
        Command::Run(args) => commands::run::run(args),
        Command::Evaluate(args) => commands::evaluate::run(args),
        Command::Explain(args) => commands::explain::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            // There is no place left to say that standard error is closed; the exit code stays.
            let _ = writeln!(std::io::stderr().lock(), "{:?}", miette::Report::new(error));
            ExitCode::from(code)
        }
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
