//! f16 to f32 and back: `fcvtl` and `fcvtn`, which every aarch64 processor with NEON has.
//!
//! Exact by the architecture (FPConvert): in the default state of the control register they round
//! to nearest even, keep the upper payload bits and the sign of a NaN and set its quiet bit. f16
//! subnormals are kept in any state: the flush controls of this register do not reach
//! conversions. Rejected: the portable form, some twenty instructions a vector.

use core::arch::aarch64::*;

use crate::portable;

/// Rounds f32 to the bits of f16, 8 at a time, over the shorter length.
#[target_feature(enable = "neon")]
pub(super) fn f32_to_f16(x: &[f32], out: &mut [u16]) {
    let n = x.len().min(out.len());
    let (xs, x_rest) = x[..n].as_chunks::<8>();
    let (outs, out_rest) = out[..n].as_chunks_mut::<8>();
    for (x, out) in xs.iter().zip(outs) {
        // SAFETY: arrays of 8 elements.
        unsafe {
            let (low, high) = (vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(4)));
            let half = vcvt_high_f16_f32(vcvt_f16_f32(low), high);
            vst1q_u16(out.as_mut_ptr(), vreinterpretq_u16_f16(half));
        }
    }
    portable::f32_to_f16(x_rest, out_rest);
}

/// Widens the bits of f16 to f32, 8 at a time, over the shorter length.
#[target_feature(enable = "neon")]
pub(super) fn f16_to_f32(x: &[u16], out: &mut [f32]) {
    let n = x.len().min(out.len());
    let (xs, x_rest) = x[..n].as_chunks::<8>();
    let (outs, out_rest) = out[..n].as_chunks_mut::<8>();
    for (x, out) in xs.iter().zip(outs) {
        // SAFETY: arrays of 8 elements.
        unsafe {
            let half = vreinterpretq_f16_u16(vld1q_u16(x.as_ptr()));
            vst1q_f32(out.as_mut_ptr(), vcvt_f32_f16(vget_low_f16(half)));
            vst1q_f32(out.as_mut_ptr().add(4), vcvt_high_f32_f16(half));
        }
    }
    portable::f16_to_f32(x_rest, out_rest);
}
