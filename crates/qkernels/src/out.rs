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
            // Of a single row it may be anything, and is not used.
            stride: m.row_stride().saturating_mul(size_of::<E>()),
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

    /// Every `step`-th row from one on, and some columns, as a tile of bytes.
    ///
    /// # Safety
    ///
    /// No other reference to these elements is in use.
    #[inline(always)]
    pub(crate) unsafe fn tile(&self, rows: Rows, cols: Range<usize>) -> TileMut<'a, u8> {
        assert!(rows.fit(self.rows));
        assert!(cols.start < cols.end && cols.end <= self.cols);
        // SAFETY: inside the matrix, as in `part`.
        unsafe {
            let first = self
                .ptr
                .add(rows.first * self.stride + cols.start * self.size);
            let stride = self.stride * rows.step;
            TileMut::from_raw(first, stride, rows.count, cols.len() * self.size)
        }
    }

    /// The same of a matrix of sums.
    ///
    /// # Safety
    ///
    /// No other reference to these elements is in use, and the elements are sums of this type.
    #[inline(always)]
    pub(crate) unsafe fn sums<A: Acc>(&self, rows: Rows, cols: Range<usize>) -> TileMut<'a, A> {
        assert!(rows.fit(self.rows) && self.size == size_of::<A>());
        assert!(cols.start < cols.end && cols.end <= self.cols);
        // SAFETY: inside the matrix, as in `part`; it was made of elements of this size and
        // alignment.
        unsafe {
            let first = self
                .ptr
                .add(rows.first * self.stride + cols.start * self.size);
            let stride = self.stride / self.size * rows.step;
            TileMut::from_raw(first.cast(), stride, rows.count, cols.len())
        }
    }
}

/// Rows of an output, the same distance apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) first: usize,
    pub(crate) step: usize,
    pub(crate) count: usize,
}

impl Rows {
    /// Row `r` of them.
    #[inline(always)]
    pub(crate) fn at(&self, r: usize) -> usize {
        self.first + r * self.step
    }

    /// Whether there are any, all of them below `rows`.
    #[inline(always)]
    fn fit(&self, rows: usize) -> bool {
        let last = self
            .count
            .checked_sub(1)
            .and_then(|n| n.checked_mul(self.step));
        last.is_some_and(|n| self.first < rows && n < rows - self.first)
    }
}

impl From<Range<usize>> for Rows {
    #[inline(always)]
    fn from(rows: Range<usize>) -> Rows {
        Rows {
            first: rows.start,
            step: 1,
            count: rows.len(),
        }
    }
}
