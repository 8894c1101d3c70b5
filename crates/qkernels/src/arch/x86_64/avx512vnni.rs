//! AVX-512 with VNNI.
//!
//! `vpdpbusd zmm` adds four products of unsigned and signed bytes to each i32 lane: 128 operations,
//! latency 4 on Zen 4 and Ice Lake, one a cycle (Zen 4), two (Zen 5). Exact: the products are
//! summed without saturation (`vpdpbusds` would saturate). A signed A is shifted by +128 when it
//! is copied or read, and the driver takes 128 · colsum(B) off.

mod finish;
mod tile;

use core::arch::x86_64::*;

use super::avx512bw::Avx512Bw;
use super::zmm::{int16, sums_of_i32};
use super::{tier, zmm};
use crate::Lhs;
use crate::Operand;
use crate::arch::tile::{Convert, Lanes, kernel};
use crate::select::VisitKernel;

tier! {
    /// The proof that AVX-512 F, BW, DQ, VL and VNNI run.
    Avx512Vnni(Avx512Bw), "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
    ["avx512vnni"],
    Avx512Vnni, Words, zmm::F16, zmm::F16Sums, zmm::Bf16, zmm::Bf16, zmm::Elementwise,
    zmm::depthwise::Zmm<true>;

    fn bf16_kernel<V: VisitKernel>(self, visitor: V) -> V::Output {
        zmm::with_bf16_kernel(self.into(), visitor)
    }

    fn bf16_hardware_kernel<V: VisitKernel>(self, visitor: V) -> V::Output {
        self.bf16_kernel(visitor)
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

/// `Σ a[i] · b[i]` of equally long slices; `signed` says that A's bytes are i8.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot(a: &[u8], b: &[i8], signed: bool) -> i32 {
    debug_assert_eq!(a.len(), b.len());
    /// Vectors a step, and sums that are added up apart, to hide the latency.
    const LANES: usize = 4;
    let flip = _mm512_set1_epi8(if signed { i8::MIN } else { 0 });
    let mut acc = [_mm512_setzero_si512(); LANES];
    // Σ of the shift times b, which is in `acc` too much.
    let mut extra = [_mm512_setzero_si512(); LANES];
    let mut step = |lane: usize, a: __m512i, b: __m512i| {
        acc[lane] = _mm512_dpbusd_epi32(acc[lane], _mm512_xor_si512(a, flip), b);
        if signed {
            extra[lane] = _mm512_dpbusd_epi32(extra[lane], flip, b);
        }
    };
    let (a_steps, a_rest) = a.as_chunks::<{ 64 * LANES }>();
    let (b_steps, b_rest) = b.as_chunks::<{ 64 * LANES }>();
    for (a, b) in a_steps.iter().zip(b_steps) {
        for lane in 0..LANES {
            // SAFETY: vector `lane < LANES` of arrays of `64 · LANES` bytes.
            unsafe {
                let a = _mm512_loadu_si512(a.as_ptr().add(64 * lane).cast());
                let b = _mm512_loadu_si512(b.as_ptr().add(64 * lane).cast());
                step(lane, a, b);
            }
        }
    }
    for (a, b) in a_rest.chunks(64).zip(b_rest.chunks(64)) {
        let mask = u64::MAX >> (64 - a.len());
        // SAFETY: the mask keeps to the bytes of the chunks, of which both have equally many.
        unsafe {
            let a = _mm512_maskz_loadu_epi8(mask, a.as_ptr().cast());
            let b = _mm512_maskz_loadu_epi8(mask, b.as_ptr());
            step(0, a, b);
        }
    }
    let mut sum = _mm512_setzero_si512();
    for lane in 0..LANES {
        sum = _mm512_add_epi32(sum, _mm512_sub_epi32(acc[lane], extra[lane]));
    }
    _mm512_reduce_add_epi32(sum)
}

/// `Σ a[i]` modulo 2^32; `signed` says that the bytes are i8.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn sum(a: &[u8], signed: bool) -> i32 {
    // `vpdpbusd` sums signed bytes times one, or unsigned ones times one the other way round.
    let ones = _mm512_set1_epi8(1);
    let add = |acc, a| {
        if signed {
            _mm512_dpbusd_epi32(acc, ones, a)
        } else {
            _mm512_dpbusd_epi32(acc, a, ones)
        }
    };
    let mut acc = [_mm512_setzero_si512(); 2];
    let (steps, rest) = a.as_chunks::<128>();
    for a in steps {
        for (lane, acc) in acc.iter_mut().enumerate() {
            // SAFETY: one of two vectors of an array of 128 bytes.
            *acc = add(*acc, unsafe {
                _mm512_loadu_si512(a.as_ptr().add(64 * lane).cast())
            });
        }
    }
    for a in rest.chunks(64) {
        let mask = u64::MAX >> (64 - a.len());
        // SAFETY: the mask keeps to the bytes of the chunk.
        acc[0] = add(acc[0], unsafe {
            _mm512_maskz_loadu_epi8(mask, a.as_ptr().cast())
        });
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(acc[0], acc[1]))
}

/// `vpdpbusd` on 16 independent sums.
#[target_feature(enable = "avx512f,avx512vnni")]
fn int8_limit(iterations: u64) -> u64 {
    let mut acc = [_mm512_setzero_si512(); 16];
    let mut a = _mm512_set1_epi8(1);
    for _ in 0..iterations {
        // SAFETY: no instruction at all; the compiler only may not know `a` any more, so that
        // nothing moves out of the loop.
        unsafe {
            core::arch::asm!("/* {0} */", inout(zmm_reg) a, options(nomem, nostack, preserves_flags));
        }
        for acc in &mut acc {
            *acc = _mm512_dpbusd_epi32(*acc, a, a);
        }
    }
    core::hint::black_box(acc);
    iterations * 16 * 128
}

int16! {
    /// i16 by VNNI's one instruction.
    Int16VnniLanes, |sums, a, b| _mm512_dpwssd_epi32(sums, a, b)
}

kernel! {
    /// i16 by VNNI's one instruction.
    Words(Avx512Vnni) = "avx512_vnni/i16/2x16", Int16VnniLanes,
    "avx512f,avx512bw,avx512vl,avx512vnni", shift 0, rows [12, 12, 8, 6]
}
