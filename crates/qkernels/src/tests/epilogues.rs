//! What becomes of sums at the ends of what i32 and f32 hold.

use alloc::vec;
use alloc::vec::Vec;

use half::{bf16, f16};

use super::data::{Rng, tiers};
use crate::{
    Epilogue, Isa, Layout, MatMut, MatRef, Operand, OutMut, OutParams, PackedB, Scale, Threads,
    Workspace, ZeroPoint, ZeroPoints, gemm,
};

/// Rows of two tiles of six and of a rest; a full panel, and a narrow one.
const M: usize = 16;
const N: usize = 64 + 37;

fn packed<B: Operand>(isa: Isa, b: &[B], k: usize) -> PackedB {
    PackedB::pack(isa, MatRef::new(b, k, N).unwrap(), Layout::RowMajor).unwrap()
}

/// Sums from nearly −2^31 to 2^31, in every step to bytes.
#[test]
fn bytes_of_extreme_sums_equal_scalar_code() {
    const K: usize = 64;
    // The most that leaves room for any sum.
    const MOST: i32 = i32::MAX - K as i32 * 255 * 128;
    let mut rng = Rng(3);
    let mut a = vec![255u8; M * K];
    for row in a.chunks_exact_mut(K).step_by(3) {
        row.fill_with(|| rng.next() as u8);
    }
    let mut b = vec![0i8; K * N];
    for row in b.chunks_exact_mut(N) {
        for (j, b) in row.iter_mut().enumerate() {
            *b = [127, -128, 1, -1, (rng.next() >> 7) as i8][j % 5];
        }
    }
    let scales = [
        1e-7,
        -1e-7,
        3e-5,
        0.5,
        -0.5,
        0.500_01,
        1.0,
        3e9,
        -3e9,
        0.0,
        f32::INFINITY,
        f32::NAN,
    ];
    // As the tensor's, and of columns beside each other.
    let channels: Vec<f32> = (0..N).map(|j| scales[j % 5]).collect();
    let all: Vec<f32> = (0..N).map(|j| scales[j % scales.len()]).collect();
    let scales = scales.iter().map(|&s| Scale::Tensor(s));
    let scales: Vec<_> = scales
        .chain([Scale::Channel(&channels), Scale::Channel(&all)])
        .collect();
    let start: Vec<i32> = (0..N).map(|j| [0, MOST, -MOST][j % 3]).collect();
    let bias: Vec<f32> = (0..N).map(|j| j as f32 * 1e6 - 3e7).collect();
    let params = |zero_point, min, max| OutParams {
        zero_point,
        min,
        max,
    };
    let unsigned = [
        params(0, 0, 255),
        params(255, 0, 255),
        params(7, 7, 250),
        params(100, 3, 3),
    ];
    let signed = [
        params(0, -128, 127),
        params(-128, -127, 127),
        params(127, 5, 100),
        params(-3, -3, 127),
        params(-100, 5, 120),
    ];
    let run = |b: &PackedB, scale, bias, p: OutParams, is_signed| -> Vec<u8> {
        let epilogue = Epilogue {
            scale,
            bias: Some(&start),
            bias_f32: bias,
            ..Epilogue::default()
        };
        let mut out = vec![0u8; M * N];
        let to = if is_signed {
            let out = bytemuck::cast_slice_mut(&mut out);
            OutMut::I8(MatMut::new(out, M, N).unwrap(), p)
        } else {
            OutMut::U8(MatMut::new(&mut out, M, N).unwrap(), p)
        };
        let a = MatRef::new(&a, M, K).unwrap();
        let (zp, mut ws) = (ZeroPoints::default(), Workspace::new());
        gemm(a, b, zp, &epilogue, to, &mut ws, Threads::Single).unwrap();
        out
    };
    let cases = || {
        let params = unsigned.iter().map(|p| (*p, false));
        let params = params.chain(signed.iter().map(|p| (*p, true)));
        let scales = scales.iter().copied();
        scales.flat_map(move |s| params.clone().map(move |p| (s, p)))
    };
    let all = |isa| -> Vec<Vec<u8>> {
        let b = packed(isa, &b, K);
        let plain = cases().map(|(s, (p, signed))| run(&b, s, None, p, signed));
        let biased = cases().map(|(s, (p, signed))| run(&b, s, Some(&bias[..]), p, signed));
        plain.chain(biased).collect()
    };
    let sums: Vec<i32> = (0..M * N)
        .map(|at| {
            let (i, j) = (at / N, at % N);
            let products = (0..K).map(|k| i32::from(a[i * K + k]) * i32::from(b[k * N + j]));
            start[j] + products.sum::<i32>()
        })
        .collect();
    assert!(sums.iter().any(|&s| s > 2_100_000_000) && sums.iter().any(|&s| s < -2_100_000_000));
    let expected = |scale: Scale<'_>, bias: Option<&[f32]>, p: OutParams| -> Vec<u8> {
        let one = |(at, &sum): (usize, &i32)| {
            let j = at % N;
            let factor = match scale {
                Scale::Tensor(s) => s,
                Scale::Channel(s) => s[j],
                Scale::None => 1.0,
            };
            let v = sum as f32 * factor + bias.map_or(0.0, |b| b[j]);
            let (lo, hi) = ((p.min - p.zero_point) as f32, (p.max - p.zero_point) as f32);
            let v = if v > lo { v } else { lo };
            (v.min(hi).round_ties_even() as i32 + p.zero_point) as u8
        };
        sums.iter().enumerate().map(one).collect()
    };
    let plain = cases().map(|(s, (p, _))| expected(s, None, p));
    let biased = cases().map(|(s, (p, _))| expected(s, Some(&bias), p));
    let expected: Vec<Vec<u8>> = plain.chain(biased).collect();
    for isa in tiers() {
        for (i, (out, expected)) in all(isa).iter().zip(&expected).enumerate() {
            for (at, (out, expected)) in out.iter().zip(expected).enumerate() {
                assert_eq!(
                    out, expected,
                    "{isa}: case {i}, element {at} of sum {}",
                    sums[at]
                );
            }
        }
    }
}

/// Zero points of rows from one end to the other, and beyond bytes, times sums of columns that pairs of
/// i16 just hold, and no longer do.
#[test]
fn zero_points_of_rows_meet_any_sums_of_columns() {
    let zeros: Vec<i32> = (0..M as i32)
        .map(|i| [0, 255, 1, 128, 254][i as usize % 5])
        .collect();
    for k in [40, 33_024, 33_025, 33_300] {
        let mut rng = Rng(k as u64);
        let a: Vec<u8> = (0..M * k).map(|_| rng.next() as u8).collect();
        let b: Vec<i8> = (0..k * N)
            .map(|at| [127, -127, (rng.next() >> 3) as i8, -128][at % N % 4])
            .collect();
        let mut sums = vec![0i64; M * N];
        for (i, row) in a.chunks_exact(k).enumerate() {
            let of_row = &mut sums[i * N..][..N];
            for (&a, b) in row.iter().zip(b.chunks_exact(N)) {
                let a = i64::from(a) - i64::from(zeros[i]);
                for (sum, &b) in of_row.iter_mut().zip(b) {
                    *sum += a * i64::from(b);
                }
            }
        }
        for isa in tiers() {
            let mut out = vec![0i32; M * N];
            let zp = ZeroPoints {
                a: ZeroPoint::Vector(&zeros),
                ..ZeroPoints::default()
            };
            gemm(
                MatRef::new(&a, M, k).unwrap(),
                &packed(isa, &b, k),
                zp,
                &Epilogue::default(),
                OutMut::I32(MatMut::new(&mut out, M, N).unwrap()),
                &mut Workspace::new(),
                Threads::Single,
            )
            .unwrap();
            let same = out
                .iter()
                .zip(&sums)
                .all(|(&out, &sum)| i64::from(out) == sum);
            assert!(same, "{isa} k = {k}");
        }
    }
}

/// Whatever NaN goes in, one comes out; infinities stay.
#[test]
fn one_nan_comes_out_of_floats() {
    fn check<T: Operand>(of: impl Fn(u16) -> T, infinity: u16) {
        const K: usize = 40;
        let mut a = vec![of(0); M * K];
        // A signalling NaN, a negative one, both infinities; one infinity minus the other.
        a[2] = of(infinity + 1);
        a[K + 3] = of(0xffff);
        a[2 * K] = of(infinity);
        a[3 * K] = of(infinity | 0x8000);
        (a[4 * K], a[4 * K + 1]) = (of(infinity), of(infinity | 0x8000));
        let one = of(if infinity == 0x7c00 { 0x3c00 } else { 0x3f80 });
        let b = vec![one; K * N];
        for isa in tiers() {
            let mut out = vec![1f32; M * N];
            let (zp, ep, mut ws) = (ZeroPoints::default(), Epilogue::default(), Workspace::new());
            let c = OutMut::F32(MatMut::new(&mut out, M, N).unwrap());
            let a = MatRef::new(&a, M, K).unwrap();
            gemm(a, &packed(isa, &b, K), zp, &ep, c, &mut ws, Threads::Single).unwrap();
            for (i, row) in out.chunks_exact(N).enumerate() {
                let expected = match i {
                    0 | 1 | 4 => f32::NAN,
                    2 => f32::INFINITY,
                    3 => f32::NEG_INFINITY,
                    _ => 0.0,
                };
                let same = row.iter().all(|v| v.to_bits() == expected.to_bits());
                assert!(same, "{isa} row {i}: {row:?}");
            }
        }
    }
    check(f16::from_bits, 0x7c00);
    check(bf16::from_bits, 0x7f80);
}
