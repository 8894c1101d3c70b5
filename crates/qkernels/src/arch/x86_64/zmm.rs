//! Lanes of 512 bits: what AVX-512 multiplies and adds.
//!
//! `vpdpwssd` (VNNI): 64 operations on pairs of i16. `vfmadd231ps`: 32 operations, latency 4; one
//! a cycle on Zen 4, two on Zen 5. `vdpbf16ps`: 64 operations, one a cycle on Zen 4.

use core::arch::x86_64::*;

use crate::Operand;
use crate::arch::tile::{Convert, Lanes};

/// What all lanes of 512 bits with sums of i32 share.
macro_rules! sums_of_i32 {
    () => {
        type Acc = i32;
        type Sums = __m512i;
        #[inline(always)]
        unsafe fn load(p: *const i32) -> __m512i {
            // SAFETY: as promised by the caller.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut i32, sums: __m512i) {
            // SAFETY: as promised by the caller.
            unsafe { _mm512_storeu_si512(p.cast(), sums) }
        }
        #[inline(always)]
        unsafe fn add(sums: __m512i, v: i32) -> __m512i {
            // SAFETY: as promised by the caller.
            unsafe { _mm512_add_epi32(sums, _mm512_set1_epi32(v)) }
        }
    };
}

/// What all lanes of 512 bits with sums of f32 share.
macro_rules! sums_of_f32 {
    () => {
        type Acc = f32;
        type Sums = __m512;
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            // SAFETY: as promised by the caller.
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, sums: __m512) {
            // SAFETY: as promised by the caller.
            unsafe { _mm512_storeu_ps(p, sums) }
        }
        #[inline(always)]
        unsafe fn add(sums: __m512, v: f32) -> __m512 {
            // SAFETY: as promised by the caller.
            unsafe { _mm512_add_ps(sums, _mm512_set1_ps(v)) }
        }
    };
}

/// Pairs of i16. A sum may wrap: the call has checked that the whole of it fits.
macro_rules! int16 {
    ($(#[$doc:meta])* $name:ident, |$sums:ident, $x:ident, $y:ident| $step:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Lanes for $name {
            const LANES: usize = 16;
            const KG: usize = 2;
            sums_of_i32!();
            type Lhs = i16;
            type Rhs = i16;
            type A = __m512i;
            type B = __m512i;
            #[inline(always)]
            unsafe fn a(p: *const i16) -> __m512i {
                // SAFETY: as promised by the caller.
                unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn b(p: *const i16) -> __m512i {
                // SAFETY: as promised by the caller.
                unsafe { _mm512_loadu_si512(p.cast()) }
            }
            #[inline(always)]
            unsafe fn step($sums: __m512i, $x: __m512i, $y: __m512i) -> __m512i {
                // SAFETY: as promised by the caller.
                unsafe { $step }
            }
        }

        impl Convert for $name {
            #[inline(always)]
            fn lhs<A: Operand>(a: A) -> i16 {
                a.int() as i16
            }
            #[inline(always)]
            fn rhs<B: Operand>(b: B) -> i16 {
                b.int() as i16
            }
        }
    };
}

int16! {
    /// i16 by VNNI's one instruction.
    Int16Vnni, |sums, a, b| _mm512_dpwssd_epi32(sums, a, b)
}

/// Floats are kept in 16 bits in B, and widened when they are loaded.
macro_rules! widened {
    ($name:ident, |$b:ident| $widen:expr, |$sums:ident, $x:ident, $y:ident| $step:expr) => {
        impl Lanes for $name {
            const LANES: usize = 16;
            const KG: usize = 1;
            sums_of_f32!();
            type Lhs = f32;
            type Rhs = u16;
            type A = __m512;
            type B = __m512;
            #[inline(always)]
            unsafe fn a(p: *const f32) -> __m512 {
                // SAFETY: as promised by the caller.
                unsafe { _mm512_set1_ps(*p) }
            }
            #[inline(always)]
            unsafe fn b(p: *const u16) -> __m512 {
                // SAFETY: as promised by the caller.
                unsafe {
                    let $b = _mm256_loadu_si256(p.cast());
                    $widen
                }
            }
            #[inline(always)]
            unsafe fn step($sums: __m512, $x: __m512, $y: __m512) -> __m512 {
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
pub(crate) struct F16;

widened!(F16, |b| _mm512_cvtph_ps(b), |sums, a, b| _mm512_fmadd_ps(
    a, b, sums
));

/// f16, summed in f16: every product and every sum is rounded.
#[derive(Clone, Copy)]
pub(crate) struct F16Sums;

widened!(F16Sums, |b| _mm512_cvtph_ps(b), |sums, a, b| {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
    let product = _mm512_cvtph_ps(_mm512_cvtps_ph::<NEAREST>(_mm512_mul_ps(a, b)));
    _mm512_cvtph_ps(_mm512_cvtps_ph::<NEAREST>(_mm512_add_ps(sums, product)))
});

/// bf16, summed in f32.
#[derive(Clone, Copy)]
pub(crate) struct Bf16;

widened!(
    Bf16,
    |b| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(b))),
    |sums, a, b| _mm512_fmadd_ps(a, b, sums)
);

/// The same bits as pairs of bf16.
#[inline(always)]
fn bh(v: __m512i) -> __m512bh {
    // SAFETY: both types are 512 bits of plain data.
    unsafe { core::mem::transmute::<__m512i, __m512bh>(v) }
}

/// Pairs of bf16 by the processor's own rounding.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Pairs;

impl Lanes for Bf16Pairs {
    const LANES: usize = 16;
    const KG: usize = 2;
    sums_of_f32!();
    type Lhs = u16;
    type Rhs = u16;
    type A = __m512i;
    type B = __m512i;
    #[inline(always)]
    unsafe fn a(p: *const u16) -> __m512i {
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

impl Convert for Bf16Pairs {
    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> u16 {
        a.int() as u16
    }
    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> u16 {
        b.int() as u16
    }
}
