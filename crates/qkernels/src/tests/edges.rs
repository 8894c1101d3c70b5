//! Shapes and strides that hold little or nothing, and claim much.

use alloc::string::ToString;

use half::f16;

use super::data::tiers;
use crate::stored::checksum;
use crate::{
    Arithmetic, BatchMut, BatchOut, BatchRef, ConvShape, Dynamic, Epilogue, FilterLayout, Image,
    Isa, KernelError, Layout, MatMut, MatRef, OutMut, PackedB, PackedConv, PackedDepthwise,
    ParallelFor, Threads, Workspace, ZeroPoint, ZeroPoints, conv2d, gemm, gemm_batch, gemm_dynamic,
};

/// Eight threads, of which one does it all.
struct Eight;

impl ParallelFor for Eight {
    fn threads(&self) -> usize {
        8
    }
    fn run(&self, shares: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..shares).for_each(work);
    }
}

#[test]
fn depthwise_weights_are_read_by_their_strides() {
    for isa in tiers() {
        let pack = |m, layout| PackedDepthwise::pack(isa, [1, 3], m, layout).unwrap();
        // Two channels of three taps; in the second form rows are one element too long.
        let dense = MatRef::new(&[1i8, 2, 3, 4, 5, 6], 2, 3).unwrap();
        let gaps = [1i8, 2, 3, 99, 4, 5, 6];
        let apart = MatRef::with_stride(&gaps, 2, 3, 4).unwrap();
        for m in [dense, apart] {
            assert_eq!(pack(m, Layout::Transposed).sums(), [6, 15], "{isa}");
            assert_eq!(
                pack(m.transposed(), Layout::RowMajor).sums(),
                [6, 15],
                "{isa}"
            );
        }
    }
}

#[test]
fn a_single_plane_may_have_any_stride() {
    let x = [1u8, 2, 3, 4];
    let shape = ConvShape::new([1, 2, 2], [2, 2]);
    for isa in tiers() {
        let weights = PackedConv::pack(isa, &[1i8; 4], [1, 1, 2, 2], FilterLayout::Oihw, 1);
        let weights = weights.unwrap();
        for (stride, zero) in [(0, 0), (0, 1), (4, 1), (usize::MAX, 1)] {
            let zp = ZeroPoints {
                b: ZeroPoint::Tensor(zero),
                ..ZeroPoints::default()
            };
            let mut out = [0i32];
            conv2d(
                Image::ChannelsFirst(MatRef::with_stride(&x, 1, 4, stride).unwrap()),
                &shape,
                &weights,
                zp,
                &Epilogue::default(),
                OutMut::I32(MatMut::with_stride(&mut out, 1, 1, usize::MAX / 2).unwrap()),
                &mut Workspace::new(),
                Threads::Single,
            )
            .unwrap();
            assert_eq!(out, [10 * (1 - zero)], "{isa}, stride {stride}");
        }
    }
}

#[test]
fn a_single_row_may_have_any_stride() {
    for isa in tiers() {
        let b = MatRef::new(&[7i16, 2], 1, 2).unwrap();
        let b = PackedB::pack(isa, b, Layout::RowMajor).unwrap();
        let mut out = [0i32; 2];
        gemm(
            MatRef::with_stride(&[3i16], 1, 1, usize::MAX).unwrap(),
            &b,
            ZeroPoints::default(),
            &Epilogue::default(),
            OutMut::I32(MatMut::with_stride(&mut out, 1, 2, usize::MAX / 2).unwrap()),
            &mut Workspace::new(),
            Threads::Single,
        )
        .unwrap();
        assert_eq!(out, [21, 6], "{isa}");
    }
}

/// What is copied is asked for ahead, wherever the stride says that the next row would be.
#[test]
fn a_single_row_that_is_copied_may_have_any_stride() {
    const K: usize = 100;
    const N: usize = 70;
    fn check<A: crate::Operand, B: crate::Operand>(isa: Isa, (a, b): (A, B), out: OutMut<'_>) {
        let b = [b; K * N];
        let b = PackedB::pack(isa, MatRef::new(&b, K, N).unwrap(), Layout::RowMajor).unwrap();
        let a = [a; K];
        let a = MatRef::with_stride(&a, 1, K, usize::MAX).unwrap();
        let (zp, ep, mut ws) = (ZeroPoints::default(), Epilogue::default(), Workspace::new());
        gemm(a, &b, zp, &ep, out, &mut ws, Threads::Single).unwrap();
    }
    for isa in tiers() {
        let (mut sums, mut floats) = ([0i32; N], [0f32; N]);
        let out = OutMut::I32(MatMut::new(&mut sums, 1, N).unwrap());
        check(isa, (3i8, -2i8), out);
        assert_eq!(sums, [-600; N], "{isa}");
        let out = OutMut::F32(MatMut::new(&mut floats, 1, N).unwrap());
        check(isa, (f16::from_f32(3.0), f16::from_f32(0.5)), out);
        assert_eq!(floats, [150.0; N], "{isa}");

        let b = [1i8; K * N];
        let b = PackedB::pack(isa, MatRef::new(&b, K, N).unwrap(), Layout::RowMajor).unwrap();
        let x = [0.5f32; K];
        for how in [Dynamic::Tensor, Dynamic::Row] {
            gemm_dynamic(
                MatRef::with_stride(&x, 1, K, usize::MAX).unwrap(),
                &b,
                ZeroPoint::Tensor(0),
                how,
                &Epilogue::default(),
                OutMut::F32(MatMut::new(&mut floats, 1, N).unwrap()),
                &mut Workspace::new(),
                Threads::Single,
            )
            .unwrap();
            assert!(
                floats.iter().all(|v| (v - 50.0).abs() < 1e-3),
                "{isa} {how:?}"
            );
        }
    }
}

#[test]
fn what_an_absurd_depth_requires_is_said() {
    for isa in tiers() {
        for arithmetic in [Arithmetic::Int8, Arithmetic::Bf16, Arithmetic::F16] {
            let required =
                Workspace::required_for(isa, arithmetic, 64, 64, usize::MAX, Threads::Single);
            assert!(
                required > usize::MAX / 128,
                "{isa} {arithmetic:?}: {required}"
            );
        }
    }
}

/// Runs a batch of products of i8 without an element.
fn batch(isa: Isa, count: usize, shapes: [(usize, usize); 3]) -> Result<(), KernelError> {
    let [a, b, out] = shapes;
    gemm_batch(
        isa,
        Arithmetic::Int8,
        BatchRef::<i8>::new(&[], count, a.0, a.1)?,
        BatchRef::<i8>::new(&[], count, b.0, b.1)?,
        ZeroPoints::default(),
        &Epilogue::default(),
        BatchOut::I32(BatchMut::new(&mut [], count, out.0, out.1)?),
        &mut Workspace::new(),
        Threads::Single,
    )
}

#[test]
fn a_batch_of_nothing_is_done_at_once() {
    for isa in tiers() {
        batch(isa, 0, [(4, 3), (3, 5), (4, 5)]).unwrap();
        let e = batch(isa, 0, [(4, 3), (3, 5), (4, 6)]).unwrap_err();
        assert!(matches!(e, KernelError::Shape { what: "out", .. }), "{e}");
        let none = |rows, cols| BatchRef::<i16>::with_strides(&[], usize::MAX, 0, rows, cols, 0);
        gemm_batch(
            isa,
            Arithmetic::Int16,
            none(0, 3).unwrap(),
            none(3, 0).unwrap(),
            ZeroPoints::default(),
            &Epilogue::default(),
            BatchOut::I32(BatchMut::with_strides(&mut [], usize::MAX, 0, 0, 0, 0).unwrap()),
            &mut Workspace::new(),
            Threads::Single,
        )
        .unwrap();
    }
}

#[test]
fn what_is_claimed_takes_no_memory() {
    for isa in tiers() {
        // K without an element.
        const DEEP: usize = 1 << 40;
        let b = MatRef::<f16>::with_stride(&[], DEEP, 0, 0).unwrap();
        let b = PackedB::pack(isa, b, Layout::RowMajor).unwrap();
        let mut ws = Workspace::new();
        gemm(
            MatRef::<f16>::with_stride(&[], 0, DEEP, DEEP).unwrap(),
            &b,
            ZeroPoints::default(),
            &Epilogue::default(),
            OutMut::F32(MatMut::new(&mut [], 0, 0).unwrap()),
            &mut ws,
            Threads::Single,
        )
        .unwrap();
        assert_eq!(ws.capacity(), 0, "{isa}");

        let b = MatRef::<i8>::with_stride(&[], 1 << 16, 0, 0).unwrap();
        let b = PackedB::pack(isa, b, Layout::RowMajor).unwrap();
        let e = gemm_dynamic(
            MatRef::new(&[1f32], 1, 1).unwrap(),
            &b,
            ZeroPoint::Tensor(0),
            Dynamic::Tensor,
            &Epilogue::default(),
            OutMut::F32(MatMut::new(&mut [], 1, 0).unwrap()),
            &mut ws,
            Threads::Single,
        )
        .unwrap_err();
        assert!(matches!(e, KernelError::Shape { what: "a", .. }), "{e}");
        assert_eq!(ws.capacity(), 0, "{isa}");

        let groups = 1 << 22;
        let e = PackedConv::pack(isa, &[], [groups, 0, 1, 1], FilterLayout::Oihw, groups);
        let e = e.map(|_| ()).unwrap_err();
        assert!(matches!(e, KernelError::Groups { .. }), "{e}");

        let threads = Threads::Custom(&Eight);
        let most = Workspace::required(isa, 1 << 62, 1 << 10, 1, threads);
        assert!(most > 0, "{isa}");
        let shape = ConvShape::new([usize::MAX, 1, 1], [1, 1]);
        Workspace::required_depthwise(isa, &shape, 16, threads).unwrap();
        assert_eq!(Workspace::with_capacity(usize::MAX).capacity(), 0);
    }
}

#[test]
fn stored_i16_cannot_claim_to_be_small() {
    for isa in tiers() {
        let b = [i16::MIN; 3];
        let b = PackedB::pack(isa, MatRef::new(&b, 3, 1).unwrap(), Layout::RowMajor).unwrap();
        let bytes = b.to_bytes();
        let again = PackedB::from_bytes(&bytes).unwrap();
        assert_eq!(again.to_bytes(), bytes);
        // The bound is at byte 52, the checksum at 88.
        let mut forged = bytes;
        forged[52..56].copy_from_slice(&1u32.to_ne_bytes());
        let sum = checksum(&forged);
        forged[88..92].copy_from_slice(&sum.to_ne_bytes());
        let e = PackedB::from_bytes(&forged).map(|_| ()).unwrap_err();
        let text = e.to_string();
        assert!(text.contains("largest magnitude"), "{isa}: {text}");
    }
}

/// Rows that do not exist may lie anywhere, also where K is cut and sums go on from the output.
#[test]
fn one_row_of_floats_may_have_any_stride() {
    for isa in tiers() {
        for (k, n) in [(1025, 64), (4097, 64), (8200, 16)] {
            let (a, b) = (alloc::vec![f16::ONE; k], alloc::vec![f16::ONE; k * n]);
            let b = MatRef::new(&b, k, n).unwrap();
            let packed = PackedB::pack_with(isa, b, Layout::RowMajor, Arithmetic::F16).unwrap();
            for stride in [0, n, n + 1] {
                let mut out = alloc::vec![0.0; n];
                gemm(
                    MatRef::new(&a, 1, k).unwrap(),
                    &packed,
                    ZeroPoints::default(),
                    &Epilogue::default(),
                    OutMut::F32(MatMut::with_stride(&mut out, 1, n, stride).unwrap()),
                    &mut Workspace::new(),
                    Threads::Single,
                )
                .unwrap();
                assert!(out.iter().all(|&sum| sum == k as f32), "{isa} {k} {stride}");
            }
        }
    }
}
