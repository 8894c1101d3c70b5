//! The plain forms of what tiers may override.
//!
//! Free of branches, so that the compiler vectorises them with whatever instructions the door
//! around them has.

use crate::Lhs;

/// `Σ a[i] · b[i]` modulo 2^32, over the shorter length.
#[inline(always)]
pub(crate) fn dot<A: Lhs>(a: &[A], b: &[i8]) -> i32 {
    a.iter().zip(b).fold(0i32, |sum, (&a, &b)| {
        sum.wrapping_add(a.to_i32() * i32::from(b))
    })
}

/// Rounds to f16 (the method of F. Giesen's `float_to_half_fast3_rtne`, 2016, with NaN payloads
/// kept).
#[inline(always)]
pub(crate) fn f32_to_f16_bits(x: f32) -> u16 {
    const INFINITY: u32 = 0x7f80_0000;
    /// 2^16: from here on everything rounds to ∞. What lies between the largest f16 and this
    /// carries into the exponent of ∞ by itself.
    const OVERFLOW: u32 = 0x4780_0000;
    /// 2^−14: the smallest normal f16.
    const NORMAL: u32 = 0x3880_0000;
    /// 0.5: adding it aligns the last bit of a subnormal f16 with the last bit of the sum.
    const ALIGN: u32 = 0x3f00_0000;

    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let special = if magnitude > INFINITY {
        0x7e00 | ((magnitude >> 13) & 0x3ff)
    } else {
        0x7c00
    };
    let aligned = f32::from_bits(magnitude) + f32::from_bits(ALIGN);
    let subnormal = aligned.to_bits().wrapping_sub(ALIGN);
    let odd = (magnitude >> 13) & 1;
    let rebias = (15u32.wrapping_sub(127)) << 23;
    let normal = magnitude.wrapping_add(rebias).wrapping_add(0xfff + odd) >> 13;
    let finite = if magnitude < NORMAL {
        subnormal
    } else {
        normal
    };
    let half = if magnitude >= OVERFLOW {
        special
    } else {
        finite
    };
    // The low 16 bits are all there is.
    (half | (bits >> 16 & 0x8000)) as u16
}

/// Widens f16.
#[inline(always)]
pub(crate) fn f16_bits_to_f32(h: u16) -> f32 {
    /// 2^−14, the weight of the hidden bit that a subnormal does not have.
    const HIDDEN: u32 = 113 << 23;

    let h = u32::from(h);
    let (exponent, fraction) = (h & 0x7c00, h & 0x3ff);
    let shifted = (h & 0x7fff) << 13;
    let normal = shifted + ((127 - 15) << 23);
    let quiet = if fraction != 0 { 0x0040_0000 } else { 0 };
    let special = shifted | 0x7f80_0000 | quiet;
    let subnormal = (f32::from_bits(shifted + HIDDEN) - f32::from_bits(HIDDEN)).to_bits();
    let finite = if exponent == 0 { subnormal } else { normal };
    let magnitude = if exponent == 0x7c00 { special } else { finite };
    f32::from_bits(magnitude | (h & 0x8000) << 16)
}

/// Rounds to bf16.
#[inline(always)]
pub(crate) fn f32_to_bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let nan = (bits >> 16) | 0x40;
    // A finite value may carry into ∞, and ∞ itself has no low bits: neither wraps.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // The upper half fits.
    (if bits & 0x7fff_ffff > 0x7f80_0000 {
        nan
    } else {
        rounded
    }) as u16
}

/// Widens bf16.
#[inline(always)]
pub(crate) fn bf16_bits_to_f32(h: u16) -> f32 {
    let quiet = if h & 0x7fff > 0x7f80 { 0x40 } else { 0 };
    f32::from_bits(u32::from(h | quiet) << 16)
}

/// Rounds f32 to the bits of f16, over the shorter length.
#[inline(always)]
pub(crate) fn f32_to_f16(x: &[f32], out: &mut [u16]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = f32_to_f16_bits(x);
    }
}

/// Widens the bits of f16 to f32, over the shorter length.
#[inline(always)]
pub(crate) fn f16_to_f32(x: &[u16], out: &mut [f32]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = f16_bits_to_f32(x);
    }
}

/// A multiply and an add on 32 independent lanes, `iterations` times.
#[inline(always)]
pub(crate) fn int8_limit(iterations: u64) -> u64 {
    let mut acc = [0i32; 32];
    let b = core::hint::black_box(3i16);
    for i in 0..iterations {
        // The factor changes, so the product cannot be taken out of the loop.
        let a = i as i16;
        for acc in &mut acc {
            *acc = acc.wrapping_add(i32::from(a) * i32::from(b)) ^ 1;
        }
    }
    core::hint::black_box(acc);
    iterations * 64
}
