//! What can go wrong in a bench.

use std::path::PathBuf;

/// Why a bench stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// A name or list on the command line cannot be used.
    #[error("{argument}: `{given}` is not allowed: {allowed}")]
    Argument {
        /// The option.
        argument: &'static str,
        /// The part that was not understood.
        given: String,
        /// What would be.
        allowed: String,
    },
    /// A kernel refused its arguments.
    #[error("{op} {shape} on {isa}: {source}")]
    Kernel {
        /// The operation.
        op: &'static str,
        /// The shape or size.
        shape: String,
        /// The tier.
        isa: &'static str,
        /// What the kernel said.
        source: qkernels::KernelError,
    },
    /// The model could not be quantized or run.
    #[error("model digits: {0}")]
    Model(#[source] Box<quaver::QuantizeError>),
    /// A tensor could not be observed, or no range be chosen.
    #[error("calibration: {0}")]
    Calibration(#[from] quaver::calib::CalibError),
    /// A result differs from the scalar reference: a time for it would mean nothing.
    #[error("{op} {shape} on {isa}: element {index} is {found}, the scalar reference {expected}")]
    WrongAnswer {
        /// The operation.
        op: &'static str,
        /// The shape or size.
        shape: String,
        /// The tier.
        isa: &'static str,
        /// The first element that differs.
        index: usize,
        /// What was computed.
        found: String,
        /// What the reference computes.
        expected: String,
    },
    /// A peer is asked for that this build does not have.
    #[error(
        "--peer {peer}: not built in: `cargo xtask bench --peer {peer}` builds it (Cargo feature \
         `peer-{peer}`); it needs {needs}"
    )]
    PeerNotBuilt {
        /// The peer.
        peer: &'static str,
        /// What building or running it needs.
        needs: &'static str,
    },
    /// A peer is built in, but what it loads is not on this machine.
    #[error("--peer {peer}: not found: {reason}; {needs}")]
    PeerNotFound {
        /// The peer.
        peer: &'static str,
        /// What the loader said.
        reason: String,
        /// How to get it.
        needs: &'static str,
    },
    /// A peer failed at what it should be able to do.
    #[error("peer {peer}: {reason}")]
    Peer {
        /// The peer.
        peer: &'static str,
        /// What it said.
        reason: String,
    },
    /// The program could not start itself again with the environment that peers need.
    #[error("cannot start again with the environment that peers need: {source}")]
    Restart {
        /// What the system said.
        source: std::io::Error,
    },
    /// Threads could not be started.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the pool said.
        source: rayon::ThreadPoolBuildError,
    },
    /// A thread did not start.
    #[error("cannot start {threads} threads")]
    Spawn {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold records of a bench.
    #[error("{path}: holds no records of a bench: {source}", path = path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// Where reading failed.
        source: serde_json::Error,
    },
    /// A picture could not be drawn.
    #[error("--plot: cannot be drawn: {reason}")]
    Plot {
        /// What the drawing said.
        reason: String,
    },
    /// Nothing was measured, which is never what was asked for.
    #[error("nothing was measured: {reason}")]
    NothingMeasured {
        /// Why not.
        reason: String,
    },
}

impl From<quaver::QuantizeError> for BenchError {
    fn from(error: quaver::QuantizeError) -> Self {
        BenchError::Model(Box::new(error))
    }
}
