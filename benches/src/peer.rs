//! Other libraries that do the same work, to measure ours against.
//!
//! A peer is one file and one line of [`PEERS`], behind a Cargo feature `peer-NAME`. It is handed
//! a [`Task`] and prepares [`Work`] for it, with its weights packed and its memory at hand as an
//! engine would keep them, or says that it has no such operation. Its answers are compared with
//! ours before it is timed, and the share that is equal goes with every result: a peer that
//! saturates is fast, but does not do the same work. Where nothing saturates, a test demands that all
//! are: `cargo test -p quaver-benches --features peer-NAME`.

#[cfg(test)]
mod answers;
#[cfg(feature = "peer-gemm")]
mod gemm;
#[cfg(feature = "peer-half")]
mod half;
#[cfg(feature = "peer-numkong")]
mod numkong;
#[cfg(feature = "peer-onednn")]
mod onednn;
#[cfg(feature = "peer-onnxruntime")]
mod onnxruntime;
#[cfg(feature = "peer-rten")]
mod rten;
mod slack;
pub mod task;

use qkernels::Isa;

pub use self::task::{Conv, Finish, Map, MapOp, MatMul, Requantize, Scaled, Task, Weights};
use crate::BenchError;
use crate::values::Values;

/// A library, ready to be given work.
pub trait Peer: Send + Sync {
    /// Its name, as `--peer` takes it.
    fn name(&self) -> &'static str;

    /// The tier of instructions that it is capped at, or `own` where the choice is its own.
    fn isa(&self) -> &'static str {
        "own"
    }

    /// Prepares a task for so many threads; none if it has no such operation.
    ///
    /// # Errors
    ///
    /// [`BenchError::Peer`] when the library refuses what it should be able to do.
    fn prepare(&self, task: &Task<'_>, threads: usize)
    -> Result<Option<Box<dyn Work>>, BenchError>;
}

/// A task that a peer has prepared.
pub trait Work: Send {
    /// Does it once.
    ///
    /// # Errors
    ///
    /// [`BenchError::Peer`] when the library fails.
    fn run(&mut self) -> Result<(), BenchError>;

    /// The answer of the last run.
    fn answer(&self) -> Values<'_>;

    /// The element types it really works on, where they are not the task's.
    fn types(&self) -> Option<String> {
        None
    }

    /// The kernel that it chose, where it tells.
    fn detail(&self) -> Option<String> {
        None
    }
}

/// How a peer is opened: capped at a tier if one is given.
type Open = fn(Option<Isa>) -> Result<Box<dyn Peer>, BenchError>;

/// A peer that this bench knows.
pub struct Known {
    /// The name, as `--peer` takes it.
    pub name: &'static str,
    /// What is measured of it.
    pub about: &'static str,
    /// What it needs beside its Cargo feature.
    pub needs: &'static str,
    /// Opens it; none where its feature is off.
    open: Option<Open>,
}

/// The way to open a peer, if its feature is on.
macro_rules! open {
    ($feature:literal, $module:ident) => {{
        #[cfg(feature = $feature)]
        const OPEN: Option<Open> = Some($module::open);
        #[cfg(not(feature = $feature))]
        const OPEN: Option<Open> = None;
        OPEN
    }};
}

/// Every peer.
pub const PEERS: &[Known] = &[
    Known {
        name: "onednn",
        about: "oneDNN 2.x: matmul, convolution",
        needs: "Debian's libdnnl-dev",
        open: open!("peer-onednn", onednn),
    },
    Known {
        name: "onnxruntime",
        about: "ONNX Runtime: integer matmul, quantize, dequantize",
        needs: "ORT_DYLIB_PATH=…/libonnxruntime.so (Python's onnxruntime has it in capi/)",
        open: open!("peer-onnxruntime", onnxruntime),
    },
    Known {
        name: "rten",
        about: "rten-gemm: u8·i8 matmul",
        needs: "nothing",
        open: open!("peer-rten", rten),
    },
    Known {
        name: "numkong",
        about: "numkong: i8·i8 and u8·u8 packed dot products",
        needs: "a C compiler",
        open: open!("peer-numkong", numkong),
    },
    Known {
        name: "gemm",
        about: "the gemm crate: f32 matmul of the same shape",
        needs: "nothing",
        open: open!("peer-gemm", gemm),
    },
    Known {
        name: "half",
        about: "the half crate: slices of f16 and bf16 to f32 and back",
        needs: "nothing",
        open: open!("peer-half", half),
    },
];

/// The names of all peers, for messages and help.
#[must_use]
pub fn names() -> String {
    PEERS
        .iter()
        .map(|peer| peer.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Opens the peer of this name, capped at `cap` if it can be.
///
/// # Errors
///
/// [`BenchError::Argument`] for a name that no peer has, [`BenchError::PeerNotBuilt`] where its
/// feature is off, [`BenchError::PeerNotFound`] where what it needs is not on this machine.
pub fn open(name: &str, cap: Option<Isa>) -> Result<Box<dyn Peer>, BenchError> {
    let known =
        PEERS
            .iter()
            .find(|peer| peer.name == name)
            .ok_or_else(|| BenchError::Argument {
                argument: "--peer",
                given: name.to_owned(),
                allowed: names(),
            })?;
    let open = known.open.ok_or(BenchError::PeerNotBuilt {
        peer: known.name,
        needs: known.needs,
    })?;
    open(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_peer_is_refused_with_the_names() {
        let error = open("onedn", None).err().map(|error| error.to_string());
        assert!(error.unwrap().contains("onednn, onnxruntime"));
    }

    #[test]
    fn a_peer_that_is_not_built_says_how() {
        for peer in PEERS.iter().filter(|peer| peer.open.is_none()) {
            let error = open(peer.name, None).err().map(|error| error.to_string());
            assert!(error.unwrap().contains(&format!("peer-{}", peer.name)));
        }
    }
}
