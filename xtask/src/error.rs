//! What can go wrong in a chore.

use std::path::PathBuf;

/// Why a chore stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A program could not be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// The program's name.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ran and failed; it has printed why.
    #[error("`{command}` failed with exit status {code}")]
    Status {
        /// The whole command line.
        command: String,
        /// Its exit status, 1 where it was ended by a signal.
        code: u8,
    },
    /// A program ran too long and was ended.
    #[error("`{command}` was ended after {} s, the most it may take", limit.as_secs_f64())]
    Slow {
        /// The whole command line.
        command: String,
        /// How long it was given.
        limit: std::time::Duration,
    },
    /// Something that a chore needs is not installed.
    #[error("NOT RUN: {what} needs {missing}, which is not here; {remedy}")]
    Absent {
        /// What could not be run.
        what: String,
        /// What is missing.
        missing: String,
        /// How to get it.
        remedy: String,
    },
    /// A file or folder could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's or program's output is not of the form that was expected.
    #[error("{origin}: {expected}")]
    Form {
        /// The file or program.
        origin: String,
        /// What was expected of it, and what was found.
        expected: String,
    },
    /// Invariants of the architecture are broken; each has been printed.
    #[error("{count} invariant(s) broken, listed above (ARCHITECTURE.md gives the reasons)")]
    Untidy {
        /// How many.
        count: usize,
    },
    /// A name given on the command line is not known.
    #[error("no {kind} is called `{given}`; known are: {known}")]
    Unknown {
        /// What the name should name.
        kind: &'static str,
        /// The name as given.
        given: String,
        /// The names that exist.
        known: String,
    },
    /// A step of `ci` failed.
    #[error("step `{step}` failed after {seconds:.0} s: {source}\n       again: {again}")]
    Step {
        /// The step's name.
        step: &'static str,
        /// How long it ran.
        seconds: f64,
        /// How it failed.
        source: Box<Error>,
        /// The command that runs it alone.
        again: String,
    },
    /// A result misses what is promised.
    #[error("{0}")]
    Missed(String),
}
