//! Cross-layer equalization.

use alloc::vec::Vec;

use super::smoothing::channel_abs_max;
use crate::CalibError;
use crate::layout::check_len;

/// Factors that make the channels between two layers equally wide.
#[derive(Debug, Clone, PartialEq)]
pub struct Equalization {
    /// `s`, one a channel: the first layer's outputs are divided by it, the second's inputs
    /// multiplied.
    pub factors: Vec<f32>,
    /// The largest range of a channel of the first weights over the smallest, before.
    pub spread_before: f64,
    /// The same, afterwards.
    pub spread_after: f64,
}

/// Equalizes the ranges of the channels between two layers: `s_i = √(r¹_i / r²_i)`, with `r¹_i`
/// the largest magnitude of the weights that make channel `i` and `r²_i` of those that read it, so
/// that both become `√(r¹_i · r²_i)` (Nagel et al. 2019, *Data-free quantization through weight
/// equalization and bias correction*, arXiv 1906.04721, §4.1, eq. 9 to 11).
///
/// Exact for what is positively homogeneous between the layers: nothing, `Relu`, `LeakyRelu`,
/// average and max pooling. (Not for a clip such as `Relu6`, whose ends would have to move along.)
///
/// `first` is the row-major weight `channels × …`, `second` is row-major `outer × channels ×
/// inner`, with the channels that it reads on its second axis: `[out, in, kh, kw]` as
/// `[out, in, kh · kw]`. Both, and the first layer's bias, are changed in place. Factors are powers
/// of two where `power_of_two` asks for it: then nothing rounds. A channel of which either side is
/// all zero keeps its factor at 1.
///
/// # Errors
///
/// [`CalibError::Length`] when slices do not have these sizes, [`CalibError::Setting`] for weights
/// that are not finite and biases that are not, or would not be, [`CalibError::Memory`] for more
/// channels without weights than fit. After an error nothing was changed.
///
/// ```
/// use qcalib::correct::equalize;
/// let (mut w1, mut b1, mut w2) = ([8.0, 0.5], [4.0, 1.0], [0.5, 2.0]);
/// let e = equalize(&mut w1, Some(&mut b1), &mut w2, 2, [1, 2, 1], false)?;
/// assert_eq!(e.factors, [4.0, 0.5]);
/// assert_eq!((w1, b1, w2), ([2.0, 1.0], [1.0, 2.0], [2.0, 1.0]));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn equalize(
    first: &mut [f32],
    bias: Option<&mut [f32]>,
    second: &mut [f32],
    channels: usize,
    second_shape: [usize; 3],
    power_of_two: bool,
) -> Result<Equalization, CalibError> {
    let each = first.len().checked_div(channels).unwrap_or(0);
    check_len("first", first.len(), &[channels, each])?;
    check_len("second", second.len(), &second_shape)?;
    check_len(
        "channels of the second weight",
        second_shape[1],
        &[channels],
    )?;
    if let Some(bias) = &bias {
        check_len("bias", bias.len(), &[channels])?;
    }
    let made = channel_abs_max(first, [1, channels, each])?;
    let read = channel_abs_max(second, second_shape)?;
    let factors: Vec<f32> = made
        .iter()
        .zip(&read)
        .map(|(&a, &b)| {
            let s = libm::sqrt(f64::from(a) / f64::from(b));
            let s = if power_of_two {
                libm::exp2(libm::rint(libm::log2(s)))
            } else {
                s
            };
            // A side that is all zero, or scales that f32 weights could not take.
            let usable =
                a > 0.0 && b > 0.0 && (s as f32).is_normal() && (1.0 / s as f32).is_normal();
            if usable { s as f32 } else { 1.0 }
        })
        .collect();
    let spread = |ranges: &[f32]| {
        let used = ranges.iter().filter(|&&r| r > 0.0);
        let (low, high) = used.fold((f32::INFINITY, 0f32), |(a, b), &r| (a.min(r), b.max(r)));
        if high > 0.0 {
            f64::from(high) / f64::from(low)
        } else {
            1.0
        }
    };
    // The weights stay finite by the choice of the factors; a bias need not.
    if let Some(bias) = bias {
        scale_channels(bias, &factors)?;
    }
    scale_channels(first, &factors)?;
    unscale_inputs(second, second_shape, &factors)?;
    let after = channel_abs_max(first, [1, channels, each])?;
    Ok(Equalization {
        factors,
        spread_before: spread(&made),
        spread_after: spread(&after),
    })
}

/// Divides every output channel of a row-major weight `channels × …` (or a bias) by its factor.
///
/// # Errors
///
/// [`CalibError::Length`] when the weight is no multiple of the factors' number,
/// [`CalibError::Setting`] for a factor of 0, factors and weights that are not finite, and quotients
/// that overflow. After an error nothing was changed.
///
/// ```
/// let mut w = [2.0, 4.0, 6.0, 8.0];
/// qcalib::correct::scale_channels(&mut w, &[2.0, 4.0])?;
/// assert_eq!(w, [1.0, 2.0, 1.5, 2.0]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn scale_channels(weight: &mut [f32], factors: &[f32]) -> Result<(), CalibError> {
    let each = weight.len().checked_div(factors.len()).unwrap_or(0);
    check_len("weight", weight.len(), &[factors.len(), each])?;
    if let Some(&s) = factors.iter().find(|&&s| s == 0.0 || !s.is_finite()) {
        return Err(CalibError::Setting {
            argument: "factor",
            given: s.into(),
            allowed: "finite and not 0",
        });
    }
    if each > 0 {
        let rows = weight.chunks_exact(each).zip(factors);
        check_results(rows.flat_map(|(row, &s)| row.iter().map(move |&w| w / s)))?;
        for (row, &s) in weight.chunks_exact_mut(each).zip(factors) {
            row.iter_mut().for_each(|w| *w /= s);
        }
    }
    Ok(())
}

/// Multiplies every input channel of a row-major weight `outer × channels × inner` by its factor:
/// the other half of dividing the channels themselves.
///
/// # Errors
///
/// [`CalibError::Length`] when the weight or the factors do not fill the shape,
/// [`CalibError::Setting`] for factors and weights that are not finite, and products that overflow.
/// After an error nothing was changed.
///
/// ```
/// let mut w = [1.0, 2.0, 3.0, 4.0];
/// qcalib::correct::unscale_inputs(&mut w, [2, 2, 1], &[10.0, 100.0])?;
/// assert_eq!(w, [10.0, 200.0, 30.0, 400.0]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn unscale_inputs(
    weight: &mut [f32],
    shape: [usize; 3],
    factors: &[f32],
) -> Result<(), CalibError> {
    check_len("weight", weight.len(), &shape)?;
    check_len("factors", factors.len(), &[shape[1]])?;
    if let Some(&s) = factors.iter().find(|s| !s.is_finite()) {
        return Err(CalibError::Setting {
            argument: "factor",
            given: s.into(),
            allowed: "finite",
        });
    }
    if shape[2] > 0 {
        let runs = weight.chunks_exact(shape[2]).zip(factors.iter().cycle());
        check_results(runs.flat_map(|(run, &s)| run.iter().map(move |&w| w * s)))?;
        for (run, &s) in weight
            .chunks_exact_mut(shape[2])
            .zip(factors.iter().cycle())
        {
            run.iter_mut().for_each(|w| *w *= s);
        }
    }
    Ok(())
}

fn check_results(mut results: impl Iterator<Item = f32>) -> Result<(), CalibError> {
    match results.find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(v) => Err(CalibError::Setting {
            argument: "scaled weight",
            given: v.into(),
            allowed: "finite",
        }),
    }
}
