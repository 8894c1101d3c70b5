//! Bytes by `vpmaddwd`, B widened once for all rows of a block where there are enough of them.

use core::arch::x86_64::*;

use super::Narrow;
use crate::arch::tile::{Fetching, table};
use crate::arch::x86_64::avx2::Avx2;
use crate::kernel::{Init, LhsTile, Microkernel, RawTile, RhsPanel, TileMut, Unpacked, check_tile};
use crate::outliers::QUAD;
use crate::{Arithmetic, Operand};

/// The kernel; a value is the proof that AVX2 runs.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(Narrow);

impl From<Avx2> for Bytes {
    fn from(tier: Avx2) -> Self {
        Bytes(tier.into())
    }
}

impl Microkernel for Bytes {
    type Home = Avx2;
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    const ID: &'static str = "avx2/i8/2x8/4";
    const KG: usize = Narrow::KG;
    /// [`Split`](super::Split) reads the same layout.
    const K_UNIT: usize = QUAD;
    const UNIT: usize = Narrow::UNIT;
    const NR: usize = Narrow::NR;
    const ROWS: &'static [usize] = Narrow::ROWS;
    const SIGNED_LHS_SHIFT: i32 = 0;
    const SHIFTS: bool = false;
    const UNPACKED: usize = size_of::<i16>();
    const SEGMENTS: bool = true;
    const STACKS: bool = true;
    type Acc = i32;
    type Lhs = i16;
    type Rhs = i8;

    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> i16 {
        Narrow::lhs(a)
    }

    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> i8 {
        Narrow::rhs(b)
    }

    #[inline(always)]
    fn unpack(self, b: RhsPanel<'_, i8>, to: &mut [u8]) {
        // SAFETY: `self` proves the instructions.
        unsafe { widen(b.data(), to) }
    }

    #[inline(always)]
    fn accumulate(
        self,
        a: LhsTile<'_, i16>,
        b: RhsPanel<'_, i8>,
        init: Option<Init<'_, i32>>,
        out: &mut TileMut<'_, i32>,
    ) {
        let Unpacked::Done(wide) = b.unpacked() else {
            return self.0.accumulate(a, b, init, out);
        };
        assert!(wide.len() == b.data().len() * Self::UNPACKED);
        let raw = check_tile::<Self>(&a, &b, init, out).with_rhs(wide.as_ptr().cast::<i16>());
        let units = b.width() / Self::UNIT;
        let tile = WIDE[units - 1][a.rows().min(Self::ROWS[units - 1]) - 1];
        // SAFETY: `self` proves the instructions, and `check_tile` keeps the promises of `raw` for
        // the width and the rows of a tile by which the table is indexed, as many tiles as there
        // are; the i16 are as many as the elements of the panel.
        unsafe { tile(raw) }
    }
}

/// Widens a panel, whose length is a multiple of 16.
#[target_feature(enable = "avx2")]
fn widen(b: &[i8], to: &mut [u8]) {
    for (b, to) in b.as_chunks::<16>().0.iter().zip(to.as_chunks_mut::<32>().0) {
        // SAFETY: arrays of 16 and 32 bytes.
        unsafe {
            let wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(b.as_ptr().cast()));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), wide);
        }
    }
}

type Raw = RawTile<i16, i16>;

/// Tiles by vectors, then by rows.
static WIDE: &[&[unsafe fn(Raw)]] = table!(tile, [4, 4]);

/// Tiles of `R` rows by `V` vectors of 8 columns.
///
/// # Safety
///
/// The instructions run, and the promises of [`RawTile`] hold for tiles of `R` rows and `8 · V`
/// columns; B may be unaligned.
#[target_feature(enable = "avx2")]
unsafe fn tile<const R: usize, const V: usize>(t: Raw) {
    let pairs = t.groups / 2;
    let fetching = Fetching::new::<R>(pairs);
    let (mut lhs, mut c) = (t.a, t.c);
    // SAFETY: every offset below stays inside what the caller promised: rows `r < R` of each tile,
    // vectors `v < V`, groups `g < groups`. Loads and stores are the unaligned ones.
    unsafe {
        for index in 0..t.tiles {
            let first = index * R;
            let mut acc = [[_mm256_setzero_si256(); V]; R];
            for (r, acc) in acc.iter_mut().enumerate() {
                let row = _mm256_set1_epi32(*t.init_rows.add(first + r));
                for (v, acc) in acc.iter_mut().enumerate() {
                    let start = t.init.add((first + r) * t.init_stride + 8 * v);
                    *acc = _mm256_add_epi32(_mm256_loadu_si256(start.cast()), row);
                }
            }
            let mut late = [_mm256_setzero_si256(); V];
            for s in 0..t.segment_count {
                let segment = *t.segments.add(s);
                let (mut a, mut b) = (lhs.add(segment.a), t.b.add(segment.b * 8 * V));
                for pairs in fetching.parts(c, t.c_stride, 32 * V, pairs) {
                    for _ in 0..pairs {
                        late = steps::<R, V, 2>(&mut acc, late, a, t.a_stride, b);
                        (a, b) = (a.add(4), b.add(32 * V));
                    }
                }
                if t.groups % 2 == 1 {
                    late = steps::<R, V, 1>(&mut acc, late, a, t.a_stride, b);
                }
            }
            for (acc, late) in acc[R - 1].iter_mut().zip(late) {
                *acc = _mm256_add_epi32(*acc, late);
            }
            for (r, acc) in acc.iter().enumerate() {
                for (v, acc) in acc.iter().enumerate() {
                    _mm256_storeu_si256(c.add(r * t.c_stride + 8 * v).cast(), *acc);
                }
            }
            // Nothing is read there before a tile is known to be.
            lhs = lhs.wrapping_add(R * t.a_stride);
            c = c.wrapping_add(R * t.c_stride);
        }
    }
}

/// `U` steps in K. A row's products are added after the next row's multiplies: Zen 4 then issues
/// 3.29 instead of 3.22 instructions a cycle, because fewer additions take slots that multiplies
/// could use. `late` are those of the last row of the step before, and so is what is given back.
///
/// # Safety
///
/// The instructions run, and there are `R` rows of `2 · U` elements at `a` and `16 · V · U`
/// elements at `b`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn steps<const R: usize, const V: usize, const U: usize>(
    acc: &mut [[__m256i; V]; R],
    mut late: [__m256i; V],
    a: *const i16,
    a_stride: usize,
    b: *const i16,
) -> [__m256i; V] {
    const { assert!(V * U <= 4) };
    for u in 0..U {
        let mut bv = [_mm256_setzero_si256(); V];
        for (v, bv) in bv.iter_mut().enumerate() {
            // SAFETY: step `u < U` of vector `v < V`.
            *bv = unsafe {
                match V * u + v {
                    0 => load_after::<0>(b, &mut late[0]),
                    1 => load_after::<32>(b, &mut late[0]),
                    2 => load_after::<64>(b, &mut late[0]),
                    _ => load_after::<96>(b, &mut late[0]),
                }
            };
        }
        for r in 0..R {
            // SAFETY: step `u < U` of row `r < R`.
            let pair = unsafe { a.add(r * a_stride + 2 * u).cast::<i32>().read_unaligned() };
            let pair = _mm256_set1_epi32(pair);
            late = multiply_then_add(pair, bv, &mut acc[(r + R - 1) % R], late);
        }
    }
    late
}

/// Loads the vector `AT` bytes from `p` once `before` is there: earlier, it would take a register
/// that is needed.
///
/// # Safety
///
/// 16 elements there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_after<const AT: usize>(p: *const i16, before: &mut __m256i) -> __m256i {
    let loaded;
    // SAFETY: a load of what the caller promised; `before` keeps what it holds.
    unsafe {
        core::arch::asm!(
            "vmovdqu {loaded}, [{p} + {at}] /* {before} */",
            loaded = out(ymm_reg) loaded,
            p = in(reg) p,
            at = const AT,
            before = inout(ymm_reg) * before,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    loaded
}

/// The products of a pair with each vector of B, and `acc += late`: in this order. The compiler would
/// gather the products of all rows, for which there are not registers enough.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_then_add<const V: usize>(
    pair: __m256i,
    b: [__m256i; V],
    acc: &mut [__m256i; V],
    late: [__m256i; V],
) -> [__m256i; V] {
    let mut products = [_mm256_setzero_si256(); V];
    // SAFETY: each block multiplies and adds registers, and does nothing else.
    unsafe {
        if V == 2 {
            core::arch::asm!(
                "vpmaddwd {p0}, {pair}, {b0}",
                "vpmaddwd {p1}, {pair}, {b1}",
                "vpaddd {acc0}, {acc0}, {late0}",
                "vpaddd {acc1}, {acc1}, {late1}",
                p0 = out(ymm_reg) products[0],
                p1 = out(ymm_reg) products[1],
                pair = in(ymm_reg) pair,
                b0 = in(ymm_reg) b[0],
                b1 = in(ymm_reg) b[1],
                acc0 = inout(ymm_reg) acc[0],
                acc1 = inout(ymm_reg) acc[1],
                late0 = in(ymm_reg) late[0],
                late1 = in(ymm_reg) late[1],
                options(pure, nomem, nostack, preserves_flags)
            );
            return products;
        }
        for v in 0..V {
            core::arch::asm!(
                "vpmaddwd {p}, {pair}, {b}",
                "vpaddd {acc}, {acc}, {late}",
                p = out(ymm_reg) products[v],
                pair = in(ymm_reg) pair,
                b = in(ymm_reg) b[v],
                acc = inout(ymm_reg) acc[v],
                late = in(ymm_reg) late[v],
                options(pure, nomem, nostack, preserves_flags)
            );
        }
    }
    products
}
