//! `quaver quantize`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::ProgressIterator;
use quaver::model::Model;
use quaver::{
    Baseline, ConvertOptions, Converted, Dataset, LatencyOptions, Method, QuantizeError, Report,
    WeightGranularity,
};

use crate::error::CliError;
use crate::options::Static;
use crate::output::Outputs;
use crate::{batch, npz, output, progress};

/// Quantize a model to int8.
///
/// Static mode observes the model on calibration data (about 200 samples do) and writes
/// fixed scales; dynamic mode needs no data and computes the scales of activations at run time.
/// The result is standard ONNX; it is read back and run once before this command says that it
/// succeeded, and an existing output is replaced whole or not at all.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  quaver quantize model.onnx --calibration data.npz -o model.int8.onnx
  quaver quantize model.onnx --calibration data.npz --method mse --scheme symmetric -o out.onnx
  quaver quantize model.onnx --mode dynamic -o model.dynamic.onnx
  quaver quantize model.onnx --calibration data.npz --exclude 'head/*' --exclude Gemm \\
      --report report.json -o out.onnx

DATA.npz holds one array for each input of the model, named like it, with samples along the
first axis: numpy.savez('data.npz', image=images). Labels, if any, are called `label`.")]
pub(crate) struct Args {
    /// The float32 ONNX model.
    model: PathBuf,
    /// Calibration data; needed for static mode.
    #[arg(long, value_name = "DATA.npz")]
    calibration: Option<PathBuf>,
    /// What `quaver calibrate` recorded, instead of calibration data.
    #[arg(long, value_name = "ALL.qcal", conflicts_with = "calibration")]
    from: Option<PathBuf>,
    /// Where scales of activations come from.
    #[arg(long, value_enum, default_value_t = Mode::Static)]
    mode: Mode,
    /// How ranges are chosen: minmax (the default), moving-average, entropy,
    /// entropy-all, mse, percentile, percentile=99.9, aciq-laplace, aciq-gauss, mean-std,
    /// mean-std=3, lsq.
    #[arg(long)]
    method: Option<Method>,
    /// Choose the range of one tensor, an activation or a weight, by another method; repeatable.
    /// `quaver explain` tells which tensors gain by it.
    #[arg(long, value_name = "TENSOR=METHOD")]
    tensor_method: Vec<TensorMethod>,
    /// One scale per output channel of a weight (the default).
    #[arg(long, overrides_with = "per_tensor")]
    per_channel: bool,
    /// One scale per weight.
    #[arg(long)]
    per_tensor: bool,
    #[command(flatten)]
    shared: Static,
    /// Samples in a calibration pass; by default 10, or the number that the model is fixed to.
    #[arg(long, value_name = "N", value_parser = batch::parser())]
    batch: Option<usize>,
    /// The quantized model to write.
    #[arg(short, long, value_name = "OUT.onnx")]
    output: PathBuf,
    /// Also write what was done as JSON: nodes, scales, and how the result compares with float
    /// on the calibration data.
    #[arg(long, value_name = "R.json")]
    report: Option<PathBuf>,
}

/// A tensor and the method for it.
#[derive(Debug, Clone, PartialEq)]
struct TensorMethod {
    tensor: String,
    method: Method,
}

impl FromStr for TensorMethod {
    type Err = String;

    /// Splits at the first `=` behind which a method stands: names may hold one, and so may
    /// methods.
    fn from_str(s: &str) -> Result<TensorMethod, String> {
        let split = |(at, _)| {
            let (tensor, method) = (&s[..at], &s[at + 1..]);
            Some(TensorMethod {
                tensor: (!tensor.is_empty()).then(|| tensor.to_owned())?,
                method: method.parse().ok()?,
            })
        };
        s.match_indices('=').find_map(split).ok_or_else(|| {
            let names: Vec<&str> = Method::ALL.iter().map(|m| m.name()).collect();
            format!(
                "write it like image=mse or image=percentile=99.9; the methods are {}",
                names.join(", ")
            )
        })
    }
}

/// Where scales of activations come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// From calibration data.
    Static,
    /// From each batch at run time.
    Dynamic,
}

impl Args {
    /// Finds what is wrong with the command line alone.
    fn check(&self) -> Result<(), CliError> {
        if self.mode == Mode::Static && self.calibration.is_none() && self.from.is_none() {
            return Err(CliError::Usage(
                "static mode needs --calibration DATA.npz or --from ALL.qcal; without data, use --mode dynamic"
                    .to_owned(),
            ));
        }
        let only_static = [
            ("--from", self.from.is_some()),
            ("--method", self.method.is_some()),
            ("--tensor-method", !self.tensor_method.is_empty()),
            ("--scheme", self.shared.scheme.is_some()),
            ("--format", self.shared.format.is_some()),
            ("--non-finite", self.shared.non_finite.is_some()),
            ("--threads", self.shared.threads.is_some()),
        ];
        if self.mode == Mode::Dynamic
            && let Some((option, _)) = only_static.iter().find(|(_, given)| *given)
        {
            return Err(CliError::Usage(format!(
                "{option} does nothing in dynamic mode: leave it out, or use --mode static"
            )));
        }
        // What was recorded is recorded: these would change nothing.
        let only_data = [
            ("--batch", self.batch.is_some()),
            ("--non-finite", self.shared.non_finite.is_some()),
            ("--threads", self.shared.threads.is_some()),
        ];
        if self.from.is_some()
            && let Some((option, _)) = only_data.iter().find(|(_, given)| *given)
        {
            return Err(CliError::Usage(format!(
                "{option} does nothing with --from: give it to `quaver calibrate`"
            )));
        }
        output::check(
            &[
                ("--output", Some(&self.output)),
                ("--report", self.report.as_deref()),
            ],
            &[
                ("the model", Some(&self.model)),
                ("--calibration", self.calibration.as_deref()),
                ("--from", self.from.as_deref()),
            ],
        )
    }

    /// The last of several for a tensor counts.
    fn tensor_methods(&self) -> BTreeMap<String, Method> {
        let pair = |t: &TensorMethod| (t.tensor.clone(), t.method);
        self.tensor_method.iter().map(pair).collect()
    }

    fn batch(&self, model: &Model) -> usize {
        self.batch
            .or_else(|| batch::fixed(model))
            .unwrap_or(batch::CALIBRATION)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    args.check()?;
    let model = Model::load(&args.model).map_err(CliError::model(&args.model))?;
    let data = match &args.calibration {
        Some(path) => Some(npz::read_dataset(path, &model)?),
        None => None,
    };
    let converted = convert(args, &model, data.as_ref())?;
    let mut outputs = Outputs::default();
    outputs.add(&args.output, &converted.checked_bytes()?)?;
    let report = match (&args.report, &data) {
        (Some(_), Some(data)) => compared(converted, &model, data, args.batch(&model))?,
        _ => converted.report().clone(),
    };
    if let Some(path) = &args.report {
        outputs.add_json(path, &report)?;
    }
    outputs.commit()?;
    print_summary(args, &report)
}

fn convert(args: &Args, model: &Model, data: Option<&Dataset>) -> Result<Converted, CliError> {
    let weights = if args.per_tensor && !args.per_channel {
        WeightGranularity::PerTensor
    } else {
        WeightGranularity::PerChannel
    };
    let chosen = args.shared.operators().choose(model)?;
    let options = ConvertOptions {
        method: args.method.unwrap_or(Method::MinMax),
        activations: args.shared.scheme(),
        weights,
        format: args.shared.format.unwrap_or_default(),
    };
    if let Some(path) = &args.from {
        let recorded = super::calibrate::read(path)?;
        return Ok(chosen
            .restore(&recorded)?
            .with_threads(args.shared.threads())
            .convert_mixed(&options, &args.tensor_methods())?);
    }
    let data = match (args.mode, data) {
        (Mode::Static, Some(data)) => data,
        // Data that is there serves to try the model on.
        (_, Some(data)) => {
            let sample = data.rows(0..args.batch(model));
            return Ok(chosen.dynamic(weights)?.with_sample(sample));
        }
        (_, None) => return Ok(chosen.dynamic(weights)?),
    };
    let tensor_methods = args.tensor_methods();
    let mut methods: Vec<Method> = tensor_methods.values().copied().collect();
    methods.push(options.method);
    let observing = chosen.observe(&methods, args.shared.policy())?;
    let batch = args.batch(model);
    let bar = progress::bar(data.len().div_ceil(batch), "calibrating");
    let calibrated = observing.calibrate_on(
        args.shared.threads(),
        data.batches(batch).progress_with(bar),
    )?;
    Ok(calibrated.convert_mixed(&options, &tensor_methods)?)
}

/// The report with scores, or without them where outputs are of a kind that has none.
fn compared(
    converted: Converted,
    model: &Model,
    data: &Dataset,
    samples: usize,
) -> Result<Report, CliError> {
    let unscored = converted.report().clone();
    let latency = LatencyOptions {
        batches: batch::timed(&[model], &[1]),
        budget: Duration::from_millis(200),
    };
    let evaluated = Baseline::new(model, data, samples)
        .and_then(|mut baseline| converted.evaluate(&mut baseline, Some(&latency)));
    match evaluated {
        Ok(e) => Ok(e.report()),
        Err(e @ QuantizeError::Output { .. }) => {
            // A remark; what it is about is in the report as well.
            let _ = writeln!(std::io::stderr().lock(), "the report has no scores: {e}");
            Ok(unscored)
        }
        Err(e) => Err(e.into()),
    }
}

fn print_summary(args: &Args, report: &Report) -> Result<(), CliError> {
    let quantized = report.nodes.iter().filter(|n| n.quantized).count();
    let (before, after) = (report.float_bytes, report.quantized_bytes);
    let size = if after <= before {
        format!("{:.2}x smaller", before as f64 / after.max(1) as f64)
    } else {
        format!("{:.2}x the size", after as f64 / before.max(1) as f64)
    };
    say!(
        "{}: {} of {} chosen operators quantized, {before} -> {after} bytes ({size})",
        args.output.display(),
        quantized,
        report.nodes.len(),
    )?;
    for n in report.nodes.iter().filter(|n| !n.quantized) {
        say!(
            "  {} \"{}\" stays in float: {}",
            n.operator,
            n.name,
            n.reason.as_deref().unwrap_or_default()
        )?;
    }
    if let Some(e) = &report.evaluation {
        say!(
            "  on the calibration data: top-1 agrees with float on {:.2} %, SQNR {}",
            100.0 * e.agreement,
            e.sqnr_db
                .map_or("without noise".to_owned(), |db| format!("{db:.1} dB")),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_methods_are_told_apart_whatever_holds_an_equals_sign() {
        for (given, tensor, method) in [
            ("image=mse", "image", Method::Mse),
            ("a=b=percentile=99.9", "a=b", Method::Percentile(99.9)),
            ("mean-std=mean-std=2", "mean-std", Method::MeanStd(2.0)),
            ("x==entropy", "x=", Method::Entropy),
        ] {
            let read: TensorMethod = given.parse().unwrap();
            assert_eq!((read.tensor.as_str(), read.method), (tensor, method));
        }
        for bad in ["", "=", "=mse", "image", "image=", "image=best", "mse"] {
            let e = bad.parse::<TensorMethod>().unwrap_err();
            assert!(e.contains("percentile"), "{bad}: {e}");
        }
    }
}
