//! AVX-VNNI: `vpdpbusd` on 256 bits with AVX2 around it, as on processors without AVX-512 (Alder
//! Lake and later, Sierra Forest). What it computes is in [`vnni256`](super::vnni256).

use super::avx2::Avx2;
use super::vnni256::{self, Vex};
use super::{tier, ymm};
use crate::Lhs;
use crate::arch::tile::kernel;

tier! {
    /// The proof that AVX-VNNI, AVX2, FMA and F16C run.
    AvxVnni(Avx2), "avx2,fma,f16c,avxvnni", ["avxvnni"],
    Bytes, ymm::Words, ymm::F16, ymm::F16Sums, ymm::Bf16, ymm::Bf16, ymm::Elementwise,
    ymm::depthwise::Ymm;

    #[inline(always)]
    fn dot<A: Lhs>(self, a: &[A], b: &[i8]) -> i32 {
        let a: &[u8] = bytemuck::cast_slice(a);
        let n = a.len().min(b.len());
        // SAFETY: `self` proves the instructions.
        unsafe { vnni256::dot::<Vex>(&a[..n], &b[..n], A::DTYPE.is_signed()) }
    }

    #[inline(always)]
    fn int8_limit(self, iterations: u64) -> u64 {
        // SAFETY: `self` proves the instructions.
        unsafe { vnni256::int8_limit::<Vex>(iterations) }
    }
}

kernel! {
    /// Bytes.
    Bytes(AvxVnni) = "avx_vnni/i8/4x8", vnni256::Int8<Vex>, "avx2,fma,f16c,avxvnni",
    shift 128, rows [12, 6]
}
