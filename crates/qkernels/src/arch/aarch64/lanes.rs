//! Kernels of elements wider than a byte, the same for every tier with NEON.
//!
//! Eight columns are two vectors of sums: `smlal` and `smlal2` multiply the lower and the upper
//! half of a vector of i16, `fcvtl` and `fcvtl2` (f16) or `shll` and `shll2` (bf16) widen one for
//! two `fmla`. Tiles of 6 × 16 and 12 × 8 hold 24 vectors of sums in 32 registers.

use core::arch::aarch64::*;

use super::neon::Neon;
use crate::arch::tile::{Convert, Lanes, kernel};
use crate::{Arithmetic, Operand};

/// i16 as it is. Sums may wrap: the call has checked that the whole sum fits, so modulo 2^32 is
/// enough.
#[derive(Clone, Copy)]
pub(crate) struct Int16Lanes;

impl Lanes for Int16Lanes {
    const ARITHMETIC: Arithmetic = Arithmetic::Int16;
    const LANES: usize = 8;
    const KG: usize = 1;
    type Acc = i32;
    type Lhs = i16;
    type Rhs = i16;
    type Sums = [int32x4_t; 2];
    type A = int16x8_t;
    type B = int16x8_t;
    #[inline(always)]
    unsafe fn load(p: *const i32) -> [int32x4_t; 2] {
        // SAFETY: as promised by the caller.
        unsafe { [vld1q_s32(p), vld1q_s32(p.add(4))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut i32, sums: [int32x4_t; 2]) {
        // SAFETY: as promised by the caller.
        unsafe {
            vst1q_s32(p, sums[0]);
            vst1q_s32(p.add(4), sums[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(sums: [int32x4_t; 2], v: i32) -> [int32x4_t; 2] {
        // SAFETY: as promised by the caller.
        unsafe {
            let v = vdupq_n_s32(v);
            [vaddq_s32(sums[0], v), vaddq_s32(sums[1], v)]
        }
    }
    #[inline(always)]
    unsafe fn join(sums: [int32x4_t; 2], more: [int32x4_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: as promised by the caller.
        unsafe { [vaddq_s32(sums[0], more[0]), vaddq_s32(sums[1], more[1])] }
    }
    #[inline(always)]
    unsafe fn a(p: *const i16) -> int16x8_t {
        // SAFETY: as promised by the caller.
        unsafe { vdupq_n_s16(*p) }
    }
    #[inline(always)]
    unsafe fn b(p: *const i16) -> int16x8_t {
        // SAFETY: as promised by the caller.
        unsafe { vld1q_s16(p) }
    }
    #[inline(always)]
    unsafe fn step(sums: [int32x4_t; 2], a: int16x8_t, b: int16x8_t) -> [int32x4_t; 2] {
        // SAFETY: as promised by the caller.
        unsafe {
            let low = vmlal_s16(sums[0], vget_low_s16(a), vget_low_s16(b));
            [low, vmlal_high_s16(sums[1], a, b)]
        }
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
    ($name:ident = $arithmetic:ident, |$b:ident| $widen:expr, |$sum:ident, $x:ident, $y:ident| $step:expr) => {
        impl Lanes for $name {
            const ARITHMETIC: Arithmetic = Arithmetic::$arithmetic;
            const LANES: usize = 8;
            const KG: usize = 1;
            type Acc = f32;
            type Lhs = f32;
            type Rhs = u16;
            type Sums = [float32x4_t; 2];
            type A = float32x4_t;
            type B = [float32x4_t; 2];
            #[inline(always)]
            unsafe fn load(p: *const f32) -> [float32x4_t; 2] {
                // SAFETY: as promised by the caller.
                unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, sums: [float32x4_t; 2]) {
                // SAFETY: as promised by the caller.
                unsafe {
                    let nan = vdupq_n_f32(f32::NAN);
                    for (j, sums) in sums.into_iter().enumerate() {
                        // Only a NaN differs from itself.
                        let sums = vbslq_f32(vceqq_f32(sums, sums), sums, nan);
                        vst1q_f32(p.add(4 * j), sums);
                    }
                }
            }
            #[inline(always)]
            unsafe fn add(sums: [float32x4_t; 2], v: f32) -> [float32x4_t; 2] {
                // SAFETY: as promised by the caller.
                unsafe {
                    let v = vdupq_n_f32(v);
                    [vaddq_f32(sums[0], v), vaddq_f32(sums[1], v)]
                }
            }
            #[inline(always)]
            unsafe fn a(p: *const f32) -> float32x4_t {
                // SAFETY: as promised by the caller.
                unsafe { vdupq_n_f32(*p) }
            }
            #[inline(always)]
            unsafe fn b(p: *const u16) -> [float32x4_t; 2] {
                // SAFETY: as promised by the caller.
                unsafe {
                    let $b = vld1q_u16(p);
                    $widen
                }
            }
            #[inline(always)]
            unsafe fn step(
                sums: [float32x4_t; 2],
                $x: float32x4_t,
                b: [float32x4_t; 2],
            ) -> [float32x4_t; 2] {
                // SAFETY: as promised by the caller.
                unsafe {
                    let low = {
                        let ($sum, $y) = (sums[0], b[0]);
                        $step
                    };
                    let ($sum, $y) = (sums[1], b[1]);
                    [low, $step]
                }
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

widened!(
    F16Lanes = F16,
    |b| {
        let b = vreinterpretq_f16_u16(b);
        [vcvt_f32_f16(vget_low_f16(b)), vcvt_high_f32_f16(b)]
    },
    |sum, a, b| vfmaq_f32(sum, a, b)
);

/// f16, summed in f16: every product and every sum is rounded.
#[derive(Clone, Copy)]
pub(crate) struct F16SumsLanes;

widened!(
    F16SumsLanes = F16Sums,
    |b| {
        let b = vreinterpretq_f16_u16(b);
        [vcvt_f32_f16(vget_low_f16(b)), vcvt_high_f32_f16(b)]
    },
    |sum, a, b| {
        let product = vcvt_f32_f16(vcvt_f16_f32(vmulq_f32(a, b)));
        vcvt_f32_f16(vcvt_f16_f32(vaddq_f32(sum, product)))
    }
);

/// bf16, summed in f32.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Lanes;

widened!(
    Bf16Lanes = Bf16,
    |b| {
        let (low, high) = (vmovl_u16(vget_low_u16(b)), vmovl_high_u16(b));
        [
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(low)),
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(high)),
        ]
    },
    |sum, a, b| vfmaq_f32(sum, a, b)
);

kernel! {
    /// i16 by `smlal`.
    Words(Neon) = "neon/i16/1x8", Int16Lanes, "neon", shift 0, rows [12, 6]
}
kernel! {
    /// f16, summed in f32.
    F16(Neon) = "neon/f16/1x8", F16Lanes, "neon", shift 0, rows [12, 6]
}
kernel! {
    /// f16, summed in f16.
    F16Sums(Neon) = "neon/f16-sums/1x8", F16SumsLanes, "neon", shift 0, rows [12, 6]
}
kernel! {
    /// bf16, summed in f32.
    Bf16(Neon) = "neon/bf16/1x8", Bf16Lanes, "neon", shift 0, rows [12, 6]
}
