//! Products of floats with quantized weights: A is quantized while it is packed.

use qformat::{DType, FormatError, QParams, Scheme, rne};

use crate::elementwise::Elementwise;
use crate::error::check_shape;
use crate::gemm::{self, Call};
use crate::isa::{Task, Tier};
use crate::kernel::Microkernel;
use crate::pack::PackedRef;
use crate::plan::{Plan, lines};
use crate::quantize::{Divisor, Target};
use crate::reduce::Range;
use crate::select::{VisitKernel, with_byte_kernel_for};
use crate::source::{Gather, Source, source};
use crate::workspace::Line;
use crate::{
    Arithmetic, Epilogue, Isa, KernelError, MatRef, MinMax, OutMut, Threads, Workspace, ZeroPoint,
    ZeroPoints,
};

/// How activations are quantized when they arrive ("dynamic" quantization).
///
/// The range is that of the finite values and of 0. What is not finite does not widen it: ±∞
/// saturates and NaN takes the lowest value, as in [`quantize`](crate::quantize()).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dynamic {
    /// u8 with one range for all of A, as ONNX `DynamicQuantizeLinear`: [`dynamic_params`].
    #[default]
    Tensor,
    /// u8 with a range of its own for every row.
    Row,
    /// i8 in [−127, 127] without a zero point, one scale for all of A: `max|a| / 127`.
    SymmetricTensor,
    /// i8 in [−127, 127] without a zero point, a scale for every row.
    SymmetricRow,
}

impl Dynamic {
    /// Type that A is quantized to.
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            Dynamic::Tensor | Dynamic::Row => DType::U8,
            Dynamic::SymmetricTensor | Dynamic::SymmetricRow => DType::I8,
        }
    }

    /// Whether every row has a range of its own.
    #[must_use]
    pub const fn per_row(self) -> bool {
        matches!(self, Dynamic::Row | Dynamic::SymmetricRow)
    }

    fn params(self, min: f32, max: f32) -> Result<QParams, FormatError> {
        match self.dtype() {
            DType::U8 => dynamic_params(min, max),
            dtype => QParams::from_range(min, max, dtype, Scheme::Symmetric),
        }
    }
}

/// Parameters of ONNX `DynamicQuantizeLinear` for values from `min` to `max`, in f32 as the
/// standard defines them: `S = (max − min) / 255` with the range widened to hold 0,
/// `Z = saturate(rne(−min / S))`; a tensor of zeros has the scale 1.
///
/// # Errors
///
/// [`FormatError`] when the scale is not a positive number: an end is NaN, or they are so far apart
/// that f32 cannot hold the range.
///
/// ```
/// let p = qkernels::dynamic_params(-1.0, 4.1)?;
/// assert_eq!((p.scale(), p.zero_point()), (5.1 / 255.0, 50));
/// # Ok::<(), qformat::FormatError>(())
/// ```
pub fn dynamic_params(min: f32, max: f32) -> Result<QParams, FormatError> {
    // NaN stays, which `f32::min` would drop.
    let zero_or = |end: f32, beyond: bool| if beyond { 0.0 } else { end };
    let (min, max) = (zero_or(min, min > 0.0), zero_or(max, max < 0.0));
    let scale = match (max - min) / 255.0 {
        0.0 => 1.0,
        s => s,
    };
    // A float-to-integer cast saturates.
    let zero = (rne(-min / scale) as i32).clamp(0, 255);
    QParams::new(scale, zero, DType::U8, Scheme::Affine)
}

/// `out = epilogue(quantize(A) · B)` with A in f32: the ranges are found, A is quantized while
/// it is packed, multiplied in exact i32, and scaled by `S_a · S_b` (rounded once, then multiplied
/// with the sum), where `S_b` is the epilogue's `scale`. An i32 output takes the sums as they are, which
/// is of use where the whole tensor has one scale; sums of rows with scales of their own are refused.
///
/// The bits are those of doing it in steps: `DynamicQuantizeLinear`, `MatMulInteger`, `Cast` and
/// two `Mul` of ONNX for [`Dynamic::Tensor`]. `b_zero` are the zero points of B.
///
/// # Errors
///
/// As [`gemm`](crate::gemm()), [`KernelError::DynamicRange`] when a range has no scale, and
/// [`KernelError::Epilogue`] for a `row_scale`, which is A's here, and for i32 sums of rows that have
/// scales.
///
/// ```
/// use qkernels::{Dynamic, Epilogue, Isa, Layout, MatMut, MatRef, OutMut, PackedB, Scale, Threads};
/// use qkernels::{Workspace, ZeroPoint, gemm_dynamic};
///
/// let weights = MatRef::new(&[100i8, -50, 0, 127], 2, 2)?;
/// let weights = PackedB::pack(Isa::detect(), weights, Layout::RowMajor)?;
/// let mut out = [0f32; 2];
/// gemm_dynamic(
///     MatRef::new(&[0.5f32, -0.25], 1, 2)?,
///     &weights,
///     ZeroPoint::Tensor(0),
///     Dynamic::Tensor,
///     &Epilogue { scale: Scale::Tensor(0.01), ..Epilogue::default() },
///     OutMut::F32(MatMut::new(&mut out, 1, 2)?),
///     &mut Workspace::new(),
///     Threads::Single,
/// )?;
/// assert!((out[0] - 0.5).abs() < 0.01 && (out[1] - -0.5675).abs() < 0.01);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
#[allow(
    clippy::too_many_arguments,
    reason = "those of gemm, and how A is quantized"
)]
pub fn gemm_dynamic<'b>(
    a: MatRef<'_, f32>,
    b: impl Into<PackedRef<'b>>,
    b_zero: ZeroPoint<'_>,
    how: Dynamic,
    epilogue: &Epilogue<'_>,
    out: OutMut<'_>,
    ws: &mut Workspace,
    threads: Threads<'_>,
) -> Result<(), KernelError> {
    run(RunDynamic {
        a,
        b: b.into(),
        b_zero,
        how,
        epilogue,
        out,
        ws,
        threads,
    })
}

/// Not generic: kernels are compiled here.
fn run(call: RunDynamic<'_, '_>) -> Result<(), KernelError> {
    if call.epilogue.row_scale.is_some() {
        return Err(KernelError::Epilogue {
            step: "row_scale",
            output: call.out.dtype(),
            hint: "the scales of rows come from A itself",
        });
    }
    // Before memory is taken, and A read.
    let (b, rows) = (call.b, call.a.rows());
    check_shape("a", (rows, call.a.cols()), (rows, b.k()))?;
    check_shape("out", call.out.shape(), (rows, b.n()))?;
    let params = call.out.params();
    let of_call = Epilogue {
        row_scale: None,
        ..*call.epilogue
    };
    of_call.check(call.out.dtype(), (rows, b.n()), params, Arithmetic::Int8)?;
    if rows == 0 || b.n() == 0 {
        return Ok(());
    }
    with_byte_kernel_for(&b, rows, call)
}

/// Elements of a transposed view that are taken at a time, on the stack.
const BUFFER: usize = 64;

/// Calls `work` with the elements of row `i` from `k0` on, `count` of them in parts: one, or of a
/// transposed view those of a buffer.
#[inline(always)]
fn parts(
    a: &MatRef<'_, f32>,
    i: usize,
    k0: usize,
    count: usize,
    mut work: impl FnMut(usize, &[f32]),
) {
    if let Some(row) = a.row(i) {
        return work(0, &row[k0..][..count]);
    }
    let mut buffer = [0f32; BUFFER];
    let mut elements = a.elements(i).skip(k0);
    for at in (0..count).step_by(BUFFER) {
        let part = &mut buffer[..BUFFER.min(count - at)];
        for (to, x) in part.iter_mut().zip(&mut elements) {
            *to = x;
        }
        work(at, part);
    }
}

/// The range of row `i`.
#[inline(always)]
fn range<T: Tier>(tier: T, a: &MatRef<'_, f32>, i: usize) -> MinMax {
    let mut found = MinMax::default();
    parts(a, i, 0, a.cols(), |_, x| {
        found = found.merge(Range { x }.run(tier));
    });
    found
}

/// What quantizes a tensor or a row.
struct By {
    dtype: DType,
    divisor: Divisor,
    target: Target,
}

impl By {
    /// `None` for parameters that are none of [`Dynamic`].
    #[inline(always)]
    fn new(params: &QParams) -> Option<By> {
        let dtype = params.dtype();
        Some(By {
            dtype,
            divisor: Divisor::new(params.scale(), dtype.bits()),
            target: Target::new(params)?,
        })
    }

    /// Quantizes the elements of row `i` from `k0` on.
    #[inline(always)]
    fn quantize<T: Tier>(&self, tier: T, a: &MatRef<'_, f32>, i: usize, k0: usize, out: &mut [u8]) {
        let ops = tier.elementwise();
        parts(a, i, k0, out.len(), |at, x| {
            let out = &mut out[at..][..x.len()];
            match self.dtype {
                DType::U8 => ops.quantize::<u8>(x, &self.divisor, &self.target, out),
                _ => {
                    let out = bytemuck::cast_slice_mut(out);
                    ops.quantize::<i8>(x, &self.divisor, &self.target, out);
                }
            }
        });
    }
}

/// A in f32 of which all rows have one range: quantized while it is packed.
struct Quantized<'a> {
    isa: Isa,
    a: MatRef<'a, f32>,
    by: By,
}

/// A part of a row of it.
struct Fill<'a> {
    from: &'a Quantized<'a>,
    i: usize,
    k0: usize,
    out: &'a mut [u8],
}

impl Task for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, tier: T) {
        let Quantized { a, by, .. } = self.from;
        by.quantize(tier, a, self.i, self.k0, self.out);
    }
}

impl Gather for Quantized<'_> {
    fn rows(&self) -> usize {
        self.a.rows()
    }

    fn depth(&self) -> usize {
        self.a.cols()
    }

    fn dtype(&self) -> DType {
        self.by.dtype
    }

    fn lies(&self) -> Option<(*const u8, usize)> {
        let first = self.a.row(0)?;
        let bytes = self.a.row_stride().saturating_mul(size_of::<f32>());
        Some((first.as_ptr().cast(), bytes))
    }

    fn fill(&self, i: usize, k0: usize, out: &mut [u8]) {
        let from = self;
        self.isa.enter_shared(Fill { from, i, k0, out });
    }
}

/// What a row or a part of a tensor turned out to be.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Found {
    /// The finite values' ends, or 0.
    min: f32,
    max: f32,
    /// 0 where the range has none.
    scale: f32,
    zero_point: i32,
}

impl From<MinMax> for Found {
    #[inline(always)]
    fn from(ends: MinMax) -> Found {
        Found {
            min: ends.min.unwrap_or(0.0),
            max: ends.max.unwrap_or(0.0),
            scale: 0.0,
            zero_point: 0,
        }
    }
}

/// The range of some rows.
struct Ends<'a> {
    a: MatRef<'a, f32>,
    rows: core::ops::Range<usize>,
}

impl Task for Ends<'_> {
    type Output = MinMax;

    #[inline(always)]
    fn run<T: Tier>(self, tier: T) -> MinMax {
        let Ends { a, rows } = self;
        if let Some(all) = a.contiguous() {
            let x = &all[rows.start * a.cols()..rows.end * a.cols()];
            return Range { x }.run(tier);
        }
        rows.fold(MinMax::default(), |found, i| {
            found.merge(range(tier, &a, i))
        })
    }
}

/// Rows that are quantized each by its own range: read from memory once. A row of `mem` is its bytes,
/// and in its last line what was found.
struct Rows<'a, 'm> {
    a: MatRef<'a, f32>,
    how: Dynamic,
    rows: core::ops::Range<usize>,
    row_lines: usize,
    mem: &'m mut [Line],
}

impl Task for Rows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, tier: T) {
        let Rows { a, how, .. } = self;
        for (i, row) in self.rows.zip(self.mem.chunks_exact_mut(self.row_lines)) {
            let mut found = Found::from(range(tier, &a, i));
            let (row, last) = row.split_at_mut(self.row_lines - 1);
            let params = how.params(found.min, found.max).ok();
            if let Some((params, by)) = params.and_then(|p| Some((p, By::new(&p)?))) {
                (found.scale, found.zero_point) = (params.scale(), params.zero_point());
                let row: &mut [u8] = bytemuck::cast_slice_mut(row);
                by.quantize(tier, &a, i, 0, &mut row[..a.cols()]);
            }
            bytemuck::cast_slice_mut(last)[0] = found;
        }
    }
}

/// Lines of a row that is quantized ahead: not a multiple of 512 bytes, or the rows of a tile would
/// compete for a few sets of L1.
fn row_lines(k: usize) -> usize {
    let lines = lines(k, 1).saturating_add(1);
    lines.saturating_add(usize::from(lines.is_multiple_of(8)))
}

/// Elements that are worth another thread.
const SHARE: usize = 1 << 16;

/// How many shares of A at most are looked at.
fn shares(m: usize, k: usize, threads: usize) -> usize {
    (m.saturating_mul(k) / SHARE).min(threads).max(1)
}

/// Lines that a call needs besides those of the product: of scales and of zero points, each, and of
/// what is found by so many shares.
fn extra_lines(how: Dynamic, (m, k): (usize, usize), shares: usize) -> (usize, usize) {
    if how.per_row() {
        let rows = m.div_ceil(shares).saturating_mul(shares);
        (
            lines(m, size_of::<f32>()),
            rows.saturating_mul(row_lines(k)),
        )
    } else {
        (1, shares)
    }
}

struct RunDynamic<'c, 'w> {
    a: MatRef<'c, f32>,
    b: PackedRef<'c>,
    b_zero: ZeroPoint<'c>,
    how: Dynamic,
    epilogue: &'c Epilogue<'c>,
    out: OutMut<'c>,
    ws: &'w mut Workspace,
    threads: Threads<'c>,
}

/// A in f32, and who looks at it.
#[derive(Clone, Copy)]
struct Activations<'a> {
    a: MatRef<'a, f32>,
    how: Dynamic,
    isa: Isa,
    threads: Threads<'a>,
    /// Shares of rows.
    shares: usize,
}

impl Activations<'_> {
    /// The parameters of all of A.
    fn tensor(&self, mem: &mut [Line]) -> Result<QParams, KernelError> {
        // In the order of memory: the whole range knows no order.
        let a = if self.a.is_row_major() {
            self.a
        } else {
            self.a.transposed()
        };
        let isa = self.isa;
        let rows = a.rows().div_ceil(self.shares).max(1);
        let count = a.rows().div_ceil(rows);
        self.threads.for_each(count, mem, 1, &|share, mem| {
            let start = share * rows;
            let rows = start..a.rows().min(start + rows);
            let ends = isa.enter_shared(Ends { a, rows });
            bytemuck::cast_slice_mut(mem)[0] = Found::from(ends);
        });
        let found = |line: &Line| -> Found { bytemuck::cast_slice(core::slice::from_ref(line))[0] };
        // 0 is in the range of all that there are.
        let ends = mem[..count].iter().fold((0f32, 0f32), |(min, max), line| {
            (found(line).min.min(min), found(line).max.max(max))
        });
        self.params(None, ends)
    }

    fn params(&self, row: Option<usize>, (min, max): (f32, f32)) -> Result<QParams, KernelError> {
        self.how
            .params(min, max)
            .map_err(|_| KernelError::DynamicRange { row, min, max })
    }

    /// Quantizes all rows, and takes out their scales and zero points.
    fn rows(
        &self,
        mem: &mut [Line],
        scales: &mut [f32],
        zero_points: &mut [i32],
    ) -> Result<(), KernelError> {
        let Activations { a, how, isa, .. } = *self;
        let (m, row_lines) = (a.rows(), row_lines(a.cols()));
        let rows = m.div_ceil(self.shares).max(1);
        let count = m.div_ceil(rows);
        self.threads
            .for_each(count, mem, rows * row_lines, &|share, mem| {
                let start = share * rows;
                isa.enter_shared(Rows {
                    a,
                    how,
                    rows: start..m.min(start + rows),
                    row_lines,
                    mem,
                });
            });
        let params = scales.iter_mut().zip(zero_points).enumerate().take(m);
        for ((row, (scale, zero_point)), lines) in params.zip(mem.chunks_exact(row_lines)) {
            let found: &[Found] = bytemuck::cast_slice(&lines[row_lines - 1..]);
            let found = found[0];
            if found.scale == 0.0 {
                // Says what is wrong with it.
                self.params(Some(row), (found.min, found.max))?;
            }
            (*scale, *zero_point) = (found.scale, found.zero_point);
        }
        Ok(())
    }
}

impl VisitKernel for RunDynamic<'_, '_> {
    type Output = Result<(), KernelError>;

    fn visit<K: Microkernel>(self, tier: K::Home) -> Self::Output {
        let Self { a, b, how, .. } = self;
        let (m, n, k) = (a.rows(), b.n(), b.k());
        let threads = self.threads.count();
        let plan = Plan::new::<K>(m, n, k, threads);
        let shares = shares(m, k, threads);
        let (group_lines, found_lines) = extra_lines(how, (m, k), shares);
        let total = plan
            .total_lines()
            .saturating_add(group_lines.saturating_mul(2))
            .saturating_add(found_lines);
        let (scales, mem) = self.ws.lines(total)?.split_at_mut(group_lines);
        let (zero_points, mem) = mem.split_at_mut(group_lines);
        let (found, mem) = mem.split_at_mut(found_lines);
        let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
        let zero_points: &mut [i32] = bytemuck::cast_slice_mut(zero_points);

        let activations = Activations {
            a,
            how,
            isa: b.isa(),
            threads: self.threads,
            shares,
        };
        let mut epilogue = *self.epilogue;
        let gathered;
        let (source, zero_point, a_scale) = if how.per_row() {
            activations.rows(found, scales, zero_points)?;
            epilogue.row_scale = Some(&scales[..m]);
            let stride = row_lines(k) * size_of::<Line>();
            let bytes: &[u8] = bytemuck::cast_slice(found);
            if how.dtype() == DType::U8 {
                let a = MatRef::with_stride(bytes, m, k, stride)?;
                (source(a), ZeroPoint::Vector(&zero_points[..m]), None)
            } else {
                let a = MatRef::with_stride(bytemuck::cast_slice::<_, i8>(bytes), m, k, stride)?;
                (source(a), ZeroPoint::Tensor(0), None)
            }
        } else {
            let params = activations.tensor(found)?;
            let Some(by) = By::new(&params) else {
                unreachable!("bytes are narrow enough")
            };
            gathered = Quantized {
                isa: b.isa(),
                a,
                by,
            };
            let zero_point = ZeroPoint::Tensor(params.zero_point());
            (Source::Gather(&gathered), zero_point, Some(params.scale()))
        };
        let zp = ZeroPoints {
            a: zero_point,
            b: self.b_zero,
        };
        let target = gemm::Target::new(self.out, &epilogue);
        let mut call = Call::new(source, b, zp, &epilogue, target, self.threads);
        call.operands.a_scale = a_scale;
        call.check()?;
        call.run::<K>(tier, &plan, mem)
    }
}

impl Workspace {
    /// Bytes that [`gemm_dynamic`] needs, as [`required`](Self::required).
    #[must_use]
    pub fn required_dynamic(
        isa: Isa,
        how: Dynamic,
        m: usize,
        n: usize,
        k: usize,
        threads: Threads<'_>,
    ) -> usize {
        let (group_lines, found_lines) = extra_lines(how, (m, k), shares(m, k, threads.count()));
        let lines = group_lines.saturating_mul(2).saturating_add(found_lines);
        Workspace::required(isa, m, n, k, threads)
            .saturating_add(lines.saturating_mul(size_of::<Line>()))
    }
}
