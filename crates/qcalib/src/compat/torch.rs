//! PyTorch's observers and parameters (`torch.ao.quantization.observer`, 1.13).
//!
//! What differs from this crate's own methods, and is repeated here as it is:
//!
//! * Scales are computed in f32 and floored at `eps` (2⁻²³ unless told otherwise); the affine zero
//!   point is `qmin − round(min / scale)` with the *rounded* scale, clamped.
//! * Symmetric scales divide by half of the steps (127.5 for 8 bits) over all integers, so the
//!   highest value can clip by half a step; the zero point of `quint8` is 128, or the lower middle
//!   of a range of one's own.
//! * The moving average is taken in f32, in the order of arrival.
//! * The histogram observer cuts the ends of the range that it counts in **to integers**, so that
//!   values beyond the last whole number are not counted; it starts anew from a constant batch;
//!   its search stops at the first step that does not improve. Its sums are taken in the order of
//!   the AVX2 build's vectors, which its other builds do not share; that can matter only where two
//!   candidates are equal to seven digits.

mod histogram;
mod min_max;
mod qparams;

pub use histogram::Histogram;
pub use min_max::{MinMax, MovingAverage};
pub use qparams::{TorchQuantizer, TorchType};
