//! `quaver inspect`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Subcommand;
use comfy_table::{ContentArrangement, Table, presets};
use quaver::format::bits::{BitFormat, IntFormat};
use quaver::model::{Model, ValueInfo};

use crate::error::CliError;

/// Columns of a table that goes to no terminal.
const WIDTH: u16 = 100;

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
    let (given, format) = (args.value.as_str(), args.format);
    let not_a_number = || CliError::Number {
        given: given.to_owned(),
    };
    let hex = given
        .strip_prefix("0x")
        .or_else(|| given.strip_prefix("0X"));
    let (pattern, note) = match hex {
        Some(hex) => (pattern(hex, format).ok_or_else(not_a_number)??, None),
        None => encoded(given, format).ok_or_else(not_a_number)?,
    };
    say!("{given} as {format}")?;
    say!("{}", format.picture(pattern).trim_end_matches('\n'))?;
    if let Some(note) = note {
        say!("{note}")?;
    }
    Ok(())
}

/// Hexadecimal digits as bits of a format; `None` where they are none.
fn pattern(hex: &str, format: BitFormat) -> Option<Result<u64, CliError>> {
    if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let digits = hex.trim_start_matches('0');
    let top = digits.chars().next().and_then(|c| c.to_digit(16));
    let given = match top {
        Some(top) => 4 * (digits.len() - 1) + (u32::BITS - top.leading_zeros()) as usize,
        None => 0,
    };
    if given > format.width() as usize {
        return Some(Err(CliError::Usage(format!(
            "0x{hex} has {given} bits, {format} has {}",
            format.width()
        ))));
    }
    // All zeros leave no digits.
    Some(Ok(u64::from_str_radix(digits, 16).unwrap_or(0)))
}

/// A number as bits of a format, and what it became where the format does not hold it; `None` for
/// text that is no number.
fn encoded(text: &str, format: BitFormat) -> Option<(u64, Option<String>)> {
    // Integers have more digits than f64 holds.
    if let (BitFormat::Int(f), Ok(value)) = (format, text.parse::<i128>()) {
        let held = value.clamp(f.min(), f.max());
        let note = (held != value).then(|| format!("saturated to {held}"));
        return Some((f.encode(held)?, note));
    }
    let value: f64 = text.parse().ok()?;
    let bits = format.encode(value);
    let became = format.decode(bits);
    // What lies beyond the ends of the format, counted in its steps.
    let outside = |f: IntFormat, steps: f64| {
        let steps = steps.round_ties_even() as i128;
        steps < f.min() || steps > f.max()
    };
    let exact = match format {
        BitFormat::Int(f) => f.decode(bits).to_string(),
        _ => became.to_string(),
    };
    let note = match format {
        BitFormat::Int(_) | BitFormat::Fixed(_) if value.is_nan() => {
            Some("NaN became 0".to_owned())
        }
        BitFormat::Int(f) if outside(f, value) => Some(format!("saturated to {exact}")),
        BitFormat::Fixed(f) if outside(f.raw(), value / f.resolution()) => {
            Some(format!("saturated to {exact}"))
        }
        _ if value.is_nan() || became == value => None,
        BitFormat::Float(_) if became.is_infinite() => Some(format!("overflowed to {exact}")),
        _ => Some(format!("rounded to {exact}")),
    };
    Some((bits, note))
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
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH);
    }
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
