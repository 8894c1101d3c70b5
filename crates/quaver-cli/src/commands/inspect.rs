//! `quaver inspect`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Subcommand;
use comfy_table::{Table, presets};
use quaver::format::bits::BitFormat;
use quaver::model::{Model, ValueInfo};

use crate::error::CliError;

/// Look into a model, or at the bits of a number.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  quaver inspect model.onnx
  quaver inspect bits 3.14 --as bf16
  quaver inspect bits -3 --as i8
  quaver inspect bits 2.75 --as q4.3
  quaver inspect bits 0x4049 --as bf16")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The ONNX model.
    #[arg(required = true)]
    model: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    Bits(BitsArgs),
}

/// Draw the bits of a number in a format.
#[derive(Debug, clap::Args)]
struct BitsArgs {
    /// The number (3.14, -1e-3, inf, nan), or a bit pattern (0x4049).
    #[arg(allow_negative_numbers = true)]
    value: String,
    /// The format: i8, u16, i4 (any width to 64), q4.3 (fixed point), f16, bf16, f32, f64.
    #[arg(long = "as", value_name = "FORMAT", default_value = "f32")]
    format: BitFormat,
}

pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    match (&args.what, &args.model) {
        (Some(What::Bits(b)), _) => bits(b),
        (None, Some(path)) => model(path),
        // The parser asks for one of them.
        (None, None) => Err(CliError::Usage("name a model, or `bits VALUE`".to_owned())),
    }
}

fn bits(args: &BitsArgs) -> Result<(), CliError> {
    let not_a_number = || CliError::Number {
        given: args.value.clone(),
    };
    let pattern = match args.value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).map_err(|_| not_a_number())?,
        None => args
            .format
            .encode(args.value.parse().map_err(|_| not_a_number())?),
    };
    print!(
        "{} as {}\n{}",
        args.value,
        args.format,
        args.format.picture(pattern)
    );
    Ok(())
}

fn model(path: &PathBuf) -> Result<(), CliError> {
    let model = Model::load(path).map_err(CliError::model(path))?;
    let graph = &model.graph;
    say!("{}: graph \"{}\"", path.display(), graph.name)?;
    let opsets: Vec<String> = model
        .opset_imports
        .iter()
        .map(|o| {
            let domain = if o.domain.is_empty() {
                "ai.onnx"
            } else {
                &o.domain
            };
            format!("{domain} {}", o.version)
        })
        .collect();
    say!(
        "  IR version {}, opset {}, made by {} {}",
        model.ir_version,
        opsets.join(", "),
        model.producer_name,
        model.producer_version
    )?;
    for (what, values) in [("input ", &graph.inputs), ("output", &graph.outputs)] {
        for v in values {
            say!("  {what} {} {}", v.name, type_of(v))?;
        }
    }

    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["node", "operator", "inputs", "outputs"]);
    for n in &graph.nodes {
        let inputs = n.inputs.iter().map(|i| match graph.initializer(i) {
            Some(t) => format!("{i} {}{:?}", t.element_type(), t.shape()),
            None => i.clone(),
        });
        let domain = if n.is_standard() {
            String::new()
        } else {
            format!("{}.", n.domain)
        };
        table.add_row([
            n.name.clone(),
            format!("{domain}{}", n.op_type),
            inputs.collect::<Vec<_>>().join("\n"),
            n.outputs.join("\n"),
        ]);
    }
    say!("{table}")?;

    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for n in &graph.nodes {
        *counts.entry(&n.op_type).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(op, n)| format!("{n} {op}")).collect();
    let elements: usize = graph.initializers.values().map(|i| i.tensor.len()).sum();
    say!("{} nodes: {}", graph.nodes.len(), counts.join(", "))?;
    say!(
        "{} constants of {elements} elements, {} bytes in the file",
        graph.initializers.len(),
        model.to_bytes().len()
    )?;
    Ok(())
}

fn type_of(v: &ValueInfo) -> String {
    v.tensor_type().map_or(
        "of a type that is no tensor".to_owned(),
        ToString::to_string,
    )
}
