//! Sums over one row, and the register-only loop, for any tier that can multiply signed bytes.

use core::arch::aarch64::*;
use core::arch::asm;

use crate::portable;

/// What a tier does with 16 signed bytes.
pub(crate) trait Bytes: Copy + 'static {
    /// Adds the 16 products, in any lanes.
    ///
    /// # Safety
    ///
    /// The instructions of the tier run.
    unsafe fn dot(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;

    /// Adds the 16 bytes, in any lanes.
    ///
    /// # Safety
    ///
    /// The instructions of the tier run.
    unsafe fn sum(acc: int32x4_t, a: int8x16_t) -> int32x4_t;
}

/// Vectors a step, and sums that are added up apart, to hide the latency.
const LANES: usize = 4;

/// What takes an unsigned byte `a` to the signed one `a − 128`: its upper bit flipped.
const fn flip(signed: bool) -> i8 {
    if signed { 0 } else { i8::MIN }
}

/// `Σ a[i] · b[i]` modulo 2^32 of equally long slices; `signed` says that A's bytes are i8.
///
/// # Safety
///
/// The instructions of the tier run.
#[inline(always)]
pub(super) unsafe fn dot<B: Bytes>(a: &[u8], b: &[i8], signed: bool) -> i32 {
    debug_assert_eq!(a.len(), b.len());
    let (a_steps, a_rest) = a.as_chunks::<{ 16 * LANES }>();
    let (b_steps, b_rest) = b.as_chunks::<{ 16 * LANES }>();
    // SAFETY: vector `lane < LANES` of arrays of `16 · LANES` bytes; the instructions run.
    let sum = unsafe {
        let flip = vdupq_n_s8(flip(signed));
        let mut acc = [vdupq_n_s32(0); LANES];
        // Σ b, of which an unsigned A lacks 128 times.
        let mut lacking = [vdupq_n_s32(0); LANES];
        for (a, b) in a_steps.iter().zip(b_steps) {
            for lane in 0..LANES {
                let a = vld1q_s8(a.as_ptr().add(16 * lane).cast());
                let b = vld1q_s8(b.as_ptr().add(16 * lane));
                acc[lane] = B::dot(acc[lane], veorq_s8(a, flip), b);
                if !signed {
                    lacking[lane] = B::sum(lacking[lane], b);
                }
            }
        }
        let (acc, lacking) = (add_up(acc), add_up(lacking));
        acc.wrapping_add(lacking.wrapping_mul(128))
    };
    let rest = if signed {
        portable::dot::<i8>(bytemuck::cast_slice(a_rest), b_rest)
    } else {
        portable::dot(a_rest, b_rest)
    };
    sum.wrapping_add(rest)
}

/// `Σ a[i]` modulo 2^32; `signed` says that the bytes are i8.
///
/// # Safety
///
/// The instructions of the tier run.
#[inline(always)]
pub(super) unsafe fn sum<B: Bytes>(a: &[u8], signed: bool) -> i32 {
    let (steps, rest) = a.as_chunks::<{ 16 * LANES }>();
    // SAFETY: vector `lane < LANES` of an array of `16 · LANES` bytes; the instructions run.
    let sum = unsafe {
        let flip = vdupq_n_s8(flip(signed));
        let mut acc = [vdupq_n_s32(0); LANES];
        for a in steps {
            for (lane, acc) in acc.iter_mut().enumerate() {
                let a = vld1q_s8(a.as_ptr().add(16 * lane).cast());
                *acc = B::sum(*acc, veorq_s8(a, flip));
            }
        }
        add_up(acc)
    };
    let flip = flip(signed);
    let rest: i32 = rest.iter().map(|&a| i32::from(a as i8 ^ flip)).sum();
    // Each byte lacks 128 where it was flipped. Modulo 2^32, as promised.
    let lacking = i32::from(flip).wrapping_mul(a.len() as i32);
    sum.wrapping_add(rest).wrapping_sub(lacking)
}

/// All lanes of all vectors.
///
/// # Safety
///
/// NEON runs.
#[inline(always)]
unsafe fn add_up(acc: [int32x4_t; LANES]) -> i32 {
    // SAFETY: as promised by the caller.
    unsafe {
        vaddvq_s32(vaddq_s32(
            vaddq_s32(acc[0], acc[1]),
            vaddq_s32(acc[2], acc[3]),
        ))
    }
}

/// Repeats `step` on `N` independent sums; gives the operations done, `each` a step.
///
/// # Safety
///
/// NEON runs.
#[inline(always)]
pub(super) unsafe fn limit<const N: usize>(
    iterations: u64,
    each: u64,
    step: impl Fn(int32x4_t, int8x16_t) -> int32x4_t,
) -> u64 {
    // SAFETY: as promised by the caller.
    let (mut acc, mut a) = unsafe { ([vdupq_n_s32(0); N], vdupq_n_s8(1)) };
    for _ in 0..iterations {
        for acc in &mut acc {
            // SAFETY: no instruction at all; the compiler only may not know `a` any more, so that
            // the product is taken every time.
            unsafe {
                asm!("/* {0:v} */", inout(vreg) a, options(nomem, nostack, preserves_flags));
            }
            *acc = step(*acc, a);
        }
    }
    core::hint::black_box(acc);
    iterations * N as u64 * each
}
