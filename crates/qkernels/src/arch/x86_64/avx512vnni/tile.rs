//! The tiles of AVX-512-VNNI.
//!
//! Tiles of 6 × 64 with whole depths; 12 × 32 was 1 to 2 % slower from 256³ to 128×768×3072 (Zen 4,
//! one thread). Asking for B in the panel itself gained nothing for tall tiles and lost 4 to 20 % at
//! one row with B in L2 or L3 (Zen 4), and nothing on Emerald Rapids; asking for the next panel did,
//! where B may not be in L2.

use core::arch::x86_64::*;
use core::sync::atomic::{Ordering, compiler_fence};

use super::Avx512Vnni;
use super::finish::{Finish, Scaled, Sums, finish_row, last_mask};
use crate::arch::tile::Fetching;
use crate::arch::x86_64::is_amd;
use crate::kernel::{
    Ahead, Init, LhsTile, Microkernel, Products, RawTile, RhsPanel, Scaling, TileMut,
    check_finished, check_tile,
};
use crate::store::Steps;
use crate::{Arithmetic, Operand};

impl Microkernel for Avx512Vnni {
    type Home = Avx512Vnni;
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    const ID: &'static str = "avx512_vnni/i8/4x16";
    const KG: usize = 4;
    const UNIT: usize = 16;
    const NR: usize = 64;
    const ROWS: &'static [usize] = &[12, 12, 8, 6];
    const SIGNED_LHS_SHIFT: i32 = 128;
    const SHIFTS: bool = true;
    const MASKS: bool = true;
    const PRODUCTS: bool = true;
    const SEGMENTS: bool = true;
    const STACKS: bool = true;
    const TALL: usize = 11;
    const FINISHES: bool = true;
    type Acc = i32;
    type Lhs = u8;
    type Rhs = i8;

    #[inline(always)]
    fn asks() -> bool {
        // On Zen 4 nothing was gained. Tests run both on every processor.
        cfg!(test) || !is_amd()
    }

    #[inline(always)]
    fn shifts_freely(self) -> bool {
        // Zen multiplies in two pipes and flips bits in four; of Intel's two for these vectors,
        // both do either.
        is_amd()
    }

    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> u8 {
        // Exact: −128 + 128 to 127 + 128, or 0 to 255.
        (a.int() + crate::kernel::lhs_shift::<Self, A>()) as u8
    }

    #[inline(always)]
    fn lhs_row<A: Operand>(self, from: &[A], to: &mut [u8]) {
        // Known when it is compiled: both are bytes, or nobody calls this.
        if size_of::<A>() == 1 {
            let shift = crate::kernel::lhs_shift::<Self, A>() as u8;
            // SAFETY: `self` proves the instructions.
            unsafe { flipped(bytemuck::cast_slice(from), shift, to) };
        }
    }

    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> i8 {
        // Exact: of bytes B is always a signed one.
        b.int() as i8
    }

    #[inline(always)]
    fn accumulate(
        self,
        a: LhsTile<'_, u8>,
        b: RhsPanel<'_, i8>,
        init: Option<Init<'_, i32>>,
        out: &mut TileMut<'_, i32>,
    ) {
        let raw = check_tile::<Self>(&a, &b, init, out);
        let units = b.width() / Self::UNIT;
        let sums = Sums {
            last: last_mask(out.width(), b.width()),
        };
        if is_tall(&a, &b) {
            let tile = TALL[usize::from(b.ahead().is_some())][usize::from(a.shift())];
            let tile = tile[a.rows() - LEAST_TALL];
            assert!(out.width() >= b.width());
            // SAFETY: as below, of a full panel and all of its columns.
            return unsafe { halves(raw, 32, |_, raw| tile(raw, sums)) };
        }
        let rows = a.rows().min(Self::ROWS[units - 1]);
        let tile = match (b.ahead(), b.width(), a.shift()) {
            (Some(_), Self::NR, false) if rows >= LEAST_ASKING => ASKING[0][rows - LEAST_ASKING],
            (Some(_), Self::NR, true) if rows >= LEAST_ASKING => ASKING[1][rows - LEAST_ASKING],
            (_, _, false) => PLAIN[units - 1][rows - 1],
            (_, _, true) => SHIFTING[units - 1][rows - 1],
        };
        // SAFETY: `self` proves the instructions, and `check_tile` keeps the promises of `raw` for
        // the width and the rows of a tile by which the table is indexed, as many tiles as there are.
        unsafe { tile(raw, sums) }
    }

    #[inline(always)]
    fn finish(
        self,
        a: LhsTile<'_, u8>,
        b: RhsPanel<'_, i8>,
        init: Init<'_, i32>,
        scaling: Scaling<'_>,
        steps: &Steps<'_>,
        out: &mut TileMut<'_, u8>,
    ) -> bool {
        if matches!(steps, Steps::Bf16 { .. }) {
            return false;
        }
        // These tiles only: there are many shapes of others.
        let cols = out.width() / steps.size();
        let (shift, units) = (a.shift(), b.width() / Self::UNIT);
        let rows = a.rows().min(Self::ROWS[units - 1]);
        if cols < b.width() {
            debug_assert!(!is_tall(&a, &b), "tall calls are of full panels");
            let tile: Option<Finished<'_, true>> = highest!((shift, units, rows), Scaled<'_, true>);
            let Some(tile) = tile else {
                return self.through_memory(a, b, init, scaling, steps, out);
            };
            let raw = check_finished::<Self, u8>(&a, &b, init, out, steps.size());
            let finish = Scaled::new(scaling, steps, a.rows(), b.width(), cols);
            // SAFETY: as below; `finish` knows how many columns the output has.
            unsafe { tile(raw, finish) }
            return true;
        }
        if is_tall(&a, &b) {
            let tiles = match shift {
                false => tall!(false, 2, Scaled<'_, false>),
                true => tall!(true, 2, Scaled<'_, false>),
            };
            let tile = tiles[a.rows() - LEAST_TALL];
            let raw = check_finished::<Self, u8>(&a, &b, init, out, steps.size());
            let finish = Scaled::new(scaling, steps, a.rows(), b.width(), cols);
            // SAFETY: as below, of a full panel.
            unsafe {
                halves(raw, 32 * steps.size(), |half, raw| {
                    tile(raw, finish.from(2 * half));
                });
            }
            return true;
        }
        let tile: Option<Finished<'_, false>> = match (shift, units, rows) {
            (false, 4, 6) if b.ahead().is_some() => Some(tile::<false, 2, 6, 4, 4, 1, _> as _),
            (true, 4, 6) if b.ahead().is_some() => Some(tile::<true, 2, 6, 4, 4, 1, _> as _),
            // The last tiles of a panel; where there is nothing to ask for, they ask for B.
            (false, 4, 3) => Some(tile::<false, 4, 3, 4, 4, 1, _> as _),
            (false, 4, 4) => Some(tile::<false, 4, 4, 4, 4, 1, _> as _),
            (false, 4, 5) => Some(tile::<false, 4, 5, 4, 4, 1, _> as _),
            (true, 4, 3) => Some(tile::<true, 4, 3, 4, 4, 1, _> as _),
            (true, 4, 4) => Some(tile::<true, 4, 4, 4, 4, 1, _> as _),
            (true, 4, 5) => Some(tile::<true, 4, 5, 4, 4, 1, _> as _),
            key => highest!(key, Scaled<'_, false>),
        };
        let Some(tile) = tile else {
            return self.through_memory(a, b, init, scaling, steps, out);
        };
        let raw = check_finished::<Self, u8>(&a, &b, init, out, steps.size());
        let finish = Scaled::new(scaling, steps, a.rows(), b.width(), cols);
        // SAFETY: `self` proves the instructions, `check_finished` keeps the promises of `raw`
        // for the rows and the width that the tile was chosen by, and what belongs to rows and
        // columns was just cut to them.
        unsafe { tile(raw, finish) }
        true
    }
}

impl Avx512Vnni {
    /// [`finish`](Microkernel::finish) for every shape of a tile: its sums go through the stack.
    ///
    /// Inlined into the door: outside of it every intrinsic would be a call.
    #[inline(always)]
    fn through_memory(
        self,
        a: LhsTile<'_, u8>,
        b: RhsPanel<'_, i8>,
        init: Init<'_, i32>,
        scaling: Scaling<'_>,
        steps: &Steps<'_>,
        out: &mut TileMut<'_, u8>,
    ) -> bool {
        let (rows, width) = (a.rows(), b.width());
        let mut sums = [0; MOST];
        self.accumulate(
            a,
            b,
            Some(init),
            &mut TileMut::new(&mut sums, width, rows, width),
        );
        let cols = out.width() / steps.size();
        let finish = Scaled::new(scaling, steps, rows, width, cols);
        for (r, sums) in sums.chunks_exact(width).take(rows).enumerate() {
            let out = out.row_mut(r).as_mut_ptr();
            // SAFETY: `self` proves the instructions; so many vectors are a row of sums, and `finish`
            // knows how many columns of the last one the output has.
            unsafe {
                match width / Self::UNIT {
                    1 => finish_row::<1>(finish, r, sums, out),
                    2 => finish_row::<2>(finish, r, sums, out),
                    3 => finish_row::<3>(finish, r, sums, out),
                    _ => finish_row::<4>(finish, r, sums, out),
                }
            }
        }
        true
    }
}

/// Copies bytes with the bits of `flip` the other way round; what follows in `to` takes any.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn flipped(from: &[u8], flip: u8, to: &mut [u8]) {
    let flip = _mm512_set1_epi8(flip.cast_signed());
    let (from, rest) = from.as_chunks::<64>();
    let (to, last) = to.split_at_mut(64 * from.len());
    for (from, to) in from.iter().zip(to.as_chunks_mut::<64>().0) {
        // SAFETY: arrays of a vector.
        unsafe {
            let bytes = _mm512_loadu_si512(from.as_ptr().cast());
            _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_xor_si512(bytes, flip));
        }
    }
    if last.is_empty() {
        return;
    }
    let first = |count: usize| (1 << count) - 1;
    // SAFETY: the masks keep to the bytes of both.
    unsafe {
        let bytes = _mm512_maskz_loadu_epi8(first(rest.len()), rest.as_ptr().cast());
        let bytes = _mm512_xor_si512(bytes, flip);
        match last.first_chunk_mut::<64>() {
            Some(last) => _mm512_storeu_si512(last.as_mut_ptr().cast(), bytes),
            None => _mm512_mask_storeu_epi8(last.as_mut_ptr().cast(), first(last.len()), bytes),
        }
    }
}

/// Sums of the largest tile.
const MOST: usize = 12 * 32;

type Tile = unsafe fn(RawTile<u8, i8>, Sums);

/// Tiles by units of width, then by rows. The last number of a tile is how many chains of sums it
/// has in K: ten sums are under way at once on Intel (two pipes, five cycles), four on Zen 4, and
/// fewer would wait for each other.
macro_rules! tiles {
    ($shift:literal) => {
        [
            &[
                tile::<$shift, 0, 1, 1, 1, 4, Sums>,
                tile::<$shift, 0, 2, 1, 1, 4, Sums>,
                tile::<$shift, 0, 3, 1, 1, 4, Sums>,
                tile::<$shift, 0, 4, 1, 1, 2, Sums>,
                tile::<$shift, 0, 5, 1, 1, 2, Sums>,
                tile::<$shift, 0, 6, 1, 1, 2, Sums>,
                tile::<$shift, 0, 7, 1, 1, 2, Sums>,
                tile::<$shift, 0, 8, 1, 1, 1, Sums>,
                tile::<$shift, 0, 9, 1, 1, 1, Sums>,
                tile::<$shift, 0, 10, 1, 1, 1, Sums>,
                tile::<$shift, 0, 11, 1, 1, 1, Sums>,
                tile::<$shift, 0, 12, 1, 1, 1, Sums>,
            ],
            &[
                tile::<$shift, 0, 1, 2, 2, 4, Sums>,
                tile::<$shift, 0, 2, 2, 2, 3, Sums>,
                tile::<$shift, 0, 3, 2, 2, 2, Sums>,
                tile::<$shift, 0, 4, 2, 2, 2, Sums>,
                tile::<$shift, 0, 5, 2, 2, 1, Sums>,
                tile::<$shift, 0, 6, 2, 2, 1, Sums>,
                tile::<$shift, 0, 7, 2, 2, 1, Sums>,
                tile::<$shift, 0, 8, 2, 2, 1, Sums>,
                tile::<$shift, 0, 9, 2, 2, 1, Sums>,
                tile::<$shift, 0, 10, 2, 2, 1, Sums>,
                tile::<$shift, 0, 11, 2, 2, 1, Sums>,
                tile::<$shift, 0, 12, 2, 2, 1, Sums>,
            ],
            &[
                tile::<$shift, 0, 1, 3, 3, 4, Sums>,
                tile::<$shift, 0, 2, 3, 3, 2, Sums>,
                tile::<$shift, 0, 3, 3, 3, 1, Sums>,
                tile::<$shift, 0, 4, 3, 3, 1, Sums>,
                tile::<$shift, 0, 5, 3, 3, 1, Sums>,
                tile::<$shift, 0, 6, 3, 3, 1, Sums>,
                tile::<$shift, 0, 7, 3, 3, 1, Sums>,
                tile::<$shift, 0, 8, 3, 3, 1, Sums>,
            ],
            &[
                tile::<$shift, 0, 1, 4, 4, 2, Sums>,
                tile::<$shift, 0, 2, 4, 4, 2, Sums>,
                tile::<$shift, 0, 3, 4, 4, 1, Sums>,
                tile::<$shift, 0, 4, 4, 4, 1, Sums>,
                tile::<$shift, 0, 5, 4, 4, 1, Sums>,
                tile::<$shift, 0, 6, 4, 4, 1, Sums>,
            ],
        ]
    };
}

/// A tile that finishes its sums.
type Finished<'a, const PART: bool> = unsafe fn(RawTile<u8, i8, i32, u8>, Scaled<'a, PART>);

/// The tile of full height of some shift and units, if it has so many rows.
macro_rules! highest {
    ($key:expr, $finish:ty) => {
        match $key {
            (false, 1, 12) => Some(tile::<false, 0, 12, 1, 1, 1, $finish> as _),
            (false, 2, 12) => Some(tile::<false, 0, 12, 2, 2, 1, $finish> as _),
            (false, 3, 8) => Some(tile::<false, 0, 8, 3, 3, 1, $finish> as _),
            (false, 4, 6) => Some(tile::<false, 0, 6, 4, 4, 1, $finish> as _),
            (true, 1, 12) => Some(tile::<true, 0, 12, 1, 1, 1, $finish> as _),
            (true, 2, 12) => Some(tile::<true, 0, 12, 2, 2, 1, $finish> as _),
            (true, 3, 8) => Some(tile::<true, 0, 8, 3, 3, 1, $finish> as _),
            (true, 4, 6) => Some(tile::<true, 0, 6, 4, 4, 1, $finish> as _),
            _ => None,
        }
    };
}
use highest;

/// For A as the instruction reads it.
static PLAIN: [&[Tile]; 4] = tiles!(false);
/// For a signed A, flipped to unsigned when it is read: `vpxord` with a broadcast operand takes
/// the place of the broadcast. On Zen 4 it is free at 6 × 64 and costs 8 % at 12 × 32 (a copy of A
/// costs about 2 / N of the time); where it is not free, only narrow products use it.
static SHIFTING: [&[Tile]; 4] = tiles!(true);

/// The fewest rows of a tile that asks for the next panel.
const LEAST_ASKING: usize = 2;

/// Tiles of full panels that ask for the next one: of few rows for as many lines as a group has, since
/// one tile asks for all of it, of others for two, in which the parts of two tiles or more end.
macro_rules! asking {
    ($shift:literal) => {
        [
            tile::<$shift, 4, 2, 4, 4, 2, Sums>,
            tile::<$shift, 4, 3, 4, 4, 1, Sums>,
            tile::<$shift, 4, 4, 4, 4, 1, Sums>,
            tile::<$shift, 4, 5, 4, 4, 1, Sums>,
            tile::<$shift, 2, 6, 4, 4, 1, Sums>,
        ]
    };
}
/// The same for either A.
static ASKING: [[Tile; 5]; 2] = [asking!(false), asking!(true)];

/// The rows of the lowest tall tile.
const LEAST_TALL: usize = 7;

/// Whether a call is a tall one: checked panels of more rows than a tile has, and no stack.
#[inline(always)]
fn is_tall(a: &LhsTile<'_, u8>, b: &RhsPanel<'_, i8>) -> bool {
    b.width() == Avx512Vnni::NR && (LEAST_TALL..=Avx512Vnni::TALL).contains(&a.rows())
}

/// Tall tiles of half of a full panel, from [`LEAST_TALL`] rows on.
macro_rules! tall {
    ($shift:literal, $asks:literal, $finish:ty) => {
        [
            tile::<$shift, $asks, 7, 2, 4, 1, $finish>,
            tile::<$shift, $asks, 8, 2, 4, 1, $finish>,
            tile::<$shift, $asks, 9, 2, 4, 1, $finish>,
            tile::<$shift, $asks, 10, 2, 4, 1, $finish>,
            tile::<$shift, $asks, 11, 2, 4, 1, $finish>,
        ]
    };
}
use tall;

/// Those of sums: that ask for the next panel or do not, for either A.
static TALL: [[[Tile; 5]; 2]; 2] = [
    [tall!(false, 0, Sums), tall!(true, 0, Sums)],
    [tall!(false, 2, Sums), tall!(true, 2, Sums)],
];

/// Calls `each` for the left and the right half of a full panel, `columns` elements of the output each.
///
/// # Safety
///
/// The promises of [`RawTile`] hold for a width of 64 columns, and the output has some of the right half.
#[inline(always)]
unsafe fn halves<E: Copy>(
    t: RawTile<u8, i8, i32, E>,
    columns: usize,
    each: impl Fn(usize, RawTile<u8, i8, i32, E>),
) {
    each(0, t);
    // SAFETY: within what the caller promised: two of four vectors further.
    unsafe {
        let products = t.products.as_ref().map(|products| Products {
            rows: products.rows,
            columns: products.columns.get_unchecked(32..),
            cut: products.cut.map(|cut| cut.get_unchecked(32..)),
        });
        let right = RawTile {
            b: t.b.add(32 * 4),
            // Where these are zeros, a tile knows by their place.
            init: t.init.add(if t.columns_are_zeros() { 0 } else { 32 }),
            products: products.as_ref().map_or(core::ptr::null(), |p| p),
            // Each half asks for half of what a call asks for.
            ahead: Ahead {
                at: t.ahead.at.wrapping_add(t.groups * t.ahead.step),
                ..t.ahead
            },
            c: t.c.add(columns),
            ..t
        };
        each(1, right);
    }
}

/// Tiles of `R` rows by `V` vectors of 16 columns, in a panel of `W` of them, in `S` chains; `X`: A is
/// shifted when read; for each group, `P` lines of what comes next are asked for.
///
/// Sums leave row by row between the last group's multiplications (on Zen 4, 64 steps in K: 415 cycles
/// a tile, 426 where all are stored at the end, and 384 for the multiplications alone), and what columns
/// start at is added then: behind the stores of the tile before, sums that start at loaded vectors
/// begin later on Emerald Rapids than those that start at zero. Values of rows are broadcast, which no
/// addition would be faster than.
///
/// # Safety
///
/// The instructions run, the promises of [`RawTile`] hold for tiles of `R` rows and `16 · V` columns,
/// with the groups of B `64 · W` bytes apart, and `finish` covers all of these rows and columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile<
    const X: bool,
    const P: usize,
    const R: usize,
    const V: usize,
    const W: usize,
    const S: usize,
    F: Finish,
>(
    t: RawTile<u8, i8, i32, F::Elem>,
    finish: F,
) {
    let starts = !t.columns_are_zeros();
    let alike = t.init_stride == 0 && t.products.is_null();
    // The last group of all is multiplied while the sums leave.
    let (groups, fewer) = (t.groups, usize::from(t.groups > 0));
    let fetching = Fetching::new::<R>((groups - fewer) / S);
    let (a_stride, c_stride, init) = (t.a_stride, t.c_stride, t.init);
    let (mut lhs, mut c) = (t.a, t.c);
    let mut ahead = t.ahead;
    // SAFETY: every offset below stays inside what the caller promised: rows `r < R` of each tile,
    // vectors `v < V`, and in each segment `groups` groups of 4 bytes of A and `64 · V` bytes of B.
    // Loads and stores are the unaligned ones.
    unsafe {
        const { assert!(R <= 12, "the rows are unrolled by hand") };
        for index in 0..t.tiles {
            let mut acc = [[[_mm512_setzero_si512(); V]; R]; S];
            if !t.rows_are_alike() {
                for (r, acc) in acc[0].iter_mut().enumerate() {
                    *acc = [_mm512_set1_epi32(*t.init_rows.add(index * R + r)); V];
                }
            }
            let (mut segment, mut left) = (t.segments, t.segment_count);
            let (mut a, mut b);
            loop {
                a = lhs.add((*segment).a);
                b = t.b.add((*segment).b * 16 * W);
                left -= 1;
                let before = groups - if left == 0 { fewer } else { 0 };
                for steps in fetching.parts(c, c_stride, 16 * V * finish.size(), before / S) {
                    for _ in 0..steps {
                        for line in 0..P * S {
                            _mm_prefetch::<_MM_HINT_T1>(ahead.at.wrapping_add(64 * line).cast());
                        }
                        ahead.at = ahead.at.wrapping_add(S * ahead.step);
                        for acc in &mut acc {
                            step::<X, R, V>(acc, a, a_stride, b);
                            a = a.add(4);
                            b = b.add(64 * W);
                        }
                    }
                }
                for _ in 0..before % S {
                    step::<X, R, V>(&mut acc[0], a, a_stride, b);
                    a = a.add(4);
                    b = b.add(64 * W);
                }
                if left == 0 {
                    break;
                }
                segment = segment.add(1);
            }
            let mut stride = a_stride;
            if groups == 0 {
                (a, b, stride) = (NOTHING.as_ptr().cast(), NOTHING.as_ptr().cast(), 0);
            }
            let last = vectors::<V>(b);
            // Unrolled by hand: in a loop too long for the compiler to unroll, the sums would have
            // to be in memory.
            macro_rules! rows {
                ($alike:literal: $($r:literal)*) => {$(
                    if $r < R {
                        let mut sums = acc[0][$r];
                        row::<X, V>(&mut sums, a.add($r * stride), &last);
                        for acc in &acc[1..] {
                            for (sum, more) in sums.iter_mut().zip(acc[$r]) {
                                *sum = _mm512_add_epi32(*sum, more);
                            }
                        }
                        if !$alike {
                            start::<V, F::Elem>(&mut sums, &t, index * R + $r);
                        } else if starts {
                            let init = vectors::<V>(init.cast());
                            for (sum, start) in sums.iter_mut().zip(init) {
                                *sum = _mm512_add_epi32(*sum, start);
                            }
                        }
                        finish.row(index * R + $r, sums, c.add($r * c_stride));
                        // Keeps the compiler from collecting the stores at the end.
                        compiler_fence(Ordering::SeqCst);
                    }
                )*};
            }
            if alike {
                rows!(true: 0 1 2 3 4 5 6 7 8 9 10 11);
            } else {
                rows!(false: 0 1 2 3 4 5 6 7 8 9 10 11);
            }
            // Nothing is read there before a tile is known to be.
            lhs = lhs.wrapping_add(R * a_stride);
            c = c.wrapping_add(R * c_stride);
        }
    }
}

/// Adds to the sums of row `r` of all tiles what columns start at, and products.
///
/// # Safety
///
/// As [`tile`], for the row.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn start<const V: usize, E>(sums: &mut [__m512i; V], t: &RawTile<u8, i8, i32, E>, r: usize) {
    // SAFETY: as promised by the caller.
    unsafe {
        let init = vectors::<V>(t.init.add(r * t.init_stride).cast());
        for (sum, init) in sums.iter_mut().zip(init) {
            *sum = _mm512_add_epi32(*sum, init);
        }
        if t.init_stride != 0 {
            return;
        }
        if let Some(products) = t.products.as_ref() {
            let factor = *products.rows.get_unchecked(r);
            if let Some(cut) = products.cut {
                // factor · (low + 128 · high) of pairs of i16.
                let pair = _mm512_set1_epi32(factor & 0xffff | factor << (16 + 7));
                let columns = vectors::<V>(cut.as_ptr().cast());
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm512_dpwssd_epi32(*sum, pair, column);
                }
                return;
            }
            let factor = _mm512_set1_epi32(factor);
            let columns = vectors::<V>(products.columns.as_ptr().cast());
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = _mm512_add_epi32(*sum, _mm512_mullo_epi32(factor, column));
            }
        }
    }
}

/// A group where there is none: zeros that change no sum.
static NOTHING: [u64; 32] = [0; 32];

/// `V` vectors that follow each other.
///
/// # Safety
///
/// Valid for reads of `64 · V` bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn vectors<const V: usize>(p: *const i8) -> [__m512i; V] {
    // SAFETY: as promised by the caller.
    core::array::from_fn(|v| unsafe { _mm512_loadu_si512(p.add(64 * v).cast()) })
}

/// One group of one row: four bytes of A times `V` vectors of B.
///
/// # Safety
///
/// `a` is valid for reads of 4 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn row<const X: bool, const V: usize>(
    acc: &mut [__m512i; V],
    a: *const u8,
    b: &[__m512i; V],
) {
    // SAFETY: as promised by the caller.
    let mut a = _mm512_set1_epi32(unsafe { a.cast::<i32>().read_unaligned() });
    if X {
        // a + 128 = a ^ 128, byte by byte.
        a = _mm512_xor_si512(a, _mm512_set1_epi8(i8::MIN));
    }
    for (acc, b) in acc.iter_mut().zip(b) {
        *acc = _mm512_dpbusd_epi32(*acc, a, *b);
    }
}

/// One group of a whole tile.
///
/// # Safety
///
/// As [`tile`], for one group.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn step<const X: bool, const R: usize, const V: usize>(
    acc: &mut [[__m512i; V]; R],
    a: *const u8,
    a_stride: usize,
    b: *const i8,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let b = vectors::<V>(b);
        for (r, acc) in acc.iter_mut().enumerate() {
            row::<X, V>(acc, a.add(r * a_stride), &b);
        }
    }
}
