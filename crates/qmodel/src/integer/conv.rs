//! Convolutions of bytes, channels last.
//!
//! With channels last a window is a few runs of neighbouring bytes, and the kernels read them from
//! the image itself. Inputs with channels first are turned around at the door.

use qkernels::{
    FilterLayout, Image, Isa, Layout, Lhs, MatRef, PackedConv, PackedDepthwise, ZeroPoint,
    ZeroPoints,
};

use super::weights::{Zero, signed};
use super::{Finish, Place, Weights, multiply, result_buffer};
use crate::ops::conv::{ConvAttributes, ConvShape};
use crate::ops::{RunContext, transpose::permute};
use crate::{ModelError, Tensor, TensorData, TensorElement};

/// The filters of one convolution, packed for the kernel that runs it.
#[derive(Debug)]
pub(crate) struct Filters {
    form: Form,
    /// Of the filter tensor: `[filters, channels of a group, kernel…]`.
    pub(crate) shape: Vec<usize>,
}

#[derive(Debug)]
enum Form {
    /// Every channel has a filter of its own.
    Depthwise(PackedDepthwise, Zero),
    /// Windows are single pixels, each of which is seen once: one product for each group.
    Gemm(Vec<Weights>),
    /// Anything else.
    Conv(PackedConv, Zero),
}

/// Largest product of a window's width in pixels and its taps for which the depthwise kernel is
/// taken: its scratch memory grows with both, and windows of real models are far smaller.
const MOST_DEPTHWISE: usize = 1 << 16;

impl Filters {
    /// Packs filters. `zero` holds one zero point, one for each filter, or none.
    pub(crate) fn pack(
        isa: Isa,
        w: &Tensor,
        attributes: &ConvAttributes,
        zero: &[i32],
    ) -> Result<Filters, ModelError> {
        let (all, channels, kernel, taps) = match w.shape() {
            [all, channels, kernel @ ..] if matches!(kernel.len(), 1..=2) => {
                let two = match *kernel {
                    [height, width] => [height, width],
                    _ => [1, kernel[0]],
                };
                (*all, *channels, kernel, two)
            }
            other => {
                return Err(ModelError::operand(
                    "weights",
                    format!("{other:?}"),
                    "rank 3 or 4",
                ));
            }
        };
        let groups = attributes.group;
        let (data, shift) = signed(w)?;
        // Each group takes memory, but without a weight any number of filters may be claimed.
        let most = if data.is_empty() { 1 } else { all };
        if groups > most || !all.is_multiple_of(groups) {
            return Err(ModelError::operand(
                "weights",
                format!("{:?}", w.shape()),
                format!("filters divisible by group {groups}"),
            ));
        }
        let zeros = Zero::new(zero, all, shift)?;
        let [height, width] = taps;
        let is_small = attributes
            .window
            .extent(kernel.len() - 1, width)
            .and_then(|extent| extent.checked_mul(height)?.checked_mul(width))
            .is_some_and(|product| product <= MOST_DEPTHWISE);
        let form = if channels == 1 && all == groups && is_small {
            let rows = MatRef::new(&data, all, height * width)?;
            let packed = PackedDepthwise::pack(isa, taps, rows, Layout::Transposed)?;
            Form::Depthwise(packed, zeros)
        } else if attributes.window.is_pointwise(kernel) {
            let filters = all / groups;
            let pack = |g: usize| {
                let own = g * filters..(g + 1) * filters;
                let rows = &data[own.start * channels..own.end * channels];
                let zero = if zero.len() > 1 { &zero[own] } else { zero };
                let size = (channels, filters);
                Weights::pack(isa, rows, size, Layout::Transposed, zero, shift)
            };
            Form::Gemm((0..groups).map(pack).collect::<Result<_, ModelError>>()?)
        } else {
            let shape = [all, channels, height, width];
            let packed = PackedConv::pack(isa, &data, shape, FilterLayout::Oihw, groups)?;
            Form::Conv(packed, zeros)
        };
        Ok(Filters {
            form,
            shape: w.shape().to_vec(),
        })
    }
}

/// Where channels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channels {
    /// `[N, C, …]`, as ONNX has it.
    First,
    /// `[N, …, C]`.
    Last,
}

/// Runs a convolution of bytes; `shape` is the output's, with channels where `after` says.
pub(crate) fn convolve(
    cx: &mut RunContext<'_>,
    (x, before): (&Tensor, Channels),
    x_zero: i32,
    filters: &Filters,
    s: &ConvShape,
    finish: &Finish,
    (shape, after): (&[usize], Channels),
) -> Result<Tensor, ModelError> {
    finish.check(s.group * s.filters)?;
    let mut out = result_buffer(cx, finish.output, shape)?;
    match x.data() {
        TensorData::U8(v) => {
            // A zero point that is no u8 cannot be padded with.
            let zero = u8::try_from(x_zero).map_err(|_| bad_zero(x_zero))?;
            with_channels_last(cx, v, before, zero, filters, s, finish, &mut out)?;
        }
        TensorData::I8(v) => {
            let zero = i8::try_from(x_zero).map_err(|_| bad_zero(x_zero))?;
            with_channels_last(cx, v, before, zero, filters, s, finish, &mut out)?;
        }
        other => {
            return Err(ModelError::operand_type(
                "input 0",
                other.element_type(),
                "u8 or i8",
            ));
        }
    }
    let out = match after {
        Channels::Last => out,
        Channels::First => {
            let dims = [s.batch, s.output_pixels(), s.group * s.filters];
            turn(cx, out, &dims)?
        }
    };
    Tensor::named("", shape, out)
}

fn bad_zero(zero: i32) -> ModelError {
    ModelError::operand(
        "zero point of the input",
        zero.to_string(),
        "a value of its type",
    )
}

#[allow(clippy::too_many_arguments)] // The parts of one call, for either element type.
fn with_channels_last<A: Lhs + TensorElement>(
    cx: &mut RunContext<'_>,
    x: &[A],
    before: Channels,
    zero: A,
    filters: &Filters,
    s: &ConvShape,
    finish: &Finish,
    out: &mut TensorData,
) -> Result<(), ModelError> {
    // One channel, or one pixel, is the same either way.
    if before == Channels::Last || s.group * s.channels == 1 || s.input_pixels() == 1 {
        return last_to_last(cx, x, zero, filters, s, finish, out);
    }
    let dims = [s.batch, s.group * s.channels, s.input_pixels()];
    let mut turned = cx.scratch::<A>(&dims)?;
    permute(x, &dims, &[0, 2, 1], &mut turned);
    last_to_last(cx, &turned, zero, filters, s, finish, out)?;
    cx.pool.give_vec(turned);
    Ok(())
}

/// `[a, b, c]` as `[a, c, b]`.
pub(crate) fn turn(
    cx: &mut RunContext<'_>,
    data: TensorData,
    dims: &[usize; 3],
) -> Result<TensorData, ModelError> {
    fn go<T: TensorElement>(
        cx: &mut RunContext<'_>,
        v: Vec<T>,
        dims: &[usize; 3],
    ) -> Result<TensorData, ModelError> {
        let mut out = cx.scratch::<T>(dims)?;
        permute(&v, dims, &[0, 2, 1], &mut out);
        cx.pool.give_vec(v);
        Ok(T::wrap(out))
    }
    if dims[1] == 1 || dims[2] == 1 {
        return Ok(data);
    }
    match data {
        TensorData::I32(v) => go(cx, v, dims),
        TensorData::F32(v) => go(cx, v, dims),
        TensorData::U8(v) => go(cx, v, dims),
        TensorData::I8(v) => go(cx, v, dims),
        other => Err(ModelError::operand_type(
            "input 0",
            other.element_type(),
            "i32, f32, u8 or i8",
        )),
    }
}

/// The convolution of `x` (channels last) into `out` (channels last).
fn last_to_last<A: Lhs>(
    cx: &mut RunContext<'_>,
    x: &[A],
    zero: A,
    filters: &Filters,
    s: &ConvShape,
    finish: &Finish,
    out: &mut TensorData,
) -> Result<(), ModelError> {
    let (channels, columns) = (s.group * s.channels, s.group * s.filters);
    let (pixels, rows) = (s.batch * s.input_pixels(), s.batch * s.output_pixels());
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    let a = ZeroPoint::Tensor(qformat::QuantElement::to_i32(zero));
    let place = |offset| Place {
        offset,
        stride: columns,
    };
    let zero_points = |b| ZeroPoints { a, b };
    match &filters.form {
        Form::Gemm(groups) => {
            for (g, weights) in groups.iter().enumerate() {
                let from = x.get(g * s.channels..).unwrap_or_default();
                let x = MatRef::with_stride(from, pixels, s.channels, channels)?;
                let own = g * s.filters..(g + 1) * s.filters;
                let to = place(own.start);
                multiply(cx, x, a, weights, (finish, own), out, to)?;
            }
        }
        Form::Depthwise(weights, zero) => qkernels::depthwise(
            MatRef::new(x, pixels, channels)?,
            &s.window(),
            weights,
            zero_points(zero.point()),
            &finish.epilogue(0..columns),
            finish.results(out, (rows, columns), place(0))?,
            cx.workspace,
            cx.threads,
        )?,
        Form::Conv(weights, zero) => qkernels::conv2d(
            Image::ChannelsLast(MatRef::new(x, pixels, channels)?),
            &s.window(),
            weights,
            zero_points(zero.point()),
            &finish.epilogue(0..columns),
            finish.results(out, (rows, columns), place(0))?,
            cx.workspace,
            cx.threads,
        )?,
    }
    Ok(())
}
