//! NEON, as every aarch64 processor has it.
//!
//! `smull` multiplies 8 pairs of signed bytes into i16, `sadalp` adds neighbours of these to four
//! i32: 16 multiplications in four instructions. On Cortex-A72 and A76 the first kind runs on one
//! vector pipe and the second on the other, one a cycle each: 8 multiplications a cycle. Exact: a
//! product is at most 2^14, and it is added to i32 at once.
//!
//! A group is 16 neighbours in K of one column, so neither operand is broadcast, and the four
//! lanes of a column's sum are added up once at the end. Rejected: `smlal` on i16 by element, half
//! as many multiplications a cycle on these processors, and `smlal` on top of `smull` before the
//! widening, which two products of −128 by −128 overflow.

use core::arch::aarch64::*;

use super::reduce::{self, Bytes};
use super::tier;
use super::tile::{Tile, store, tiles};
use crate::kernel::{
    Init, LhsTile, Microkernel, RawTile, RhsPanel, TileMut, check_tile, lhs_shift,
};
use crate::{Arithmetic, Operand};

tier! {
    /// The proof that NEON runs.
    Neon, "neon", ["neon"], sums of Neon;

    #[inline(always)]
    fn int8_limit(self, iterations: u64) -> u64 {
        // SAFETY: `self` proves the instructions.
        unsafe { reduce::limit::<16>(iterations, 32, |acc, a| multiply(acc, a, a)) }
    }
}

impl Bytes for Neon {
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: as promised by the caller.
        unsafe { multiply(acc, a, b) }
    }

    #[inline(always)]
    unsafe fn sum(acc: int32x4_t, a: int8x16_t) -> int32x4_t {
        // SAFETY: as promised by the caller.
        unsafe { vpadalq_s16(acc, vpaddlq_s8(a)) }
    }
}

impl Microkernel for Neon {
    type Home = Neon;
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    const ID: &'static str = "neon/i8/16x4";
    const KG: usize = 16;
    const UNIT: usize = 4;
    const NR: usize = 16;
    const ROWS: &'static [usize] = &[4, 4, 4, 4];
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

/// Tiles by units of width, then by rows: units that are summed at once, and how many times. One
/// row reads B in one pass; more rows have registers for fewer columns.
static TILES: [&[Tile]; 4] = tiles![
    [
        tile::<1, 1, 1>,
        tile::<2, 1, 1>,
        tile::<3, 1, 1>,
        tile::<4, 1, 1>,
    ],
    [
        tile::<1, 2, 1>,
        tile::<2, 2, 1>,
        tile::<3, 1, 2>,
        tile::<4, 1, 2>,
    ],
    [
        tile::<1, 3, 1>,
        tile::<2, 1, 3>,
        tile::<3, 1, 3>,
        tile::<4, 1, 3>,
    ],
    [
        tile::<1, 4, 1>,
        tile::<2, 2, 2>,
        tile::<3, 1, 4>,
        tile::<4, 1, 4>,
    ],
];

/// A tile of `R` rows by `U · T` units of 4 columns, `U` at a time.
///
/// # Safety
///
/// The instructions run, and the promises of [`RawTile`] hold for `R` rows and `4 · U · T`
/// columns.
#[target_feature(enable = "neon")]
unsafe fn tile<const R: usize, const U: usize, const T: usize>(t: RawTile<i8, i8, i32>) {
    for part in 0..T {
        let mut acc = [[[vdupq_n_s32(0); 4]; U]; R];
        // SAFETY: every offset below stays inside what the caller promised: rows `r < R`, columns
        // `4 · u + j < 4 · U` of a part `part < T`, groups `g < groups`.
        unsafe {
            for g in 0..t.groups {
                let b = t.b.add(64 * U * (T * g + part));
                for u in 0..U {
                    let b: [int8x16_t; 4] =
                        core::array::from_fn(|j| vld1q_s8(b.add(64 * u + 16 * j)));
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let a = vld1q_s8(t.a.add(r * t.a_stride + 16 * g));
                        for (acc, b) in acc[u].iter_mut().zip(b) {
                            *acc = multiply(*acc, a, b);
                        }
                    }
                }
            }
            for (r, acc) in acc.into_iter().enumerate() {
                let sums = acc
                    .map(|acc| vpaddq_s32(vpaddq_s32(acc[0], acc[1]), vpaddq_s32(acc[2], acc[3])));
                store(&t, r, 4 * U * part, sums);
            }
        }
    }
}

/// Adds 16 products: 2, 2, 2 and 2 of the lower half to the lanes, then those of the upper half.
#[inline]
#[target_feature(enable = "neon")]
fn multiply(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    vpadalq_s16(vpadalq_s16(acc, low), vmull_high_s8(a, b))
}
