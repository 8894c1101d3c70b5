//! `Conv`, 1-D and 2-D: for each image and group, `W[OC × K] · columns[K × pixels]`, the columns
//! being the input's patches, a tile of pixels at a time so that they stay in the cache.

use super::window::{Axis, Window};
use super::{Facts, Inputs, Operator, RunContext, Spec, operand_name};
use crate::product::{Operand, multiply};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

/// Elements of one tile of columns: half of a typical second-level cache.
const TILE: usize = 128 * 1024;

/// What every form of convolution reads from its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConvAttributes {
    pub(crate) window: Window,
    pub(crate) group: usize,
}

/// The attributes that every form of convolution has.
pub(crate) const ATTRIBUTES: &[&str] = &[
    "auto_pad",
    "dilations",
    "group",
    "kernel_shape",
    "pads",
    "strides",
];

/// The sizes of one convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvShape {
    pub(crate) batch: usize,
    pub(crate) group: usize,
    /// Input channels of a group.
    pub(crate) channels: usize,
    /// Output channels of a group.
    pub(crate) filters: usize,
    /// Rows and columns.
    pub(crate) axes: [Axis; 2],
}

impl ConvShape {
    /// Products in a sum.
    pub(crate) fn depth(&self) -> usize {
        self.channels * self.axes[0].kernel * self.axes[1].kernel
    }

    pub(crate) fn output_pixels(&self) -> usize {
        self.axes[0].output * self.axes[1].output
    }

    pub(crate) fn input_pixels(&self) -> usize {
        self.axes[0].input * self.axes[1].input
    }

    /// The same for the kernels.
    pub(crate) fn window(&self) -> qkernels::ConvShape {
        let [y, x] = self.axes;
        qkernels::ConvShape {
            input: [self.batch, y.input, x.input],
            kernel: [y.kernel, x.kernel],
            strides: [y.stride, x.stride],
            dilations: [y.dilation, x.dilation],
            pads: [y.before, x.before, y.after, x.after],
        }
    }

    /// Whether the columns are the input itself.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.axes
            .iter()
            .all(|a| a.kernel == 1 && a.stride == 1 && a.before == 0 && a.after == 0)
    }
}

impl ConvAttributes {
    pub(crate) fn read(spec: &Spec<'_>) -> Result<ConvAttributes, ModelError> {
        let group = usize::try_from(spec.int_or("group", 1)?)
            .ok()
            .filter(|&g| g > 0)
            .ok_or_else(|| spec.refuse("group", "at least 1"))?;
        Ok(ConvAttributes {
            window: Window::read(spec, false)?,
            group,
        })
    }

    /// Output dimensions from those of the input (operand `xi`) and the weights (operand `wi`).
    pub(crate) fn output_dims(
        &self,
        x: Option<&[Dim]>,
        w: Option<&[Dim]>,
        (xi, wi): (usize, usize),
    ) -> Result<Option<Vec<Dim>>, ModelError> {
        let (Some(x), Some(w)) = (x, w) else {
            return Ok(None);
        };
        let show = crate::graph::show_dims;
        if !(3..=4).contains(&x.len()) || w.len() != x.len() {
            return Err(ModelError::operand(
                format!("{} and {}", operand_name(xi), operand_name(wi)),
                format!("{} and {}", show(x), show(w)),
                "both of rank 3, or both of rank 4",
            ));
        }
        if let (Some(c), Some(per_group)) = (x[1].known(), w[1].known())
            && per_group.checked_mul(self.group) != Some(c)
        {
            return Err(ModelError::operand(
                operand_name(wi),
                show(w),
                format!("{c} input channels in {} groups", self.group),
            ));
        }
        if let Some(filters) = w[0].known()
            && filters % self.group != 0
        {
            return Err(ModelError::operand(
                operand_name(wi),
                show(w),
                format!("filters divisible by group {}", self.group),
            ));
        }
        let mut out = vec![x[0].clone(), w[0].clone()];
        match super::known_shape(&w[2..]) {
            Some(kernel) => out.extend(self.window.output_dims(&x[2..], &kernel)?),
            None => out.extend(vec![Dim::Unknown; x.len() - 2]),
        }
        Ok(Some(out))
    }

    /// The sizes for a concrete input and weights, which [`output_dims`](Self::output_dims) has
    /// accepted.
    pub(crate) fn shape(&self, x: &[usize], w: &[usize]) -> Result<ConvShape, ModelError> {
        Ok(ConvShape {
            batch: x[0],
            group: self.group,
            channels: w[1],
            filters: w[0] / self.group,
            axes: self.window.two_axes(&x[2..], &w[2..])?,
        })
    }
}

/// Copies patches of one group's input planes (`[channels, rows, columns]`) into columns:
/// element `(c, ky, kx)` of the patch of output pixel `p` goes to
/// `out[((c · KH + ky) · KW + kx) · pixels.len() + p − pixels.start]`; padding becomes `pad`.
pub(crate) fn im2col<T: Copy>(
    input: &[T],
    shape: &ConvShape,
    pixels: std::ops::Range<usize>,
    pad: T,
    out: &mut [T],
) {
    let [y, x] = shape.axes;
    let tile = pixels.len();
    let mut rows = out.chunks_exact_mut(tile.max(1));
    for plane in input
        .chunks_exact(shape.input_pixels().max(1))
        .take(shape.channels)
    {
        for ky in 0..y.kernel {
            for kx in 0..x.kernel {
                let Some(row) = rows.next() else { return };
                fill_row(plane, (y, ky), (x, kx), pixels.clone(), pad, row);
            }
        }
    }
}

/// One row of columns: the same kernel tap for every output pixel of the tile.
fn fill_row<T: Copy>(
    plane: &[T],
    (y, ky): (Axis, usize),
    (x, kx): (Axis, usize),
    pixels: std::ops::Range<usize>,
    pad: T,
    row: &mut [T],
) {
    // Output columns whose tap is inside the input: out·stride + shift in [before, before + input).
    let shift = kx * x.dilation;
    let first = x
        .before
        .saturating_sub(shift)
        .div_ceil(x.stride)
        .min(x.output);
    let end = (x.input + x.before)
        .saturating_sub(shift)
        .div_ceil(x.stride)
        .clamp(first, x.output);
    if x.stride == 1 && y.stride == 1 && x.output == x.input {
        return fill_shifted(plane, (y, ky), (x, kx), first..end, pixels, pad, row);
    }
    let mut p = pixels.start;
    while p < pixels.end {
        let (oy, ox) = (p / x.output, p % x.output);
        let n = (x.output - ox).min(pixels.end - p);
        let dst = &mut row[p - pixels.start..p - pixels.start + n];
        let iy = (oy * y.stride + ky * y.dilation).wrapping_sub(y.before);
        if iy < y.input {
            let (lo, hi) = (first.clamp(ox, ox + n), end.clamp(ox, ox + n));
            dst[..lo - ox].fill(pad);
            dst[hi - ox..].fill(pad);
            if lo < hi {
                let from = iy * x.input + lo * x.stride + shift - x.before;
                if x.stride == 1 {
                    copy_short(&plane[from..from + hi - lo], &mut dst[lo - ox..hi - ox]);
                } else {
                    let src = plane[from..].iter().step_by(x.stride);
                    for (d, &s) in dst[lo - ox..hi - ox].iter_mut().zip(src) {
                        *d = s;
                    }
                }
            }
        } else {
            dst.fill(pad);
        }
        p += n;
    }
}

/// [`fill_row`] where output lines are as long as input lines and steps are 1: the row is the plane
/// moved by a constant distance, but for what comes from beyond its edges. `inside` are the
/// columns whose tap is inside the input.
fn fill_shifted<T: Copy>(
    plane: &[T],
    (y, ky): (Axis, usize),
    (x, kx): (Axis, usize),
    inside: std::ops::Range<usize>,
    pixels: std::ops::Range<usize>,
    pad: T,
    row: &mut [T],
) {
    let width = x.output;
    // Lines whose tap is inside the input.
    let top = y.before.saturating_sub(ky * y.dilation).min(y.output);
    let bottom = (y.input + y.before)
        .saturating_sub(ky * y.dilation)
        .clamp(top, y.output);
    let start = pixels.start;
    let low = (top * width).clamp(start, pixels.end);
    let high = (bottom * width).clamp(low, pixels.end);
    row[..low - start].fill(pad);
    row[high - start..].fill(pad);
    // Pixel p comes from p + forth − back; the first and last line may reach beyond the plane, in
    // columns that are padded below.
    let forth = ky * y.dilation * width + kx * x.dilation;
    let back = y.before * width + x.before;
    let from = low.max(back.saturating_sub(forth)).min(high);
    let to = (plane.len() + back).saturating_sub(forth).clamp(from, high);
    if from < to {
        // Then `from` is at least `back − forth`, and `to` at most where the plane ends.
        row[from - start..to - start]
            .copy_from_slice(&plane[from + forth - back..to + forth - back]);
    }
    if inside.len() == width {
        return;
    }
    let mut line = low - low % width;
    while line < high {
        for gap in [line..line + inside.start, line + inside.end..line + width] {
            let (a, b) = (gap.start.clamp(low, high), gap.end.clamp(low, high));
            row[a - start..b - start].fill(pad);
        }
        line += width;
    }
}

/// Copies a short run, to which a call of `memcpy` would add as much again; long ones go there.
#[inline]
fn copy_short<A: Copy>(from: &[A], to: &mut [A]) {
    const STEP: usize = 16;
    const LONG: usize = 512;
    let n = to.len();
    if n > LONG {
        to.copy_from_slice(from);
        return;
    }
    if n < STEP {
        for (t, &f) in to.iter_mut().zip(from) {
            *t = f;
        }
        return;
    }
    for (t, f) in to
        .as_chunks_mut::<STEP>()
        .0
        .iter_mut()
        .zip(from.as_chunks::<STEP>().0)
    {
        *t = *f;
    }
    // The last step once more, flush with the end.
    if let (Some(t), Some(f)) = (to.last_chunk_mut::<STEP>(), from.last_chunk::<STEP>()) {
        *t = *f;
    }
}

/// A float convolution.
pub(crate) struct Conv {
    attributes: ConvAttributes,
    /// Applied to the result: a fused Relu or Clip.
    clamp: Option<(f32, f32)>,
}

impl Conv {
    /// Reads a node; `clamp` is an activation that follows.
    pub(crate) fn new(spec: &Spec<'_>, clamp: Option<(f32, f32)>) -> Result<Conv, ModelError> {
        spec.check(2..=3, 1..=1, ATTRIBUTES)?;
        Ok(Conv {
            attributes: ConvAttributes::read(spec)?,
            clamp,
        })
    }
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Ok(Box::new(Conv::new(spec, None)?))
}

impl Operator for Conv {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.element(0, &[ElementType::F32])?;
        inputs.same_element(1)?;
        inputs.same_element(2)?;
        let w = inputs.dims(1)?;
        let shape = self.attributes.output_dims(inputs.dims(0)?, w, (0, 1))?;
        if let Some(w) = w.filter(|w| !w.is_empty()) {
            inputs.length(2, &w[0])?;
        }
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let (x, w) = (inputs.get(0)?, inputs.get(1)?);
        let s = self.attributes.shape(x.shape(), w.shape())?;
        let (x, w) = (inputs.slice::<f32>(0)?, inputs.slice::<f32>(1)?);
        let bias = inputs.optional_slice::<f32>(2)?;
        let mut out = cx.scratch::<f32>(&shapes[0])?;
        let (depth, pixels) = (s.depth(), s.output_pixels());
        let tile = (TILE / depth.max(1)).clamp(64, 4096).min(pixels);
        let mut columns = if s.is_pointwise() {
            Vec::new()
        } else {
            cx.scratch::<f32>(&[depth, tile])?
        };
        // Nothing to compute, however many images without pixels or filters there are.
        let groups = if out.is_empty() { 0 } else { s.batch * s.group };
        for i in 0..groups {
            let g = i % s.group;
            let plane = s.channels * s.input_pixels();
            let input = &x[i * plane..(i + 1) * plane];
            let filters = &w[g * s.filters * depth..(g + 1) * s.filters * depth];
            let output = &mut out[i * s.filters * pixels..(i + 1) * s.filters * pixels];
            let mut start = 0;
            while start < pixels {
                let n = tile.min(pixels - start);
                let right = if s.is_pointwise() {
                    Operand::rows(input.get(start..).unwrap_or_default(), pixels)
                } else {
                    im2col(input, &s, start..start + n, 0.0, &mut columns[..depth * n]);
                    Operand::rows(&columns, n)
                };
                multiply(
                    (s.filters, depth, n),
                    1.0,
                    Operand::rows(filters, depth),
                    right,
                    &mut output[start..],
                    pixels,
                    false,
                    cx.threads,
                );
                start += n;
            }
            let bias = bias.map(|b| &b[g * s.filters..(g + 1) * s.filters]);
            finish(output, pixels, bias, self.clamp);
        }
        cx.pool.give_vec(columns);
        Ok(vec![cx.tensor(&shapes[0], out)?])
    }
}

/// Adds a bias to each plane and clamps; one pass while the planes are in the cache.
fn finish(out: &mut [f32], pixels: usize, bias: Option<&[f32]>, clamp: Option<(f32, f32)>) {
    if pixels == 0 {
        return;
    }
    for (i, plane) in out.chunks_exact_mut(pixels).enumerate() {
        let b = bias.map_or(0.0, |b| b[i]);
        match clamp {
            Some((low, high)) => {
                for v in plane {
                    *v = clamp_keeping_nan(*v + b, low, high);
                }
            }
            None if bias.is_some() => {
                for v in plane {
                    *v += b;
                }
            }
            None => return,
        }
    }
}

/// `min(max(x, low), high)`; NaN stays.
#[inline]
pub(crate) fn clamp_keeping_nan(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shapes of every kind: same lines, strides, dilations, windows wholly in the padding.
    fn shapes() -> Vec<ConvShape> {
        let mut shapes = Vec::new();
        for (kernel, stride, dilation, before, after) in [
            (3, 1, 1, 1, 1),
            (3, 1, 2, 2, 2),
            (2, 1, 1, 0, 1),
            (1, 1, 1, 0, 0),
            (3, 2, 1, 1, 0),
            (2, 1, 3, 4, 4),
            (1, 3, 1, 3, 3),
        ] {
            let axis = |input: usize| Axis {
                input,
                output: (input + before + after - (kernel - 1) * dilation - 1) / stride + 1,
                kernel,
                stride,
                dilation,
                before,
                after,
            };
            for group in [1, 2] {
                let axes = [axis(5), axis(4)];
                shapes.push(ConvShape {
                    batch: 2,
                    group,
                    channels: 2,
                    filters: 1,
                    axes,
                });
            }
        }
        shapes
    }

    #[test]
    fn a_tile_of_columns_is_a_part_of_all_of_them() {
        for s in shapes() {
            let input: Vec<u16> = (1..).take(s.channels * s.input_pixels()).collect();
            let (pixels, depth) = (s.output_pixels(), s.depth());
            let [y, x] = s.axes;
            // By definition, one element at a time.
            let mut all = vec![0u16; depth * pixels];
            for (i, v) in all.iter_mut().enumerate() {
                let (k, p) = (i / pixels, i % pixels);
                let (c, ky, kx) = (
                    k / y.kernel / x.kernel,
                    k / x.kernel % y.kernel,
                    k % x.kernel,
                );
                let iy = (p / x.output * y.stride + ky * y.dilation).wrapping_sub(y.before);
                let ix = (p % x.output * x.stride + kx * x.dilation).wrapping_sub(x.before);
                if iy < y.input && ix < x.input {
                    *v = input[(c * y.input + iy) * x.input + ix];
                }
            }
            for start in 0..pixels {
                for end in start + 1..=pixels {
                    let n = end - start;
                    let mut tile = vec![9u16; depth * n];
                    im2col(&input, &s, start..end, 0, &mut tile);
                    for k in 0..depth {
                        let whole = &all[k * pixels + start..k * pixels + end];
                        assert_eq!(&tile[k * n..(k + 1) * n], whole, "{s:?} {start}..{end}");
                    }
                }
            }
        }
    }
}
