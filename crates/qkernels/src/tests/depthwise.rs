//! Depthwise convolutions against plain scalar code, on every tier that runs here.

use core::fmt::Debug;

use proptest::prelude::*;

use super::conv_cases::{Case, Inputs, any_shape};
use super::data::{cases, rounds, tiers};
use crate::depthwise::{Call, Operands};
use crate::gemm::Target;
use crate::isa::{Tier, Visit};
use crate::{
    ConvShape, Epilogue, Isa, KernelError, Layout, Lhs, MatMut, MatRef, OutMut, PackedDepthwise,
    Threads, Workspace, ZeroPoint, ZeroPoints, depthwise,
};

fn any_case() -> impl Strategy<Value = Case> {
    // Blocks have 16, 32 or 64 channels: around each, and several of them.
    let channels = prop_oneof![
        1usize..=140,
        prop::sample::select(&[16usize, 32, 48, 64, 96, 128][..])
    ];
    (super::conv_cases::any_case(), any_shape(), channels).prop_map(|(case, shape, groups)| Case {
        shape,
        groups,
        channels: 1,
        outputs: 1,
        ..case
    })
}

/// Shapes whose columns some tiers multiply when they are interleaved: whole blocks, three columns of
/// taps, and a stride of two.
fn any_streamed() -> impl Strategy<Value = Case> {
    let channels = prop::sample::select(&[64usize, 80, 128, 192][..]);
    let all = (super::conv_cases::any_case(), channels, 1..9usize);
    all.prop_map(|(case, groups, height)| {
        let mut shape = case.shape;
        let [top, left, bottom, right] = shape.pads;
        shape.kernel = [height, 3];
        shape.strides[1] = 2;
        shape.dilations[1] = 1;
        let reach = (height - 1) * shape.dilations[0] + 1;
        shape.input[1] = shape.input[1].max(reach.saturating_sub(top + bottom));
        shape.input[2] = shape.input[2].max(3usize.saturating_sub(left + right));
        Case {
            shape,
            groups,
            channels: 1,
            outputs: 1,
            w_zero: 0,
            ..case
        }
    })
}

fn check<A: Lhs + Debug>(isa: Isa, case: Case, threads: Threads<'_>, from_byte: fn(u8) -> A) {
    let inputs = Inputs::new(case, from_byte);
    let taps = case.shape.kernel[0] * case.shape.kernel[1];
    let weights = MatRef::new(&inputs.w, case.groups, taps).unwrap();
    let kernel = case.shape.kernel;
    let packed = PackedDepthwise::pack(isa, kernel, weights, Layout::Transposed).unwrap();
    inputs.check(isa.name(), |out| {
        let (zp, epilogue) = (inputs.zero_points(), inputs.epilogue());
        let room = Workspace::required_depthwise(isa, &case.shape, case.groups, threads).unwrap();
        let mut ws = Workspace::with_capacity(room);
        depthwise(
            inputs.x(),
            &case.shape,
            &packed,
            zp,
            &epilogue,
            out,
            &mut ws,
            threads,
        )
        .unwrap();
        assert_eq!(ws.capacity(), room);
    });
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn every_tier_equals_scalar_code(case in any_case()) {
        for isa in tiers() {
            check::<u8>(isa, case, Threads::Single, |b| b);
            check::<i8>(isa, case, Threads::Single, |b| b as i8);
        }
    }

    #[test]
    fn columns_in_registers_equal_scalar_code(case in any_streamed()) {
        for isa in tiers() {
            check::<u8>(isa, case, Threads::Single, |b| b);
            check::<i8>(isa, case, Threads::Single, |b| b as i8);
        }
    }
}

/// Enough work for several shares, cut across rows and across channels; segments of columns too.
#[cfg(feature = "rayon")]
#[test]
fn shares_on_pools_of_any_size_equal_scalar_code() {
    for threads in [3, 4, 2, 1].into_iter().take(rounds(4) as usize) {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        for (input, stride, channels) in [
            ([2, 20, 150], 1, 40),
            ([1, 3, 40], 1, 1300),
            ([1, 61, 130], 2, 67),
        ] {
            let case = Case {
                shape: ConvShape {
                    strides: [stride; 2],
                    pads: [1; 4],
                    ..ConvShape::new(input, [3, 3])
                },
                groups: channels,
                channels: 1,
                outputs: 1,
                gap: 1,
                x_zero: true,
                w_zero: 0,
                scale: 2,
                bias: true,
                bias_f32: false,
                clamp: true,
                table: false,
                output: (threads % 4) as u8,
                seed: threads as u64,
            };
            pool.install(|| check::<u8>(Isa::detect(), case, Threads::Rayon, |b| b));
        }
    }
}

#[test]
fn weights_packed_for_other_lanes_are_refused() {
    if !Isa::available().any(|isa| isa.name().starts_with("avx")) {
        return std::println!("lanes other than the plain ones: NOT TESTED, no tier here has any");
    }
    let weights = MatRef::new(&[1i8; 9], 1, 9).unwrap();
    let packed = PackedDepthwise::pack_for::<crate::depthwise::lanes::PlainLanes>(
        Isa::SCALAR,
        [3, 3],
        weights,
        Layout::Transposed,
    )
    .unwrap();
    let shape = ConvShape::new([1, 3, 3], [3, 3]);
    let (x, mut out) = ([1u8; 9], [0i32; 1]);
    let x = MatRef::new(&x, 9, 1).unwrap();
    struct Run<'a>(&'a PackedDepthwise, ConvShape, MatRef<'a, u8>, OutMut<'a>);
    impl Visit for Run<'_> {
        type Output = Result<(), KernelError>;
        fn visit<T: Tier>(self, tier: T) -> Self::Output {
            let Run(packed, shape, x, out) = self;
            let (zp, epilogue) = (ZeroPoints::default(), Epilogue::default());
            let target = Target::new(out, &epilogue);
            let operands = Operands::new(x, &shape, packed, zp, &epilogue, &target)?;
            let call = Call {
                operands,
                target,
                ws: &mut Workspace::new(),
                threads: Threads::Single,
            };
            call.visit(tier)
        }
    }
    for isa in Isa::available() {
        let out = OutMut::I32(MatMut::new(&mut out, 1, 1).unwrap());
        let result = isa.dispatch(Run(&packed, shape, x, out));
        if isa == Isa::SCALAR {
            result.unwrap();
        } else {
            let e = result.unwrap_err();
            assert!(matches!(e, KernelError::PackedFor { .. }), "{isa}: {e}");
        }
    }
    assert_eq!(out, [9]);
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let isa = Isa::detect();
    let pack = |kernel, rows, cols, layout| {
        let data = [127i8; 64];
        PackedDepthwise::pack(isa, kernel, MatRef::new(&data, rows, cols).unwrap(), layout)
    };
    assert!(matches!(
        pack([3, 3], 2, 8, Layout::Transposed).unwrap_err(),
        KernelError::Shape {
            what: "weights",
            expected: (2, 9),
            ..
        }
    ));
    assert!(matches!(
        pack([usize::MAX, 2], 2, 9, Layout::RowMajor).unwrap_err(),
        KernelError::Shape {
            what: "weights",
            ..
        }
    ));
    let packed = pack([3, 3], 9, 2, Layout::RowMajor).unwrap();
    let x = [0u8; 64];
    let run = |shape: ConvShape, rows, cols, zp: ZeroPoints<'_>, epilogue: &Epilogue<'_>| {
        let mut out = [0i32; 64];
        let x = MatRef::new(&x, rows, cols).unwrap();
        let rows = shape.output().map_or(0, |o| o[1] * o[2]);
        let out = OutMut::I32(MatMut::new(&mut out, rows, 2).unwrap());
        let (mut ws, single) = (Workspace::new(), Threads::Single);
        depthwise(x, &shape, &packed, zp, epilogue, out, &mut ws, single)
    };
    let good = ConvShape::new([1, 4, 5], [3, 3]);
    let (none, plain) = (ZeroPoints::default(), Epilogue::default());
    run(good, 20, 2, none, &plain).unwrap();
    for (shape, rows, cols, what) in [
        (good, 21, 2, "x"),
        (good, 20, 3, "x"),
        (
            ConvShape::new([1, 4, 5], [2, 3]),
            20,
            2,
            "the kernel of the packed weights",
        ),
    ] {
        match run(shape, rows, cols, none, &plain).unwrap_err() {
            KernelError::Shape { what: w, .. } => assert_eq!(w, what),
            e => panic!("{e}"),
        }
    }
    let window = ConvShape {
        strides: [0, 1],
        ..good
    };
    let e = run(window, 20, 2, none, &plain).unwrap_err();
    assert!(matches!(e, KernelError::Window { .. }), "{e}");
    let zp = |z| ZeroPoints { a: z, ..none };
    for (z, ok) in [(-1, false), (0, true), (255, true), (256, false)] {
        assert_eq!(
            run(good, 20, 2, zp(ZeroPoint::Tensor(z)), &plain).is_ok(),
            ok
        );
    }
    let e = run(good, 20, 2, zp(ZeroPoint::Vector(&[0, 0])), &plain).unwrap_err();
    assert!(
        matches!(
            e,
            KernelError::Length {
                what: "zero points of x",
                ..
            }
        ),
        "{e}"
    );
    let far = ZeroPoints {
        b: ZeroPoint::Tensor(i32::MIN),
        ..none
    };
    let e = run(good, 20, 2, far, &plain).unwrap_err();
    assert!(matches!(e, KernelError::Depth { depth: 9, .. }), "{e}");
    let bias = [i32::MAX; 2];
    let e = run(
        good,
        20,
        2,
        none,
        &Epilogue {
            bias: Some(&bias),
            ..plain
        },
    )
    .unwrap_err();
    assert!(matches!(e, KernelError::Bias { .. }), "{e}");
    // A dilation so large that no row of it can be held.
    let huge = ConvShape {
        pads: [0, 1 << 60, 0, 1 << 60],
        dilations: [1, (1 << 31) - 1],
        strides: [1, (1 << 31) - 2],
        ..good
    };
    if let Ok([_, _, width]) = huge.output() {
        // More pixels than any output has.
        assert!(width > 1 << 29);
    }
}
