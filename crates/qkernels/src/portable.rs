//! The plain forms of what tiers may override.
//!
//! Free of branches, so that the compiler vectorises them with whatever instructions the door
//! around them has.

use qformat::QuantElement;

use crate::dot::DOT_LANES;
use crate::quantize::{Divisor, Target, round_clamped};
use crate::{Lhs, Operand};

/// `Σ a[i] · b[i]` modulo 2^32, over the shorter length.
#[inline(always)]
pub(crate) fn dot<A: Lhs>(a: &[A], b: &[i8]) -> i32 {
    a.iter().zip(b).fold(0i32, |sum, (&a, &b)| {
        sum.wrapping_add(a.to_i32() * i32::from(b))
    })
}

/// `a · b + sum`, rounded once, where the product of the factors is exact in f64 and has at most 22
/// bits, as that of two f16 or bf16: without the instruction. The f64 sum is rounded twice, which
/// is innocuous: it lies closer than 2^−53 to a tie of f32 only if it is one, because neither the
/// product nor the sum has that many bits.
#[inline(always)]
pub(crate) fn fused(a: f32, b: f32, sum: f32) -> f32 {
    (f64::from(sum) + f64::from(a) * f64::from(b)) as f32
}

/// Sums in lanes, by a fused step `fused(a, b, sum)`.
#[inline(always)]
pub(crate) fn dot_lanes<F: Operand>(
    a: &[F],
    b: &[F],
    fused: impl Fn(f32, f32, f32) -> f32,
) -> [f32; DOT_LANES] {
    let mut lanes = [0f32; DOT_LANES];
    let (a_steps, a_rest) = a.as_chunks::<DOT_LANES>();
    let (b_steps, b_rest) = b.as_chunks::<DOT_LANES>();
    for (a, b) in a_steps.iter().zip(b_steps) {
        for j in 0..DOT_LANES {
            lanes[j] = fused(a[j].float(), b[j].float(), lanes[j]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = fused(a.float(), b.float(), *lane);
    }
    lanes
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

/// Quantizes by true division. The limits of the target must be those of 16 bits or fewer.
#[inline(always)]
pub(crate) fn quantize<E: QuantElement>(x: &[f32], by: &Divisor, to: &Target, out: &mut [E]) {
    let (lo, hi) = to.limits();
    for (o, &x) in out.iter_mut().zip(x) {
        *o = E::saturate(round_clamped(x / by.scale(), lo, hi) + to.zero_point());
    }
}

/// Dequantizes. Elements and zero point are below 2^16, so that the difference fits.
#[inline(always)]
pub(crate) fn dequantize<E: QuantElement>(q: &[E], scale: f32, zero_point: i32, out: &mut [f32]) {
    for (o, &q) in out.iter_mut().zip(q) {
        *o = (q.to_i32() - zero_point) as f32 * scale;
    }
}

/// Requantizes. The limits of the target must be those of 16 bits or fewer.
#[inline(always)]
pub(crate) fn requantize<E: QuantElement>(
    acc: &[i32],
    multiplier: f32,
    to: &Target,
    out: &mut [E],
) {
    let (lo, hi) = to.limits();
    for (o, &acc) in out.iter_mut().zip(acc) {
        *o = E::saturate(round_clamped(acc as f32 * multiplier, lo, hi) + to.zero_point());
    }
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

/// Rounds f32 to the bits of bf16, over the shorter length.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: &[f32], out: &mut [u16]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = f32_to_bf16_bits(x);
    }
}

/// Widens the bits of bf16 to f32, over the shorter length.
#[inline(always)]
pub(crate) fn bf16_to_f32(x: &[u16], out: &mut [f32]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = bf16_bits_to_f32(x);
    }
}

/// Independent lanes of the reductions: they hide the latency of the widest tier.
const LANES: usize = 32;

/// Calls `step(lane, value)` for every element.
#[inline(always)]
fn for_lanes(x: &[f32], mut step: impl FnMut(usize, f32)) {
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (i, &v) in block.iter().enumerate() {
            step(i, v);
        }
    }
    for (i, &v) in rest.iter().enumerate() {
        step(i, v);
    }
}

/// Lowest and highest value, or `None` when an element may not be finite.
///
/// A sum of everything notices what is not finite with one addition a value: ∞ and NaN stay in
/// it. It can also overflow on its own, which costs the caller a second look and nothing else.
#[inline(always)]
pub(crate) fn finite_range(x: &[f32]) -> Option<(f32, f32)> {
    let mut lo = [f32::INFINITY; LANES];
    let mut hi = [f32::NEG_INFINITY; LANES];
    let mut sum = [0f32; LANES];
    for_lanes(x, |i, v| {
        lo[i] = if v < lo[i] { v } else { lo[i] };
        hi[i] = if v > hi[i] { v } else { hi[i] };
        sum[i] += v;
    });
    sum.iter().all(|s| s.is_finite()).then(|| {
        (
            lo.iter().copied().fold(f32::INFINITY, f32::min),
            hi.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        )
    })
}

/// Lowest and highest of the finite values, `(∞, −∞)` without any.
#[inline(always)]
pub(crate) fn range_of_finite(x: &[f32]) -> (f32, f32) {
    let mut lo = [f32::INFINITY; LANES];
    let mut hi = [f32::NEG_INFINITY; LANES];
    for_lanes(x, |i, v| {
        let finite = v.is_finite();
        let (low, high) = if finite {
            (v, v)
        } else {
            (f32::INFINITY, f32::NEG_INFINITY)
        };
        lo[i] = if low < lo[i] { low } else { lo[i] };
        hi[i] = if high > hi[i] { high } else { hi[i] };
    });
    (
        lo.into_iter().fold(f32::INFINITY, f32::min),
        hi.into_iter().fold(f32::NEG_INFINITY, f32::max),
    )
}

/// The largest magnitude of a finite value in its bits; 0 without any.
#[inline(always)]
pub(crate) fn magnitude_of_finite(x: &[f32]) -> u32 {
    let mut most = [0u32; LANES];
    for_lanes(x, |i, v| {
        let finite = if v.is_finite() { v } else { 0.0 };
        most[i] = most[i].max(finite.to_bits() & 0x7fff_ffff);
    });
    most.into_iter().fold(0, u32::max)
}

/// The largest magnitude in its bits.
#[inline(always)]
pub(crate) fn magnitude(x: &[f32]) -> u32 {
    let mut most = [0u32; LANES];
    for_lanes(x, |i, v| most[i] = most[i].max(v.to_bits() & 0x7fff_ffff));
    most.into_iter().fold(0, u32::max)
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
