//! Weights in the order in which a kernel reads them.
//!
//! Columns are cut into panels of `NR`; the last one is only as wide as its units need. A panel
//! holds, for every group of `KG` steps in K, its columns one after the other with their `KG`
//! neighbours together; what is beyond K or N is zero. So a kernel reads one stream, and the
//! panel of columns `j0..` starts at `j0 · depth`, `depth` being K in whole groups.

use alloc::vec::Vec;
use core::ops::Range;

use crate::isa::{Tier, Visit};
use crate::kernel::Microkernel;
use crate::workspace::Line;
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
    kernel: &'static str,
    k: usize,
    n: usize,
    data: Vec<Line>,
    /// Padded with zeros to whole units.
    col_sums: Vec<i32>,
}

/// The panels that a kernel cuts `n` columns into.
pub(crate) struct Panels {
    nr: usize,
    unit: usize,
    n: usize,
}

impl Panels {
    pub(crate) fn new<K: Microkernel>(n: usize) -> Panels {
        Panels {
            nr: K::NR,
            unit: K::UNIT,
            n,
        }
    }

    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.n.div_ceil(self.nr)
    }

    /// Columns of panel `p`, those beyond `n` left out.
    #[inline(always)]
    pub(crate) fn cols(&self, p: usize) -> Range<usize> {
        p * self.nr..self.n.min((p + 1) * self.nr)
    }

    /// Columns of panel `p` in whole units.
    #[inline(always)]
    pub(crate) fn width(&self, p: usize) -> usize {
        self.cols(p).len().next_multiple_of(self.unit)
    }

    /// All columns in whole units.
    #[inline(always)]
    pub(crate) fn padded(&self) -> Option<usize> {
        self.n.checked_next_multiple_of(self.unit)
    }
}

/// `n` zeros, or `None` where there is no memory for them: an empty matrix can claim any number of
/// columns.
fn zeroed<T: bytemuck::Zeroable + Clone>(n: usize) -> Option<Vec<T>> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).ok()?;
    v.resize(n, T::zeroed());
    Some(v)
}

impl PackedB {
    /// Packs `b` for a tier.
    ///
    /// # Errors
    ///
    /// [`KernelError::Depth`] when `K` is so large that a column sum could leave i32,
    /// [`KernelError::TooLarge`] when there is no memory for the packed weights.
    ///
    /// ```
    /// use qkernels::{Isa, Layout, MatRef, PackedB};
    /// let b = MatRef::new(&[1i8, 2, 3, 4, 5, 6], 2, 3)?;
    /// let b = PackedB::pack(Isa::detect(), b, Layout::RowMajor)?;
    /// assert_eq!((b.k(), b.n()), (2, 3));
    /// # Ok::<(), qkernels::KernelError>(())
    /// ```
    pub fn pack(isa: Isa, b: MatRef<'_, i8>, layout: Layout) -> Result<PackedB, KernelError> {
        struct Pack<'a>(Isa, MatRef<'a, i8>, Layout);
        impl Visit for Pack<'_> {
            type Output = Result<PackedB, KernelError>;
            fn visit<T: Tier>(self, _tier: T) -> Self::Output {
                PackedB::pack_for::<T::Int8>(self.0, self.1, self.2)
            }
        }
        isa.dispatch(Pack(isa, b, layout))
    }

    /// Packs for a kernel, which need not be one of the tier.
    pub(crate) fn pack_for<K: Microkernel>(
        isa: Isa,
        b: MatRef<'_, i8>,
        layout: Layout,
    ) -> Result<PackedB, KernelError> {
        let (k, n) = match layout {
            Layout::RowMajor => (b.rows(), b.cols()),
            Layout::Transposed => (b.cols(), b.rows()),
        };
        crate::zero_point::check_depth(k, &Default::default(), (-1, 1), (-128, 127))?;
        let too_large = KernelError::TooLarge {
            rows: b.rows(),
            row_stride: b.row_stride(),
        };
        let panels = Panels::new::<K>(n);
        let padded = panels.padded().ok_or(too_large.clone())?;
        let depth = k.checked_next_multiple_of(K::KG).ok_or(too_large.clone())?;
        let lines = depth
            .checked_mul(padded)
            .and_then(|n| n.checked_mul(size_of::<K::Rhs>()))
            .ok_or(too_large.clone())?
            .div_ceil(size_of::<Line>());

        let mut data = zeroed::<Line>(lines).ok_or(too_large.clone())?;
        let mut col_sums = zeroed::<i32>(padded).ok_or(too_large)?;
        let packed: &mut [K::Rhs] = bytemuck::cast_slice_mut(&mut data);
        for p in 0..panels.count() {
            let (cols, width) = (panels.cols(p), panels.width(p));
            let panel = &mut packed[cols.start * depth..][..width * depth];
            let sums = &mut col_sums[cols.clone()];
            let place = |kk: usize, j: usize| kk / K::KG * (K::KG * width) + j * K::KG + kk % K::KG;
            match layout {
                Layout::RowMajor => {
                    for kk in 0..k {
                        let row = &b.data()[kk * b.row_stride()..][cols.clone()];
                        for (j, (&v, sum)) in row.iter().zip(&mut *sums).enumerate() {
                            panel[place(kk, j)] = K::rhs(v);
                            *sum += i32::from(v);
                        }
                    }
                }
                Layout::Transposed => {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        let row = &b.data()[(cols.start + j) * b.row_stride()..][..k];
                        for (kk, &v) in row.iter().enumerate() {
                            panel[place(kk, j)] = K::rhs(v);
                            *sum += i32::from(v);
                        }
                    }
                }
            }
        }
        Ok(PackedB {
            isa,
            kernel: K::ID,
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
        &self.col_sums[..self.n]
    }

    /// Bytes that the packed weights take, padding included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(self.data.as_slice()) + size_of_val(self.col_sums.as_slice())
    }

    /// Column sums with zeros for the padding.
    pub(crate) fn padded_col_sums(&self) -> &[i32] {
        &self.col_sums
    }

    /// The packed elements, if they are packed for this kernel.
    pub(crate) fn elements<K: Microkernel>(&self) -> Result<&[K::Rhs], KernelError> {
        if self.kernel == K::ID {
            Ok(bytemuck::cast_slice(&self.data))
        } else {
            Err(KernelError::PackedFor {
                packed: self.kernel,
                asked: K::ID,
            })
        }
    }
}
