//! Operators that join candle's automatic differentiation as custom operators.
//!
//! | operator | forward | backward |
//! |---|---|---|
//! | [`FakeQuantize`] | quantize and dequantize with fixed scales | straight through, clipped values masked |
//! | [`LearnedStep`] | the same, with scales that are an input | LSQ: values and scales |
//! | [`Patches`] | the windows of a convolution as rows of a matrix | sums of overlapping windows |
//! | [`MaxPool`] | largest values of windows | to the first of the largest values |
//!
//! Images have their channels last, `[N, H, W, C]`: then patches are copies of whole runs, and the
//! product of patches and filters is the next image without any turning.
//!
//! Pooling is here because the backward of candle's own multiplies gradients by the share of a
//! window that is at its maximum (a quarter for 2 × 2 without ties), and cannot have a border that
//! no window covers.

mod fake_quantize;
mod max_pool;
mod patches;

pub use fake_quantize::{FakeQuantize, LearnedStep};
pub use max_pool::MaxPool;
pub use patches::Patches;

use candle_core::{CpuStorage, Device, Error, Layout, Result, Storage, Tensor};

/// The elements of a contiguous operand.
fn operand<'a>(s: &'a CpuStorage, layout: &Layout, op: &'static str) -> Result<&'a [f32]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::RequiresContiguous { op }.bt())?;
    Ok(&s.as_slice::<f32>()?[start..end])
}

/// Calls `f` with the elements of a tensor in row-major order.
pub(crate) fn read<R>(t: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(s) => f(operand(s, layout, "read")?),
        _ => Err(Error::Msg("tensors must be in main memory".to_owned())),
    }
}

/// A tensor in main memory.
pub(crate) fn tensor(values: Vec<f32>, dims: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, dims, &Device::Cpu)
}

/// The four dimensions of an image with its channels last.
fn image(op: &'static str, layout: &Layout) -> Result<[usize; 4]> {
    match *layout.dims() {
        [n, h, w, c] => Ok([n, h, w, c]),
        ref other => Err(Error::Msg(format!(
            "{op}: shape {other:?} given, [N, H, W, C] expected"
        ))),
    }
}
