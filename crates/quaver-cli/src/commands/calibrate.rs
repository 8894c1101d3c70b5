//! `quaver calibrate`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::NonEmptyStringValueParser;
use indicatif::ProgressIterator;
use quaver::calib::Policy;
use quaver::model::Model;
use quaver::{BatchPlan, Method, Operators, Recorded};

use crate::error::CliError;
use crate::{batch, npz, options, output, progress};

/// Observe a model on a part of the calibration data, and merge what parts recorded.
///
/// Parts may run on different machines and are merged in any order: the quantized model is the
/// same to the byte as that of `quaver quantize` on all of the data.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  quaver calibrate model.onnx --calibration data.npz --shard 1/2 -o part1.qcal
  quaver calibrate model.onnx --calibration data.npz --shard 2/2 -o part2.qcal
  quaver calibrate merge part1.qcal part2.qcal -o all.qcal
  quaver quantize model.onnx --from all.qcal -o model.int8.onnx

Every shard is given the same data and --batch, and observes its own batches of it.")]
pub(crate) struct Args {
    #[command(subcommand)]
    merge: Option<Sub>,
    #[command(flatten)]
    observe: Option<Observe>,
}

#[derive(Debug, clap::Subcommand)]
enum Sub {
    Merge(Merge),
}

/// Join what shards recorded into one file.
#[derive(Debug, clap::Args)]
struct Merge {
    /// The shards' files, in any order.
    #[arg(required = true, value_name = "PART.qcal")]
    parts: Vec<PathBuf>,
    /// The file to write.
    #[arg(short, long, value_name = "ALL.qcal")]
    output: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Observe {
    /// The float32 ONNX model.
    model: PathBuf,
    /// Calibration data; the same for all shards.
    #[arg(long, value_name = "DATA.npz")]
    calibration: PathBuf,
    /// Which part of the batches to observe, counted from 1.
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,
    /// Record only what these methods read; repeatable. By default any method can be used later.
    #[arg(long)]
    method: Vec<Method>,
    /// Observe only for these operators: a node's name, a glob over names, or an operator type;
    /// repeatable.
    #[arg(long, value_name = "PATTERN", value_parser = NonEmptyStringValueParser::new())]
    include: Vec<String>,
    /// Leave these out; repeatable.
    #[arg(long, value_name = "PATTERN", value_parser = NonEmptyStringValueParser::new())]
    exclude: Vec<String>,
    /// Samples in a calibration pass; by default 10, or the number that the model is fixed to.
    #[arg(long, value_name = "N", value_parser = batch::parser())]
    batch: Option<usize>,
    /// What to do with NaN and infinities: error (the default), ignore, saturate.
    #[arg(long, value_name = "POLICY")]
    non_finite: Option<Policy>,
    // Not shared: clap does not see a group that is there or not where it holds another one.
    /// Threads that calibrate, each with a copy of the model; by default one for each processor.
    /// Results do not depend on it.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// The file to write.
    #[arg(short, long, value_name = "PART.qcal")]
    output: PathBuf,
}

/// One part of several.
#[derive(Debug, Clone, Copy)]
struct Shard {
    index: u64,
    count: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(s: &str) -> Result<Shard, String> {
        s.split_once('/')
            .and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)))
            .filter(|(i, n)| (1..=*n).contains(i))
            .map(|(index, count)| Shard { index, count })
            .ok_or_else(|| "write it like 1/3, 2/3, 3/3".to_owned())
    }
}

pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    match (&args.merge, &args.observe) {
        (Some(Sub::Merge(m)), _) => merge(m),
        (None, Some(o)) => observe(o),
        (None, None) => Err(CliError::Usage(
            "give a model and --calibration DATA.npz, or `merge` and files".to_owned(),
        )),
    }
}

/// Reads what a calibration recorded.
pub(crate) fn read(path: &Path) -> Result<Recorded, CliError> {
    let bytes = std::fs::read(path).map_err(CliError::io(path))?;
    Recorded::from_bytes(&bytes).map_err(in_file(path))
}

/// Names the file in an error about a recorded calibration.
fn in_file(path: &Path) -> impl FnOnce(quaver::QuantizeError) -> CliError + '_ {
    |e| CliError::Recorded {
        path: path.to_owned(),
        cause: Box::new(e),
    }
}

fn observe(args: &Observe) -> Result<(), CliError> {
    output::check(
        &[("--output", Some(&args.output))],
        &[
            ("the model", Some(&args.model)),
            ("--calibration", Some(&args.calibration)),
        ],
    )?;
    let model = Model::load(&args.model).map_err(CliError::model(&args.model))?;
    let data = npz::read_dataset(&args.calibration, &model)?;
    let size = args
        .batch
        .or_else(|| batch::fixed(&model))
        .unwrap_or(batch::CALIBRATION);
    let plan = BatchPlan {
        samples: data.len() as u64,
        batch: size as u64,
    };
    let methods = if args.method.is_empty() {
        &Method::ALL[..]
    } else {
        &args.method
    };
    let mut observing = Operators::new()
        .include(&args.include)
        .exclude(&args.exclude)
        .choose(&model)?
        .observe(methods, args.non_finite.unwrap_or(Policy::Error))?;
    let batches = plan.shard(args.shard.index, args.shard.count);
    let bar = progress::bar(data.len().div_ceil(size), "calibrating");
    bar.set_length(batches.end - batches.start);
    let numbered = batches.progress_with(bar).map(|index| {
        // Batches of data in memory: their numbers fit.
        let start = usize::try_from(index)
            .unwrap_or(usize::MAX)
            .saturating_mul(size);
        (index, data.rows(start..start.saturating_add(size)))
    });
    observing.observe_on(options::threads(args.threads), numbered)?;
    let recorded = observing.record(plan)?;
    output::write(&args.output, &recorded.to_bytes()?)?;
    say!(
        "{}: {} of {} batches, {} values",
        args.output.display(),
        recorded.batches(),
        plan.batches(),
        recorded.values().count()
    )
}

fn merge(args: &Merge) -> Result<(), CliError> {
    let inputs: Vec<_> = args
        .parts
        .iter()
        .map(|p| ("a shard", Some(p.as_path())))
        .collect();
    output::check(&[("--output", Some(&args.output))], &inputs)?;
    let mut all: Option<Recorded> = None;
    for path in &args.parts {
        let part = read(path)?;
        match &mut all {
            None => all = Some(part),
            Some(all) => all.merge(&part).map_err(in_file(path))?,
        }
    }
    let Some(all) = all else {
        return Err(CliError::Usage("there is no file to merge".to_owned()));
    };
    output::write(&args.output, &all.to_bytes()?)?;
    say!(
        "{}: {} of {} batches, {} values",
        args.output.display(),
        all.batches(),
        all.plan().batches(),
        all.values().count()
    )
}
