//! ONNX Runtime's calibrators and parameters (`onnxruntime.quantization`, 1.32).
//!
//! What differs from this crate's own methods, and is repeated here as it is:
//!
//! * Its "moving average" is the plain mean of the batches that one `collect_data` gathered; the
//!   constant acts between calls only.
//! * Its entropy calibrator starts from 128 bins for 128 levels, which leaves a single candidate,
//!   so nothing is clipped until the range has grown; candidates are symmetric about zero; `Q` is
//!   cut to integers; the last bins beyond a multiple of the levels are zero in `Q`; zeros are
//!   smoothed to 10⁻⁴ of a *count*. All in f32. (Its logarithm is NumPy's vectorised one, which
//!   may round otherwise than the correct one used here; that can matter only where two candidates
//!   are equal to seven digits.)
//! * Its histograms grow by whole bins, without bound; here more than 2^22 bins in all are an error.
//! * Its percentiles are edges found in an accumulated f64 distribution: with the lower edge of
//!   the bin that passes the share on the upper side, so the value itself is cut.
//! * Zero points are `round(qmin − rmin / scale)` in f64, without a clamp.
//!
//! `create_calibrator`'s defaults are the `Default` of each settings type.

mod entropy;
mod histogram;
mod min_max;
mod params;

pub use entropy::{Entropy, EntropySettings};
pub use histogram::{Percentile, PercentileSettings};
pub use min_max::{MinMax, MinMaxSettings};
pub use params::{dynamic_quantize_linear, integers, scale_and_zero_point};
