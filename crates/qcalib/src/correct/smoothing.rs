//! Difficulty moved from activations to weights.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::CalibError;
use crate::layout::check_len;
use crate::room::filled;

/// The largest magnitude of every channel of a row-major tensor `outer × channels × inner`, in its
/// unit; 0 for a channel without values.
///
/// # Errors
///
/// [`CalibError::Length`] when the tensor does not fill the shape, [`CalibError::Setting`] for a
/// value that is not finite, [`CalibError::Memory`] for more channels without values than fit.
///
/// ```
/// let m = qcalib::correct::channel_abs_max(&[1.0, -2.0, 3.0, 0.5], [2, 2, 1])?;
/// assert_eq!(m, [3.0, 2.0]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn channel_abs_max(x: &[f32], shape: [usize; 3]) -> Result<Vec<f32>, CalibError> {
    check_len("x", x.len(), &shape)?;
    if let Some(&bad) = x.iter().find(|v| !v.is_finite()) {
        return Err(CalibError::Setting {
            argument: "x",
            given: bad.into(),
            allowed: "finite",
        });
    }
    let mut most = filled("channels", shape[1], 0f32)?;
    if shape[2] > 0 && !most.is_empty() {
        for (i, run) in x.chunks_exact(shape[2]).enumerate() {
            let m = &mut most[i % shape[1]];
            *m = run.iter().fold(*m, |m, v| m.max(v.abs()));
        }
    }
    Ok(most)
}

/// The factors by which activations are divided and weights multiplied so that both are easy to
/// quantize: `s_j = max|X_j|^α / max|W_j|^(1 − α)` (Xiao et al. 2023, `SmoothQuant`, arXiv
/// 2211.10438, §4, eq. 4).
///
/// `activations` and `weights` are the largest magnitudes of every input channel `j`: of the
/// layer's input, observed, and of all weights that read it. The input is divided by `s` (mostly
/// by dividing the weights or normalization before it: [`scale_channels`](super::scale_channels))
/// and the weights are multiplied ([`unscale_inputs`](super::unscale_inputs)), which changes
/// nothing but rounding. `α` is the strength of the migration: 0 leaves all the difficulty with
/// the activations, 1 moves it to the weights, 0.5 is the paper's choice. A channel that is zero on
/// either side gets 1. Factors are kept at or above 10⁻⁵, as the paper's code has it.
///
/// # Errors
///
/// [`CalibError::Setting`] for an `α` outside `[0, 1]` or magnitudes that are negative or not
/// finite, [`CalibError::Mismatch`] when the numbers of channels differ.
///
/// ```
/// use qcalib::correct::smooth;
/// let s = smooth(&[64.0, 1.0], &[1.0, 1.0], 0.5)?;
/// assert_eq!(s, [8.0, 1.0]); // the input channel shrinks to 8, its weights grow to 8
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn smooth(activations: &[f32], weights: &[f32], alpha: f32) -> Result<Vec<f32>, CalibError> {
    if !(0.0..=1.0).contains(&alpha) {
        return Err(CalibError::Setting {
            argument: "alpha",
            given: alpha.into(),
            allowed: "from 0 to 1",
        });
    }
    if activations.len() != weights.len() {
        return Err(CalibError::Mismatch {
            what: "number of weight channels",
            given: weights.len().to_string(),
            expected: activations.len().to_string(),
        });
    }
    let bad = |v: &&f32| !(**v >= 0.0 && v.is_finite());
    if let Some(&v) = activations.iter().chain(weights).find(bad) {
        return Err(CalibError::Setting {
            argument: "largest magnitude",
            given: v.into(),
            allowed: "not negative, and finite",
        });
    }
    let alpha = f64::from(alpha);
    Ok(activations
        .iter()
        .zip(weights)
        .map(|(&x, &w)| {
            if x == 0.0 || w == 0.0 {
                return 1.0;
            }
            let s = libm::pow(f64::from(x), alpha) / libm::pow(f64::from(w), 1.0 - alpha);
            // The largest quotient, f32::MAX over the smallest subnormal, is cut.
            s.clamp(1e-5, f64::from(f32::MAX)) as f32
        })
        .collect())
}
