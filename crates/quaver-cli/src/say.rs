//! Standard output that may be closed or full.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};

use crate::error::CliError;

/// Writes a line to standard output, like `println!`, but fails with an error where that panics.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::say::line(format_args!($($text)*))
    };
}

/// Writes a line to standard output.
///
/// Once the reader of a pipe has gone (`quaver inspect model.onnx | head`), lines are dropped:
/// nobody misses them, and the files that the command was to write still get written.
pub(crate) fn line(text: Arguments<'_>) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_fmt(text)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => Err(CliError::Stdout { cause }),
        _ => Ok(()),
    }
}
