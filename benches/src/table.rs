//! Results as a table to read.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle};

use crate::baseline::{Change, Verdict};
use crate::claims::{Judged, Standing, Unit};
use crate::record::Record;

/// A spread beyond which a row is marked: its rate is not to be quoted.
const UNSTEADY: f64 = 0.1;

/// From this ratio on, repeated runs may well fall on either side of a peer.
const EVEN: f64 = 0.98;

/// A line above, below the header and at the end; none between rows.
const STYLE: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// A table of results, one row each.
#[must_use]
pub fn of_records(records: &[Record]) -> Table {
    let peers = peers(records);
    let best = records.iter().any(|record| record.best_ns.is_some());
    let time = if best { "best" } else { "median" };
    let mut header: Vec<String> = [
        "op", "types", "shape", "data", "isa", "threads", "library", "rate", "limit", "of limit",
        time, "spread",
    ]
    .map(str::to_owned)
    .to_vec();
    header.extend(peers.iter().map(|peer| format!("÷ {peer}")));
    let peaks = records.iter().any(|record| record.peak_bytes.is_some());
    if peaks {
        header.push("peak memory".to_owned());
    }
    let mut table = empty(&header);
    for record in records {
        let key = &record.key;
        let share = record.share().map_or_else(
            || Cell::new("–"),
            |share| {
                let cell = Cell::new(format!("{:.1} %", share * 100.0));
                if share >= 0.9 {
                    cell.fg(Color::Green)
                } else {
                    cell
                }
            },
        );
        let limit = match (record.limit, &record.limited_by) {
            (Some(limit), Some(by)) => format!("{} ({by})", number(limit)),
            (Some(limit), None) => number(limit),
            _ => "–".to_owned(),
        };
        let spread = match record.spread {
            Some(spread) if spread > UNSTEADY && record.best_ns.is_none() => {
                Cell::new(format!("{:.1} % !", spread * 100.0)).fg(Color::Yellow)
            }
            Some(spread) => Cell::new(format!("{:.1} %", spread * 100.0)),
            None => Cell::new("one run"),
        };
        let mut row = vec![
            Cell::new(&key.op),
            Cell::new(&key.types),
            Cell::new(shape(record)),
            Cell::new(&key.data),
            Cell::new(&key.isa),
            Cell::new(key.threads),
            Cell::new(library(record)),
            Cell::new(rate(record)),
            Cell::new(limit),
            share,
            Cell::new(duration(record.time_ns())),
            spread,
        ];
        row.extend(peers.iter().map(|peer| ratio(record, peer)));
        if peaks {
            row.push(Cell::new(
                record.peak_bytes.map_or_else(String::new, memory),
            ));
        }
        table.add_row(row);
    }
    let right: Vec<usize> = [5, 7, 8, 9, 10, 11]
        .into_iter()
        .chain(12..12 + peers.len() + usize::from(peaks))
        .collect();
    right_align(&mut table, &right);
    table
}

/// The peers that any row has a ratio to, each once.
fn peers(records: &[Record]) -> Vec<&str> {
    let mut peers: Vec<&str> = Vec::new();
    for peer in records.iter().flat_map(|record| record.ratios.keys()) {
        if !peers.contains(&peer.as_str()) {
            peers.push(peer);
        }
    }
    peers
}

/// How many times as fast as a peer.
fn ratio(record: &Record, peer: &str) -> Cell {
    match record.ratios.get(peer) {
        Some(&ratio) if ratio >= EVEN => Cell::new(format!("{ratio:.2}×")).fg(Color::Green),
        Some(&ratio) => Cell::new(format!("{ratio:.2}×")).fg(Color::Red),
        None => Cell::new(""),
    }
}

/// The library, with a mark where its answers are not ours.
fn library(record: &Record) -> String {
    match record.agreement {
        Some(share) if share < 1.0 => {
            format!("{} (≠ {:.1} %)", record.key.library, (1.0 - share) * 100.0)
        }
        _ => record.key.library.clone(),
    }
}

/// A table of what changed against a baseline: only rows that became slower or faster.
#[must_use]
pub fn of_changes(changes: &[Change]) -> Table {
    let mut table = empty(&[
        "op", "types", "shape", "data", "isa", "threads", "library", "before", "now", "ratio", "",
    ]);
    for change in changes {
        let (word, colour) = match change.verdict {
            Verdict::Slower => ("slower", Color::Red),
            Verdict::Faster => ("faster", Color::Green),
            Verdict::Even => continue,
        };
        let key = &change.now.key;
        table.add_row(vec![
            Cell::new(&key.op),
            Cell::new(&key.types),
            Cell::new(shape(&change.now)),
            Cell::new(&key.data),
            Cell::new(&key.isa),
            Cell::new(key.threads),
            Cell::new(&key.library),
            Cell::new(rate(&change.before)),
            Cell::new(rate(&change.now)),
            Cell::new(format!("{:.3}", change.ratio)),
            Cell::new(word).fg(colour),
        ]);
    }
    right_align(&mut table, &[5, 7, 8, 9]);
    table
}

/// A table of claims: the worst result of each beside what is claimed.
#[must_use]
pub fn of_claims(judged: &[Judged]) -> Table {
    let mut table = empty(&[
        "claim",
        "at least",
        "worst",
        "distance",
        "results",
        "",
        "worst result",
    ]);
    for one in judged {
        let claim = one.claim;
        let shown = |value: f64| match claim.unit {
            Unit::Times => format!("{value:.2}×"),
            Unit::Share => format!("{:.1} %", value * 100.0),
        };
        let colour = match one.standing {
            Standing::Held => Color::Green,
            Standing::Even | Standing::Open => Color::Yellow,
            Standing::Short(_) => Color::Red,
        };
        let worst = one.cases.first();
        table.add_row(vec![
            Cell::new(claim.about),
            Cell::new(shown(claim.least)),
            Cell::new(worst.map_or_else(String::new, |case| shown(case.worth))),
            Cell::new(worst.map_or_else(String::new, |case| {
                format!("{:+.1} %", (case.worth / claim.least - 1.0) * 100.0)
            })),
            Cell::new(one.cases.len()),
            Cell::new(one.standing).fg(colour),
            Cell::new(worst.map_or("", |case| &case.label)),
        ]);
    }
    right_align(&mut table, &[1, 2, 3, 4]);
    table
}

fn empty<S: AsRef<str>>(header: &[S]) -> Table {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().map(|name| name.as_ref().to_owned()));
    table
}

fn right_align(table: &mut Table, columns: &[usize]) {
    for &index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The rate with its unit, or the time where that is all there is.
pub(crate) fn rate(record: &Record) -> String {
    match (record.gops, record.gbps) {
        (Some(gops), _) => format!("{} GOP/s", number(gops)),
        (None, Some(gbps)) => format!("{} GB/s", number(gbps)),
        (None, None) => duration(record.time_ns()),
    }
}

/// Bytes in MiB.
fn memory(bytes: u64) -> String {
    format!("{} MiB", number(bytes as f64 / f64::from(1 << 20)))
}

pub(crate) fn shape(record: &Record) -> String {
    let key = &record.key;
    let one = if key.m == 1 && key.k == 1 && record.gops.is_none() {
        key.n.to_string()
    } else {
        format!("{}x{}x{}", key.m, key.k, key.n)
    };
    if key.batch == 1 {
        one
    } else {
        format!("{}·{one}", key.batch)
    }
}

/// Three digits that count.
pub(crate) fn number(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

fn duration(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{} {unit}", number(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(number(1234.5), "1234");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(1.234), "1.23");
        assert_eq!(duration(1500.0), "1.50 µs");
        assert_eq!(duration(2.5e9), "2.50 s");
    }

    #[test]
    fn a_row_without_a_rate_shows_its_time_and_memory_where_it_is_known() {
        let mut timed = record("avx2", 50.0);
        (timed.gops, timed.limit, timed.median_ns) = (None, None, 1500.0);
        assert!(
            !of_records(std::slice::from_ref(&timed))
                .to_string()
                .contains("memory")
        );
        timed.peak_bytes = Some(3 << 20);
        let text = of_records(&[timed, record("avx2", 50.0)]).to_string();
        for part in ["1.50 µs", "peak memory", "3.00 MiB", "50.0 GOP/s"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_row_shows_rate_limit_and_share() {
        let mut one = record("avx2", 50.0);
        one.spread = None;
        let mut shaky = record("avx2", 25.0);
        shaky.spread = Some(0.5);
        let text = of_records(&[one, shaky]).to_string();
        for part in [
            "50.0 GOP/s",
            "100 (read)",
            "50.0 %",
            "one run",
            "1x2x3",
            "50.0 % !",
            "25.0 %",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
