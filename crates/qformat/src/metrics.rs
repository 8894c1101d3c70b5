//! How far quantized results are from the float ones.

use crate::FormatError;

/// Signal-to-quantization-noise ratio in decibels: `10 · log10(Σ x² / Σ (x − y)²)`, summed in f64.
///
/// `+∞` when there is no noise. Higher is better; a uniform quantizer with `b` bits on a signal
/// that fills its range reaches about `6.02 · b` dB (Widrow and Kollár, *Quantization Noise*,
/// 2008, ch. 1).
///
/// # Errors
///
/// [`FormatError::Count`] when the lengths differ.
///
/// ```
/// let db = qformat::metrics::sqnr_db(&[1.0, -1.0], &[0.9, -1.1])?;
/// assert!((db - 20.0).abs() < 1e-5);
/// # Ok::<(), qformat::FormatError>(())
/// ```
pub fn sqnr_db(reference: &[f32], approximation: &[f32]) -> Result<f64, FormatError> {
    if reference.len() != approximation.len() {
        return Err(FormatError::Count {
            what: "elements of the approximation",
            given: approximation.len(),
            expected: reference.len(),
        });
    }
    let (mut signal, mut noise) = (0f64, 0f64);
    for (&x, &y) in reference.iter().zip(approximation) {
        let (x, y) = (f64::from(x), f64::from(y));
        signal += x * x;
        noise += (x - y) * (x - y);
    }
    Ok(if noise == 0.0 {
        f64::INFINITY
    } else {
        10.0 * libm::log10(signal / noise)
    })
}

/// Index of the largest value of a row; the first of equal ones, and NaN never wins. `None` for
/// an empty row or one of NaNs only.
///
/// ```
/// assert_eq!(qformat::metrics::argmax(&[0.0, 3.0, 3.0]), Some(1));
/// ```
#[must_use]
pub fn argmax(row: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (i, &v) in row.iter().enumerate() {
        if !v.is_nan() && best.is_none_or(|(_, b)| v > b) {
            best = Some((i, v));
        }
    }
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqnr_of_equal_signals_is_infinite_and_lengths_must_match() {
        assert_eq!(sqnr_db(&[1.0], &[1.0]), Ok(f64::INFINITY));
        assert!(sqnr_db(&[1.0], &[]).is_err());
    }

    #[test]
    fn argmax_skips_nan_and_takes_the_first() {
        assert_eq!(argmax(&[f32::NAN, 1.0, 2.0, 2.0]), Some(2));
        assert_eq!(argmax(&[f32::NAN]), None);
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[f32::NEG_INFINITY]), Some(0));
    }
}
