//! `qtrain train`.

use std::path::PathBuf;
use std::time::Instant;

use comfy_table::{CellAlignment, Table};
use qcalib::Method;
use qformat::Granularity;
use qtrain::data::Samples;
use qtrain::evaluate::{self, Score};
use qtrain::graph::{Float, Graph};
use qtrain::quantized::{Fixed, Width};
use qtrain::train::{Event, Ranges, TrainOptions};
use qtrain::{Network, Normalized, TrainError, batch_norm, calibrate, data, export};

use super::{
    bar, check_output, decibels, granularity, granularity_name, new_table, percent, say, say_json,
};

/// Train the digit classifier with 4-bit weights and activations, and compare with not training.
///
/// First the float network is quantized without training, by eight methods of calibration (all but
/// `lsq`, which is where training starts and no optimum, and `entropy-all`, which chooses what
/// `entropy` does where values are not negative), with one scale a weight and with one an output
/// channel. Then it is trained for a few epochs with fake
/// quantization, starting from the method that does best on 500 held-out training digits, which
/// also rate the epochs. All else that is printed is measured on 1,000 test digits, by which nothing
/// is chosen. At last the network becomes a QDQ model, which must predict the same in quaver's
/// executor; `-o` writes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  qtrain train
  qtrain train -o digits.w4a4.onnx
  qtrain train --batch-norm -o digits.w4a4.onnx
  qtrain train --quick -o digits.w4a4.onnx      seconds, for a look
  qtrain train --weight-bits 3 --activation-bits 8 --start minmax
  qtrain train --json > train.json")]
pub(crate) struct Args {
    /// Write the trained network as ONNX, whole or not at all.
    #[arg(short, long, value_name = "OUT.onnx")]
    output: Option<PathBuf>,
    /// Passes over the 3,500 training digits.
    #[arg(long, value_name = "N", default_value_t = TrainOptions::default().epochs)]
    epochs: usize,
    /// One epoch, and one method of calibration.
    #[arg(long, conflicts_with = "epochs")]
    quick: bool,
    /// What the order of the samples is drawn from; the same seed gives the same bits on the same
    /// machine.
    #[arg(long, value_name = "SEED", default_value_t = TrainOptions::default().seed)]
    seed: u64,
    /// Bits of a weight, from 2 to 8.
    #[arg(long, value_name = "BITS", default_value_t = Width::W4A4.weights)]
    weight_bits: u32,
    /// Bits of an activation, 4 or 8.
    #[arg(long, value_name = "BITS", default_value_t = Width::W4A4.activations)]
    activation_bits: u32,
    /// Train with one scale for each output channel of a weight, not one for the whole weight.
    #[arg(long)]
    per_channel: bool,
    /// The method of calibration that training starts from; by default the best one on the
    /// held-out training digits.
    #[arg(long, value_name = "METHOD")]
    start: Option<Method>,
    /// Take ranges of activations from what is observed, not as parameters that are learned.
    #[arg(long)]
    observed: bool,
    /// Insert a batch normalization behind each convolution, which changes nothing at first, and
    /// train with statistics of batches until ranges are frozen. The written model has them folded.
    #[arg(long)]
    batch_norm: bool,
    /// Adam's learning rate for weights and biases.
    #[arg(long, value_name = "RATE", default_value_t = TrainOptions::default().rate)]
    rate: f64,
    /// Print JSON, not text.
    #[arg(long)]
    json: bool,
}

/// Training digits that are held out, to choose by.
const HELD_OUT: usize = 500;

/// A network quantized without training.
#[derive(Debug, serde::Serialize)]
struct Row {
    method: String,
    weights: &'static str,
    /// On the test digits.
    #[serde(flatten)]
    score: Score,
    /// On the held-out training digits.
    held_out: Score,
    #[serde(skip)]
    source: (Method, Granularity),
}

/// What `--json` prints.
#[derive(Debug, serde::Serialize)]
struct Output {
    width: Width,
    float: Score,
    post_training: Vec<Row>,
    trained: Trained,
    executor: Executor,
}

#[derive(Debug, serde::Serialize)]
struct Trained {
    weights: &'static str,
    ranges: Ranges,
    batch_norm: bool,
    start: String,
    epochs: usize,
    seed: u64,
    losses: Vec<f32>,
    #[serde(flatten)]
    score: Score,
    seconds: f64,
}

#[derive(Debug, serde::Serialize)]
struct Executor {
    /// Test digits on which the executor's first choice is that of the training graph.
    same: usize,
    of: usize,
    /// Largest difference of an output.
    largest_difference: f32,
}

/// The test digits with the float network's outputs, to rate others by.
struct Judge {
    samples: Samples,
    float: Vec<f32>,
}

impl Judge {
    fn new(graph: &Graph<'_>, samples: Samples) -> Result<Judge, TrainError> {
        let float = evaluate::logits(graph, &samples, &mut Float)?;
        Ok(Judge { samples, float })
    }

    fn rate(&self, outputs: &[f32]) -> Result<Score, TrainError> {
        evaluate::score(outputs, &self.float, &self.samples.labels)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), TrainError> {
    if let Some(path) = &args.output {
        check_output(path)?;
    }
    let width = Width {
        weights: args.weight_bits,
        activations: args.activation_bits,
    };
    width.weight_levels()?;
    width.activation_spec()?;
    let network = Network::new(&data::model()?)?;
    let calibration = data::calibration()?;
    let (training, held_out) = data::training()?.hold_out(HELD_OUT, &calibration);
    let graph = Graph::new(&network)?;
    let test = Judge::new(&graph, data::test()?)?;
    let held_out = Judge::new(&graph, held_out)?;
    let float = test.rate(&test.float)?;

    let rows = post_training(args, width, &network, &calibration, [&test, &held_out])?;
    let own = granularity(args.per_channel);
    let start = args.start.unwrap_or_else(|| best(&rows, own));
    if !args.json {
        say(format_args!(
            "float                  {}",
            percent(float.accuracy)
        ))?;
        say(format_args!("\n{width} without training\n{}", table(&rows)))?;
        say(format_args!(
            "\ntraining from `{start}`, weights {}, {} digits, {} held out{}",
            granularity_name(own),
            training.len(),
            held_out.samples.len(),
            if args.batch_norm {
                ", with batch normalizations"
            } else {
                ""
            }
        ))?;
    }

    let options = TrainOptions {
        width,
        granularity: own,
        method: start,
        ranges: if args.observed {
            Ranges::Observed
        } else {
            Ranges::Learned
        },
        epochs: if args.quick { 1 } else { args.epochs },
        rate: args.rate,
        seed: args.seed,
        ..TrainOptions::default()
    };
    let begun = Instant::now();
    let progress = bar(0, "training");
    let normalized = if args.batch_norm {
        Normalized::new(&batch_norm::insert(&data::model()?, &training)?)?
    } else {
        Normalized::from(network.clone())
    };
    let trained = qtrain::train::train_normalized(
        &normalized,
        &training,
        &calibration,
        &held_out.samples,
        &options,
        &mut |event| match event {
            Event::Step {
                step,
                steps,
                loss,
                phase,
            } => {
                progress.set_length(steps as u64);
                progress.set_position(step as u64);
                progress.set_message(format!("{phase:?} loss {loss:.4}").to_lowercase());
            }
            Event::Epoch {
                epoch,
                loss,
                held_out,
            } if !args.json => progress.suspend(|| {
                let line = format_args!(
                    "epoch {epoch}/{}   loss {loss:.4}   held-out {}",
                    options.epochs,
                    decibels(&held_out)
                );
                // A broken standard output is found when the result is said.
                let _ = say(line);
            }),
            Event::Epoch { .. } => {}
        },
    )?;
    progress.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();

    let outputs = evaluate::logits(
        &Graph::new(&trained.network)?,
        &test.samples,
        &mut Fixed(&trained.quantizers),
    )?;
    let score = test.rate(&outputs)?;
    let written = export::model(&trained.network, &trained.quantizers)?;
    let executed = export::run(&trained.network, &written, &test.samples)?;
    // One sample in a thousand may sit beside the middle between two steps.
    let allowed = test.samples.len() / 1000;
    let differing = export::compare(&outputs, &executed, network.classes(), allowed)?;
    let difference = outputs.iter().zip(&executed).map(|(a, b)| (a - b).abs());
    let executor = Executor {
        same: test.samples.len() - differing,
        of: test.samples.len(),
        largest_difference: difference.fold(0.0, f32::max),
    };
    if let Some(path) = &args.output {
        written.save(path)?;
    }

    if args.json {
        return say_json(&Output {
            width,
            float,
            post_training: rows,
            trained: Trained {
                weights: granularity_name(own),
                ranges: options.ranges,
                batch_norm: args.batch_norm,
                start: start.to_string(),
                epochs: options.epochs,
                seed: options.seed,
                losses: trained.losses,
                score,
                seconds,
            },
            executor,
        });
    }
    say(format_args!(
        "\ntrained                {}   {}   ({seconds:.0} s)",
        percent(score.accuracy),
        decibels(&score)
    ))?;
    if let Some(row) = rows.iter().find(|r| r.source == (start, own)) {
        say(format_args!(
            "without training       {}   {}   (`{start}`, weights {})",
            percent(row.score.accuracy),
            decibels(&row.score),
            row.weights
        ))?;
    }
    say(format_args!(
        "in quaver's executor   the same first choice on {} of {} digits, outputs within {:.1e}",
        executor.same, executor.of, executor.largest_difference
    ))?;
    match &args.output {
        Some(path) => say(format_args!("written                {}", path.display())),
        None => Ok(()),
    }
}

/// Quantizes the network without training, in every way.
fn post_training(
    args: &Args,
    width: Width,
    network: &Network,
    calibration: &Samples,
    judges: [&Judge; 2],
) -> Result<Vec<Row>, TrainError> {
    // Estimators of ranges know the types of 4 and 8 bits.
    let any = matches!(width.weights, 4 | 8);
    let mut methods = match args.start {
        _ if any && !args.quick => calibrate::METHODS.to_vec(),
        None => vec![Method::MinMax],
        Some(_) => Vec::new(),
    };
    methods.extend(args.start.filter(|m| !methods.contains(m)));
    let graph = Graph::new(network)?;
    let progress = bar(2 * methods.len(), "without training");
    let mut rows = Vec::new();
    for method in methods {
        for per_channel in [false, true] {
            progress.set_message(method.to_string());
            let granularity = granularity(per_channel);
            let q = calibrate::quantize(network, calibration, method, width, granularity)?;
            let [score, held_out] = judges.map(|judge| {
                let outputs = evaluate::logits(&graph, &judge.samples, &mut Fixed(&q))?;
                judge.rate(&outputs)
            });
            rows.push(Row {
                method: method.to_string(),
                weights: granularity_name(granularity),
                score: score?,
                held_out: held_out?,
                source: (method, granularity),
            });
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(rows)
}

/// The method that does best on the held-out training digits. Nearly all of them are right, so the
/// noise decides.
fn best(rows: &[Row], granularity: Granularity) -> Method {
    let quality = |r: &Row| r.held_out.sqnr_db.unwrap_or(f64::INFINITY);
    rows.iter()
        .filter(|r| r.source.1 == granularity)
        .max_by(|a, b| quality(a).total_cmp(&quality(b)))
        .map_or(Method::MinMax, |r| r.source.0)
}

/// A row a method, two columns a granularity.
fn table(rows: &[Row]) -> Table {
    let mut table = new_table(["method", "per tensor", "", "per channel", ""]);
    for pair in rows.chunks(2) {
        let mut cells = vec![pair[0].method.clone()];
        for row in pair {
            cells.extend([percent(row.score.accuracy), decibels(&row.score)]);
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
