//! `quaver evaluate`.

use std::path::PathBuf;
use std::time::Duration;

use quaver::model::Model;
use quaver::{Baseline, LatencyOptions};
use serde::Serialize;

use crate::error::CliError;
use crate::output::Outputs;
use crate::{batch, npz, output};

/// Score a model on data, and compare it with another one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  quaver evaluate model.onnx --data test.npz
  quaver evaluate model.int8.onnx --data test.npz --against model.onnx --json scores.json

With --against: the share of samples whose largest output is the same, the SQNR of the outputs,
and times of both models in runs that take turns.")]
pub(crate) struct Args {
    /// The ONNX model to score.
    model: PathBuf,
    /// Inputs named like the model's, and labels as `label`.
    #[arg(long, value_name = "DATA.npz")]
    data: PathBuf,
    /// The model to compare with, usually the float one.
    #[arg(long, value_name = "OTHER.onnx")]
    against: Option<PathBuf>,
    /// Samples in a run; by default 100, or the number that the model is fixed to.
    #[arg(long, value_name = "N", value_parser = batch::parser())]
    batch: Option<usize>,
    /// Also write the scores as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The scores as they are written.
#[derive(Debug, Serialize)]
struct Scores {
    samples: usize,
    accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<quaver::Evaluation>,
}

pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    output::check(
        &[("--json", args.json.as_deref())],
        &[
            ("the model", Some(&args.model)),
            ("--data", Some(&args.data)),
            ("--against", args.against.as_deref()),
        ],
    )?;
    let model = Model::load(&args.model).map_err(CliError::model(&args.model))?;
    let data = npz::read_dataset(&args.data, &model)?;
    if args.against.is_none() && data.labels().is_none() {
        return Err(CliError::Usage(format!(
            "{} holds no labels: add them as an array named `label`, or give --against OTHER.onnx",
            args.data.display()
        )));
    }
    let scores = match &args.against {
        None => {
            let size = args.batch.or_else(|| batch::fixed(&model));
            let own = Baseline::new(&model, &data, size.unwrap_or(batch::DEFAULT))?;
            Scores {
                samples: data.len(),
                accuracy: own.accuracy(),
                against: None,
            }
        }
        Some(path) => {
            let other = Model::load(path).map_err(CliError::model(path))?;
            let size = args
                .batch
                .or_else(|| batch::fixed(&model))
                .or_else(|| batch::fixed(&other));
            let mut baseline = Baseline::new(&other, &data, size.unwrap_or(batch::DEFAULT))?;
            let latency = LatencyOptions {
                batches: batch::timed(&[&model, &other], &[1, data.len().min(32)]),
                budget: Duration::from_millis(500),
            };
            let e = baseline.evaluate(&model, Some(&latency))?;
            Scores {
                samples: e.samples,
                accuracy: e.accuracy,
                against: Some(e),
            }
        }
    };
    if let Some(path) = &args.json {
        let mut outputs = Outputs::default();
        outputs.add_json(path, &scores)?;
        outputs.commit()?;
    }
    say!("{}: {} samples", args.model.display(), scores.samples)?;
    if let Some(a) = scores.accuracy {
        say!("  accuracy    {:.2} %", 100.0 * a)?;
    }
    if let Some(e) = &scores.against {
        say!(
            "  agreement   {:.2} % of samples have the same largest output",
            100.0 * e.agreement
        )?;
        say!(
            "  SQNR        {}",
            e.sqnr_db
                .map_or("infinite: the outputs are equal".to_owned(), |db| format!(
                    "{db:.1} dB"
                ))
        )?;
        for l in &e.latency {
            say!(
                "  batch {:<5} {:.0} us, the other {:.0} us: {:.2}x",
                l.batch,
                l.latency_us,
                l.float_latency_us,
                l.float_latency_us / l.latency_us
            )?;
        }
    }
    Ok(())
}
