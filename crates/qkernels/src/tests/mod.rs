//! The contract, checked for any tier: the same bits as plain scalar code.

mod conv;
mod conv_cases;
pub(crate) mod data;
mod depthwise;
mod dynamic;
mod edges;
mod elementwise;
mod epilogues;
mod exhaustive;
mod fakes;
pub(crate) mod gemm;
mod gemm_limits;
#[cfg(unix)]
mod guard;
#[cfg(unix)]
mod guarded;
mod products;
mod quotient;
mod reductions;
mod split;
