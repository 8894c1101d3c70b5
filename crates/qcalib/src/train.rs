//! Quantization-aware training: fake quantization whose gradients are known.
//!
//! A network that is trained while its values are rounded learns to live with it. Rounding has no
//! useful derivative, so each method says what is taken for one; each is one file:
//!
//! | method | learns | backward |
//! |---|---|---|
//! | straight-through | nothing | [`straight_through`] |
//! | LSQ | the scale | [`lsq`] |
//! | LSQ+ | scale and zero point | [`lsq_plus`] |
//! | PACT | the upper clip of an activation | [`pact`] |
//!
//! All of them work on plain slices, so they join any autograd library as a custom operator: the
//! forward is [`Quantizer::forward`], whose bits are those of quantizing to integers and back. A
//! [`Schedule`] takes a tensor from observation over training to frozen ranges, and [`BatchNorm`]
//! is folded into the weights before they are quantized.

mod batch_norm;
mod lsq;
mod lsq_plus;
mod pact;
mod quantizer;
mod schedule;
mod straight_through;

pub use batch_norm::{BatchNorm, BatchStatistics, Correction};
pub use lsq::{lsq, lsq_gradient_scale};
pub use lsq_plus::{LsqPlusGradients, lsq_plus};
pub use pact::{pact, pact_forward};
pub use quantizer::{Levels, Quantizer};
pub use schedule::{Phase, Schedule, ScheduleState};
pub use straight_through::straight_through;
