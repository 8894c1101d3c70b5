//! Bytes by `vpmaddubsw`, four products to a sum of 16 bits, with outliers apart ([`Outliers`]).
//!
//! `vpmaddubsw` multiplies 32 u8 by 32 i8 and adds neighbours into i16; two of its results are added
//! (`vpaddw`), then `vpmaddwd` by ones adds neighbours into i32 and `vpaddd` adds them to the sums:
//! 128 operations in five instructions, three of which share two multipliers (Zen 4; latencies 3, 1,
//! 3, 1). That would be 316 GOP/s at 3.7 GHz; 278 are reached, and 220 to 235 with the outliers,
//! where `vpmaddwd` alone has 176 of 188; on Zen 3 at 3.2 GHz 245 of 277, 185 to 200 with the
//! outliers, and 150 of 166. Exact: no sum saturates or wraps, because the weights were split so
//! that none can ([`crate::outliers`]).
//!
//! Outliers are multiplied by the same instructions, eight rows of A at a time and column by
//! column: A is interleaved, so that eight rows of one quad of K are a vector.
//!
//! Half of B is in registers, half an operand in memory. Alone on a core of Zen 3 that is 1 to 2 %
//! faster than all of it in memory and 9 % than all of it in registers; where another program
//! shares the core, its loads are what is short, and it is 16 to 35 % faster than all in memory.
//!
//! Tried on Zen 4: tiles of 8 × 8 are 13 % slower, sums of outliers in registers 6 % (a mispredicted
//! branch a column), quads in the order of K, which makes three times as many outliers, 10 %.
//!
//! [`Outliers`]: crate::outliers::Outliers

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::{Bytes, Narrow};
use crate::arch::prefetch;
use crate::arch::x86_64::avx2::Avx2;
use crate::arch::x86_64::is_amd;
use crate::kernel::{Init, LhsTile, Microkernel, RawTile, RhsPanel, TileMut, Unpacked, check_tile};
use crate::outliers::{Group, MAX_DEPTH, QUAD, WINDOW};
use crate::{Arithmetic, Operand};

/// The kernel; a value is the proof that AVX2 runs.
#[derive(Clone, Copy)]
pub(crate) struct Split(());

impl From<Avx2> for Split {
    fn from(_: Avx2) -> Self {
        Split(())
    }
}

/// Rows that are interleaved.
const ROWS: usize = 8;
/// Rows of a call: outliers are multiplied for so many at a time.
const MOST_ROWS: usize = 4 * ROWS;
/// Rows whose sums are in registers.
const TILE_ROWS: usize = 4;

impl Microkernel for Split {
    type Home = Avx2;
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    /// Weights are packed as for [`Bytes`], and split when they are unpacked.
    const ID: &'static str = Bytes::ID;
    const KG: usize = QUAD;
    const UNIT: usize = Narrow::UNIT;
    const NR: usize = Narrow::NR;
    const ROWS: &'static [usize] = &[MOST_ROWS, MOST_ROWS];
    const SIGNED_LHS_SHIFT: i32 = 128;
    const SHIFTS: bool = false;
    const UNPACKED: usize = size_of::<i8>();
    const UNPACK_ROWS: usize = 0;
    const LHS_ROWS: usize = ROWS;
    type Acc = i32;
    type Lhs = u8;
    type Rhs = i8;

    #[inline(always)]
    fn block_depth() -> usize {
        MAX_DEPTH
    }

    #[inline(always)]
    fn asks() -> bool {
        // Not timed on others. Tests run both on every processor.
        cfg!(test) || !is_amd()
    }

    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> u8 {
        let shift = if A::DTYPE.is_signed() {
            Self::SIGNED_LHS_SHIFT
        } else {
            0
        };
        // Exact: A is a byte.
        (a.int() + shift) as u8
    }

    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> i8 {
        Narrow::rhs(b)
    }

    #[inline(always)]
    fn interleave(self, rows: &[&[u8]], to: &mut [u8]) {
        let rows: &[&[u8]; ROWS] = rows.try_into().expect("eight rows");
        let len = rows[0].len();
        assert!(rows.iter().all(|row| row.len() == len) && len.is_multiple_of(QUAD));
        assert!(to.len() >= ROWS * len);
        // SAFETY: `self` proves the instructions, and the slices were checked.
        unsafe { interleave(rows.map(<[u8]>::as_ptr), len / QUAD, to.as_mut_ptr()) }
    }

    #[inline(always)]
    fn unpack(self, b: RhsPanel<'_, i8>, to: &mut [u8]) {
        let outliers = b.outliers().expect("the driver gives them to this kernel");
        let step = QUAD * b.width();
        assert!(b.width() == outliers.width() && b.data().len() == outliers.quads() * step);
        assert!(to.len() == b.data().len());
        // SAFETY: `self` proves the instructions, and panels have as many quads as their order, all
        // of them below that.
        unsafe {
            if b.width() == Self::NR {
                reorder::<2>(b.data().as_ptr(), outliers.order(), to.as_mut_ptr());
            } else {
                reorder::<1>(b.data().as_ptr(), outliers.order(), to.as_mut_ptr());
            }
        }
        for patch in outliers.patches() {
            let to = &mut to[patch.at as usize..][..QUAD];
            to.copy_from_slice(bytemuck::cast_slice(&patch.weights));
        }
    }

    #[inline(always)]
    fn accumulate(
        self,
        a: LhsTile<'_, u8>,
        b: RhsPanel<'_, i8>,
        init: Option<Init<'_, i32>>,
        out: &mut TileMut<'_, i32>,
    ) {
        let Unpacked::Done(unpacked) = b.unpacked() else {
            panic!("the driver unpacks for this kernel");
        };
        let outliers = b.outliers().expect("the driver gives them to this kernel");
        assert!(unpacked.len() == b.data().len() && outliers.width() == b.width());
        let raw = check_tile::<Self>(&a, &b, init, out).with_rhs(unpacked.as_ptr().cast::<i8>());
        assert!(outliers.quads() == raw.groups);
        // SAFETY: `self` proves the instructions; `check_tile` keeps the promises of `raw`, whose B
        // is as long as the panel; the order has `raw.groups` quads, and no quad or column of the
        // outliers is beyond those of the panel.
        unsafe {
            let (order, groups) = (outliers.order().as_ptr(), outliers.groups());
            if b.width() == Self::NR {
                rows::<2>(raw, order, groups, a.rows());
            } else {
                rows::<1>(raw, order, groups, a.rows());
            }
        }
    }
}

/// `[8 rows][quads]` to `[quads][8 rows]`.
///
/// # Safety
///
/// Each row is valid for reads of `4 · quads` bytes, and `to` for writes of 8 times that.
#[target_feature(enable = "avx2")]
unsafe fn interleave(rows: [*const u8; ROWS], quads: usize, to: *mut u8) {
    // SAFETY: eight quads of a row at a time, then one at a time.
    unsafe {
        let mut q = 0;
        while q + 8 <= quads {
            let mut v = [_mm256_setzero_si256(); ROWS];
            for (v, row) in v.iter_mut().zip(rows) {
                *v = _mm256_loadu_si256(row.add(QUAD * q).cast());
            }
            for (i, v) in transpose(v).into_iter().enumerate() {
                _mm256_storeu_si256(to.add((q + i) * ROWS * QUAD).cast(), v);
            }
            q += 8;
        }
        while q < quads {
            for (r, row) in rows.iter().enumerate() {
                let quad = row.add(QUAD * q).cast::<u32>().read_unaligned();
                to.add((q * ROWS + r) * QUAD)
                    .cast::<u32>()
                    .write_unaligned(quad);
            }
            q += 1;
        }
    }
}

/// Rows of eight words to columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(v: [__m256i; 8]) -> [__m256i; 8] {
    let words = |i: usize| {
        (
            _mm256_unpacklo_epi32(v[i], v[i + 1]),
            _mm256_unpackhi_epi32(v[i], v[i + 1]),
        )
    };
    let ((a0, a1), (a2, a3), (a4, a5), (a6, a7)) = (words(0), words(2), words(4), words(6));
    let low = [
        _mm256_unpacklo_epi64(a0, a2),
        _mm256_unpackhi_epi64(a0, a2),
        _mm256_unpacklo_epi64(a1, a3),
        _mm256_unpackhi_epi64(a1, a3),
    ];
    let high = [
        _mm256_unpacklo_epi64(a4, a6),
        _mm256_unpackhi_epi64(a4, a6),
        _mm256_unpacklo_epi64(a5, a7),
        _mm256_unpackhi_epi64(a5, a7),
    ];
    [
        _mm256_permute2x128_si256::<0x20>(low[0], high[0]),
        _mm256_permute2x128_si256::<0x20>(low[1], high[1]),
        _mm256_permute2x128_si256::<0x20>(low[2], high[2]),
        _mm256_permute2x128_si256::<0x20>(low[3], high[3]),
        _mm256_permute2x128_si256::<0x31>(low[0], high[0]),
        _mm256_permute2x128_si256::<0x31>(low[1], high[1]),
        _mm256_permute2x128_si256::<0x31>(low[2], high[2]),
        _mm256_permute2x128_si256::<0x31>(low[3], high[3]),
    ]
}

/// Quads in their order: `8 · V` columns by four neighbours in K each, from two groups of these
/// columns by two.
///
/// # Safety
///
/// Both are valid for `order.len()` quads of `32 · V` bytes; the numbers in `order` are below its length.
#[target_feature(enable = "avx2")]
unsafe fn reorder<const V: usize>(data: *const i8, order: &[u16], to: *mut u8) {
    const { assert!(V == 1 || V == 2) };
    let step = 32 * V;
    // The order of quads is not one that the processor foresees: each window of them is asked for
    // while the one before it is read. Of a single window nothing is, as nothing would wait for it.
    let behind = order.len().saturating_sub(WINDOW);
    if behind > 0 {
        prefetch(data, WINDOW * step);
    }
    for (i, &q) in order.iter().enumerate() {
        // SAFETY: quad `i` of what is written, and quad `q` of what is read.
        unsafe {
            if i < behind {
                prefetch(data.add((WINDOW + i) * step), step);
            }
            let (from, to) = (data.add(usize::from(q) * step), to.add(i * step));
            if V == 2 {
                let first = _mm256_loadu_si256(from.cast());
                let second = _mm256_loadu_si256(from.add(32).cast());
                let low = _mm256_unpacklo_epi16(first, second);
                let high = _mm256_unpackhi_epi16(first, second);
                let columns = _mm256_permute2x128_si256::<0x20>(low, high);
                _mm256_storeu_si256(to.cast(), columns);
                let columns = _mm256_permute2x128_si256::<0x31>(low, high);
                _mm256_storeu_si256(to.add(32).cast(), columns);
            } else {
                let first = _mm_loadu_si128(from.cast());
                let second = _mm_loadu_si128(from.add(16).cast());
                _mm_storeu_si128(to.cast(), _mm_unpacklo_epi16(first, second));
                _mm_storeu_si128(to.add(16).cast(), _mm_unpackhi_epi16(first, second));
            }
        }
    }
}

/// Columns of a panel, and sums of one row of it.
const NR: usize = Narrow::NR;

/// Sums of outliers: row by row, or column by column.
#[repr(C, align(64))]
struct Sums(MaybeUninit<[i32; MOST_ROWS * NR]>);

impl Sums {
    fn as_mut_ptr(&mut self) -> *mut i32 {
        self.0.as_mut_ptr().cast()
    }
}

type Raw = RawTile<u8, i8>;

/// All rows of a call on a panel of `V` vectors of 8 columns.
///
/// # Safety
///
/// The promises of [`RawTile`] hold for `count` rows, at most [`MOST_ROWS`], interleaved, and
/// `8 · V` columns; `order` is valid for reads of `t.groups`, and its quads and those of `groups` are below
/// that; columns of `groups` are below `8 · V`.
#[target_feature(enable = "avx2")]
unsafe fn rows<const V: usize>(t: Raw, order: *const u16, groups: &[Group], count: usize) {
    let mut start = Sums(MaybeUninit::uninit());
    let start = start.as_mut_ptr();
    let start_stride = if groups.is_empty() { 0 } else { NR };
    // SAFETY: as promised by the caller; a block of rows is `ROWS · a_stride` after the one before,
    // and within a quad the rows of a tile follow each other. `start` is written for all rows of the
    // blocks and columns that are read.
    unsafe {
        if groups.is_empty() {
            start.write_bytes(0, NR);
        } else {
            match count.div_ceil(ROWS) {
                1 => multiply_outliers::<1, V>(&t, groups, start),
                2 => multiply_outliers::<2, V>(&t, groups, start),
                3 => multiply_outliers::<3, V>(&t, groups, start),
                _ => multiply_outliers::<4, V>(&t, groups, start),
            }
        }
        for row in (0..count).step_by(TILE_ROWS) {
            let tile = Raw {
                a: t.a.add(row / ROWS * ROWS * t.a_stride + row % ROWS * QUAD),
                init: t.init.add(row * t.init_stride),
                init_rows: t.init_rows.add(row),
                c: t.c.add(row * t.c_stride),
                ..t
            };
            let start = (start.add(row * start_stride).cast_const(), start_stride);
            match count - row {
                1 => tile_of::<1, V, false>(&tile, order, start),
                2 => tile_of::<2, V, false>(&tile, order, start),
                3 => tile_of::<3, V, false>(&tile, order, start),
                // Where there is something to ask for, the first tile asks for all of it.
                _ if row == 0 && t.ahead.step > 0 => {
                    tile_of::<TILE_ROWS, V, true>(&tile, order, start);
                }
                _ => tile_of::<TILE_ROWS, V, false>(&tile, order, start),
            }
        }
    }
}

/// The products of outliers with `B` blocks of rows, to `8 · V` columns of rows `NR` apart. They are
/// summed in memory, not in registers: a loop for each column would end in a mispredicted branch
/// each.
///
/// # Safety
///
/// As [`rows`].
#[target_feature(enable = "avx2")]
unsafe fn multiply_outliers<const B: usize, const V: usize>(
    t: &Raw,
    groups: &[Group],
    start: *mut i32,
) {
    let ones = _mm256_set1_epi16(1);
    let mut columns = Sums(MaybeUninit::uninit());
    let columns = columns.as_mut_ptr();
    // SAFETY: as promised by the caller: eight rows of a quad are a vector, and columns are those
    // of a panel.
    unsafe {
        for i in 0..8 * V * B {
            _mm256_store_si256(columns.add(ROWS * i).cast(), _mm256_setzero_si256());
        }
        for group in groups {
            let first = _mm256_set1_epi32(bytemuck::cast(group.excess[0]));
            let second = _mm256_set1_epi32(bytemuck::cast(group.excess[1]));
            let a = t.a.add(usize::from(group.quads[0]) * ROWS * QUAD);
            let b = t.a.add(usize::from(group.quads[1]) * ROWS * QUAD);
            let sums = columns.add(group.column as usize * B * ROWS);
            for block in 0..B {
                let at = block * ROWS * t.a_stride;
                let a = _mm256_maddubs_epi16(_mm256_loadu_si256(a.add(at).cast()), first);
                let b = _mm256_maddubs_epi16(_mm256_loadu_si256(b.add(at).cast()), second);
                let products = _mm256_madd_epi16(_mm256_add_epi16(a, b), ones);
                let to = sums.add(block * ROWS).cast();
                _mm256_store_si256(to, _mm256_add_epi32(_mm256_load_si256(to), products));
            }
        }
        for v in 0..V {
            for block in 0..B {
                let mut rows = [_mm256_setzero_si256(); 8];
                for (j, row) in rows.iter_mut().enumerate() {
                    let from = columns.add(((8 * v + j) * B + block) * ROWS);
                    *row = _mm256_load_si256(from.cast());
                }
                for (r, row) in transpose(rows).into_iter().enumerate() {
                    let to = start.add((block * ROWS + r) * NR + 8 * v);
                    _mm256_store_si256(to.cast(), row);
                }
            }
        }
    }
}

/// A tile of `R` rows by `V` vectors whose sums start at `start`, with the distance of its rows, plus
/// what the tile says; `ASKS`: a line of what comes next is asked for, for each quad.
///
/// # Safety
///
/// As [`rows`], for rows that lie in one block.
#[target_feature(enable = "avx2")]
unsafe fn tile_of<const R: usize, const V: usize, const ASKS: bool>(
    t: &Raw,
    order: *const u16,
    (start, start_stride): (*const i32, usize),
) {
    let ones = _mm256_set1_epi16(1);
    // SAFETY: every offset below stays inside what the caller promised: rows `r < R`, vectors
    // `v < V`, quads in their order. Loads and stores are the unaligned ones.
    unsafe {
        let mut acc = [[_mm256_setzero_si256(); V]; R];
        for (r, acc) in acc.iter_mut().enumerate() {
            let row = _mm256_set1_epi32(*t.init_rows.add(r));
            for (v, acc) in acc.iter_mut().enumerate() {
                let init = _mm256_loadu_si256(t.init.add(r * t.init_stride + 8 * v).cast());
                let start = _mm256_loadu_si256(start.add(r * start_stride + 8 * v).cast());
                *acc = _mm256_add_epi32(_mm256_add_epi32(init, start), row);
            }
        }
        let mut b = t.b;
        let quad = |i: usize| t.a.add(usize::from(*order.add(i)) * ROWS * QUAD);
        let mut late = [_mm256_setzero_si256(); V];
        let mut ahead = t.ahead.at;
        for pair in 0..t.groups / 2 {
            if ASKS {
                for _ in 0..2 {
                    _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                    ahead = ahead.wrapping_add(t.ahead.step);
                }
            }
            let a = [quad(2 * pair), quad(2 * pair + 1)];
            let second = b.add(8 * V * QUAD);
            let firsts = [b, second].map(|b| _mm256_loadu_si256(b.cast()));
            late = two_quads::<0, V>(&mut acc[R - 1], late, a, b, firsts, ones);
            if R > 1 {
                late = two_quads::<1, V>(&mut acc[0], late, a, b, firsts, ones);
            }
            if R > 2 {
                late = two_quads::<2, V>(&mut acc[1 % R], late, a, b, firsts, ones);
            }
            if R > 3 {
                late = two_quads::<3, V>(&mut acc[2 % R], late, a, b, firsts, ones);
            }
            b = b.add(2 * 8 * V * QUAD);
        }
        for (acc, late) in acc[R - 1].iter_mut().zip(late) {
            *acc = _mm256_add_epi32(*acc, late);
        }
        if t.groups % 2 == 1 {
            let a = quad(t.groups - 1);
            for (r, acc) in acc.iter_mut().enumerate() {
                let a = _mm256_set1_epi32(a.add(QUAD * r).cast::<i32>().read_unaligned());
                for (v, acc) in acc.iter_mut().enumerate() {
                    let b = _mm256_loadu_si256(b.add(32 * v).cast());
                    let products = _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones);
                    *acc = _mm256_add_epi32(*acc, products);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (v, acc) in acc.iter().enumerate() {
                _mm256_storeu_si256(t.c.add(r * t.c_stride + 8 * v).cast(), *acc);
            }
        }
    }
}

/// The products of two quads of row `R` with B, and `acc += late`: in this order, so that additions
/// to a row wait for the next row's multiplications, and with half of B in registers. The compiler
/// would keep all of it there, and lack registers for products under way; from memory alone, loads
/// are as many as multiplications have time for.
///
/// # Safety
///
/// Row `R` of the quads is valid for reads, and so are two quads of `8 · V` columns at `b`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn two_quads<const R: usize, const V: usize>(
    acc: &mut [__m256i; V],
    late: [__m256i; V],
    a: [*const u8; 2],
    b: *const i8,
    [first, second]: [__m256i; 2],
    ones: __m256i,
) -> [__m256i; V] {
    const { assert!(V == 1 || V == 2) };
    let mut products = [_mm256_setzero_si256(); V];
    // SAFETY: each block reads what the caller promised, computes in registers, and does nothing
    // else.
    unsafe {
        if V == 2 {
            core::arch::asm!(
                "vpbroadcastd {p1}, [{a0} + {row}]",
                "vpbroadcastd {q}, [{a1} + {row}]",
                "vpmaddubsw {p0}, {p1}, {first}",
                "vpmaddubsw {p1}, {p1}, [{b} + 32]",
                "vpaddd {acc0}, {acc0}, {late0}",
                "vpaddd {acc1}, {acc1}, {late1}",
                "vpmaddubsw {late0}, {q}, {second}",
                "vpmaddubsw {q}, {q}, [{b} + 96]",
                "vpaddw {p0}, {p0}, {late0}",
                "vpaddw {p1}, {p1}, {q}",
                "vpmaddwd {p0}, {p0}, {ones}",
                "vpmaddwd {p1}, {p1}, {ones}",
                p0 = out(ymm_reg) products[0],
                p1 = out(ymm_reg) products[V - 1],
                q = out(ymm_reg) _,
                a0 = in(reg) a[0],
                a1 = in(reg) a[1],
                row = const R * QUAD,
                b = in(reg) b,
                first = in(ymm_reg) first,
                second = in(ymm_reg) second,
                ones = in(ymm_reg) ones,
                acc0 = inout(ymm_reg) acc[0],
                acc1 = inout(ymm_reg) acc[V - 1],
                late0 = inout(ymm_reg) late[0] => _,
                late1 = in(ymm_reg) late[V - 1],
                options(pure, readonly, nostack, preserves_flags)
            );
            return products;
        }
        core::arch::asm!(
            "vpbroadcastd {p}, [{a0} + {row}]",
            "vpbroadcastd {q}, [{a1} + {row}]",
            "vpmaddubsw {p}, {p}, {first}",
            "vpmaddubsw {q}, {q}, {second}",
            "vpaddw {p}, {p}, {q}",
            "vpmaddwd {p}, {p}, {ones}",
            "vpaddd {acc}, {acc}, {late}",
            p = out(ymm_reg) products[0],
            q = out(ymm_reg) _,
            a0 = in(reg) a[0],
            a1 = in(reg) a[1],
            row = const R * QUAD,
            first = in(ymm_reg) first,
            second = in(ymm_reg) second,
            ones = in(ymm_reg) ones,
            acc = inout(ymm_reg) acc[0],
            late = in(ymm_reg) late[0],
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    products
}
