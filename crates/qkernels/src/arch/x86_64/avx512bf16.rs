//! AVX-512-VNNI with the bf16 instructions of Zen 4, Cooper Lake and Sapphire Rapids.
//!
//! `vdpbf16ps zmm` adds two products of bf16 to each f32 lane: 64 operations, one a cycle on Zen 4,
//! twice what `vfmadd231ps` does. It flushes subnormals and rounds otherwise than a chain of fused
//! steps, so only [`Arithmetic::Bf16Hardware`](crate::Arithmetic::Bf16Hardware) uses it. Everything
//! else is as in the tier below.

use core::arch::x86_64::*;

use half::bf16;

use super::avx512bw::Avx512Bw;
use super::avx512vnni::{Avx512Vnni, Words};
use super::zmm::sums_of_f32;
use super::{is_amd, tier, zmm};
use crate::arch::tile::{Convert, Lanes, kernel};
use crate::select::VisitKernel;
use crate::{Arithmetic, Lhs, Operand};

tier! {
    /// The proof that AVX-512-VNNI and AVX512-BF16 run.
    Avx512Bf16(Avx512Vnni),
    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16", ["avx512bf16"],
    Avx512Vnni, Words, zmm::F16, zmm::F16Sums, zmm::Bf16, Bf16Pairs, zmm::Elementwise,
    zmm::depthwise::Zmm<true>;

    fn bf16_kernel<V: VisitKernel>(self, visitor: V) -> V::Output {
        zmm::with_bf16_kernel(self.into(), visitor)
    }

    fn bf16_hardware_kernel<V: VisitKernel>(self, visitor: V) -> V::Output {
        // Twice as fast as f32 on Zen; on Intel half as fast.
        if is_amd() {
            visitor.visit::<Bf16Pairs>(self)
        } else {
            self.bf16_kernel(visitor)
        }
    }

    #[inline(always)]
    fn dot<A: Lhs>(self, a: &[A], b: &[i8]) -> i32 {
        self.0.dot(a, b)
    }

    #[inline(always)]
    fn sum<A: Lhs>(self, a: &[A]) -> i32 {
        self.0.sum(a)
    }

    #[inline(always)]
    fn int8_limit(self, iterations: u64) -> u64 {
        self.0.int8_limit(iterations)
    }
}

impl From<Avx512Bf16> for Avx512Bw {
    fn from(tier: Avx512Bf16) -> Avx512Bw {
        tier.0.into()
    }
}

/// The same bits as pairs of bf16.
#[inline(always)]
fn bh(v: __m512i) -> __m512bh {
    // SAFETY: both types are 512 bits of plain data.
    unsafe { core::mem::transmute::<__m512i, __m512bh>(v) }
}

/// Pairs of bf16 by the processor's own rounding.
#[derive(Clone, Copy)]
pub(crate) struct Bf16PairsLanes;

impl Lanes for Bf16PairsLanes {
    const ARITHMETIC: Arithmetic = Arithmetic::Bf16Hardware;
    const LANES: usize = 16;
    const KG: usize = 2;
    sums_of_f32!();
    type Lhs = bf16;
    type Rhs = u16;
    type A = __m512i;
    type B = __m512i;
    #[inline(always)]
    unsafe fn a(p: *const bf16) -> __m512i {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn b(p: *const u16) -> __m512i {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn step(sums: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_dpbf16_ps(sums, bh(a), bh(b)) }
    }
}

impl Convert for Bf16PairsLanes {
    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> bf16 {
        bf16::from_bits(a.int() as u16)
    }
    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> u16 {
        b.int() as u16
    }
}

kernel! {
    /// Pairs of bf16.
    Bf16Pairs(Avx512Bf16) = "avx512_bf16/bf16/2x16", Bf16PairsLanes,
    "avx512f,avx512bw,avx512vl,avx512bf16", shift 0, rows [12, 12, 8, 6]
}
