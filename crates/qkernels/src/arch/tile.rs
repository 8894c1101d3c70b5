//! The tile of sums, written once for every instruction set.
//!
//! An instruction set says how its vectors load, multiply and add ([`Lanes`]); the order of loads
//! and steps, the rows and vectors of a tile, where sums start and where they go are here.

use bytemuck::Pod;

use crate::kernel::{Acc, RawTile};

/// The vector instructions of one arithmetic. Every function is inlined into a tile whose
/// `target_feature` list covers its instructions; calling one is a promise that they run.
pub(crate) trait Lanes: Copy + Send + Sync + 'static {
    /// Sums in a vector.
    const LANES: usize;
    /// Neighbours in K that one step eats.
    const KG: usize;
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
    /// Stores them.
    unsafe fn store(p: *mut Self::Acc, sums: Self::Sums);
    /// Adds one value to all of them.
    unsafe fn add(sums: Self::Sums, v: Self::Acc) -> Self::Sums;
    /// Loads a group of A.
    unsafe fn a(p: *const Self::Lhs) -> Self::A;
    /// Loads a group of B.
    unsafe fn b(p: *const Self::Rhs) -> Self::B;
    /// `sums + A · B`.
    unsafe fn step(sums: Self::Sums, a: Self::A, b: Self::B) -> Self::Sums;
}

/// A tile of `R` rows by `V` vectors.
///
/// # Safety
///
/// The instructions run, and the promises of [`RawTile`] hold for `R` rows and `LANES · V` columns.
#[inline(always)]
pub(crate) unsafe fn tile<I: Lanes, const R: usize, const V: usize>(
    t: RawTile<I::Lhs, I::Rhs, I::Acc>,
) {
    // SAFETY: every offset below stays inside what the caller promised: rows `r < R`, vectors
    // `v < V`, groups `g < groups`. Loads and stores take any address.
    unsafe {
        let mut acc: [[I::Sums; V]; R] = core::array::from_fn(|r| {
            core::array::from_fn(|v| {
                let start = I::load(t.init.add(r * t.init_stride + I::LANES * v));
                I::add(start, *t.init_rows.add(r))
            })
        });
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.groups {
            let bv: [I::B; V] = core::array::from_fn(|v| I::b(b.add(I::LANES * I::KG * v)));
            for (r, acc) in acc.iter_mut().enumerate() {
                let av = I::a(a.add(r * t.a_stride));
                for (acc, bv) in acc.iter_mut().zip(bv) {
                    *acc = I::step(*acc, av, bv);
                }
            }
            a = a.add(I::KG);
            b = b.add(I::LANES * I::KG * V);
        }
        for (r, acc) in acc.iter().enumerate() {
            for (v, acc) in acc.iter().enumerate() {
                I::store(t.c.add(r * t.c_stride + I::LANES * v), *acc);
            }
        }
    }
}

/// Defines a microkernel from [`Lanes`]: the token that proves its instructions, the list of
/// features that its tiles are compiled with, and how many rows and vectors a tile has.
macro_rules! kernel {
    (
        $(#[$doc:meta])*
        $name:ident($($token:ty),+) = $id:literal, $lanes:ty, $features:literal,
        rows $rows:literal [$($r:literal)*], vectors [$($v:literal)*]
        $(, shift $shift:literal)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name(());

        $(impl From<$token> for $name {
            fn from(_: $token) -> Self {
                $name(())
            }
        })+

        impl crate::kernel::Microkernel for $name {
            const ID: &'static str = $id;
            const KG: usize = <$lanes as crate::arch::tile::Lanes>::KG;
            const UNIT: usize = <$lanes as crate::arch::tile::Lanes>::LANES;
            const NR: usize = Self::UNIT * [$($v),*].len();
            const ROWS: &'static [usize] = &[$({ let _ = $v; $rows }),*];
            const SIGNED_LHS_SHIFT: i32 = 0 $(+ $shift)?;
            const SHIFTS: bool = false;
            type Acc = <$lanes as crate::arch::tile::Lanes>::Acc;
            type Lhs = <$lanes as crate::arch::tile::Lanes>::Lhs;
            type Rhs = <$lanes as crate::arch::tile::Lanes>::Rhs;

            #[inline(always)]
            fn lhs<A: crate::Operand>(a: A) -> Self::Lhs {
                <$lanes as crate::arch::tile::Convert>::lhs(a)
            }

            #[inline(always)]
            fn rhs<B: crate::Operand>(b: B) -> Self::Rhs {
                <$lanes as crate::arch::tile::Convert>::rhs(b)
            }

            #[inline]
            fn accumulate(
                self,
                a: crate::kernel::LhsTile<'_, Self::Lhs>,
                b: crate::kernel::RhsPanel<'_, Self::Rhs>,
                init: Option<crate::kernel::Init<'_, Self::Acc>>,
                out: &mut crate::kernel::TileMut<'_, Self::Acc>,
            ) {
                type Raw = crate::kernel::RawTile<
                    <$name as crate::kernel::Microkernel>::Lhs,
                    <$name as crate::kernel::Microkernel>::Rhs,
                    <$name as crate::kernel::Microkernel>::Acc,
                >;
                #[target_feature(enable = $features)]
                unsafe fn entry<const R: usize, const V: usize>(t: Raw) {
                    // SAFETY: as promised by the caller.
                    unsafe { crate::arch::tile::tile::<$lanes, R, V>(t) }
                }
                crate::arch::tile::table!(entry, Raw, $rows [$($r)*], [$($v)*]);
                let raw = crate::kernel::check_tile::<Self>(&a, &b, init, out);
                let tile = TILES[b.width() / Self::UNIT - 1][a.rows() - 1];
                // SAFETY: the token that `self` was made from proves the instructions, and
                // `check_tile` keeps the promises of `raw` for the rows and the width by which the
                // table is indexed.
                unsafe { tile(raw) }
            }
        }
    };
}
pub(crate) use kernel;

/// The functions of a kernel's tiles, by vectors and rows.
macro_rules! table {
    ($entry:ident, $raw:ty, $rows:literal $r:tt, [$($v:literal)*]) => {
        static TILES: &[[unsafe fn($raw); $rows]] = &[
            $(crate::arch::tile::table!(@row $entry, $v, $r)),*
        ];
    };
    (@row $entry:ident, $v:literal, [$($r:literal)*]) => { [$($entry::<$r, $v>),*] };
}
pub(crate) use table;

/// How elements become what [`Lanes`] load.
pub(crate) trait Convert: Lanes {
    /// One element of A.
    fn lhs<A: crate::Operand>(a: A) -> Self::Lhs;
    /// One element of B; of bytes always a signed one.
    fn rhs<B: crate::Operand>(b: B) -> Self::Rhs;
}
