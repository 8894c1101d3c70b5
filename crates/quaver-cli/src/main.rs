//! The `quaver` command: quantize, run, evaluate and inspect models, and a demo of the six steps.
#![forbid(unsafe_code)]

mod commands;
mod digits;
mod error;
mod npz;
mod output;
mod progress;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Quantize neural networks to int8, run them, and see what it costs.
///
/// Start with `quaver demo`: it takes a small digit classifier through all six steps (choose
/// operators, try dynamic, try static, calibrate, convert, evaluate) in under a minute.
#[derive(Debug, Parser)]
#[command(name = "quaver", version, arg_required_else_help = true)]
#[command(after_help = "Examples:
  quaver demo
  quaver quantize model.onnx --calibration data.npz -o model.int8.onnx
  quaver evaluate model.int8.onnx --data test.npz --against model.onnx
  quaver run model.int8.onnx --data test.npz -o outputs.npz
  quaver inspect model.int8.onnx
  quaver inspect bits 3.14 --as bf16

Environment:
  QUAVER_ISA   caps the instruction set (scalar, avx2, avx512_vnni); results do not change")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(commands::demo::Args),
    Quantize(commands::quantize::Args),
    Run(commands::run::Args),
    Evaluate(commands::evaluate::Args),
    Inspect(commands::inspect::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Demo(args) => commands::demo::run(&args),
        Command::Quantize(args) => commands::quantize::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Evaluate(args) => commands::evaluate::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{:?}", miette::Report::new(error));
            ExitCode::FAILURE
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
