//! The mean error of quantized weights, taken off the bias.

use alloc::vec::Vec;
use qformat::granularity::element_count;

use crate::CalibError;
use crate::layout::check_len;
use crate::room::reserve;

/// A bias whose layer has the same mean output with quantized weights as with its own:
/// `b − Σ_k (w̃ − w)[n, k] · E[x_k]` (Nagel et al. 2019, *Data-free quantization*, arXiv
/// 1906.04721, §4.2; the empirical form, with observed means).
///
/// `weight` and `quantized` (dequantized again) are row-major `channels × inputs × area`: `area` is
/// 1 for a matrix and the number of a kernel's positions for a convolution, whose input channels
/// have one mean each (borders, where padding lowers it, are left out of account). `input_means`
/// are means of the layer's **input** in the float model, one an input channel, in its unit; a
/// moments observer per channel has them. A missing bias is one of zeros. Sums are f64.
///
/// # Errors
///
/// [`CalibError::Length`] when slices do not have these sizes, [`CalibError::Format`] for a shape
/// that overflows, [`CalibError::Memory`] for more channels without weights than fit.
///
/// ```
/// use qcalib::correct::bias_correction;
/// // One output, two inputs: 1.1 was rounded to 1.0, and its input is 10 on average.
/// let b = bias_correction(&[1.1, 2.0], &[1.0, 2.0], [1, 2, 1], &[10.0, 5.0], None)?;
/// assert!((b[0] - 1.0).abs() < 1e-5);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn bias_correction(
    weight: &[f32],
    quantized: &[f32],
    [channels, inputs, area]: [usize; 3],
    input_means: &[f32],
    bias: Option<&[f32]>,
) -> Result<Vec<f32>, CalibError> {
    let shape = [channels, inputs, area];
    check_len("weight", weight.len(), &shape)?;
    check_len("quantized", quantized.len(), &shape)?;
    check_len("input_means", input_means.len(), &[inputs])?;
    if let Some(bias) = bias {
        check_len("bias", bias.len(), &[channels])?;
    }
    // With no channels, the rest of the shape may be of any size.
    let each = element_count(&[inputs, area])?;
    let mut corrected = Vec::new();
    reserve(&mut corrected, "channels", channels)?;
    corrected.extend((0..channels).map(|c| {
        let row = c * each..(c + 1) * each;
        let pairs = weight[row.clone()].iter().zip(&quantized[row]);
        let error: f64 = pairs
            .enumerate()
            .map(|(k, (&w, &q))| (f64::from(q) - f64::from(w)) * f64::from(input_means[k / area]))
            .sum();
        (bias.map_or(0.0, |b| f64::from(b[c])) - error) as f32
    }));
    Ok(corrected)
}
