//! The two loops of a depthwise convolution: rows interleaved, then multiplied.
//!
//! ```text
//! for a strip of one or two output rows, a segment of its columns and a block of channels
//!   interleave the input rows into words: one byte of each row of taps    fits L1
//!   for a few output pixels                                               sums in registers
//!     for a group of rows of taps, for a column of taps
//!       sums += word · weights
//!     epilogue
//! ```
//!
//! At a stride of two words serve one output each, or two at most, and are multiplied where they are
//! made ([`stream`]).
//!
//! Interleaving rows (not pixels of a row) is what makes it cheap: a word serves every tap of its
//! column, and both output rows where strides and dilations are 1. Words are stored by vector
//! first, then by pixel, so that pixels one stride apart follow each other, and a vector wider
//! than a block covers several pixels.

use super::lanes::{DepthwiseLanes, Finish, Kind, LANE, Limits};

/// Output pixels that a block of sums covers, by vectors of the widest kind.
pub(super) const fn unroll<L: DepthwiseLanes>(rows: usize) -> usize {
    match (L::MANY_REGISTERS, rows) {
        (true, 1) => 4,
        (true, _) | (false, 1) => 2,
        (false, _) => 1,
    }
}

/// One row of input for interleaving: bytes of a pixel, and how far it is to the next.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) at: *const u8,
    pub(super) step: usize,
}

/// Interleaves `count` pixels of the rows of a group.
///
/// # Safety
///
/// Each pixel of each of the first `GROUP` rows is valid for reads of `channels` bytes, and `out`
/// for writes of `3 · run + count · width / 4` words.
#[inline(always)]
pub(super) unsafe fn interleave<L: DepthwiseLanes>(
    lanes: L,
    rows: [Row; 4],
    count: usize,
    (channels, width): (usize, usize),
    flip: u8,
    out: *mut i32,
    run: usize,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        match (channels == width, width) {
            (true, 64) => whole::<L, 64>(lanes, rows, count, flip, out, run),
            (true, 32) => whole::<L, 32>(lanes, rows, count, flip, out, run),
            (true, _) => whole::<L, 16>(lanes, rows, count, flip, out, run),
            (false, 64) => part::<L, 64>(lanes, rows, count, channels, flip, out, run),
            (false, 32) => part::<L, 32>(lanes, rows, count, channels, flip, out, run),
            (false, _) => part::<L, 16>(lanes, rows, count, channels, flip, out, run),
        }
    }
}

/// # Safety
///
/// As [`interleave`], for whole blocks of `W` channels.
#[inline(always)]
unsafe fn whole<L: DepthwiseLanes, const W: usize>(
    lanes: L,
    rows: [Row; 4],
    count: usize,
    flip: u8,
    out: *mut i32,
    run: usize,
) {
    let step = rows[0].step;
    // One step for all rows is one register instead of four; only rows of padding have another.
    if rows.iter().take(L::GROUP).all(|r| r.step == step) {
        let starts = rows.map(|r| r.at);
        for i in 0..count {
            // SAFETY: pixel `i < count`, as promised by the caller.
            unsafe {
                let rows = starts.map(|at| at.wrapping_add(i * step));
                lanes.interleave::<W>(rows, flip, out.add(i * (W / 4)), run);
            }
        }
        return;
    }
    for i in 0..count {
        // SAFETY: pixel `i < count`, as promised by the caller.
        unsafe {
            let rows = rows.map(|r| r.at.wrapping_add(i * r.step));
            lanes.interleave::<W>(rows, flip, out.add(i * (W / 4)), run);
        }
    }
}

/// # Safety
///
/// As [`interleave`], for fewer than `W` channels: none beyond them is read.
#[inline(always)]
unsafe fn part<L: DepthwiseLanes, const W: usize>(
    lanes: L,
    rows: [Row; 4],
    count: usize,
    channels: usize,
    flip: u8,
    out: *mut i32,
    run: usize,
) {
    let channels = channels.min(W);
    let mut copies = [[0u8; W]; 4];
    for i in 0..count {
        for (copy, row) in copies.iter_mut().zip(rows).take(L::GROUP) {
            // SAFETY: `channels` bytes of pixel `i < count`, as promised by the caller.
            let from = unsafe { core::slice::from_raw_parts(row.at.add(i * row.step), channels) };
            copy[..channels].copy_from_slice(from);
        }
        // SAFETY: the copies hold `W` bytes; `out` as promised by the caller.
        unsafe {
            let rows = core::array::from_fn(|r| copies[r].as_ptr());
            lanes.interleave::<W>(rows, flip, out.add(i * (W / 4)), run);
        }
    }
}

/// What all pixels of a pass have in common. All pointers are to `4 · WORDS` elements in the order
/// of the sums.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    /// Words, and how far it is from one of the four vectors to the next.
    pub(super) words: *const i32,
    pub(super) run: usize,
    /// Where the words of a tap start: by group, then column.
    pub(super) taps: &'a [usize],
    /// Weights: by tap, then output row; `rows` of them are there.
    pub(super) weights: *const i32,
    pub(super) rows: usize,
    /// What the sums start at.
    pub(super) init: *const i32,
    pub(super) scale: *const f32,
    pub(super) bias: Option<*const f32>,
    /// Zero points of the weights, negated, and words of ones by tap and output row, where they
    /// are not all zero.
    pub(super) zero_points: Option<(*const i32, &'a [i32])>,
    /// Pixels that a vector covers, and words of one pixel in it.
    pub(super) pixels: usize,
    pub(super) pixel_words: usize,
    /// Output pixels of a row.
    pub(super) count: usize,
    /// Channels of the block, and bytes from an output pixel to the next.
    pub(super) channels: usize,
    pub(super) out_step: usize,
    /// Whether whole vectors of output can be stored at once.
    pub(super) dense: bool,
}

/// Multiplies and finishes a segment of `R` output rows, `U` vectors of pixels at a time; `Z`:
/// with zero points of the weights.
///
/// # Safety
///
/// The pointers of `p` are valid for what it says: for every tap, words for the pixels of
/// `count` rounded up to `pixels · U`, in four runs. Each `out` is valid for writes of `channels`
/// elements at each of `count` pixels and borrowed exclusively.
#[inline(always)]
pub(super) unsafe fn multiply<
    L: DepthwiseLanes,
    F: Finish,
    const R: usize,
    const U: usize,
    const Z: bool,
>(
    lanes: L,
    p: &Pass<'_>,
    limits: &Limits,
    out: [*mut u8; R],
) {
    let step = p.pixels * U;
    let mut x = 0;
    if p.dense && p.count >= step {
        loop {
            // SAFETY: as promised by the caller, for `step` pixels from `x` on, all of which are
            // there.
            unsafe {
                let sums = sums::<L, R, U, Z>(lanes, p, x);
                // Unrolled by hand: in a loop the sums would have to be in memory.
                macro_rules! finish {
                    ($r:literal: $($u:literal)*) => {$(
                        if $r < R && $u < U {
                            let out = out[$r].add((x + $u * p.pixels) * p.out_step);
                            finish::<L, F>(lanes, p, limits, sums[$r][$u], out);
                        }
                    )*};
                }
                const { assert!(R <= 2 && U <= 4, "rows and vectors are unrolled by hand") };
                finish!(0: 0 1 2 3);
                finish!(1: 0 1 2 3);
            }
            if x + step == p.count {
                return;
            }
            // The last ones may be done twice, which costs less than a step of its own kind.
            x = (x + step).min(p.count - step);
        }
    }
    while x < p.count {
        let mut all = Elements([0; 256]);
        // SAFETY: as promised by the caller; `all` holds `4 · WORDS` elements of any kind, and no
        // more pixels than are left are copied from it.
        unsafe {
            let sums = sums::<L, R, U, Z>(lanes, p, x);
            for (sums, out) in sums.into_iter().zip(out) {
                for (u, sums) in sums.into_iter().enumerate() {
                    let first = (x + u * p.pixels).min(p.count);
                    finish::<L, F>(lanes, p, limits, sums, all.0.as_mut_ptr());
                    scatter::<F>(p, &all, p.count - first, out.add(first * p.out_step));
                }
            }
        }
        x += step;
    }
}

/// Rows and columns of taps that [`stream`] multiplies.
pub(super) const STREAMED: usize = 3;

/// Rows whose columns are interleaved when they are multiplied.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    /// The rows of taps in the first word, from the image's first column on.
    pub(super) rows: [Row; 4],
    /// The third row, which a word of two has no place for.
    pub(super) third: Row,
    /// Columns of the image, and which of them the first tap sees: before the image it wraps.
    pub(super) width: usize,
    pub(super) first: usize,
    /// A pixel and a word of padding.
    pub(super) padding: *const u8,
    pub(super) fill: i32,
    pub(super) flip: u8,
}

/// [`multiply`] of three by three taps at a stride of two, for vectors that cover one pixel: of the
/// words of a column one output needs, a half serves the next and no other. Multiplied for both when
/// they are made, they are neither stored nor read again.
///
/// Where words hold two rows, those of the third row hold two columns instead: of the three that an
/// output needs two are in one word, and the other is in that of the next output.
///
/// # Safety
///
/// The pointers of `p` but its words are valid for what it says. Each pixel of the image's columns
/// of each of the first `GROUP` rows, and of the third one where `GROUP` is 2, is valid for reads of
/// `4 · WORDS` bytes, as is `padding`; and `out` for writes of as many elements at each of `count`
/// pixels, borrowed exclusively.
#[inline(always)]
pub(super) unsafe fn stream<L: DepthwiseLanes, F: Finish>(
    lanes: L,
    p: &Pass<'_>,
    s: Stream,
    limits: &Limits,
    out: *mut u8,
) {
    let size = 4 * L::WORDS;
    // SAFETY: as promised by the caller; `x` is a column of the image.
    unsafe {
        let weights = |t: usize| p.weights.add(t * p.rows * size);
        // Held in registers if there are enough of them.
        let mut held = [[lanes.splat(0); 4]; STREAMED];
        if L::MANY_REGISTERS {
            for (t, held) in held.iter_mut().enumerate() {
                *held = quad(lanes, weights(t), L::WORDS);
            }
        }
        let mut pairs = Elements([0; 256]);
        let pairs: *mut i32 = pairs.0.as_mut_ptr().cast();
        let last = if const { thirds::<L>() } {
            for i in 0..size {
                let (low, high) = (*weights(STREAMED).add(i), *weights(STREAMED + 1).add(i));
                pairs.add(i).write(low & 0xffff | high << 16);
            }
            weights(STREAMED + 2)
        } else {
            pairs
        };
        let mut x = s.first;
        let mut next = quad(lanes, p.init, L::WORDS);
        next = add(lanes, next, words(lanes, &s, x), held[0], weights(0));
        if const { thirds::<L>() } {
            next = dots(
                lanes,
                next,
                third(lanes, &s, x),
                quad(lanes, pairs, L::WORDS),
            );
        }
        for i in 0..p.count {
            let mut sums = next;
            next = quad(lanes, p.init, L::WORDS);
            let middle = words(lanes, &s, x.wrapping_add(1));
            sums = add(lanes, sums, middle, held[1], weights(1));
            let right = words(lanes, &s, x.wrapping_add(2));
            sums = add(lanes, sums, right, held[2], weights(2));
            next = add(lanes, next, right, held[0], weights(0));
            if const { thirds::<L>() } {
                let right = third(lanes, &s, x.wrapping_add(2));
                sums = dots(lanes, sums, right, quad(lanes, last, L::WORDS));
                next = dots(lanes, next, right, quad(lanes, pairs, L::WORDS));
            }
            finish::<L, F>(lanes, p, limits, sums, out.add(i * p.out_step));
            x = x.wrapping_add(2);
        }
    }
}

/// Whether the third row has words of its own.
const fn thirds<L: DepthwiseLanes>() -> bool {
    L::GROUP < STREAMED
}

/// The words of column `x` of the first rows; padding outside of the image.
///
/// # Safety
///
/// As [`stream`].
#[inline(always)]
unsafe fn words<L: DepthwiseLanes>(lanes: L, s: &Stream, x: usize) -> [L::Vector; 4] {
    if x < s.width {
        let rows = s.rows.map(|row| row.at.wrapping_add(x * row.step));
        // SAFETY: as promised by the caller.
        unsafe { lanes.words(rows, s.flip) }
    } else {
        [lanes.splat(s.fill); 4]
    }
}

/// The words of columns `x` and `x + 1` of the third row.
///
/// # Safety
///
/// As [`stream`].
#[inline(always)]
unsafe fn third<L: DepthwiseLanes>(lanes: L, s: &Stream, x: usize) -> [L::Vector; 4] {
    let pixel = |x: usize| {
        if x < s.width {
            s.third.at.wrapping_add(x * s.third.step)
        } else {
            s.padding
        }
    };
    let (left, right) = (pixel(x), pixel(x.wrapping_add(1)));
    // SAFETY: as promised by the caller; of four rows the first two are read.
    unsafe { lanes.words([left, right, left, right], s.flip) }
}

/// `sums + words · weights`, with weights that are held in registers or lie at `at`.
///
/// # Safety
///
/// `at` is valid for reads of `4 · WORDS` elements.
#[inline(always)]
unsafe fn add<L: DepthwiseLanes>(
    lanes: L,
    sums: [L::Vector; 4],
    words: [L::Vector; 4],
    held: [L::Vector; 4],
    at: *const i32,
) -> [L::Vector; 4] {
    if L::MANY_REGISTERS {
        dots(lanes, sums, words, held)
    } else {
        // SAFETY: as promised by the caller.
        dots(lanes, sums, words, unsafe { quad(lanes, at, L::WORDS) })
    }
}

/// `sums + words · weights`.
#[inline(always)]
fn dots<L: DepthwiseLanes>(
    lanes: L,
    sums: [L::Vector; 4],
    words: [L::Vector; 4],
    weights: [L::Vector; 4],
) -> [L::Vector; 4] {
    [
        lanes.dot(sums[0], words[0], weights[0]),
        lanes.dot(sums[1], words[1], weights[1]),
        lanes.dot(sums[2], words[2], weights[2]),
        lanes.dot(sums[3], words[3], weights[3]),
    ]
}

/// The sums of `R` rows of `U` vectors of pixels from `x` on.
///
/// # Safety
///
/// As [`multiply`] for these pixels.
#[inline(always)]
unsafe fn sums<L: DepthwiseLanes, const R: usize, const U: usize, const Z: bool>(
    lanes: L,
    p: &Pass<'_>,
    x: usize,
) -> [[[L::Vector; 4]; U]; R] {
    let size = 4 * L::WORDS;
    // SAFETY: pixels `x .. x + pixels · U` of every tap, its weights, and column data, all of
    // which the caller promised.
    unsafe {
        let init = quad(lanes, p.init, L::WORDS);
        let mut sums = [[init; U]; R];
        for (t, &tap) in p.taps.iter().enumerate() {
            let words = p.words.add(tap + x * p.pixel_words);
            let weights = p.weights.add(t * p.rows * size);
            for j in 0..4 {
                let a: [L::Vector; U] =
                    core::array::from_fn(|u| lanes.load(words.add(j * p.run + u * L::WORDS)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let w = lanes.load(weights.add(r * size + j * L::WORDS));
                    for (sums, &a) in sums.iter_mut().zip(&a) {
                        sums[j] = lanes.dot(sums[j], a, w);
                    }
                }
            }
        }
        if let (true, Some(zero_points)) = (Z, p.zero_points) {
            take_zero_points_off::<L, R, U>(lanes, p, zero_points, x, &mut sums);
        }
        sums
    }
}

/// Four vectors that follow each other.
///
/// # Safety
///
/// `p` is valid for reads of `3 · run + WORDS` elements.
#[inline(always)]
unsafe fn quad<L: DepthwiseLanes>(lanes: L, p: *const i32, run: usize) -> [L::Vector; 4] {
    // SAFETY: as promised by the caller. Written out: a closure is at times compiled outside of the
    // tier's door.
    unsafe {
        [
            lanes.load(p),
            lanes.load(p.add(run)),
            lanes.load(p.add(2 * run)),
            lanes.load(p.add(3 * run)),
        ]
    }
}

/// Adds `−Z_w · Σ x` of the window to the sums.
///
/// # Safety
///
/// As [`multiply`] for the pixels from `x` on.
#[inline(always)]
unsafe fn take_zero_points_off<L: DepthwiseLanes, const R: usize, const U: usize>(
    lanes: L,
    p: &Pass<'_>,
    (minus, ones): (*const i32, &[i32]),
    x: usize,
    sums: &mut [[[L::Vector; 4]; U]; R],
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        for (u, sums) in sums.iter_mut().enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                let mut window = lanes.splat(0);
                for (t, &tap) in p.taps.iter().enumerate() {
                    // SAFETY: as promised by the caller.
                    let a = unsafe {
                        let words = p.words.add(tap + x * p.pixel_words);
                        lanes.load(words.add(j * p.run + u * L::WORDS))
                    };
                    window = lanes.dot(window, a, lanes.splat(ones[t * p.rows + r]));
                }
                // SAFETY: as promised by the caller.
                let minus = unsafe { lanes.load(minus.add(j * L::WORDS)) };
                *sum = lanes.multiply_add(*sum, window, minus);
            }
        }
    }
}

/// Finishes a quad of sums.
///
/// # Safety
///
/// As [`multiply`]; `out` is valid for writes of `4 · WORDS` elements.
#[inline(always)]
unsafe fn finish<L: DepthwiseLanes, F: Finish>(
    lanes: L,
    p: &Pass<'_>,
    limits: &Limits,
    sums: [L::Vector; 4],
    out: *mut u8,
) {
    // SAFETY: as promised by the caller; elements of sums lie where i32 may.
    unsafe {
        if F::KIND == Kind::Sums {
            lanes.store(sums, out.cast());
        } else {
            lanes.finish::<F>(limits, sums, p.scale, p.bias, out);
        }
    }
}

/// Elements of a quad of the widest sums.
#[repr(align(64))]
struct Elements([u8; 256]);

/// Copies the channels of at most `count` pixels one by one.
///
/// # Safety
///
/// `out` is valid for writes of `channels` elements at each of these pixels.
#[inline(always)]
unsafe fn scatter<F: Finish>(p: &Pass<'_>, from: &Elements, count: usize, out: *mut u8) {
    let size = const { F::KIND.size() };
    let width = 4 * p.pixel_words * size;
    let pixels = from.0.chunks_exact(width).take(count.min(p.pixels));
    for (i, from) in pixels.enumerate() {
        let (whole, rest) = from[..p.channels * size].as_chunks::<LANE>();
        // SAFETY: `channels` elements of pixel `i`, as promised by the caller.
        unsafe {
            let out = out.add(i * p.out_step);
            for (c, whole) in whole.iter().enumerate() {
                out.add(c * LANE)
                    .cast::<[u8; LANE]>()
                    .write_unaligned(*whole);
            }
            let out = out.add(whole.len() * LANE);
            // Bounded, so that it does not become a call of memcpy, around which every vector
            // would have to be in memory.
            for (c, &rest) in rest.iter().enumerate().take(LANE - 1) {
                out.add(c).write(rest);
            }
        }
    }
}
