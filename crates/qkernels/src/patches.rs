//! Rows of patches, gathered from an image when a product needs them.
//!
//! Row `i` of the matrix that is never made belongs to an output pixel, and holds the channels of
//! every tap of its window, tap by tap. Taps in the padding hold the zero point. Where the taps of
//! a row of the kernel lie side by side in memory, they are one copy.

use core::ops::Range;

use qformat::DType;

use crate::conv_shape::Axis;
use crate::source::Gather;
use crate::{Lhs, MatRef};

/// An input of a convolution.
#[derive(Debug, Clone, Copy)]
pub enum Image<'a, T> {
    /// A row a pixel, a column a channel (NHWC). Rows may have a stride.
    ChannelsLast(MatRef<'a, T>),
    /// A row a channel of an image, a column a pixel (NCHW). Rows may have a stride.
    ChannelsFirst(MatRef<'a, T>),
}

/// The patches of an image.
pub(crate) struct Patches<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) dtype: DType,
    pub(crate) y: Axis,
    pub(crate) x: Axis,
    pub(crate) rows: usize,
    pub(crate) channels: usize,
    /// Elements from image to image, row to row, pixel to pixel and channel to channel.
    pub(crate) image: usize,
    pub(crate) row: usize,
    pub(crate) pixel: usize,
    pub(crate) channel: usize,
    /// The zero point.
    pub(crate) padding: u8,
}

impl<'a> Patches<'a> {
    /// Patches of some channels of an image that was checked to have the shape, `rows` in all.
    pub(crate) fn new<A: Lhs>(
        x: Image<'a, A>,
        y_axis: Axis,
        x_axis: Axis,
        rows: usize,
        channels: Range<usize>,
        zero_point: i32,
    ) -> Self {
        // Sizes that overflow are those of an image without channels, of which nothing is read.
        let pixels = y_axis.input.saturating_mul(x_axis.input);
        let (m, image, pixel, channel) = match x {
            Image::ChannelsLast(m) => {
                let stride = m.row_stride();
                (m, pixels.saturating_mul(stride), stride, 1)
            }
            Image::ChannelsFirst(m) => {
                // Images are as many as rows hold, all channels of one before the next.
                let images = rows / y_axis.output.saturating_mul(x_axis.output).max(1);
                let all = m.rows() / images.max(1);
                (m, all.saturating_mul(m.row_stride()), 1, m.row_stride())
            }
        };
        let data: &[u8] = bytemuck::cast_slice(m.data());
        Patches {
            data: data
                .get(channels.start.saturating_mul(channel)..)
                .unwrap_or_default(),
            dtype: A::DTYPE,
            y: y_axis,
            x: x_axis,
            rows,
            channels: channels.len(),
            image,
            row: x_axis.input.saturating_mul(pixel),
            pixel,
            channel,
            // The low byte is all of it: it was checked to be a value of the type.
            padding: zero_point as u8,
        }
    }

    /// How many taps from `kx` on lie in the image and side by side, at padded column `at`.
    #[inline(always)]
    fn side_by_side(&self, kx: usize, column: usize) -> usize {
        if self.channel == 1 && self.pixel == self.channels && self.x.dilation == 1 {
            (self.x.kernel - kx).min(self.x.input - column)
        } else {
            1
        }
    }
}

impl Gather for Patches<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn depth(&self) -> usize {
        self.y.kernel * self.x.kernel * self.channels
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn fill(&self, i: usize, k0: usize, out: &mut [u8]) {
        let (line, ox) = (i / self.x.output, i % self.x.output);
        let (image, oy) = (line / self.y.output, line % self.y.output);
        self.patch([image, oy, ox], k0, out);
    }

    fn patches(&self) -> Option<&Patches<'_>> {
        Some(self)
    }
}

impl Patches<'_> {
    /// Writes rows from `ks.start` to `ks.end`, `stride` apart, every byte flipped by `flip`.
    #[inline(always)]
    pub(crate) fn copy(
        &self,
        rows: Range<usize>,
        ks: Range<usize>,
        stride: usize,
        flip: u8,
        to: &mut [u8],
    ) {
        let (mut line, mut ox) = (rows.start / self.x.output, rows.start % self.x.output);
        let (mut image, mut oy) = (line / self.y.output, line % self.y.output);
        for to in to.chunks_mut(stride).take(rows.len()) {
            let to = &mut to[..ks.len()];
            self.patch([image, oy, ox], ks.start, to);
            if flip != 0 {
                for v in to {
                    *v ^= flip;
                }
            }
            ox += 1;
            if ox == self.x.output {
                (line, ox) = (line + 1, 0);
                (image, oy) = (line / self.y.output, line % self.y.output);
            }
        }
    }

    /// Writes the patch of an output pixel from its element `k0` on.
    #[inline(always)]
    fn patch(&self, [image, oy, ox]: [usize; 3], k0: usize, mut out: &mut [u8]) {
        if out.is_empty() {
            return;
        }
        let (mut ky, mut kx, mut first) = (0, 0, 0);
        if k0 > 0 {
            let tap = k0 / self.channels;
            first = k0 % self.channels;
            (ky, kx) = (tap / self.x.kernel, tap % self.x.kernel);
        }
        let image = image * self.image;
        while !out.is_empty() {
            let y = self.y.inside(oy * self.y.stride + ky * self.y.dilation);
            let x = self.x.inside(ox * self.x.stride + kx * self.x.dilation);
            let mut taps = 1;
            let to;
            match y.zip(x) {
                None => {
                    let count = (self.channels - first).min(out.len());
                    (to, out) = out.split_at_mut(count);
                    to.fill(self.padding);
                }
                Some((y, x)) => {
                    taps = self.side_by_side(kx, x);
                    let count = (taps * self.channels - first).min(out.len());
                    (to, out) = out.split_at_mut(count);
                    let at = image + y * self.row + x * self.pixel + first * self.channel;
                    if self.channel == 1 {
                        copy(to, &self.data[at..at + count]);
                    } else {
                        let from = self.data[at..].iter().step_by(self.channel);
                        for (to, from) in to.iter_mut().zip(from) {
                            *to = *from;
                        }
                    }
                }
            }
            first = 0;
            kx += taps;
            if kx == self.x.kernel {
                (ky, kx) = (ky + 1, 0);
            }
        }
    }
}

/// Copies equally many bytes in vectors, the last of which overlaps the one before it: a call of
/// memcpy for every few bytes costs more than they do.
#[inline(always)]
fn copy(to: &mut [u8], from: &[u8]) {
    #[inline(always)]
    fn chunks<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
        let (Some(last), Some(end)) = (from.last_chunk::<N>(), to.len().checked_sub(N)) else {
            return false;
        };
        for (to, from) in to.as_chunks_mut::<N>().0.iter_mut().zip(from.as_chunks().0) {
            *to = *from;
        }
        to[end..].copy_from_slice(last);
        true
    }
    if chunks::<64>(to, from) || chunks::<16>(to, from) || chunks::<4>(to, from) {
        return;
    }
    for (to, from) in to.iter_mut().zip(from).take(3) {
        *to = *from;
    }
}
