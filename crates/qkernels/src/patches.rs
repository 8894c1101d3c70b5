//! Rows of patches, gathered from an image when a product needs them.
//!
//! Row `i` of the matrix that is never made belongs to an output pixel, and holds the channels of
//! every tap of its window, tap by tap. Taps in the padding hold the zero point, and so does what
//! pads a row of taps to whole groups of the kernel. Where the taps of a row lie side by side in
//! memory, they are one copy.

use core::ops::Range;

use qformat::DType;

use crate::conv_shape::Axis;
use crate::kernel::MAX_LHS_ROWS;
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
    /// Elements of a row of taps as the weights are packed: at least those of its channels.
    pub(crate) taps_row: usize,
    /// Elements from image to image, row to row, pixel to pixel and channel to channel.
    pub(crate) image: usize,
    pub(crate) row: usize,
    pub(crate) pixel: usize,
    pub(crate) channel: usize,
    /// The zero point.
    pub(crate) padding: u8,
}

impl<'a> Patches<'a> {
    /// Patches of some channels of an image that was checked to have the shape, `rows` in all, their
    /// rows of taps `taps_row` long.
    pub(crate) fn new<A: Lhs>(
        x: Image<'a, A>,
        y_axis: Axis,
        x_axis: Axis,
        rows: usize,
        channels: Range<usize>,
        taps_row: usize,
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
                // A single plane may have any stride, even none.
                let plane = m.row_stride().max(1);
                (m, all.saturating_mul(plane), 1, plane)
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
            taps_row,
            image,
            row: x_axis.input.saturating_mul(pixel),
            pixel,
            channel,
            // The low byte is all of it: it was checked to be a value of the type.
            padding: zero_point as u8,
        }
    }

    /// Whether every pixel is whole groups of so many channels, side by side.
    pub(crate) fn has_groups_of(&self, group: usize) -> bool {
        self.channel == 1 && self.channels.is_multiple_of(group)
    }

    /// How many taps from `kx` on lie in the image and side by side, the first of them in
    /// this column of the image.
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
        self.y.kernel * self.taps_row
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
        let taps = self.x.kernel * self.channels;
        let (mut ky, mut kx, mut first) = (0, 0, 0);
        if k0 > 0 {
            let within = k0 % self.taps_row;
            ky = k0 / self.taps_row;
            (kx, first) = if within < taps {
                (within / self.channels, within % self.channels)
            } else {
                (self.x.kernel, within - taps)
            };
        }
        let image = image * self.image;
        while !out.is_empty() {
            if kx == self.x.kernel {
                let count = (self.taps_row - taps - first).min(out.len());
                let to;
                (to, out) = out.split_at_mut(count);
                to.fill(self.padding);
                (ky, kx, first) = (ky + 1, 0, 0);
                continue;
            }
            let y = self.y.inside(oy * self.y.stride + ky * self.y.dilation);
            let x = self.x.inside(ox * self.x.stride + kx * self.x.dilation);
            let mut beside = 1;
            let to;
            match y.zip(x) {
                None => {
                    let count = (self.channels - first).min(out.len());
                    (to, out) = out.split_at_mut(count);
                    to.fill(self.padding);
                }
                Some((y, x)) => {
                    beside = self.side_by_side(kx, x);
                    let count = (beside * self.channels - first).min(out.len());
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
            kx += beside;
        }
    }
}

/// Bytes of padding that lie ready to be read in place of pixels.
const PADDING: usize = 512;

impl Patches<'_> {
    /// Gives all elements of `count` rows from `first` on to `each`, stretch by stretch of K, from where
    /// they lie; `false` where that cannot be done, maybe after some of them. Every stretch is in whole
    /// groups of `group` elements.
    #[inline(always)]
    pub(crate) fn stretches(
        &self,
        first: usize,
        count: usize,
        group: usize,
        mut each: impl FnMut(&[&[u8]]),
    ) -> bool {
        let Patches { y, x, channels, .. } = *self;
        // Of each row: its image, and where its window starts in the padded one.
        let mut windows = [[0; 3]; MAX_LHS_ROWS];
        let mut inside = true;
        for (i, window) in windows[..count].iter_mut().enumerate() {
            let (line, ox) = ((first + i) / x.output, (first + i) % x.output);
            let (image, oy) = (line / y.output, line % y.output);
            *window = [image * self.image, oy * y.stride, ox * x.stride];
            let last = window[2] + (x.kernel - 1) * x.dilation;
            inside &= x.inside(window[2]).is_some() && x.inside(last).is_some();
        }
        let joined = inside && self.pixel == channels && x.dilation == 1;
        // What follows a row of taps meets weights of zero.
        let (taps, len) = if joined {
            (1, self.taps_row)
        } else {
            (x.kernel, channels)
        };
        let tiled = joined || taps * len == self.taps_row;
        if self.channel != 1 || !tiled || len == 0 || !len.is_multiple_of(group) {
            return false;
        }
        let padding = [self.padding; PADDING];
        let piece = PADDING / group * group;
        for ky in 0..y.kernel {
            for kx in 0..taps {
                let mut starts = [None; MAX_LHS_ROWS];
                for (start, [image, top, left]) in starts[..count].iter_mut().zip(windows) {
                    let y = y.inside(top + ky * y.dilation);
                    let x = x.inside(left + kx * x.dilation);
                    *start = y.zip(x).map(|(y, x)| image + y * self.row + x * self.pixel);
                }
                for k in (0..len).step_by(piece) {
                    let some = piece.min(len - k);
                    let mut rows: [&[u8]; MAX_LHS_ROWS] = [&[]; MAX_LHS_ROWS];
                    for (row, start) in rows[..count].iter_mut().zip(starts) {
                        *row = match start {
                            None => &padding[..some],
                            Some(at) => match self.data.get(at + k..at + k + some) {
                                Some(pixels) => pixels,
                                None => return false,
                            },
                        };
                    }
                    each(&rows[..count]);
                }
            }
        }
        true
    }

    /// Copies lines of one image with their padding, pixel by pixel with their channels side by side:
    /// `lines` of the padded image, `width` pixels from its left edge on, every byte flipped by
    /// `flip`. `to` holds just these.
    #[inline(always)]
    pub(crate) fn copy_lines(
        &self,
        image: usize,
        lines: Range<usize>,
        width: usize,
        flip: u8,
        to: &mut [u8],
    ) {
        let padding = self.padding ^ flip;
        let left = self.x.before.min(width);
        let inside = self.x.input.min(width - left);
        for (line, to) in lines.zip(to.chunks_exact_mut(width * self.channels)) {
            let Some(y) = self.y.inside(line).filter(|_| inside > 0) else {
                to.fill(padding);
                continue;
            };
            let (before, to) = to.split_at_mut(left * self.channels);
            let (to, after) = to.split_at_mut(inside * self.channels);
            before.fill(padding);
            after.fill(padding);
            let from = &self.data[image * self.image + y * self.row..];
            match (self.channel, self.channels) {
                (1, channels) if channels == self.pixel => flipped(to, from, flip),
                // Of a single pixel, the step to the next may be anything.
                (1, channels) => {
                    for (i, to) in to.chunks_exact_mut(channels).enumerate() {
                        flipped(to, &from[i * self.pixel..], flip);
                    }
                }
                // What images have, in vectors.
                (_, 3) => interleave::<3>(to, from, self.channel, flip),
                (_, 4) => interleave::<4>(to, from, self.channel, flip),
                (_, channels) => {
                    for c in 0..channels {
                        let to = to[c..].iter_mut().step_by(channels);
                        for (to, &from) in to.zip(&from[c * self.channel..]) {
                            *to = from ^ flip;
                        }
                    }
                }
            }
        }
    }
}

/// Copies as many bytes as `to` has, each flipped.
#[inline(always)]
fn flipped(to: &mut [u8], from: &[u8], flip: u8) {
    if flip == 0 {
        return copy(to, &from[..to.len()]);
    }
    let from = &from[..to.len()];
    for (to, from) in to.iter_mut().zip(from) {
        *to = from ^ flip;
    }
}

/// Puts the elements of `C` planes, `stride` apart, side by side.
#[inline(always)]
fn interleave<const C: usize>(to: &mut [u8], from: &[u8], stride: usize, flip: u8) {
    let pixels = to.as_chunks_mut::<C>().0;
    let planes: [&[u8]; C] = core::array::from_fn(|c| &from[c * stride..][..pixels.len()]);
    for (i, to) in pixels.iter_mut().enumerate() {
        for (to, plane) in to.iter_mut().zip(planes) {
            *to = plane[i] ^ flip;
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
