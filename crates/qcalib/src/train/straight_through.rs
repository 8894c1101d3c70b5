//! The straight-through estimator.

use super::Quantizer;
use crate::CalibError;
use crate::layout::check_len;

/// `dx = dy` where the value was not clipped, else 0.
///
/// Rounding is taken for the identity (Bengio et al. 2013, arXiv 1308.3432; with the clip mask as
/// Jacob et al. 2018 and PyTorch's `fake_quantize_*` operators have it): a value counts as clipped
/// when `rne(x / S) + Z` lies outside the integers. NaN counts as clipped. `x`, `dy` and `dx` have
/// the shape; `dx` and `dy` have the unit of the loss per unit of `x`.
///
/// # Errors
///
/// As [`Quantizer::forward`].
///
/// ```
/// use qcalib::train::{Levels, Quantizer, straight_through};
/// use qformat::{Granularity, Scheme};
/// let levels = Levels::new(2, true, Scheme::Symmetric)?;
/// let q = Quantizer::new(Granularity::PerTensor, levels, vec![1.0], vec![0.0])?;
/// let mut dx = [9.0; 3];
/// straight_through(&q, &[0.4, 1.4, 1.6], &[3], &[1.0, 2.0, 3.0], &mut dx)?;
/// assert_eq!(dx, [1.0, 2.0, 0.0]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn straight_through(
    q: &Quantizer,
    x: &[f32],
    shape: &[usize],
    dy: &[f32],
    dx: &mut [f32],
) -> Result<(), CalibError> {
    check_len("dy", dy.len(), shape)?;
    check_len("dx", dx.len(), shape)?;
    q.for_each(x, shape, |_, i, _, passed| {
        dx[i] = if passed.inside() { dy[i] } else { 0.0 };
    })
}
