//! Calibration streams: the memory it holds does not grow with the number of samples.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{digits_model, samples};
use quaver::calib::Policy;
use quaver::{Method, Operators};

/// The system's allocator, counting what is held and the most that ever was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator; the counters are atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises about `layout` are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `p` came from `alloc` above, with this layout.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn memory_does_not_grow_with_samples() {
    let model = digits_model();
    let methods = [Method::MinMax, Method::Entropy];
    let mut observing = Operators::new()
        .choose(&model)
        .unwrap()
        .observe(&methods, Policy::Error)
        .unwrap();
    let pass = |observing: &mut quaver::Observing, count: u64| {
        for seed in 0..count {
            // Rows vary, so buffers of every size have been seen after the first passes.
            let rows = 1 + (seed as usize % 4);
            observing
                .observe(&samples("image", rows, &[1, 28, 28], seed))
                .unwrap();
        }
        HELD.load(Ordering::Relaxed)
    };
    let after_few = pass(&mut observing, 12);
    PEAK.store(HELD.load(Ordering::Relaxed), Ordering::Relaxed);
    pass(&mut observing, 4);
    let peak_of_few = PEAK.load(Ordering::Relaxed);
    let after_many = pass(&mut observing, 100);
    let peak_of_many = PEAK.load(Ordering::Relaxed);
    // An activation of one sample is 100 KiB; a hundred passes kept would be tens of MiB.
    assert!(
        after_many <= after_few + (64 << 10),
        "{after_few} -> {after_many} bytes held"
    );
    assert!(
        peak_of_many <= peak_of_few + (64 << 10),
        "{peak_of_few} -> {peak_of_many} at most"
    );
}
