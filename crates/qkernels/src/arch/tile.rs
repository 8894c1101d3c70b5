//! The tile of sums, written once for every instruction set.
//!
//! An instruction set says how its vectors load, multiply and add ([`Lanes`]); the order of loads
//! and steps, the rows and vectors of a tile, where sums start and where they go are here.

use bytemuck::Pod;

use crate::Arithmetic;
use crate::arch::prefetch;
use crate::kernel::{Acc, RawTile};

/// The vector instructions of one arithmetic. Every function is inlined into a tile whose
/// `target_feature` list covers its instructions; calling one is a promise that they run.
pub(crate) trait Lanes: Copy + Send + Sync + 'static {
    /// What they compute.
    const ARITHMETIC: Arithmetic;
    /// Sums in a vector.
    const LANES: usize;
    /// Neighbours in K that one step eats.
    const KG: usize;
    /// Whether a group is two neighbours that are multiplied one after the other: the first as
    /// [`a`](Self::a) and [`b`](Self::b) load it, the second as [`a_second`](Self::a_second) and
    /// [`b_second`](Self::b_second).
    const TWO_STEPS: bool = false;
    /// How many bytes ahead of what is multiplied memory is asked for B; 0 where the processor does
    /// that by itself.
    const AHEAD: usize = 0;
    /// Whether a tile asks for its part of the next panel, which is less than a line for each step.
    const ASKS: bool = false;
    /// Bytes of a vector of B that a tile keeps as it was loaded; 0 where it keeps none.
    const KEPT: usize = 0;
    type Acc: Acc;
    type Lhs: Pod + Send + Sync;
    type Rhs: Pod + Send + Sync;
    /// A vector of sums.
    type Sums: Copy;
    /// A group of A, the same in every lane.
    type A: Copy;
    /// A group of `LANES` columns of B.
    type B: Copy;

    /// Loads `LANES` sums, from any address.
    unsafe fn load(p: *const Self::Acc) -> Self::Sums;
    /// Stores them; any NaN as [`Acc::canonical`] has it.
    unsafe fn store(p: *mut Self::Acc, sums: Self::Sums);
    /// Adds one value to all of them.
    unsafe fn add(sums: Self::Sums, v: Self::Acc) -> Self::Sums;
    /// Adds sums of integers, lane by lane.
    #[inline(always)]
    unsafe fn join(sums: Self::Sums, _more: Self::Sums) -> Self::Sums {
        sums
    }
    /// Loads a group of A.
    unsafe fn a(p: *const Self::Lhs) -> Self::A;
    /// Loads the second neighbour of a group of A.
    #[inline(always)]
    unsafe fn a_second(p: *const Self::Lhs) -> Self::A {
        // SAFETY: as promised by the caller.
        unsafe { Self::a(p) }
    }
    /// A group of a signed A that was loaded as it is, shifted as the instruction reads it.
    #[inline(always)]
    unsafe fn shifted(a: Self::A) -> Self::A {
        a
    }
    /// Loads a group of B.
    unsafe fn b(p: *const Self::Rhs) -> Self::B;
    /// The address from which B is loaded for the second time.
    #[inline(always)]
    unsafe fn again(b: *const Self::Rhs) -> *const Self::Rhs {
        b
    }
    /// Loads the second neighbours of a group of B.
    #[inline(always)]
    unsafe fn b_second(p: *const Self::Rhs) -> Self::B {
        // SAFETY: as promised by the caller.
        unsafe { Self::b(p) }
    }
    /// Stores a group of B as it was loaded: [`KEPT`](Self::KEPT) bytes.
    #[inline(always)]
    unsafe fn keep(_p: *mut u8, _b: Self::B) {}
    /// `sums + A · B`.
    unsafe fn step(sums: Self::Sums, a: Self::A, b: Self::B) -> Self::Sums;
}

/// Sums that must be under way at once, or each would wait for the instruction before: latency times
/// throughput, 4 · 2.
const UNDER_WAY: usize = 8;

/// The most chains of sums that a tile has in K.
const CHAINS: usize = 4;

/// Chains in K of a tile of so many sums. Sums of floats have one: their order is in the contract.
const fn chains<I: Lanes>(sums: usize) -> usize {
    if !I::Acc::INTEGER || sums >= UNDER_WAY {
        1
    } else if 2 * sums >= UNDER_WAY {
        2
    } else {
        CHAINS
    }
}

/// Tiles of `R` rows by `V` vectors; `X`: A is shifted when it is read.
///
/// # Safety
///
/// The instructions run, and the promises of [`RawTile`] hold for tiles of `R` rows and `LANES · V`
/// columns; of lanes that keep B, there is one tile over one segment, and its B as it is kept fits what
/// `unpacked` is valid for writes of.
#[inline(always)]
pub(crate) unsafe fn tile<I: Lanes, const X: bool, const R: usize, const V: usize>(
    t: RawTile<I::Lhs, I::Rhs, I::Acc>,
) {
    let chains = const { chains::<I>(R * V) };
    let zeros = [I::Acc::default(); MAX_LANES];
    const { assert!(I::LANES <= MAX_LANES) };
    let steps = t.groups / chains;
    let fetching = Fetching::new::<R>(steps);
    let mut next = t.ahead;
    let mut kept = t.unpacked;
    let (mut lhs, mut c) = (t.a, t.c);
    // SAFETY: every offset below stays inside what the caller promised: rows `r < R` of each tile,
    // vectors `v < V`, groups `g < groups`. Loads and stores take any address.
    unsafe {
        for index in 0..t.tiles {
            let first = index * R;
            let mut acc = [[[I::load(zeros.as_ptr()); V]; R]; CHAINS];
            // Sums of floats start at zero, or go on from memory.
            if I::Acc::INTEGER || t.init_stride != 0 {
                for (r, acc) in acc[0].iter_mut().enumerate() {
                    for (v, acc) in acc.iter_mut().enumerate() {
                        let init = t.init.add((first + r) * t.init_stride + I::LANES * v);
                        *acc = I::add(I::load(init), *t.init_rows.add(first + r));
                    }
                }
            }
            for s in 0..t.segment_count {
                let segment = *t.segments.add(s);
                let mut a = lhs.add(segment.a);
                let mut b = t.b.add(segment.b * I::LANES * V);
                for steps in
                    fetching.parts(c, t.c_stride, I::LANES * V * size_of::<I::Acc>(), steps)
                {
                    for _ in 0..steps {
                        if I::AHEAD > 0 {
                            let ahead = b.cast::<u8>().wrapping_add(I::AHEAD);
                            prefetch(ahead, chains * I::LANES * I::KG * V * size_of::<I::Rhs>());
                        }
                        if I::ASKS {
                            prefetch(next.at, 1);
                            next.at = next.at.wrapping_add(chains * next.step);
                        }
                        for acc in &mut acc[..chains] {
                            step::<I, X, R, V>(acc, a, t.a_stride, b, kept);
                            a = a.add(I::KG);
                            b = b.add(I::LANES * I::KG * V);
                            kept = kept.add(I::KEPT * V);
                        }
                    }
                }
                for _ in 0..t.groups % chains {
                    step::<I, X, R, V>(&mut acc[0], a, t.a_stride, b, kept);
                    a = a.add(I::KG);
                    b = b.add(I::LANES * I::KG * V);
                    kept = kept.add(I::KEPT * V);
                }
            }
            for r in 0..R {
                for v in 0..V {
                    let mut sums = acc[0][r][v];
                    for more in &acc[1..chains] {
                        sums = I::join(sums, more[r][v]);
                    }
                    I::store(c.add(r * t.c_stride + I::LANES * v), sums);
                }
            }
            // Nothing is read there before a tile is known to be.
            lhs = lhs.wrapping_add(R * t.a_stride);
            c = c.wrapping_add(R * t.c_stride);
        }
    }
}

/// Steps in K from which on a tile fetches its part of the output while it multiplies.
const FETCH_FROM: usize = 128;

/// A tile's steps in parts, before each of which a row of the output is asked of memory, so that the
/// stores do not wait for it: of all rows at once, the requests would wait for each other.
///
/// On Zen 4 with AVX-512-VNNI about 1 % faster than asking for all rows at the start, from 384×768×768
/// to 2048³; of few steps (256³) none is.
#[derive(Clone, Copy)]
pub(crate) struct Fetching {
    parts: usize,
    each: usize,
}

impl Fetching {
    /// For tiles of so many rows, and steps.
    #[inline(always)]
    pub(crate) fn new<const ROWS: usize>(steps: usize) -> Self {
        if steps >= FETCH_FROM {
            Fetching {
                parts: ROWS,
                each: steps / ROWS,
            }
        } else {
            Fetching { parts: 0, each: 0 }
        }
    }

    /// The parts of `steps`, no fewer than it was made for, of a tile whose rows have so many bytes at
    /// `c`.
    #[inline(always)]
    pub(crate) fn parts<E>(
        self,
        c: *const E,
        stride: usize,
        bytes: usize,
        steps: usize,
    ) -> impl Iterator<Item = usize> {
        let Fetching { parts, each } = self;
        (0..=parts).map(move |part| {
            if part == parts {
                return steps - each * parts;
            }
            prefetch(c.wrapping_add(part * stride), bytes);
            each
        })
    }
}

/// The most sums that a vector of any instruction set has.
const MAX_LANES: usize = 16;

/// One group of a whole tile.
///
/// # Safety
///
/// As [`tile`], for one group.
#[inline(always)]
unsafe fn step<I: Lanes, const X: bool, const R: usize, const V: usize>(
    acc: &mut [[I::Sums; V]; R],
    a: *const I::Lhs,
    a_stride: usize,
    b: *const I::Rhs,
    kept: *mut u8,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let bv: [I::B; V] = core::array::from_fn(|v| I::b(b.add(I::LANES * I::KG * v)));
        if I::KEPT > 0 {
            for (v, &bv) in bv.iter().enumerate() {
                I::keep(kept.add(I::KEPT * v), bv);
            }
        }
        for (r, acc) in acc.iter_mut().enumerate() {
            let mut av = I::a(a.add(r * a_stride));
            if X {
                av = I::shifted(av);
            }
            for (acc, bv) in acc.iter_mut().zip(bv) {
                *acc = I::step(*acc, av, bv);
            }
        }
        if I::TWO_STEPS {
            let b = I::again(b);
            let bv: [I::B; V] = core::array::from_fn(|v| I::b_second(b.add(I::LANES * I::KG * v)));
            for (r, acc) in acc.iter_mut().enumerate() {
                let av = I::a_second(a.add(r * a_stride));
                for (acc, bv) in acc.iter_mut().zip(bv) {
                    *acc = I::step(*acc, av, bv);
                }
            }
        }
    }
}

/// Defines a microkernel from [`Lanes`]: the lowest tier that proves its instructions, the name of its
/// packed layout, the features that its tiles are compiled with, what is added to a signed A, and the
/// rows of the highest tile for each number of vectors.
macro_rules! kernel {
    (
        $(#[$doc:meta])*
        $name:ident($home:ty) = $id:literal, $lanes:ty, $features:literal,
        shift $shift:tt, rows [$($rows:tt),*]
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name(());

        impl From<$home> for $name {
            fn from(_: $home) -> Self {
                $name(())
            }
        }

        const _: () = {
            use $crate::arch::tile::{Convert, Lanes, table, tile};
            use $crate::kernel::{Init, LhsTile, Microkernel, RawTile, RhsPanel, TileMut};

            type Raw = RawTile<
                <$lanes as Lanes>::Lhs,
                <$lanes as Lanes>::Rhs,
                <$lanes as Lanes>::Acc,
            >;

            #[target_feature(enable = $features)]
            unsafe fn plain<const R: usize, const V: usize>(t: Raw) {
                // SAFETY: as promised by the caller.
                unsafe { tile::<$lanes, false, R, V>(t) }
            }

            /// Tiles by vectors, then by rows.
            static PLAIN: &[&[unsafe fn(Raw)]] = table!(plain, [$($rows),*]);

            $crate::arch::tile::kernel!(@shifting $shift, $lanes, $features, [$($rows),*]);

            impl Microkernel for $name {
                type Home = $home;
                const ARITHMETIC: $crate::Arithmetic = <$lanes as Lanes>::ARITHMETIC;
                const ID: &'static str = $id;
                const KG: usize = <$lanes as Lanes>::KG;
                const UNIT: usize = <$lanes as Lanes>::LANES;
                const NR: usize = Self::UNIT * Self::ROWS.len();
                const ROWS: &'static [usize] = &[$($rows),*];
                const SIGNED_LHS_SHIFT: i32 = $shift;
                const SHIFTS: bool = $shift != 0;
                const SEGMENTS: bool = true;
                const STACKS: bool = true;
                type Acc = <$lanes as Lanes>::Acc;
                type Lhs = <$lanes as Lanes>::Lhs;
                type Rhs = <$lanes as Lanes>::Rhs;

                #[inline(always)]
                fn lhs<A: $crate::Operand>(a: A) -> Self::Lhs {
                    <$lanes as Convert>::lhs(a)
                }

                #[inline(always)]
                fn rhs<B: $crate::Operand>(b: B) -> Self::Rhs {
                    <$lanes as Convert>::rhs(b)
                }

                #[inline(always)]
                fn rhs_padding() -> Self::Rhs {
                    <$lanes as Convert>::rhs_padding()
                }

                #[inline(always)]
                fn accumulate(
                    self,
                    a: LhsTile<'_, Self::Lhs>,
                    b: RhsPanel<'_, Self::Rhs>,
                    init: Option<Init<'_, Self::Acc>>,
                    out: &mut TileMut<'_, Self::Acc>,
                ) {
                    let raw = $crate::kernel::check_tile::<Self>(&a, &b, init, out);
                    let tiles = if a.shift() { SHIFTING } else { PLAIN };
                    let units = b.width() / Self::UNIT;
                    let rows = a.rows().min(Self::ROWS[units - 1]);
                    let tile = tiles[units - 1][rows - 1];
                    // SAFETY: the token that `self` was made from proves the instructions, and
                    // `check_tile` keeps the promises of `raw` for the width and the rows of a tile
                    // by which the table is indexed, as many tiles as there are.
                    unsafe { tile(raw) }
                }
            }
        };
    };
    // A kernel that shifts nothing has one set of tiles.
    (@shifting 0, $lanes:ty, $features:literal, $rows:tt) => {
        static SHIFTING: &[&[unsafe fn(Raw)]] = PLAIN;
    };
    (@shifting $shift:literal, $lanes:ty, $features:literal, $rows:tt) => {
        #[target_feature(enable = $features)]
        unsafe fn shifting<const R: usize, const V: usize>(t: Raw) {
            // SAFETY: as promised by the caller.
            unsafe { tile::<$lanes, true, R, V>(t) }
        }

        static SHIFTING: &[&[unsafe fn(Raw)]] = table!(shifting, $rows);
    };
}
pub(crate) use kernel;

/// The functions of a kernel's tiles, by vectors and rows.
macro_rules! table {
    ($entry:ident, [$a:tt, $b:tt]) => {
        &[table!(@rows $entry, 1, $a), table!(@rows $entry, 2, $b)]
    };
    ($entry:ident, [$a:tt, $b:tt, $c:tt, $d:tt]) => {
        &[
            table!(@rows $entry, 1, $a),
            table!(@rows $entry, 2, $b),
            table!(@rows $entry, 3, $c),
            table!(@rows $entry, 4, $d),
        ]
    };
    (@rows $entry:ident, $v:literal, 4) => { table!(@list $entry, $v, 1 2 3 4) };
    (@rows $entry:ident, $v:literal, 6) => { table!(@list $entry, $v, 1 2 3 4 5 6) };
    (@rows $entry:ident, $v:literal, 8) => { table!(@list $entry, $v, 1 2 3 4 5 6 7 8) };
    (@rows $entry:ident, $v:literal, 12) => {
        table!(@list $entry, $v, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@list $entry:ident, $v:literal, $($r:literal)*) => { &[$($entry::<$r, $v>),*] };
}
pub(crate) use table;

/// How elements become what [`Lanes`] load.
pub(crate) trait Convert: Lanes {
    /// One element of A.
    fn lhs<A: crate::Operand>(a: A) -> Self::Lhs;
    /// One element of B; of bytes always a signed one.
    fn rhs<B: crate::Operand>(b: B) -> Self::Rhs;
    /// What stands in B beyond K, where zeros stand in A: a product that changes no sum.
    #[inline(always)]
    fn rhs_padding() -> Self::Rhs {
        bytemuck::Zeroable::zeroed()
    }
}
