//! `quaver run`.

use std::path::PathBuf;

use indicatif::ProgressIterator;
use quaver::Outputs;
use quaver::kernels::Isa;
use quaver::model::{Model, Session, SessionOptions};

use crate::error::CliError;
use crate::{batch, npz, output, progress};

/// Run a model on data and write its outputs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  quaver run model.onnx --data test.npz -o outputs.npz
  quaver run model.int8.onnx --data test.npz --isa avx2 -o outputs.npz

Outputs become arrays of the same names, one row a sample. Models that quantize dynamically take
their ranges over a batch, so their outputs depend on --batch.")]
pub(crate) struct Args {
    /// The ONNX model: float32, QDQ or integer operators.
    model: PathBuf,
    /// Inputs: one array for each input of the model, named like it.
    #[arg(long, value_name = "DATA.npz")]
    data: PathBuf,
    /// Samples in a run; by default 100, or the number that the model is fixed to.
    #[arg(long, value_name = "N", value_parser = batch::parser())]
    batch: Option<usize>,
    /// Instruction set to use; the best one by default. Results do not depend on it.
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,
    /// Run operators one by one, without fusing those around integer kernels.
    #[arg(long)]
    no_fuse: bool,
    /// The outputs to write.
    #[arg(short, long, value_name = "OUT.npz")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    output::check(
        &[("--output", Some(&args.output))],
        &[
            ("the model", Some(&args.model)),
            ("--data", Some(&args.data)),
        ],
    )?;
    let model = Model::load(&args.model).map_err(CliError::model(&args.model))?;
    let data = npz::read_dataset(&args.data, &model)?;
    let mut options = SessionOptions {
        fuse: !args.no_fuse,
        ..SessionOptions::default()
    };
    if let Some(name) = &args.isa {
        options.isa = Isa::from_name(name).map_err(|e| CliError::Usage(e.to_string()))?;
    }
    let mut session = Session::new(&model, options).map_err(CliError::model(&args.model))?;
    let size = args
        .batch
        .or_else(|| batch::fixed(&model))
        .unwrap_or(batch::DEFAULT);
    let bar = progress::bar(data.len().div_ceil(size), "running");
    let mut all = Vec::new();
    for batch in data.batches(size).progress_with(bar) {
        let inputs: Vec<_> = batch.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let outputs = session.run(&inputs).map_err(CliError::model(&args.model))?;
        let rows = batch.first().map_or(0, |(_, t)| t.shape()[0]);
        all.push((rows, outputs));
    }
    let joined = quaver::join_rows(all)?;
    npz::write(&args.output, &joined)?;
    say!("{}: {} samples", args.output.display(), data.len())?;
    if let (Some(labels), Some((name, first))) = (data.labels(), joined.first())
        // One row a sample, or there is nothing to score.
        && first.shape().first() == Some(&data.len())
        && let Some(values) = first.as_slice::<f32>()
    {
        let width = values.len() / data.len();
        let outputs = Outputs {
            name: name.clone(),
            values: values.to_vec(),
            width,
        };
        say!(
            "  accuracy of \"{name}\": {:.2} %",
            100.0 * outputs.accuracy(labels)
        )?;
    }
    Ok(())
}
