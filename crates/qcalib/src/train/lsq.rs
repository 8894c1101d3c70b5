//! Learned step size quantization.

use alloc::vec::Vec;

use super::Quantizer;
use crate::CalibError;
use crate::layout::check_len;

/// Gradients of the quantizer with a learned scale (LSQ); gives the gradient of every scale.
///
/// With `v = x / S` and the integers `[Qn, Qp] = [qmin − Z, qmax − Z]` relative to the zero point
/// (Esser et al. 2020, arXiv 1902.08153, §2)
///
/// ```text
/// dx = dy where Qn ≤ rne(v) ≤ Qp, else 0
/// dS = g · Σ dy · { rne(v) − v  inside;  Qn below;  Qp above }
/// ```
///
/// which is what the derivative is when the rounding error is held fixed. `gradient_scale` is `g`,
/// by which the paper makes steps of scales and weights comparable: [`lsq_gradient_scale`]. Terms
/// are f32, their sum f64, in memory order. PyTorch's `_fake_quantize_learnable_*` operators
/// compute the same.
///
/// # Errors
///
/// As [`Quantizer::forward`].
///
/// ```
/// use qcalib::train::{Levels, Quantizer, lsq};
/// use qformat::{Granularity, Scheme};
/// let levels = Levels::new(2, true, Scheme::Symmetric)?;
/// let q = Quantizer::new(Granularity::PerTensor, levels, vec![1.0], vec![0.0])?;
/// let mut dx = [0.0; 2];
/// let ds = lsq(&q, &[0.25, 7.0], &[2], &[1.0, 1.0], &mut dx, 1.0)?;
/// assert_eq!((dx, ds), ([1.0, 0.0], vec![-0.25 + 1.0]));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn lsq(
    q: &Quantizer,
    x: &[f32],
    shape: &[usize],
    dy: &[f32],
    dx: &mut [f32],
    gradient_scale: f32,
) -> Result<Vec<f32>, CalibError> {
    check_len("dy", dy.len(), shape)?;
    check_len("dx", dx.len(), shape)?;
    let mut sums = alloc::vec![0.0f64; q.scales().len()];
    q.for_each(x, shape, |group, i, scale, passed| {
        let inside = passed.inside();
        let slope = if inside {
            passed.rounded - x[i] / scale
        } else {
            passed.clipped()
        };
        dx[i] = if inside { dy[i] } else { 0.0 };
        sums[group] += f64::from(dy[i] * slope);
    })?;
    let scaled = |s: f64| (s * f64::from(gradient_scale)) as f32;
    Ok(sums.into_iter().map(scaled).collect())
}

/// `1 / √(n · Qp)`: the gradient scale that LSQ proposes for a scale that `n` values share, with
/// `positive_levels` levels above zero (Esser et al. 2020, §2.2). 0 values or levels count as 1.
///
/// ```
/// assert_eq!(qcalib::train::lsq_gradient_scale(100, 4), 0.05);
/// ```
#[must_use]
pub fn lsq_gradient_scale(n: usize, positive_levels: u32) -> f32 {
    (1.0 / libm::sqrt(n.max(1) as f64 * f64::from(positive_levels.max(1)))) as f32
}
