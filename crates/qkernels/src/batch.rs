//! Products of many pairs of matrices, B packed inside the call: activations by activations, as in
//! attention.

use core::marker::PhantomData;

use half::{bf16, f16};
use qformat::DType;

use crate::error::{check_len, check_shape};
use crate::gemm::{Call, Target, check_sums};
use crate::isa::Tier;
use crate::kernel::Microkernel;
use crate::operand::{Matrix, with_typed};
use crate::pack::{Header, PackInto, PackedRef, Sizes};
use crate::plan::{Plan, lines, part};
use crate::select::{VisitKernel, with_kernel};
use crate::source::Source;
use crate::view::span;
use crate::workspace::Line;
use crate::{
    Arithmetic, Epilogue, Isa, KernelError, MatMut, MatRef, Operand, OutMut, OutParams, Threads,
    Workspace, ZeroPoints,
};

/// Matrices of one shape in one slice, a fixed distance apart.
///
/// ```
/// use qkernels::BatchRef;
/// // Two heads of a sequence of three, side by side: rows of 2 × 4 elements.
/// let data: Vec<u8> = (0..24).collect();
/// let heads = BatchRef::with_strides(&data, 2, 4, 3, 4, 8)?;
/// assert_eq!(heads.get(1).unwrap().row(2), Some(&[20, 21, 22, 23][..]));
/// # Ok::<(), qkernels::KernelError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct BatchRef<'a, T> {
    data: &'a [T],
    count: usize,
    stride: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
    transposed: bool,
}

impl<'a, T> BatchRef<'a, T> {
    /// `count` matrices one after the other without gaps.
    ///
    /// # Errors
    ///
    /// As [`with_strides`](Self::with_strides).
    pub fn new(data: &'a [T], count: usize, rows: usize, cols: usize) -> Result<Self, KernelError> {
        Self::with_strides(data, count, rows.saturating_mul(cols), rows, cols, cols)
    }

    /// `count` matrices that start `stride` elements apart (0: the same one again and again), with
    /// rows `row_stride` elements apart.
    ///
    /// # Errors
    ///
    /// As [`MatRef::with_stride`], for the last matrix.
    pub fn with_strides(
        data: &'a [T],
        count: usize,
        stride: usize,
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Result<Self, KernelError> {
        check(data.len(), count, stride, rows, cols, row_stride)?;
        Ok(BatchRef {
            data,
            count,
            stride,
            rows,
            cols,
            row_stride,
            transposed: false,
        })
    }

    /// The same matrices with rows and columns exchanged; nothing is copied.
    #[must_use]
    pub const fn transposed(self) -> Self {
        BatchRef {
            transposed: !self.transposed,
            ..self
        }
    }

    /// Number of matrices.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Rows and columns of each matrix.
    #[must_use]
    pub const fn shape(&self) -> (usize, usize) {
        if self.transposed {
            (self.cols, self.rows)
        } else {
            (self.rows, self.cols)
        }
    }

    /// Matrix `i`, or `None` beyond the last.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<MatRef<'a, T>> {
        if i >= self.count {
            return None;
        }
        // An empty matrix has no place.
        let first = (i * self.stride).min(self.data.len());
        let data = &self.data[first..];
        let m = MatRef::with_stride(data, self.rows, self.cols, self.row_stride).ok()?;
        Some(if self.transposed { m.transposed() } else { m })
    }
}

/// Checks that the last of `count` matrices fits.
fn check(
    len: usize,
    count: usize,
    stride: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
) -> Result<(), KernelError> {
    let span = span(rows, cols, row_stride)?;
    let too_large = KernelError::TooLarge { rows, row_stride };
    let last = count.saturating_sub(1).checked_mul(stride);
    let last = last.ok_or(too_large.clone())?;
    // Everything that `get` multiplies stays below this, so it cannot overflow.
    let expected = if count == 0 || span == 0 {
        0
    } else {
        last.checked_add(span).ok_or(too_large)?
    };
    crate::view::check_data(len, expected)
}

/// Matrices to write, of one shape and in one slice, none of which overlap.
#[derive(Debug)]
pub struct BatchMut<'a, T> {
    data: &'a mut [T],
    count: usize,
    stride: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a, T> BatchMut<'a, T> {
    /// `count` matrices one after the other without gaps.
    ///
    /// # Errors
    ///
    /// As [`with_strides`](Self::with_strides).
    pub fn new(
        data: &'a mut [T],
        count: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Self, KernelError> {
        Self::with_strides(data, count, rows.saturating_mul(cols), rows, cols, cols)
    }

    /// `count` matrices that start `stride` elements apart, with rows `row_stride` apart: one after
    /// the other, or side by side in wide rows.
    ///
    /// # Errors
    ///
    /// [`KernelError::Overlap`] when two have an element in common, else as
    /// [`BatchRef::with_strides`].
    pub fn with_strides(
        data: &'a mut [T],
        count: usize,
        stride: usize,
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Result<Self, KernelError> {
        check(data.len(), count, stride, rows, cols, row_stride)?;
        let span = span(rows, cols, row_stride)?;
        let apart = stride >= span;
        // `check` has seen that this does not overflow, or there is no element at all.
        let beside = stride >= cols
            && row_stride
                >= count
                    .saturating_sub(1)
                    .saturating_mul(stride)
                    .saturating_add(cols);
        if count > 1 && span > 0 && !apart && !beside {
            return Err(KernelError::Overlap {
                count,
                stride,
                span,
            });
        }
        Ok(BatchMut {
            data,
            count,
            stride,
            rows,
            cols,
            row_stride,
        })
    }
}

/// Where the results of a batch go, and in which type; as [`OutMut`].
#[derive(Debug)]
pub enum BatchOut<'a> {
    /// The integer sums themselves.
    I32(BatchMut<'a, i32>),
    /// Scaled sums.
    F32(BatchMut<'a, f32>),
    /// Scaled sums, rounded to f16.
    F16(BatchMut<'a, f16>),
    /// Scaled sums, rounded to bf16.
    Bf16(BatchMut<'a, bf16>),
    /// Requantized to u8.
    U8(BatchMut<'a, u8>, OutParams),
    /// Requantized to i8.
    I8(BatchMut<'a, i8>, OutParams),
}

/// The first matrix of a batch of outputs, and how to get to the others.
#[derive(Clone, Copy)]
struct Targets<'a> {
    first: Target<'a>,
    /// Rows and columns of each.
    shape: (usize, usize),
    count: usize,
    /// Elements from matrix to matrix.
    stride: usize,
}

impl<'a> BatchOut<'a> {
    fn targets(self, epilogue: &Epilogue<'a>) -> Result<Targets<'a>, KernelError> {
        fn first<'a, T>(
            b: BatchMut<'a, T>,
            out: impl FnOnce(MatMut<'a, T>) -> OutMut<'a>,
            epilogue: &Epilogue<'a>,
        ) -> Result<Targets<'a>, KernelError> {
            // Made of the whole slice: the pointer may go to every matrix of it.
            let rows = if b.count == 0 { 0 } else { b.rows };
            let m = MatMut::with_stride(b.data, rows, b.cols, b.row_stride)?;
            Ok(Targets {
                first: Target::new(out(m), epilogue),
                shape: (b.rows, b.cols),
                count: b.count,
                stride: b.stride,
            })
        }
        match self {
            BatchOut::I32(b) => first(b, OutMut::I32, epilogue),
            BatchOut::F32(b) => first(b, OutMut::F32, epilogue),
            BatchOut::F16(b) => first(b, OutMut::F16, epilogue),
            BatchOut::Bf16(b) => first(b, OutMut::Bf16, epilogue),
            BatchOut::U8(b, p) => first(b, |m| OutMut::U8(m, p), epilogue),
            BatchOut::I8(b, p) => first(b, |m| OutMut::I8(m, p), epilogue),
        }
    }
}

/// `out[i] = epilogue((A[i] − Z_a) · (B[i] − Z_b))` for every `i`: A is `M × K`, B `K × N`, either
/// of them transposed if need be, B packed inside the call.
///
/// Zero points and epilogue are the same for all; a residual is not possible. Threads share out
/// the matrices, or each product where there are fewer of them than threads. Nothing is allocated
/// once the workspace is as large as [`Workspace::required_batch`] says.
///
/// # Errors
///
/// As [`gemm`](crate::gemm()), and [`KernelError::Length`] when the counts differ.
///
/// ```
/// use qkernels::{Arithmetic, BatchMut, BatchOut, BatchRef, Epilogue, Isa, Threads, Workspace};
/// use qkernels::{ZeroPoints, gemm_batch};
///
/// // Scores of two heads: Q · Kᵀ, each 1 × 2 by (2 × 2)ᵀ.
/// let (q, k) = ([1i8, 2, 3, 4], [1i8, 0, 0, 1, 1, 1, 2, 0]);
/// let mut scores = [0; 4];
/// gemm_batch(
///     Isa::detect(),
///     Arithmetic::Int8,
///     BatchRef::new(&q, 2, 1, 2)?,
///     BatchRef::new(&k, 2, 2, 2)?.transposed(),
///     ZeroPoints::default(),
///     &Epilogue::default(),
///     BatchOut::I32(BatchMut::new(&mut scores, 2, 1, 2)?),
///     &mut Workspace::new(),
///     Threads::Single,
/// )?;
/// assert_eq!(scores, [1, 2, 7, 6]);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
#[allow(
    clippy::too_many_arguments,
    reason = "those of gemm, and how it multiplies"
)]
pub fn gemm_batch<A: Operand, B: Operand>(
    isa: Isa,
    arithmetic: Arithmetic,
    a: BatchRef<'_, A>,
    b: BatchRef<'_, B>,
    zp: ZeroPoints<'_>,
    epilogue: &Epilogue<'_>,
    out: BatchOut<'_>,
    ws: &mut Workspace,
    threads: Threads<'_>,
) -> Result<(), KernelError> {
    for (what, given) in [("a", A::DTYPE), ("b", B::DTYPE)] {
        if !arithmetic.takes(given) {
            return Err(KernelError::Arithmetic {
                what,
                given,
                arithmetic,
            });
        }
    }
    run(RunBatch {
        isa,
        arithmetic,
        a: &a,
        b: &b,
        zp,
        epilogue,
        targets: out.targets(epilogue)?,
        ws,
        threads,
    })
}

/// Not generic: kernels are compiled here.
fn run(run: RunBatch<'_, '_>) -> Result<(), KernelError> {
    let RunBatch {
        isa,
        arithmetic,
        a,
        b,
        ref targets,
        epilogue,
        ..
    } = run;
    check_len("matrices of b", b.count(), a.count())?;
    check_len("matrices of out", targets.count, a.count())?;
    if epilogue.residual.is_some() {
        return Err(KernelError::Epilogue {
            step: "residual",
            output: targets.first.dtype,
            hint: "call gemm for each matrix",
        });
    }
    with_kernel(isa, arithmetic, run)
}

/// Matrices of a batch, whichever type they have.
trait Matrices: Sync {
    fn count(&self) -> usize;
    fn shape(&self) -> (usize, usize);
    fn dtype(&self) -> DType;
    fn get(&self, i: usize) -> Option<Matrix<'_>>;
}

impl<T: Operand> Matrices for BatchRef<'_, T> {
    fn count(&self) -> usize {
        self.count
    }
    fn shape(&self) -> (usize, usize) {
        BatchRef::shape(self)
    }
    fn dtype(&self) -> DType {
        T::DTYPE
    }
    fn get(&self, i: usize) -> Option<Matrix<'_>> {
        BatchRef::get(self, i).map(Matrix::from)
    }
}

struct RunBatch<'c, 'w> {
    isa: Isa,
    arithmetic: Arithmetic,
    a: &'c dyn Matrices,
    b: &'c dyn Matrices,
    zp: ZeroPoints<'c>,
    epilogue: &'c Epilogue<'c>,
    targets: Targets<'c>,
    ws: &'w mut Workspace,
    threads: Threads<'c>,
}

/// How a batch is cut up and what memory it takes.
struct Layout {
    plan: Plan,
    sizes: Sizes,
    /// Shares of matrices; each product is on one thread if there is more than one.
    shares: usize,
    data_lines: usize,
    sum_lines: usize,
}

impl Layout {
    fn new<K: Microkernel>(
        count: usize,
        (m, n, k): (usize, usize, usize),
        threads: usize,
    ) -> Result<Layout, KernelError> {
        let sizes = Sizes::new::<K>(k, n).ok_or(KernelError::TooLarge {
            rows: k,
            row_stride: n,
        })?;
        let shares = if count >= threads { threads } else { 1 };
        let within = if shares > 1 { 1 } else { threads };
        Ok(Layout {
            plan: Plan::new::<K>(m, n, k, within),
            sizes,
            shares,
            data_lines: lines(sizes.bytes, 1),
            sum_lines: lines(sizes.sums, size_of::<i32>()),
        })
    }

    /// Lines of one share.
    fn share(&self) -> usize {
        self.plan
            .total_lines()
            .saturating_add(self.data_lines)
            .saturating_add(self.sum_lines)
    }

    fn total(&self) -> usize {
        self.share().saturating_mul(self.shares)
    }
}

impl VisitKernel for RunBatch<'_, '_> {
    type Output = Result<(), KernelError>;

    fn visit<K: Microkernel>(self, tier: K::Home) -> Self::Output {
        let ((m, k), (_, n)) = (self.a.shape(), self.b.shape());
        let layout = Layout::new::<K>(self.a.count(), (m, n, k), self.threads.count())?;
        self.check::<K>()?;
        if self.a.count() == 0 || m == 0 || n == 0 {
            return Ok(());
        }
        let Self {
            isa,
            arithmetic,
            a,
            b,
            zp,
            epilogue,
            targets,
            ws,
            threads,
        } = self;
        let mem = ws.lines(layout.total())?;
        let dtype = b.dtype();
        let within = if layout.shares > 1 {
            Threads::Single
        } else {
            threads
        };
        let work = |share: usize, mem: &mut [Line]| {
            let (data, mem) = mem.split_at_mut(layout.data_lines);
            let (sums, mem) = mem.split_at_mut(layout.sum_lines);
            let data: &mut [u8] = bytemuck::cast_slice_mut(data);
            let data = &mut data[..layout.sizes.bytes];
            let sums: &mut [i32] = bytemuck::cast_slice_mut(sums);
            let sums = &mut sums[..layout.sizes.sums];
            for i in part(a.count(), layout.shares, share) {
                let (Some(a), Some(b)) = (a.get(i), b.get(i)) else {
                    return;
                };
                let max_abs = with_typed!(b, b => pack_part::<_, K>(tier, b, data, sums));
                let header = header::<K>(isa, arithmetic, dtype, (k, n), max_abs);
                let packed = PackedRef {
                    header,
                    data,
                    col_sums: sums,
                    outliers: None,
                };
                let mut target = targets.first;
                // SAFETY: `i` is below the count, all of whose matrices lie inside the slice that
                // the output was made of, none overlaps another, and this share alone has this one.
                target.out = unsafe { target.out.moved(i * targets.stride) };
                // All of it was checked before anything was written.
                let call = Call::new(a.into(), packed, zp, epilogue, target, within);
                debug_assert!(call.check().is_ok());
                let done = call.run::<K>(tier, &layout.plan, mem);
                debug_assert!(done.is_ok());
            }
        };
        if layout.shares > 1 {
            threads.for_each(layout.shares, mem, layout.share(), &work);
        } else {
            work(0, mem);
        }
        Ok(())
    }
}

/// Packs one matrix of a batch, whose type was checked: what cannot be is not compiled.
fn pack_part<B: Operand, K: Microkernel>(
    tier: K::Home,
    b: MatRef<'_, B>,
    data: &mut [u8],
    sums: &mut [i32],
) -> u32 {
    if const { !K::ARITHMETIC.takes(B::DTYPE) } {
        return 0;
    }
    tier.enter(PackInto::<B, K> {
        b,
        data: bytemuck::cast_slice_mut(data),
        sums,
        kernel: PhantomData,
    })
}

fn header<K: Microkernel>(
    isa: Isa,
    arithmetic: Arithmetic,
    dtype: DType,
    (k, n): (usize, usize),
    max_abs: u32,
) -> Header {
    Header {
        isa,
        kernel: K::ID,
        arithmetic,
        dtype,
        k,
        n,
        max_abs,
    }
}

impl RunBatch<'_, '_> {
    /// Everything that can be wrong, before anything is written.
    fn check<K: Microkernel>(&self) -> Result<(), KernelError> {
        let ((m, k), (_, n)) = (self.a.shape(), self.b.shape());
        check_shape("b", self.b.shape(), (k, n))?;
        let empty = PackedRef {
            header: header::<K>(self.isa, self.arithmetic, self.b.dtype(), (k, n), 0),
            data: &[],
            col_sums: &[],
            outliers: None,
        };
        let target = self.targets.first;
        check_shape("out", self.targets.shape, (m, n))?;
        self.epilogue
            .check(target.dtype, (m, n), target.params, self.arithmetic)?;
        // Bytes have the bounds of their type; of i16 every pair is looked at.
        // Without any there is nothing to look at, however many they are said to be.
        let some = m > 0 && n > 0 && k > 0;
        let looked_at = if self.arithmetic == Arithmetic::Int16 && some {
            self.a.count()
        } else {
            self.a.count().min(1)
        };
        for i in 0..looked_at {
            let (Some(a), Some(b)) = (self.a.get(i), self.b.get(i)) else {
                break;
            };
            let mut packed = empty;
            if self.b.dtype() == DType::I16 {
                let (lo, hi) = Source::from(b).range();
                packed.header.max_abs = lo.unsigned_abs().max(hi.unsigned_abs());
            }
            check_sums(&a.into(), &packed, self.zp, self.epilogue)?;
        }
        Ok(())
    }
}

impl Workspace {
    /// Bytes that [`gemm_batch`] needs for `count` products of `m × k` by `k × n`.
    ///
    /// # Errors
    ///
    /// [`KernelError::TooLarge`] when the packed B cannot fit memory.
    pub fn required_batch(
        isa: Isa,
        arithmetic: Arithmetic,
        count: usize,
        (m, n, k): (usize, usize, usize),
        threads: Threads<'_>,
    ) -> Result<usize, KernelError> {
        struct Required(usize, (usize, usize, usize), usize);
        impl VisitKernel for Required {
            type Output = Result<usize, KernelError>;
            fn visit<K: Microkernel>(self, _tier: K::Home) -> Self::Output {
                let layout = Layout::new::<K>(self.0, self.1, self.2)?;
                Ok(layout.total().saturating_mul(size_of::<Line>()))
            }
        }
        with_kernel(isa, arithmetic, Required(count, (m, n, k), threads.count()))
    }
}
