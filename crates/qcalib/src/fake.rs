//! Fake quantization: the values that quantization would leave, still as f32.

use alloc::string::ToString;
use qformat::TensorQParams;

use crate::CalibError;
use crate::layout::check_len;

/// `out = dequantize(quantize(x))`, bit for bit, at any granularity.
///
/// `x` and `out` are row-major with shape `shape`; the unit is that of `x`. Per value:
/// `S · (saturate(rne(x / S) + Z) − Z)`; ±∞ saturates and NaN becomes the lowest value, as
/// [`QParams::quantize`](qformat::QParams::quantize) defines.
///
/// # Errors
///
/// [`CalibError::Length`] when `x` or `out` does not fill `shape`, [`CalibError::Mismatch`] when
/// the parameters are not as many as the shape has groups, [`CalibError::Format`] for an axis
/// that the shape lacks. `out` is untouched after an error.
///
/// ```
/// use qformat::{DType, QParams, Scheme, TensorQParams};
/// let p = TensorQParams::per_tensor(QParams::new(0.5, 0, DType::I8, Scheme::Symmetric)?);
/// let mut out = [0.0; 3];
/// qcalib::fake_quantize(&[0.7, 1.25, 1000.0], &[3], &p, &mut out)?;
/// assert_eq!(out, [0.5, 1.0, 63.5]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn fake_quantize(
    x: &[f32],
    shape: &[usize],
    params: &TensorQParams,
    out: &mut [f32],
) -> Result<(), CalibError> {
    check_len("x", x.len(), shape)?;
    check_len("out", out.len(), shape)?;
    let granularity = params.granularity();
    let (given, expected) = (params.params().len(), granularity.groups(shape)?);
    if given != expected {
        return Err(CalibError::Mismatch {
            what: "number of quantization parameters",
            given: given.to_string(),
            expected: expected.to_string(),
        });
    }
    for (group, run) in granularity.runs(shape)? {
        let p = params.params()[group];
        for (y, &v) in out[run.clone()].iter_mut().zip(&x[run]) {
            *y = p.fake_quantize(v);
        }
    }
    Ok(())
}
