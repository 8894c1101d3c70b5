//! The nudged zero points of TensorFlow Lite and of gemmlowp.

use qformat::FormatError;

use super::{ToolParams, check_scale};
use crate::{CalibError, ValueRange};

/// The ends of a range, if they are finite and in order.
fn ends(ValueRange { min, max }: ValueRange) -> Result<(f32, f32), CalibError> {
    if min.is_finite() && max.is_finite() && min <= max {
        return Ok((min, max));
    }
    Err(FormatError::Range { min, max }.into())
}

fn check_integers(qmin: i32, qmax: i32) -> Result<(), CalibError> {
    if qmin < qmax {
        return Ok(());
    }
    Err(CalibError::Setting {
        argument: "qmin",
        given: qmin.into(),
        allowed: "below qmax",
    })
}

/// Scale and zero point by TensorFlow Lite's `ChooseQuantizationParams`, in the unit of the values.
///
/// In f64, with the range widened to hold 0: `S = (max − min) / (qmax − qmin)`, and of the two
/// zero points `qmin − min / S` and `qmax − max / S` the one whose terms are smaller and therefore
/// rounded less; then "nudged" to the nearest integer of the range, halves away from zero, so that
/// 0 is exact (Jacob et al. 2018, arXiv 1712.05877, §2.1; `ChooseQuantizationParams` of
/// `tensorflow/lite/kernels/internal/quantization_util.h`). For a range of no width that function
/// gives a scale of 0, which no quantizer could use; here the scale is then 1, and the zero point
/// the integer of the range that is nearest to 0.
///
/// # Errors
///
/// [`CalibError::Format`] for ends that are not finite or swapped, [`CalibError::Setting`] unless
/// `qmin < qmax` and for a scale beyond f32 (two integers for a range of ±3.4 · 10³⁸).
///
/// ```
/// use qcalib::{ValueRange, compat::tflite::nudged};
/// let p = nudged(ValueRange { min: -1.0, max: 1.0 }, 0, 255)?;
/// assert_eq!(p.zero_point, 128); // 127.5, away from zero
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn nudged(range: ValueRange, qmin: i32, qmax: i32) -> Result<ToolParams, CalibError> {
    let (min, max) = ends(range)?;
    check_integers(qmin, qmax)?;
    let (low, high) = (f64::from(min.min(0.0)), f64::from(max.max(0.0)));
    nudge(low, high, high - low, qmin, qmax)
}

/// Scale and zero point that TensorFlow Lite's interpreter gives activations which it quantizes to
/// int8 itself, where only the weights of a model are integers ("dynamic range" and "hybrid"), in the
/// unit of the values: `AsymmetricQuantizeFloats` on each row.
///
/// [`nudged`] for -128 to 127, but the difference `max − min` is rounded to f32 before it is
/// divided. About a quarter of the ranges with two unlike ends thereby get a scale that is one unit in
/// the last place off. A difference that leaves no scale in f32 gives, as in [`nudged`], a scale of 1.
///
/// # Errors
///
/// [`CalibError::Format`] for ends that are not finite or swapped, [`CalibError::Setting`] for a
/// difference beyond f32.
///
/// ```
/// use qcalib::{ValueRange, compat::tflite};
/// let range = ValueRange { min: -0.000_948_277_7, max: 0.002_379_909_9 };
/// let (at_run_time, nudged) = (tflite::run_time(range)?, tflite::nudged(range, -128, 127)?);
/// assert_eq!(at_run_time.zero_point, nudged.zero_point);
/// assert_eq!(at_run_time.scale, nudged.scale.next_up());
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn run_time(range: ValueRange) -> Result<ToolParams, CalibError> {
    let (min, max) = ends(range)?;
    let (low, high) = (min.min(0.0), max.max(0.0));
    let width = high - low;
    nudge(low.into(), high.into(), width.into(), -128, 127)
}

/// The nearest zero point, from the end whose terms are smaller.
fn nudge(low: f64, high: f64, width: f64, qmin: i32, qmax: i32) -> Result<ToolParams, CalibError> {
    let (first, last) = (f64::from(qmin), f64::from(qmax));
    let scale = width / (last - first);
    // The tool stores the scale in f32, where the smallest ranges leave nothing.
    if scale as f32 == 0.0 {
        return Ok(ToolParams {
            scale: 1.0,
            zero_point: 0.clamp(qmin, qmax),
            min: qmin,
            max: qmax,
        });
    }
    let (from_min, from_max) = (first - low / scale, last - high / scale);
    let error_min = first.abs() + (low / scale).abs();
    let error_max = last.abs() + (high / scale).abs();
    let zero = if error_min < error_max {
        from_min
    } else {
        from_max
    };
    let zero_point = if zero < first {
        qmin
    } else if zero > last {
        qmax
    } else {
        libm::round(zero) as i32 // between two i32
    };
    Ok(ToolParams {
        scale: check_scale(scale as f32)?,
        zero_point,
        min: qmin,
        max: qmax,
    })
}

/// Scale and zero point as the converter to TensorFlow Lite gives them to the activations of a
/// calibrated network, in the unit of the values (`GetAsymmetricQuantizationParams`).
///
/// With the range `[a, b]` widened to hold 0, all in f32: `S = (b − a) / (qmax − qmin)`, and the zero
/// point is `qmin − a / S`, clamped and rounded half away from zero. Unlike in [`nudged`] the upper
/// end has no say.
///
/// # Errors
///
/// [`CalibError::Format`] for ends that are not finite or swapped, [`CalibError::Setting`] unless
/// `qmin < qmax` and for a range whose scale is 0 or infinite in f32.
///
/// ```
/// use qcalib::{ValueRange, compat::tflite::converted};
/// let p = converted(ValueRange { min: -0.1, max: 25.4 }, -128, 127)?;
/// assert_eq!((p.scale, p.zero_point), (0.1, -127));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn converted(range: ValueRange, qmin: i32, qmax: i32) -> Result<ToolParams, CalibError> {
    let (min, max) = ends(range)?;
    check_integers(qmin, qmax)?;
    let (low, high) = (min.min(0.0), max.max(0.0));
    let (first, last) = (qmin as f32, qmax as f32);
    let scale = check_scale((high - low) / (last - first))?;
    let zero = libm::roundf((first - low / scale).clamp(first, last));
    Ok(ToolParams {
        scale,
        // f32 may round the ends of the widest integers.
        zero_point: (zero as i32).clamp(qmin, qmax),
        min: qmin,
        max: qmax,
    })
}

/// Scale and zero point as gemmlowp's `doc/quantization_example.cc` chooses them for u8, in the unit
/// of the values: TensorFlow Lite's rule in its first form.
///
/// With the range `[a, b]` widened to hold 0, `S = (b − a) / 255` in f32, and the zero point is
/// `−a / S` in f64, rounded half away from zero and clamped to `[0, 255]`. Unlike in [`nudged`] the
/// difference is rounded to f32, and the upper end has no say.
///
/// # Errors
///
/// [`CalibError::Format`] for ends that are not finite or swapped, [`CalibError::Setting`] for a
/// range whose scale is 0 or infinite in f32.
///
/// ```
/// use qcalib::{ValueRange, compat::tflite::gemmlowp};
/// let p = gemmlowp(ValueRange { min: -1.0, max: 1.0 })?;
/// assert_eq!(p.zero_point, 127); // 2 / 255 was rounded up in f32: 127.49999…
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn gemmlowp(range: ValueRange) -> Result<ToolParams, CalibError> {
    let (min, max) = ends(range)?;
    let (low, high) = (min.min(0.0), max.max(0.0));
    let scale = check_scale((high - low) / 255.0)?;
    let zero = libm::round(0.0 - f64::from(low) / f64::from(scale)).clamp(0.0, 255.0);
    Ok(ToolParams {
        scale,
        zero_point: zero as i32, // an integer from 0 to 255
        min: 0,
        max: 255,
    })
}

/// The range that the nudged parameters span, in the unit of the values: what TensorFlow's
/// `FakeQuantWithMinMaxVars` clamps to, so that a trained network and its converted form clip
/// alike.
///
/// All in f32, as that operator has it: `S = (max − min) / (qmax − qmin)`, the zero point
/// `qmin − min / S` rounded half away from zero and clamped, and `[(qmin − Z) · S, (qmax − Z) · S]`.
/// The range itself is **not** widened to hold 0; the clamp of the zero point does it.
///
/// # Errors
///
/// [`CalibError::Format`] unless `min < max` and both are finite, [`CalibError::Setting`] unless
/// `qmin < qmax` and for a range whose scale is 0 or infinite in f32 (where the operator gives NaN).
///
/// ```
/// use qcalib::{ValueRange, compat::tflite::nudged_range};
/// let r = nudged_range(ValueRange { min: -0.1, max: 25.4 }, 0, 255)?;
/// assert_eq!((r.min, r.max), (-0.1, 25.4));
/// let r = nudged_range(ValueRange { min: 0.04, max: 25.54 }, 0, 255)?;
/// assert_eq!(r.min, 0.0); // moved so that 0 is exact
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn nudged_range(range: ValueRange, qmin: i32, qmax: i32) -> Result<ValueRange, CalibError> {
    let ValueRange { min, max } = range;
    if !(min.is_finite() && max.is_finite() && min < max) {
        return Err(FormatError::Range { min, max }.into());
    }
    check_integers(qmin, qmax)?;
    let (first, last) = (qmin as f32, qmax as f32);
    let scale = check_scale((max - min) / (last - first))?;
    let zero = libm::roundf(first - min / scale).clamp(first, last);
    Ok(ValueRange {
        min: (first - zero) * scale,
        max: (last - zero) * scale,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two candidates differ by rounding only, so the nudged point is within half a step of
    /// both, and the range of the parameters is the one asked for to a step.
    #[test]
    fn the_zero_point_is_within_half_a_step_of_both_ends() {
        for i in 0..2000 {
            let (min, max) = (-(i as f32) * 0.013, (2000 - i) as f32 * 0.0071 + 0.01);
            for (qmin, qmax) in [(0, 255), (-128, 127), (-127, 127), (0, 15)] {
                let p = nudged(ValueRange { min, max }, qmin, qmax).unwrap();
                let zero = f64::from(p.zero_point);
                let low = f64::from(qmin) - f64::from(min) / f64::from(p.scale);
                let high = f64::from(qmax) - f64::from(max) / f64::from(p.scale);
                assert!((zero - low).abs() < 0.5001 && (zero - high).abs() < 0.5001);
            }
        }
    }

    #[test]
    fn halves_go_away_from_zero_and_ends_hold() {
        let of = |min, max, qmin, qmax| nudged(ValueRange { min, max }, qmin, qmax).unwrap();
        assert_eq!(of(-1.0, 1.0, -128, 127).zero_point, -1); // −0.5
        assert_eq!(of(-1.0, 1.0, 0, 255).zero_point, 128);
        assert_eq!(of(2.0, 6.0, 0, 255).zero_point, 0);
        assert_eq!(of(-6.0, -2.0, -128, 127).zero_point, 127);
        assert_eq!(
            (of(0.0, 0.0, 3, 9).scale, of(0.0, 0.0, 3, 9).zero_point),
            (1.0, 3)
        );
        let bad = ValueRange {
            min: 1.0,
            max: f32::NAN,
        };
        assert!(nudged(bad, 0, 255).is_err());
        assert!(nudged(ValueRange { min: 0.0, max: 1.0 }, 5, 5).is_err());
    }
}
