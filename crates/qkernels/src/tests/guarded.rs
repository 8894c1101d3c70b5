//! Elementwise operations, reductions and products on slices that touch forbidden pages.

use alloc::vec;
use alloc::vec::Vec;

use half::{bf16, f16};
use qformat::{Element, QParams, QuantElement, Scheme};

use super::data::{Rng, tiers};
use super::elementwise::floats;
use super::guard::{Edge, Guarded};
use crate::elementwise::STREAM_FROM;
use crate::{
    Arithmetic, Epilogue, HistogramMut, Isa, Layout, Lhs, MatMut, MatRef, Operand, OutMut, PackedB,
    PowerWindow, Threads, Workspace, ZeroPoints, abs_max, col_sums, convert, dequantize, dot, gemm,
    histogram, min_max, power_sums, quantize, requantize, row_sums,
};

fn each_case(mut f: impl FnMut(Isa, usize, Edge)) {
    for isa in tiers() {
        // All tails of a block, and lengths from which blocks are aligned.
        for n in (0..140).chain([255, 256, 257, 511, 512, 513, 519, 1000]) {
            f(isa, n, Edge::Start);
            f(isa, n, Edge::End);
        }
    }
}

fn check_quantized<T: QuantElement + bytemuck::Pod>() {
    for scale in [0.3, 1.0 + f32::EPSILON, 1e-38] {
        let p = QParams::new(
            scale,
            T::DTYPE.int_range().unwrap().1 / 2,
            T::DTYPE,
            Scheme::Affine,
        )
        .unwrap();
        each_case(|isa, n, edge| {
            let x = Guarded::copy_of(&floats(n as u64, n), edge);
            let mut q = Guarded::<T>::zeros(n, edge);
            quantize(isa, &x, &p, &mut q).unwrap();
            let mut y = Guarded::<f32>::zeros(n, edge);
            dequantize(isa, &q, &p, &mut y).unwrap();
            for ((&x, &q), &y) in x.iter().zip(&*q).zip(&*y) {
                assert_eq!(q.to_i32(), p.quantize(x), "{isa} {n} {edge:?} {x}");
                assert_eq!(y, p.dequantize(q.to_i32()), "{isa} {n} {edge:?} {q:?}");
            }
            let acc: Vec<i32> = x.iter().map(|v| v.to_bits() as i32).collect();
            let acc = Guarded::copy_of(&acc, edge);
            for m in [1e-7, 2.0] {
                requantize(isa, &acc, m, &p, &mut q).unwrap();
                for (&acc, &q) in acc.iter().zip(&*q) {
                    let expected = qformat::requantize(acc, m, p.zero_point(), p.range());
                    assert_eq!(q.to_i32(), expected, "{isa} {n} {edge:?} {acc}");
                }
            }
        });
    }
}

#[test]
fn quantized_operations_stay_inside_their_slices() {
    check_quantized::<i8>();
    check_quantized::<u8>();
    check_quantized::<i16>();
    check_quantized::<u16>();
    check_quantized::<i32>();
}

#[test]
fn conversions_stay_inside_their_slices() {
    each_case(|isa, n, edge| {
        let x = Guarded::copy_of(&floats(n as u64, n), edge);
        let mut h = Guarded::<f16>::zeros(n, edge);
        let mut b = Guarded::<bf16>::zeros(n, edge);
        let mut y = Guarded::<f32>::zeros(n, edge);
        convert::f32_to_f16(isa, &x, &mut h).unwrap();
        convert::f16_to_f32(isa, &h, &mut y).unwrap();
        for (&x, &y) in x.iter().zip(&*y) {
            let expected = f16::from_f32_const(x).to_f32_const();
            assert_eq!(y.to_bits(), expected.to_bits(), "{isa} {n} {edge:?} {x}");
        }
        convert::f32_to_bf16(isa, &x, &mut b).unwrap();
        convert::bf16_to_f32(isa, &b, &mut y).unwrap();
        for (&x, &y) in x.iter().zip(&*y) {
            let expected = bf16::from_f32(x).to_f32();
            assert_eq!(y.to_bits(), expected.to_bits(), "{isa} {n} {edge:?} {x}");
        }
    });
}

#[test]
fn reductions_stay_inside_their_slices() {
    each_case(|isa, n, edge| {
        let x: Vec<f32> = (0..n).map(|i| (i * 7 % 97) as f32 - 5.0).collect();
        let x = Guarded::copy_of(&x, edge);
        let max = x.iter().copied().reduce(f32::max);
        assert_eq!(min_max(isa, &x).max, max, "{isa} {n} {edge:?}");
        assert_eq!(
            abs_max(isa, &x).max,
            max.map(|m| m.max(5.0)),
            "{isa} {n} {edge:?}"
        );
        let mut positive = Guarded::<u64>::zeros(100, edge);
        let mut negative = Guarded::<u64>::zeros(10, edge);
        let into = HistogramMut {
            exponent: 0,
            positive: &mut positive,
            negative: &mut negative,
        };
        let rest = histogram(isa, &x, into, &mut Vec::new()).unwrap();
        let counted = positive.iter().chain(&*negative).sum::<u64>();
        assert_eq!(counted + rest.zeros, n as u64, "{isa} {n} {edge:?}");
        let window = PowerWindow::below(100.0).unwrap();
        let sums = power_sums(isa, &x, window).unwrap();
        let square = |&v: &f32| (f64::from(v) * f64::from(v)) as u128;
        assert_eq!(
            sums.squares >> (-2 * window.unit()),
            x.iter().map(square).sum(),
            "{isa} {n} {edge:?}"
        );
    });
}

fn check_bytes<A: Lhs>(from_byte: fn(u8) -> A) {
    each_case(|isa, n, edge| {
        let bytes = Rng(n as u64).bytes(n);
        let a: Vec<A> = bytes.iter().map(|&b| from_byte(b)).collect();
        let a = Guarded::copy_of(&a, edge);
        let b: Vec<i8> = bytes.iter().map(|&b| b as i8).collect();
        let b = Guarded::copy_of(&b, edge);
        let sum: i32 = a.iter().map(|a| a.to_i32()).sum();
        let products = a.iter().zip(&*b).map(|(a, &b)| a.to_i32() * i32::from(b));
        assert_eq!(dot(isa, &a, &b), Ok(products.sum()), "{isa} {n} {edge:?}");
        let mut out = Guarded::<i32>::zeros(1, edge);
        row_sums(isa, MatRef::new(&a, 1, n).unwrap(), &mut out).unwrap();
        assert_eq!(out[0], sum, "{isa} {n} {edge:?}");
        col_sums(isa, MatRef::new(&a, n, 1).unwrap(), &mut out).unwrap();
        assert_eq!(out[0], sum, "{isa} {n} {edge:?}");
        let mut out = Guarded::<i32>::zeros(n, edge);
        col_sums(isa, MatRef::new(&a, 1, n).unwrap(), &mut out).unwrap();
        assert!(
            out.iter().zip(&*a).all(|(&o, a)| o == a.to_i32()),
            "{isa} {n} {edge:?}"
        );
    });
}

#[test]
fn byte_sums_stay_inside_their_slices() {
    check_bytes::<u8>(|b| b);
    check_bytes::<i8>(|b| b as i8);
}

/// Products of full-range weights and of weights that tiers split, with tails in every direction.
#[test]
fn products_stay_inside_their_slices() {
    for edge in [Edge::Start, Edge::End] {
        for (m, n, k) in [
            (1, 9, 7),
            (11, 16, 64),
            (33, 24, 131),
            (37, 33, 72),
            // Tall calls.
            (8, 64, 131),
            (17, 128, 129),
        ] {
            let mut rng = Rng(k as u64);
            let a = Guarded::copy_of(&rng.bytes(m * k), edge);
            for b in [vec![-128i8; k * n], rng.weights(k * n)] {
                let b = Guarded::copy_of(&b, edge);
                for isa in tiers() {
                    let matrix = MatRef::new(&b, k, n).unwrap();
                    let packed = PackedB::pack(isa, matrix, Layout::RowMajor).unwrap();
                    let mut out = Guarded::<i32>::zeros(m * n, edge);
                    gemm(
                        MatRef::new(&a, m, k).unwrap(),
                        &packed,
                        ZeroPoints::default(),
                        &Epilogue::default(),
                        OutMut::I32(MatMut::new(&mut out, m, n).unwrap()),
                        &mut Workspace::new(),
                        Threads::Single,
                    )
                    .unwrap();
                    for (i, &sum) in out.iter().enumerate() {
                        let (i, j) = (i / n, i % n);
                        let products =
                            (0..k).map(|kk| i32::from(a[i * k + kk]) * i32::from(b[kk * n + j]));
                        assert_eq!(sum, products.sum::<i32>(), "{isa} {edge:?} {i} {j}");
                    }
                }
            }
        }
    }
}

/// Products of small integers as floats, whose sums are exact in any arithmetic; depths around the
/// steps of kernels, and rows that can be read where they lie.
fn check_floats<F: Operand>(arithmetic: Arithmetic, of: fn(f32) -> F) {
    let shapes = [1usize, 2, 3, 8, 62, 63, 64, 65, 257].map(|k| (7, 17 + k % 60, k));
    for (edge, (m, n, k)) in [Edge::Start, Edge::End]
        .into_iter()
        .flat_map(|e| shapes.map(|s| (e, s)))
    {
        let mut rng = Rng(k as u64);
        let mut any =
            |len: usize| -> Vec<F> { (0..len).map(|_| of(rng.below(15) as f32 - 7.0)).collect() };
        let (a, b) = (any(m * k), any(k * n));
        let (a, b) = (Guarded::copy_of(&a, edge), Guarded::copy_of(&b, edge));
        for isa in tiers() {
            let matrix = MatRef::new(&b, k, n).unwrap();
            let packed = PackedB::pack_with(isa, matrix, Layout::RowMajor, arithmetic).unwrap();
            let mut out = Guarded::<f32>::zeros(m * n, edge);
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
            for (i, &sum) in out.iter().enumerate() {
                let (i, j) = (i / n, i % n);
                let products = (0..k).map(|kk| a[i * k + kk].float() * b[kk * n + j].float());
                assert_eq!(sum, products.sum::<f32>(), "{isa} {edge:?} {k} {i} {j}");
            }
        }
    }
}

#[test]
fn products_of_floats_stay_inside_their_slices() {
    check_floats(Arithmetic::Bf16, bf16::from_f32);
    check_floats(Arithmetic::Bf16Hardware, bf16::from_f32);
    check_floats(Arithmetic::F16, f16::from_f32);
}

/// Outputs so long that they go past the caches.
#[test]
fn long_outputs_are_whole() {
    let n = STREAM_FROM / 4 + 1019;
    let q: Vec<u8> = (0..n).map(|i| ((i * 7) >> 3) as u8).collect();
    let p = QParams::new(0.3, 77, u8::DTYPE, Scheme::Affine).unwrap();
    let mut expected = vec![0f32; n];
    dequantize(Isa::SCALAR, &q, &p, &mut expected).unwrap();
    for edge in [Edge::Start, Edge::End] {
        for isa in tiers() {
            let mut y = Guarded::<f32>::zeros(n, edge);
            dequantize(isa, &q, &p, &mut y).unwrap();
            assert!(*y == *expected, "{isa} {edge:?}");
        }
    }
    let x: Vec<f32> = (0..4 * n).map(|i| i as f32 * 1e-5 - 99.0).collect();
    let p = QParams::new(0.7, -3, i8::DTYPE, Scheme::Affine).unwrap();
    let mut expected = vec![0i8; x.len()];
    quantize(Isa::SCALAR, &x, &p, &mut expected).unwrap();
    for isa in tiers() {
        let mut q = Guarded::<i8>::zeros(x.len(), Edge::End);
        quantize(isa, &x, &p, &mut q).unwrap();
        assert!(*q == *expected, "{isa}");
    }
}

/// The guard guards: in another process, because what is to be seen is its death.
#[test]
fn a_step_beyond_the_end_is_fatal() {
    const CHILD: &str = "QUAVER_TEST_TOUCH_THE_GUARD";
    if std::env::var_os(CHILD).is_some() {
        let x = Guarded::<u8>::zeros(100, Edge::End);
        // SAFETY: none: this is the crash that the test asks for.
        let beyond = unsafe { x.as_ptr().add(100).read_volatile() };
        panic!("read {beyond} beyond the end");
    }
    let name = "tests::guarded::a_step_beyond_the_end_is_fatal";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads", "1"])
        .env(CHILD, "1")
        // Under the sanitizer too the signal is to be seen, not its report.
        .env("ASAN_OPTIONS", "handle_segv=0:handle_sigbus=0")
        .output();
    // An emulator's host cannot start what it emulates; under some, that is seen by the child alone.
    let started = child.ok().filter(|child| child.status.code() != Some(127));
    let Some(child) = started else {
        return std::println!("the guard itself: NOT TESTED, no process could be started");
    };
    use std::os::unix::process::ExitStatusExt;
    assert!(matches!(
        child.status.signal(),
        Some(libc::SIGSEGV | libc::SIGBUS)
    ));
}
