//! AVX2, with FMA and F16C as every such processor has them.
//!
//! `vpmaddwd ymm` multiplies 16 pairs of i16 and adds neighbours into 8 lanes of i32; `vpaddd` adds
//! them to the sums: 32 operations in two instructions. Exact: A is a byte widened to i16 and B
//! an i8 widened to i16, so a pair is at most 2 · 255 · 128. A is widened when it is copied. B stays
//! bytes in memory and is widened (`vpmovsxbw`) when it is loaded, or, where a block has rows
//! enough, once for all of them into scratch that stays in L2: 94 to 96 % of the limit instead of 85
//! to 87 (Zen 4). Where weights are bell-shaped and rows are many, `vpmaddubsw` eats twice as many
//! bytes: the outliers that would saturate it are multiplied apart (`ymm/split.rs`).
//!
//! Tried on Zen 4: B widened when it is packed is 1.2 to 2.3 times slower at 1 to 16 rows and
//! K = 4096, where reading B is all there is; tiles of 6 × 16 and 5 × 16 are even with 4 × 16 once
//! additions lag behind multiplies, those of 8 or 12 × 8 are 13 % slower, 4 × 24 spills.

use core::arch::x86_64::*;

use super::{tier, ymm};
use crate::outliers::{Find, Outliers};
use crate::select::VisitKernel;

tier! {
    /// The proof that AVX2, FMA and F16C run.
    Avx2, "avx2,fma,f16c", ["avx2", "fma", "f16c"],
    ymm::Bytes, ymm::Words, ymm::F16, ymm::F16Sums, ymm::Bf16, ymm::Bf16, ymm::Elementwise,
    ymm::depthwise::Ymm;

    fn outliers(self, packed: &[i8], k: usize, n: usize) -> Option<Outliers> {
        self.enter(Find::<ymm::Bytes>::new(packed, k, n))
    }

    fn split_kernel<V: VisitKernel>(self, visitor: V) -> V::Output {
        visitor.visit::<ymm::Split>(self)
    }

    #[inline(always)]
    fn int8_limit(self, iterations: u64) -> u64 {
        // SAFETY: `self` proves the instructions.
        unsafe { int8_limit(iterations) }
    }
}

/// `vpmaddwd` and `vpaddd` on 12 independent sums.
#[target_feature(enable = "avx2")]
fn int8_limit(iterations: u64) -> u64 {
    let mut acc = [_mm256_setzero_si256(); 12];
    let mut a = _mm256_set1_epi16(1);
    let b = _mm256_set1_epi16(3);
    for _ in 0..iterations {
        for acc in &mut acc {
            // SAFETY: no instruction at all; the compiler only may not know `a` any more, so that
            // the product is taken every time.
            unsafe {
                core::arch::asm!("/* {0} */", inout(ymm_reg) a, options(nomem, nostack, preserves_flags));
            }
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(a, b));
        }
    }
    core::hint::black_box(acc);
    iterations * 12 * 32
}
