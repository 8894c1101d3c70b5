//! Weights in the order in which a kernel reads them.

use alloc::vec::Vec;

use crate::{Isa, KernelError, MatRef};

/// How the B operand lies in memory before packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `K × N`: a row holds one k for all output columns (ONNX `MatMul`, `Gemm`).
    RowMajor,
    /// `N × K`: a row holds all k of one output column (ONNX `Gemm` with `transB`, convolution
    /// weights `M × C·kh·kw`).
    Transposed,
}

/// The B operand of a product (`K × N` weights), packed once for a tier, with its column sums.
#[derive(Debug, Clone)]
pub struct PackedB {
    isa: Isa,
    k: usize,
    n: usize,
    data: Vec<i8>,
    col_sums: Vec<i32>,
}

impl PackedB {
    /// Packs `b` for a tier.
    ///
    /// # Errors
    ///
    /// [`KernelError::Depth`] when `K` is so large that a column sum could leave i32,
    /// [`KernelError::TooLarge`] when the packed size overflows.
    ///
    /// ```
    /// use qkernels::{Isa, Layout, MatRef, PackedB};
    /// let b = PackedB::pack(Isa::detect(), MatRef::new(&[1i8, 2, 3, 4, 5, 6], 2, 3)?, Layout::RowMajor)?;
    /// assert_eq!((b.k(), b.n()), (2, 3));
    /// # Ok::<(), qkernels::KernelError>(())
    /// ```
    pub fn pack(isa: Isa, b: MatRef<'_, i8>, layout: Layout) -> Result<PackedB, KernelError> {
        let (k, n) = match layout {
            Layout::RowMajor => (b.rows(), b.cols()),
            Layout::Transposed => (b.cols(), b.rows()),
        };
        let at = |kk: usize, j: usize| match layout {
            Layout::RowMajor => b.data()[kk * b.row_stride() + j],
            Layout::Transposed => b.data()[j * b.row_stride() + kk],
        };
        let mut data = Vec::with_capacity(k * n);
        let mut col_sums = alloc::vec![0i32; n];
        for kk in 0..k {
            for (j, sum) in col_sums.iter_mut().enumerate() {
                let v = at(kk, j);
                data.push(v);
                *sum += i32::from(v);
            }
        }
        Ok(PackedB {
            isa,
            k,
            n,
            data,
            col_sums,
        })
    }

    /// Depth: rows of B, columns of A.
    #[must_use]
    pub const fn k(&self) -> usize {
        self.k
    }

    /// Output columns.
    #[must_use]
    pub const fn n(&self) -> usize {
        self.n
    }

    /// The tier that it is packed for, and that [`gemm`](crate::gemm()) runs on.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// Sum of every column.
    #[must_use]
    pub fn col_sums(&self) -> &[i32] {
        &self.col_sums
    }

    pub(crate) fn at(&self, kk: usize, j: usize) -> i8 {
        self.data[kk * self.n + j]
    }
}
