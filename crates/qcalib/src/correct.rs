//! Corrections of what quantization does to weights and biases.
//!
//! All are functions on plain slices, without a graph: whoever owns the model knows which tensors
//! belong together.
//!
//! | correction | what it mends | function |
//! |---|---|---|
//! | bias quantization | a bias that does not fit i32 at `S_a · S_w` | [`quantize_bias`] |
//! | zero-point sums | what affine activations add to an accumulator | [`zero_point_sums`] |
//! | bias correction | the mean error of quantized weights | [`bias_correction`] |
//! | cross-layer equalization | channels of very different ranges | [`equalize`] |
//! | smoothing | activations with a few large channels | [`smooth`] |

mod bias;
mod bias_correction;
mod equalization;
mod smoothing;

pub use bias::{QuantizedBias, bias_scale_floor, quantize_bias, zero_point_sums};
pub use bias_correction::bias_correction;
pub use equalization::{Equalization, equalize, scale_channels, unscale_inputs};
pub use smoothing::{channel_abs_max, smooth};
