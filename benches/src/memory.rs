//! Memory whose larger parts start at a cache line, as those of engines' tensors do.
//!
//! Of a vector of any size the system's allocator says sixteen bytes, so that every store of a whole
//! line would be one to two lines, and how fast a product is would depend on who allocated what
//! before.
#![allow(unsafe_code, reason = "an allocator is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};

/// Bytes of a cache line.
const LINE: usize = 64;

/// The system's allocator, asked for whole lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lines;

/// A layout of at least a line, at its start.
fn aligned(layout: Layout) -> Layout {
    if layout.size() < LINE {
        return layout;
    }
    layout.align_to(LINE).unwrap_or(layout)
}

// SAFETY: it hands on to the system's allocator, with a layout that depends on the caller's alone.
unsafe impl GlobalAlloc for Lines {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller; the size is the same.
        unsafe { System.alloc(aligned(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller; the size is the same.
        unsafe { System.alloc_zeroed(aligned(layout)) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller; it was allocated with this layout.
        unsafe { System.dealloc(ptr, aligned(layout)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_parts_start_at_a_line() {
        for size in [1, 63, 64, 100, 1 << 20] {
            let layout = Layout::from_size_align(size, 1).unwrap();
            // SAFETY: the size is not zero, and each part is given back with its layout.
            unsafe {
                for ptr in [Lines.alloc(layout), Lines.alloc_zeroed(layout)] {
                    assert!(!ptr.is_null());
                    assert!(size < LINE || ptr.addr().is_multiple_of(LINE));
                    Lines.dealloc(ptr, layout);
                }
            }
        }
    }
}
