//! Elementwise operations, reductions and dot products against `qformat`, `half` and plain sums,
//! on every tier.

use alloc::vec;
use alloc::vec::Vec;

use half::{bf16, f16};
use proptest::prelude::*;
use qformat::{DType, QParams, QuantElement, Scheme};

use super::data::{Rng, cases, rounds, tiers};
use crate::{Isa, KernelError, Lhs, convert, dequantize, dot, quantize, requantize};

/// Lengths around the vectors of every tier, their blocks (64, 128) and the lengths from which
/// blocks are aligned (256, 512): each one less and one more; 1000 is none of them.
pub(crate) const LENGTHS: [usize; 22] = [
    0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 255, 256, 257, 511, 512, 513, 1000,
];

/// Floats of all kinds: any bits, halves that are ties, small and large, special.
pub(crate) fn any_float(rng: &mut Rng) -> f32 {
    const SPECIAL: [f32; 10] = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
        -1e-45,
        f32::MAX,
        f32::MIN,
        8_388_609.0,
    ];
    match rng.below(4) {
        0 => f32::from_bits(rng.next()),
        1 => (rng.below(1200) as f32 - 600.0) / 2.0,
        2 => (rng.next() as i32 as f32) / 1e7,
        _ => SPECIAL[rng.below(10) as usize],
    }
}

pub(crate) fn floats(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = Rng(seed);
    (0..n).map(|_| any_float(&mut rng)).collect()
}

fn check_quantize<T: QuantElement>(seed: u64, scale: f32) {
    for scheme in [Scheme::Affine, Scheme::Symmetric] {
        let (lo, hi) = T::DTYPE.int_range().unwrap();
        for z in [lo, lo / 2 + hi / 2, hi, 0] {
            let Ok(p) = QParams::new(scale, z, T::DTYPE, scheme) else {
                continue;
            };
            for n in LENGTHS {
                let x = floats(seed ^ n as u64, n);
                for isa in tiers() {
                    let mut q = vec![T::default(); n];
                    quantize(isa, &x, &p, &mut q).unwrap();
                    for (&x, &q) in x.iter().zip(&q) {
                        assert_eq!(q.to_i32(), p.quantize(x), "{isa} {p:?} {x}");
                    }
                    let mut y = vec![0f32; n];
                    dequantize(isa, &q, &p, &mut y).unwrap();
                    for (&q, &y) in q.iter().zip(&y) {
                        assert_eq!(
                            y.to_bits(),
                            p.dequantize(q.to_i32()).to_bits(),
                            "{isa} {p:?} {q:?}"
                        );
                    }
                    let mut acc: Vec<i32> = x.iter().map(|v| v.to_bits() as i32).collect();
                    for (acc, end) in acc.iter_mut().zip([i32::MAX, i32::MIN]) {
                        *acc = end;
                    }
                    for m in [scale * 1e-3, -1.5 * scale, 1e-9, 0.5, 0.999_999, f32::NAN] {
                        requantize(isa, &acc, m, &p, &mut q).unwrap();
                        for (&acc, &q) in acc.iter().zip(&q) {
                            let expected = qformat::requantize(acc, m, z, p.range());
                            assert_eq!(q.to_i32(), expected, "{isa} {p:?} {acc} {m}");
                        }
                    }
                }
            }
        }
    }
}

fn check_dot<A: Lhs>(seed: u64, from_byte: fn(u8) -> A) {
    let mut rng = Rng(seed);
    for n in LENGTHS {
        let a: Vec<A> = rng.bytes(n).into_iter().map(from_byte).collect();
        let b: Vec<i8> = rng.bytes(n).into_iter().map(|b| b as i8).collect();
        let expected: i32 = a
            .iter()
            .zip(&b)
            .map(|(a, &b)| a.to_i32() * i32::from(b))
            .sum();
        for isa in tiers() {
            assert_eq!(dot(isa, &a, &b), Ok(expected), "{isa} {n}");
        }
    }
}

pub(crate) fn check_narrowing(isa: Isa, bits: impl Iterator<Item = u32>) {
    let x: Vec<f32> = bits.map(f32::from_bits).collect();
    let mut h = vec![f16::ZERO; x.len()];
    let mut b = vec![bf16::ZERO; x.len()];
    convert::f32_to_f16(isa, &x, &mut h).unwrap();
    convert::f32_to_bf16(isa, &x, &mut b).unwrap();
    for ((x, h), b) in x.iter().zip(&h).zip(&b) {
        let bits = x.to_bits();
        assert_eq!(
            h.to_bits(),
            f16::from_f32_const(*x).to_bits(),
            "{isa} f16 {bits:#010x}"
        );
        assert_eq!(
            b.to_bits(),
            bf16::from_f32(*x).to_bits(),
            "{isa} bf16 {bits:#010x}"
        );
    }
}

/// For every sign and exponent: significands around every place where rounding to 10 or 7 bits,
/// or to a subnormal's fewer, changes its mind.
fn edges() -> impl Iterator<Item = u32> {
    (0..512u32).flat_map(|top| {
        (0..24u32).flat_map(move |bit| {
            let at = (1u32 << bit) & 0x7f_ffff;
            [0, at, at | at >> 1, 0x7f_ffff ^ at]
                .into_iter()
                .flat_map(move |m| {
                    [m.wrapping_sub(1), m, m + 1].map(|m| top << 23 | (m & 0x7f_ffff))
                })
        })
    })
}

#[test]
fn widening_equals_half_for_all_inputs() {
    let bits: Vec<u16> = (0..=u16::MAX).collect();
    for isa in tiers() {
        let mut y = vec![0f32; bits.len()];
        let h: Vec<f16> = bits.iter().map(|&b| f16::from_bits(b)).collect();
        convert::f16_to_f32(isa, &h, &mut y).unwrap();
        for (h, y) in h.iter().zip(&y) {
            assert_eq!(
                y.to_bits(),
                h.to_f32_const().to_bits(),
                "{isa} f16 {:#06x}",
                h.to_bits()
            );
        }
        let b: Vec<bf16> = bits.iter().map(|&b| bf16::from_bits(b)).collect();
        convert::bf16_to_f32(isa, &b, &mut y).unwrap();
        for (b, y) in b.iter().zip(&y) {
            assert_eq!(
                y.to_bits(),
                b.to_f32().to_bits(),
                "{isa} bf16 {:#06x}",
                b.to_bits()
            );
        }
    }
}

#[test]
fn narrowing_equals_half_at_all_edges_and_a_sample() {
    let mut rng = Rng(1);
    for isa in tiers() {
        check_narrowing(isa, edges());
        check_narrowing(isa, (0..rounds(1_000_000)).map(|_| rng.next()));
    }
}

#[test]
fn lengths_and_types_must_fit() {
    let p = QParams::new(1.0, 0, DType::I8, Scheme::Affine).unwrap();
    for isa in tiers() {
        assert!(matches!(
            quantize(isa, &[0.0; 3], &p, &mut [0i8; 2]),
            Err(KernelError::Length {
                what: "out",
                given: 2,
                expected: 3
            })
        ));
        assert!(matches!(
            quantize(isa, &[0.0; 2], &p, &mut [0u8; 2]),
            Err(KernelError::Type {
                given: DType::I8,
                expected: DType::U8
            })
        ));
        assert!(dequantize(isa, &[0i8; 3], &p, &mut [0.0; 2]).is_err());
        assert!(requantize(isa, &[0; 3], 1.0, &p, &mut [0i8; 2]).is_err());
        assert!(convert::f32_to_f16(isa, &[0.0; 3], &mut []).is_err());
        assert!(dot::<u8, i8>(isa, &[1], &[]).is_err());
        assert!(matches!(
            dot(isa, &vec![0u8; 65_794], &vec![0i8; 65_794]),
            Err(KernelError::Depth { max: 65_793, .. })
        ));
    }
}

#[test]
fn dots_are_exact_at_the_bound() {
    for isa in tiers() {
        let (a, b) = (vec![255u8; 65_793], vec![-128i8; 65_793]);
        assert_eq!(dot(isa, &a, &b), Ok(-255 * 128 * 65_793));
        let (a, b) = (vec![-128i8; 131_071], vec![-128i8; 131_071]);
        assert_eq!(dot(isa, &a, &b), Ok(128 * 128 * 131_071));
    }
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn quantize_and_back_equal_the_reference(seed in any::<u64>(), log in -20i32..20) {
        let scale = 2f32.powi(log) * (1.0 + (seed % 1000) as f32 / 1000.0);
        check_quantize::<i8>(seed, scale);
        check_quantize::<u8>(seed, scale);
        check_quantize::<i16>(seed, scale);
        check_quantize::<u16>(seed, scale);
        check_quantize::<i32>(seed, scale);
    }

    #[test]
    fn dots_equal_a_plain_sum(seed in any::<u64>()) {
        check_dot::<u8>(seed, |b| b);
        check_dot::<i8>(seed, |b| b as i8);
    }
}

/// Whether the processor multiplies two f32 into f64: qemu 7.2 does not as s390x (`mdebr`), and
/// the sums that are compared are made of such products there.
fn widening_products_are_right() -> bool {
    let [x, y] = std::hint::black_box([1.0f32, 1.5]).map(f64::from);
    x * y == 1.5
}

proptest! {
    #![proptest_config(cases(64))]

    /// All pairs of bytes, and i16 in i64.
    #[test]
    fn dots_of_every_pair_equal_plain_sums(n in 0usize..2000, seed in any::<u64>()) {
        let mut rng = Rng(seed);
        let (a, b) = (rng.bytes(n), rng.bytes(n));
        let signed = |x: &[u8]| -> Vec<i8> { x.iter().map(|&v| v as i8).collect() };
        fn sum<A: Lhs, B: Lhs>(a: &[A], b: &[B]) -> i32 {
            a.iter().zip(b).map(|(a, b)| a.to_i32() * b.to_i32()).sum()
        }
        let (sa, sb) = (signed(&a), signed(&b));
        let wide = |x: &[u8]| -> Vec<i16> { x.iter().map(|&v| (i32::from(v) * 257 - 32_768) as i16).collect() };
        let (wa, wb) = (wide(&a), wide(&b));
        let long: i64 = wa.iter().zip(&wb).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
        for isa in tiers() {
            prop_assert_eq!(dot(isa, &a, &b), Ok(sum(&a, &b)));
            prop_assert_eq!(dot(isa, &sa, &b), Ok(sum(&sa, &b)));
            prop_assert_eq!(dot(isa, &a, &sb), Ok(sum(&a, &sb)));
            prop_assert_eq!(dot(isa, &sa, &sb), Ok(sum(&sa, &sb)));
            prop_assert_eq!(crate::dot_i64(isa, &wa, &wb), Ok(long));
        }
    }

    /// Floats of any bits, in the lanes and the tree of the contract.
    #[test]
    fn dots_of_floats_have_one_order(n in 0usize..700, wild in any::<bool>(), seed in any::<u64>()) {
        if !widening_products_are_right() {
            std::println!("dots of floats: NOT TESTED, the emulator multiplies f32 into f64 wrongly");
            return Ok(());
        }
        fn check<F: crate::HalfFloat>(a: &[F], b: &[F]) {
            let mut lanes = [0f32; 64];
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                lanes[i % 64] = a.float().mul_add(b.float(), lanes[i % 64]);
            }
            for half in [32, 16, 8, 4, 2, 1] {
                for j in 0..half {
                    lanes[j] += lanes[j + half];
                }
            }
            let expected = if lanes[0].is_nan() { f32::NAN } else { lanes[0] };
            for isa in tiers() {
                let found = crate::dot_f32(isa, a, b).unwrap();
                assert_eq!(found.to_bits(), expected.to_bits(), "{isa} {}", a.len());
            }
        }
        let mut rng = Rng(seed);
        let mut any = || -> Vec<f32> {
            (0..n)
                .map(|_| match rng.below(8) {
                    0 if wild => f32::from_bits(rng.next()),
                    1 => f32::from_bits(rng.next() & 0x80ff_ffff | 0x1b00_0000),
                    _ => rng.next() as i32 as f32 / 2f32.powi(30),
                })
                .collect()
        };
        let (a, b) = (any(), any());
        let bf = |x: &[f32]| -> Vec<half::bf16> { x.iter().map(|&v| half::bf16::from_f32(v)).collect() };
        let hf = |x: &[f32]| -> Vec<half::f16> { x.iter().map(|&v| half::f16::from_f32(v)).collect() };
        check(&bf(&a), &bf(&b));
        check(&hf(&a), &hf(&b));
    }
}
