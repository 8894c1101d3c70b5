//! `_calculate_qparams`.

use super::super::{ToolParams, check_scale};
use crate::{CalibError, ValueRange};

/// The storage type of an observer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TorchType {
    /// `torch.qint8`.
    QInt8,
    /// `torch.quint8`.
    QUInt8,
}

/// What an observer is told of the quantizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TorchQuantizer {
    /// Storage type.
    pub dtype: TorchType,
    /// Whether the scheme is symmetric.
    pub symmetric: bool,
    /// Whether one bit is given up.
    pub reduce_range: bool,
    /// `quant_min` and `quant_max`, where they are not the type's.
    pub range: Option<(i32, i32)>,
    /// The smallest scale, in the unit of the values; the tool's is 2⁻²³.
    pub eps: f32,
}

impl Default for TorchQuantizer {
    /// The defaults of the observers: affine `quint8`.
    fn default() -> Self {
        TorchQuantizer {
            dtype: TorchType::QUInt8,
            symmetric: false,
            reduce_range: false,
            range: None,
            eps: f32::EPSILON,
        }
    }
}

impl TorchQuantizer {
    /// The integers in use: `calculate_qmin_qmax`.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] for a range of one's own that is empty, does not hold 0, has
    /// more than 256 integers, or fewer than two once it is reduced.
    pub fn integers(&self) -> Result<(i32, i32), CalibError> {
        let (low, high) = match (self.range, self.dtype) {
            (Some((low, high)), _) => {
                let fits = low <= 0 && high >= 0 && low < high && high.abs_diff(low) < 256;
                if !fits {
                    return Err(CalibError::Setting {
                        argument: "quant_min",
                        given: low.into(),
                        allowed: "at most 0, below quant_max, and within 256 integers of it",
                    });
                }
                (low, high)
            }
            (None, TorchType::QInt8) => (-128, 127),
            (None, TorchType::QUInt8) => (0, 255),
        };
        // Rounded down, as Python's integers are.
        if !self.reduce_range {
            return Ok((low, high));
        }
        let (low, high) = (low.div_euclid(2), high.div_euclid(2));
        if low == high {
            return Err(CalibError::Setting {
                argument: "quant_max",
                given: high.into(),
                allowed: "such that two integers are left with reduce_range",
            });
        }
        Ok((low, high))
    }

    /// Scale and zero point of an observed range, in the unit of the values; `None` is an observer
    /// that saw nothing, which gives scale 1 and zero point 0.
    ///
    /// With `n = qmax − qmin` and the range `[a, b]` widened to hold 0, all in f32:
    ///
    /// ```text
    /// affine:    S = max((b − a) / n, eps),            Z = clamp(qmin − rne(a / S), qmin, qmax)
    /// symmetric: S = max(max(−a, b) / (n / 2), eps),   Z = 0 for qint8; for quint8 128, or
    ///                                                  ⌊(qmin + qmax) / 2⌋ of a range of one's own
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`integers`](Self::integers), [`CalibError::Format`] for ends that are not finite or
    /// swapped, and [`CalibError::Setting`] for a scale that overflows f32 (the tool gives ∞) or,
    /// without an `eps`, is 0.
    ///
    /// ```
    /// use qcalib::{ValueRange, compat::torch::TorchQuantizer};
    /// let r = ValueRange { min: -1.0, max: 1.0 };
    /// let p = TorchQuantizer { symmetric: true, ..Default::default() }.params(Some(r))?;
    /// assert_eq!((p.scale, p.zero_point), (1.0 / 127.5, 128));
    /// # Ok::<(), qcalib::CalibError>(())
    /// ```
    pub fn params(&self, range: Option<ValueRange>) -> Result<ToolParams, CalibError> {
        let (qmin, qmax) = self.integers()?;
        let of = |scale, zero_point| ToolParams {
            scale,
            zero_point,
            min: qmin,
            max: qmax,
        };
        let Some(ValueRange { min, max }) = range else {
            return Ok(of(1.0, 0));
        };
        if !(min.is_finite() && max.is_finite() && min <= max) {
            return Err(qformat::FormatError::Range { min, max }.into());
        }
        let (low, high) = (min.min(0.0), max.max(0.0));
        // At most 255: exact.
        let steps = (qmax - qmin) as f32;
        if self.symmetric {
            let zero = match (self.dtype, self.range) {
                (TorchType::QInt8, _) => 0,
                (TorchType::QUInt8, None) => 128,
                (TorchType::QUInt8, Some(_)) => (qmin + qmax).div_euclid(2),
            };
            let scale = high.max(-low) / (steps / 2.0);
            return Ok(of(check_scale(scale.max(self.eps))?, zero));
        }
        let scale = check_scale(((high - low) / steps).max(self.eps))?;
        // −min / scale exceeds the steps only by rounding.
        let below = libm::rintf(low / scale) as i32;
        let zero = qmin.saturating_sub(below).clamp(qmin, qmax);
        Ok(of(scale, zero))
    }
}
