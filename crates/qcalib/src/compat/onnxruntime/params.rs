//! `compute_scale_zp` and `DynamicQuantizeLinear`.

use qformat::{DType, FormatError};

use super::super::{ToolParams, check_scale};
use crate::{CalibError, ValueRange};

/// `get_qmin_qmax_for_qType`: the integers that the tool uses of a type.
///
/// With `reduce_range` i8 has `[−64, 64]`, u8 `[0, 127]` and the 4-bit types 3 bits; symmetric i8
/// and i16 leave out the lowest.
///
/// # Errors
///
/// [`CalibError::Format`] for a type that the tool does not quantize to, and for reduced 16-bit
/// types.
pub fn integers(
    dtype: DType,
    symmetric: bool,
    reduce_range: bool,
) -> Result<(i32, i32), CalibError> {
    let full = dtype
        .int_range()
        .ok_or(FormatError::NotAnInteger { given: dtype });
    Ok(match (dtype, reduce_range, symmetric) {
        (DType::I8, true, _) => (-64, 64),
        (DType::U8, true, _) => (0, 127),
        (DType::I4, true, _) => (-4, 3),
        (DType::U4, true, _) => (0, 7),
        (DType::I8, false, true) => (-127, 127),
        (DType::I16, false, true) => (-32_767, 32_767),
        (DType::I4 | DType::U4 | DType::I8 | DType::U8 | DType::I16 | DType::U16, false, _) => {
            full?
        }
        _ => {
            return Err(CalibError::Name {
                what: "type of the tool",
                given: dtype.name().into(),
                allowed: "i4, u4, i8, u8, and without a reduced range i16, u16",
            });
        }
    })
}

/// `compute_scale_zp`: scale in f64, stored as f32; zero point `round(qmin − rmin / scale)` with
/// the unrounded scale, not clamped.
///
/// The range is widened to hold 0, then to `min_real_range` at the top. A scale below the smallest
/// normal number gives scale 1 and zero point 0, even where 0 is not the middle of a symmetric
/// type.
///
/// # Errors
///
/// Those of [`integers`], [`CalibError::Format`] for ends that are not finite or swapped, and
/// [`CalibError::Setting`] for a `min_real_range` that is negative, not finite or overflows f32.
///
/// ```
/// use qcalib::{ValueRange, compat::onnxruntime::scale_and_zero_point};
/// use qformat::DType;
/// let r = ValueRange { min: -1.0, max: 3.0 };
/// let p = scale_and_zero_point(r, DType::U8, false, false, None)?;
/// assert_eq!((p.scale, p.zero_point), (4.0 / 255.0, 64));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn scale_and_zero_point(
    range: ValueRange,
    dtype: DType,
    symmetric: bool,
    reduce_range: bool,
    min_real_range: Option<f32>,
) -> Result<ToolParams, CalibError> {
    let (qmin, qmax) = integers(dtype, symmetric, reduce_range)?;
    let ValueRange { min, max } = range;
    if !(min.is_finite() && max.is_finite() && min <= max) {
        return Err(FormatError::Range { min, max }.into());
    }
    let (mut low, mut high) = (min.min(0.0), max.max(0.0));
    if let Some(least) = min_real_range {
        if !(least >= 0.0 && least.is_finite()) {
            return Err(CalibError::Setting {
                argument: "min_real_range",
                given: least.into(),
                allowed: "not negative, and finite",
            });
        }
        high = high.max(low + least);
    }
    if symmetric {
        high = high.max(low.abs());
        low = -high;
    }
    let steps = f64::from(qmax) - f64::from(qmin);
    let scale = (f64::from(high) - f64::from(low)) / steps;
    let (scale, zero_point) = if scale < f64::from(f32::MIN_POSITIVE) {
        (1.0, 0.0)
    } else if symmetric {
        (scale as f32, libm::rint(f64::from(qmin + qmax) / 2.0))
    } else {
        let zero = f64::from(qmin) - f64::from(low) / scale;
        (scale as f32, libm::rint(zero))
    };
    Ok(ToolParams {
        scale: check_scale(scale)?,
        // Between the integers of a 16-bit type.
        zero_point: zero_point as i32,
        min: qmin,
        max: qmax,
    })
}

/// Scale and zero point of the operator `DynamicQuantizeLinear` (ONNX opset 11) as the runtime
/// computes them for u8: `S = (max − min) / 255` with the range widened to hold 0, and
/// `Z = rne(clamp(0 − min / S, 0, 255))`, all in f32; the zero point is clamped before it is
/// rounded, and the scale is 1 for a range of no width. `range` and scale are in the unit of the
/// values.
///
/// # Errors
///
/// [`CalibError::Format`] for ends that are not finite or swapped, [`CalibError::Setting`] for a
/// range so narrow or so wide that the scale is 0 or infinite in f32 (the runtime gives just that).
///
/// ```
/// use qcalib::{ValueRange, compat::onnxruntime::dynamic_quantize_linear};
/// let p = dynamic_quantize_linear(ValueRange { min: -1.0, max: 50.0 })?;
/// assert_eq!((p.scale, p.zero_point), (0.2, 5));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn dynamic_quantize_linear(range: ValueRange) -> Result<ToolParams, CalibError> {
    let ValueRange { min, max } = range;
    if !(min.is_finite() && max.is_finite() && min <= max) {
        return Err(FormatError::Range { min, max }.into());
    }
    let (min, max) = (min.min(0.0), max.max(0.0));
    let scale = if max == min {
        1.0
    } else {
        check_scale((max - min) / 255.0)?
    };
    let zero = libm::rintf((0.0 - min / scale).clamp(0.0, 255.0));
    Ok(ToolParams {
        scale,
        zero_point: zero as i32, // an integer from 0 to 255
        min: 0,
        max: 255,
    })
}
