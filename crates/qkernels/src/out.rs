//! Where results go: a matrix shared out among threads.

use core::marker::PhantomData;
use core::ops::Range;

use crate::MatMut;
use crate::kernel::{Acc, TileMut};

/// The output as bytes, to be written by several threads at disjoint places.
#[derive(Clone, Copy)]
pub(crate) struct Out<'a> {
    ptr: *mut u8,
    /// Bytes from row to row.
    stride: usize,
    rows: usize,
    cols: usize,
    /// Bytes of an element.
    size: usize,
    life: PhantomData<&'a mut [u8]>,
}

// SAFETY: an `Out` is an exclusively borrowed matrix; threads use it at disjoint places only
// (`Out::part` and `Out::tile` demand it), and its elements are plain data.
unsafe impl Send for Out<'_> {}
// SAFETY: as above; every access through a shared `Out` is an unsafe one that demands disjointness.
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    pub(crate) fn new<E: bytemuck::Pod>(mut m: MatMut<'a, E>) -> Self {
        Out {
            ptr: m.as_mut_ptr().cast(),
            stride: m.row_stride() * size_of::<E>(),
            rows: m.rows(),
            cols: m.cols(),
            size: size_of::<E>(),
            life: PhantomData,
        }
    }

    /// The matrix of the same shape that starts `by` elements further on.
    ///
    /// # Safety
    ///
    /// It lies inside the slice that this one was made of.
    pub(crate) unsafe fn moved(self, by: usize) -> Out<'a> {
        Out {
            // SAFETY: inside the slice, as promised by the caller.
            ptr: unsafe { self.ptr.add(by * self.size) },
            ..self
        }
    }

    /// Some columns of the matrix.
    pub(crate) fn columns(self, cols: Range<usize>) -> Out<'a> {
        assert!(cols.start <= cols.end && cols.end <= self.cols);
        Out {
            ptr: if self.rows == 0 {
                self.ptr
            } else {
                // SAFETY: inside the first row, or one past its end.
                unsafe { self.ptr.add(cols.start * self.size) }
            },
            cols: cols.len(),
            ..self
        }
    }

    /// Rows and columns.
    pub(crate) const fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Bytes from row to row.
    #[inline(always)]
    pub(crate) const fn stride(&self) -> usize {
        self.stride
    }

    /// Where `count` elements of row `i` from column `j` on are; whoever writes there sees to it
    /// that nobody else does.
    #[inline(always)]
    pub(crate) fn place(&self, i: usize, j: usize, count: usize) -> *mut u8 {
        assert!(i < self.rows && j <= self.cols && count <= self.cols - j);
        // SAFETY: inside the matrix, which `MatMut` checked against its slice.
        unsafe { self.ptr.add(i * self.stride + j * self.size) }
    }

    /// `bytes` of row `i` from column `j` on.
    ///
    /// # Safety
    ///
    /// No other reference to these elements is in use.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, i: usize, j: usize, bytes: usize) -> &'a mut [u8] {
        assert!(i < self.rows && j <= self.cols && bytes <= (self.cols - j) * self.size);
        // SAFETY: inside the matrix, which `MatMut` checked against its slice; exclusive because
        // the matrix was, and the caller keeps to its own part.
        unsafe {
            let first = self.ptr.add(i * self.stride + j * self.size);
            core::slice::from_raw_parts_mut(first, bytes)
        }
    }

    /// A part of the matrix as a tile of bytes.
    ///
    /// # Safety
    ///
    /// No other reference to these elements is in use.
    #[inline(always)]
    pub(crate) unsafe fn tile(&self, rows: Range<usize>, cols: Range<usize>) -> TileMut<'a, u8> {
        assert!(rows.start < rows.end && rows.end <= self.rows);
        assert!(cols.start < cols.end && cols.end <= self.cols);
        // SAFETY: inside the matrix, as in `part`.
        unsafe {
            let first = self
                .ptr
                .add(rows.start * self.stride + cols.start * self.size);
            TileMut::from_raw(first, self.stride, rows.len(), cols.len() * self.size)
        }
    }

    /// A part of a matrix of sums as a tile.
    ///
    /// # Safety
    ///
    /// No other reference to these elements is in use, and the elements are sums of this type.
    #[inline(always)]
    pub(crate) unsafe fn sums<A: Acc>(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
    ) -> TileMut<'a, A> {
        assert!(rows.start < rows.end && rows.end <= self.rows && self.size == size_of::<A>());
        assert!(cols.start < cols.end && cols.end <= self.cols);
        // SAFETY: inside the matrix, as in `part`; it was made of elements of this size and
        // alignment.
        unsafe {
            let first = self
                .ptr
                .add(rows.start * self.stride + cols.start * self.size);
            TileMut::from_raw(
                first.cast(),
                self.stride / self.size,
                rows.len(),
                cols.len(),
            )
        }
    }
}
