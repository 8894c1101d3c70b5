//! AVX-512-VNNI with the bf16 instructions of Zen 4, Cooper Lake and Sapphire Rapids.
//!
//! `vdpbf16ps zmm` adds two products of bf16 to each f32 lane: 64 operations, one a cycle on Zen 4,
//! twice what `vfmadd231ps` does. It flushes subnormals and rounds otherwise than a chain of fused
//! steps, so only [`Arithmetic::Bf16Hardware`](crate::Arithmetic::Bf16Hardware) uses it. Everything
//! else is as in the tier below.

use super::avx512vnni::Avx512Vnni;
use super::{depthwise, tier, zmm};
use crate::Lhs;

tier! {
    /// The proof that AVX-512-VNNI and AVX512-BF16 run.
    Avx512Bf16(Avx512Vnni),
    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16", ["avx512bf16"],
    has [Bits256, Bits512, Vnni512, Bf16Dot],
    Avx512Vnni, zmm::WordsVnni, zmm::F16, zmm::F16Sums, zmm::Bf16, zmm::Bf16Pairs, zmm::Elementwise,
    depthwise::Zmm<true>;

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

impl From<Avx512Bf16> for Avx512Vnni {
    fn from(token: Avx512Bf16) -> Avx512Vnni {
        token.0
    }
}
