//! Activations that are quantized in the call, by any number of threads.

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::data::{Rng, tiers};
use super::gemm::all_threads;
use crate::{
    Dynamic, Epilogue, Isa, KernelError, Layout, MatMut, MatRef, OutMut, PackedB, ParallelFor,
    Scale, Threads, Workspace, ZeroPoint, gemm_dynamic,
};

const HOW: [Dynamic; 4] = [
    Dynamic::Tensor,
    Dynamic::Row,
    Dynamic::SymmetricTensor,
    Dynamic::SymmetricRow,
];

/// So many elements that three threads look at them, in rows that do not divide by three.
const M: usize = 301;
const K: usize = 700;
const N: usize = 70;

fn run(
    a: MatRef<'_, f32>,
    b: &PackedB,
    how: Dynamic,
    threads: Threads<'_>,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let ep = Epilogue {
        scale: Scale::Tensor(0.01),
        ..Epilogue::default()
    };
    let mut ws = Workspace::new();
    let c = OutMut::F32(MatMut::new(out, M, N)?);
    gemm_dynamic(a, b, ZeroPoint::Tensor(3), how, &ep, c, &mut ws, threads)?;
    let (m, n, k) = (a.rows(), b.n(), b.k());
    assert!(ws.capacity() <= Workspace::required_dynamic(b.isa(), how, m, n, k, threads));
    Ok(())
}

/// Rows of very different ranges, some with values that are not finite.
fn activations() -> Vec<f32> {
    let mut rng = Rng(11);
    let mut value = |i: usize| {
        let v = rng.next() as i32 as f32 / 2e9;
        match rng.below(3000) {
            0 => f32::NAN,
            1 => f32::INFINITY,
            _ => v * (1 + i / K % 7) as f32 + (i / K % 5) as f32 - 2.0,
        }
    };
    (0..M * K).map(&mut value).collect()
}

#[test]
fn any_threads_find_the_ranges_of_one() {
    let x = activations();
    let weights = Rng(5).weights(K * N);
    let weights = MatRef::new(&weights, K, N).unwrap();
    for isa in tiers() {
        let b = PackedB::pack(isa, weights, Layout::RowMajor).unwrap();
        for (how, turned) in HOW.iter().flat_map(|&how| [(how, false), (how, true)]) {
            let a = if turned {
                MatRef::new(&x, K, M).unwrap().transposed()
            } else {
                MatRef::new(&x, M, K).unwrap()
            };
            let mut expected = vec![0.0; M * N];
            run(a, &b, how, Threads::Single, &mut expected).unwrap();
            for threads in all_threads() {
                let mut out = vec![0.0; M * N];
                run(a, &b, how, threads, &mut out).unwrap();
                let same = out
                    .iter()
                    .zip(&expected)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{isa} {how:?} {threads:?} turned: {turned}");
            }
        }
    }
}

/// Whichever thread meets it, and nothing is written.
#[test]
fn a_row_without_a_scale_is_named() {
    let mut x = activations();
    (x[200 * K + 1], x[200 * K + 650]) = (f32::MAX, f32::MIN);
    let a = MatRef::new(&x, M, K).unwrap();
    let weights = vec![1i8; K * N];
    for isa in tiers() {
        let weights = MatRef::new(&weights, K, N).unwrap();
        let b = PackedB::pack(isa, weights, Layout::RowMajor).unwrap();
        for (threads, how) in all_threads()
            .into_iter()
            .flat_map(|t| [(t, Dynamic::Row), (t, Dynamic::Tensor)])
        {
            let mut out = vec![5.0; M * N];
            let e = run(a, &b, how, threads, &mut out).unwrap_err();
            let expected = (how == Dynamic::Row).then_some(200);
            assert!(
                matches!(e, KernelError::DynamicRange { row, .. } if row == expected),
                "{isa} {threads:?}: {e}"
            );
            assert!(out.iter().all(|&v| v == 5.0));
        }
    }
}

/// A pool that grows whenever it is asked, or says that it is larger than memory.
struct Growing(AtomicUsize);

impl ParallelFor for Growing {
    fn threads(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
    fn run(&self, shares: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..shares).for_each(work);
    }
}

#[test]
fn pools_may_be_of_any_size_and_change_it() {
    let x = activations();
    let a = MatRef::new(&x, M, K).unwrap();
    let weights = vec![1i8; K * N];
    let isa = Isa::detect();
    let weights = MatRef::new(&weights, K, N).unwrap();
    let b = PackedB::pack(isa, weights, Layout::RowMajor).unwrap();
    for how in HOW {
        let mut expected = vec![0.0; M * N];
        run(a, &b, how, Threads::Single, &mut expected).unwrap();
        for threads in [1, 2, 1 << 40] {
            let pool = Growing(AtomicUsize::new(threads));
            let threads = Threads::Custom(&pool);
            let mut out = vec![0.0; M * N];
            let ep = Epilogue {
                scale: Scale::Tensor(0.01),
                ..Epilogue::default()
            };
            let c = OutMut::F32(MatMut::new(&mut out, M, N).unwrap());
            let (zero, mut ws) = (ZeroPoint::Tensor(3), Workspace::new());
            gemm_dynamic(a, &b, zero, how, &ep, c, &mut ws, threads).unwrap();
            assert!(out == expected, "{how:?}");
        }
    }
}
