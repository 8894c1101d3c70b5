//! What must be in the environment before a library is loaded.

use std::process::Command;

use crate::BenchError;

/// Variables that libraries read when they are loaded, and what the bench sets them to where the
/// caller did not.
///
/// Idle workers of OpenMP spin so that the next call need not wake them, by default for ever or for
/// milliseconds, on a processor that others are being timed on. So many spins are longer than the
/// gap between two calls and shorter than the rest that the bench takes after a turn.
const VARIABLES: &[(&str, &str)] = &[("GOMP_SPINCOUNT", "20000")];

/// Starts this program again with the variables set, if any is missing; returns where none is.
///
/// # Errors
///
/// [`BenchError::Restart`] when the program cannot be started again.
pub fn settle() -> Result<(), BenchError> {
    let missing: Vec<_> = VARIABLES
        .iter()
        .filter(|(name, _)| std::env::var_os(name).is_none())
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(|source| BenchError::Restart { source })?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).envs(missing);
    Err(BenchError::Restart {
        source: replace(&mut command),
    })
}

/// Becomes the command; comes back only with the reason why not.
#[cfg(unix)]
fn replace(command: &mut Command) -> std::io::Error {
    std::os::unix::process::CommandExt::exec(command)
}

/// Runs the command in our place.
#[cfg(not(unix))]
fn replace(command: &mut Command) -> std::io::Error {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}
