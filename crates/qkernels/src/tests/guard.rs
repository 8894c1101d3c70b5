//! Slices against pages that may not be touched: a read or write beyond an end is a crash.

use core::ops::{Deref, DerefMut};
use core::ptr;

use bytemuck::Pod;

/// A slice on pages of its own, between two that are neither readable nor writable.
pub(crate) struct Guarded<T> {
    base: *mut libc::c_void,
    mapped: usize,
    data: *mut T,
    len: usize,
}

/// Which end of the slice touches a forbidden page.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edge {
    Start,
    End,
}

impl<T: Pod> Guarded<T> {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize, edge: Edge) -> Guarded<T> {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let bytes = len * size_of::<T>();
        let room = bytes.next_multiple_of(page).max(page);
        let mapped = room + 2 * page;
        // SAFETY: a new private mapping that no other memory depends on.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(base != libc::MAP_FAILED);
        // SAFETY: pages of the mapping just made, the first and the last left out.
        let (start, opened) = unsafe {
            let start = base.byte_add(page);
            let access = libc::PROT_READ | libc::PROT_WRITE;
            (start, libc::mprotect(start, room, access))
        };
        assert_eq!(opened, 0);
        let skip = match edge {
            Edge::Start => 0,
            Edge::End => room - bytes,
        };
        // SAFETY: inside the open pages; a page is a multiple of every element's alignment, and
        // so is `skip` because sizes are multiples of alignments.
        let data = unsafe { start.byte_add(skip) }.cast();
        Guarded {
            base,
            mapped,
            data,
            len,
        }
    }

    /// A copy of a slice.
    pub(crate) fn copy_of(x: &[T], edge: Edge) -> Guarded<T> {
        let mut copy = Guarded::zeros(x.len(), edge);
        copy.copy_from_slice(x);
        copy
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements of the open pages, which are zeros at first (`T` was `Pod` when
        // the value was made), and live as long as `self`.
        unsafe { core::slice::from_raw_parts(self.data, self.len) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `zeros`, to which nothing points any more.
        unsafe { libc::munmap(self.base, self.mapped) };
    }
}
