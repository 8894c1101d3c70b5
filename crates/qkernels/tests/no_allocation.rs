//! Products allocate nothing once the workspace is as large as is said to be enough.

use std::alloc::{GlobalAlloc, Layout as AllocLayout, System};
use std::cell::Cell;

use qkernels::{
    Arithmetic, BatchMut, BatchOut, BatchRef, Dynamic, Epilogue, Isa, Layout, MatMut, MatRef,
    OutMut, OutParams, PackedB, Scale, Threads, Workspace, ZeroPoint, ZeroPoints, gemm, gemm_batch,
    gemm_dynamic,
};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: AllocLayout) -> *mut u8 {
        COUNT.with(|c| c.set(c.get() + 1));
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: AllocLayout) {
        // SAFETY: the caller's promise is the system's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `call` twice with a workspace of the size that is said to be enough: nothing is allocated.
fn check(what: &str, required: usize, mut call: impl FnMut(&mut Workspace)) {
    let mut ws = Workspace::with_capacity(required);
    let before = COUNT.with(Cell::get);
    call(&mut ws);
    call(&mut ws);
    assert_eq!(COUNT.with(Cell::get), before, "{what}");
    assert_eq!(ws.capacity(), required.next_multiple_of(64), "{what}");
}

#[test]
fn no_product_allocates() {
    let (m, n, k, count) = (33, 70, 300, 3);
    let (a, b) = (vec![7u8; count * m * k], vec![-3i8; count * k * n]);
    let x = vec![0.25f32; m * k];
    let h = vec![half::bf16::ONE; (m + n) * k];
    let mut c = vec![0f32; count * m * n];
    for isa in Isa::available() {
        let packed = |i: usize| {
            let b = MatRef::new(&b[i..], k, n).unwrap();
            PackedB::pack(isa, b, Layout::RowMajor).unwrap()
        };
        let (zp, ep) = (ZeroPoints::default(), Epilogue::default());
        let one = Threads::Single;
        let weights = packed(0);
        for how in [Dynamic::Tensor, Dynamic::Row, Dynamic::SymmetricRow] {
            let required = Workspace::required_dynamic(isa, how, m, n, k, one);
            check("dynamic", required, |ws| {
                let out = OutMut::F32(MatMut::new(&mut c, m, n).unwrap());
                let a = MatRef::new(&x, m, k).unwrap();
                gemm_dynamic(a, &weights, ZeroPoint::Tensor(0), how, &ep, out, ws, one).unwrap();
            });
        }
        let how = Arithmetic::Int8;
        let required = Workspace::required_batch(isa, how, count, (m, n, k), one).unwrap();
        check("batch", required, |ws| {
            let a = BatchRef::new(&a, count, m, k).unwrap();
            let b = BatchRef::new(&b, count, k, n).unwrap();
            let out = BatchOut::F32(BatchMut::new(&mut c, count, m, n).unwrap());
            gemm_batch(isa, how, a, b, zp, &ep, out, ws, one).unwrap();
        });
        let weights = MatRef::new(&h[m * k..], k, n).unwrap();
        let weights = PackedB::pack(isa, weights, Layout::RowMajor).unwrap();
        let required = Workspace::required_for(isa, Arithmetic::Bf16, m, n, k, one);
        check("bf16", required, |ws| {
            let out = OutMut::F32(MatMut::new(&mut c, m, n).unwrap());
            gemm(
                MatRef::new(&h, m, k).unwrap(),
                &weights,
                zp,
                &ep,
                out,
                ws,
                one,
            )
            .unwrap();
        });
    }
}

#[test]
fn a_large_enough_workspace_means_no_allocation() {
    for isa in Isa::available() {
        for (m, n, k) in [(1, 64, 576), (49, 10, 9), (64, 70, 5000), (300, 130, 512)] {
            let (a, b) = (vec![7u8; m * k], vec![-3i8; k * n]);
            let b = MatRef::new(&b, k, n).unwrap();
            let packed = PackedB::pack(isa, b, Layout::RowMajor).unwrap();
            let scale = vec![0.01; n];
            let mut out = vec![0u8; m * n];
            let required = Workspace::required(isa, m, n, k, Threads::Single);
            let mut ws = Workspace::with_capacity(required);
            let before = COUNT.with(Cell::get);
            gemm(
                MatRef::new(&a, m, k).unwrap(),
                &packed,
                ZeroPoints {
                    a: ZeroPoint::Tensor(3),
                    b: ZeroPoint::Tensor(1),
                },
                &Epilogue {
                    scale: Scale::Channel(&scale),
                    ..Epilogue::default()
                },
                OutMut::U8(
                    MatMut::new(&mut out, m, n).unwrap(),
                    OutParams {
                        zero_point: 128,
                        min: 0,
                        max: 255,
                    },
                ),
                &mut ws,
                Threads::Single,
            )
            .unwrap();
            assert_eq!(COUNT.with(Cell::get), before, "{isa} {m}x{k}x{n}");
            assert_eq!(ws.capacity(), required.next_multiple_of(64));
        }
    }
}
