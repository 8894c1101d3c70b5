//! Convolutions of bytes, as products of patches by filters, channels last.
//!
//! With channels last a patch is a few runs of neighbouring bytes, and the product of a block of
//! patches by the filters is a block of the output as it lies in memory. Inputs with channels
//! first are turned around at the door.

use std::ops::Range;

use qkernels::{Isa, Layout, Lhs, MatRef, ZeroPoint};

use super::{Finish, Place, Weights, multiply, result_buffer, weights::signed};
use crate::ops::conv::{ConvShape, copy_short};
use crate::ops::{RunContext, transpose::permute};
use crate::{ModelError, Tensor, TensorData, TensorElement};

/// Bytes of one block of patches: a part of the second-level cache.
const BLOCK: usize = 256 * 1024;

/// The filters of one convolution: one packed matrix for each group.
#[derive(Debug)]
pub(crate) struct Filters {
    groups: Vec<Weights>,
    /// Of the filter tensor: `[filters, channels of a group, kernel…]`.
    pub(crate) shape: Vec<usize>,
}

impl Filters {
    /// Packs filters. `zero` holds one zero point, one for each filter, or none.
    pub(crate) fn pack(
        isa: Isa,
        w: &Tensor,
        groups: usize,
        zero: &[i32],
    ) -> Result<Filters, ModelError> {
        let [all, channels, kernel @ ..] = w.shape() else {
            return Err(ModelError::operand(
                "weights",
                format!("{:?}", w.shape()),
                "rank 3 or 4",
            ));
        };
        if groups > (*all).max(1) || !all.is_multiple_of(groups) {
            return Err(ModelError::operand(
                "weights",
                format!("{:?}", w.shape()),
                format!("filters divisible by group {groups}"),
            ));
        }
        let taps: usize = kernel.iter().product();
        let (data, shift) = signed(w)?;
        // Rows stay filters; inside a row channels move behind the taps.
        let mut turned = vec![0i8; data.len()];
        permute(&data, &[*all, *channels, taps], &[0, 2, 1], &mut turned);
        let filters = all / groups;
        let depth = taps * channels;
        let pack = |g: usize| {
            let rows = &turned[g * filters * depth..(g + 1) * filters * depth];
            let zero = match zero {
                [] | [_] => zero,
                z => z.get(g * filters..(g + 1) * filters).ok_or_else(|| {
                    ModelError::operand(
                        "zero points of the weights",
                        format!("{} elements", z.len()),
                        format!("one, or one for each of {all} filters"),
                    )
                })?,
            };
            Weights::pack(isa, rows, (depth, filters), Layout::Transposed, zero, shift)
        };
        let groups = (0..groups).map(pack).collect::<Result<_, ModelError>>()?;
        Ok(Filters {
            groups,
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
        return blocks(cx, x, zero, filters, s, finish, out);
    }
    let dims = [s.batch, s.group * s.channels, s.input_pixels()];
    let mut turned = cx.scratch::<A>(&dims)?;
    permute(x, &dims, &[0, 2, 1], &mut turned);
    blocks(cx, &turned, zero, filters, s, finish, out)?;
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

/// The convolution of `x` (channels last) into `out` (channels last), a block of output pixels,
/// over the whole batch, at a time.
fn blocks<A: Lhs + TensorElement>(
    cx: &mut RunContext<'_>,
    x: &[A],
    zero: A,
    filters: &Filters,
    s: &ConvShape,
    finish: &Finish,
    out: &mut TensorData,
) -> Result<(), ModelError> {
    let (depth, pixels) = (s.depth(), s.batch * s.output_pixels());
    let stride = s.group * s.filters;
    let a_zero = ZeroPoint::Tensor(qformat::QuantElement::to_i32(zero));
    if s.is_pointwise() {
        let channels = s.group * s.channels;
        for (g, weights) in filters.groups.iter().enumerate() {
            let from = x.get(g * s.channels..).unwrap_or_default();
            let a = MatRef::with_stride(from, pixels, depth, channels)?;
            let place = Place {
                offset: g * s.filters,
                stride,
            };
            let own = (finish, g * s.filters..(g + 1) * s.filters);
            multiply(cx, a, a_zero, weights, own, out, place)?;
        }
        return Ok(());
    }
    let rows = (BLOCK / depth.max(1)).clamp(32, 8192).min(pixels);
    let mut patches = cx.scratch::<A>(&[rows, depth])?;
    for (g, weights) in filters.groups.iter().enumerate() {
        let own = g * s.filters..(g + 1) * s.filters;
        let mut start = 0;
        while start < pixels {
            let n = rows.min(pixels - start);
            let block = &mut patches[..n * depth];
            gather(x, s, g, start..start + n, zero, block);
            let a = MatRef::new(&*block, n, depth)?;
            let place = Place {
                offset: start * stride + own.start,
                stride,
            };
            multiply(cx, a, a_zero, weights, (finish, own.clone()), out, place)?;
            start += n;
        }
    }
    cx.pool.give_vec(patches);
    Ok(())
}

/// Copies the patches of output pixels (counted over the batch) into rows, taps in order and the
/// channels of group `g` behind each other in each; padding is `zero`.
fn gather<A: Copy>(x: &[A], s: &ConvShape, g: usize, pixels: Range<usize>, zero: A, out: &mut [A]) {
    let [y, c] = s.axes;
    let all = s.group * s.channels;
    let image = s.input_pixels() * all;
    // Which taps of a line are inside, for each output column.
    let columns: Vec<(Range<usize>, usize)> = (0..c.output).map(|ox| c.inside(ox)).collect();
    let mut rows = out.chunks_exact_mut(s.depth().max(1));
    let mut p = pixels.start;
    while p < pixels.end {
        // One line of output pixels, or what the block has of it.
        let (n, oy, first) = (p / s.output_pixels(), p / c.output % y.output, p % c.output);
        let (ky, first_row) = y.inside(oy);
        let line = Line {
            x: &x[(n * image + g * s.channels).min(x.len())..],
            row: first_row * c.input * all,
            row_step: y.dilation * c.input * all,
            all,
            channels: s.channels,
            tap_step: c.dilation * all,
            taps: c.kernel,
            lines: ky,
        };
        let end = c.output.min(first + pixels.end - p);
        for ((kx, col), row) in columns[first..end].iter().zip(&mut rows) {
            line.patch(kx, *col, zero, row);
        }
        p += end - first;
    }
}

/// Where the patches of one line of output pixels come from.
struct Line<'a, A> {
    /// The image, from the first channel of the group on.
    x: &'a [A],
    /// Index of the first input row that is inside, and the distance to the next.
    row: usize,
    row_step: usize,
    /// Channels of the image, and of the group.
    all: usize,
    channels: usize,
    /// From tap to tap.
    tap_step: usize,
    taps: usize,
    /// Lines of taps that are inside.
    lines: Range<usize>,
}

impl<A: Copy> Line<'_, A> {
    /// Copies one patch: of each line of taps those of `kx`, from input column `col` on.
    #[inline]
    fn patch(&self, kx: &Range<usize>, col: usize, zero: A, out: &mut [A]) {
        let length = self.taps * self.channels;
        let whole = kx.len() == self.taps;
        if !whole || self.lines.len() * length != out.len() {
            out.fill(zero);
        }
        if kx.is_empty() {
            return;
        }
        let inside = &mut out[self.lines.start * length..self.lines.end * length];
        let mut from = self.row + col * self.all;
        // Neighbouring taps may be neighbouring bytes.
        let dense = self.tap_step == self.channels;
        for taps in inside.chunks_exact_mut(length) {
            let taps = &mut taps[kx.start * self.channels..kx.end * self.channels];
            if dense {
                copy_short(&self.x[from..from + taps.len()], taps);
            } else {
                for (j, tap) in taps.chunks_exact_mut(self.channels).enumerate() {
                    let from = from + j * self.tap_step;
                    copy_short(&self.x[from..from + self.channels], tap);
                }
            }
            from += self.row_step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv::tests::shapes;

    #[test]
    fn a_block_of_patches_is_a_part_of_all_of_them() {
        for s in shapes() {
            let [y, x] = s.axes;
            let all = s.group * s.channels;
            let pixels = s.batch * s.output_pixels();
            let depth = s.depth();
            let input: Vec<u16> = (1..).take(s.batch * s.input_pixels() * all).collect();
            for g in 0..s.group {
                // By definition, one element at a time.
                let mut whole = vec![7u16; pixels * depth];
                for (i, v) in whole.iter_mut().enumerate() {
                    let (p, k) = (i / depth, i % depth);
                    let (n, q) = (p / s.output_pixels(), p % s.output_pixels());
                    let (tap, c) = (k / s.channels, k % s.channels);
                    let iy = (q / x.output * y.stride + tap / x.kernel * y.dilation)
                        .wrapping_sub(y.before);
                    let ix = (q % x.output * x.stride + tap % x.kernel * x.dilation)
                        .wrapping_sub(x.before);
                    if iy < y.input && ix < x.input {
                        let at = (n * y.input + iy) * x.input + ix;
                        *v = input[at * all + g * s.channels + c];
                    }
                }
                for start in 0..pixels {
                    for end in start + 1..=pixels {
                        let mut block = vec![9u16; (end - start) * depth];
                        gather(&input, &s, g, start..end, 7, &mut block);
                        assert_eq!(
                            block,
                            whole[start * depth..end * depth],
                            "{s:?} {start}..{end}"
                        );
                    }
                }
            }
        }
    }
}
