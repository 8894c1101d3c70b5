//! AVX-512-VNNI with the bf16 instructions of Zen 4, Cooper Lake and Sapphire Rapids.
//!
//! `vdpbf16ps zmm` adds two products of bf16 to each f32 lane: 64 operations, one a cycle on Zen 4,
//! twice what `vfmadd231ps` does. It flushes subnormals and rounds otherwise than a chain of fused
//! steps, so only [`Arithmetic::Bf16Hardware`](crate::Arithmetic::Bf16Hardware) uses it. Everything
//! else is as in the tier below.

use super::avx512::Elementwise;
use super::avx512vnni::{Avx512Vnni, Bf16, F16, F16Sums, Int16};
use super::{has_features, zmm};
use crate::Lhs;
use crate::arch::tile::kernel;
use crate::isa::{Task, Tier};

/// The proof that AVX-512-VNNI and AVX512-BF16 run.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16(Avx512Vnni);

impl From<Avx512Bf16> for Avx512Vnni {
    fn from(token: Avx512Bf16) -> Avx512Vnni {
        token.0
    }
}

impl Tier for Avx512Bf16 {
    type Int8 = Avx512Vnni;
    type Int16 = Int16;
    type F16 = F16;
    type F16Sums = F16Sums;
    type Bf16 = Bf16;
    type Bf16Hardware = Bf16Pairs;
    type Elementwise = Elementwise;

    fn detect() -> Option<Self> {
        let vnni = Avx512Vnni::detect()?;
        has_features!("avx512bf16").then_some(Avx512Bf16(vnni))
    }

    #[inline(always)]
    fn elementwise(self) -> Elementwise {
        self.0.elementwise()
    }

    #[inline]
    fn enter<K: Task>(self, task: K) -> K::Output {
        #[target_feature(
            enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16"
        )]
        fn door<K: Task>(tier: Avx512Bf16, task: K) -> K::Output {
            task.run(tier)
        }
        // SAFETY: `self` is only made by `detect`, which saw all of these features.
        unsafe { door(self, task) }
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

kernel! {
    /// Pairs of bf16.
    Bf16Pairs(Avx512Bf16) = "avx512_bf16/bf16/2x16", zmm::Bf16Pairs,
    "avx512f,avx512bw,avx512vl,avx512bf16",
    rows 6 [1 2 3 4 5 6], vectors [1 2 3 4]
}
