//! How a direct convolution is cut up, and what it copies: a pure function of shape and kernel.

use core::any::TypeId;

use crate::conv_shape::Axis;
use crate::kernel::{Microkernel, Segment};
use crate::plan::{Plan, lines, split, tallest};
use crate::select::VisitKernel;

/// Bytes of the image that a block of lines may read, so that they stay in L2 beside a panel of B.
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// The most bytes that are copied at a time: the least that one line of outputs reads can be more than
/// [`BLOCK_BYTES`].
const MAX_COPY: usize = 4 << 20;

/// Whether the kernel sums over stretches of rows.
fn takes_stretches<K: Microkernel>() -> bool {
    K::SEGMENTS && K::LHS_ROWS == 1 && K::UNSIGNED_LHS_SHIFT == 0
}

/// Whether the kernel reads images as they are, in groups that it multiplies as bytes.
pub(super) fn reads_bytes<K: Microkernel>() -> bool {
    let bytes = TypeId::of::<K::Lhs>() == TypeId::of::<u8>();
    takes_stretches::<K>() && bytes && (K::SHIFTS || K::SIGNED_LHS_SHIFT == 0)
}

/// Whether the kernel reads images whose bytes were widened.
fn reads_widened<K: Microkernel>() -> bool {
    let wide = TypeId::of::<K::Lhs>() == TypeId::of::<i16>();
    takes_stretches::<K>() && wide && K::SIGNED_LHS_SHIFT == 0
}

/// Whether the kernel can convolve directly.
fn reads<K: Microkernel>() -> bool {
    reads_bytes::<K>() || reads_widened::<K>()
}

/// Elements of a group of the kernel if it can convolve directly, else 1.
pub(crate) struct Group;

impl VisitKernel for Group {
    type Output = usize;

    fn visit<K: Microkernel>(self, _tier: K::Home) -> usize {
        if reads::<K>() { K::KG } else { 1 }
    }
}

/// Where the places of a kernel are, as far as a plan needs it.
pub(crate) struct Places {
    pub(crate) y: Axis,
    pub(crate) x: Axis,
    /// Channels of a group.
    pub(crate) channels: usize,
    /// Elements of a row of places as it is packed.
    pub(crate) taps_row: usize,
    /// Whether an output's channels lie side by side in the image.
    pub(crate) in_place: bool,
}

/// How lines of the image are copied.
#[derive(Clone, Copy)]
pub(super) struct Copied {
    /// Pixels of a line, padding included.
    pub(super) width: usize,
    /// Lines of outputs that one copy serves.
    pub(super) block: usize,
    /// Lines of scratch.
    pub(super) lines: usize,
    /// Lines of scratch for a line of the image before it is widened.
    pub(super) line_lines: usize,
}

impl Copied {
    /// The copies for a kernel; `None` where they would be large, or where a group would not end with
    /// its row of places.
    fn new<K: Microkernel>(places: &Places) -> Option<Copied> {
        let Places {
            y, x, channels: c, ..
        } = *places;
        let ends = c.is_multiple_of(K::KG)
            || x.dilation == 1 && (y.kernel == 1 || places.taps_row.is_multiple_of(K::KG));
        if !ends || x.output == 0 || y.output == 0 {
            return None;
        }
        let width = (x.output - 1) * x.stride + (x.kernel - 1) * x.dilation + 1;
        let row = width.checked_mul(c)?;
        let span = (y.kernel - 1) * y.dilation + 1;
        // What one more line of outputs reads, in bytes.
        let more = row
            .checked_mul(y.stride)?
            .checked_mul(size_of::<K::Lhs>())?;
        let first = row.checked_mul(span)?.checked_add(K::KG)?;
        let first = first.checked_mul(size_of::<K::Lhs>())?;
        let fits = BLOCK_BYTES.saturating_sub(first) / more.max(1);
        let block = fits.min(y.output - 1) + 1;
        let bytes = (block - 1).checked_mul(more)?.checked_add(first)?;
        (bytes <= MAX_COPY).then(|| Copied {
            width,
            block,
            lines: lines(bytes, 1),
            line_lines: if reads_bytes::<K>() { 0 } else { lines(row, 1) },
        })
    }
}

/// How the work is cut up.
pub(crate) struct DirectPlan {
    pub(super) plan: Plan,
    pub(super) parts: (usize, usize),
    pub(super) taps: usize,
    /// Lines of scratch for a panel of B as the kernel unpacks it.
    pub(super) unpack_lines: usize,
    pub(super) copied: Option<Copied>,
    pub(super) share_lines: usize,
}

impl DirectPlan {
    /// The plan for a kernel, `None` where it cannot do that; `count` lines of outputs in all.
    pub(crate) fn new<K: Microkernel>(
        places: &Places,
        count: usize,
        n: usize,
        threads: usize,
    ) -> Option<DirectPlan> {
        if !reads::<K>() {
            return None;
        }
        let Places { y, x, channels, .. } = *places;
        let in_place = places.in_place && channels.is_multiple_of(K::KG);
        let copied = if in_place && reads_bytes::<K>() {
            None
        } else {
            Some(Copied::new::<K>(places)?)
        };
        let k = y.kernel.checked_mul(places.taps_row)?;
        let taps = y.kernel.checked_mul(x.kernel)?;
        let m = count.checked_mul(x.output)?;
        let plan = Plan::new::<K>(m, n, k, 1);
        let work = m.saturating_mul(n).saturating_mul(k);
        let parts = split(count, n.div_ceil(K::NR), work, threads);
        let unpack_lines = lines(plan.depth.saturating_mul(K::NR), K::UNPACKED);
        let share_lines = lines(tallest::<K>() * plan.acc_stride, size_of::<i32>())
            .saturating_add(lines(plan.acc_stride, size_of::<i32>()))
            .saturating_add(lines(taps, size_of::<Segment>()))
            .saturating_add(unpack_lines)
            .saturating_add(copied.map_or(0, |copied| copied.lines + copied.line_lines));
        Some(DirectPlan {
            plan,
            parts,
            taps,
            unpack_lines,
            copied,
            share_lines,
        })
    }

    /// Lines of scratch that the whole call needs.
    pub(crate) fn total_lines(&self) -> usize {
        self.share_lines
            .saturating_mul(self.parts.0 * self.parts.1)
            .saturating_add(self.plan.column_lines)
    }
}
