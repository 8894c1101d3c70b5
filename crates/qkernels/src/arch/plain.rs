//! The microkernels of plain Rust, one for every arithmetic, on any tier.
//!
//! They are the reference for the others, and serve tiers without an instruction for an
//! arithmetic. The tile keeps its sums in a local array so that the compiler may hold them in
//! whatever vector registers the door around it has.

use core::marker::PhantomData;

use bytemuck::Pod;

use crate::arch::scalar::Scalar;
use crate::kernel::{Acc, Init, LhsTile, Microkernel, RhsPanel, TileMut, check_tile};
use crate::portable::{f16_bits_to_f32, f32_to_f16_bits, fused};
use crate::{Arithmetic, Operand};

/// One step of a sum.
pub(crate) trait Math: Copy + Send + Sync + 'static {
    const ID: &'static str;
    const ARITHMETIC: Arithmetic;
    type Acc: Acc;
    type Lhs: Pod + Send + Sync;
    type Rhs: Pod + Send + Sync;
    fn lhs<A: Operand>(a: A) -> Self::Lhs;
    fn rhs<B: Operand>(b: B) -> Self::Rhs;
    /// `sum + a · b`.
    fn step(sum: Self::Acc, a: Self::Lhs, b: Self::Rhs) -> Self::Acc;
}

/// A kernel of plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Plain<M>(PhantomData<M>);

impl<M> From<Scalar> for Plain<M> {
    fn from(_: Scalar) -> Self {
        Plain(PhantomData)
    }
}

macro_rules! math {
    ($(
        $(#[$doc:meta])*
        $name:ident = $id:literal: $acc:ty, $lhs:ty, $rhs:ty;
        |$a:ident| $from_a:expr, |$b:ident| $from_b:expr, |$sum:ident, $x:ident, $y:ident| $step:expr;
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Math for $name {
            const ID: &'static str = $id;
            const ARITHMETIC: Arithmetic = Arithmetic::$name;
            type Acc = $acc;
            type Lhs = $lhs;
            type Rhs = $rhs;
            #[inline(always)]
            fn lhs<A: Operand>($a: A) -> $lhs {
                $from_a
            }
            #[inline(always)]
            fn rhs<B: Operand>($b: B) -> $rhs {
                $from_b
            }
            #[inline(always)]
            fn step($sum: $acc, $x: $lhs, $y: $rhs) -> $acc {
                $step
            }
        }
    )*};
}

math! {
    /// Bytes widened to i16: products are exact in i32.
    Int8 = "plain/i8/1x8": i32, i16, i16;
    |a| a.int() as i16, |b| b.int() as i16,
    |sum, a, b| sum.wrapping_add(i32::from(a) * i32::from(b));

    /// The product of two i16 fits i32; the call has checked that the sum does.
    Int16 = "plain/i16/1x8": i32, i16, i16;
    |a| a.int() as i16, |b| b.int() as i16,
    |sum, a, b| sum.wrapping_add(i32::from(a) * i32::from(b));

    /// The product of two f16 is exact in f32, so this is what a fused step gives.
    F16 = "plain/f16/1x8": f32, f32, f32;
    |a| a.float(), |b| b.float(), |sum, a, b| sum + a * b;

    /// Each product and each sum rounded to f16 through f32: exact, because 24 ≥ 2 · 11 + 2
    /// (S. A. Figueroa, "When is double rounding innocuous?", 1995).
    F16Sums = "plain/f16-sums/1x8": f32, f32, f32;
    |a| a.float(), |b| b.float(),
    |sum, a, b| f16_bits_to_f32(f32_to_f16_bits(sum + f16_bits_to_f32(f32_to_f16_bits(a * b))));

    /// A fused multiply-add without the instruction.
    Bf16 = "plain/bf16/1x8": f32, f32, f32;
    |a| a.float(), |b| b.float(),
    |sum, a, b| fused(a, b, sum);
}

/// Columns of a tile.
const NR: usize = 8;

impl<M: Math> Microkernel for Plain<M> {
    type Home = Scalar;
    const ARITHMETIC: Arithmetic = M::ARITHMETIC;
    const ID: &'static str = M::ID;
    const KG: usize = 1;
    const UNIT: usize = NR;
    const NR: usize = NR;
    const ROWS: &'static [usize] = &[4];
    const SIGNED_LHS_SHIFT: i32 = 0;
    const SHIFTS: bool = false;
    type Acc = M::Acc;
    type Lhs = M::Lhs;
    type Rhs = M::Rhs;

    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> M::Lhs {
        M::lhs(a)
    }

    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> M::Rhs {
        M::rhs(b)
    }

    // No instructions of a door are wanted, and loops call it from many places.
    #[inline(never)]
    fn accumulate(
        self,
        a: LhsTile<'_, M::Lhs>,
        b: RhsPanel<'_, M::Rhs>,
        init: Option<Init<'_, M::Acc>>,
        out: &mut TileMut<'_, M::Acc>,
    ) {
        check_tile::<Self>(&a, &b, init, out);
        match a.rows() {
            4 => tile::<M, 4>(a, b, init, out),
            3 => tile::<M, 3>(a, b, init, out),
            2 => tile::<M, 2>(a, b, init, out),
            _ => tile::<M, 1>(a, b, init, out),
        }
    }
}

#[inline(always)]
fn tile<M: Math, const R: usize>(
    a: LhsTile<'_, M::Lhs>,
    b: RhsPanel<'_, M::Rhs>,
    init: Option<Init<'_, M::Acc>>,
    out: &mut TileMut<'_, M::Acc>,
) {
    let rows: [&[M::Lhs]; R] = core::array::from_fn(|r| a.row(r));
    let mut acc = [[M::Acc::default(); NR]; R];
    for (r, acc) in acc.iter_mut().enumerate() {
        match init {
            Some(init) => {
                acc.copy_from_slice(&init.start[r * init.stride..][..NR]);
                if let Some(rows) = init.rows {
                    for acc in acc {
                        *acc = acc.plus_acc(rows[r]);
                    }
                }
            }
            None => acc.copy_from_slice(&out.row_mut(r)[..NR]),
        }
    }
    for (k, b) in b.data().as_chunks::<NR>().0.iter().enumerate() {
        for (acc, row) in acc.iter_mut().zip(&rows) {
            let a = row[k];
            for (acc, &b) in acc.iter_mut().zip(b) {
                *acc = M::step(*acc, a, b);
            }
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        out.row_mut(r)[..NR].copy_from_slice(&acc.map(Acc::canonical));
    }
}
