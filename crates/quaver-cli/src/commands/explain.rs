//! `quaver explain`.

mod html;
mod plot;
mod terminal;
mod text;

use std::path::{Path, PathBuf};

use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressIterator};
use quaver::explain::{Progress, Stage};
use quaver::model::Model;
use quaver::{ConvertOptions, ExplainOptions, Explanation, Method, WeightGranularity};

use crate::error::CliError;
use crate::options::Static;
use crate::output::Outputs;
use crate::{batch, npz, output, progress};

/// Show what quantization does to a model: which tensor loses most, which layer hurts, what helps.
///
/// For every tensor: how its values are distributed, the range that each method chooses, what that
/// range cuts off, and the noise it leaves. For every layer: the error it adds when it alone is
/// quantized, and its share of run time. Then what to change; each suggestion was tried, on a
/// model quantized that way.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  quaver explain model.onnx --calibration data.npz
  quaver explain model.onnx --calibration data.npz -o report.html
  quaver explain model.onnx --calibration data.npz --method mse --json - | jq .suggestions

How to read it. SQNR compares a signal with the noise that rounding and cutting add: 20 dB are a
tenth of the signal, 40 dB a hundredth; more is better, and 6 dB are worth a bit. A suggestion
such as

  1. +3.1 dB  use mse for the activation image       28.4 dB -> 31.5 dB
     --tensor-method image=mse

is carried out by giving that option to `quaver quantize`:

  quaver quantize model.onnx --calibration data.npz --tensor-method image=mse -o model.int8.onnx

DATA.npz is what `quaver quantize` takes: one array for each input, named like it.")]
pub(crate) struct Args {
    /// The float32 ONNX model.
    model: PathBuf,
    /// Calibration data; models are also compared on it, with its labels where it has any.
    #[arg(long, value_name = "DATA.npz")]
    calibration: PathBuf,
    /// How ranges are chosen in the model that is explained; by default minmax. All other methods
    /// are compared with it.
    #[arg(long, default_value = "minmax")]
    method: Method,
    /// One scale per weight, instead of one per output channel.
    #[arg(long)]
    per_tensor: bool,
    #[command(flatten)]
    shared: Static,
    /// Samples in a run; by default 10, or the number that the model is fixed to.
    #[arg(long, value_name = "N", value_parser = batch::parser())]
    batch: Option<usize>,
    /// The most samples that models are compared on; calibration takes all of them.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = batch::parser())]
    samples: usize,
    /// Runs that time the layers; 0 leaves times out.
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: usize,
    /// Rows of each table, and changes of each kind to try; the files have all rows.
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    top: usize,
    /// The report to write: one HTML file with plots, which needs nothing else.
    #[arg(short, long, value_name = "REPORT.html")]
    output: Option<PathBuf>,
    /// Also write everything as JSON; `-` prints it instead of the tables.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    fn json(&self) -> Option<&Path> {
        let path = self.json.as_deref()?;
        Some(if path == Path::new("-") {
            Path::new("/dev/stdout")
        } else {
            path
        })
    }

    fn options(&self, batch: usize) -> ExplainOptions {
        ExplainOptions {
            convert: ConvertOptions {
                method: self.method,
                activations: self.shared.scheme(),
                weights: if self.per_tensor {
                    WeightGranularity::PerTensor
                } else {
                    WeightGranularity::PerChannel
                },
                format: self.shared.format.unwrap_or_default(),
            },
            samples: self.samples,
            batch,
            rounds: self.rounds,
            trials: self.top,
            ..ExplainOptions::default()
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    output::check(
        &[
            ("--output", args.output.as_deref()),
            ("--json", args.json()),
        ],
        &[
            ("the model", Some(&args.model)),
            ("--calibration", Some(&args.calibration)),
        ],
    )?;
    let explanation = explain(args)?;
    let title = args
        .model
        .file_name()
        .unwrap_or(args.model.as_os_str())
        .to_string_lossy();
    let mut outputs = Outputs::default();
    if let Some(path) = &args.output {
        outputs.add(path, html::page(&title, &explanation)?.as_bytes())?;
    }
    if let Some(path) = args.json() {
        outputs.add_json(path, &explanation)?;
    }
    outputs.commit()?;
    if args.json() == Some(Path::new("/dev/stdout")) {
        return Ok(());
    }
    terminal::print(&title, &explanation, args.top)?;
    if let Some(path) = &args.output {
        say!("\nthe report with all plots: {}", path.display())?;
    }
    Ok(())
}

fn explain(args: &Args) -> Result<Explanation, CliError> {
    let model = Model::load(&args.model).map_err(CliError::model(&args.model))?;
    let data = npz::read_dataset(&args.calibration, &model)?;
    let size = args
        .batch
        .or_else(|| batch::fixed(&model))
        .unwrap_or(batch::CALIBRATION);
    let options = args.options(size);
    let mut methods = options.methods.clone();
    methods.push(args.method);
    let observing = args
        .shared
        .operators()
        .choose(&model)?
        .observe(&methods, args.shared.policy())?;
    let bar = progress::bar(data.len().div_ceil(size), "calibrating");
    let calibrated =
        observing.calibrate_on(args.shared.threads(), data.batches(size).progress_with(bar))?;
    let mut shown: Option<(Stage, ProgressBar)> = None;
    let explanation = calibrated.explain(&data, &options, &mut |p| show(&mut shown, p))?;
    if let Some((_, bar)) = shown {
        bar.finish_and_clear();
    }
    Ok(explanation)
}

/// Moves the bar of a stage, after it took the place of that of the stage before.
fn show(shown: &mut Option<(Stage, ProgressBar)>, p: Progress<'_>) {
    if shown.as_ref().is_none_or(|(stage, _)| *stage != p.stage) {
        if let Some((_, bar)) = shown.take() {
            bar.finish_and_clear();
        }
        let name = match p.stage {
            Stage::Tensors => "tensors",
            Stage::Timing => "timing layers",
            Stage::Methods => "methods",
            Stage::Layers => "one layer at a time",
            Stage::Suggestions => "trying changes",
            _ => "explaining",
        };
        *shown = Some((p.stage, progress::bar(p.total, name)));
    }
    if let Some((_, bar)) = shown {
        bar.set_position(p.done as u64);
        bar.set_message(text::short(&text::printable(p.name), 28));
    }
}
