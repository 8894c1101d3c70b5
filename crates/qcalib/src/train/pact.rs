//! Parameterized clipping activation.

use crate::CalibError;

/// PACT's forward: `clamp(x, 0, α)` on `steps + 1` levels, `y = rne(c · steps / α) · α / steps`
/// (Choi et al. 2018, *PACT*, arXiv 1805.06085, eq. 1 and 2).
///
/// `α` and `x` have the same unit; all operations are f32. NaN gives 0.
///
/// # Errors
///
/// [`CalibError::Setting`] unless `α` is positive and finite and `1 <= steps <= 65535`,
/// [`CalibError::Length`] when the slices differ.
///
/// ```
/// let mut y = [0.0; 3];
/// qcalib::train::pact_forward(&[-1.0, 0.6, 5.0], 3.0, 3, &mut y)?;
/// assert_eq!(y, [0.0, 1.0, 3.0]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn pact_forward(x: &[f32], alpha: f32, steps: u32, y: &mut [f32]) -> Result<(), CalibError> {
    check(alpha, x.len(), y.len(), "y")?;
    if !(1..=65_535).contains(&steps) {
        return Err(CalibError::Setting {
            argument: "steps",
            given: steps.into(),
            allowed: "from 1 to 65535",
        });
    }
    // At most 16 bits: exact.
    let scale = alpha / steps as f32;
    for (y, &x) in y.iter_mut().zip(x) {
        let clipped = if x > 0.0 { x.min(alpha) } else { 0.0 };
        *y = libm::rintf(clipped / scale).min(steps as f32) * scale;
    }
    Ok(())
}

/// PACT's gradients: `dx = dy` where `0 < x < α`, else 0; gives `dα = Σ dy` over `x ≥ α`.
///
/// The quantizer is passed straight through (Choi et al. 2018, §3.1); to its learned clip the
/// paper adds a decay `λ α²`, which is the optimizer's affair. The sum is f64, in memory order.
///
/// # Errors
///
/// [`CalibError::Setting`] unless `α` is positive and finite, [`CalibError::Length`] when the
/// slices differ.
///
/// ```
/// let mut dx = [0.0; 3];
/// let da = qcalib::train::pact(&[-1.0, 0.6, 5.0], 3.0, &[1.0, 2.0, 3.0], &mut dx)?;
/// assert_eq!((dx, da), ([0.0, 2.0, 0.0], 3.0));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn pact(x: &[f32], alpha: f32, dy: &[f32], dx: &mut [f32]) -> Result<f32, CalibError> {
    check(alpha, x.len(), dy.len(), "dy")?;
    check(alpha, x.len(), dx.len(), "dx")?;
    let mut sum = 0.0f64;
    for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
        *dx = if x > 0.0 && x < alpha { dy } else { 0.0 };
        if x >= alpha {
            sum += f64::from(dy);
        }
    }
    Ok(sum as f32)
}

fn check(
    alpha: f32,
    expected: usize,
    given: usize,
    argument: &'static str,
) -> Result<(), CalibError> {
    if !(alpha > 0.0 && alpha.is_finite()) {
        return Err(CalibError::Setting {
            argument: "alpha",
            given: alpha.into(),
            allowed: "positive and finite",
        });
    }
    if given != expected {
        return Err(CalibError::Length {
            argument,
            given,
            expected,
            shape: alloc::vec![expected],
        });
    }
    Ok(())
}
