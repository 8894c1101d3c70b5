//! Weights in the order in which a kernel reads them.
//!
//! Columns are cut into panels of `NR`; the last one is only as wide as its units need. A panel
//! holds, for every group of `KG` steps in K, its columns one after the other with their `KG`
//! neighbours together; what is beyond K or N changes no sum. So a kernel reads one stream, and the
//! panel of columns `j0..` starts at `j0 · depth`, `depth` being K in whole [units](Microkernel::K_UNIT).

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::Range;

use qformat::DType;

use crate::isa::{Task, Tier, Visit};
use crate::kernel::Microkernel;
use crate::operand::{Matrix, with_typed};
use crate::outliers::Outliers;
use crate::pages::Pages;
use crate::select::{VisitKernel, with_kernel};
use crate::{Arithmetic, Isa, KernelError, MatRef, Operand};

/// How the B operand lies in memory before packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `K × N`: a row holds one k for all output columns (ONNX `MatMul`, `Gemm`).
    RowMajor,
    /// `N × K`: a row holds all k of one output column (ONNX `Gemm` with `transB`, convolution
    /// weights `M × C·kh·kw`).
    Transposed,
}

/// What packed weights are, beside their elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) isa: Isa,
    pub(crate) kernel: &'static str,
    pub(crate) arithmetic: Arithmetic,
    /// Type of the elements before packing.
    pub(crate) dtype: DType,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// Largest magnitude of an integer element; 0 for floats.
    pub(crate) max_abs: u32,
}

/// The B operand of a product (`K × N` weights), packed once for a tier, with its column sums.
#[derive(Debug, Clone)]
pub struct PackedB {
    header: Header,
    data: Pages,
    /// Padded with zeros to whole units.
    col_sums: Vec<i32>,
    /// For tiers that split weights.
    outliers: Option<Outliers>,
}

/// A packed B that is held elsewhere: in a [`PackedB`], or in bytes that were read or mapped.
#[derive(Debug, Clone, Copy)]
pub struct PackedRef<'a> {
    pub(crate) header: Header,
    pub(crate) data: &'a [u8],
    pub(crate) col_sums: &'a [i32],
    pub(crate) outliers: Option<&'a Outliers>,
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
pub(crate) fn zeroed<T: bytemuck::Zeroable + Clone>(n: usize) -> Option<Vec<T>> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).ok()?;
    v.resize(n, T::zeroed());
    Some(v)
}

/// Sizes of a packed B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Bytes of elements.
    pub(crate) bytes: usize,
    /// Column sums, those of the padding included.
    pub(crate) sums: usize,
}

impl Sizes {
    /// Of `k × n` elements packed for a kernel, unless that overflows.
    pub(crate) fn new<K: Microkernel>(k: usize, n: usize) -> Option<Sizes> {
        let sums = Panels::new::<K>(n).padded()?;
        let depth = k.checked_next_multiple_of(K::K_UNIT)?;
        let bytes = depth.checked_mul(sums)?.checked_mul(size_of::<K::Rhs>())?;
        Some(Sizes { bytes, sums })
    }
}

/// Packs `b` (`K × N`, in either order) into `data` and `sums`, which are as long as [`Sizes`]
/// says; gives the largest magnitude of an integer element.
pub(crate) struct PackInto<'a, B, K: Microkernel> {
    pub(crate) b: MatRef<'a, B>,
    pub(crate) data: &'a mut [K::Rhs],
    pub(crate) sums: &'a mut [i32],
    pub(crate) kernel: PhantomData<K>,
}

/// What is added to B's elements when they are packed: bytes are packed as signed ones.
pub(crate) const fn shift_of(dtype: DType) -> i32 {
    if matches!(dtype, DType::U8) { -128 } else { 0 }
}

#[inline(always)]
fn packed<K: Microkernel, B: Operand>(v: B) -> (K::Rhs, i32) {
    let int = v.int().wrapping_add(shift_of(B::DTYPE));
    if shift_of(B::DTYPE) == 0 {
        (K::rhs(v), int)
    } else {
        // Exact: 0 to 255, less 128.
        (K::rhs(int as i8), int)
    }
}

/// The most neighbours in K that a step of any kernel eats.
const MAX_KG: usize = 16;

impl<B: Operand, K: Microkernel> Task for PackInto<'_, B, K> {
    type Output = u32;

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) -> u32 {
        const { assert!(K::KG <= MAX_KG && K::K_UNIT.is_multiple_of(K::KG)) };
        let PackInto { b, data, sums, .. } = self;
        let (k, n) = (b.rows(), b.cols());
        let depth = k.next_multiple_of(K::K_UNIT);
        let integer = B::ARITHMETIC.integer();
        sums.fill(0);
        let panels = Panels::new::<K>(n);
        let (mut low, mut high) = (0i32, 0i32);
        for p in 0..panels.count() {
            let (cols, width) = (panels.cols(p), panels.width(p));
            let panel = &mut data[cols.start * depth..][..width * depth];
            let sums = &mut sums[cols.clone()];
            if b.col_stride() == 1 || b.cols() == 1 {
                for (g, group) in panel.chunks_exact_mut(K::KG * width).enumerate() {
                    let first = g * K::KG;
                    let count = K::KG.min(k.saturating_sub(first));
                    // What is beyond K, and the columns beyond N.
                    if count < K::KG || width > cols.len() {
                        group.fill(K::rhs_padding());
                    }
                    if count == 0 {
                        continue;
                    }
                    let mut rows = [&b.data()[..0]; MAX_KG];
                    for (q, to) in rows[..K::KG].iter_mut().enumerate() {
                        let row = first + q.min(count - 1);
                        *to = &b.data()[row * b.row_stride() + cols.start..][..cols.len()];
                    }
                    if count == K::KG {
                        for (j, to) in group.chunks_exact_mut(K::KG).take(cols.len()).enumerate() {
                            for (to, row) in to.iter_mut().zip(&rows) {
                                *to = packed::<K, B>(row[j]).0;
                            }
                        }
                    } else {
                        for (j, to) in group.chunks_exact_mut(K::KG).take(cols.len()).enumerate() {
                            for (to, row) in to.iter_mut().zip(&rows[..count]) {
                                *to = packed::<K, B>(row[j]).0;
                            }
                        }
                    }
                    if integer {
                        for row in &rows[..count] {
                            for (sum, &v) in sums.iter_mut().zip(*row) {
                                let v = packed::<K, B>(v).1;
                                *sum = sum.wrapping_add(v);
                                (low, high) = (low.min(v), high.max(v));
                            }
                        }
                    }
                }
            } else {
                if depth > k || width > cols.len() {
                    panel.fill(K::rhs_padding());
                }
                for (j, sum) in sums.iter_mut().enumerate() {
                    let column = (cols.start + j) * b.col_stride();
                    // Neighbours in memory unless both strides are larger than one, which no
                    // constructor makes.
                    let column = &b.data()[column..][..k];
                    let groups = panel.chunks_exact_mut(K::KG * width);
                    for (from, group) in column.chunks(K::KG).zip(groups) {
                        let to = &mut group[j * K::KG..][..K::KG];
                        for (to, &v) in to.iter_mut().zip(from) {
                            *to = packed::<K, B>(v).0;
                        }
                    }
                    if integer {
                        for &v in column {
                            let v = packed::<K, B>(v).1;
                            *sum = sum.wrapping_add(v);
                            (low, high) = (low.min(v), high.max(v));
                        }
                    }
                }
            }
        }
        low.unsigned_abs().max(high.unsigned_abs())
    }
}

/// The outliers of packed elements, for tiers that split bytes.
fn find_outliers<T: Tier>(tier: T, header: &Header, elements: &[u8]) -> Option<Outliers> {
    match header.arithmetic {
        Arithmetic::Int8 => tier.outliers(bytemuck::cast_slice(elements), header.k, header.n),
        _ => None,
    }
}

impl PackedB {
    /// Packs `b` for a tier, with the arithmetic that is usual for its type.
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
    pub fn pack<B: Operand>(
        isa: Isa,
        b: MatRef<'_, B>,
        layout: Layout,
    ) -> Result<PackedB, KernelError> {
        Self::pack_with(isa, b, layout, B::ARITHMETIC)
    }

    /// Packs `b` for a tier and a chosen arithmetic.
    ///
    /// # Errors
    ///
    /// As [`pack`](Self::pack), and [`KernelError::Arithmetic`] for an arithmetic of another type.
    ///
    /// ```
    /// use half::bf16;
    /// use qkernels::{Arithmetic, Isa, Layout, MatRef, PackedB};
    /// let b = [bf16::ONE; 6];
    /// let b = MatRef::new(&b, 2, 3)?;
    /// let b = PackedB::pack_with(Isa::detect(), b, Layout::RowMajor, Arithmetic::Bf16Hardware)?;
    /// assert!(!b.arithmetic().exact());
    /// # Ok::<(), qkernels::KernelError>(())
    /// ```
    pub fn pack_with<B: Operand>(
        isa: Isa,
        b: MatRef<'_, B>,
        layout: Layout,
        arithmetic: Arithmetic,
    ) -> Result<PackedB, KernelError> {
        if !arithmetic.takes(B::DTYPE) {
            return Err(KernelError::Arithmetic {
                what: "b",
                given: B::DTYPE,
                arithmetic,
            });
        }
        Self::pack_any(isa, b.into(), layout, arithmetic)
    }

    /// Not generic: kernels are compiled here.
    fn pack_any(
        isa: Isa,
        b: Matrix<'_>,
        layout: Layout,
        arithmetic: Arithmetic,
    ) -> Result<PackedB, KernelError> {
        struct Pack<'a>(Isa, Matrix<'a>, Layout);
        impl VisitKernel for Pack<'_> {
            type Output = Result<PackedB, KernelError>;
            fn visit<K: Microkernel>(self, tier: K::Home) -> Self::Output {
                let Pack(isa, b, layout) = self;
                with_typed!(b, b => PackedB::pack_for::<K, _>(tier, isa, b, layout))
            }
        }
        let mut packed = with_kernel(isa, arithmetic, Pack(isa, b, layout))?;
        packed.header.arithmetic = arithmetic;
        Ok(packed)
    }

    /// Packs for a kernel.
    pub(crate) fn pack_for<K: Microkernel, B: Operand>(
        tier: K::Home,
        isa: Isa,
        b: MatRef<'_, B>,
        layout: Layout,
    ) -> Result<PackedB, KernelError> {
        // What cannot be is not compiled.
        if const { !K::ARITHMETIC.takes(B::DTYPE) } {
            return Err(KernelError::Arithmetic {
                what: "b",
                given: B::DTYPE,
                arithmetic: K::ARITHMETIC,
            });
        }
        let b = match layout {
            Layout::RowMajor => b,
            Layout::Transposed => b.transposed(),
        };
        let (k, n) = (b.rows(), b.cols());
        if let Some(range) = B::DTYPE.int_range()
            && matches!(B::ARITHMETIC, Arithmetic::Int8)
        {
            crate::zero_point::check_depth(k, &Default::default(), (-1, 1), range)?;
        }
        let too_large = KernelError::TooLarge {
            rows: k,
            row_stride: b.row_stride().max(b.col_stride()),
        };
        let sizes = Sizes::new::<K>(k, n).ok_or(too_large.clone())?;
        let mut data = Pages::zeroed(sizes.bytes).ok_or(too_large.clone())?;
        let mut col_sums = zeroed::<i32>(sizes.sums).ok_or(too_large)?;
        let max_abs = tier.enter(PackInto::<B, K> {
            b,
            data: bytemuck::cast_slice_mut(&mut data.bytes_mut()[..sizes.bytes]),
            sums: &mut col_sums,
            kernel: PhantomData,
        });
        let header = Header {
            isa,
            kernel: K::ID,
            arithmetic: B::ARITHMETIC,
            dtype: B::DTYPE,
            k,
            n,
            max_abs,
        };
        let outliers = find_outliers(tier, &header, &data.bytes()[..sizes.bytes]);
        Ok(PackedB {
            header,
            data,
            col_sums,
            outliers,
        })
    }

    /// Copies packed elements and the bytes of column sums, whose sizes are those of the header.
    pub(crate) fn from_parts(
        header: Header,
        elements: &[u8],
        sums: &[u8],
    ) -> Result<PackedB, KernelError> {
        let too_large = KernelError::TooLarge {
            rows: header.k,
            row_stride: header.n,
        };
        let mut data = Pages::zeroed(elements.len()).ok_or(too_large.clone())?;
        data.bytes_mut()[..elements.len()].copy_from_slice(elements);
        let count = sums.len() / size_of::<i32>();
        let mut col_sums = zeroed::<i32>(count).ok_or(too_large)?;
        bytemuck::cast_slice_mut(&mut col_sums).copy_from_slice(sums);
        struct Find<'a>(&'a Header, &'a [u8]);
        impl Visit for Find<'_> {
            type Output = Option<Outliers>;
            fn visit<T: Tier>(self, tier: T) -> Self::Output {
                find_outliers(tier, self.0, self.1)
            }
        }
        let find = Find(&header, &data.bytes()[..elements.len()]);
        let outliers = header.isa.dispatch(find);
        Ok(PackedB {
            header,
            data,
            col_sums,
            outliers,
        })
    }

    /// A view of it.
    #[must_use]
    pub fn as_ref(&self) -> PackedRef<'_> {
        PackedRef {
            header: self.header,
            data: self.data.bytes(),
            col_sums: &self.col_sums,
            outliers: self.outliers.as_ref(),
        }
    }

    /// Depth: rows of B, columns of A.
    #[must_use]
    pub const fn k(&self) -> usize {
        self.header.k
    }

    /// Output columns.
    #[must_use]
    pub const fn n(&self) -> usize {
        self.header.n
    }

    /// The tier that it is packed for, and that [`gemm`](crate::gemm()) runs on.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.header.isa
    }

    /// How it is multiplied.
    #[must_use]
    pub const fn arithmetic(&self) -> Arithmetic {
        self.header.arithmetic
    }

    /// Element type of B before packing.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.header.dtype
    }

    /// Sum of every column of integers as they are packed: of u8, 128 is taken off every element.
    #[must_use]
    pub fn col_sums(&self) -> &[i32] {
        &self.col_sums[..self.header.n]
    }

    /// Bytes that the packed weights take, padding and what is known about them included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let outliers = self.outliers.as_ref().map_or(0, Outliers::bytes);
        self.data.bytes().len() + size_of_val(self.col_sums.as_slice()) + outliers
    }
}

impl<'a> From<&'a PackedB> for PackedRef<'a> {
    fn from(b: &'a PackedB) -> PackedRef<'a> {
        b.as_ref()
    }
}

impl<'a> PackedRef<'a> {
    /// Depth: rows of B, columns of A.
    #[must_use]
    pub const fn k(&self) -> usize {
        self.header.k
    }

    /// Output columns.
    #[must_use]
    pub const fn n(&self) -> usize {
        self.header.n
    }

    /// The tier that it is packed for, and that [`gemm`](crate::gemm()) runs on.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.header.isa
    }

    /// How it is multiplied.
    #[must_use]
    pub const fn arithmetic(&self) -> Arithmetic {
        self.header.arithmetic
    }

    /// Element type of B before packing.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.header.dtype
    }

    /// What was added to every element when it was packed.
    pub(crate) const fn shift(&self) -> i32 {
        shift_of(self.header.dtype)
    }

    /// Column sums with zeros for the padding.
    pub(crate) const fn padded_col_sums(&self) -> &'a [i32] {
        self.col_sums
    }

    /// The packed elements, if they are packed for this kernel.
    pub(crate) fn elements<K: Microkernel>(&self) -> Result<&'a [K::Rhs], KernelError> {
        if self.header.kernel != K::ID {
            return Err(KernelError::PackedFor {
                packed: self.header.kernel,
                asked: K::ID,
            });
        }
        let used = self.data.len() / size_of::<K::Rhs>() * size_of::<K::Rhs>();
        Ok(bytemuck::cast_slice(&self.data[..used]))
    }
}
