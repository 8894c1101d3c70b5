//! How a depthwise convolution is cut up: a pure function of shape, kernel and threads.

use core::ops::Range;

use super::Geometry;
use super::lanes::DepthwiseLanes;
use super::pack::Cut;
use super::pass::unroll;
use crate::plan::{lines, part, split};
use crate::workspace::Line;

/// Bytes of interleaved rows that a segment may have: they stay in L1 (32 KiB or more) beside the
/// weights and the output.
const SEGMENT_BYTES: usize = 16 << 10;

/// Bytes of sums, of all channels, that a segment may store where words are not carried from strip to
/// strip: they stay in L1 until the blocks have filled each stretch of them, and so do the rows of input
/// that the next strip reads again.
const STORED_BYTES: usize = 16 << 10;

/// How often a multiplication here takes as long as two in a matrix product, at least.
const EFFORT: usize = 2;

/// How a depthwise convolution is cut up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) cut: Cut,
    pub(super) blocks: usize,
    /// Output rows that share interleaved rows: 1 or 2.
    pub(super) rows: usize,
    /// Whether a strip's words are those of the next one a group later: all rows of their groups are
    /// rows of taps, and a strip goes a group down.
    pub(super) carries: bool,
    /// Strips of so many rows in an image, and in all.
    pub(super) image_strips: usize,
    pub(super) strips: usize,
    /// Output pixels of a segment.
    pub(super) segment: usize,
    /// Positions of taps modulo the stride: pixels of each follow each other.
    pub(super) phases: usize,
    /// Pixels of a phase that the last tap sees beyond the first.
    pub(super) reach: usize,
    /// Words from one of four vectors of interleaved pixels to the next.
    pub(super) run: usize,
    /// Shares across strips and across blocks.
    parts: (usize, usize),
    /// Lines of scratch: all columns' data, then for each share interleaved words, places of taps,
    /// spans of phases, words of ones, sums of a segment, and in all.
    pub(super) column_lines: usize,
    pub(super) word_lines: usize,
    pub(super) tap_lines: usize,
    pub(super) span_lines: usize,
    pub(super) one_lines: usize,
    pub(super) acc_lines: usize,
    pub(super) share_lines: usize,
}

/// Arrays of column data: what sums start at, scales, float biases, zero points of the weights.
pub(super) const COLUMN_ARRAYS: usize = 4;

impl Plan {
    pub(super) fn new<L: DepthwiseLanes>(g: &Geometry, channels: usize, threads: usize) -> Plan {
        let kernel = [g.y.kernel, g.x.kernel];
        let cut = Cut::new::<L>(kernel, channels);
        let blocks = cut.count();
        let together = g.y.stride == 1 && g.y.dilation == 1 && g.y.output > 1;
        let rows = if together { cut.rows } else { 1 };
        let carries = rows == L::GROUP
            && (g.y.stride, g.y.dilation) == (1, 1)
            && (g.y.kernel + rows - 1).is_multiple_of(L::GROUP);
        let image_strips = g.y.output.div_ceil(rows);
        let strips = image_strips.saturating_mul(g.images);

        let phases = (g.x.stride / gcd(g.x.stride, g.x.dilation)).min(g.x.kernel);
        let reach = (g.x.kernel - 1) * g.x.dilation / g.x.stride;
        let widest = 4 * L::WORDS;
        let pixel_bytes = cut
            .groups
            .saturating_mul(phases)
            .saturating_mul(widest * size_of::<i32>());
        let mut fitting = (SEGMENT_BYTES / pixel_bytes.max(1)).saturating_sub(reach);
        if together && !carries {
            let stored = channels.saturating_mul(rows * size_of::<i32>());
            fitting = fitting.min(STORED_BYTES / stored.max(1));
        }
        let fitting = fitting.max(16);
        let segments = g.x.output.div_ceil(fitting).max(1);
        let segment = g.x.output.div_ceil(segments);

        // A vector of narrow blocks covers up to `widest / 16` pixels.
        let step = unroll::<L>(1).max(unroll::<L>(2)) * (widest / super::lanes::LANE);
        let pixels = segment.next_multiple_of(step).saturating_add(reach);
        // An odd number of cache lines, so that the four vectors do not compete for one set of L1.
        let run_lines = lines(pixels.saturating_mul(widest / 4), size_of::<i32>()) | 1;
        let run = run_lines.saturating_mul(size_of::<Line>() / size_of::<i32>());

        let work = strips
            .saturating_mul(rows * g.x.output)
            .saturating_mul(channels)
            .saturating_mul(kernel[0].saturating_mul(kernel[1]));
        let parts = split(strips, blocks, work.saturating_mul(EFFORT), threads);
        let taps = cut.groups.saturating_mul(g.x.kernel);
        let word_lines = run_lines
            .saturating_mul(4 * phases)
            .saturating_mul(cut.groups);
        // Twice, so that they may start at any group.
        let tap_lines = lines(taps.saturating_mul(2), size_of::<usize>());
        let span_lines = lines(phases, size_of::<super::driver::Span>());
        let one_lines = lines(taps.saturating_mul(cut.rows), size_of::<i32>());
        let acc = segment.saturating_mul(rows * widest);
        let acc_lines = lines(acc, size_of::<i32>());
        Plan {
            cut,
            blocks,
            rows,
            carries,
            image_strips,
            strips,
            segment,
            phases,
            reach,
            run,
            parts,
            column_lines: lines(
                blocks.saturating_mul(widest),
                size_of::<i32>() * COLUMN_ARRAYS,
            ),
            word_lines,
            tap_lines,
            span_lines,
            one_lines,
            acc_lines,
            // The last line of a share is a pixel of padding.
            share_lines: word_lines
                .saturating_add(tap_lines)
                .saturating_add(span_lines)
                .saturating_add(one_lines)
                .saturating_add(acc_lines)
                .saturating_add(1),
        }
    }

    pub(super) fn shares(&self) -> usize {
        self.parts.0 * self.parts.1
    }

    /// Strips and blocks of share `s`.
    pub(super) fn share(&self, s: usize) -> (Range<usize>, Range<usize>) {
        (
            part(self.strips, self.parts.0, s / self.parts.1),
            part(self.blocks, self.parts.1, s % self.parts.1),
        )
    }

    /// Lines of scratch that the whole call needs.
    pub(super) fn total_lines(&self) -> usize {
        self.share_lines
            .saturating_mul(self.shares())
            .saturating_add(self.column_lines)
    }

    pub(super) fn bytes(&self) -> usize {
        self.total_lines().saturating_mul(size_of::<Line>())
    }
}

/// Greatest common divisor; neither is 0.
fn gcd(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
