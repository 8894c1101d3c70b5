//! Matrices with strides, checked once when they are made.

use crate::KernelError;

/// A matrix to read: element `(i, j)` is `data[i * row_stride + j * col_stride]`. The column stride
/// is 1 unless the matrix is a [transposed](MatRef::transposed) view.
///
/// ```
/// use qkernels::MatRef;
/// // The left two columns of a 2×3 matrix.
/// let a = MatRef::with_stride(&[1u8, 2, 3, 4, 5, 6], 2, 2, 3)?;
/// assert_eq!(a.row(1), Some(&[4u8, 5][..]));
/// # Ok::<(), qkernels::KernelError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A matrix to write: element `(i, j)` is `data[i * row_stride + j]`. What lies between the rows
/// is never touched.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

/// Elements from the first to the last of a matrix, the gap after the last row left out.
pub(crate) fn span(rows: usize, cols: usize, row_stride: usize) -> Result<usize, KernelError> {
    if rows == 0 || cols == 0 {
        return Ok(0);
    }
    if rows > 1 && row_stride < cols {
        return Err(KernelError::Stride {
            given: row_stride,
            cols,
        });
    }
    (rows - 1)
        .checked_mul(row_stride)
        .and_then(|n| n.checked_add(cols))
        .ok_or(KernelError::TooLarge { rows, row_stride })
}

fn check(len: usize, rows: usize, cols: usize, row_stride: usize) -> Result<(), KernelError> {
    check_data(len, span(rows, cols, row_stride)?)
}

/// `Ok` when a slice holds all of its matrix.
pub(crate) fn check_data(len: usize, expected: usize) -> Result<(), KernelError> {
    if len < expected {
        return Err(KernelError::Length {
            what: "matrix data",
            given: len,
            expected,
        });
    }
    Ok(())
}

impl<'a, T> MatRef<'a, T> {
    /// A matrix without gaps between its rows.
    ///
    /// # Errors
    ///
    /// [`KernelError::Length`] unless `data` holds at least `rows * cols` elements.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self, KernelError> {
        Self::with_stride(data, rows, cols, cols)
    }

    /// A matrix whose rows start `row_stride` elements apart.
    ///
    /// # Errors
    ///
    /// [`KernelError::Stride`] when rows would overlap, [`KernelError::TooLarge`] when the size
    /// overflows, [`KernelError::Length`] when `data` ends before the last element.
    pub fn with_stride(
        data: &'a [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Result<Self, KernelError> {
        check(data.len(), rows, cols, row_stride)?;
        // An empty matrix has no element to step to, whatever the stride.
        let (data, row_stride) = if rows == 0 || cols == 0 {
            (&[][..], 0)
        } else {
            (data, row_stride)
        };
        Ok(MatRef {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        })
    }

    /// The same elements with rows and columns exchanged; nothing is copied.
    ///
    /// ```
    /// use qkernels::MatRef;
    /// let a = MatRef::new(&[1u8, 2, 3, 4, 5, 6], 2, 3)?.transposed();
    /// assert_eq!((a.rows(), a.cols()), (3, 2));
    /// assert_eq!(a.get(2, 1), Some(&6));
    /// # Ok::<(), qkernels::KernelError>(())
    /// ```
    #[must_use]
    pub const fn transposed(self) -> Self {
        MatRef {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// Some columns of the matrix; none where it does not have them.
    pub(crate) fn columns(self, cols: core::ops::Range<usize>) -> Self {
        let start = if self.rows == 0 {
            0
        } else {
            cols.start * self.col_stride
        };
        MatRef {
            data: self.data.get(start..).unwrap_or_default(),
            cols: cols.len(),
            ..self
        }
    }

    /// Number of rows.
    #[must_use]
    #[inline]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    #[inline]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between the starts of neighbouring rows, in elements; 0 when the matrix is empty.
    #[must_use]
    #[inline]
    pub const fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Distance between neighbours in a row, in elements: 1, or what the row stride was before the
    /// matrix was transposed.
    #[must_use]
    #[inline]
    pub const fn col_stride(&self) -> usize {
        self.col_stride
    }

    /// Whether [`row`](Self::row) has the elements of a row: they are neighbours, or there is at most
    /// one.
    #[inline]
    pub(crate) const fn is_row_major(&self) -> bool {
        self.col_stride == 1 || self.cols <= 1
    }

    /// `Ok` when the elements of a row are neighbours.
    pub(crate) fn check_row_major(&self, what: &'static str) -> Result<(), KernelError> {
        if self.is_row_major() {
            return Ok(());
        }
        crate::error::check_shape(what, (1, self.col_stride), (1, 1))
    }

    /// Element `(i, j)`, or `None` outside the matrix.
    #[must_use]
    #[inline]
    pub fn get(&self, i: usize, j: usize) -> Option<&'a T> {
        if i >= self.rows || j >= self.cols {
            return None;
        }
        self.data.get(i * self.row_stride + j * self.col_stride)
    }

    /// The elements of row `i`; `None` outside the matrix, and where the elements of a row are not
    /// neighbours in memory, because the matrix is a transposed view.
    #[must_use]
    #[inline]
    pub fn row(&self, i: usize) -> Option<&'a [T]> {
        if i >= self.rows {
            return None;
        }
        if self.cols == 0 {
            return Some(&[]);
        }
        if !self.is_row_major() {
            return None;
        }
        let start = i * self.row_stride;
        self.data.get(start..start + self.cols)
    }

    /// The whole slice behind the matrix, gaps and what follows included.
    #[inline]
    pub(crate) const fn data(&self) -> &'a [T] {
        self.data
    }
}

impl<'a, T: Copy> MatRef<'a, T> {
    /// Row `i` of a matrix with neighbouring columns.
    #[inline(always)]
    pub(crate) fn contiguous_row(&self, i: usize) -> &'a [T] {
        debug_assert!(self.col_stride == 1 || self.cols == 0);
        &self.data[i * self.row_stride..][..self.cols]
    }

    /// All elements in row-major order, where nothing lies between rows.
    pub(crate) fn contiguous(&self) -> Option<&'a [T]> {
        let no_gaps = self.rows <= 1 || self.row_stride == self.cols;
        (self.is_row_major() && no_gaps)
            .then(|| self.data.get(..self.rows.checked_mul(self.cols)?))
            .flatten()
    }

    /// The elements of row `i`, however they lie.
    #[inline(always)]
    pub(crate) fn elements(&self, i: usize) -> impl Iterator<Item = T> + use<'a, T> {
        let start = (i * self.row_stride).min(self.data.len());
        let step = self.col_stride.max(1);
        self.data[start..]
            .iter()
            .step_by(step)
            .take(self.cols)
            .copied()
    }
}

impl<'a, T: bytemuck::Pod> MatRef<'a, T> {
    /// The same bits as another type of the same size.
    pub(crate) fn cast<U: bytemuck::Pod>(&self) -> MatRef<'a, U> {
        MatRef {
            data: bytemuck::cast_slice(self.data),
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
            col_stride: self.col_stride,
        }
    }
}

impl<'a, T> MatMut<'a, T> {
    /// A matrix without gaps between its rows.
    ///
    /// # Errors
    ///
    /// As [`MatRef::new`].
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self, KernelError> {
        Self::with_stride(data, rows, cols, cols)
    }

    /// A matrix whose rows start `row_stride` elements apart.
    ///
    /// # Errors
    ///
    /// As [`MatRef::with_stride`].
    pub fn with_stride(
        data: &'a mut [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Result<Self, KernelError> {
        check(data.len(), rows, cols, row_stride)?;
        let (data, row_stride) = if rows == 0 || cols == 0 {
            (&mut [][..], 0)
        } else {
            (data, row_stride)
        };
        Ok(MatMut {
            data,
            rows,
            cols,
            row_stride,
        })
    }

    /// Number of rows.
    #[must_use]
    #[inline]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    #[inline]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between the starts of neighbouring rows, in elements; 0 when the matrix is empty.
    #[must_use]
    #[inline]
    pub const fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The first element.
    #[inline]
    pub(crate) const fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_mut_ptr()
    }

    /// The elements of row `i`, or `None` outside the matrix.
    #[must_use]
    #[inline]
    pub fn row_mut(&mut self, i: usize) -> Option<&mut [T]> {
        if i >= self.rows {
            return None;
        }
        if self.cols == 0 {
            return Some(&mut []);
        }
        let start = i * self.row_stride;
        self.data.get_mut(start..start + self.cols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_and_the_last_gap_is_not_needed() {
        let data = [0u8; 10];
        assert!(MatRef::with_stride(&data, 3, 2, 4).is_ok());
        assert!(MatRef::with_stride(&data, 3, 3, 4).is_err());
        assert_eq!(
            MatRef::with_stride(&data, 2, 3, 2).unwrap_err(),
            KernelError::Stride { given: 2, cols: 3 }
        );
        assert!(matches!(
            MatRef::with_stride(&data, usize::MAX, 2, usize::MAX).unwrap_err(),
            KernelError::TooLarge { .. }
        ));
        assert!(matches!(
            MatRef::new(&data, 4, 3).unwrap_err(),
            KernelError::Length { .. }
        ));
    }

    #[test]
    fn empty_matrices_need_no_data_and_one_row_needs_no_stride() {
        assert!(MatRef::<u8>::new(&[], 0, 7).is_ok());
        assert_eq!(MatRef::<u8>::new(&[], 7, 0).unwrap().row(6), Some(&[][..]));
        assert!(MatRef::with_stride(&[1u8, 2], 1, 2, 0).is_ok());
    }
}
