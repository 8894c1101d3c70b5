//! Elementwise operations of aarch64: the plain forms, which the compiler turns into NEON, except for
//! conversions of f16 and sums over one row.

use core::marker::PhantomData;

use super::f16;
use super::reduce::{self, Bytes};
use crate::Lhs;
use crate::isa::Tier;

/// The proof that NEON and the instructions of `B` run.
#[derive(Clone, Copy)]
pub(crate) struct Elementwise<B>(PhantomData<B>);

impl<B: Bytes> Elementwise<B> {
    /// # Safety
    ///
    /// NEON and the instructions of `B` run.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Elementwise(PhantomData)
    }
}

impl<B: Bytes + Tier> crate::elementwise::Elementwise for Elementwise<B> {
    type Home = B;

    #[inline(always)]
    fn dot<A: Lhs>(self, a: &[A], b: &[i8]) -> i32 {
        let a: &[u8] = bytemuck::cast_slice(a);
        let n = a.len().min(b.len());
        // SAFETY: `self` proves the instructions.
        unsafe { reduce::dot::<B>(&a[..n], &b[..n], A::DTYPE.is_signed()) }
    }

    #[inline(always)]
    fn sum<A: Lhs>(self, a: &[A]) -> i32 {
        // SAFETY: `self` proves the instructions.
        unsafe { reduce::sum::<B>(bytemuck::cast_slice(a), A::DTYPE.is_signed()) }
    }

    #[inline(always)]
    fn f32_to_f16(self, x: &[f32], out: &mut [u16]) {
        // SAFETY: `self` proves the instructions.
        unsafe { f16::f32_to_f16(x, out) }
    }

    #[inline(always)]
    fn f16_to_f32(self, x: &[u16], out: &mut [f32]) {
        // SAFETY: `self` proves the instructions.
        unsafe { f16::f16_to_f32(x, out) }
    }
}
