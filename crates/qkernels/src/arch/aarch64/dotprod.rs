//! NEON with dotprod (Armv8.2).
//!
//! `sdot` adds four products of signed bytes to each i32 lane, 16 in one instruction: latency 3 on
//! Cortex-A76 and Neoverse-N1, but 1 from sum to sum, two a cycle. Exact: nothing saturates. The
//! form by element takes its four bytes of A from a lane, so one load of A serves four groups and
//! nothing is broadcast.
//!
//! Rejected: `udot` with B shifted to unsigned, which would need a correction that depends on the
//! row; rows of A interleaved four by four, which would save one load in seven and is not needed
//! where two multiplications and two loads go side by side.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::Neon;
use super::reduce::{self, Bytes};
use super::tier;
use super::tile::{Tile, store, tiles};
use crate::kernel::{
    Init, LhsTile, Microkernel, RawTile, RhsPanel, TileMut, check_tile, lhs_shift,
};
use crate::{Arithmetic, Operand};

tier! {
    /// The proof that NEON and dotprod run.
    Dotprod(Neon), "neon,dotprod", ["dotprod"], sums of Dotprod;

    #[inline(always)]
    fn int8_limit(self, iterations: u64) -> u64 {
        // SAFETY: `self` proves the instructions.
        unsafe { reduce::limit::<24>(iterations, 32, |acc, a| sdot(acc, a, a)) }
    }
}

impl Bytes for Dotprod {
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: as promised by the caller.
        unsafe { sdot(acc, a, b) }
    }

    #[inline(always)]
    unsafe fn sum(acc: int32x4_t, a: int8x16_t) -> int32x4_t {
        // SAFETY: as promised by the caller.
        unsafe { sdot(acc, a, vdupq_n_s8(1)) }
    }
}

impl Microkernel for Dotprod {
    type Home = Dotprod;
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    const ID: &'static str = "neon_dotprod/i8/4x4";
    const KG: usize = 4;
    const UNIT: usize = 4;
    const NR: usize = 16;
    const ROWS: &'static [usize] = &[8, 8, 6, 6];
    const SIGNED_LHS_SHIFT: i32 = 0;
    const UNSIGNED_LHS_SHIFT: i32 = -128;
    const SHIFTS: bool = false;
    type Acc = i32;
    type Lhs = i8;
    type Rhs = i8;

    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> i8 {
        // Exact: 0 − 128 to 255 − 128, or −128 to 127.
        (a.int() + lhs_shift::<Self, A>()) as i8
    }

    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> i8 {
        // Exact: of bytes B is always a signed one.
        b.int() as i8
    }

    #[inline]
    fn accumulate(
        self,
        a: LhsTile<'_, i8>,
        b: RhsPanel<'_, i8>,
        init: Option<Init<'_, i32>>,
        out: &mut TileMut<'_, i32>,
    ) {
        let raw = check_tile::<Self>(&a, &b, init, out);
        let tile = TILES[b.width() / Self::UNIT - 1][a.rows() - 1];
        // SAFETY: `self` proves the instructions, and `check_tile` keeps the promises of `raw` for
        // the rows and the width by which the table is indexed.
        unsafe { tile(raw) }
    }
}

/// Tiles by units of width, then by rows.
static TILES: [&[Tile]; 4] = tiles![
    [
        tile::<1, 1>,
        tile::<2, 1>,
        tile::<3, 1>,
        tile::<4, 1>,
        tile::<5, 1>,
        tile::<6, 1>,
        tile::<7, 1>,
        tile::<8, 1>,
    ],
    [
        tile::<1, 2>,
        tile::<2, 2>,
        tile::<3, 2>,
        tile::<4, 2>,
        tile::<5, 2>,
        tile::<6, 2>,
        tile::<7, 2>,
        tile::<8, 2>,
    ],
    [
        tile::<1, 3>,
        tile::<2, 3>,
        tile::<3, 3>,
        tile::<4, 3>,
        tile::<5, 3>,
        tile::<6, 3>,
    ],
    [
        tile::<1, 4>,
        tile::<2, 4>,
        tile::<3, 4>,
        tile::<4, 4>,
        tile::<5, 4>,
        tile::<6, 4>,
    ],
];

/// A tile of `R` rows by `V` vectors of 4 columns.
///
/// # Safety
///
/// The instructions run, and the promises of [`RawTile`] hold for `R` rows and `4 · V` columns.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const R: usize, const V: usize>(t: RawTile<i8, i8, i32>) {
    // SAFETY: every offset below stays inside what the caller promised: rows `r < R`, vectors
    // `v < V`, and `groups` groups of 4 bytes of A and `16 · V` bytes of B.
    unsafe {
        let mut acc = [[vdupq_n_s32(0); V]; R];
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.groups / 4 {
            let rows: [int8x16_t; R] = core::array::from_fn(|r| vld1q_s8(a.add(r * t.a_stride)));
            group::<0, R, V>(&mut acc, &rows, b);
            group::<1, R, V>(&mut acc, &rows, b.add(16 * V));
            group::<2, R, V>(&mut acc, &rows, b.add(32 * V));
            group::<3, R, V>(&mut acc, &rows, b.add(48 * V));
            a = a.add(16);
            b = b.add(64 * V);
        }
        for _ in 0..t.groups % 4 {
            let rows: [int8x16_t; R] = core::array::from_fn(|r| {
                let four = a.add(r * t.a_stride).cast::<i32>().read_unaligned();
                vreinterpretq_s8_s32(vdupq_n_s32(four))
            });
            group::<0, R, V>(&mut acc, &rows, b);
            a = a.add(4);
            b = b.add(16 * V);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            store(&t, r, 0, acc);
        }
    }
}

/// One group: lane `L` of every row times `V` vectors of B.
///
/// # Safety
///
/// The instructions run, and `b` is valid for reads of `16 · V` bytes.
#[inline(always)]
unsafe fn group<const L: usize, const R: usize, const V: usize>(
    acc: &mut [[int32x4_t; V]; R],
    rows: &[int8x16_t; R],
    b: *const i8,
) {
    // SAFETY: vector `v < V` of what the caller promised.
    unsafe {
        for v in 0..V {
            let b = vld1q_s8(b.add(16 * v));
            for (acc, a) in acc.iter_mut().zip(rows) {
                acc[v] = sdot_lane::<L>(acc[v], b, *a);
            }
        }
    }
}

/// `sdot`: to each lane, four products of neighbours.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: reads and writes these registers only.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// `sdot` by element: to each lane, its four bytes of `b` times the four of lane `L` of `a`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_lane<const L: usize>(mut acc: int32x4_t, b: int8x16_t, a: int8x16_t) -> int32x4_t {
    const { assert!(L < 4) };
    // SAFETY: reads and writes these registers only.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]",
            acc = inout(vreg) acc, b = in(vreg) b, a = in(vreg) a, lane = const L,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Tier;
    use crate::tests::data::Rng;

    /// All lanes and all kinds of bytes, the extreme ones among them, against plain sums.
    #[test]
    fn instructions_add_products_of_neighbours() {
        let Some(_) = Dotprod::detect() else {
            // `tests/tiers.rs` says so.
            return;
        };
        let mut rng = Rng(1);
        for round in 0..1000 {
            let mut bytes = |extreme: bool| -> [i8; 16] {
                core::array::from_fn(|_| if extreme { -128 } else { rng.next() as i8 })
            };
            let (a, b) = (bytes(round % 3 == 0), bytes(round % 5 == 0));
            let start: [i32; 4] = core::array::from_fn(|_| rng.next() as i32);
            let sum = |lane: usize, from: usize| {
                (0..4).fold(start[lane], |sum: i32, i| {
                    sum.wrapping_add(i32::from(a[4 * from + i]) * i32::from(b[4 * lane + i]))
                })
            };
            let lanes = |v: int32x4_t| {
                let mut lanes = [0; 4];
                // SAFETY: an array of four i32; every aarch64 target of these tests has NEON.
                unsafe { vst1q_s32(lanes.as_mut_ptr(), v) };
                lanes
            };
            // SAFETY: `detect` saw the instructions; arrays of 16 bytes and of four i32.
            let (whole, by_element) = unsafe {
                let (a, b) = (vld1q_s8(a.as_ptr()), vld1q_s8(b.as_ptr()));
                let start = vld1q_s32(start.as_ptr());
                let by_element = [
                    sdot_lane::<0>(start, b, a),
                    sdot_lane::<1>(start, b, a),
                    sdot_lane::<2>(start, b, a),
                    sdot_lane::<3>(start, b, a),
                ];
                (sdot(start, a, b), by_element)
            };
            assert_eq!(lanes(whole), core::array::from_fn(|lane| sum(lane, lane)));
            for (from, v) in by_element.into_iter().enumerate() {
                assert_eq!(lanes(v), core::array::from_fn(|lane| sum(lane, from)));
            }
        }
    }
}
