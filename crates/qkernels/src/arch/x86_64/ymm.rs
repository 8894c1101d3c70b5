//! Lanes of 256 bits: what AVX2 with FMA and F16C multiplies and adds.
//!
//! `vpmaddwd` and `vpaddd`: 32 operations in two instructions, exact (see the tier's file).
//! `vfmadd231ps`: 16 operations, latency 4; two a cycle on Zen 2 to 5 and on Haswell and later.

mod bytes;
pub(super) mod depthwise;
mod elementwise;
mod split;

use core::arch::x86_64::*;

pub(crate) use bytes::Bytes;
pub(crate) use elementwise::Elementwise;
pub(crate) use split::Split;

use super::avx2::Avx2;
use crate::arch::tile::{Convert, Lanes, kernel};
use crate::{Arithmetic, Operand};

/// A page: few rows wait for B, of which the processor (Zen 3, Emerald Rapids) alone does not read enough
/// ahead.
pub(super) const AHEAD: usize = 4096;

/// What all lanes of 256 bits with sums of i32 share.
macro_rules! sums_of_i32 {
    () => {
        type Acc = i32;
        type Sums = __m256i;
        #[inline(always)]
        unsafe fn load(p: *const i32) -> __m256i {
            // SAFETY: as promised by the caller.
            unsafe { _mm256_loadu_si256(p.cast()) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut i32, sums: __m256i) {
            // SAFETY: as promised by the caller.
            unsafe { _mm256_storeu_si256(p.cast(), sums) }
        }
        #[inline(always)]
        unsafe fn add(sums: __m256i, v: i32) -> __m256i {
            // SAFETY: as promised by the caller.
            unsafe { _mm256_add_epi32(sums, _mm256_set1_epi32(v)) }
        }
        #[inline(always)]
        unsafe fn join(sums: __m256i, more: __m256i) -> __m256i {
            // SAFETY: as promised by the caller.
            unsafe { _mm256_add_epi32(sums, more) }
        }
    };
}
#[cfg(any(feature = "avxvnni", all(test, feature = "avx512")))]
pub(super) use sums_of_i32;

/// What all lanes of 256 bits with sums of f32 share.
macro_rules! sums_of_f32 {
    () => {
        type Acc = f32;
        type Sums = __m256;
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            // SAFETY: as promised by the caller.
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, sums: __m256) {
            // SAFETY: as promised by the caller.
            unsafe {
                let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(sums, sums);
                let sums = _mm256_blendv_ps(sums, _mm256_set1_ps(f32::NAN), nan);
                _mm256_storeu_ps(p, sums);
            }
        }
        #[inline(always)]
        unsafe fn add(sums: __m256, v: f32) -> __m256 {
            // SAFETY: as promised by the caller.
            unsafe { _mm256_add_ps(sums, _mm256_set1_ps(v)) }
        }
        type Lhs = f32;
        type A = __m256;
        #[inline(always)]
        unsafe fn a(p: *const f32) -> __m256 {
            // SAFETY: as promised by the caller.
            unsafe { _mm256_set1_ps(*p) }
        }
    };
}

/// i8 widened to i16 when it is loaded, which halves what is read from memory.
#[derive(Clone, Copy)]
pub(crate) struct Int8Lanes;

impl Lanes for Int8Lanes {
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    const AHEAD: usize = AHEAD;
    const LANES: usize = 8;
    const KG: usize = 2;
    sums_of_i32!();
    type Lhs = i16;
    type Rhs = i8;
    type A = __m256i;
    type B = __m256i;
    #[inline(always)]
    unsafe fn a(p: *const i16) -> __m256i {
        // SAFETY: as promised by the caller.
        unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn b(p: *const i8) -> __m256i {
        // SAFETY: as promised by the caller.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn step(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as promised by the caller.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
    }
}

impl Convert for Int8Lanes {
    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> i16 {
        // Exact: A is a byte.
        a.int() as i16
    }
    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> i8 {
        // Exact: of bytes B is always a signed one.
        b.int() as i8
    }
}

/// i16 as it is. A pair of products may wrap, as sums do: the call has checked that the whole sum
/// fits, so modulo 2^32 is enough.
#[derive(Clone, Copy)]
pub(crate) struct Int16Lanes;

impl Lanes for Int16Lanes {
    const ARITHMETIC: Arithmetic = Arithmetic::Int16;
    const AHEAD: usize = AHEAD;
    const LANES: usize = 8;
    const KG: usize = 2;
    sums_of_i32!();
    type Lhs = i16;
    type Rhs = i16;
    type A = __m256i;
    type B = __m256i;
    #[inline(always)]
    unsafe fn a(p: *const i16) -> __m256i {
        // SAFETY: as promised by the caller.
        unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn b(p: *const i16) -> __m256i {
        // SAFETY: as promised by the caller.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn step(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as promised by the caller.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
    }
}

impl Convert for Int16Lanes {
    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> i16 {
        a.int() as i16
    }
    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> i16 {
        b.int() as i16
    }
}

/// Floats are kept in 16 bits in B, and widened when they are loaded.
macro_rules! widened {
    ($name:ident = $arithmetic:ident, |$b:ident| $widen:expr, |$sums:ident, $x:ident, $y:ident| $step:expr) => {
        impl Lanes for $name {
            const ARITHMETIC: Arithmetic = Arithmetic::$arithmetic;
            const AHEAD: usize = AHEAD;
            const LANES: usize = 8;
            const KG: usize = 1;
            sums_of_f32!();
            type Rhs = u16;
            type B = __m256;
            #[inline(always)]
            unsafe fn b(p: *const u16) -> __m256 {
                // SAFETY: as promised by the caller.
                unsafe {
                    let $b = _mm_loadu_si128(p.cast());
                    $widen
                }
            }
            #[inline(always)]
            unsafe fn step($sums: __m256, $x: __m256, $y: __m256) -> __m256 {
                // SAFETY: as promised by the caller.
                unsafe { $step }
            }
        }

        impl Convert for $name {
            #[inline(always)]
            fn lhs<A: Operand>(a: A) -> f32 {
                a.float()
            }
            #[inline(always)]
            fn rhs<B: Operand>(b: B) -> u16 {
                b.int() as u16
            }
        }
    };
}

/// f16, summed in f32.
#[derive(Clone, Copy)]
pub(crate) struct F16Lanes;

widened!(F16Lanes = F16, |b| _mm256_cvtph_ps(b), |sums, a, b| {
    _mm256_fmadd_ps(a, b, sums)
});

/// f16, summed in f16: every product and every sum is rounded.
#[derive(Clone, Copy)]
pub(crate) struct F16SumsLanes;

widened!(
    F16SumsLanes = F16Sums,
    |b| _mm256_cvtph_ps(b),
    |sums, a, b| {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        let product = _mm256_cvtph_ps(_mm256_cvtps_ph::<NEAREST>(_mm256_mul_ps(a, b)));
        _mm256_cvtph_ps(_mm256_cvtps_ph::<NEAREST>(_mm256_add_ps(sums, product)))
    }
);

/// bf16, summed in f32.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Lanes;

widened!(
    Bf16Lanes = Bf16,
    |b| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(b))),
    |sums, a, b| _mm256_fmadd_ps(a, b, sums)
);

kernel! {
    /// Bytes by `vpmaddwd`, B widened when it is loaded.
    Narrow(Avx2) = "avx2/i8/2x8", Int8Lanes, "avx2", shift 0, rows [4, 4]
}
kernel! {
    /// i16 by `vpmaddwd`.
    Words(Avx2) = "avx2/i16/2x8", Int16Lanes, "avx2", shift 0, rows [6, 6]
}
kernel! {
    /// f16, summed in f32.
    F16(Avx2) = "avx2/f16/1x8", F16Lanes, "avx2,fma,f16c", shift 0, rows [6, 6]
}
kernel! {
    /// f16, summed in f16.
    F16Sums(Avx2) = "avx2/f16-sums/1x8", F16SumsLanes, "avx2,fma,f16c", shift 0, rows [6, 6]
}
kernel! {
    /// bf16, summed in f32.
    Bf16(Avx2) = "avx2/bf16/1x8", Bf16Lanes, "avx2,fma,f16c", shift 0, rows [6, 6]
}
