//! Learned step size and offset.

use alloc::vec::Vec;

use super::{Quantizer, lsq};
use crate::CalibError;

/// What [`lsq_plus`] gives beside `dx`: one number a group each, in the order of
/// [`Quantizer::scales`].
#[derive(Debug, Clone, PartialEq)]
pub struct LsqPlusGradients {
    /// Gradients of the scales: the loss' unit over that of `x`.
    pub scales: Vec<f32>,
    /// Gradients of the zero points, which count steps: the loss' unit.
    pub zero_points: Vec<f32>,
}

/// Gradients of the quantizer with learned scale and zero point (LSQ+).
///
/// `dx` and `dS` as in [`lsq`]; the zero point moves only what clips, since
/// `y = S · (qmin − Z)` there:
///
/// ```text
/// dZ = g · Σ −S · dy  over the clipped values
/// ```
///
/// (Bhalgat et al. 2020, *LSQ+*, arXiv 2004.09576, §3.1, with their offset `β = −S · Z`, so that
/// `∂y/∂β = 1` on clipped values becomes `−S`.) Rounding of `Z` itself is taken for the identity.
/// PyTorch's `_fake_quantize_learnable_*` operators compute the same.
///
/// # Errors
///
/// As [`Quantizer::forward`].
///
/// ```
/// use qcalib::train::{Levels, Quantizer, lsq_plus};
/// use qformat::{Granularity, Scheme};
/// let levels = Levels::new(2, false, Scheme::Affine)?;
/// let q = Quantizer::new(Granularity::PerTensor, levels, vec![0.5], vec![1.0])?;
/// let mut dx = [0.0; 2];
/// let g = lsq_plus(&q, &[0.5, -7.0], &[2], &[1.0, 4.0], &mut dx, 1.0)?;
/// assert_eq!((g.scales[0], g.zero_points[0]), (-4.0, -2.0));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn lsq_plus(
    q: &Quantizer,
    x: &[f32],
    shape: &[usize],
    dy: &[f32],
    dx: &mut [f32],
    gradient_scale: f32,
) -> Result<LsqPlusGradients, CalibError> {
    let scales = lsq(q, x, shape, dy, dx, gradient_scale)?;
    let mut sums = alloc::vec![0.0f64; scales.len()];
    q.for_each(x, shape, |group, i, scale, passed| {
        if !passed.inside() {
            sums[group] -= f64::from(dy[i] * scale);
        }
    })?;
    let scaled = |s: f64| (s * f64::from(gradient_scale)) as f32;
    Ok(LsqPlusGradients {
        scales,
        zero_points: sums.into_iter().map(scaled).collect(),
    })
}
