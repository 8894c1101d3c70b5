//! `qtrain corrections`.

use comfy_table::{CellAlignment, Table};
use qcalib::Method;
use qtrain::corrections::{Cell, Correction, Study};
use qtrain::evaluate::{self, Score};
use qtrain::graph::{Float, Graph};
use qtrain::quantized::Width;
use qtrain::{Network, TrainError, data};

use super::{bar, decibels, granularity, granularity_name, new_table, percent, say, say_json};

/// Measure what corrections of weights and biases are worth at few bits.
///
/// Each row corrects the float network in one way and quantizes it without any training, to 4-bit
/// weights and 8-bit activations (W4A8), to four bits for both, and to W3A8. Shown are the accuracy
/// on 1,000 held-out digits and the signal to quantization noise of the outputs. No row is left
/// out, whether a correction helps or not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  qtrain corrections
  qtrain corrections --per-channel
  qtrain corrections --json > corrections.json")]
pub(crate) struct Args {
    /// One scale for each output channel of a weight, not one for the whole weight.
    #[arg(long)]
    per_channel: bool,
    /// The method of calibration that chooses ranges of activations.
    #[arg(long, value_name = "METHOD", default_value = "minmax")]
    method: Method,
    /// Print JSON, not a table.
    #[arg(long)]
    json: bool,
}

/// The widths of the table.
const WIDTHS: [Width; 3] = [
    Width {
        weights: 4,
        activations: 8,
    },
    Width::W4A4,
    Width {
        weights: 3,
        activations: 8,
    },
];

/// What `--json` prints.
#[derive(Debug, serde::Serialize)]
struct Output<'a> {
    weights: &'static str,
    activations: String,
    float: Score,
    rows: Vec<Row<'a>>,
}

/// A cell with its names.
#[derive(Debug, serde::Serialize)]
struct Row<'a> {
    name: &'static str,
    paper: &'static str,
    #[serde(flatten)]
    cell: &'a Cell,
}

pub(crate) fn run(args: &Args) -> Result<(), TrainError> {
    let network = Network::new(&data::model()?)?;
    let (calibration, test) = (data::calibration()?, data::test()?);
    let float = evaluate::logits(&Graph::new(&network)?, &test, &mut Float)?;
    let float = evaluate::score(&float, &float, &test.labels)?;
    let study = Study {
        widths: WIDTHS.to_vec(),
        granularity: granularity(args.per_channel),
        method: args.method,
    };
    let progress = bar(Correction::ALL.len() * WIDTHS.len(), "corrections");
    let cells = study.run(&network, &calibration, &test, &mut |cell| {
        progress.set_message(cell.correction.name());
        progress.inc(1);
    })?;
    progress.finish_and_clear();
    if args.json {
        let rows = cells.iter().map(|cell| Row {
            name: cell.correction.name(),
            paper: cell.correction.paper(),
            cell,
        });
        return say_json(&Output {
            weights: granularity_name(study.granularity),
            activations: args.method.to_string(),
            float,
            rows: rows.collect(),
        });
    }
    say(format_args!(
        "float {}; weights {}, activations by {}; accuracy on {} held-out digits, SQNR of the outputs",
        percent(float.accuracy),
        granularity_name(study.granularity),
        args.method,
        test.len()
    ))?;
    say(format_args!("{}", table(&cells)))
}

/// A row a correction, a column a width.
fn table(cells: &[Cell]) -> Table {
    let mut header = vec!["correction".to_owned()];
    header.extend(WIDTHS.iter().map(ToString::to_string));
    header.push("from".to_owned());
    let mut table = new_table(header);
    for correction in Correction::ALL {
        let mut row = vec![correction.name().to_owned()];
        let own = cells.iter().filter(|c| c.correction == correction);
        row.extend(own.map(|c| format!("{}, {}", percent(c.score.accuracy), decibels(&c.score))));
        row.push(correction.paper().to_owned());
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1).take(WIDTHS.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
