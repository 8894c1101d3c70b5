//! AVX-512 F, BW, DQ and VL without VNNI: Skylake-X.
//!
//! `vpmaddwd zmm` multiplies 32 pairs of i16 and adds neighbours into 16 lanes of i32; `vpaddd`
//! adds them to the sums: 64 operations in two instructions. Exact: A is a byte widened to i16 and
//! B an i8 widened to i16, so a pair is at most 2 · 255 · 128. (`vpmaddubsw` would eat twice as
//! many bytes but saturates at i16.) A is widened when it is copied, B when it is loaded
//! (`vpmovsxbw`).
//!
//! Measured on Zen 4, where this tier runs too: tiles of 6 × 64 reach 93 to 96 % of the limit from
//! 256³ to 128×768×3072, as does B widened when it is packed; that one is 1.3 to 4 times slower at
//! 1 to 4 rows, where reading B is all there is. 12 × 32 is as fast at many rows and half as fast
//! at 4 × 4096 × 4096.

use core::arch::x86_64::*;

use super::{tier, zmm};
use crate::select::VisitKernel;

tier! {
    /// The proof that AVX-512 F, BW, DQ and VL run.
    Avx512Bw, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl",
    ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"],
    zmm::Bytes, zmm::Words, zmm::F16, zmm::F16Sums, zmm::Bf16, zmm::Bf16, zmm::Elementwise,
    zmm::depthwise::Zmm<false>;

    fn bf16_kernel<V: VisitKernel>(self, visitor: V) -> V::Output {
        zmm::with_bf16_kernel(self, visitor)
    }

    fn bf16_hardware_kernel<V: VisitKernel>(self, visitor: V) -> V::Output {
        self.bf16_kernel(visitor)
    }

    #[inline(always)]
    fn int8_limit(self, iterations: u64) -> u64 {
        // SAFETY: `self` proves the instructions.
        unsafe { int8_limit(iterations) }
    }
}

/// `vpmaddwd` and `vpaddd` on 24 independent sums.
#[target_feature(enable = "avx512f,avx512bw")]
fn int8_limit(iterations: u64) -> u64 {
    let mut acc = [_mm512_setzero_si512(); 24];
    let mut a = _mm512_set1_epi16(1);
    let b = _mm512_set1_epi16(3);
    for _ in 0..iterations {
        for acc in &mut acc {
            // SAFETY: no instruction at all; the compiler only may not know `a` any more, so that
            // the product is taken every time.
            unsafe {
                core::arch::asm!("/* {0} */", inout(zmm_reg) a, options(nomem, nostack, preserves_flags));
            }
            *acc = _mm512_add_epi32(*acc, _mm512_madd_epi16(a, b));
        }
    }
    core::hint::black_box(acc);
    iterations * 24 * 64
}
