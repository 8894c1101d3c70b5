//! NEON with i8mm (Armv8.6, Neoverse-V1 and N2, Apple M2): matrices of bytes.
//!
//! `smmla` multiplies 2 × 8 signed bytes by 8 × 2 and adds to 2 × 2 sums: 32 multiplications in
//! one instruction, latency 3 but 1 from sum to sum, two a cycle on Neoverse-N2. Exact: nothing
//! saturates. It wants two rows of A in one vector, so the driver copies them in pairs, group by
//! group; two loads of half a vector each instead would take the pipes of the multiplication.
//!
//! Rejected: `usmmla` for an unsigned A. A is copied into pairs anyway, which shifts it to signed
//! on the way, and the driver's correction is in what the sums start at.

use core::arch::aarch64::*;
use core::arch::asm;

use super::dotprod::Dotprod;
use super::neon::Neon;
use super::reduce;
use super::tier;
use super::tile::{Tile, store, tiles};
use crate::kernel::{
    Init, LhsTile, Microkernel, RawTile, RhsPanel, TileMut, check_tile, lhs_shift,
};
use crate::{Arithmetic, Operand};

tier! {
    /// The proof that NEON, dotprod and i8mm run.
    I8mm(Dotprod), "neon,dotprod,i8mm", ["i8mm"], sums of Dotprod;

    #[inline(always)]
    fn int8_limit(self, iterations: u64) -> u64 {
        // SAFETY: `self` proves the instructions.
        unsafe { reduce::limit::<24>(iterations, 64, |acc, a| smmla(acc, a, a)) }
    }
}

impl From<I8mm> for Neon {
    fn from(tier: I8mm) -> Neon {
        tier.0.into()
    }
}

impl Microkernel for I8mm {
    type Home = I8mm;
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    const ID: &'static str = "neon_i8mm/i8/8x4";
    const KG: usize = 8;
    const UNIT: usize = 4;
    const NR: usize = 16;
    const ROWS: &'static [usize] = &[12, 12, 8, 6];
    const SIGNED_LHS_SHIFT: i32 = 0;
    const UNSIGNED_LHS_SHIFT: i32 = -128;
    const SHIFTS: bool = false;
    const LHS_ROWS: usize = 2;
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

/// Tiles by units of width, then by rows: pairs of them, the last one whole or half.
static TILES: [&[Tile]; 4] = tiles![
    [
        tile::<1, 1, false>,
        tile::<1, 1, true>,
        tile::<2, 1, false>,
        tile::<2, 1, true>,
        tile::<3, 1, false>,
        tile::<3, 1, true>,
        tile::<4, 1, false>,
        tile::<4, 1, true>,
        tile::<5, 1, false>,
        tile::<5, 1, true>,
        tile::<6, 1, false>,
        tile::<6, 1, true>,
    ],
    [
        tile::<1, 2, false>,
        tile::<1, 2, true>,
        tile::<2, 2, false>,
        tile::<2, 2, true>,
        tile::<3, 2, false>,
        tile::<3, 2, true>,
        tile::<4, 2, false>,
        tile::<4, 2, true>,
        tile::<5, 2, false>,
        tile::<5, 2, true>,
        tile::<6, 2, false>,
        tile::<6, 2, true>,
    ],
    [
        tile::<1, 3, false>,
        tile::<1, 3, true>,
        tile::<2, 3, false>,
        tile::<2, 3, true>,
        tile::<3, 3, false>,
        tile::<3, 3, true>,
        tile::<4, 3, false>,
        tile::<4, 3, true>,
    ],
    [
        tile::<1, 4, false>,
        tile::<1, 4, true>,
        tile::<2, 4, false>,
        tile::<2, 4, true>,
        tile::<3, 4, false>,
        tile::<3, 4, true>,
    ],
];

/// A tile of `P` pairs of rows, the last one a single row unless `W`, by `V` units of 4 columns.
///
/// # Safety
///
/// The instructions run, and the promises of [`RawTile`] hold for `2 · P` interleaved rows of A,
/// `4 · V` columns, and as many rows of the sums as there are.
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn tile<const P: usize, const V: usize, const W: bool>(t: RawTile<i8, i8, i32>) {
    // SAFETY: every offset below stays inside what the caller promised: pairs `p < P`, units
    // `v < V` of two vectors each, and `groups` groups of 16 bytes of a pair and `32 · V` bytes of
    // B; the second row of the last pair is stored only where it is there.
    unsafe {
        // Lanes: row 0 with columns 0 and 1 of two, then row 1.
        let mut acc = [[[vdupq_n_s32(0); 2]; V]; P];
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.groups {
            let pairs: [int8x16_t; P] =
                core::array::from_fn(|p| vld1q_s8(a.add(2 * p * t.a_stride)));
            for v in 0..V {
                for half in 0..2 {
                    let b = vld1q_s8(b.add(32 * v + 16 * half));
                    for (acc, pair) in acc.iter_mut().zip(pairs) {
                        acc[v][half] = smmla(acc[v][half], pair, b);
                    }
                }
            }
            a = a.add(16);
            b = b.add(32 * V);
        }
        for (p, acc) in acc.into_iter().enumerate() {
            let row = |pick: unsafe fn(int64x2_t, int64x2_t) -> int64x2_t| {
                acc.map(|[left, right]| {
                    let (left, right) = (vreinterpretq_s64_s32(left), vreinterpretq_s64_s32(right));
                    vreinterpretq_s32_s64(pick(left, right))
                })
            };
            store(&t, 2 * p, 0, row(vzip1q_s64));
            if W || p + 1 < P {
                store(&t, 2 * p + 1, 0, row(vzip2q_s64));
            }
        }
    }
}

/// `smmla`: to each lane `2 · i + j`, row `i` of `a` times row `j` of `b`, 8 bytes each.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: reads and writes these registers only.
    unsafe {
        asm!(
            "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
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

    /// All kinds of bytes, the extreme ones among them, against plain sums.
    #[test]
    fn the_instruction_multiplies_matrices() {
        let Some(_) = I8mm::detect() else {
            // `tests/tiers.rs` says so.
            return;
        };
        let mut rng = Rng(2);
        for round in 0..1000 {
            let mut bytes = |extreme: bool| -> [i8; 16] {
                core::array::from_fn(|_| if extreme { -128 } else { rng.next() as i8 })
            };
            let (a, b) = (bytes(round % 3 == 0), bytes(round % 5 == 0));
            let start: [i32; 4] = core::array::from_fn(|_| rng.next() as i32);
            let mut found = [0i32; 4];
            // SAFETY: `detect` saw the instructions; arrays of 16 bytes and of four i32.
            unsafe {
                let (a, b) = (vld1q_s8(a.as_ptr()), vld1q_s8(b.as_ptr()));
                let sums = smmla(vld1q_s32(start.as_ptr()), a, b);
                vst1q_s32(found.as_mut_ptr(), sums);
            }
            let expected: [i32; 4] = core::array::from_fn(|lane| {
                (0..8).fold(start[lane], |sum: i32, k| {
                    let (a, b) = (a[lane / 2 * 8 + k], b[lane % 2 * 8 + k]);
                    sum.wrapping_add(i32::from(a) * i32::from(b))
                })
            });
            assert_eq!(found, expected);
        }
    }
}
