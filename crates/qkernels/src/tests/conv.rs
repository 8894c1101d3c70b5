//! Convolutions against plain scalar code, on every tier that runs here.

use alloc::vec::Vec;
use core::fmt::Debug;

use proptest::prelude::*;

use super::conv_cases::{Case, Inputs, any_case};
use super::data::{cases, rounds, tiers};
use crate::{
    ConvShape, Epilogue, FilterLayout, Image, Isa, KernelError, Lhs, MatMut, MatRef, OutMut,
    PackedConv, Threads, Workspace, ZeroPoint, ZeroPoints, conv2d,
};

fn check<A: Lhs + Debug>(isa: Isa, case: Case, threads: Threads<'_>, from_byte: fn(u8) -> A) {
    let inputs = Inputs::new(case, from_byte);
    let Case {
        shape,
        groups,
        channels,
        outputs,
        ..
    } = case;
    let [height, width] = shape.kernel;
    let dims = [groups * outputs, channels, height, width];
    let packed = if case.seed.is_multiple_of(2) {
        PackedConv::pack(isa, &inputs.w, dims, FilterLayout::Ohwi, groups).unwrap()
    } else {
        let taps = height * width;
        let moved = |i: usize| i / channels / taps * taps * channels + i % taps * channels;
        let oihw: Vec<i8> = (0..inputs.w.len())
            .map(|i| inputs.w[moved_index(i, channels, taps, &moved)])
            .collect();
        PackedConv::pack(isa, &oihw, dims, FilterLayout::Oihw, groups).unwrap()
    };
    let mut planes = Vec::new();
    let [n, h, w] = shape.input;
    let stride = h * w + case.gap;
    let all = groups * channels;
    for i in 0..n {
        for c in 0..all {
            let pixels = (0..h * w).map(|p| inputs.x[(i * h * w + p) * inputs.x_stride + c]);
            planes.extend(pixels.chain((0..case.gap).map(|_| from_byte(77))));
        }
    }
    let planes = MatRef::with_stride(&planes, n * all, h * w, stride).unwrap();
    for image in [
        Image::ChannelsLast(inputs.x()),
        Image::ChannelsFirst(planes),
    ] {
        inputs.check(isa.name(), |out| {
            let (zp, epilogue) = (inputs.zero_points(), inputs.epilogue());
            let room = Workspace::required_conv2d(&shape, &packed, threads).unwrap();
            let mut ws = Workspace::with_capacity(room);
            conv2d(image, &shape, &packed, zp, &epilogue, out, &mut ws, threads).unwrap();
            assert_eq!(ws.capacity(), room);
        });
    }
}

/// Where element `i` of O I HW lies in O HW I.
fn moved_index(i: usize, channels: usize, taps: usize, first: &impl Fn(usize) -> usize) -> usize {
    first(i) + i / taps % channels
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn every_tier_equals_scalar_code(case in any_case()) {
        for isa in tiers() {
            check::<u8>(isa, case, Threads::Single, |b| b);
            check::<i8>(isa, case, Threads::Single, |b| b as i8);
        }
    }
}

/// Enough work for several shares, and more channels than are gathered at a time.
#[cfg(feature = "rayon")]
#[test]
fn shares_on_pools_of_any_size_equal_scalar_code() {
    for threads in [3, 4, 2, 1].into_iter().take(rounds(4) as usize) {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        for (input, channels, outputs, groups) in [
            ([2, 9, 11], 70, 70, 1),
            ([1, 5, 6], 300, 33, 2),
            ([1, 30, 31], 3, 20, 1),
        ] {
            let case = Case {
                shape: ConvShape {
                    pads: [1; 4],
                    ..ConvShape::new(input, [3, 3])
                },
                groups,
                channels,
                outputs,
                gap: 1,
                x_zero: true,
                w_zero: 2,
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

/// Where an image has one pixel, the strides from pixel to pixel and from plane to plane say nothing.
#[test]
fn images_of_one_pixel_equal_scalar_code() {
    for (channels, kernel, seed) in [(2, 1, 0), (3, 3, 1), (5, 1, 2), (8, 3, 3), (70, 1, 4)] {
        let pad = kernel / 2;
        let case = Case {
            shape: ConvShape {
                pads: [pad; 4],
                ..ConvShape::new([2, 1, 1], [kernel; 2])
            },
            groups: 1 + seed as usize % 2,
            channels,
            outputs: 20,
            gap: 0,
            x_zero: true,
            w_zero: 0,
            scale: 1,
            bias: true,
            bias_f32: false,
            clamp: false,
            table: false,
            output: 0,
            seed,
        };
        let one = Case {
            shape: ConvShape {
                input: [1, 1, 1],
                ..case.shape
            },
            ..case
        };
        for isa in tiers() {
            for case in [case, one] {
                check::<u8>(isa, case, Threads::Single, |b| b);
                check::<i8>(isa, case, Threads::Single, |b| b as i8);
            }
        }
    }
    let x = [7u8, 3, 200, 9, 1];
    for isa in tiers() {
        let weights: Vec<i8> = (0..9 * 5 * 6).map(|i| (i * 37 % 251) as u8 as i8).collect();
        let packed = PackedConv::pack(isa, &weights, [6, 5, 3, 3], FilterLayout::Ohwi, 1).unwrap();
        let shape = ConvShape {
            pads: [1; 4],
            ..ConvShape::new([1, 1, 1], [3, 3])
        };
        let run = |stride| {
            let mut out = [0i32; 6];
            conv2d(
                Image::ChannelsLast(MatRef::with_stride(&x, 1, 5, stride).unwrap()),
                &shape,
                &packed,
                ZeroPoints::default(),
                &Epilogue::default(),
                OutMut::I32(MatMut::new(&mut out, 1, 6).unwrap()),
                &mut Workspace::new(),
                Threads::Single,
            )
            .unwrap();
            out
        };
        for stride in [0, 1, usize::MAX] {
            assert_eq!(run(stride), run(5), "{isa} {stride}");
        }
    }
}

#[test]
fn images_without_channels_give_the_bias() {
    let shape = ConvShape {
        pads: [1; 4],
        ..ConvShape::new([1, 5, 5], [3, 3])
    };
    for isa in tiers() {
        let packed = PackedConv::pack(isa, &[], [2, 0, 3, 3], FilterLayout::Oihw, 1).unwrap();
        for stride in [0, 3] {
            let x: Vec<u8> = alloc::vec![7; 24 * stride];
            let x = MatRef::with_stride(&x, 25, 0, stride).unwrap();
            let mut out = [0; 50];
            conv2d(
                Image::ChannelsLast(x),
                &shape,
                &packed,
                ZeroPoints::default(),
                &Epilogue {
                    bias: Some(&[3, -4]),
                    ..Epilogue::default()
                },
                OutMut::I32(MatMut::new(&mut out, 25, 2).unwrap()),
                &mut Workspace::new(),
                Threads::Single,
            )
            .unwrap();
            assert!(
                out.as_chunks().0.iter().all(|pixel| *pixel == [3, -4]),
                "{isa}"
            );
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let isa = Isa::detect();
    // No output can be cut into any number of groups; memory is not asked for each of them.
    let e = PackedConv::pack(isa, &[], [0, 1, 1, 1], FilterLayout::Oihw, 1 << 50);
    assert!(matches!(e, Err(KernelError::Groups { outputs: 0, .. })));
    let pack = |shape, groups| PackedConv::pack(isa, &[127; 72], shape, FilterLayout::Oihw, groups);
    assert!(matches!(
        pack([4, 2, 3, 3], 3).unwrap_err(),
        KernelError::Groups {
            groups: 3,
            outputs: 4
        }
    ));
    assert!(matches!(
        pack([4, 2, 3, 3], 0).unwrap_err(),
        KernelError::Groups { .. }
    ));
    for shape in [
        [4, 2, 3, 4],
        [usize::MAX, 2, 3, 3],
        [4, usize::MAX, usize::MAX, 3],
    ] {
        let e = pack(shape, 1).unwrap_err();
        assert!(
            matches!(
                e,
                KernelError::Length {
                    what: "weights",
                    given: 72,
                    ..
                }
            ),
            "{e}"
        );
    }
    let packed = pack([4, 2, 3, 3], 2).unwrap();
    assert_eq!(
        (packed.channels(), packed.outputs(), packed.groups()),
        (4, 4, 2)
    );
    let x = [0u8; 100];
    let run = |shape: ConvShape, rows, cols, zp: ZeroPoints<'_>, epilogue: &Epilogue<'_>| {
        let mut out = [77i32; 64];
        let x = Image::ChannelsLast(MatRef::new(&x, rows, cols).unwrap());
        let pixels = shape.output().map_or(0, |o| o[1] * o[2]);
        let c = OutMut::I32(MatMut::new(&mut out, pixels, 4).unwrap());
        let (mut ws, single) = (Workspace::new(), Threads::Single);
        let result = conv2d(x, &shape, &packed, zp, epilogue, c, &mut ws, single);
        assert!(
            result.is_ok() || out == [77; 64],
            "an error, but the output was written"
        );
        result
    };
    let good = ConvShape::new([1, 4, 5], [3, 3]);
    let (none, plain) = (ZeroPoints::default(), Epilogue::default());
    run(good, 20, 4, none, &plain).unwrap();
    for (shape, rows, cols) in [
        (good, 21, 4),
        (good, 20, 5),
        (ConvShape::new([1, 4, 5], [2, 3]), 20, 4),
    ] {
        let e = run(shape, rows, cols, none, &plain).unwrap_err();
        assert!(matches!(e, KernelError::Shape { .. }), "{e}");
    }
    let window = ConvShape {
        pads: [usize::MAX, 0, 0, 0],
        ..good
    };
    let e = run(window, 20, 4, none, &plain).unwrap_err();
    assert!(matches!(e, KernelError::Window { .. }), "{e}");
    let zp = |z| ZeroPoints { a: z, ..none };
    for (z, ok) in [(-1, false), (255, true), (256, false)] {
        assert_eq!(
            run(good, 20, 4, zp(ZeroPoint::Tensor(z)), &plain).is_ok(),
            ok
        );
    }
    // Only the last group's bias is too large.
    let bias = [0, 0, 0, i32::MAX];
    let e = run(
        good,
        20,
        4,
        none,
        &Epilogue {
            bias: Some(&bias),
            ..plain
        },
    )
    .unwrap_err();
    assert!(matches!(e, KernelError::Bias { .. }), "{e}");
}

/// Lines of more outputs than a tile has rows, and than a call has, in every width of a panel, stored as
/// the kernel finishes them or through memory.
#[test]
fn long_lines_equal_scalar_code() {
    for (width, outputs, channels) in [
        (30, 64, 4),
        (30, 48, 4),
        (50, 32, 4),
        (50, 16, 4),
        (300, 70, 4),
        // Tall calls of several stretches.
        (9, 64, 16),
        (19, 64, 16),
    ] {
        let shape = ConvShape {
            pads: [1; 4],
            ..ConvShape::new([1, 2, width], [3, 3])
        };
        let m = 2 * width;
        let bytes = |len: usize, step: usize| (0..len).map(move |i| (i * step % 251) as u8);
        let x: Vec<u8> = bytes(m * channels, 7).collect();
        let w: Vec<i8> = bytes(outputs * 9 * channels, 11).map(|b| b as i8).collect();
        let bias: Vec<i32> = (0..outputs as i32).collect();
        let rows: Vec<f32> = (0..m).map(|i| 1.0 + i as f32 / 8.0).collect();
        let run = |isa: Isa, row_scale: bool| {
            let dims = [outputs, channels, 3, 3];
            let packed = PackedConv::pack(isa, &w, dims, FilterLayout::Ohwi, 1).unwrap();
            let (mut sums, mut floats) =
                (alloc::vec![0; m * outputs], alloc::vec![0.0; m * outputs]);
            for float in [false, true] {
                let epilogue = Epilogue {
                    bias: Some(&bias),
                    row_scale: (float && row_scale).then_some(&rows),
                    ..Epilogue::default()
                };
                let out = if float {
                    OutMut::F32(MatMut::new(&mut floats, m, outputs).unwrap())
                } else {
                    OutMut::I32(MatMut::new(&mut sums, m, outputs).unwrap())
                };
                conv2d(
                    Image::ChannelsLast(MatRef::new(&x, m, channels).unwrap()),
                    &shape,
                    &packed,
                    ZeroPoints {
                        a: ZeroPoint::Tensor(3),
                        b: ZeroPoint::Tensor(0),
                    },
                    &epilogue,
                    out,
                    &mut Workspace::new(),
                    Threads::Single,
                )
                .unwrap();
            }
            (sums, floats)
        };
        for row_scale in [false, true] {
            let expected = run(Isa::SCALAR, row_scale);
            for isa in tiers() {
                assert!(
                    run(isa, row_scale) == expected,
                    "{isa} {width} {outputs} {row_scale}"
                );
            }
        }
    }
}
