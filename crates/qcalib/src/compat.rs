//! What other tools would have chosen on the same data, bit for bit.
//!
//! A model that was calibrated elsewhere can be reproduced here, and a difference between two
//! tools be told from a difference between two models. Each tool has a file of its own, which
//! repeats the tool's arithmetic: its precisions, its order of operations, and what it gets
//! wrong. None of that leaks into the estimators of this crate.
//!
//! | tool | observers | parameters |
//! |---|---|---|
//! | [`onnxruntime`] 1.32 | min-max, moving average, entropy, percentile | `compute_scale_zp`, `DynamicQuantizeLinear` |
//! | [`torch`] 1.13 | min-max, moving average, per channel, histogram | `_calculate_qparams` |
//! | [`tflite`] 2.21 | – | the nudged zero points of TensorFlow Lite, its converter and gemmlowp |
//!
//! What the tools do on values that are not finite is not repeated: some propagate them into a
//! scale, some crash. Here they are [`CalibError::NonFinite`], or
//! [`FormatError::Range`](qformat::FormatError::Range) where a range is given. Where the tools' own
//! arithmetic under- or overflows (a range of a few subnormals, or of ±3.4 · 10³⁸) they give a
//! scale of 0 or ∞, or NaN; here that is a [`CalibError::Setting`]. The tools see batches in order;
//! so do these.

use alloc::vec::Vec;
use qformat::{DType, QParams, Scheme};

use crate::view::non_finite;
use crate::{CalibError, ValueRange};

mod numpy;
pub mod onnxruntime;
pub mod tflite;
pub mod torch;

/// A scale and a zero point as a tool computes them, with the integers that it uses.
///
/// They need not be ones that [`QParams`] holds: a tool may use a part of a type's integers, or
/// scale a symmetric range by half a step more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToolParams {
    /// Step between neighbouring values, in the unit of the values.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
    /// The lowest integer in use.
    pub min: i32,
    /// The highest integer in use.
    pub max: i32,
}

impl ToolParams {
    /// The same scale and zero point as affine parameters of a type, which use all of its
    /// integers.
    ///
    /// # Errors
    ///
    /// [`CalibError::Format`] for a scale that is not positive or a zero point that is no integer
    /// of the type.
    ///
    /// ```
    /// use qcalib::compat::ToolParams;
    /// use qformat::DType;
    /// let p = ToolParams { scale: 0.5, zero_point: 3, min: -64, max: 64 };
    /// assert_eq!(p.to_qparams(DType::I8)?.zero_point(), 3);
    /// assert!(p.to_qparams(DType::F32).is_err());
    /// # Ok::<(), qcalib::CalibError>(())
    /// ```
    pub fn to_qparams(self, dtype: DType) -> Result<QParams, CalibError> {
        Ok(QParams::new(
            self.scale,
            self.zero_point,
            dtype,
            Scheme::Affine,
        )?)
    }
}

/// The ends of values that must all be finite; `None` for none. Of two zeros either may be given.
fn ends(x: &[f32]) -> Result<Option<ValueRange>, CalibError> {
    check(x)?;
    let Some((&first, rest)) = x.split_first() else {
        return Ok(None);
    };
    Ok(Some(rest.iter().fold(
        ValueRange {
            min: first,
            max: first,
        },
        |r, &v| ValueRange {
            min: if v < r.min { v } else { r.min },
            max: if v > r.max { v } else { r.max },
        },
    )))
}

fn check(x: &[f32]) -> Result<(), CalibError> {
    match non_finite(x) {
        None => Ok(()),
        Some((index, kind, count)) => Err(CalibError::NonFinite { count, index, kind }),
    }
}

/// `a // b` as Python's floats, NumPy and PyTorch define it; `b > 0`.
fn floor_divide(a: f32, b: f32) -> f32 {
    let remainder = a % b;
    let mut quotient = (a - remainder) / b;
    if remainder < 0.0 {
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return 0.0;
    }
    let floor = libm::floorf(quotient);
    if quotient - floor > 0.5 {
        floor + 1.0
    } else {
        floor
    }
}

/// More bins than any tool can search; a histogram that would grow beyond is refused.
const MOST_BINS: usize = 1 << 22;

fn check_bins(argument: &'static str, bins: f64) -> Result<usize, CalibError> {
    if bins >= 1.0 && bins <= MOST_BINS as f64 {
        return Ok(bins as usize); // between 1 and 2^22
    }
    Err(CalibError::Setting {
        argument,
        given: bins,
        allowed: "at least 1 and at most 4194304",
    })
}

/// A scale that a quantizer can use. The tools themselves give 0, ∞ or NaN where their arithmetic
/// under- or overflows.
fn check_scale(scale: f32) -> Result<f32, CalibError> {
    if scale > 0.0 && scale.is_finite() {
        return Ok(scale);
    }
    Err(CalibError::Setting {
        argument: "the tool's scale for the range",
        given: scale.into(),
        allowed: "positive and finite: the range is too narrow or too wide",
    })
}

/// Ends that the tool's arithmetic kept in order and finite.
fn check_average(r: ValueRange) -> Result<ValueRange, CalibError> {
    if r.min.is_finite() && r.max.is_finite() {
        return Ok(r);
    }
    Err(CalibError::Setting {
        argument: "average of the batches' ends",
        given: if r.min.is_finite() { r.max } else { r.min }.into(),
        allowed: "finite: sums and differences must not overflow f32",
    })
}

/// The weight of a new batch in a moving average.
fn check_constant(constant: f32) -> Result<(), CalibError> {
    if (0.0..=1.0).contains(&constant) {
        return Ok(());
    }
    Err(CalibError::Setting {
        argument: "averaging_constant",
        given: constant.into(),
        allowed: "from 0 to 1",
    })
}

/// Values of several batches in a row.
fn joined(batches: &[&[f32]]) -> Result<Vec<f32>, CalibError> {
    let all = batches.concat();
    check(&all)?;
    if all.is_empty() {
        return Err(CalibError::NoData { group: 0 });
    }
    Ok(all)
}
