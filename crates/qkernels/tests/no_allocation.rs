//! `gemm` allocates nothing once the workspace is as large as `Workspace::required` says.

use std::alloc::{GlobalAlloc, Layout as AllocLayout, System};
use std::cell::Cell;

use qkernels::{
    Epilogue, Isa, Layout, MatMut, MatRef, OutMut, OutParams, PackedB, Scale, Threads, Workspace,
    ZeroPoint, ZeroPoints, gemm,
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
