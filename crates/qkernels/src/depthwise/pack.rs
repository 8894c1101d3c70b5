//! Depthwise weights in the order in which a kernel reads them.
//!
//! Channels are cut into blocks of 64, 32 or 16. A block holds, for every group of rows of taps,
//! every column of taps and each of the output rows that share what is interleaved, four vectors
//! of words. A block narrower than a vector is repeated, because the vector then covers several
//! pixels.

use alloc::vec::Vec;
use core::ops::Range;

use super::lanes::{DepthwiseLanes, LANE, word};
use crate::isa::{Tier, Visit};
use crate::workspace::Line;
use crate::{Isa, KernelError, Layout, MatRef};

/// Channels of a block, widest first.
const WIDTHS: [usize; 3] = [64, 32, 16];

/// Some channels, in a block of `width`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// The first channel.
    pub(super) first: usize,
    /// How many there are.
    pub(super) channels: usize,
    /// How many there is room for.
    pub(super) width: usize,
}

/// How kernels of `L` cut up a kernel of taps and its channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) channels: usize,
    kernel: [usize; 2],
    /// Groups of rows of taps.
    pub(super) groups: usize,
    /// Output rows whose rows of input fit the groups, at strides and dilations of 1: 1 or 2.
    pub(super) rows: usize,
    /// The widest block.
    widest: usize,
}

impl Cut {
    pub(super) fn new<L: DepthwiseLanes>(kernel: [usize; 2], channels: usize) -> Cut {
        let groups = kernel[0].div_ceil(L::GROUP);
        Cut {
            channels,
            kernel,
            groups,
            rows: if kernel[0].is_multiple_of(L::GROUP) {
                1
            } else {
                2
            },
            widest: 4 * L::WORDS,
        }
    }

    /// Words of a block.
    pub(super) fn block_words<L: DepthwiseLanes>(&self) -> usize {
        self.groups * self.kernel[1] * self.rows * 4 * L::WORDS
    }

    /// Number of blocks.
    pub(super) fn count(&self) -> usize {
        let rest = self.channels % self.widest;
        self.channels / self.widest + self.rest(rest).count()
    }

    /// Block `i`.
    pub(super) fn block(&self, i: usize) -> Block {
        let full = self.channels / self.widest;
        if i < full {
            return Block {
                first: i * self.widest,
                channels: self.widest,
                width: self.widest,
            };
        }
        let mut first = full * self.widest;
        let mut last = Block {
            first,
            channels: 0,
            width: LANE,
        };
        for width in self.rest(self.channels - first).take(i - full + 1) {
            let channels = width.min(self.channels - first);
            last = Block {
                first,
                channels,
                width,
            };
            first += channels;
        }
        last
    }

    /// The first of some blocks that are as wide as the first of all; there is one.
    pub(super) fn alike(&self, blocks: Range<usize>) -> Range<usize> {
        let full = self.channels / self.widest;
        let end = if blocks.start < full {
            full.min(blocks.end)
        } else {
            blocks.start + 1
        };
        blocks.start..end
    }

    /// Widths of the blocks for what full ones leave over: a wide one where more than three
    /// quarters of it are used.
    fn rest(&self, mut rest: usize) -> impl Iterator<Item = usize> + use<> {
        let widest = self.widest;
        core::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let fits = |&w: &usize| w <= widest && (rest >= w || 4 * rest > 3 * w);
            let width = WIDTHS.into_iter().find(fits).unwrap_or(LANE);
            rest = rest.saturating_sub(width);
            Some(width)
        })
    }
}

/// Calls `each` for every four words of a block's four vectors of `words`, with the channel of the
/// block that they start at.
#[inline(always)]
pub(super) fn for_words<I: Iterator>(
    width: usize,
    words: usize,
    mut quads: I,
    mut each: impl FnMut(I::Item, usize),
) {
    let lanes = width / LANE;
    for j in 0..4 {
        for quad in 0..words / 4 {
            if let Some(to) = quads.next() {
                // A number of lanes is a power of two.
                each(to, (quad & (lanes - 1)) * LANE + 4 * j);
            }
        }
    }
}

/// The weights of a depthwise convolution, packed once for a tier.
#[derive(Debug, Clone)]
pub struct PackedDepthwise {
    isa: Isa,
    lanes: &'static str,
    kernel: [usize; 2],
    channels: usize,
    data: Vec<Line>,
    /// Sum of the taps of every channel.
    sums: Vec<i32>,
}

impl PackedDepthwise {
    /// Packs `weights` for a tier: one kernel of `kernel` (height and width) taps a channel.
    /// [`Layout::Transposed`] has a channel a row and its taps, row by row, as columns (ONNX:
    /// `C × 1 × kh × kw`); [`Layout::RowMajor`] has a tap a row (`TFLite`: `kh × kw × C`).
    ///
    /// # Errors
    ///
    /// [`KernelError::Shape`] when the weights do not have `kh · kw` taps, [`KernelError::Depth`]
    /// when the sum of so many could leave i32, [`KernelError::TooLarge`] when there is no memory
    /// for the packed weights.
    ///
    /// ```
    /// use qkernels::{Isa, Layout, MatRef, PackedDepthwise};
    /// // Two channels with a kernel of 1×3.
    /// let weights = MatRef::new(&[1i8, 2, 1, -1, 0, 1], 2, 3)?;
    /// let packed = PackedDepthwise::pack(Isa::detect(), [1, 3], weights, Layout::Transposed)?;
    /// assert_eq!((packed.channels(), packed.sums()), (2, &[4, 0][..]));
    /// # Ok::<(), qkernels::KernelError>(())
    /// ```
    pub fn pack(
        isa: Isa,
        kernel: [usize; 2],
        weights: MatRef<'_, i8>,
        layout: Layout,
    ) -> Result<PackedDepthwise, KernelError> {
        struct Pack<'a>(Isa, [usize; 2], MatRef<'a, i8>, Layout);
        impl Visit for Pack<'_> {
            type Output = Result<PackedDepthwise, KernelError>;
            fn visit<T: Tier>(self, _tier: T) -> Self::Output {
                PackedDepthwise::pack_for::<T::Depthwise>(self.0, self.1, self.2, self.3)
            }
        }
        isa.dispatch(Pack(isa, kernel, weights, layout))
    }

    /// Packs for lanes that need not be those of the tier.
    pub(crate) fn pack_for<L: DepthwiseLanes>(
        isa: Isa,
        kernel: [usize; 2],
        weights: MatRef<'_, i8>,
        layout: Layout,
    ) -> Result<PackedDepthwise, KernelError> {
        let (rows, cols) = (weights.rows(), weights.cols());
        let (channels, given) = match layout {
            Layout::RowMajor => (cols, rows),
            Layout::Transposed => (rows, cols),
        };
        let taps = kernel[0].saturating_mul(kernel[1]);
        if taps != given {
            let expected = match layout {
                Layout::RowMajor => (taps, channels),
                Layout::Transposed => (channels, taps),
            };
            return Err(KernelError::Shape {
                what: "weights",
                given: (rows, cols),
                expected,
            });
        }
        crate::zero_point::check_depth(taps, &Default::default(), (-1, 1), (-128, 127))?;
        let too_large = KernelError::TooLarge {
            rows,
            row_stride: weights.row_stride(),
        };
        let cut = Cut::new::<L>(kernel, channels);
        // A matrix without elements can claim any size: its blocks are none, or empty.
        let blocks = if taps == 0 { 0 } else { cut.count() };
        let words = if blocks == 0 {
            0
        } else {
            cut.block_words::<L>()
        };
        let lines = words
            .checked_mul(blocks)
            .and_then(|n| n.checked_mul(size_of::<i32>()))
            .ok_or(too_large.clone())?
            .div_ceil(size_of::<Line>());
        let mut data = crate::pack::zeroed::<Line>(lines).ok_or(too_large.clone())?;
        let mut sums = crate::pack::zeroed::<i32>(channels).ok_or(too_large)?;

        let at = |channel: usize, tap: usize| {
            let (i, j) = match layout {
                Layout::RowMajor => (tap, channel),
                Layout::Transposed => (channel, tap),
            };
            weights.data()[i * weights.row_stride() + j * weights.col_stride()]
        };
        if taps > 0 {
            for (channel, sum) in sums.iter_mut().enumerate() {
                *sum = (0..taps).map(|tap| i32::from(at(channel, tap))).sum();
            }
        }
        let [height, width] = kernel;
        let all: &mut [i32] = bytemuck::cast_slice_mut(&mut data);
        for b in 0..blocks {
            let block = cut.block(b);
            let mut to = all[b * words..][..words].as_chunks_mut::<4>().0.iter_mut();
            for group in 0..cut.groups {
                for kx in 0..width {
                    for row in 0..cut.rows {
                        // Output row `row` sees its first tap `row` rows further down.
                        let taps = |channel: usize| {
                            word::<L>((0..L::GROUP).map(|i| {
                                let ky = (group * L::GROUP + i).checked_sub(row);
                                let ky = ky.filter(|&ky| ky < height && channel < block.channels);
                                ky.map_or(0, |ky| {
                                    i32::from(at(block.first + channel, ky * width + kx))
                                })
                            }))
                        };
                        let next = to.by_ref().take(L::WORDS);
                        for_words(block.width, L::WORDS, next, |to: &mut [i32; 4], first| {
                            *to = core::array::from_fn(|i| taps(first + i));
                        });
                    }
                }
            }
        }
        Ok(PackedDepthwise {
            isa,
            lanes: L::ID,
            kernel,
            channels,
            data,
            sums,
        })
    }

    /// Channels.
    #[must_use]
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Height and width of the kernel, in taps.
    #[must_use]
    pub const fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    /// The tier that it is packed for, and that [`depthwise`](crate::depthwise()) runs on.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// Sum of the taps of every channel.
    #[must_use]
    pub fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// The packed words, if they are packed for these lanes.
    pub(super) fn words<L: DepthwiseLanes>(&self) -> Result<&[i32], KernelError> {
        if self.lanes == L::ID {
            Ok(bytemuck::cast_slice(&self.data))
        } else {
            Err(KernelError::PackedFor {
                packed: self.lanes,
                asked: L::ID,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::depthwise::lanes::PlainLanes;

    #[test]
    fn blocks_cover_all_channels_once_and_waste_little() {
        for widest in [16, 32, 64] {
            for channels in 0..300 {
                let cut = Cut {
                    widest,
                    ..Cut::new::<PlainLanes>([3, 3], channels)
                };
                let mut next = 0;
                let mut room = 0;
                for i in 0..cut.count() {
                    let b = cut.block(i);
                    assert_eq!(b.first, next);
                    assert!(b.channels > 0 && b.channels <= b.width && b.width <= widest);
                    next += b.channels;
                    room += b.width;
                }
                assert_eq!(next, channels);
                assert!(room < channels + 16, "{channels} of {widest}");
            }
        }
    }
}
