//! The subcommands, one file each, and what they share.

pub(crate) mod corrections;
pub(crate) mod train;

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::{LineStyle, Table, TableStyle};
use indicatif::{ProgressBar, ProgressStyle};
use qformat::Granularity;
use qtrain::TrainError;
use qtrain::evaluate::Score;

/// Writes a line to standard output. Once the reader of a pipe has gone, lines are dropped.
pub(crate) fn say(text: Arguments<'_>) -> Result<(), TrainError> {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_fmt(text)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => Err(TrainError::Stdout(cause)),
        _ => Ok(()),
    }
}

/// Writes a value as JSON to standard output.
pub(crate) fn say_json<T: serde::Serialize>(value: &T) -> Result<(), TrainError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| TrainError::Stdout(std::io::Error::other(e)))?;
    say(format_args!("{text}"))
}

/// A bar on standard error; silent where that is no terminal.
pub(crate) fn bar(len: usize, name: &str) -> ProgressBar {
    let bar = ProgressBar::new(len as u64);
    // The template is a constant; were it wrong, the default style would serve.
    if let Ok(style) = ProgressStyle::with_template(
        "{prefix:>20} {wide_bar:.cyan/dim} {pos}/{len} {msg:<28} {eta}",
    ) {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// An empty table with a line below its header.
pub(crate) fn new_table(header: impl IntoIterator<Item = impl ToString>) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_header(header.into_iter().map(|h| h.to_string()));
    table
}

/// The granularity of weights that an option picks.
pub(crate) fn granularity(per_channel: bool) -> Granularity {
    if per_channel {
        Granularity::PerChannel { axis: 0 }
    } else {
        Granularity::PerTensor
    }
}

/// `per tensor` or `per channel`.
pub(crate) fn granularity_name(g: Granularity) -> &'static str {
    match g {
        Granularity::PerTensor => "per tensor",
        _ => "per channel",
    }
}

/// `99.6 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// `21.3 dB`, or `exact` where there is no noise.
pub(crate) fn decibels(score: &Score) -> String {
    score
        .sqnr_db
        .map_or_else(|| "exact".to_owned(), |db| format!("{db:.1} dB"))
}

/// Refuses an output that could not be written, before any work: its folder must take a file.
pub(crate) fn check_output(path: &Path) -> Result<(), TrainError> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    };
    let io = |source| {
        TrainError::Model(qmodel::ModelError::Io {
            path: path.to_owned(),
            source,
        })
    };
    if path.is_dir() {
        return Err(io(ErrorKind::IsADirectory.into()));
    }
    // The error would name the temporary file, which nobody asked for.
    tempfile::NamedTempFile::new_in(folder)
        .map(drop)
        .map_err(|e| io(e.kind().into()))
}
