//! Products at the edge of what is allowed, and beyond it.

use alloc::vec;

use super::data::tiers;
use super::fakes::Fake;
use crate::{
    Epilogue, Isa, KernelError, Layout, MatMut, MatRef, OutMut, OutParams, PackedB, Scale, Threads,
    Workspace, ZeroPoint, ZeroPoints,
};

#[test]
fn sums_are_exact_at_the_depth_bound_and_refused_beyond() {
    for isa in tiers() {
        let run = |k: usize| {
            let (a, b) = (vec![255u8; k], vec![-128i8; k]);
            let packed = PackedB::pack(isa, MatRef::new(&b, k, 1)?, Layout::RowMajor)?;
            let mut c = [0i32];
            let out = OutMut::I32(MatMut::new(&mut c, 1, 1)?);
            let (zp, ep) = (ZeroPoints::default(), Epilogue::default());
            let a = MatRef::new(&a, 1, k)?;
            crate::gemm(
                a,
                &packed,
                zp,
                &ep,
                out,
                &mut Workspace::new(),
                Threads::Single,
            )?;
            Ok(c[0])
        };
        assert_eq!(run(65_793), Ok(-255 * 128 * 65_793), "{isa}");
        assert!(
            matches!(run(65_794), Err(KernelError::Depth { max: 65_793, .. })),
            "{isa}"
        );
    }
}

#[test]
fn weights_of_another_kernel_are_refused_by_name() {
    let b = MatRef::new(&[1i8], 1, 1).unwrap();
    type Odd = Fake<3, 5, 1, 2>;
    let packed = PackedB::pack_for::<Odd, i8>(Fake, Isa::SCALAR, b, Layout::RowMajor).unwrap();
    let mut c = [7i32];
    let e = crate::gemm(
        MatRef::new(&[1u8], 1, 1).unwrap(),
        &packed,
        ZeroPoints::default(),
        &Epilogue::default(),
        OutMut::I32(MatMut::new(&mut c, 1, 1).unwrap()),
        &mut Workspace::new(),
        Threads::Single,
    )
    .unwrap_err();
    assert!(
        matches!(
            e,
            KernelError::PackedFor {
                packed: "fake/i16",
                asked: "plain/i8/1x8"
            }
        ),
        "{e}"
    );
    assert_eq!(c, [7]);
}

#[test]
fn arguments_that_do_not_fit_are_typed_errors_and_write_nothing() {
    let isa = Isa::detect();
    let b = MatRef::new(&[1i8; 6], 2, 3).unwrap();
    let packed = PackedB::pack(isa, b, Layout::RowMajor).unwrap();
    let mut c = [5u8; 6];
    let mut run = |cols: usize, zp: ZeroPoints<'_>, ep: Epilogue<'_>, p: OutParams| {
        let e = crate::gemm(
            MatRef::new(&[1u8; 6], 2, cols).unwrap(),
            &packed,
            zp,
            &ep,
            OutMut::U8(MatMut::new(&mut c, 2, 3).unwrap(), p),
            &mut Workspace::new(),
            Threads::Single,
        )
        .unwrap_err();
        assert_eq!(c, [5; 6]);
        e
    };
    let (zp, ep) = (ZeroPoints::default(), Epilogue::default());
    let p = OutParams {
        zero_point: 0,
        min: 0,
        max: 255,
    };
    assert!(matches!(
        run(3, zp, ep, p),
        KernelError::Shape { what: "a", .. }
    ));
    let za = ZeroPoints {
        a: ZeroPoint::Vector(&[1]),
        ..zp
    };
    assert!(matches!(
        run(2, za, ep, p),
        KernelError::Length { expected: 2, .. }
    ));
    let zb = ZeroPoints {
        b: ZeroPoint::Vector(&[1, 2]),
        ..zp
    };
    assert!(matches!(
        run(2, zb, ep, p),
        KernelError::Length { expected: 3, .. }
    ));
    let far = ZeroPoints {
        a: ZeroPoint::Tensor(i32::MAX),
        ..zp
    };
    assert!(matches!(run(2, far, ep, p), KernelError::Depth { .. }));
    let bias = Epilogue {
        bias: Some(&[0, 0]),
        ..ep
    };
    assert!(matches!(
        run(2, zp, bias, p),
        KernelError::Length { what: "bias", .. }
    ));
    let bias = Epilogue {
        bias: Some(&[0, i32::MIN, 0]),
        ..ep
    };
    assert!(matches!(
        run(2, zp, bias, p),
        KernelError::Bias {
            given: i32::MIN,
            ..
        }
    ));
    let scale = Epilogue {
        scale: Scale::Channel(&[1.0]),
        ..ep
    };
    assert!(matches!(
        run(2, zp, scale, p),
        KernelError::Length { what: "scale", .. }
    ));
    let clamp = Epilogue {
        clamp: Some((0.0, f32::NAN)),
        ..ep
    };
    assert!(matches!(run(2, zp, clamp, p), KernelError::Clamp { .. }));
    let clamp = Epilogue {
        clamp: Some((0.0, 1.0)),
        ..ep
    };
    assert!(matches!(
        run(2, zp, clamp, p),
        KernelError::Epilogue { step: "clamp", .. }
    ));
    for bad in [
        OutParams {
            zero_point: 256,
            ..p
        },
        OutParams {
            min: 9,
            max: 8,
            ..p
        },
        OutParams { max: 256, ..p },
        OutParams {
            zero_point: i32::MIN,
            ..p
        },
        OutParams { min: i32::MIN, ..p },
    ] {
        assert!(matches!(run(2, zp, ep, bad), KernelError::OutParams { .. }));
    }
}

#[test]
fn empty_matrices_of_any_claimed_size_are_no_trouble() {
    for isa in tiers() {
        // K = 0 without any data, rows "a gap apart": every sum is empty.
        let a = MatRef::<u8>::with_stride(&[], 9, 0, usize::MAX / 3).unwrap();
        for layout in [Layout::RowMajor, Layout::Transposed] {
            let b = match layout {
                Layout::RowMajor => MatRef::<i8>::with_stride(&[], 0, 5, 77).unwrap(),
                Layout::Transposed => MatRef::<i8>::with_stride(&[], 5, 0, 77).unwrap(),
            };
            let packed = PackedB::pack(isa, b, layout).unwrap();
            let mut c = [1i32; 45];
            let ep = Epilogue {
                bias: Some(&[1, 2, 3, 4, 5]),
                ..Epilogue::default()
            };
            let zp = ZeroPoints {
                a: ZeroPoint::Tensor(3),
                b: ZeroPoint::Tensor(4),
            };
            let out = OutMut::I32(MatMut::new(&mut c, 9, 5).unwrap());
            crate::gemm(
                a,
                &packed,
                zp,
                &ep,
                out,
                &mut Workspace::new(),
                Threads::Single,
            )
            .unwrap();
            assert!(c.chunks(5).all(|row| row == [1, 2, 3, 4, 5]));
        }
        let huge = MatRef::<i8>::new(&[], 0, usize::MAX / 2).unwrap();
        assert!(matches!(
            PackedB::pack(isa, huge, Layout::RowMajor),
            Err(KernelError::TooLarge { .. })
        ));
    }
}
