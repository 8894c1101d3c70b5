//! Quantization where dividing is hard: around every tie, at scales that put quotients beside the
//! points where f32 changes its mind.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use qformat::{QParams, QuantElement, Scheme};

use super::data::{Rng, cases, plain_code_too, rounds, tiers};
use crate::quantize;
use crate::quantize::{Divisor, Method};

/// A scale with the significand `2^23 ≤ b < 2^24` and the exponent `e`.
fn scale(b: u32, e: i32) -> f32 {
    f32::from_bits(((e + 127) as u32) << 23 | (b & 0x7f_ffff))
}

/// The floats around `T · S` for half-integers T, all of a byte's and many of 16 bits.
fn around_ties(scale: f32, bits: u32, rng: &mut Rng) -> Vec<f32> {
    let all = 1i64 << bits;
    let mut x = Vec::new();
    let count = match bits {
        8 => 2 * all,
        _ => rounds(2048).into(),
    };
    for i in 0..count {
        let n = match bits {
            8 => i - all,
            _ => i64::from(rng.next()) % (2 * all) - all,
        };
        let tie = ((n as f64 + 0.5) * f64::from(scale)) as f32;
        let (mut low, mut high) = (tie, tie);
        x.push(tie);
        for _ in 0..3 {
            (low, high) = (low.next_down(), high.next_up());
            x.extend([low, high]);
        }
    }
    x
}

fn check<T: QuantElement>(scale: f32, rng: &mut Rng) {
    let (lo, hi) = T::DTYPE.int_range().unwrap();
    let x = around_ties(scale, T::DTYPE.bits(), rng);
    for z in [lo, hi, lo / 2 + hi / 2, 0] {
        let p = QParams::new(scale, z, T::DTYPE, Scheme::Affine).unwrap();
        let expected: Vec<i32> = x.iter().map(|&x| p.quantize(x)).collect();
        for isa in tiers() {
            let mut q = vec![T::default(); x.len()];
            quantize(isa, &x, &p, &mut q).unwrap();
            for ((&x, &q), &expected) in x.iter().zip(&q).zip(&expected) {
                assert_eq!(q.to_i32(), expected, "{isa} {p:?} {x:e}");
            }
        }
    }
}

fn check_all(scale: f32, rng: &mut Rng) {
    check::<i8>(scale, rng);
    check::<u8>(scale, rng);
    check::<i16>(scale, rng);
    check::<u16>(scale, rng);
}

#[test]
fn the_method_follows_from_the_scale() {
    let method = |b, bits| Divisor::new(scale(b, -7), bits).method();
    for near in [(1 << 23) + 1, (1 << 24) - 1, 0xb5_0501, 0xb5_05ff] {
        assert_eq!(method(near, 8), Method::Product, "{near}");
        assert_eq!(method(near, 16), Method::Corrected, "{near}");
    }
    for far in [1 << 23, (1 << 23) + 2, (1 << 24) - 2, 0xb5_0500, 0xb5_0580] {
        assert_eq!(method(far, 16), Method::Product, "{far}");
    }
    for (scale, expected) in [
        (2f32.powi(100), Method::Product),
        (2f32.powi(100).next_up(), Method::Division),
        (2f32.powi(-100), Method::Product),
        (2f32.powi(-100).next_down(), Method::Division),
        (f32::MAX, Method::Division),
        (1e-45, Method::Division),
    ] {
        assert_eq!(Divisor::new(scale, 8).method(), expected, "{scale:e}");
    }
}

/// The inverse of an odd number modulo 2^32 (Newton's iteration doubles the bits that are right).
fn inverse_odd(b: u32) -> u32 {
    (0..5).fold(b, |x, _| {
        x.wrapping_mul(2u32.wrapping_sub(b.wrapping_mul(x)))
    })
}

/// Calls `f` with the significands, and the T for each, that the proof leaves open: those with
/// `b · (T′·2^j + σ) + c ≡ 0` modulo 2^24, `σ = ±1`, `0 < |c| ≤ 4`, `j = 24 − bits`. T is `T′/2`.
fn open_cases(bits: u32, mut f: impl FnMut(u32, i64, i64)) {
    let j = 24 - bits;
    let modulus = 1i64 << j;
    for multiple in (1i64 << 23..=1 << 24).step_by(1 << j) {
        for near in (-4..=4).filter(|&near| near != 0) {
            let b = multiple + near;
            if !(1 << 23..1 << 24).contains(&b) {
                continue;
            }
            for sigma in [1, -1] {
                let c = -sigma * near;
                // b·T′ ≡ −(c + σ·b) / 2^j modulo 2^bits.
                let right = -(c + sigma * b);
                assert_eq!(right % modulus, 0);
                let (right, twos) = (right >> j, b.trailing_zeros());
                if right % (1 << twos) != 0 {
                    continue;
                }
                let period = 1i64 << (bits - twos);
                let inverse = i64::from(inverse_odd((b >> twos) as u32));
                let first = (inverse * (right >> twos)).rem_euclid(period);
                for t in (first..2 << bits).step_by(period as usize) {
                    // Even T′ are no half-integers.
                    if t % 2 != 0 {
                        f(b as u32, c, t);
                    }
                }
            }
        }
    }
}

/// The part of the proof that is an enumeration, with the steps of the vector tiers.
#[test]
fn open_cases_are_decided_right() {
    if !plain_code_too() {
        return;
    }
    for (bits, expected_wrong) in [(8, 0), (16, 405)] {
        let (mut cases, mut wrong) = (0u32, 0);
        open_cases(bits, |b, c, t| {
            cases += 1;
            let scale = scale(b, 0);
            let divisor = Divisor::new(scale, bits);
            let (h, l) = divisor.inverse();
            let tie = (t as f64 * 0.5 * f64::from(scale)) as f32;
            for ulps in -2i32..=2 {
                let x = f32::from_bits(tie.to_bits().wrapping_add_signed(ulps));
                let expected = qformat::rne(x / scale);
                let product = x.mul_add(h, x * l);
                if qformat::rne(product) != expected {
                    wrong += 1;
                    assert_eq!(c.abs(), 1);
                    assert_eq!(divisor.method(), Method::Corrected, "{b} {x:e}");
                }
                if divisor.method() == Method::Corrected {
                    let rest = (-product).mul_add(scale, x);
                    assert_eq!(rest.mul_add(h, product), x / scale, "{b} {x:e}");
                }
            }
        });
        // Each of the 8 · 2^(bits − 1) significands meets about two T.
        assert!(cases >= 8 << (bits - 1), "{cases}");
        assert_eq!(wrong, expected_wrong);
    }
}

#[test]
fn hard_scales_are_exact() {
    let mut rng = Rng(3);
    for c in (0..=6).chain([8, 16, 128]) {
        for high in [
            1 << 23,
            (1 << 24) - (1 << 16),
            0xb5_0000,
            0xff_ff00,
            0xb5_0500,
        ] {
            for e in [-100, -9, 0, 3, 99] {
                check_all(scale(high + c, e), &mut rng);
                check_all(scale(((high | 1 << 23) - c).max(1 << 23), e), &mut rng);
            }
        }
    }
}

#[test]
fn extreme_scales_are_exact() {
    let mut rng = Rng(4);
    for scale in [
        1e-45,
        3e-42,
        1.1e-38,
        7e-31,
        8e-31,
        1.2e30,
        1.3e30,
        1e36,
        3e38,
        f32::MAX,
    ] {
        check_all(scale, &mut rng);
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn any_scale_is_exact(seed in any::<u64>(), b in 0u32..1 << 23, e in -110i32..110) {
        check_all(scale(1 << 23 | b, e), &mut Rng(seed));
    }
}
