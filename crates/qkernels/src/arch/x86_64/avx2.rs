//! AVX2, with FMA and F16C as every such processor has them.
//!
//! `vpmaddwd ymm` multiplies 16 pairs of i16 and adds neighbours into 8 lanes of i32; `vpaddd` adds
//! them to the sums: 32 operations in two instructions. Exact: A is a byte widened to i16 and B
//! an i8 widened to i16, so a pair is at most 2 · 255 · 128. (`vpmaddubsw` would eat twice as many
//! bytes but saturates at i16.) A is widened when it is copied, B when it is loaded
//! (`vpmovsxbw`), which halves what is read from memory.
//!
//! B widened when it is packed was tried on Zen 4: 3 to 10 % faster from 256³ to 2048³, but 1.2 to
//! 2.3 times slower at 1 to 16 rows and K = 4096, where reading B is all there is.

pub(crate) mod elementwise;

use core::arch::x86_64::*;

use super::{has_features, ymm};
use elementwise::Elementwise;

use crate::Lhs;
use crate::arch::tile::kernel;
use crate::isa::{Task, Tier};

/// The proof that AVX2, FMA and F16C run.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Tier for Avx2 {
    type Int8 = Int8;
    type Int16 = Int16;
    type F16 = F16;
    type F16Sums = F16Sums;
    type Bf16 = Bf16;
    type Bf16Hardware = Bf16;
    type Elementwise = Elementwise;

    fn detect() -> Option<Self> {
        has_features!("avx2", "fma", "f16c").then_some(Avx2(()))
    }

    #[inline(always)]
    fn elementwise(self) -> Elementwise {
        // SAFETY: `self` proves a superset of the instructions.
        unsafe { Elementwise::new() }
    }

    #[inline]
    fn enter<K: Task>(self, task: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn door<K: Task>(tier: Avx2, task: K) -> K::Output {
            task.run(tier)
        }
        // SAFETY: `self` is only made by `detect`, which saw all of these features.
        unsafe { door(self, task) }
    }

    #[inline(always)]
    fn dot<A: Lhs>(self, a: &[A], b: &[i8]) -> i32 {
        let a: &[u8] = bytemuck::cast_slice(a);
        let n = a.len().min(b.len());
        // SAFETY: `self` proves the instructions.
        unsafe { dot(&a[..n], &b[..n], A::DTYPE.is_signed()) }
    }

    #[inline(always)]
    fn sum<A: Lhs>(self, a: &[A]) -> i32 {
        // SAFETY: `self` proves the instructions.
        unsafe { sum(bytemuck::cast_slice(a), A::DTYPE.is_signed()) }
    }

    #[inline(always)]
    fn int8_limit(self, iterations: u64) -> u64 {
        // SAFETY: `self` proves the instructions.
        unsafe { int8_limit(iterations) }
    }
}

kernel! {
    /// Bytes.
    Int8(Avx2) = "avx2/i8/2x8", ymm::Int8, "avx2",
    rows 6 [1 2 3 4 5 6], vectors [1 2]
}
kernel! {
    /// i16.
    Int16(Avx2) = "avx2/i16/2x8", ymm::Int16, "avx2",
    rows 6 [1 2 3 4 5 6], vectors [1 2]
}
kernel! {
    /// f16, summed in f32.
    F16(Avx2) = "avx2/f16/1x8", ymm::F16, "avx2,fma,f16c",
    rows 6 [1 2 3 4 5 6], vectors [1 2]
}
kernel! {
    /// f16, summed in f16.
    F16Sums(Avx2) = "avx2/f16-sums/1x8", ymm::F16Sums, "avx2,fma,f16c",
    rows 6 [1 2 3 4 5 6], vectors [1 2]
}
kernel! {
    /// bf16, summed in f32.
    Bf16(Avx2) = "avx2/bf16/1x8", ymm::Bf16, "avx2,fma,f16c",
    rows 6 [1 2 3 4 5 6], vectors [1 2]
}

/// `Σ a[i] · b[i]` of equally long slices; `signed` says that A's bytes are i8.
#[target_feature(enable = "avx2")]
fn dot(a: &[u8], b: &[i8], signed: bool) -> i32 {
    debug_assert_eq!(a.len(), b.len());
    /// Vectors a step, and sums that are added up apart, to hide the latency.
    const LANES: usize = 4;
    let mut acc = [_mm256_setzero_si256(); LANES];
    let (a_steps, a_rest) = a.as_chunks::<{ 16 * LANES }>();
    let (b_steps, b_rest) = b.as_chunks::<{ 16 * LANES }>();
    for (a, b) in a_steps.iter().zip(b_steps) {
        for (lane, acc) in acc.iter_mut().enumerate() {
            // SAFETY: vector `lane < LANES` of arrays of `16 · LANES` bytes.
            let (a, b) = unsafe {
                let a = _mm_loadu_si128(a.as_ptr().add(16 * lane).cast());
                (a, _mm_loadu_si128(b.as_ptr().add(16 * lane).cast()))
            };
            let a = if signed {
                _mm256_cvtepi8_epi16(a)
            } else {
                _mm256_cvtepu8_epi16(a)
            };
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(a, _mm256_cvtepi8_epi16(b)));
        }
    }
    let sum = _mm256_add_epi32(
        _mm256_add_epi32(acc[0], acc[1]),
        _mm256_add_epi32(acc[2], acc[3]),
    );
    let mut lanes = [0i32; 8];
    // SAFETY: an array of eight i32.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
    let rest = if signed {
        crate::portable::dot::<i8>(bytemuck::cast_slice(a_rest), b_rest)
    } else {
        crate::portable::dot(a_rest, b_rest)
    };
    lanes.iter().fold(rest, |sum, &v| sum.wrapping_add(v))
}

/// `Σ a[i]` (`vpsadbw` adds eight bytes at once); `signed` says that the bytes are i8.
#[target_feature(enable = "avx2")]
fn sum(a: &[u8], signed: bool) -> i32 {
    let flip = if signed { 0x80 } else { 0 };
    let flips = _mm256_set1_epi8(if signed { i8::MIN } else { 0 });
    let mut acc = _mm256_setzero_si256();
    let (steps, rest) = a.as_chunks::<32>();
    for a in steps {
        // SAFETY: an array of 32 bytes.
        let a = unsafe { _mm256_loadu_si256(a.as_ptr().cast()) };
        let a = _mm256_xor_si256(a, flips);
        acc = _mm256_add_epi64(acc, _mm256_sad_epu8(a, _mm256_setzero_si256()));
    }
    let mut lanes = [0i64; 4];
    // SAFETY: an array of four i64.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), acc) };
    let rest: i64 = rest.iter().map(|&a| i64::from(a ^ flip)).sum();
    let total = lanes.iter().sum::<i64>() + rest - i64::from(flip) * a.len() as i64;
    // Modulo 2^32, as promised.
    total as i32
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
