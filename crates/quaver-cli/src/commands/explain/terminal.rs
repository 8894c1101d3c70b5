//! The explanation as tables in a terminal.

use std::io::IsTerminal as _;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use quaver::Explanation;
use quaver::explain::{Action, Layer, MethodQuality, Role, Suggestion, Tensor};

use super::text::{better, change, number, option, percent, printable, quality, short, sparkline};
use crate::error::CliError;

/// Columns of a table that goes to no terminal.
const WIDTH: u16 = 100;

/// Characters of a name.
const NAME: usize = 18;

/// Characters of a distribution.
const SPARKLINE: usize = 12;

/// Characters of the longest bar.
const BAR: usize = 12;

pub(super) fn print(title: &str, e: &Explanation, top: usize) -> Result<(), CliError> {
    let s = &e.settings;
    say!(
        "{}: {}, activations {}, weights {}, {}; {} samples",
        printable(title),
        s.method,
        s.activations,
        s.weights,
        s.format,
        s.samples
    )?;
    say!("beside float: {}", quality(&e.quality))?;
    suggestions(&e.suggestions, e.tried, top)?;
    say!("\nThe whole model, method by method")?;
    say!("{}", methods(&e.methods))?;
    say!(
        "\nLayers, that which hurts most first{}",
        of(e.layers.len(), top)
    )?;
    say!("{}", layers(&e.layers, e.other_share, top))?;
    say!("\nTensors, the noisiest first{}", of(e.tensors.len(), top))?;
    say!("{}", tensors(&e.tensors, top))?;
    say!(
        "(w): a weight. scale: the step between numbers; zero: the integer for 0; clipped: values cut \
         off;\nends: values at the lowest or highest integer; dead: integers no value becomes; best: \
         the method\nwith least noise. `quaver explain --help` says more."
    )
}

/// How much of a list is shown, where that is not all of it.
fn of(all: usize, top: usize) -> String {
    if all > top {
        format!(" ({top} of {all}; --top shows more)")
    } else {
        String::new()
    }
}

fn suggestions(list: &[Suggestion], tried: usize, top: usize) -> Result<(), CliError> {
    say!("\nWhat helps ({tried} changes tried, {} help)", list.len())?;
    if list.is_empty() {
        return say!("  nothing that was tried makes the output better");
    }
    for (i, s) in list.iter().take(top).enumerate() {
        let gain = s
            .gain_db
            .map_or("no noise".to_owned(), |db| format!("{db:+.1} dB"));
        say!(
            "{:>3}. {gain:<9} {:<52} {} -> {}",
            i + 1,
            printable(&s.action.to_string()),
            s.before.sqnr,
            s.after.sqnr
        )?;
        if let Some(option) = option(&s.action) {
            let stays = match s.action {
                Action::KeepFloat {
                    time_share: Some(share),
                    ..
                } => format!("   ({} of the run time stays in float)", percent(share)),
                _ => String::new(),
            };
            say!("     {}{stays}", printable(&option))?;
        }
    }
    if list.len() > top {
        say!("     and {} more: --top shows them", list.len() - top)?;
    }
    Ok(())
}

fn methods(list: &[MethodQuality]) -> Table {
    let mut table = plain(&["method", "SQNR", "top-1 as float", "accuracy"], 1);
    for m in list {
        let share = |s: Option<f64>| s.map_or("–".to_owned(), percent);
        table.add_row(vec![
            format!("{}{}", m.method, mark(m.chosen)),
            m.quality.sqnr.to_string(),
            share(m.quality.agreement),
            share(m.quality.accuracy),
        ]);
    }
    table
}

fn layers(list: &[Layer], other: Option<f64>, top: usize) -> Table {
    let header = [
        "layer",
        "operator",
        "SQNR alone",
        "top-1 as float",
        "run time",
        "",
    ];
    let mut table = plain(&header, 2);
    let bar = |share: f64| "█".repeat((share * BAR as f64).round() as usize);
    for l in list.iter().take(top) {
        table.add_row(vec![
            short(&printable(&l.name), NAME),
            printable(&l.operator),
            l.alone.sqnr.to_string(),
            l.alone.agreement.map_or("–".to_owned(), percent),
            l.time_share.map_or("–".to_owned(), percent),
            l.time_share.map(bar).unwrap_or_default(),
        ]);
    }
    if let Some(share) = other {
        let shown: f64 = list.iter().take(top).filter_map(|l| l.time_share).sum();
        let all: f64 = list.iter().filter_map(|l| l.time_share).sum();
        let rest = share + (all - shown);
        let mut row = vec![String::new(); header.len()];
        "all else".clone_into(&mut row[0]);
        row[4] = percent(rest);
        row[5] = bar(rest);
        table.add_row(row);
    }
    // Bars grow from the left.
    if let Some(column) = table.column_mut(5) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

fn tensors(list: &[Tensor], top: usize) -> Table {
    let header = [
        "tensor", "values", "scale", "zero", "clipped", "SQNR dB", "ends", "dead", "best", "+dB",
    ];
    let mut table = plain(&header, 2);
    // Ten columns leave no room for the space.
    let percent = |share: f64| percent(share).replace(' ', "");
    for t in list.iter().take(top) {
        let Some(c) = t.chosen() else { continue };
        let (best, gain) = match better(t) {
            Some(b) => (b.method.clone(), change(b.switch_db).replace(" dB", "")),
            None => ("the chosen one".to_owned(), String::new()),
        };
        let kind = match t.role {
            Role::Activation => "",
            Role::Weight => " (w)",
        };
        let sqnr = c.sqnr.db();
        table.add_row(vec![
            format!("{}{kind}", short(&printable(&t.name), NAME - kind.len())),
            sparkline(&t.histogram, SPARKLINE),
            number(c.scale),
            c.zero_point.to_string(),
            percent(c.clipped()),
            sqnr.map_or(c.sqnr.to_string(), |db| format!("{db:.1}")),
            percent(c.saturated),
            percent(c.dead_codes),
            best,
            gain,
        ]);
    }
    if let Some(column) = table.column_mut(8) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

/// Marks what is explained.
fn mark(chosen: bool) -> &'static str {
    if chosen { " *" } else { "" }
}

/// A table with headings, of which all but the first `left` stand over numbers.
fn plain(headings: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table
        .load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings.to_vec());
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH);
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        // As wide as ten columns allow.
        column.set_padding((0, if headings.len() < 10 { 2 } else { 1 }));
        if i >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
