//! How a product is cut up: a pure function of the shape, the kernel and the number of threads; the rows
//! of a block also of what L2 holds.

use core::ops::Range;

use crate::arch::l2_bytes;
use crate::kernel::{Acc, MAX_ROWS, Microkernel};
use crate::pack::Panels;
use crate::workspace::Line;

/// Columns that the epilogue handles at a time; column data is padded to whole chunks.
pub(crate) const CHUNK: usize = 16;

/// Bytes of A that one block may hold, so that it stays in L2 beside a panel of B and the output's
/// lines: three sixteenths of it, of a small one more. Of 1 MiB (Zen 4), 192 KiB was 1 % faster than 384 KiB at 1024³ and
/// 2048³, and 96 KiB slower than it at 128×768×3072; of 2 MiB (Emerald Rapids), 384 KiB was 2 %
/// faster than 192 KiB and than 768 KiB at 1024³.
fn block_bytes() -> usize {
    (l2_bytes() / 16 * 3).max(192 << 10)
}

/// Multiplications that a share must at least have to be worth another thread: waking one costs
/// some microseconds.
const SHARE_WORK: usize = 1 << 21;

/// Rows of the highest tile.
pub(crate) fn tallest<K: Microkernel>() -> usize {
    K::ROWS.iter().copied().fold(1, usize::max)
}

/// How a product is cut up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// K in whole [units](Microkernel::K_UNIT).
    pub(crate) depth: usize,
    /// Depth of a block in K: whole groups.
    pub(crate) block_depth: usize,
    /// Shares across rows and across panels.
    pub(crate) parts: (usize, usize),
    /// Rows of a block.
    pub(crate) block_rows: usize,
    /// Distance of rows of A where they are copied, in elements.
    pub(crate) lhs_stride: usize,
    /// Distance of rows of the tile buffer.
    pub(crate) acc_stride: usize,
    /// Elements of each per-column array.
    pub(crate) columns: usize,
    /// Lines of scratch for column data.
    pub(crate) column_lines: usize,
    /// Lines of scratch for copied rows of A, for the tile buffer, and for each of the two arrays
    /// of row terms.
    pub(crate) lhs_lines: usize,
    pub(crate) acc_lines: usize,
    pub(crate) term_lines: usize,
    /// Whether all panels of a share stay in L2 as they are unpacked, and the rows of a block in L1.
    pub(crate) resident: bool,
    /// Lines of scratch for an unpacked panel, or for all of a share; 0 where they are read as they
    /// are packed.
    pub(crate) unpack_lines: usize,
    /// Lines of scratch for each share: all of these.
    pub(crate) share_lines: usize,
}

/// Arrays of per-column data: initial sums, scales, float bias, zero points of B or its cut sums.
pub(crate) const COLUMN_ARRAYS: usize = 4;

/// Lines that hold `n` elements of `size` bytes; saturates, so that an absurd size fails to
/// allocate instead of wrapping.
pub(crate) fn lines(n: usize, size: usize) -> usize {
    n.saturating_mul(size).div_ceil(size_of::<Line>())
}

impl Plan {
    pub(crate) fn new<K: Microkernel>(m: usize, n: usize, k: usize, threads: usize) -> Plan {
        let depth = k.div_ceil(K::K_UNIT).saturating_mul(K::K_UNIT);
        let parts = split(
            m,
            n.div_ceil(K::NR),
            m.saturating_mul(n).saturating_mul(k),
            threads,
        );
        let share_rows = if parts.0 == 1 { m } else { m.div_ceil(parts.0) };
        let tallest = tallest::<K>();

        // Rows start a cache line apart from a multiple of 4 KiB, or a tile's rows would all
        // compete for one set of L1.
        let bytes = depth.saturating_mul(size_of::<K::Lhs>());
        let padded = bytes.div_ceil(64).saturating_mul(64);
        let padded = if padded.is_multiple_of(512) {
            padded.saturating_add(64)
        } else {
            padded
        };

        // Unpacked once, and rows that are copied to L1 again and again: what is written to L2 costs
        // floats as much as multiplying several rows or columns.
        let lowest = K::ROWS[K::ROWS.len() - 1];
        let panels = n.div_ceil(K::NR).div_ceil(parts.1);
        let unpacked = depth.saturating_mul(panels).saturating_mul(K::NR);
        let resident = K::unpacks()
            && !K::Acc::INTEGER
            && share_rows >= K::UNPACK_ROWS
            && lowest.saturating_mul(padded) <= L1_ROWS
            && unpacked.saturating_mul(K::UNPACKED) <= l2_bytes() / 2;

        // Widening a panel of floats takes as long as multiplying two to four rows.
        let share = if K::unpacks() && !K::Acc::INTEGER {
            3
        } else {
            1
        };
        let block_bytes = block_bytes() * share;
        // Divisions cost more than the whole of a small product, so none where it fits.
        let (block_rows, block_depth) = if resident {
            // Of a single panel that is narrow, tiles are higher.
            let height = K::ROWS[n.clamp(1, K::NR).div_ceil(K::UNIT) - 1];
            let rows = (L1_ROWS / padded.max(1) / height).max(1) * height;
            (rows.min(share_rows), depth.max(K::KG))
        } else if padded.saturating_mul(share_rows.max(4 * tallest)) <= block_bytes
            && depth <= K::block_depth()
        {
            (share_rows.max(1), depth.max(K::KG))
        } else {
            let fitting = (block_bytes / padded.max(1)).max(4 * tallest);
            let blocks = share_rows.div_ceil(fitting).max(1);
            let rows = share_rows.div_ceil(blocks).next_multiple_of(lowest);
            // Blocks in K of equal length.
            let cuts = depth.div_ceil(K::block_depth()).max(1);
            let cut = depth.div_ceil(cuts).next_multiple_of(K::KG).max(K::KG);
            (rows.min(share_rows).max(1), cut)
        };

        // The tile buffer holds the rows of a block when K is cut, else those of two tiles.
        let acc_rows = if block_depth < depth {
            block_rows
        } else {
            2 * tallest
        };
        let acc_stride = K::NR.next_multiple_of(CHUNK);
        let columns = n.div_ceil(CHUNK).saturating_add(2).saturating_mul(CHUNK);
        let lhs_lines = lines(
            block_rows
                .max(tallest)
                .div_ceil(K::LHS_ROWS)
                .saturating_mul(K::LHS_ROWS),
            padded,
        );
        let acc_lines = lines(acc_rows.saturating_mul(acc_stride), size_of::<i32>());
        let term_lines = lines(block_rows, size_of::<i32>());
        let unpack_lines = if resident {
            lines(unpacked, K::UNPACKED)
        } else if block_rows >= K::UNPACK_ROWS && K::unpacks() {
            lines(block_depth.saturating_mul(K::NR), K::UNPACKED)
        } else {
            0
        };
        Plan {
            m,
            n,
            k,
            depth,
            block_depth,
            parts,
            block_rows,
            lhs_stride: padded / size_of::<K::Lhs>(),
            acc_stride,
            columns,
            column_lines: lines(columns, 4 * COLUMN_ARRAYS),
            lhs_lines,
            acc_lines,
            term_lines,
            resident,
            unpack_lines,
            share_lines: lhs_lines
                .saturating_add(acc_lines)
                .saturating_add(term_lines.saturating_mul(2))
                .saturating_add(unpack_lines),
        }
    }

    /// Whether a copy of so many rows stays in L1.
    #[inline(always)]
    pub(crate) fn in_l1<L>(&self, rows: usize) -> bool {
        self.lhs_stride
            .saturating_mul(rows)
            .saturating_mul(size_of::<L>())
            <= L1_ROWS
    }

    pub(crate) fn shares(&self) -> usize {
        self.parts.0 * self.parts.1
    }

    /// Rows and panels of share `s`.
    pub(crate) fn share<K: Microkernel>(&self, s: usize) -> (Range<usize>, Range<usize>) {
        if self.parts == (1, 1) {
            return (0..self.m, 0..Panels::new::<K>(self.n).count());
        }
        let (row, col) = (s / self.parts.1, s % self.parts.1);
        let panels = Panels::new::<K>(self.n).count();
        (
            part(self.m, self.parts.0, row),
            part(panels, self.parts.1, col),
        )
    }

    /// Lines of scratch that the whole call needs.
    pub(crate) fn total_lines(&self) -> usize {
        self.share_lines
            .saturating_mul(self.shares())
            .saturating_add(self.column_lines)
    }
}

/// Part `i` of `0..len` cut into `parts` of nearly equal length.
pub(crate) fn part(len: usize, parts: usize, i: usize) -> Range<usize> {
    let (short, longer) = (len / parts, len % parts);
    let start = |i: usize| i * short + i.min(longer);
    start(i)..start(i + 1)
}

/// Rows of a share that make up for reading all of B again.
const SHARE_ROWS: usize = 64;

/// Cuts `rows × panels` into at most `threads` shares so that the largest is smallest. Of equal
/// cuts, the one with the most cuts across rows that leave [`SHARE_ROWS`]: a cut across columns has
/// two threads write to one cache line in every row whose columns are not aligned to lines
/// (256³ at two threads on Zen 4: 52 µs against 39). Else the one with the fewest.
pub(crate) fn split(rows: usize, panels: usize, work: usize, threads: usize) -> (usize, usize) {
    if threads == 1 || work < 2 * SHARE_WORK {
        return (1, 1);
    }
    let threads = threads.min(work / SHARE_WORK);
    let mut best = (1, 1);
    let mut least = rows.saturating_mul(panels);
    for row_parts in 1..=threads.min(rows) {
        let col_parts = (threads / row_parts).min(panels).max(1);
        let share_rows = rows.div_ceil(row_parts);
        let share = share_rows.saturating_mul(panels.div_ceil(col_parts));
        if share < least || share == least && share_rows >= SHARE_ROWS {
            (best, least) = ((row_parts, col_parts), share);
        }
    }
    best
}

/// Bytes of copied rows that stay in L1 while panel after panel meets them.
const L1_ROWS: usize = 28 << 10;

/// Bytes of a panel of B that stay in L1 while tile after tile meets them.
pub(crate) const L1_PANEL: usize = if cfg!(test) { 4 << 10 } else { 24 << 10 };

/// The most rows of a [tall](Microkernel::TALL) call on a panel of so many columns and bytes, where `rows`
/// are all that it meets; 0 where none pays. With B in L2, it has to save all of a second reading;
/// beyond, 7 to 20 rows take 5 to 17 % less time, and of many rows such a call is a small part
/// (Emerald Rapids).
#[inline(always)]
pub(crate) fn tall_rows<K: Microkernel>(rows: usize, cols: usize, panel: usize, b: usize) -> usize {
    let height = K::ROWS[K::NR / K::UNIT - 1];
    let few = rows <= height + 4 || rows <= 4 * height && b > l2_bytes();
    if cols == K::NR && panel >= 2 * L1_PANEL && (few || cfg!(test)) {
        K::TALL
    } else {
        0
    }
}

/// The rows of the next call of a kernel that [stacks](Microkernel::STACKS) tiles, of so many that are
/// left: whole tiles, or less than one. Of a panel that is `far`, read from L2 again for each tile, few
/// rows alone would wait for it, so the last rows are a [tall](Microkernel::TALL) call, or the last two
/// or three tiles of nearly equal height.
#[inline(always)]
pub(crate) fn stacked_rows(left: usize, height: usize, far: bool, tall: usize) -> usize {
    if left < height {
        return left;
    }
    let rows = left.min(MAX_ROWS);
    let rest = rows % height;
    let whole = rows - rest;
    if rows < left {
        let few = far && left - whole < height;
        return whole - if few { 2 * height } else { 0 };
    }
    if !far || rest == 0 {
        return whole;
    }
    if height + rest <= tall {
        return if whole > height { whole - height } else { left };
    }
    if 2 * rest >= height {
        return whole;
    }
    let shortened = if 4 * rest < height {
        2 * height
    } else {
        height
    };
    if whole > shortened {
        whole - shortened
    } else {
        left.div_ceil(left.div_ceil(height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for len in 0..40 {
            for parts in 1..9 {
                let mut next = 0;
                for i in 0..parts {
                    let r = part(len, parts, i);
                    assert_eq!(r.start, next);
                    assert!(r.len() <= len.div_ceil(parts));
                    next = r.end;
                }
                assert_eq!(next, len);
            }
        }
    }

    #[test]
    fn shares_are_balanced_where_there_is_work_enough() {
        for threads in 1..=256 {
            let (rows, panels) = (16_384, 64);
            let (r, c) = split(rows, panels, usize::MAX, threads);
            assert!(r * c <= threads);
            let worst = rows.div_ceil(r) * panels.div_ceil(c);
            assert!(
                worst * threads * 10 <= rows * panels * 11,
                "{threads}: {r}x{c}"
            );
        }
    }

    #[test]
    fn small_products_stay_single() {
        assert_eq!(split(49, 1, 49 * 576 * 64, 2), (1, 1));
        assert_eq!(split(0, 0, 0, 8), (1, 1));
    }

    #[test]
    fn stacks_are_whole_tiles_or_a_tall_call_or_less() {
        let cases = (1..=12).flat_map(|height| {
            let tall = 2 * height - 1;
            [(height, false, 0), (height, true, 0), (height, true, tall)]
        });
        for (height, far, tall) in cases {
            for rows in 1..2 * MAX_ROWS {
                let (mut left, mut calls) = (rows, 0);
                while left > 0 {
                    let count = stacked_rows(left, height, far, tall);
                    assert!(count <= left.min(MAX_ROWS));
                    assert!(count <= height.max(tall) || count.is_multiple_of(height));
                    let few = far && 2 * count < height && rows > height;
                    assert!(!few, "{rows} by {height}: {count}");
                    left -= count;
                    calls += 1;
                }
                assert!(calls <= rows / (MAX_ROWS - height) + 4);
            }
        }
    }
}
