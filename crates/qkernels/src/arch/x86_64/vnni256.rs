//! 256-bit `vpdpbusd`, written once for both encodings: VEX (AVX-VNNI) and EVEX (AVX-512 VNNI with
//! VL), so that a processor with either proves the code that the other runs.
//!
//! Four products of unsigned and signed bytes are added to each i32 lane: 64 operations, latency 4
//! to 5, two a cycle (Zen 4, Golden Cove). Exact: the products are summed without saturation. A
//! signed A is shifted by +128 when it is read or copied, and the driver takes 128 · colsum(B)
//! off.
//!
//! VEX reaches 16 registers: 6 × 16 holds 12 sums, two vectors of B, one of A and the shift. The
//! 256-bit form of Zen 4 reaches 83 to 90 % of its limit with it from 256³ to 128×768×3072.

use core::arch::x86_64::*;
use core::marker::PhantomData;

use super::ymm::AHEAD;
use crate::arch::tile::{Convert, Lanes};
use crate::{Arithmetic, Operand};

/// An encoding of the instruction. Everything here is inlined into a tier's door or tiles.
pub(crate) trait Dpbusd: Copy + Send + Sync + 'static {
    /// `acc + Σ of four neighbouring products` in each lane.
    ///
    /// # Safety
    ///
    /// The instruction runs.
    unsafe fn dpbusd(acc: __m256i, a: __m256i, b: __m256i) -> __m256i;
}

/// VEX, AVX-VNNI.
#[cfg(feature = "avxvnni")]
#[derive(Clone, Copy)]
pub(crate) struct Vex;

#[cfg(feature = "avxvnni")]
impl Dpbusd for Vex {
    #[inline(always)]
    unsafe fn dpbusd(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller promises the instruction.
        unsafe { _mm256_dpbusd_avx_epi32(acc, a, b) }
    }
}

/// EVEX, AVX-512 VNNI and VL.
#[cfg(all(test, feature = "avx512"))]
#[derive(Clone, Copy)]
pub(crate) struct Evex;

#[cfg(all(test, feature = "avx512"))]
impl Dpbusd for Evex {
    #[inline(always)]
    unsafe fn dpbusd(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller promises the instruction.
        unsafe { _mm256_dpbusd_epi32(acc, a, b) }
    }
}

/// Bytes by the instruction.
#[derive(Clone, Copy)]
pub(crate) struct Int8<D>(PhantomData<D>);

impl<D: Dpbusd> Lanes for Int8<D> {
    const AHEAD: usize = AHEAD;
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    const LANES: usize = 8;
    const KG: usize = 4;
    super::ymm::sums_of_i32!();
    type Lhs = u8;
    type Rhs = i8;
    type A = __m256i;
    type B = __m256i;
    #[inline(always)]
    unsafe fn a(p: *const u8) -> __m256i {
        // SAFETY: as promised by the caller.
        unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn shifted(a: __m256i) -> __m256i {
        // a + 128 = a ^ 128, byte by byte.
        // SAFETY: as promised by the caller.
        unsafe { _mm256_xor_si256(a, _mm256_set1_epi8(i8::MIN)) }
    }
    #[inline(always)]
    unsafe fn b(p: *const i8) -> __m256i {
        // SAFETY: as promised by the caller.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn step(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as promised by the caller.
        unsafe { D::dpbusd(sums, a, b) }
    }
}

impl<D: Dpbusd> Convert for Int8<D> {
    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> u8 {
        // Exact: −128 + 128 to 127 + 128, or 0 to 255.
        (a.int() + if A::DTYPE.is_signed() { 128 } else { 0 }) as u8
    }
    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> i8 {
        // Exact: of bytes B is always a signed one.
        b.int() as i8
    }
}

/// `Σ a[i] · b[i]` of equally long slices; `signed` says that A's bytes are i8.
///
/// # Safety
///
/// The instructions of `D` run.
#[inline(always)]
pub(super) unsafe fn dot<D: Dpbusd>(a: &[u8], b: &[i8], signed: bool) -> i32 {
    debug_assert_eq!(a.len(), b.len());
    /// Vectors a step, and sums that are added up apart, to hide the latency.
    const LANES: usize = 4;
    let (a_steps, a_rest) = a.as_chunks::<{ 32 * LANES }>();
    let (b_steps, b_rest) = b.as_chunks::<{ 32 * LANES }>();
    // SAFETY: the caller promises the instructions; loads are vectors `lane < LANES` of arrays of
    // `32 · LANES` bytes.
    let sum = unsafe {
        let flip = _mm256_set1_epi8(if signed { i8::MIN } else { 0 });
        let mut acc = [_mm256_setzero_si256(); LANES];
        // Σ of the shift times b, which is in `acc` too much.
        let mut extra = [_mm256_setzero_si256(); LANES];
        for (a, b) in a_steps.iter().zip(b_steps) {
            for lane in 0..LANES {
                let a = _mm256_loadu_si256(a.as_ptr().add(32 * lane).cast());
                let b = _mm256_loadu_si256(b.as_ptr().add(32 * lane).cast());
                acc[lane] = D::dpbusd(acc[lane], _mm256_xor_si256(a, flip), b);
                if signed {
                    extra[lane] = D::dpbusd(extra[lane], flip, b);
                }
            }
        }
        for (acc, extra) in acc.iter_mut().zip(extra) {
            *acc = _mm256_sub_epi32(*acc, extra);
        }
        lanes(_mm256_add_epi32(
            _mm256_add_epi32(acc[0], acc[1]),
            _mm256_add_epi32(acc[2], acc[3]),
        ))
    };
    let rest = if signed {
        crate::portable::dot::<i8>(bytemuck::cast_slice(a_rest), b_rest)
    } else {
        crate::portable::dot(a_rest, b_rest)
    };
    sum.wrapping_add(rest)
}

/// The sum of all lanes modulo 2^32.
///
/// # Safety
///
/// AVX2 runs.
#[inline(always)]
unsafe fn lanes(v: __m256i) -> i32 {
    let mut lanes = [0i32; 8];
    // SAFETY: an array of eight i32; the caller promises the instruction.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), v) };
    lanes.iter().fold(0, |sum, &v| sum.wrapping_add(v))
}

/// The instruction on 12 independent sums.
///
/// # Safety
///
/// The instructions of `D` run.
#[inline(always)]
pub(super) unsafe fn int8_limit<D: Dpbusd>(iterations: u64) -> u64 {
    // SAFETY: the caller promises the instructions.
    unsafe {
        let mut acc = [_mm256_setzero_si256(); 12];
        let a = core::hint::black_box(_mm256_set1_epi8(1));
        for _ in 0..iterations {
            for acc in &mut acc {
                *acc = D::dpbusd(*acc, a, a);
            }
        }
        core::hint::black_box(acc);
    }
    iterations * 12 * 64
}
