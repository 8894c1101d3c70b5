//! Products of floats with quantized weights: A is quantized while it is packed.

use qformat::{DType, FormatError, QParams, Scheme, rne};

use crate::error::check_shape;
use crate::gemm::{self, Call};
use crate::kernel::Microkernel;
use crate::pack::PackedRef;
use crate::plan::{Plan, lines};
use crate::quantize::{Divisor, Target, quantize_by};
use crate::select::{VisitKernel, with_byte_kernel_for};
use crate::source::{Gather, Source};
use crate::{
    Arithmetic, Epilogue, Isa, KernelError, MatRef, MinMax, OutMut, Threads, Workspace, ZeroPoint,
    ZeroPoints, min_max,
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

    fn params(self, found: MinMax) -> Result<QParams, FormatError> {
        let (min, max) = (found.min.unwrap_or(0.0), found.max.unwrap_or(0.0));
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

/// A in f32, and what it is quantized by.
struct Quantized<'a> {
    isa: Isa,
    a: MatRef<'a, f32>,
    how: Dynamic,
    /// One, or one a row.
    scales: &'a [f32],
    zero_points: &'a [i32],
    /// What the parameters of all rows come to, if they are the same.
    same: Option<(Divisor, Target)>,
}

impl Quantized<'_> {
    /// What the parameters of row `i` come to.
    fn params(&self, i: usize) -> Option<(Divisor, Target)> {
        if self.same.is_some() {
            return self.same;
        }
        let scheme = match self.how.dtype() {
            DType::U8 => Scheme::Affine,
            _ => Scheme::Symmetric,
        };
        let (scale, zero_point) = (*self.scales.get(i)?, *self.zero_points.get(i)?);
        let dtype = self.how.dtype();
        let params = QParams::new(scale, zero_point, dtype, scheme).ok()?;
        let target = Target::new(&params)?;
        Some((Divisor::new(scale, dtype.bits()), target))
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
        self.how.dtype()
    }

    fn fill(&self, i: usize, k0: usize, out: &mut [u8]) {
        // These were made from valid parameters, and the lengths are equal.
        let Some(params) = self.params(i) else { return };
        let one = |x: &[f32], out: &mut [u8]| match self.how.dtype() {
            DType::U8 => quantize_by(self.isa, x, &params, out),
            _ => quantize_by::<i8>(self.isa, x, &params, bytemuck::cast_slice_mut(out)),
        };
        match self.a.row(i) {
            Some(row) => one(&row[k0..][..out.len()], out),
            // A transposed view: through a buffer.
            None => {
                let mut buffer = [0f32; BUFFER];
                let mut elements = self.a.elements(i).skip(k0);
                for out in out.chunks_mut(buffer.len()) {
                    for (to, x) in buffer[..out.len()].iter_mut().zip(&mut elements) {
                        *to = x;
                    }
                    one(&buffer[..out.len()], out);
                }
            }
        }
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

/// The range of row `i`.
fn range(isa: Isa, a: &MatRef<'_, f32>, i: usize) -> MinMax {
    if let Some(row) = a.row(i) {
        return min_max(isa, row);
    }
    // A transposed view: through a buffer.
    let mut found = MinMax::default();
    let mut buffer = [0f32; BUFFER];
    let mut elements = a.elements(i);
    for at in (0..a.cols()).step_by(BUFFER) {
        let part = &mut buffer[..BUFFER.min(a.cols() - at)];
        for (to, x) in part.iter_mut().zip(&mut elements) {
            *to = x;
        }
        found = found.merge(min_max(isa, part));
    }
    found
}

/// Numbers of scales and zero points that a call needs.
fn groups(how: Dynamic, m: usize) -> usize {
    if how.per_row() { m } else { 1 }
}

impl VisitKernel for RunDynamic<'_, '_> {
    type Output = Result<(), KernelError>;

    fn visit<K: Microkernel>(self, tier: K::Home) -> Self::Output {
        let Self { a, b, how, .. } = self;
        let isa = b.isa();
        let groups = groups(how, a.rows());
        let (n, k) = (b.n(), b.k());
        let plan = Plan::new::<K>(a.rows(), n, k, self.threads.count());
        let group_lines = lines(groups, size_of::<f32>());
        let total = plan
            .total_lines()
            .saturating_add(group_lines.saturating_mul(2));
        let (scales, mem) = self.ws.lines(total)?.split_at_mut(group_lines);
        let (zero_points, mem) = mem.split_at_mut(group_lines);
        let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
        let zero_points: &mut [i32] = bytemuck::cast_slice_mut(zero_points);

        for (group, (scale, zero_point)) in scales[..groups]
            .iter_mut()
            .zip(&mut *zero_points)
            .enumerate()
        {
            let found = if how.per_row() {
                range(isa, &a, group)
            } else {
                // In the order of memory: the whole range knows no order.
                let a = if a.is_row_major() { a } else { a.transposed() };
                if let Some(all) = a.contiguous() {
                    min_max(isa, all)
                } else {
                    (0..a.rows()).fold(MinMax::default(), |f, i| f.merge(range(isa, &a, i)))
                }
            };
            let params = how.params(found).map_err(|_| KernelError::DynamicRange {
                row: if how.per_row() { Some(group) } else { None },
                min: found.min.unwrap_or(0.0),
                max: found.max.unwrap_or(0.0),
            })?;
            (*scale, *zero_point) = (params.scale(), params.zero_point());
        }
        let mut quantized = Quantized {
            isa,
            a,
            how,
            scales: &scales[..groups],
            zero_points: &zero_points[..groups],
            same: None,
        };
        if !how.per_row() {
            quantized.same = quantized.params(0);
        }
        let zp = ZeroPoints {
            a: match how {
                Dynamic::Row => ZeroPoint::Vector(&zero_points[..groups]),
                Dynamic::SymmetricRow => ZeroPoint::Tensor(0),
                _ => ZeroPoint::Tensor(zero_points[0]),
            },
            b: self.b_zero,
        };
        let mut epilogue = *self.epilogue;
        if how.per_row() {
            epilogue.row_scale = Some(&scales[..groups]);
        }
        let target = gemm::Target::new(self.out, &epilogue);
        let a = Source::Gather(&quantized);
        let mut call = Call::new(a, b, zp, &epilogue, target, self.threads)?;
        if !how.per_row() {
            call.operands.a_scale = Some(scales[0]);
        }
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
        let groups = lines(groups(how, m), size_of::<f32>()).saturating_mul(2);
        Workspace::required(isa, m, n, k, threads).saturating_add(groups.saturating_mul(64))
    }
}
