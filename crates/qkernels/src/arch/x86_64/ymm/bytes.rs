//! Bytes by `vpmaddwd`, B widened once for all rows of a block where there are enough of them.

use core::arch::x86_64::*;
use core::sync::atomic::{Ordering, compiler_fence};

use super::Narrow;
use crate::Operand;
use crate::arch::tile::table;
use crate::arch::x86_64::Bits256;
use crate::kernel::{Init, LhsTile, Microkernel, RawTile, RhsPanel, TileMut, check_tile};

/// The kernel; a value is the proof that AVX2 runs.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(Narrow);

impl<T: Bits256> From<T> for Bytes {
    fn from(tier: T) -> Self {
        Bytes(tier.into())
    }
}

impl Microkernel for Bytes {
    const ID: &'static str = Narrow::ID;
    const KG: usize = Narrow::KG;
    const UNIT: usize = Narrow::UNIT;
    const NR: usize = Narrow::NR;
    const ROWS: &'static [usize] = Narrow::ROWS;
    const SIGNED_LHS_SHIFT: i32 = 0;
    const SHIFTS: bool = false;
    const UNPACKED: usize = size_of::<i16>();
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
    fn unpack(self, b: &[i8], to: &mut [u8]) {
        // SAFETY: `self` proves the instructions.
        unsafe { widen(b, to) }
    }

    #[inline(always)]
    fn accumulate(
        self,
        a: LhsTile<'_, i16>,
        b: RhsPanel<'_, i8>,
        init: Option<Init<'_, i32>>,
        out: &mut TileMut<'_, i32>,
    ) {
        let Some(wide) = b.unpacked() else {
            return self.0.accumulate(a, b, init, out);
        };
        assert!(wide.len() == b.data().len() * Self::UNPACKED);
        let raw = check_tile::<Self>(&a, &b, init, out).with_rhs(wide.as_ptr().cast::<i16>());
        let tile = WIDE[b.width() / Self::UNIT - 1][a.rows() - 1];
        // SAFETY: `self` proves the instructions, and `check_tile` keeps the promises of `raw` for
        // the rows and the width by which the table is indexed; the i16 are as many as the
        // elements of the panel.
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

/// A tile of `R` rows by `V` vectors of 8 columns.
///
/// # Safety
///
/// The instructions run, and the promises of [`RawTile`] hold for `R` rows and `8 · V` columns;
/// B may be unaligned.
#[target_feature(enable = "avx2")]
unsafe fn tile<const R: usize, const V: usize>(t: Raw) {
    // SAFETY: every offset below stays inside what the caller promised: rows `r < R`, vectors
    // `v < V`, groups `g < groups`. Loads and stores are the unaligned ones.
    unsafe {
        let mut acc = [[_mm256_setzero_si256(); V]; R];
        for (r, acc) in acc.iter_mut().enumerate() {
            let row = _mm256_set1_epi32(*t.init_rows.add(r));
            for (v, acc) in acc.iter_mut().enumerate() {
                let start = _mm256_loadu_si256(t.init.add(r * t.init_stride + 8 * v).cast());
                *acc = _mm256_add_epi32(start, row);
            }
        }
        let mut g = 0;
        while g + 2 <= t.groups {
            pairs::<R, V, 2>(&mut acc, t.a.add(2 * g), t.a_stride, t.b.add(16 * V * g));
            g += 2;
        }
        if g < t.groups {
            pairs::<R, V, 1>(&mut acc, t.a.add(2 * g), t.a_stride, t.b.add(16 * V * g));
        }
        for (r, acc) in acc.iter().enumerate() {
            for (v, acc) in acc.iter().enumerate() {
                _mm256_storeu_si256(t.c.add(r * t.c_stride + 8 * v).cast(), *acc);
            }
        }
    }
}

/// `U` pairs of steps in K. A row's products are added after the next row's multiplies: Zen 4
/// then issues 3.29 instead of 3.22 instructions a cycle, because fewer additions take slots that
/// multiplies could use (98 instead of 95 % of the limit, all in all).
///
/// # Safety
///
/// The instructions run, and there are `R` rows of `2 · U` elements at `a` and `16 · V · U`
/// elements at `b`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn pairs<const R: usize, const V: usize, const U: usize>(
    acc: &mut [[__m256i; V]; R],
    a: *const i16,
    a_stride: usize,
    b: *const i16,
) {
    let mut late = None;
    for u in 0..U {
        let mut bv = [_mm256_setzero_si256(); V];
        for (v, bv) in bv.iter_mut().enumerate() {
            // SAFETY: pair `u < U` of vector `v < V`.
            *bv = unsafe { _mm256_loadu_si256(b.add(16 * (V * u + v)).cast()) };
        }
        for r in 0..R {
            // SAFETY: pair `u < U` of row `r < R`.
            let pair = unsafe { a.add(r * a_stride + 2 * u).cast::<i32>().read_unaligned() };
            let pair = _mm256_set1_epi32(pair);
            let mut products = bv.map(|b| _mm256_madd_epi16(pair, b));
            if let Some((row, mut sums)) = late {
                for (product, sum) in products.iter_mut().zip(&mut sums) {
                    in_order(product, sum);
                }
                add(&mut acc[row], sums);
            }
            late = Some((r, products));
        }
    }
    if let Some((row, sums)) = late {
        add(&mut acc[row], sums);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add<const V: usize>(acc: &mut [__m256i; V], sums: [__m256i; V]) {
    for (acc, sum) in acc.iter_mut().zip(sums) {
        *acc = _mm256_add_epi32(*acc, sum);
    }
    compiler_fence(Ordering::SeqCst);
}

/// Has the compiler compute both before either is used. No instruction.
#[inline]
#[target_feature(enable = "avx2")]
fn in_order(first: &mut __m256i, second: &mut __m256i) {
    // SAFETY: a comment; the registers keep what they hold.
    unsafe {
        core::arch::asm!(
            "/* {0} {1} */",
            inout(ymm_reg) * first,
            inout(ymm_reg) * second,
            options(nomem, nostack, preserves_flags)
        );
    }
}
