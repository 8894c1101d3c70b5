//! `quaver demo`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, LineStyle, Table, TableStyle};
use indicatif::ProgressIterator;
use quaver::calib::Policy;
use quaver::format::Scheme;
use quaver::{
    Baseline, ConvertOptions, Converted, Evaluated, Format, LatencyOptions, Method, Operators,
    WeightGranularity,
};
use serde::Serialize;

use crate::error::CliError;
use crate::output::Outputs;
use crate::{digits, output, progress};

/// Take a small digit classifier through all six steps, and show what each choice costs.
///
/// The model and its data are built in: a convolutional network for 28x28 digits, 200 digits to
/// calibrate with and 1,000 held-out ones to score. Every row of the table is a model that was
/// quantized and run here, on this machine, just now.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  quaver demo
  quaver demo --json demo.json -o best.onnx")]
pub(crate) struct Args {
    /// Where the best int8 model is written.
    #[arg(
        short,
        long,
        value_name = "OUT.onnx",
        default_value = "digits.int8.onnx"
    )]
    output: PathBuf,
    /// Also write the table as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Milliseconds spent on timing each model at each batch size.
    #[arg(long, value_name = "MS", default_value_t = 150)]
    time_budget: u64,
}

/// Batch sizes at which models are timed.
const BATCHES: [usize; 2] = [1, 32];

/// Samples in a calibration pass and in a scoring run.
const CALIBRATION_BATCH: usize = 10;
const SCORING_BATCH: usize = 100;

/// Microseconds by batch size.
type Times = BTreeMap<usize, f64>;

/// One quantized model.
#[derive(Debug, Clone, Serialize)]
struct Row {
    mode: &'static str,
    method: Option<String>,
    weights: String,
    activations: String,
    accuracy: f64,
    agreement: f64,
    sqnr_db: Option<f64>,
    bytes: usize,
    latency_us: Times,
    float_latency_us: Times,
}

/// The float model.
#[derive(Debug, Clone, Serialize)]
struct Float {
    accuracy: f64,
    bytes: usize,
    latency_us: Times,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Demo<'a> {
    float: &'a Float,
    rows: &'a [Row],
    best: &'a Row,
}

impl Row {
    fn new(e: &Evaluated) -> Row {
        let (report, scores) = (e.report(), e.evaluation());
        Row {
            mode: report.mode,
            method: report.method,
            weights: report.weights,
            activations: report.activations,
            accuracy: scores.accuracy.unwrap_or(0.0),
            agreement: scores.agreement,
            sqnr_db: scores.sqnr_db,
            bytes: report.quantized_bytes,
            latency_us: scores
                .latency
                .iter()
                .map(|l| (l.batch, l.latency_us))
                .collect(),
            float_latency_us: scores
                .latency
                .iter()
                .map(|l| (l.batch, l.float_latency_us))
                .collect(),
        }
    }

    /// What makes one row better than another: accuracy, then agreement, then SQNR.
    fn quality(&self) -> (f64, f64, f64) {
        (
            self.accuracy,
            self.agreement,
            self.sqnr_db.unwrap_or(f64::INFINITY),
        )
    }
}

pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    output::check(
        &[
            ("--output", Some(&args.output)),
            ("--json", args.json.as_deref()),
        ],
        &[],
    )?;
    let model = digits::model()?;
    let calibration = digits::calibration(&model)?;
    let test = digits::test(&model)?;

    let chosen = Operators::new().choose(&model)?;
    say!(
        "1 choose operators  {}",
        chosen.nodes().collect::<Vec<_>>().join(", ")
    )?;

    let granularities = [WeightGranularity::PerTensor, WeightGranularity::PerChannel];
    let mut converted: Vec<Converted> = granularities
        .iter()
        .map(|&weights| chosen.clone().dynamic(weights))
        .collect::<Result<_, _>>()?;
    say!(
        "2 try dynamic       {} models, no data needed",
        converted.len()
    )?;
    let observing = chosen.observe(&Method::ALL, Policy::Error)?;
    say!(
        "3 try static        observers placed for {} methods",
        Method::ALL.len()
    )?;
    // One pass serves every method.
    let bar = progress::bar(calibration.len().div_ceil(CALIBRATION_BATCH), "4 calibrate");
    let calibrated =
        observing.calibrate(calibration.batches(CALIBRATION_BATCH).progress_with(bar))?;
    say!(
        "4 calibrate         {} digits in {} passes",
        calibration.len(),
        calibrated.batches()
    )?;

    let mut combinations = Vec::new();
    for method in Method::ALL {
        for weights in granularities {
            for activations in [Scheme::Affine, Scheme::Symmetric] {
                combinations.push(ConvertOptions {
                    method,
                    activations,
                    weights,
                    format: Format::Qdq,
                });
            }
        }
    }
    let bar = progress::bar(combinations.len(), "5 convert");
    for options in combinations.iter().progress_with(bar) {
        converted.push(calibrated.convert(options)?);
    }
    say!("5 convert           {} static models", combinations.len())?;

    // Each is run and timed beside the float model.
    let mut baseline = Baseline::new(&model, &test, SCORING_BATCH)?;
    let latency = LatencyOptions {
        batches: BATCHES.to_vec(),
        budget: Duration::from_millis(args.time_budget),
    };
    let bar = progress::bar(converted.len(), "6 evaluate");
    let mut evaluated = Vec::new();
    for c in converted.into_iter().progress_with(bar) {
        evaluated.push(c.evaluate(&mut baseline, Some(&latency))?);
    }
    say!(
        "6 evaluate          {} models on {} digits",
        evaluated.len(),
        test.len()
    )?;

    let rows: Vec<Row> = evaluated.iter().map(Row::new).collect();
    let float = Float {
        accuracy: baseline.accuracy().unwrap_or(0.0),
        bytes: model.to_bytes().len(),
        latency_us: median_times(&rows),
    };
    let best = (0..rows.len())
        .max_by(|&a, &b| {
            let (a, b) = (rows[a].quality(), rows[b].quality());
            a.0.total_cmp(&b.0)
                .then(a.1.total_cmp(&b.1))
                .then(a.2.total_cmp(&b.2))
        })
        .unwrap_or(0);
    let row = &rows[best];
    let mut outputs = Outputs::default();
    outputs.add(&args.output, &evaluated[best].converted().checked_bytes()?)?;
    if let Some(path) = &args.json {
        let demo = Demo {
            float: &float,
            rows: &rows,
            best: row,
        };
        outputs.add_json(path, &demo)?;
    }
    // The files come first: a table that nobody reads to its end must not cost them.
    outputs.commit()?;
    say!("\n{}", table(&float, &rows, best).trim_fmt())?;
    say!(
        "\n* best: {} {}, {} weights, {} activations -> {}",
        row.mode,
        row.method.as_deref().unwrap_or("int8"),
        row.weights,
        row.activations,
        args.output.display()
    )?;
    say!("  (highest accuracy, then agreement with float, then SQNR)")?;
    say!(
        "  acc, agree: %; SQNR: dB; b1, b32: a run of 1 or 32 samples; x float: times as fast as float"
    )?;
    Ok(())
}

/// The float model was timed beside every row; the median of those medians speaks for it.
fn median_times(rows: &[Row]) -> Times {
    BATCHES
        .iter()
        .map(|b| {
            let mut times: Vec<f64> = rows
                .iter()
                .filter_map(|r| r.float_latency_us.get(b).copied())
                .collect();
            times.sort_by(f64::total_cmp);
            (*b, times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
        })
        .collect()
}

/// The rows as a table of at most 100 columns, the best one marked.
fn table(float: &Float, rows: &[Row], best: usize) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_header([
        "", "mode", "method", "weights", "activ.", "acc", "agree", "SQNR", "KiB", "b1 us",
        "x float", "b32 us", "x float",
    ]);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 0));
        if i >= 5 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let percent = |share: f64| format!("{:.2}", 100.0 * share);
    let kib = |bytes: usize| format!("{:.0}", bytes as f64 / 1024.0);
    let time = |us: Option<&f64>| us.map_or("-".to_owned(), |us| format!("{us:.0}"));
    table.add_row([
        String::new(),
        "float32".to_owned(),
        String::new(),
        String::new(),
        String::new(),
        percent(float.accuracy),
        String::new(),
        String::new(),
        kib(float.bytes),
        time(float.latency_us.get(&1)),
        String::new(),
        time(float.latency_us.get(&32)),
        String::new(),
    ]);
    for (i, r) in rows.iter().enumerate() {
        // How many times faster than the float runs it took turns with.
        let ratio = |batch: usize| match (r.float_latency_us.get(&batch), r.latency_us.get(&batch))
        {
            (Some(f), Some(q)) => format!("{:.2}", f / q),
            _ => "-".to_owned(),
        };
        // A method's setting is the default one throughout.
        let method = r.method.as_deref().unwrap_or_default();
        let cells = [
            if i == best { "*" } else { "" }.to_owned(),
            r.mode.to_owned(),
            method.split('=').next().unwrap_or_default().to_owned(),
            r.weights.clone(),
            r.activations.clone(),
            percent(r.accuracy),
            percent(r.agreement),
            r.sqnr_db.map_or("inf".to_owned(), |db| format!("{db:.1}")),
            kib(r.bytes),
            time(r.latency_us.get(&1)),
            ratio(1),
            time(r.latency_us.get(&32)),
            ratio(32),
        ];
        table.add_row(cells.into_iter().map(|c| {
            let cell = Cell::new(c);
            if i == best {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        }));
    }
    table
}
