//! AVX2, with FMA and F16C as every such processor has them.
//!
//! `vpmaddwd ymm` multiplies 16 pairs of i16 and adds neighbours into 8 lanes of i32; `vpaddd` adds
//! them to the sums: 32 operations in two instructions. Exact: A is a byte widened to i16 and B
//! an i8 widened to i16, so a pair is at most 2 · 255 · 128. (`vpmaddubsw` would eat twice as many
//! bytes but saturates at i16.) A is widened when it is copied, B when it is loaded
//! (`vpmovsxbw`), which halves what is read from memory.

use core::arch::x86_64::*;

use super::has_features;
use crate::Lhs;
use crate::isa::{Task, Tier};
use crate::kernel::{AccTile, LhsTile, Microkernel, RhsPanel, check_tile};

/// The proof that AVX2, FMA and F16C run.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Tier for Avx2 {
    type Int8 = Avx2;

    fn detect() -> Option<Self> {
        has_features!("avx2", "fma", "f16c").then_some(Avx2(()))
    }

    fn int8(self) -> Avx2 {
        self
    }

    #[inline]
    fn enter<K: Task>(self, task: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn door<K: Task>(tier: Avx2, task: K) -> K::Output {
            task.run(tier)
        }
        // SAFETY: `self` is only made by `detect`, which saw all of these features.
        unsafe { door(self, task) }
    }
}

impl Microkernel for Avx2 {
    const ID: &'static str = "avx2/i8/2x8";
    const KG: usize = 2;
    const UNIT: usize = 8;
    const NR: usize = 16;
    const ROWS: &'static [usize] = &[6, 6];
    const SIGNED_LHS_SHIFT: i32 = 0;
    type Lhs = i16;
    type Rhs = i8;

    #[inline(always)]
    fn lhs<A: Lhs>(a: A) -> i16 {
        // Exact: A is a byte.
        a.to_i32() as i16
    }

    #[inline(always)]
    fn rhs(b: i8) -> i8 {
        b
    }

    #[inline]
    fn accumulate(
        self,
        a: LhsTile<'_, i16>,
        b: RhsPanel<'_, i8>,
        init: Option<&[i32]>,
        out: &mut AccTile<'_>,
    ) {
        check_tile::<Self>(&a, &b, init, out);
        let tile = TILES[b.width() / Self::UNIT - 1][a.rows() - 1];
        let stride = out.stride();
        let c = out.as_mut_ptr();
        let (init, init_stride) = init.map_or((c.cast_const(), stride), |i| (i.as_ptr(), 0));
        // SAFETY: `self` proves the instructions. `check_tile` saw that A has `rows` rows of whole
        // groups, B `depth · width` elements, and that `init` (of stride 0) and `out` hold `width`
        // elements in each of the rows; the table is indexed by just that shape.
        unsafe {
            tile(
                a.as_ptr(),
                a.stride(),
                a.depth() / Self::KG,
                b.data().as_ptr(),
                init,
                init_stride,
                c,
                stride,
            );
        }
    }
}

type Tile = unsafe fn(
    a: *const i16,
    a_stride: usize,
    groups: usize,
    b: *const i8,
    init: *const i32,
    init_stride: usize,
    c: *mut i32,
    c_stride: usize,
);

/// Tiles by units of width, then by rows.
static TILES: [&[Tile]; 2] = [
    &[
        tile::<1, 1>,
        tile::<2, 1>,
        tile::<3, 1>,
        tile::<4, 1>,
        tile::<5, 1>,
        tile::<6, 1>,
    ],
    &[
        tile::<1, 2>,
        tile::<2, 2>,
        tile::<3, 2>,
        tile::<4, 2>,
        tile::<5, 2>,
        tile::<6, 2>,
    ],
];

/// A tile of `R` rows by `V` vectors of 8 columns.
///
/// # Safety
///
/// The instructions run; A is valid for reads of `2 · groups` elements from each of `R` rows, B of
/// `16 · V · groups` bytes, `init` and `c` of `8 · V` elements from each of `R` rows.
#[target_feature(enable = "avx2")]
unsafe fn tile<const R: usize, const V: usize>(
    a: *const i16,
    a_stride: usize,
    groups: usize,
    b: *const i8,
    init: *const i32,
    init_stride: usize,
    c: *mut i32,
    c_stride: usize,
) {
    // SAFETY: every offset below stays inside what the caller promised: rows `r < R`, vectors
    // `v < V`, groups `g < groups`. Loads and stores are the unaligned ones.
    unsafe {
        let mut acc = [[_mm256_setzero_si256(); V]; R];
        for r in 0..R {
            for v in 0..V {
                acc[r][v] = _mm256_loadu_si256(init.add(r * init_stride + 8 * v).cast());
            }
        }
        for g in 0..groups {
            let mut bv = [_mm256_setzero_si256(); V];
            for (v, bv) in bv.iter_mut().enumerate() {
                *bv = _mm256_cvtepi8_epi16(_mm_loadu_si128(b.add(16 * (V * g + v)).cast()));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let pair = a.add(r * a_stride + 2 * g).cast::<i32>().read_unaligned();
                let av = _mm256_set1_epi32(pair);
                for (acc, bv) in acc.iter_mut().zip(bv) {
                    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(av, bv));
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                _mm256_storeu_si256(c.add(r * c_stride + 8 * v).cast(), acc[r][v]);
            }
        }
    }
}
