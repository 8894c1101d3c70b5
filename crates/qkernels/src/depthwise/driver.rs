//! The loops around the kernel: strips of output rows, blocks of channels, segments of columns.

use core::marker::PhantomData;
use core::ops::Range;

use super::lanes::{Bytes, DepthwiseLanes, Finish, Floats, Kind, Limits, Sums, word};
use super::pack::{Block, for_words};
use super::pass::{Pass, Row, STREAMED, Stream, interleave, multiply, stream};
use super::plan::{COLUMN_ARRAYS, Plan};
use super::{Call, Geometry, Operands};
use crate::isa::{Task, Tier};
use crate::out::Out;
use crate::store::{Steps, Store, Tile, store_tile};
use crate::workspace::Line;
use crate::{KernelError, Scale, ZeroPoint};

/// Column data, block by block: in the order of the sums, or, where lanes do not finish them,
/// scales and biases as they are.
#[derive(Clone, Copy)]
struct Columns<'a> {
    init: &'a [i32],
    scale: &'a [f32],
    bias: Option<&'a [f32]>,
    /// Zero points of the weights, negated, if one is not zero.
    minus_zero_points: Option<&'a [i32]>,
}

/// What lanes make of the sums by themselves; `None`: sums, which then go through memory.
fn kind<L: DepthwiseLanes>(store: &Store<'_>) -> Option<Kind> {
    match store.steps {
        Steps::Sums => Some(Kind::Sums),
        _ if !L::FINISHES || !store.by_steps(None) => None,
        Steps::Floats { .. } => Some(Kind::Floats),
        Steps::Bytes { .. } => Some(Kind::Bytes),
        Steps::F16 { .. } | Steps::Bf16 { .. } => None,
    }
}

/// Computes a depthwise convolution.
pub(super) fn run<L: DepthwiseLanes>(tier: L::Home, call: Call<'_, '_>) -> Result<(), KernelError> {
    let Call {
        operands,
        target,
        ws,
        threads,
    } = call;
    let weights = operands.weights.words::<L>()?;
    let (rows, channels) = target.out.shape();
    if rows == 0 || channels == 0 {
        return Ok(());
    }
    let plan = Plan::new::<L>(&operands.geometry, channels, threads.count());
    let (columns, shares) = ws
        .lines(plan.total_lines())?
        .split_at_mut(plan.column_lines);
    let store = Store {
        steps: target.steps,
        row_scale: operands.epilogue.row_scale,
        residual: operands.epilogue.residual,
    };
    let kind = kind::<L>(&store);
    let columns = tier.enter(SetColumns {
        operands: &operands,
        plan: &plan,
        mem: columns,
        in_order: kind.is_none(),
    });
    macro_rules! shares {
        ($finish:ty) => {
            threads.for_each(plan.shares(), shares, plan.share_lines, &|index, mem| {
                let (strips, blocks) = plan.share(index);
                // Shares are disjoint: no two have both a strip and a block in common.
                tier.enter(Share::<$finish> {
                    plan: &plan,
                    operands: &operands,
                    weights,
                    columns,
                    store: &store,
                    direct: kind.is_some(),
                    out: target.out,
                    strips,
                    blocks,
                    mem,
                    finish: PhantomData,
                });
            })
        };
    }
    // The whole share is compiled for its kind: in one function for all, the loops would not keep
    // what they need in registers.
    match kind {
        None | Some(Kind::Sums) => shares!(Sums),
        Some(Kind::Floats) => shares!(Floats),
        Some(Kind::Bytes) => shares!(Bytes),
    }
    Ok(())
}

/// Fills the arrays of column data.
struct SetColumns<'a, 'm> {
    operands: &'a Operands<'a>,
    plan: &'a Plan,
    mem: &'m mut [Line],
    /// Whether scales and biases stay in the order of the channels.
    in_order: bool,
}

/// Copies one value a channel into the order of the sums.
#[inline(always)]
fn arrange<L: DepthwiseLanes, E: Copy + Default>(plan: &Plan, to: &mut [E], from: &[E]) {
    for (b, to) in to.chunks_exact_mut(4 * L::WORDS).enumerate() {
        let block = plan.cut.block(b);
        let from = &from[block.first..][..block.channels];
        let quads = to.as_chunks_mut::<4>().0;
        for_words(
            block.width,
            L::WORDS,
            quads.iter_mut(),
            |to, first| match from.get(first..first + 4) {
                Some(from) => to.copy_from_slice(from),
                None => {
                    *to =
                        core::array::from_fn(|i| from.get(first + i).copied().unwrap_or_default());
                }
            },
        );
    }
}

impl<'m> Task for SetColumns<'_, 'm> {
    type Output = Columns<'m>;

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) -> Columns<'m> {
        let Operands {
            weights,
            geometry: Geometry { y, x, .. },
            zero_point,
            weight_zero_points,
            epilogue,
            ..
        } = self.operands;
        let plan = self.plan;
        let words: &mut [i32] = bytemuck::cast_slice_mut(self.mem);
        let size = plan.blocks * 4 * T::Depthwise::WORDS;
        debug_assert!(words.len() >= COLUMN_ARRAYS * size);
        let (init, words) = words.split_at_mut(size);
        let (minus, words) = words.split_at_mut(size);
        let (scale, words) = words.split_at_mut(size);
        let bias: &mut [f32] = bytemuck::cast_slice_mut(&mut words[..size]);
        let scale: &mut [f32] = bytemuck::cast_slice_mut(scale);

        let zeros = match weight_zero_points {
            ZeroPoint::Tensor(z) => *z == 0,
            ZeroPoint::Vector(z) => z.iter().all(|&z| z == 0),
        };
        // Everything is modulo 2^32: only the finished sums are known to fit. The number of taps
        // was checked against i32 by the depth bound.
        let factor = zero_point
            .wrapping_add(self.operands.flip.into())
            .wrapping_neg();
        let taps = (y.kernel * x.kernel) as i32;
        arrange::<T::Depthwise, _>(plan, init, weights.sums());
        if !zeros {
            match weight_zero_points {
                ZeroPoint::Tensor(z) => minus.fill(*z),
                ZeroPoint::Vector(z) => arrange::<T::Depthwise, _>(plan, minus, z),
            }
            for (init, minus) in init.iter_mut().zip(&mut *minus) {
                *init = init.wrapping_sub(minus.wrapping_mul(taps));
                *minus = minus.wrapping_neg();
            }
        }
        for init in &mut *init {
            *init = init.wrapping_mul(factor);
        }
        if let Some(bias) = epilogue.bias {
            // The place of the scales is free until they are set.
            let arranged: &mut [i32] = bytemuck::cast_slice_mut(scale);
            arrange::<T::Depthwise, _>(plan, arranged, bias);
            for (init, bias) in init.iter_mut().zip(arranged) {
                *init = init.wrapping_add(*bias);
            }
        }
        match epilogue.scale {
            Scale::None => scale.fill(1.0),
            Scale::Tensor(s) => scale.fill(s),
            Scale::Channel(s) if self.in_order => scale[..s.len()].copy_from_slice(s),
            Scale::Channel(s) => arrange::<T::Depthwise, _>(plan, scale, s),
        }
        let bias = epilogue.bias_f32.map(|b| {
            if self.in_order {
                bias[..b.len()].copy_from_slice(b);
            } else {
                arrange::<T::Depthwise, _>(plan, bias, b);
            }
            &*bias
        });
        Columns {
            init,
            scale,
            bias,
            minus_zero_points: (!zeros).then_some(&*minus),
        }
    }
}

/// One share of the output.
struct Share<'a, F> {
    plan: &'a Plan,
    operands: &'a Operands<'a>,
    weights: &'a [i32],
    columns: Columns<'a>,
    store: &'a Store<'a>,
    /// Whether what the lanes make is the output; else sums, which go through memory.
    direct: bool,
    out: Out<'a>,
    finish: PhantomData<F>,
    strips: Range<usize>,
    blocks: Range<usize>,
    mem: &'a mut [Line],
}

impl<F: Finish> Task for Share<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, tier: T) {
        let (plan, operands) = (self.plan, self.operands);
        let (words, mem) = self.mem.split_at_mut(plan.word_lines);
        let (taps, mem) = mem.split_at_mut(plan.tap_lines);
        let (spans, mem) = mem.split_at_mut(plan.span_lines);
        let (ones, mem) = mem.split_at_mut(plan.one_lines);
        let (acc, mem) = mem.split_at_mut(plan.acc_lines);
        let padding: &mut [u8] = bytemuck::cast_slice_mut(&mut mem[..1]);
        // The low byte is all of it: the zero point is a value of A.
        padding.fill(operands.zero_point as u8);
        let geometry = &operands.geometry;
        let count = plan.cut.groups * geometry.x.kernel;
        let ones: &mut [i32] = &mut bytemuck::cast_slice_mut(ones)[..count * plan.cut.rows];
        if self.columns.minus_zero_points.is_some() {
            set_ones::<T::Depthwise>(plan, geometry, ones);
        }
        let mut strips = Strips::<_, F> {
            lanes: tier.depthwise(),
            plan,
            operands,
            weights: self.weights,
            columns: self.columns,
            store: self.store,
            direct: self.direct,
            out: self.out,
            finish: PhantomData,
            acc: bytemuck::cast_slice_mut(acc),
            words: bytemuck::cast_slice_mut(words),
            taps: &mut bytemuck::cast_slice_mut(taps)[..2 * count],
            turn: 0,
            spans: &mut bytemuck::cast_slice_mut(spans)[..plan.phases],
            ones,
            padding,
        };
        // Where no words are carried from strip to strip, the blocks of a strip follow each other: what
        // they store is a stretch of memory, or several pixels would compete for one set of L1.
        let most = if plan.carries { 1 } else { plan.blocks };
        let mut blocks = self.blocks;
        while blocks.start < blocks.end {
            let alike = plan
                .cut
                .alike(blocks.start..blocks.end.min(blocks.start + most));
            blocks.start = alike.end;
            let block = plan.cut.block(alike.start);
            strips.set_taps(block);
            for start in (0..geometry.x.output).step_by(plan.segment) {
                let cols = start..geometry.x.output.min(start + plan.segment);
                strips.set_spans(block, cols.clone());
                let first = self.strips.start;
                let (mut image, mut strip) = (first / plan.image_strips, first % plan.image_strips);
                for i in self.strips.clone() {
                    let follows = i > first && strip > 0;
                    let mut block = block;
                    for b in alike.clone() {
                        let row = strip * plan.rows;
                        strips.segment(b, block, image, row, cols.clone(), follows);
                        block.first += block.channels;
                    }
                    strip += 1;
                    if strip == plan.image_strips {
                        (image, strip) = (image + 1, 0);
                    }
                }
            }
        }
    }
}

/// Words of ones where a tap has a weight, by tap and output row.
#[inline(always)]
fn set_ones<L: DepthwiseLanes>(plan: &Plan, geometry: &Geometry, ones: &mut [i32]) {
    for (i, one) in ones.iter_mut().enumerate() {
        let (tap, row) = (i / plan.cut.rows, i % plan.cut.rows);
        let group = tap / geometry.x.kernel;
        *one = word::<L>((0..L::GROUP).map(|i| {
            let ky = (group * L::GROUP + i).checked_sub(row);
            i32::from(ky.is_some_and(|ky| ky < geometry.y.kernel))
        }));
    }
}

/// Pixels of a segment, one stride apart.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Span {
    /// From this one up to that one they lie in the image.
    from: usize,
    to: usize,
    /// Columns of the image at these ends, the last one included.
    first: usize,
    last: usize,
}

/// What the loops of a share have in common.
struct Strips<'a, L, F> {
    lanes: L,
    plan: &'a Plan,
    operands: &'a Operands<'a>,
    weights: &'a [i32],
    columns: Columns<'a>,
    store: &'a Store<'a>,
    /// Whether what the lanes make is the output; else sums, which go through memory.
    direct: bool,
    out: Out<'a>,
    finish: PhantomData<F>,
    /// Interleaved rows: by group, phase and vector.
    words: &'a mut [i32],
    /// Where the words of a tap start: by group, then column, all of them twice.
    taps: &'a mut [usize],
    /// Where the words of the first group are, counted in groups: those of the others follow, around
    /// the end.
    turn: usize,
    /// By phase: which pixels of the segment at hand lie in the image.
    spans: &'a mut [Span],
    ones: &'a [i32],
    /// Sums of a segment, where lanes do not finish them.
    acc: &'a mut [i32],
    /// A pixel of padding.
    padding: &'a [u8],
}

impl<L: DepthwiseLanes, F: Finish> Strips<'_, L, F> {
    /// Where the words of every tap start, for blocks of this width, from each group on.
    #[inline(always)]
    fn set_taps(&mut self, block: Block) {
        let (plan, axis) = (self.plan, &self.operands.geometry.x);
        for (i, tap) in self.taps.iter_mut().enumerate() {
            let (group, kx) = (i / axis.kernel % plan.cut.groups, i % axis.kernel);
            let phase = group * plan.phases + kx % plan.phases;
            let pixel = kx * axis.dilation / axis.stride;
            *tap = phase * 4 * plan.run + pixel * (block.width / 4);
        }
    }

    /// Which pixels of every phase lie in the image, for a segment of these columns; the words of the
    /// others are padding, for blocks of this width.
    #[inline(always)]
    fn set_spans(&mut self, block: Block, cols: Range<usize>) {
        let fill = self.fill();
        let axis = &self.operands.geometry.x;
        let count = cols.len() + self.plan.reach;
        for (phase, span) in self.spans.iter_mut().enumerate() {
            // Positions in the padded image: `start + i · stride`.
            let start = cols.start * axis.stride + phase * axis.dilation % axis.stride;
            let before = axis.before.saturating_sub(start);
            let after = (axis.before + axis.input).saturating_sub(start);
            let from = before.div_ceil(axis.stride).min(count);
            let to = after.div_ceil(axis.stride).clamp(from, count);
            let first = (start + from * axis.stride).saturating_sub(axis.before);
            *span = Span {
                from,
                to,
                first,
                last: first + (to - from).saturating_sub(1) * axis.stride,
            };
        }
        let pixel = block.width / 4;
        let runs = self.words.chunks_exact_mut(self.plan.run);
        for (run, words) in runs.enumerate() {
            let span = self.spans[run / 4 % self.plan.phases];
            words[..span.from * pixel].fill(fill);
            words[span.to * pixel..count * pixel].fill(fill);
        }
    }

    /// A segment of a strip of rows, for a block of channels; `follows` the same one of the strip
    /// above in the image.
    #[inline(always)]
    fn segment(
        &mut self,
        b: usize,
        block: Block,
        image: usize,
        row: usize,
        cols: Range<usize>,
        follows: bool,
    ) {
        let (plan, geometry) = (self.plan, self.operands.geometry);
        let rows = plan.rows.min(geometry.y.output - row);
        let streamed = self.streamed(block, image, row, &cols);
        if streamed.is_none() {
            let there = if follows && plan.carries {
                self.turn = (self.turn + 1) % plan.cut.groups;
                plan.cut.groups - 1
            } else {
                0
            };
            for group in there..plan.cut.groups {
                self.interleave(block, image, row, rows, group);
            }
        }

        let first = (image * geometry.y.output + row) * geometry.x.output + cols.start;
        self.multiply(b, block, first, rows, cols.len(), streamed);
        if !self.direct {
            self.finish(block, first, rows, cols.len());
        }
    }

    /// Multiplies a segment of `count` pixels from pixel `first` of the output on, and stores
    /// what becomes of the sums there, or sums in `acc`.
    #[inline(always)]
    fn multiply(
        &mut self,
        b: usize,
        block: Block,
        first: usize,
        rows: usize,
        count: usize,
        streamed: Option<Stream>,
    ) {
        let direct = self.direct;
        let (plan, width) = (self.plan, self.operands.geometry.x.output);
        let size = 4 * L::WORDS;
        let at = b * size..(b + 1) * size;
        let block_words = plan.cut.block_words::<L>();
        let pixels = size / block.width;
        let element = const { F::KIND.size() };
        let (out_step, row_step) = if direct {
            (self.out.stride(), width * self.out.stride())
        } else {
            (block.width * element, count * block.width * element)
        };
        let upper = if direct {
            // Both ends of the segment are inside the output.
            self.out.place(
                first + (rows - 1) * width + count - 1,
                block.first,
                block.channels,
            );
            self.out.place(first, block.first, block.channels)
        } else {
            self.acc[..rows * count * block.width].as_mut_ptr().cast()
        };
        let pass = Pass {
            words: self.words.as_ptr(),
            run: plan.run,
            taps: &self.taps[self.turn * self.operands.geometry.x.kernel..][..self.taps.len() / 2],
            weights: self.weights[b * block_words..][..block_words].as_ptr(),
            rows: plan.cut.rows,
            init: self.columns.init[at.clone()].as_ptr(),
            scale: self.columns.scale[at.clone()].as_ptr(),
            bias: self.columns.bias.map(|b| b[at.clone()].as_ptr()),
            zero_points: self
                .columns
                .minus_zero_points
                .map(|z| (z[at].as_ptr(), self.ones)),
            pixels,
            pixel_words: block.width / 4,
            count,
            channels: block.channels,
            out_step,
            dense: block.channels == block.width
                && (pixels == 1 || out_step == block.width * element),
        };
        let limits = Limits::new(&self.store.steps);
        if let (true, Some(streamed)) = (L::STREAMS, streamed) {
            // SAFETY: as below; what is streamed was checked when it was made.
            unsafe {
                stream::<L, F>(self.lanes, &pass, streamed, &limits, upper);
            }
            return;
        }
        // SAFETY: the output's segment was just checked, and belongs to this share alone; so was
        // `acc`. The plan made room for the words of every tap at `count` pixels rounded up to
        // what a vector covers; weights and columns were cut to the block.
        unsafe {
            let lower = upper.add((rows - 1) * row_step);
            macro_rules! multiply {
                ($out:expr, $r:literal, $u:literal) => {{
                    if pass.zero_points.is_some() {
                        multiply::<L, F, $r, $u, true>(self.lanes, &pass, &limits, $out)
                    } else {
                        multiply::<L, F, $r, $u, false>(self.lanes, &pass, &limits, $out)
                    }
                }};
            }
            match (rows, L::MANY_REGISTERS) {
                (2, true) => multiply!([upper, lower], 2, 2),
                (2, false) => multiply!([upper, lower], 2, 1),
                (_, true) => multiply!([upper], 1, 4),
                (_, false) => multiply!([upper], 1, 2),
            }
        }
    }

    /// The epilogue of sums in `acc`.
    #[inline(always)]
    fn finish(&mut self, block: Block, first: usize, rows: usize, count: usize) {
        for r in 0..rows {
            let row = first + r * self.operands.geometry.x.output;
            let tile = Tile {
                acc: &self.acc[r * count * block.width..],
                stride: block.width,
                rows: (row..row + count).into(),
                col: block.first,
                cols: block.channels,
                scale: &self.columns.scale[block.first..],
                bias: self.columns.bias.map(|b| &b[block.first..]),
            };
            let out = &self.out;
            // SAFETY: the segment belongs to this share alone, and `store_tile` is done with one
            // part before it asks for the next.
            store_tile(self.store, &tile, |i, at, bytes| unsafe {
                out.part(row + i, block.first + at, bytes)
            });
        }
    }

    /// The input rows of a segment, if their columns can be interleaved when they are multiplied.
    #[inline(always)]
    fn streamed(
        &self,
        block: Block,
        image: usize,
        top: usize,
        cols: &Range<usize>,
    ) -> Option<Stream> {
        let (down, across) = (&self.operands.geometry.y, &self.operands.geometry.x);
        let fits = self.plan.rows == 1
            && (down.kernel, across.kernel) == (STREAMED, STREAMED)
            && (across.stride, across.dilation) == (2, 1)
            && block.channels == 4 * L::WORDS
            && across.input > 0
            && self.columns.minus_zero_points.is_none();
        if !L::STREAMS || !fits {
            return None;
        }
        let row = |start| self.row(start, 0..across.input, 1, block);
        let starts = self.starts(block, image, top, 1, 0);
        let rows = [
            row(starts[0]),
            row(starts[1]),
            row(starts[2]),
            row(starts[3]),
        ];
        let third = match L::GROUP {
            2 => row(self.starts(block, image, top, 1, 1)[0]),
            _ => rows[2],
        };
        Some(Stream {
            rows,
            third,
            width: across.input,
            first: (2 * cols.start).wrapping_sub(across.before),
            padding: self.padding.as_ptr(),
            fill: self.fill(),
            flip: self.operands.flip,
        })
    }

    /// Where the image's rows of a group of taps start, if they lie in the image.
    #[inline(always)]
    fn starts(
        &self,
        block: Block,
        image: usize,
        row: usize,
        rows: usize,
        group: usize,
    ) -> [Option<usize>; 4] {
        let Operands { x, geometry, .. } = self.operands;
        let (down, across) = (&geometry.y, &geometry.x);
        let used = (down.kernel + rows - 1 - group * L::GROUP).min(L::GROUP);
        let start = |i: usize| {
            // A row without a tap has weights of zero: any row will do.
            let ky = group * L::GROUP + if i < used { i } else { 0 };
            let y = down.inside(row * down.stride + ky * down.dilation)?;
            Some((image * down.input + y) * across.input * x.row_stride() + block.first)
        };
        // Written out: of an array that a loop fills, wide loads would wait for narrow stores.
        [start(0), start(1), start(2), start(3)]
    }

    /// The row that starts at `start`, from the first to the last of `pixels`, of which there are
    /// some, in steps of `step`; padding where there is none.
    #[inline(always)]
    fn row(&self, start: Option<usize>, pixels: Range<usize>, step: usize, block: Block) -> Row {
        let stride = self.operands.x.row_stride();
        let data = self.operands.x.data();
        let Some(start) = start else {
            return Row {
                at: self.padding.as_ptr(),
                step: 0,
            };
        };
        assert!(start + (pixels.end - 1) * stride + block.channels <= data.len());
        Row {
            at: data[start + pixels.start * stride..].as_ptr(),
            // Of a single pixel it may be anything.
            step: step.wrapping_mul(stride),
        }
    }

    /// A word of padding.
    #[inline(always)]
    fn fill(&self) -> i32 {
        let byte = i32::from(self.padding[0] ^ self.operands.flip);
        word::<L>([byte; 4].into_iter().take(L::GROUP))
    }

    /// Interleaves the input rows of a group for all phases of a segment.
    #[inline(always)]
    fn interleave(&mut self, block: Block, image: usize, row: usize, rows: usize, group: usize) {
        let (plan, stride) = (self.plan, self.operands.geometry.x.stride);
        let starts = self.starts(block, image, row, rows, group);
        let place = (self.turn + group) % plan.cut.groups;
        let pixel = block.width / 4;
        for (phase, span) in self.spans.iter().enumerate() {
            let at = (place * plan.phases + phase) * 4 * plan.run;
            let words = &mut self.words[at..][..4 * plan.run];
            assert!(span.from <= span.to && span.to * pixel <= plan.run);
            if span.from == span.to {
                continue;
            }
            let to = words.as_mut_ptr();
            let row = |start| self.row(start, span.first..span.last + 1, stride, block);
            let rows = [
                row(starts[0]),
                row(starts[1]),
                row(starts[2]),
                row(starts[3]),
            ];
            // SAFETY: the pixels up to `last` of rows in the image were just checked to lie in
            // its slice; a pixel of padding has room for any block. `words` has four runs, each
            // with room for the pixels of the span, as was just checked.
            unsafe {
                interleave(
                    self.lanes,
                    rows,
                    span.to - span.from,
                    (block.channels, block.width),
                    self.operands.flip,
                    to.add(span.from * pixel),
                    plan.run,
                );
            }
        }
    }
}
