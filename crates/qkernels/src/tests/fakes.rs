//! Test-only tiers with odd tiles, so that the driver's corners run on every machine.

use crate::arch::plain::{self, Plain};
use crate::arch::scalar::Scalar;
use crate::depthwise::lanes::PlainLanes;
use crate::isa::{Task, Tier};
use crate::kernel::{Init, LhsTile, Microkernel, RhsPanel, TileMut, check_tile};
use crate::{Arithmetic, Operand};

/// A tier whose kernel has tiles of `R` rows by `V` units of `U` columns, and groups of `G`. With
/// `SHIFT` it reads a signed A as unsigned bytes, and an unsigned one in place.
#[derive(Clone, Copy)]
pub(crate) struct Fake<const R: usize, const U: usize, const V: usize, const G: usize>;

/// As [`Fake`], reading bytes in place and shifting signed ones.
#[derive(Clone, Copy)]
pub(crate) struct FakeBytes<const R: usize, const U: usize, const V: usize, const G: usize>;

/// As [`FakeBytes`], shifting so freely that no A is copied for it, however many panels read it.
#[derive(Clone, Copy)]
pub(crate) struct FakeFree<const R: usize, const U: usize, const V: usize, const G: usize>;

/// As [`Fake`], reading signed bytes, with rows of A in threes.
#[derive(Clone, Copy)]
pub(crate) struct FakeThrees<const R: usize, const U: usize, const V: usize, const G: usize>;

macro_rules! fake {
    (
        $name:ident, $lhs:ty, signed $signed:literal, unsigned $unsigned:literal,
        shifts $shifts:literal freely $freely:literal, rows $rows:literal, $id:literal
    ) => {
        impl<const R: usize, const U: usize, const V: usize, const G: usize> Tier
            for $name<R, U, V, G>
        {
            type Int8 = Self;
            // Only bytes are tried: as few kernels as will compile.
            type Int16 = Self;
            type F16 = Plain<plain::F16>;
            type F16Sums = Plain<plain::F16>;
            type Bf16 = Plain<plain::F16>;
            type Bf16Hardware = Plain<plain::F16>;
            type Elementwise = Scalar;
            type Depthwise = PlainLanes;

            fn detect() -> Option<Self> {
                Some($name)
            }

            fn elementwise(self) -> Scalar {
                Scalar::NEW
            }

            fn depthwise(self) -> PlainLanes {
                PlainLanes
            }

            fn enter<K: Task>(self, task: K) -> K::Output {
                task.run(self)
            }
        }

        impl<const R: usize, const U: usize, const V: usize, const G: usize> From<$name<R, U, V, G>>
            for Scalar
        {
            fn from(_: $name<R, U, V, G>) -> Scalar {
                Scalar::NEW
            }
        }

        impl<const R: usize, const U: usize, const V: usize, const G: usize> Microkernel
            for $name<R, U, V, G>
        {
            type Home = Self;
            const ARITHMETIC: Arithmetic = Arithmetic::Int8;
            const ID: &'static str = $id;
            const KG: usize = G;
            const UNIT: usize = U;
            const NR: usize = U * V;
            // Narrow panels have higher tiles.
            const ROWS: &'static [usize] = &[2 * R * $rows, (R + 1) * $rows, R * $rows, R * $rows];
            const SIGNED_LHS_SHIFT: i32 = $signed;
            const UNSIGNED_LHS_SHIFT: i32 = $unsigned;
            const SHIFTS: bool = $shifts;
            const LHS_ROWS: usize = $rows;
            type Acc = i32;
            type Lhs = $lhs;
            type Rhs = i16;

            fn shifts_freely(self) -> bool {
                $freely
            }

            fn lhs<A: Operand>(a: A) -> $lhs {
                <$lhs>::try_from(a.int() + crate::kernel::lhs_shift::<Self, A>()).unwrap()
            }

            fn rhs<B: Operand>(b: B) -> i16 {
                i8::try_from(b.int()).unwrap().into()
            }

            fn accumulate(
                self,
                a: LhsTile<'_, $lhs>,
                b: RhsPanel<'_, i16>,
                init: Option<Init<'_, i32>>,
                out: &mut TileMut<'_, i32>,
            ) {
                check_tile::<Self>(&a, &b, init, out);
                let width = b.width();
                assert!(a.rows() <= Self::ROWS[width / U - 1]);
                for r in 0..a.rows() {
                    let out = out.row_mut(r);
                    for j in 0..width {
                        let mut sum = init.map_or(out[j], |i| {
                            i.start[r * i.stride + j].wrapping_add(i.rows.map_or(0, |rows| rows[r]))
                        });
                        for k in 0..b.data().len() / width {
                            let x = a.at(r, k, G);
                            let x = if a.shift() { x ^ $signed } else { x };
                            let y = b.data()[k / G * G * width + j * G + k % G];
                            sum = sum.wrapping_add(i32::from(x) * i32::from(y));
                        }
                        out[j] = sum;
                    }
                }
            }
        }
    };
}
fake!(Fake, i16, signed 0, unsigned 0, shifts false freely false, rows 1, "fake/i16");
fake!(FakeBytes, u8, signed 128, unsigned 0, shifts true freely false, rows 1, "fake/u8");
fake!(FakeFree, u8, signed 128, unsigned 0, shifts true freely true, rows 1, "fake/u8/free");
fake!(FakeThrees, i8, signed 0, unsigned -128, shifts false freely false, rows 3, "fake/i8");
