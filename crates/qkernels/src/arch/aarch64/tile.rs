//! What the kernels' tiles have in common: how sums leave, and the table of tiles.

use core::arch::aarch64::*;

use crate::kernel::RawTile;

/// A tile of fixed size.
pub(super) type Tile = unsafe fn(RawTile<i8, i8, i32>);

/// A table of tiles by units of width, then by rows: for every width the tiles of a list.
macro_rules! tiles {
    ($([$($tile:expr),* $(,)?]),* $(,)?) => { [$(&[$($tile),*]),*] };
}
pub(super) use tiles;

/// Adds `V` vectors of sums to what row `r` of a tile starts at, from column `j` on, and stores
/// them.
///
/// # Safety
///
/// NEON runs, and the promises of [`RawTile`] hold for row `r` and columns `j..j + 4 · V`.
#[inline(always)]
pub(super) unsafe fn store<const V: usize>(
    t: &RawTile<i8, i8, i32>,
    r: usize,
    j: usize,
    sums: [int32x4_t; V],
) {
    // SAFETY: as promised by the caller.
    let row = unsafe { vdupq_n_s32(*t.init_rows.add(r)) };
    for (v, sum) in sums.into_iter().enumerate() {
        let at = j + 4 * v;
        // SAFETY: as promised by the caller.
        unsafe {
            let init = vaddq_s32(vld1q_s32(t.init.add(r * t.init_stride + at)), row);
            vst1q_s32(t.c.add(r * t.c_stride + at), vaddq_s32(init, sum));
        }
    }
}
