//! Biases as integers of the accumulator.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::CalibError;
use crate::layout::check_len;
use crate::room::filled;

/// A bias at the scale of the accumulator: `values · scales` is the bias, in its unit.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedBias {
    /// `rne(b / (S_a · S_w))`, one a channel, in steps of its scale.
    pub values: Vec<i32>,
    /// `S_a · S_w`, one a channel, in the unit of the bias.
    pub scales: Vec<f32>,
}

/// Quantizes a bias to i32 with the scale `S_a · S_w` and zero point 0, so that it can be added to
/// the accumulator (Jacob et al. 2018, arXiv 1712.05877, §2.4).
///
/// `weight_scales` has one scale a channel, or one for all. `bias` is in the unit of the layer's
/// output, which is that of its input (`S_a`) times that of its weights (`S_w`): the product of the
/// scales is in it, too. The product is rounded to f32, as files store it; the quotient is taken in
/// f64 and rounded to nearest, ties to even.
///
/// # Errors
///
/// [`CalibError::Overflow`] for a bias beyond i32 (a larger weight scale helps:
/// [`bias_scale_floor`]), [`CalibError::Setting`] for a bias that is not finite or scales whose
/// product is not positive and normal, [`CalibError::Mismatch`] for another number of scales.
///
/// ```
/// use qcalib::correct::quantize_bias;
/// let q = quantize_bias(&[1.0, -0.3], 0.5, &[0.25, 0.125])?;
/// assert_eq!(q.values, [8, -5]);
/// assert_eq!(q.scales, [0.125, 0.0625]);
/// assert!(quantize_bias(&[1e12], 0.5, &[0.25]).is_err());
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn quantize_bias(
    bias: &[f32],
    activation_scale: f32,
    weight_scales: &[f32],
) -> Result<QuantizedBias, CalibError> {
    check_scales(bias.len(), weight_scales)?;
    let mut out = QuantizedBias {
        values: Vec::with_capacity(bias.len()),
        scales: Vec::with_capacity(bias.len()),
    };
    for (channel, &b) in bias.iter().enumerate() {
        let scale = activation_scale * scale_of(weight_scales, channel);
        if !(scale.is_normal() && scale > 0.0) {
            return Err(CalibError::Setting {
                argument: "product of the scales",
                given: scale.into(),
                allowed: "positive, finite and not subnormal",
            });
        }
        check_finite("bias", b)?;
        let q = libm::rint(f64::from(b) / f64::from(scale));
        if q.abs() > f64::from(i32::MAX) {
            return Err(CalibError::Overflow {
                channel,
                bias: b,
                scale,
            });
        }
        out.values.push(q as i32); // an integer of at most 31 bits
        out.scales.push(scale);
    }
    Ok(out)
}

/// The smallest weight scales with which [`quantize_bias`] keeps every bias within
/// `±limit`, none below those given: what a weight is quantized with where its own scale is too
/// fine for its bias.
///
/// `S_w ← max(S_w, |b| / (limit · S_a))`, in the unit of the weights, and up by as many roundings as
/// it takes: that follows from `|rne(b / (S_a · S_w))| ≤ limit` (Jacob et al. 2018, arXiv
/// 1712.05877, §2.4, who fix the bias' scale and zero point; the remedy is this crate's, as that
/// of ONNX Runtime's `qdq_quantizer.py`, which adjusts weight scales for int32 biases).
///
/// A `limit` below `i32::MAX` leaves room for the products that the accumulator adds. One scale
/// for all channels is raised for the largest bias.
///
/// # Errors
///
/// [`CalibError::Setting`] for values that are not finite, scales that are not positive or a limit
/// that is not, [`CalibError::Mismatch`] for another number of scales.
///
/// ```
/// use qcalib::correct::bias_scale_floor;
/// let s = bias_scale_floor(&[8.0, 1.0], 0.5, &[0.25, 0.25], 32)?;
/// assert_eq!(s, [0.5, 0.25]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn bias_scale_floor(
    bias: &[f32],
    activation_scale: f32,
    weight_scales: &[f32],
    limit: i32,
) -> Result<Vec<f32>, CalibError> {
    check_scales(bias.len(), weight_scales)?;
    for &s in weight_scales.iter().chain([&activation_scale]) {
        if !(s > 0.0 && s.is_finite()) {
            return Err(CalibError::Setting {
                argument: "scale",
                given: s.into(),
                allowed: "positive and finite",
            });
        }
    }
    if limit <= 0 {
        return Err(CalibError::Setting {
            argument: "limit",
            given: limit.into(),
            allowed: "positive",
        });
    }
    let fits = |scale: f32, b: f32| {
        let product = activation_scale * scale;
        libm::rint(f64::from(b) / f64::from(product)).abs() <= f64::from(limit)
    };
    let mut scales = weight_scales.to_vec();
    for (channel, &b) in bias.iter().enumerate() {
        check_finite("bias", b)?;
        let at = if scales.len() == 1 { 0 } else { channel };
        let scale = &mut scales[at];
        if fits(*scale, b) {
            continue;
        }
        let least = f64::from(b).abs() / f64::from(limit) / f64::from(activation_scale);
        let mut raised = (least as f32).max(*scale);
        // Rounding of the scale and of the product: one step mostly, and ever larger ones where
        // the product is subnormal.
        let mut growth = f32::EPSILON;
        while raised.is_finite() && !fits(raised, b) {
            raised *= 1.0 + growth;
            growth *= 2.0;
        }
        if !raised.is_finite() || !(activation_scale * raised).is_finite() {
            return Err(CalibError::Setting {
                argument: "bias",
                given: b.into(),
                allowed: "such that some finite weight scale holds it",
            });
        }
        *scale = raised;
    }
    Ok(scales)
}

/// What a zero point `Z` of the left factor adds to an accumulator: `−Z · Σ_k w[n, k]` for every
/// output channel `n`; `weight` holds the quantized weights row-major, channels first.
///
/// Folded into the bias it makes `Σ q · w` equal `Σ (q − Z) · w` (Jacob et al. 2018, §2.3).
///
/// # Errors
///
/// [`CalibError::Length`] when the weights are not `channels × each`, [`CalibError::Overflow`] for
/// a sum beyond i32, [`CalibError::Memory`] for more channels without weights than fit.
///
/// ```
/// let s = qcalib::correct::zero_point_sums(&[1, -2, 3, 4], 2, 2, 10)?;
/// assert_eq!(s, [10, -70]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn zero_point_sums(
    weight: &[i8],
    channels: usize,
    each: usize,
    zero_point: i32,
) -> Result<Vec<i32>, CalibError> {
    check_len("weight", weight.len(), &[channels, each])?;
    if each == 0 {
        return filled("channels", channels, 0);
    }
    weight
        .chunks_exact(each)
        .enumerate()
        .map(|(channel, row)| {
            let sum: i64 = row.iter().map(|&w| i64::from(w)).sum();
            // A sum beyond i64 / i32 takes more weights than there is memory.
            let product = sum.saturating_mul(-i64::from(zero_point));
            i32::try_from(product).map_err(|_| CalibError::Overflow {
                channel,
                bias: product as f32,
                scale: 1.0,
            })
        })
        .collect()
}

fn scale_of(scales: &[f32], channel: usize) -> f32 {
    scales[if scales.len() == 1 { 0 } else { channel }]
}

fn check_scales(channels: usize, scales: &[f32]) -> Result<(), CalibError> {
    if scales.len() == 1 || scales.len() == channels {
        return Ok(());
    }
    Err(CalibError::Mismatch {
        what: "number of weight scales",
        given: scales.len().to_string(),
        expected: alloc::format!("1 or {channels}"),
    })
}

fn check_finite(argument: &'static str, x: f32) -> Result<(), CalibError> {
    if x.is_finite() {
        return Ok(());
    }
    Err(CalibError::Setting {
        argument,
        given: x.into(),
        allowed: "finite",
    })
}
