//! AVX-512 with VNNI.
//!
//! `vpdpbusd zmm` adds four products of unsigned and signed bytes to each i32 lane: 128 operations,
//! latency 4 on Zen 4 and Ice Lake, one a cycle (Zen 4), two (Zen 5). Exact: the products are
//! summed without saturation (`vpdpbusds` would saturate). A signed A is shifted by +128 when it
//! is copied, and the driver takes 128 · colsum(B) off.

use core::arch::x86_64::*;

use super::has_features;
use crate::Lhs;
use crate::isa::{Task, Tier};
use crate::kernel::{AccTile, LhsTile, Microkernel, RhsPanel, check_tile};

/// The proof that AVX-512 F, BW, DQ, VL and VNNI run.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Vnni(());

impl Tier for Avx512Vnni {
    type Int8 = Avx512Vnni;

    fn detect() -> Option<Self> {
        has_features!(
            "avx2",
            "fma",
            "f16c",
            "avx512f",
            "avx512bw",
            "avx512dq",
            "avx512vl",
            "avx512vnni"
        )
        .then_some(Avx512Vnni(()))
    }

    fn int8(self) -> Avx512Vnni {
        self
    }

    #[inline]
    fn enter<K: Task>(self, task: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn door<K: Task>(tier: Avx512Vnni, task: K) -> K::Output {
            task.run(tier)
        }
        // SAFETY: `self` is only made by `detect`, which saw all of these features.
        unsafe { door(self, task) }
    }
}

impl Microkernel for Avx512Vnni {
    const ID: &'static str = "avx512_vnni/i8/4x16";
    const KG: usize = 4;
    const UNIT: usize = 16;
    const NR: usize = 64;
    const ROWS: &'static [usize] = &[12, 12, 8, 6];
    const SIGNED_LHS_SHIFT: i32 = 128;
    type Lhs = u8;
    type Rhs = i8;

    #[inline(always)]
    fn lhs<A: Lhs>(a: A) -> u8 {
        // Exact: −128 + 128 to 127 + 128, or 0 to 255.
        (a.to_i32() + crate::kernel::lhs_shift::<Self, A>()) as u8
    }

    #[inline(always)]
    fn rhs(b: i8) -> i8 {
        b
    }

    #[inline]
    fn accumulate(
        self,
        a: LhsTile<'_, u8>,
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
    a: *const u8,
    a_stride: usize,
    groups: usize,
    b: *const i8,
    init: *const i32,
    init_stride: usize,
    c: *mut i32,
    c_stride: usize,
);

/// Tiles by units of width, then by rows. The last number is how many chains of sums a tile has
/// in K: a tile of fewer than four sums alone would wait for the latency of the instruction.
static TILES: [&[Tile]; 4] = [
    &[
        tile::<1, 1, 4>,
        tile::<2, 1, 2>,
        tile::<3, 1, 2>,
        tile::<4, 1, 1>,
        tile::<5, 1, 1>,
        tile::<6, 1, 1>,
        tile::<7, 1, 1>,
        tile::<8, 1, 1>,
        tile::<9, 1, 1>,
        tile::<10, 1, 1>,
        tile::<11, 1, 1>,
        tile::<12, 1, 1>,
    ],
    &[
        tile::<1, 2, 2>,
        tile::<2, 2, 1>,
        tile::<3, 2, 1>,
        tile::<4, 2, 1>,
        tile::<5, 2, 1>,
        tile::<6, 2, 1>,
        tile::<7, 2, 1>,
        tile::<8, 2, 1>,
        tile::<9, 2, 1>,
        tile::<10, 2, 1>,
        tile::<11, 2, 1>,
        tile::<12, 2, 1>,
    ],
    &[
        tile::<1, 3, 2>,
        tile::<2, 3, 1>,
        tile::<3, 3, 1>,
        tile::<4, 3, 1>,
        tile::<5, 3, 1>,
        tile::<6, 3, 1>,
        tile::<7, 3, 1>,
        tile::<8, 3, 1>,
    ],
    &[
        tile::<1, 4, 1>,
        tile::<2, 4, 1>,
        tile::<3, 4, 1>,
        tile::<4, 4, 1>,
        tile::<5, 4, 1>,
        tile::<6, 4, 1>,
    ],
];

/// A tile of `R` rows by `V` vectors of 16 columns, in `S` chains.
///
/// # Safety
///
/// The instructions run; A is valid for reads of `4 · groups` bytes from each of `R` rows, B of
/// `64 · V · groups` bytes, `init` and `c` of `16 · V` elements from each of `R` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tile<const R: usize, const V: usize, const S: usize>(
    mut a: *const u8,
    a_stride: usize,
    groups: usize,
    mut b: *const i8,
    init: *const i32,
    init_stride: usize,
    c: *mut i32,
    c_stride: usize,
) {
    // SAFETY: every offset below stays inside what the caller promised: rows `r < R`, vectors
    // `v < V`, and `groups` groups of 4 bytes of A and `64 · V` bytes of B. Loads and stores are
    // the unaligned ones.
    unsafe {
        let mut acc = [[[_mm512_setzero_si512(); V]; R]; S];
        for r in 0..R {
            for v in 0..V {
                acc[0][r][v] = _mm512_loadu_si512(init.add(r * init_stride + 16 * v).cast());
            }
        }
        for _ in 0..groups / S {
            for acc in &mut acc {
                step::<R, V>(acc, a, a_stride, b);
                a = a.add(4);
                b = b.add(64 * V);
            }
        }
        for _ in 0..groups % S {
            step::<R, V>(&mut acc[0], a, a_stride, b);
            a = a.add(4);
            b = b.add(64 * V);
        }
        for r in 0..R {
            for v in 0..V {
                let mut sum = acc[0][r][v];
                for acc in &acc[1..] {
                    sum = _mm512_add_epi32(sum, acc[r][v]);
                }
                _mm512_storeu_si512(c.add(r * c_stride + 16 * v).cast(), sum);
            }
        }
    }
}

/// One group: four steps in K of a whole tile.
///
/// # Safety
///
/// As [`tile`], for one group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn step<const R: usize, const V: usize>(
    acc: &mut [[__m512i; V]; R],
    a: *const u8,
    a_stride: usize,
    b: *const i8,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let mut bv = [_mm512_setzero_si512(); V];
        for (v, bv) in bv.iter_mut().enumerate() {
            *bv = _mm512_loadu_si512(b.add(64 * v).cast());
        }
        for (r, acc) in acc.iter_mut().enumerate() {
            let av = _mm512_set1_epi32(a.add(r * a_stride).cast::<i32>().read_unaligned());
            for (acc, bv) in acc.iter_mut().zip(bv) {
                *acc = _mm512_dpbusd_epi32(*acc, av, bv);
            }
        }
    }
}
