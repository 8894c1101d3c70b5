//! All 2^32 floats, on every tier, when asked for:
//! `QUAVER_EXHAUSTIVE=1 cargo test --release -p qkernels --lib exhaustive`.

#![cfg(feature = "std")]

use alloc::vec;
use alloc::vec::Vec;

use qformat::{Element, QParams, QuantElement, Scheme};

use super::elementwise::check_narrowing;
use crate::{Isa, quantize};

fn asked_for() -> bool {
    std::env::var_os("QUAVER_EXHAUSTIVE").is_some_and(|v| v == "1")
}

/// Calls `f` with all floats, 65,536 at a time, on all processors.
fn all_floats(f: impl Fn(&[f32]) + Sync) {
    let next = core::sync::atomic::AtomicU32::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                let mut x = vec![0f32; 1 << 16];
                loop {
                    let high = next.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
                    if high > 0xffff {
                        return;
                    }
                    for (low, x) in x.iter_mut().enumerate() {
                        *x = f32::from_bits(high << 16 | low as u32);
                    }
                    f(&x);
                }
            });
        }
    });
}

#[test]
fn narrowing_equals_half_for_all_inputs() {
    if asked_for() {
        all_floats(|x| {
            for isa in Isa::available() {
                check_narrowing(isa, x.iter().map(|x| x.to_bits()));
            }
        });
    }
}

/// `rne(x / S)` for a target of 16 bits or fewer: what is beyond ±2^20 is so on either side of it.
/// `None` is NaN.
fn rounded(x: f32, scale: f32) -> Option<i32> {
    let q = (x / scale).round_ties_even();
    (!q.is_nan()).then(|| q.clamp(-1_048_576.0, 1_048_576.0) as i32)
}

fn check<T: QuantElement>(x: &[f32], rounded: &[Option<i32>], p: &QParams) {
    let (min, max) = (p.range().min(), p.range().max());
    let limited = |n: i32| (n + p.zero_point()).clamp(min, max);
    let expected: Vec<T> = rounded
        .iter()
        .map(|&n| T::saturate(n.map_or(min, limited)))
        .collect();
    let mut q = vec![T::default(); x.len()];
    for isa in Isa::available() {
        quantize(isa, x, p, &mut q).unwrap();
        if q != expected {
            let i = q.iter().zip(&expected).position(|(q, e)| q != e).unwrap();
            let (x, q, e) = (x[i], q[i], expected[i]);
            panic!(
                "{isa} {p:?}: {x:e} ({:#010x}) gives {q:?}, not {e:?}",
                x.to_bits()
            );
        }
    }
}

#[test]
fn quantize_equals_the_contract_for_all_inputs() {
    if !asked_for() {
        return;
    }
    let scales = [
        ("ordinary", 0.012_3),
        ("ordinary, large", 173.9),
        ("a power of two", 0.007_812_5),
        ("b = 2^23 + 1", 1.0 + f32::EPSILON),
        ("b = 2^23 + 4", 0.125 * (1.0 + 4.0 * f32::EPSILON)),
        ("b = 2^23 + 5, a product", 1.0 + 5.0 * f32::EPSILON),
        ("b = 2^24 - 1", 2.0 - f32::EPSILON),
        ("b = 2^24 - 3", 0.5 * (2.0 - 3.0 * f32::EPSILON)),
        ("b = 2^24 - 5, a product", 2.0 - 5.0 * f32::EPSILON),
        ("b = 4 mod 2^8", f32::from_bits(0x3c35_0504)),
        ("b = 5 mod 2^8, a product", f32::from_bits(0x3c35_0505)),
        ("the largest product", 1.267_650_6e30),
        ("huge", 3e38),
        ("the smallest product", 7.888_61e-31),
        ("subnormal", 1e-40),
        ("the smallest", 1e-45),
    ];
    for (what, scale) in scales {
        let start = std::time::Instant::now();
        let new =
            |zero_point, dtype, scheme| QParams::new(scale, zero_point, dtype, scheme).unwrap();
        let i8_sym = new(0, i8::DTYPE, Scheme::Symmetric);
        let u8_aff = new(101, u8::DTYPE, Scheme::Affine);
        let i16_aff = new(-20_001, i16::DTYPE, Scheme::Affine);
        let u16_aff = new(7, u16::DTYPE, Scheme::Affine);
        all_floats(|x| {
            let n: Vec<_> = x.iter().map(|&x| rounded(x, scale)).collect();
            check::<i8>(x, &n, &i8_sym);
            check::<u8>(x, &n, &u8_aff);
            check::<i16>(x, &n, &i16_aff);
            check::<u16>(x, &n, &u16_aff);
        });
        std::println!(
            "S = {scale:e} ({what}): all floats, {:.0?}",
            start.elapsed()
        );
    }
}
