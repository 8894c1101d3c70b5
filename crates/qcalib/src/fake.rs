//! Fake quantization: the values that quantization would leave, still as f32.

use alloc::string::ToString;
use qformat::{DType, QParams, QuantElement, TensorQParams};
use qkernels::{Isa, dequantize, quantize};

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
        let p = &params.params()[group];
        let (x, out) = (&x[run.clone()], &mut out[run]);
        match p.dtype() {
            DType::I8 => through::<i8>(x, p, out)?,
            DType::U8 => through::<u8>(x, p, out)?,
            DType::I16 => through::<i16>(x, p, out)?,
            DType::U16 => through::<u16>(x, p, out)?,
            DType::I32 => through::<i32>(x, p, out)?,
            // No Rust type holds one 4-bit value.
            _ => one_by_one(x, p, out),
        }
    }
    Ok(())
}

/// Values that pass through integers at a time.
const CHUNK: usize = 1024;

/// Runs shorter than this are not worth a call.
const SHORT: usize = 16;

fn one_by_one(x: &[f32], p: &QParams, out: &mut [f32]) {
    for (y, &v) in out.iter_mut().zip(x) {
        *y = p.fake_quantize(v);
    }
}

/// Quantizes to real integers and back, with the kernels.
fn through<T: QuantElement>(x: &[f32], p: &QParams, out: &mut [f32]) -> Result<(), CalibError> {
    if x.len() < SHORT {
        one_by_one(x, p, out);
        return Ok(());
    }
    let isa = Isa::detect();
    let mut q = [T::default(); CHUNK];
    for (x, out) in x.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
        let q = &mut q[..x.len()];
        quantize(isa, x, p, q)?;
        dequantize(isa, q, p, out)?;
    }
    Ok(())
}
