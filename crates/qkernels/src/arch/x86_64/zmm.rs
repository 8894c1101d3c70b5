//! Lanes of 512 bits: what AVX-512 multiplies and adds.
//!
//! `vpdpwssd` (VNNI): 64 operations on pairs of i16. `vfmadd231ps`: 32 operations, latency 4; one
//! a cycle on Zen 4, two on Zen 5. `vdpbf16ps`: 64 operations, one a cycle on Zen 4.

pub(super) mod depthwise;
mod elementwise;
mod floats;

use core::arch::asm;
use core::arch::x86_64::*;

pub(crate) use elementwise::Elementwise;
pub(crate) use floats::{Narrow, Widened};

use half::bf16;

use super::avx512bw::Avx512Bw;
use super::is_amd;
use crate::arch::tile::{Convert, Lanes, kernel};
use crate::select::VisitKernel;
use crate::{Arithmetic, Operand};

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
        #[inline(always)]
        unsafe fn join(sums: __m512i, more: __m512i) -> __m512i {
            // SAFETY: as promised by the caller.
            unsafe { _mm512_add_epi32(sums, more) }
        }
    };
}

pub(super) use sums_of_i32;

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
            unsafe {
                _mm512_storeu_ps(p, crate::arch::x86_64::zmm::one_nan(sums));
            }
        }
        #[inline(always)]
        unsafe fn add(sums: __m512, v: f32) -> __m512 {
            // SAFETY: as promised by the caller.
            unsafe { _mm512_add_ps(sums, _mm512_set1_ps(v)) }
        }
    };
}

pub(super) use sums_of_f32;

/// The same values, with one NaN for all: one operation, where comparing and blending are two.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn one_nan(v: __m512) -> __m512 {
    /// For each kind of value four bits: zeros, which leave what is in the first operand, for both
    /// kinds of NaN; all other values are taken.
    const TAKEN: i32 = 0x1111_1100;
    let nan = _mm512_set1_ps(f32::NAN);
    _mm512_fixupimm_ps::<0>(nan, v, _mm512_set1_epi32(TAKEN))
}

/// Pairs of i16. A sum may wrap: the call has checked that the whole of it fits.
macro_rules! int16 {
    ($(#[$doc:meta])* $name:ident, |$sums:ident, $x:ident, $y:ident| $step:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Lanes for $name {
            const ARITHMETIC: $crate::Arithmetic = $crate::Arithmetic::Int16;
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

/// i8 widened to i16 when it is loaded, which halves what is read from memory.
#[derive(Clone, Copy)]
pub(crate) struct Int8Lanes;

impl Lanes for Int8Lanes {
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    const LANES: usize = 16;
    const KG: usize = 2;
    sums_of_i32!();
    type Lhs = i16;
    type Rhs = i8;
    type A = __m512i;
    type B = __m512i;
    #[inline(always)]
    unsafe fn a(p: *const i16) -> __m512i {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn b(p: *const i8) -> __m512i {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn step(sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(a, b)) }
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

pub(super) use int16;

int16! {
    /// i16 by `vpmaddwd` and `vpaddd`.
    Int16Lanes, |sums, a, b| _mm512_add_epi32(sums, _mm512_madd_epi16(a, b))
}

/// Floats are kept in 16 bits in B, and widened when they are loaded.
macro_rules! widened {
    ($name:ident = $arithmetic:ident, |$b:ident| $widen:expr, |$sums:ident, $x:ident, $y:ident| $step:expr) => {
        impl Lanes for $name {
            const ARITHMETIC: Arithmetic = Arithmetic::$arithmetic;
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
pub(crate) struct F16Lanes;

widened!(F16Lanes = F16, |b| _mm512_cvtph_ps(b), |sums, a, b| {
    _mm512_fmadd_ps(a, b, sums)
});

/// f16, summed in f16: every product and every sum is rounded.
#[derive(Clone, Copy)]
pub(crate) struct F16SumsLanes;

widened!(
    F16SumsLanes = F16Sums,
    |b| _mm512_cvtph_ps(b),
    |sums, a, b| {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        let product = _mm512_cvtph_ps(_mm512_cvtps_ph::<NEAREST>(_mm512_mul_ps(a, b)));
        _mm512_cvtph_ps(_mm512_cvtps_ph::<NEAREST>(_mm512_add_ps(sums, product)))
    }
);

/// bf16, summed in f32.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Lanes;

widened!(
    Bf16Lanes = Bf16,
    |b| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(b))),
    |sums, a, b| _mm512_fmadd_ps(a, b, sums)
);

/// bf16, summed in f32. A and B are read in pairs of neighbours in K, of which a shift or a mask
/// makes two f32: one operation each, while the pipes that multiply are busy.
#[derive(Clone, Copy)]
pub(crate) struct PairedBf16Lanes;

/// The upper halves of pairs.
const UPPER: i32 = 0xffff_0000_u32 as i32;

/// The first of a pair as f32, in every lane: in memory it is the lower half. Of intrinsics the
/// compiler would take the pair apart outside of vectors, and broadcast what it has.
///
/// # Safety
///
/// `p` is valid for reads of a pair.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn first_everywhere(p: *const bf16) -> __m512 {
    let first;
    // SAFETY: reads a pair, as promised by the caller.
    unsafe {
        asm!(
            "vpslld {first}, dword ptr [{p}]{{1to16}}, 16",
            first = lateout(zmm_reg) first,
            p = in(reg) p,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    first
}

/// The second of a pair as f32, in every lane.
///
/// # Safety
///
/// `p` is valid for reads of a pair.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn second_everywhere(p: *const bf16) -> __m512 {
    let second;
    // SAFETY: reads a pair, as promised by the caller.
    unsafe {
        asm!(
            "vpandd {second}, {upper}, dword ptr [{p}]{{1to16}}",
            second = lateout(zmm_reg) second,
            upper = in(zmm_reg) _mm512_set1_epi32(UPPER),
            p = in(reg) p,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    second
}

impl Lanes for PairedBf16Lanes {
    const ARITHMETIC: Arithmetic = Arithmetic::Bf16;
    const LANES: usize = 16;
    const KG: usize = 2;
    const TWO_STEPS: bool = true;
    sums_of_f32!();
    type Lhs = bf16;
    type Rhs = u16;
    type A = __m512;
    type B = __m512;
    #[inline(always)]
    unsafe fn a(p: *const bf16) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { first_everywhere(p) }
    }
    #[inline(always)]
    unsafe fn a_second(p: *const bf16) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { second_everywhere(p) }
    }
    #[inline(always)]
    unsafe fn b(p: *const u16) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_loadu_si512(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn b_second(p: *const u16) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe {
            let pairs = _mm512_loadu_si512(p.cast());
            _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(UPPER)))
        }
    }
    /// Hides that the address is the same: the compiler would keep the pairs that it has read, and
    /// put sums into memory instead.
    #[inline(always)]
    unsafe fn again(mut p: *const u16) -> *const u16 {
        // SAFETY: no instruction.
        unsafe {
            asm!("/* {0} */", inout(reg) p, options(pure, readonly, nostack, preserves_flags));
        }
        p
    }
    #[inline(always)]
    unsafe fn step(sums: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_fmadd_ps(a, b, sums) }
    }
}

impl Convert for PairedBf16Lanes {
    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> bf16 {
        bf16::from_bits(a.int() as u16)
    }
    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> u16 {
        b.int() as u16
    }
    /// −0, which times +0 is −0, which leaves also a sum of −0 as it is.
    #[inline(always)]
    fn rhs_padding() -> u16 {
        bf16::NEG_ZERO.to_bits()
    }
}

kernel! {
    /// Bytes by `vpmaddwd`.
    Bytes(Avx512Bw) = "avx512bw/i8/2x16", Int8Lanes, "avx512f,avx512bw,avx512vl",
    shift 0, rows [12, 12, 8, 6]
}
kernel! {
    /// i16 by `vpmaddwd`.
    Words(Avx512Bw) = "avx512bw/i16/2x16", Int16Lanes, "avx512f,avx512bw,avx512vl",
    shift 0, rows [12, 12, 8, 6]
}
kernel! {
    /// f16, summed in f32, widened when it is loaded.
    NarrowF16(Avx512Bw) = "avx512/f16/1x16", F16Lanes, "avx512f,avx512bw,avx512vl",
    shift 0, rows [12, 12, 8, 6]
}
kernel! {
    /// f16, summed in f16.
    F16Sums(Avx512Bw) = "avx512/f16-sums/1x16", F16SumsLanes, "avx512f,avx512bw,avx512vl",
    shift 0, rows [6, 6, 6, 6]
}
kernel! {
    /// bf16, summed in f32, widened when it is loaded.
    NarrowBf16(Avx512Bw) = "avx512/bf16/1x16", Bf16Lanes, "avx512f,avx512bw,avx512vl",
    shift 0, rows [12, 12, 8, 6]
}
kernel! {
    /// bf16 in pairs, summed in f32.
    PairedBf16(Avx512Bw) = "avx512/bf16/2x16", PairedBf16Lanes, "avx512f,avx512bw,avx512vl",
    shift 0, rows [12, 12, 8, 6]
}

impl Narrow for NarrowF16 {
    type Lanes = F16Lanes;
}

impl Narrow for NarrowBf16 {
    type Lanes = Bf16Lanes;
}

/// f16, summed in f32.
pub(crate) type F16 = Widened<NarrowF16>;
/// bf16, summed in f32.
pub(crate) type Bf16 = Widened<NarrowBf16>;

/// Runs `visitor` with the kernel for bf16: in pairs where shifts and masks take no time.
#[inline]
pub(super) fn with_bf16_kernel<V: VisitKernel>(tier: Avx512Bw, visitor: V) -> V::Output {
    if is_amd() {
        visitor.visit::<PairedBf16>(tier)
    } else {
        visitor.visit::<Bf16>(tier)
    }
}
