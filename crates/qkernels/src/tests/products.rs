//! The calls built on the loop nest, against [`gemm`](crate::gemm()) or plain code.

use alloc::vec;
use alloc::vec::Vec;

use half::{bf16, f16};
use proptest::prelude::*;
use qformat::{DType, QParams, Scheme};

use super::data::{Rng, cases, tiers};
use crate::{
    Arithmetic, BatchMut, BatchOut, BatchRef, Dynamic, Epilogue, Isa, KernelError, Layout, MatMut,
    MatRef, OutMut, OutParams, PackedB, PackedRef, Scale, Threads, Workspace, ZeroPoint,
    ZeroPoints, dynamic_params, gemm, gemm_batch, gemm_dynamic, gemm_i64, min_max, quantize,
};

fn signed(bytes: Vec<u8>) -> Vec<i8> {
    bytes.into_iter().map(|b| b as i8).collect()
}

proptest! {
    #![proptest_config(cases(48))]

    /// A batch gives what one call for each of its matrices gives, whatever their strides.
    #[test]
    fn a_batch_equals_single_products(
        (count, m, n, k) in (0usize..5, 0usize..20, 0usize..70, 0usize..40),
        (turn_a, turn_b, side_by_side, seed) in any::<(bool, bool, bool, u64)>(),
    ) {
        let mut rng = Rng(seed);
        let shape = |turn: bool, (r, c): (usize, usize)| if turn { (c, r) } else { (r, c) };
        let (ar, ac) = shape(turn_a, (m, k));
        let (br, bc) = shape(turn_b, (k, n));
        // One after the other with a gap, or in wide rows.
        let layout = |rows: usize, cols: usize| if side_by_side {
            (cols + 1, count.max(1) * (cols + 1))
        } else {
            (rows * cols + 3, cols)
        };
        let room = |rows: usize, cols: usize| {
            let (stride, row_stride) = layout(rows, cols);
            count * stride + rows * row_stride
        };
        let a = rng.bytes(room(ar, ac));
        let b = rng.bytes(room(br, bc));
        let (a_stride, a_rows) = layout(ar, ac);
        let (b_stride, b_rows) = layout(br, bc);
        let (c_stride, c_rows) = layout(m, n);
        let zp = ZeroPoints { a: ZeroPoint::Tensor(131), b: ZeroPoint::Tensor(7) };
        let ep = Epilogue { scale: Scale::Tensor(0.01), ..Epilogue::default() };
        let p = OutParams { zero_point: 3, min: 0, max: 255 };
        for isa in tiers() {
            for threads in [Threads::Single, Threads::Custom(&Backwards(3))] {
                let va = BatchRef::with_strides(&a, count, a_stride, ar, ac, a_rows).unwrap();
                let vb = BatchRef::with_strides(&b, count, b_stride, br, bc, b_rows).unwrap();
                let va = if turn_a { va.transposed() } else { va };
                let vb = if turn_b { vb.transposed() } else { vb };
                let mut c = vec![0x5au8; room(m, n)];
                let vc = BatchMut::with_strides(&mut c, count, c_stride, m, n, c_rows).unwrap();
                let mut ws = Workspace::new();
                let how = Arithmetic::Int8;
                gemm_batch(isa, how, va, vb, zp, &ep, BatchOut::U8(vc, p), &mut ws, threads).unwrap();
                let needed = Workspace::required_batch(isa, how, count, (m, n, k), threads).unwrap();
                prop_assert!(ws.capacity() <= needed);

                let mut expected = vec![0x5au8; c.len()];
                for i in 0..count {
                    let packed = PackedB::pack(isa, vb.get(i).unwrap(), Layout::RowMajor).unwrap();
                    let at = if m * n == 0 { 0 } else { i * c_stride };
                    let out = MatMut::with_stride(&mut expected[at..], m, n, c_rows).unwrap();
                    let a = va.get(i).unwrap();
                    gemm(a, &packed, zp, &ep, OutMut::U8(out, p), &mut ws, Threads::Single).unwrap();
                }
                prop_assert_eq!(&c, &expected, "{} {:?}", isa, threads);
            }
        }
    }

    /// Quantizing inside the call gives what doing it in steps gives.
    #[test]
    fn dynamic_products_equal_their_steps(
        (m, n, k) in (0usize..30, 0usize..80, 0usize..600),
        (gap, turn, wild, seed) in (0usize..4, any::<bool>(), any::<bool>(), any::<u64>()),
        how in prop::sample::select(vec![
            Dynamic::Tensor, Dynamic::Row, Dynamic::SymmetricTensor, Dynamic::SymmetricRow,
        ]),
        zb in prop::sample::select(vec![0, -9]),
    ) {
        let mut rng = Rng(seed);
        let (rows, cols) = if turn { (k, m) } else { (m, k) };
        let x: Vec<f32> = (0..rows * (cols + gap))
            .map(|_| match rng.below(40) {
                0 if wild => f32::NAN,
                1 if wild => f32::NEG_INFINITY,
                _ => rng.next() as i32 as f32 / 1e8,
            })
            .collect();
        let a = MatRef::with_stride(&x, rows, cols, cols + gap).unwrap();
        let a = if turn { a.transposed() } else { a };
        let b = signed(rng.bytes(k * n));
        let bias: Vec<f32> = (0..n).map(|j| j as f32 / 3.0).collect();
        let scales: Vec<f32> = (0..n).map(|j| 0.003 + j as f32 / 7e4).collect();
        let b_zero = ZeroPoint::Tensor(zb);
        for isa in tiers() {
            let packed = PackedB::pack(isa, MatRef::new(&b, k, n).unwrap(), Layout::RowMajor).unwrap();
            let ep = Epilogue {
                scale: Scale::Channel(&scales),
                bias_f32: Some(&bias),
                ..Epilogue::default()
            };
            let mut out = vec![0f32; m * n];
            let mut ws = Workspace::new();
            let c = OutMut::F32(MatMut::new(&mut out, m, n).unwrap());
            gemm_dynamic(a, &packed, b_zero, how, &ep, c, &mut ws, Threads::Single).unwrap();
            prop_assert!(
                ws.capacity() <= Workspace::required_dynamic(isa, how, m, n, k, Threads::Single)
            );

            // In steps, row by row: the range, the integers, the exact sum, one factor.
            let params = |rows: core::ops::Range<usize>| {
                let part: Vec<f32> = rows.flat_map(|i| a.elements(i)).collect();
                let found = min_max(Isa::SCALAR, &part);
                let (lo, hi) = (found.min.unwrap_or(0.0), found.max.unwrap_or(0.0));
                match how.dtype() {
                    DType::U8 => dynamic_params(lo, hi).unwrap(),
                    dtype => QParams::from_range(lo, hi, dtype, Scheme::Symmetric).unwrap(),
                }
            };
            for i in 0..m {
                let p = params(if how.per_row() { i..i + 1 } else { 0..m });
                let row: Vec<i32> = a.elements(i).map(|x| p.quantize(x) - p.zero_point()).collect();
                for j in 0..n {
                    let acc: i32 = row.iter().enumerate()
                        .map(|(kk, &q)| q * (i32::from(b[kk * n + j]) - zb))
                        .sum();
                    let expected = acc as f32 * (p.scale() * scales[j]) + bias[j];
                    prop_assert_eq!(out[i * n + j].to_bits(), expected.to_bits(), "{} {:?}", isa, how);
                }
            }
        }
    }

    /// Sums of i16 that i32 cannot hold.
    #[test]
    fn sums_in_i64_are_exact(
        (m, n, k) in (0usize..20, 0usize..70, 0usize..600),
        (extreme, seed) in any::<(bool, u64)>(),
    ) {
        let mut rng = Rng(seed);
        let mut any = |n: usize| -> Vec<i16> {
            (0..n)
                .map(|_| if extreme { i16::MIN + (rng.below(2) as i16) } else { rng.next() as i16 })
                .collect()
        };
        let (a, b) = (any(m * k), any(k * n));
        for isa in tiers() {
            let packed = PackedB::pack(isa, MatRef::new(&b, k, n).unwrap(), Layout::RowMajor).unwrap();
            for threads in [Threads::Single, Threads::Custom(&Backwards(3))] {
                let mut out = vec![7i64; m * n];
                gemm_i64(
                    MatRef::new(&a, m, k).unwrap(),
                    &packed,
                    MatMut::new(&mut out, m, n).unwrap(),
                    &mut Workspace::new(),
                    threads,
                ).unwrap();
                for i in 0..m {
                    for j in 0..n {
                        let sum: i64 = (0..k)
                            .map(|kk| i64::from(a[i * k + kk]) * i64::from(b[kk * n + j]))
                            .sum();
                        prop_assert_eq!(out[i * n + j], sum, "{}", isa);
                    }
                }
            }
        }
    }

    /// Weights written and read again give the same products; whatever is damaged is refused.
    #[test]
    fn stored_weights_lead_back_and_damage_is_refused(
        (n, k, kind, seed) in (0usize..70, 0usize..40, 0u8..5, any::<u64>()),
        (at, flip, cut) in (any::<prop::sample::Index>(), 1u8..=255, any::<prop::sample::Index>()),
    ) {
        let mut rng = Rng(seed);
        let bytes = rng.bytes(2 * k * n);
        for isa in tiers() {
            let packed = match kind {
                0 => pack::<i8>(isa, &bytes, k, n),
                1 => pack::<u8>(isa, &bytes, k, n),
                2 => pack::<i16>(isa, &bytes, k, n),
                3 => pack::<f16>(isa, &bytes, k, n),
                _ => pack::<bf16>(isa, &bytes, k, n),
            };
            let stored = packed.to_bytes();
            prop_assert_eq!(stored.len(), packed.stored_len());
            let owned = PackedB::from_bytes(&stored).unwrap();
            prop_assert_eq!(owned.to_bytes(), stored.clone());
            prop_assert_eq!((owned.k(), owned.n(), owned.dtype()), (k, n, packed.dtype()));
            // Aligned as a mapped file is.
            let mut words = vec![0u32; stored.len() / 4 + 2];
            let place: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
            place[..stored.len()].copy_from_slice(&stored);
            let view = PackedRef::from_bytes(&place[..stored.len()]).unwrap();
            prop_assert_eq!(view.col_sums, owned.as_ref().col_sums);
            place.copy_within(..stored.len(), 1);
            let moved = PackedRef::from_bytes(&place[1..=stored.len()]);
            let refused = matches!(moved, Err(KernelError::Stored { .. }));
            prop_assert!(refused, "{:?}", moved);

            let mut damaged = stored.clone();
            damaged[at.index(stored.len())] ^= flip;
            prop_assert!(PackedB::from_bytes(&damaged).is_err());
            prop_assert!(PackedB::from_bytes(&stored[..cut.index(stored.len())]).is_err());
            let mut longer = stored;
            longer.push(0);
            prop_assert!(PackedB::from_bytes(&longer).is_err());
        }
    }
}

fn pack<B: crate::Operand>(isa: Isa, bytes: &[u8], k: usize, n: usize) -> PackedB {
    let bytes = bytes[..k * n * size_of::<B>()].chunks_exact(size_of::<B>());
    let data: Vec<B> = bytes.map(bytemuck::pod_read_unaligned).collect();
    PackedB::pack(isa, MatRef::new(&data, k, n).unwrap(), Layout::RowMajor).unwrap()
}

/// The last share first, on one thread.
struct Backwards(usize);

impl crate::ParallelFor for Backwards {
    fn threads(&self) -> usize {
        self.0
    }
    fn run(&self, shares: usize, work: &(dyn Fn(usize) + Sync)) {
        for share in (0..shares).rev() {
            work(share);
        }
    }
}

#[test]
fn matrices_that_would_overlap_are_refused() {
    let mut data = [0u8; 100];
    // Side by side in rows of 12: fits. Three of them do not.
    assert!(BatchMut::with_strides(&mut data, 2, 6, 4, 6, 12).is_ok());
    assert!(matches!(
        BatchMut::with_strides(&mut data, 3, 6, 4, 6, 12),
        Err(KernelError::Overlap { count: 3, .. })
    ));
    assert!(matches!(
        BatchMut::with_strides(&mut data, 2, 5, 4, 6, 12),
        Err(KernelError::Overlap { .. })
    ));
    assert!(matches!(
        BatchRef::with_strides(&data, usize::MAX, usize::MAX, 2, 2, 2),
        Err(KernelError::TooLarge { .. })
    ));
    assert!(BatchRef::with_strides(&data, 3, 40, 4, 6, 12).is_err());
    // The same matrix again and again may be read.
    assert_eq!(
        BatchRef::with_strides(&data, 9, 0, 2, 2, 2)
            .unwrap()
            .count(),
        9
    );
}

#[test]
fn activations_without_a_scale_are_refused() {
    let isa = Isa::detect();
    let packed =
        PackedB::pack(isa, MatRef::new(&[1i8, 2], 2, 1).unwrap(), Layout::RowMajor).unwrap();
    let mut out = [5f32; 2];
    let a = [0.0, 1.0, f32::MIN, f32::MAX];
    let e = gemm_dynamic(
        MatRef::new(&a, 2, 2).unwrap(),
        &packed,
        ZeroPoint::Tensor(0),
        Dynamic::Row,
        &Epilogue::default(),
        OutMut::F32(MatMut::new(&mut out, 2, 1).unwrap()),
        &mut Workspace::new(),
        Threads::Single,
    )
    .unwrap_err();
    assert!(
        matches!(e, KernelError::DynamicRange { row: Some(1), .. }),
        "{e}"
    );
    assert_eq!(out, [5.0; 2]);
}

/// One more product than i32 can hold, for the pairs of types that `gemm_limits` does not try.
#[test]
fn every_pair_of_types_is_exact_at_its_depth_bound_and_refused_beyond() {
    fn run<A: crate::Operand, B: crate::Operand>(
        isa: Isa,
        a: A,
        b: B,
        k: usize,
    ) -> Result<i32, KernelError> {
        let (a, b) = (vec![a; k], vec![b; k]);
        let packed = PackedB::pack(isa, MatRef::new(&b, k, 1)?, Layout::RowMajor)?;
        let mut c = [0i32];
        let out = OutMut::I32(MatMut::new(&mut c, 1, 1)?);
        let (zp, ep) = (ZeroPoints::default(), Epilogue::default());
        let a = MatRef::new(&a, 1, k)?;
        gemm(
            a,
            &packed,
            zp,
            &ep,
            out,
            &mut Workspace::new(),
            Threads::Single,
        )?;
        Ok(c[0])
    }
    for isa in tiers() {
        assert_eq!(
            run(isa, i8::MIN, i8::MIN, 131_071),
            Ok(131_071 << 14),
            "{isa}"
        );
        assert!(run(isa, i8::MIN, i8::MIN, 131_072).is_err());
        assert_eq!(run(isa, 255u8, 255u8, 33_025), Ok(33_025 * 65_025), "{isa}");
        assert!(run(isa, 255u8, 255u8, 33_026).is_err());
        assert_eq!(
            run(isa, i8::MIN, 255u8, 65_793),
            Ok(-65_793 * 32_640),
            "{isa}"
        );
        assert!(run(isa, i8::MIN, 255u8, 65_794).is_err());
        // i16 by what is there.
        assert_eq!(run(isa, i16::MIN, i16::MIN, 1), Ok(1 << 30), "{isa}");
        assert!(run(isa, i16::MIN, i16::MIN, 2).is_err());
        assert_eq!(
            run(isa, 181i16, -181i16, 65_000),
            Ok(-65_000 * 32_761),
            "{isa}"
        );
    }
}

/// Products that underflow to −0 leave a sum of −0, which no padding of K may turn to +0; what
/// follows a row of A must not count.
#[test]
fn sums_of_minus_zero_keep_their_sign() {
    let tiny = bf16::from_bits(1);
    for k in 1..=9 {
        let (m, n, stride) = (7, 37, k + 1);
        let mut a = vec![bf16::NAN; m * stride];
        for row in a.chunks_mut(stride) {
            row[..k].fill(tiny);
        }
        let a = MatRef::with_stride(&a, m, k, stride).unwrap();
        let b = vec![-tiny; k * n];
        for isa in tiers() {
            for layout in [Layout::RowMajor, Layout::Transposed] {
                let (rows, cols) = match layout {
                    Layout::RowMajor => (k, n),
                    Layout::Transposed => (n, k),
                };
                let b = MatRef::new(&b, rows, cols).unwrap();
                let packed = PackedB::pack(isa, b, layout).unwrap();
                let mut out = vec![1f32; m * n];
                gemm(
                    a,
                    &packed,
                    ZeroPoints::default(),
                    &Epilogue::default(),
                    OutMut::F32(MatMut::new(&mut out, m, n).unwrap()),
                    &mut Workspace::new(),
                    Threads::Single,
                )
                .unwrap();
                let minus_zero = |v: &f32| v.to_bits() == (-0f32).to_bits();
                assert!(out.iter().all(minus_zero), "{isa} {k} {layout:?}");
            }
        }
    }
}

/// Hardware sums of bf16 are outside the contract, but near the exact ones.
#[test]
fn hardware_bf16_is_near() {
    let mut rng = Rng(5);
    let mut any = |n: usize| -> Vec<bf16> {
        (0..n)
            .map(|_| bf16::from_f32(rng.next() as i32 as f32 / 2f32.powi(31)))
            .collect()
    };
    let (m, n, k) = (7, 70, 301);
    let (a, b) = (any(m * k), any(k * n));
    for isa in tiers() {
        let run = |how: Arithmetic| {
            let b = MatRef::new(&b, k, n).unwrap();
            let packed = PackedB::pack_with(isa, b, Layout::RowMajor, how).unwrap();
            let mut out = vec![0f32; m * n];
            gemm(
                MatRef::new(&a, m, k).unwrap(),
                &packed,
                ZeroPoints::default(),
                &Epilogue::default(),
                OutMut::F32(MatMut::new(&mut out, m, n).unwrap()),
                &mut Workspace::new(),
                Threads::Single,
            )
            .unwrap();
            out
        };
        for (x, y) in run(Arithmetic::Bf16)
            .iter()
            .zip(run(Arithmetic::Bf16Hardware))
        {
            assert!((x - y).abs() < 1e-4, "{isa}: {x} {y}");
        }
    }
}

#[test]
fn quantize_is_what_a_dynamic_product_multiplies() {
    // One row, B the identity: the output is the quantized row, scaled.
    let x = [-1.5f32, 0.0, 0.3, 2.0];
    let p = dynamic_params(-1.5, 2.0).unwrap();
    let mut q = [0u8; 4];
    quantize(Isa::SCALAR, &x, &p, &mut q).unwrap();
    let identity: Vec<i8> = (0..16).map(|i| i8::from(i / 4 == i % 4)).collect();
    for isa in tiers() {
        let packed =
            PackedB::pack(isa, MatRef::new(&identity, 4, 4).unwrap(), Layout::RowMajor).unwrap();
        let mut out = [0f32; 4];
        gemm_dynamic(
            MatRef::new(&x, 1, 4).unwrap(),
            &packed,
            ZeroPoint::Tensor(0),
            Dynamic::Tensor,
            &Epilogue::default(),
            OutMut::F32(MatMut::new(&mut out, 1, 4).unwrap()),
            &mut Workspace::new(),
            Threads::Single,
        )
        .unwrap();
        for (out, q) in out.iter().zip(q) {
            assert_eq!(*out, (i32::from(q) - p.zero_point()) as f32 * p.scale());
        }
    }
}
