//! The 256-bit form of AVX-512 VNNI: for tests only, so that a processor without AVX-VNNI proves the
//! code that it shares with it ([`vnni256`](super::vnni256)). In products the 512-bit form is at
//! least as fast.

use super::avx2::Avx2;
use super::vnni256::{self, Evex};
use super::{tier, ymm};
use crate::Lhs;
use crate::arch::tile::kernel;

tier! {
    /// The proof that the 256-bit forms of AVX-512 VNNI, and AVX2, FMA and F16C run.
    Avx512Vl(Avx2), "avx2,fma,f16c,avx512f,avx512vl,avx512vnni",
    ["avx512f", "avx512vl", "avx512vnni"],
    Bytes, ymm::Words, ymm::F16, ymm::F16Sums, ymm::Bf16, ymm::Bf16, ymm::Elementwise,
    ymm::depthwise::Ymm;

    #[inline(always)]
    fn dot<A: Lhs>(self, a: &[A], b: &[i8]) -> i32 {
        let a: &[u8] = bytemuck::cast_slice(a);
        let n = a.len().min(b.len());
        // SAFETY: `self` proves the instructions.
        unsafe { vnni256::dot::<Evex>(&a[..n], &b[..n], A::DTYPE.is_signed()) }
    }

    #[inline(always)]
    fn int8_limit(self, iterations: u64) -> u64 {
        // SAFETY: `self` proves the instructions.
        unsafe { vnni256::int8_limit::<Evex>(iterations) }
    }
}

kernel! {
    /// Bytes.
    Bytes(Avx512Vl) = "avx512_vl/i8/4x8", vnni256::Int8<Evex>, "avx2,fma,f16c,avx512f,avx512vl,avx512vnni",
    shift 128, rows [12, 6]
}

mod tests {
    use proptest::prelude::*;

    use super::Avx512Vl;
    use crate::isa::Tier;
    use crate::tests::data::cases;
    use crate::tests::gemm::{Faked, any_case, check_bytes};

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn the_256_bit_form_equals_scalar_code(case in any_case()) {
            match Avx512Vl::detect() {
                Some(tier) => check_bytes(&Faked(tier), case),
                None => std::println!("the 256-bit form of AVX-512 VNNI: NOT TESTED"),
            }
        }
    }
}
