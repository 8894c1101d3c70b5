//! Direct convolution: tiles read the image where it lies. Nothing is copied, and what lies in the
//! padding is not multiplied. Where channels come first or are not whole groups, or where the kernel
//! multiplies widened bytes, tiles read a copy of a block of lines with their padding
//! ([`Patches::copy_lines`]): then all places lie inside, and a group that ends beyond its row of places
//! meets weights of zero.
//!
//! Outputs fall into runs of lines and runs of columns for which the same places of the kernel lie
//! inside the image: mostly one long run with a short one at each end. All outputs of a pair of runs
//! read the same stretches of K ([`Segment`]), so a tile of them is a tile of the loop nest whose
//! depth is in pieces. A row of places is one piece where its pixels follow each other.
//!
//! ```text
//! for a block of lines            its part of the image, or the copy of it, stays in L2
//!   for a panel of B
//!     for an image, a run of lines, a run of columns
//!       for a tile                along the longer of the two
//! ```
//!
//! What sums start at accounts for zero points as if all places were inside; for the places that are
//! not, `(shift + Z_x) · Σ w` is added again.

mod plan;

use core::marker::PhantomData;
use core::ops::Range;

use crate::columns::{Columns, SetColumns};
use crate::conv_shape::{Axis, Run};
use crate::driver::{Operands, Sink};
use crate::gemm::Target;
use crate::isa::{Task, Tier};
use crate::kernel::{Acc, Init, LhsTile, Microkernel, RhsPanel, Scaling, Segment, Segments};
use crate::kernel::{TileMut, Unpacked, lhs_shift};
use crate::out::{Out, Rows};
use crate::pack::Panels;
use crate::patches::Patches;
use crate::plan::{L1_PANEL, lines, part, stacked_rows, tall_rows, tallest};
use crate::store::{Steps, Store};
use crate::workspace::Line;
use crate::{Threads, ZeroPoint};

use plan::{BLOCK_BYTES, Copied};
pub(crate) use plan::{DirectPlan, Group, Places};

/// What a direct convolution needs beside the operands of a product.
#[derive(Clone, Copy)]
pub(crate) struct Direct<'a> {
    pub(crate) image: &'a Patches<'a>,
    /// `Σ w` over the channels: for each place of the kernel, one for each column.
    pub(crate) tap_sums: &'a [i32],
}

impl Direct<'_> {
    /// The plan, where this call can be done directly on the kernel.
    pub(crate) fn plan<K: Microkernel>(
        &self,
        operands: &Operands<'_>,
        threads: usize,
    ) -> Option<DirectPlan> {
        if !operands.rows_are_alike() {
            return None;
        }
        let Patches {
            y,
            x,
            channels,
            taps_row,
            ..
        } = *self.image;
        let places = Places {
            y,
            x,
            channels,
            taps_row,
            in_place: self.image.channel == 1,
        };
        let count = self.image.rows / x.output.max(1);
        DirectPlan::new::<K>(&places, count, operands.b.n(), threads)
    }

    /// Runs it; `mem` holds the plan's lines.
    #[allow(
        clippy::too_many_arguments,
        reason = "as the loop nest, and what is direct"
    )]
    pub(crate) fn run<K: Microkernel>(
        self,
        tier: K::Home,
        operands: &Operands<'_>,
        packed: &[K::Rhs],
        target: Target<'_>,
        plan: &DirectPlan,
        mem: &mut [Line],
        threads: Threads<'_>,
    ) {
        if plan.plan.m == 0 || plan.plan.n == 0 {
            return;
        }
        let (columns, shares) = mem.split_at_mut(plan.plan.column_lines);
        let columns = tier.enter(SetColumns::<K> {
            scaled: !matches!(target.steps, Steps::Sums),
            operands,
            plan: &plan.plan,
            mem: columns,
            kernel: PhantomData,
        });
        let store = Store {
            steps: target.steps,
            row_scale: operands.epilogue.row_scale,
            residual: operands.epilogue.residual,
        };
        let signed = self.image.dtype.is_signed();
        let shift = if signed { lhs_shift::<K, i8>() } else { 0 };
        let zero_point = match operands.zp.a {
            ZeroPoint::Tensor(z) => z,
            ZeroPoint::Vector(_) => 0,
        };
        let lines = self.image.rows / self.image.x.output;
        let count = plan.parts.0 * plan.parts.1;
        threads.for_each(count, shares, plan.share_lines, &|index, mem| {
            let (row, col) = (index / plan.parts.1, index % plan.parts.1);
            let panels = Panels::new::<K>(plan.plan.n).count();
            // Shares are disjoint: no two have both a line and a panel in common.
            tier.enter(Share::<K> {
                direct: self,
                plan,
                packed,
                columns: &columns,
                store: &store,
                out: target.out,
                shift,
                factor: shift.wrapping_add(zero_point),
                lines: part(lines, plan.parts.0, row),
                panels: part(panels, plan.parts.1, col),
                mem,
                kernel: K::from(tier),
            });
        });
    }
}

/// One share of the output: lines of all images, and panels.
struct Share<'a, K: Microkernel> {
    direct: Direct<'a>,
    plan: &'a DirectPlan,
    packed: &'a [K::Rhs],
    columns: &'a Columns<'a, K::Acc>,
    store: &'a Store<'a>,
    out: Out<'a>,
    /// What the kernel adds to A.
    shift: i32,
    /// Times `Σ w`: what the padding has in the sums of the columns.
    factor: i32,
    lines: Range<usize>,
    panels: Range<usize>,
    mem: &'a mut [Line],
    kernel: K,
}

/// The scratch of a share.
struct Scratch<'a, A> {
    acc: &'a mut [A],
    init: &'a mut [A],
    segments: &'a mut [Segment],
}

/// An image, or a part of one, that tiles can read.
struct View<'a, L> {
    /// Where its pixels lie.
    image: &'a Patches<'a>,
    /// The pixels as the kernel reads them.
    data: &'a [L],
    /// Where its first pixel is.
    first: usize,
    /// The row of the output of its first pixel.
    out: usize,
    /// Whether the kernel shifts what it reads.
    shift: bool,
}

/// A panel of B and its columns.
struct Panel<'a, R> {
    b: RhsPanel<'a, R>,
    cols: Range<usize>,
}

impl<R> Panel<'_, R> {
    /// Whether the output has all columns of the panel.
    #[inline(always)]
    fn full(&self) -> bool {
        self.b.width() == self.cols.len()
    }

    /// Whether sums can leave without the tile buffer.
    #[inline(always)]
    fn whole<K: Microkernel>(&self) -> bool {
        self.full() || K::MASKS
    }
}

impl<K: Microkernel> Task for Share<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(mut self, tier: T) {
        let sink = Sink {
            tier,
            kernel: self.kernel,
            store: self.store,
            out: self.out,
        };
        let plan = &self.plan.plan;
        let (acc, mem) = core::mem::take(&mut self.mem)
            .split_at_mut(lines(tallest::<K>() * plan.acc_stride, size_of::<i32>()));
        let (init, mem) = mem.split_at_mut(lines(plan.acc_stride, size_of::<i32>()));
        let (segments, mem) = mem.split_at_mut(lines(self.plan.taps, size_of::<Segment>()));
        let (unpacked, mem) = mem.split_at_mut(self.plan.unpack_lines);
        let mut scratch = Scratch {
            acc: bytemuck::cast_slice_mut(acc),
            init: bytemuck::cast_slice_mut(init),
            segments: &mut bytemuck::cast_slice_mut(segments)[..self.plan.taps],
        };
        match self.plan.copied {
            None => self.in_place(&sink, &mut scratch),
            Some(copied) => {
                let (line, mem) = mem.split_at_mut(copied.line_lines);
                let mem = bytemuck::cast_slice_mut(&mut mem[..copied.lines]);
                let line = bytemuck::cast_slice_mut(line);
                let unpacked = bytemuck::cast_slice_mut(unpacked);
                self.copied(&sink, copied, (mem, line, unpacked), &mut scratch);
            }
        }
    }
}

impl<K: Microkernel> Share<'_, K> {
    /// Blocks of lines of all images, read where they lie.
    #[inline(always)]
    fn in_place<T: Tier>(&self, sink: &Sink<'_, T, K>, scratch: &mut Scratch<'_, K::Acc>) {
        let image = self.direct.image;
        let Patches { y, x, row, .. } = *image;
        let bytes = row.saturating_mul(y.stride).max(1);
        let block = (BLOCK_BYTES / bytes).max(1);
        for start in self.lines.clone().step_by(block) {
            let block = start..self.lines.end.min(start + block);
            for p in self.panels.clone() {
                let panel = self.panel(p);
                let mut next = block.start;
                while next < block.end {
                    let (n, oy) = (next / y.output, next % y.output);
                    let until = y.output.min(oy + block.end - next);
                    let view = View {
                        image,
                        data: bytemuck::cast_slice(image.data),
                        first: n * image.image,
                        out: n * y.output * x.output,
                        shift: self.shift != 0,
                    };
                    self.image(sink, &view, oy..until, &panel, scratch);
                    next += until - oy;
                }
            }
        }
    }

    /// Blocks of lines of one image, copied with their padding.
    #[inline(always)]
    fn copied<T: Tier>(
        &self,
        sink: &Sink<'_, T, K>,
        copied: Copied,
        (mem, line, unpacked): (&mut [K::Lhs], &mut [u8], &mut [u8]),
        scratch: &mut Scratch<'_, K::Acc>,
    ) {
        let image = self.direct.image;
        let Patches { y, x, channels, .. } = *image;
        let mut next = self.lines.start;
        while next < self.lines.end {
            let (n, oy) = (next / y.output, next % y.output);
            let count = (y.output - oy).min(self.lines.end - next).min(copied.block);
            let input = (count - 1) * y.stride + (y.kernel - 1) * y.dilation + 1;
            let size = input * copied.width * channels;
            let top = oy * y.stride;
            let part = top..top + input;
            self.copy_lines(n, part, copied.width, &mut mem[..size], line);
            let lines = Patches {
                data: &[],
                y: Axis {
                    input,
                    before: 0,
                    output: count,
                    ..y
                },
                x: Axis {
                    input: copied.width,
                    before: 0,
                    ..x
                },
                rows: count * x.output,
                image: 0,
                row: copied.width * channels,
                pixel: channels,
                channel: 1,
                ..*image
            };
            let view = View {
                image: &lines,
                data: &*mem,
                first: 0,
                out: next * x.output,
                shift: false,
            };
            for p in self.panels.clone() {
                let mut panel = self.panel(p);
                if K::UNPACKED > 0 && count * x.output >= K::UNPACK_ROWS {
                    let size = panel.b.data().len() * K::UNPACKED;
                    self.kernel.unpack(panel.b, &mut unpacked[..size]);
                    panel.b = panel.b.with_unpacked(Unpacked::Done(&unpacked[..size]));
                }
                self.image(sink, &view, 0..count, &panel, scratch);
            }
            next += count;
        }
    }

    /// Copies lines of an image with their padding as the kernel reads them; `line` has room for the
    /// bytes of one that are widened then.
    #[inline(always)]
    fn copy_lines(
        &self,
        n: usize,
        lines: Range<usize>,
        width: usize,
        to: &mut [K::Lhs],
        line: &mut [u8],
    ) {
        let image = self.direct.image;
        if plan::reads_bytes::<K>() {
            let to = bytemuck::cast_slice_mut(to);
            return image.copy_lines(n, lines, width, self.shift as u8, to);
        }
        let line = &mut line[..width * image.channels];
        for (i, to) in lines.zip(to.chunks_exact_mut(line.len())) {
            image.copy_lines(n, i..i + 1, width, 0, line);
            if image.dtype.is_signed() {
                for (to, &from) in to.iter_mut().zip(&*line) {
                    *to = K::lhs(from.cast_signed());
                }
            } else {
                for (to, &from) in to.iter_mut().zip(&*line) {
                    *to = K::lhs(from);
                }
            }
        }
    }

    /// Panel `p` of B.
    #[inline(always)]
    fn panel(&self, p: usize) -> Panel<'_, K::Rhs> {
        let plan = &self.plan.plan;
        let panels = Panels::new::<K>(plan.n);
        let (cols, width) = (panels.cols(p), panels.width(p));
        let b = &self.packed[cols.start * plan.depth..][..plan.depth * width];
        let b = RhsPanel::new(b, width);
        Panel { b, cols }
    }

    /// Lines of one image against a panel.
    #[inline(always)]
    fn image<T: Tier>(
        &self,
        sink: &Sink<'_, T, K>,
        view: &View<'_, K::Lhs>,
        lines: Range<usize>,
        panel: &Panel<'_, K::Rhs>,
        scratch: &mut Scratch<'_, K::Acc>,
    ) {
        let Patches { y, x, .. } = *view.image;
        for ys in y.runs(lines) {
            for xs in x.runs(0..x.output) {
                self.runs(sink, view, &ys, &xs, panel, scratch);
            }
        }
    }

    /// All outputs of a run of lines and a run of columns.
    #[inline(always)]
    fn runs<T: Tier>(
        &self,
        sink: &Sink<'_, T, K>,
        view: &View<'_, K::Lhs>,
        ys: &Run,
        xs: &Run,
        panel: &Panel<'_, K::Rhs>,
        scratch: &mut Scratch<'_, K::Acc>,
    ) {
        let Patches {
            y, x, row, pixel, ..
        } = *view.image;
        let data = view.data;
        let Scratch {
            acc,
            init,
            segments,
        } = scratch;
        let (count, depth) = self.set_segments(view.image, ys, xs, segments);
        // None: nothing but padding.
        let segments = (count > 0).then(|| Segments::new(&segments[..count]));
        let init = self.init(ys, xs, &panel.cols, panel.b.width(), init);
        let first = if segments.is_some() {
            view.first + y.first(ys) * row + x.first(xs) * pixel
        } else {
            0
        };
        // Along lines or along columns: steps from output to output in the image and in the result.
        let (outer, inner) = if xs.outputs.len() >= ys.outputs.len() {
            ((ys, y, row, x.output), (xs, x, pixel, 1))
        } else {
            ((xs, x, pixel, 1), (ys, y, row, x.output))
        };
        let out = view.out + ys.outputs.start * x.output + xs.outputs.start;
        let height = K::ROWS[panel.b.width() / K::UNIT - 1];
        let length = inner.0.outputs.len();
        let stacks = K::STACKS && panel.whole::<K>() && sink.stacks(panel.full(), false, None);
        let far = size_of_val(panel.b.data()) > L1_PANEL;
        let tall = tall_rows::<K>(length, panel.cols.len(), size_of_val(panel.b.data()), 0);
        // Steps of a single pixel may be anything; where several are read, nothing wraps.
        let stride = inner.1.stride.wrapping_mul(inner.2);
        let line = outer.1.stride.wrapping_mul(outer.2);
        for o in 0..outer.0.outputs.len() {
            let from = first.wrapping_add(o.wrapping_mul(line));
            let to = out + o * outer.3;
            let mut start = 0;
            while start < length {
                let left = length - start;
                let count = if stacks {
                    stacked_rows(left, height, far, tall)
                } else {
                    // Tiles of nearly equal height.
                    left.div_ceil(left.div_ceil(height))
                };
                let a = match segments {
                    Some(segments) => {
                        let data = &data[from + start * stride..];
                        LhsTile::in_segments(data, count, stride, segments, depth)
                    }
                    None => LhsTile::new(&data[..0], count, 0, 0),
                };
                let rows = Rows {
                    first: to + start * inner.3,
                    step: inner.3,
                    count,
                };
                self.tile(sink, a.with_shift(view.shift), rows, panel, init, acc);
                start += count;
            }
        }
    }

    /// Where K lies for the places inside; how many stretches, and how long each of them.
    #[inline(always)]
    fn set_segments(
        &self,
        image: &Patches<'_>,
        ys: &Run,
        xs: &Run,
        to: &mut [Segment],
    ) -> (usize, usize) {
        let Patches {
            y,
            x,
            row,
            pixel,
            channels,
            taps_row,
            ..
        } = *image;
        if ys.taps.is_empty() || xs.taps.is_empty() {
            return (0, 0);
        }
        let joined = pixel == channels && x.dilation == 1;
        let (each, length) = if joined {
            (1, (xs.taps.len() * channels).next_multiple_of(K::KG))
        } else {
            (xs.taps.len(), channels)
        };
        let places = ys
            .taps
            .clone()
            .flat_map(|ky| xs.taps.clone().take(each).map(move |kx| (ky, kx)));
        let mut count = 0;
        for (to, (ky, kx)) in to.iter_mut().zip(places) {
            *to = Segment {
                a: (ky - ys.taps.start) * y.dilation * row
                    + (kx - xs.taps.start) * x.dilation * pixel,
                b: ky * taps_row + kx * channels,
            };
            count += 1;
        }
        (count, length)
    }

    /// What the sums of a panel start at; `to` has room for it.
    #[inline(always)]
    fn init<'i>(
        &self,
        ys: &Run,
        xs: &Run,
        cols: &Range<usize>,
        width: usize,
        to: &'i mut [K::Acc],
    ) -> &'i [K::Acc]
    where
        Self: 'i,
    {
        let Patches { y, x, .. } = *self.direct.image;
        let init = self.columns.init(cols.start..cols.start + width);
        let whole = ys.taps.len() == y.kernel && xs.taps.len() == x.kernel;
        if whole || self.factor == 0 {
            return init;
        }
        let to = &mut to[..width];
        to.copy_from_slice(init);
        for ky in 0..y.kernel {
            for kx in 0..x.kernel {
                if ys.taps.contains(&ky) && xs.taps.contains(&kx) {
                    continue;
                }
                let at = (ky * x.kernel + kx) * self.plan.plan.n + cols.start;
                // Columns that only pad the panel need none.
                for (to, sum) in to.iter_mut().zip(&self.direct.tap_sums[at..][..cols.len()]) {
                    *to = to.plus(sum.wrapping_mul(self.factor));
                }
            }
        }
        to
    }

    /// One tile or stack of tiles, and its epilogue.
    #[inline(always)]
    fn tile<T: Tier>(
        &self,
        sink: &Sink<'_, T, K>,
        a: LhsTile<'_, K::Lhs>,
        rows: Rows,
        panel: &Panel<'_, K::Rhs>,
        init: &[K::Acc],
        acc: &mut [K::Acc],
    ) {
        let Panel { b, ref cols } = *panel;
        let init = Init {
            start: &init[..b.width()],
            stride: 0,
            rows: None,
            products: None,
        };
        let scaling = Scaling {
            rows: None,
            small: self.columns.small,
            scale: &self.columns.scale[cols.start..],
            bias: self.columns.bias.map(|bias| &bias[cols.start..]),
        };
        if panel.whole::<K>() && sink.straight((a, b), Some(init), true, scaling, rows, cols) {
            return;
        }
        let stride = self.plan.plan.acc_stride;
        let acc = &mut acc[..rows.count * stride];
        let mut sums = TileMut::new(acc, stride, rows.count, stride);
        sink.kernel.accumulate(a, b, Some(init), &mut sums);
        sink.store(acc, stride, rows, cols, scaling);
    }
}
