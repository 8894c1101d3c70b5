//! Matrix products: the call, its checks, and the choice of what to run.

use qformat::DType;

use crate::direct::{Direct, DirectPlan};
use crate::driver::{self, Operands};
use crate::error::check_shape;
use crate::kernel::Microkernel;
use crate::out::Out;
use crate::pack::PackedRef;
use crate::plan::Plan;
use crate::select::{VisitKernel, with_kernel, with_kernel_for, with_split_kernel};
use crate::source::{Source, source};
use crate::store::Steps;
use crate::workspace::Line;
use crate::zero_point::check_depth;
use crate::{
    Arithmetic, Epilogue, Isa, KernelError, MatRef, Operand, OutMut, OutParams, Threads, Workspace,
    ZeroPoints,
};

/// `out = epilogue((A − Z_a) · (B − Z_b))`: A is `M × K`, B `K × N`, packed ahead.
///
/// Sums are exact in i32 on every tier and for every thread count; [`Epilogue`] says what happens
/// to them before they are stored. It runs on the tier that B was packed for. Nothing is allocated
/// once the workspace is as large as [`Workspace::required`] says.
///
/// # Errors
///
/// [`KernelError::Shape`] and [`KernelError::Length`] when shapes do not fit,
/// [`KernelError::Arithmetic`] when B was not packed for the type of A,
/// [`KernelError::FloatZeroPoint`] for zero points of floats, [`KernelError::Depth`] when a sum could leave i32 (u8 by i8: K > 65,793; i8 by i8:
/// K > 131,071; zero points move the bound), [`KernelError::Bias`] when the bias could push it
/// out, [`KernelError::OutParams`], [`KernelError::Clamp`] and [`KernelError::Epilogue`] for
/// parameters that do not fit the output, [`KernelError::PackedFor`] when B is of another kernel, and
/// [`KernelError::Memory`] when the workspace cannot grow.
///
/// ```
/// use qkernels::{gemm, Epilogue, Isa, Layout, MatMut, MatRef, OutMut, OutParams, PackedB, Scale};
/// use qkernels::{Threads, Workspace, ZeroPoint, ZeroPoints};
///
/// // Weights: 2 inputs, 3 outputs, one scale a channel.
/// let weights = PackedB::pack(Isa::detect(), MatRef::new(&[1i8, 0, 2, 0, 1, 2], 2, 3)?, Layout::RowMajor)?;
/// let a = [130u8, 126, 128, 138]; // two rows, zero point 128
/// let mut out = [0u8; 6];
/// gemm(
///     MatRef::new(&a, 2, 2)?,
///     &weights,
///     ZeroPoints { a: ZeroPoint::Tensor(128), ..ZeroPoints::default() },
///     &Epilogue { scale: Scale::Channel(&[1.0, 1.0, 0.5]), ..Epilogue::default() },
///     // A ReLU: the lowest value is the zero point.
///     OutMut::U8(MatMut::new(&mut out, 2, 3)?, OutParams { zero_point: 10, min: 10, max: 255 }),
///     &mut Workspace::new(),
///     Threads::Single,
/// )?;
/// assert_eq!(out, [12, 10, 10, 10, 20, 20]);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
pub fn gemm<'b, A: Operand>(
    a: MatRef<'_, A>,
    b: impl Into<PackedRef<'b>>,
    zp: ZeroPoints<'_>,
    epilogue: &Epilogue<'_>,
    out: OutMut<'_>,
    ws: &mut Workspace,
    threads: Threads<'_>,
) -> Result<(), KernelError> {
    let target = Target::new(out, epilogue);
    let call = Call::new(source(a), b.into(), zp, epilogue, target, threads);
    run(&call, ws)
}

/// Runs a call on the kernel for it. Not generic, as all functions from which kernels are reached:
/// so they are compiled in this crate, once.
fn run(call: &Call<'_>, ws: &mut Workspace) -> Result<(), KernelError> {
    call.check()?;
    let Operands { a, b, .. } = &call.operands;
    with_kernel_for(b, a.rows(), Run { call, ws })
}

/// Where results go, and how they are stored.
#[derive(Clone, Copy)]
pub(crate) struct Target<'c> {
    pub(crate) out: Out<'c>,
    pub(crate) steps: Steps<'c>,
    pub(crate) dtype: DType,
    pub(crate) params: Option<OutParams>,
}

impl<'c> Target<'c> {
    pub(crate) fn new(out: OutMut<'c>, epilogue: &Epilogue<'c>) -> Self {
        let (dtype, params) = (out.dtype(), out.params());
        let clamp = epilogue.clamp;
        let bytes = |p| bytes(p, epilogue);
        let (steps, out) = match out {
            OutMut::I32(c) => (Steps::Sums, Out::new(c)),
            OutMut::F32(c) => (Steps::Floats { clamp }, Out::new(c)),
            OutMut::F16(c) => (Steps::F16 { clamp }, Out::new(c)),
            OutMut::Bf16(c) => (Steps::Bf16 { clamp }, Out::new(c)),
            OutMut::U8(c, p) => (bytes(p), Out::new(c)),
            OutMut::I8(c, p) => (bytes(p), Out::new(c)),
        };
        Target {
            out,
            steps,
            dtype,
            params,
        }
    }
}

/// A call: to be [checked](Self::check) before it runs.
pub(crate) struct Call<'c> {
    pub(crate) operands: Operands<'c>,
    target: Target<'c>,
    threads: Threads<'c>,
}

impl<'c> Call<'c> {
    /// Made where it stays: to move what it holds takes as long as a small product.
    #[inline(always)]
    pub(crate) fn new(
        a: Source<'c>,
        b: PackedRef<'c>,
        zp: ZeroPoints<'c>,
        epilogue: &'c Epilogue<'c>,
        target: Target<'c>,
        threads: Threads<'c>,
    ) -> Self {
        Call {
            operands: Operands {
                a,
                b,
                zp,
                epilogue,
                a_scale: None,
            },
            target,
            threads,
        }
    }

    /// Whether all arguments fit each other.
    pub(crate) fn check(&self) -> Result<(), KernelError> {
        self.check_shapes()?;
        let Operands {
            a, b, zp, epilogue, ..
        } = &self.operands;
        check_sums(a, b, *zp, epilogue)
    }

    /// As [`check`](Self::check), for zero points and a bias that were checked: of fewer products, say,
    /// where part of K is padding.
    pub(crate) fn check_shapes(&self) -> Result<(), KernelError> {
        let Call {
            operands: Operands { a, b, epilogue, .. },
            target,
            ..
        } = self;
        let (m, n, k) = (a.rows(), b.n(), b.k());
        if !b.arithmetic().takes(a.dtype()) {
            return Err(KernelError::Arithmetic {
                what: "a",
                given: a.dtype(),
                arithmetic: b.arithmetic(),
            });
        }
        check_shape("a", (m, a.depth()), (m, k))?;
        check_shape("out", target.out.shape(), (m, n))?;
        epilogue.check(target.dtype, (m, n), target.params, b.arithmetic())
    }

    /// Runs it on a kernel, with memory that the plan asks for.
    pub(crate) fn run<K: Microkernel>(
        &self,
        tier: K::Home,
        plan: &Plan,
        mem: &mut [Line],
    ) -> Result<(), KernelError> {
        let Call {
            operands,
            target,
            threads,
        } = self;
        let packed = operands.b.elements::<K>()?;
        driver::run::<K>(tier, operands, packed, target, plan, mem, *threads);
        Ok(())
    }

    /// Runs it as a direct convolution.
    pub(crate) fn convolve<K: Microkernel>(
        &self,
        tier: K::Home,
        direct: Direct<'_>,
        plan: &DirectPlan,
        mem: &mut [Line],
    ) -> Result<(), KernelError> {
        let Call {
            operands,
            target,
            threads,
        } = self;
        let packed = operands.b.elements::<K>()?;
        direct.run::<K>(tier, operands, packed, *target, plan, mem, *threads);
        Ok(())
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.threads.count()
    }

    fn plan<K: Microkernel>(&self) -> Plan {
        let Operands { a, b, .. } = &self.operands;
        Plan::new::<K>(a.rows(), b.n(), b.k(), self.threads.count())
    }
}

/// Steps of a quantized output. Of parameters that fit its type the limits are small integers, so they
/// are exact in f32, and what is clamped to them rounds to a value of the type; others are refused
/// before a step runs.
fn bytes<'a>(p: OutParams, epilogue: &Epilogue<'a>) -> Steps<'a> {
    Steps::Bytes {
        lo: p.min.wrapping_sub(p.zero_point) as f32,
        hi: p.max.wrapping_sub(p.zero_point) as f32,
        zero_point: p.zero_point,
        table: epilogue.table,
    }
}

/// Checks zero points, and that no integer sum can leave i32.
pub(crate) fn check_sums(
    a: &Source<'_>,
    b: &PackedRef<'_>,
    zp: ZeroPoints<'_>,
    epilogue: &Epilogue<'_>,
) -> Result<(), KernelError> {
    zp.a.check("zero points of a", a.rows())?;
    zp.b.check("zero points of b", b.n())?;
    if !b.arithmetic().integer() {
        return if zp.is_zero() {
            Ok(())
        } else {
            Err(KernelError::FloatZeroPoint { dtype: b.dtype() })
        };
    }
    let full = (i32::MIN, i32::MAX);
    let (a_range, b_range) = if b.arithmetic() == Arithmetic::Int16 {
        // Products of i16 fill i32 at once, so what counts is what is there.
        let max = i32::try_from(b.header.max_abs).unwrap_or(i32::MAX);
        (a.range(), (-max, max))
    } else {
        (
            a.dtype().int_range().unwrap_or(full),
            b.dtype().int_range().unwrap_or(full),
        )
    };
    epilogue.check_bias(check_depth(b.k(), &zp, a_range, b_range)?)
}

/// Runs a call with memory of a workspace.
pub(crate) struct Run<'c, 'w> {
    /// By reference: to hand on what it holds takes as long as a small product.
    pub(crate) call: &'w Call<'c>,
    pub(crate) ws: &'w mut Workspace,
}

impl VisitKernel for Run<'_, '_> {
    type Output = Result<(), KernelError>;

    fn visit<K: Microkernel>(self, tier: K::Home) -> Self::Output {
        let Operands { a, b, .. } = &self.call.operands;
        if a.rows() == 0 || b.n() == 0 {
            // However deep it is said to be.
            return Ok(());
        }
        let plan = self.call.plan::<K>();
        let mem = self.ws.lines(plan.total_lines())?;
        self.call.run::<K>(tier, &plan, mem)
    }
}

impl Workspace {
    /// Bytes that [`gemm`] needs for an `m × k` by `k × n` product of bytes packed for `isa`. On a
    /// pool the number of its threads counts: call this inside the pool.
    #[must_use]
    pub fn required(isa: Isa, m: usize, n: usize, k: usize, threads: Threads<'_>) -> usize {
        Self::required_for(isa, Arithmetic::Int8, m, n, k, threads)
    }

    /// As [`required`](Self::required), for another arithmetic.
    #[must_use]
    pub fn required_for(
        isa: Isa,
        arithmetic: Arithmetic,
        m: usize,
        n: usize,
        k: usize,
        threads: Threads<'_>,
    ) -> usize {
        #[derive(Clone, Copy)]
        struct Required(usize, usize, usize, usize);
        impl VisitKernel for Required {
            type Output = usize;
            fn visit<K: Microkernel>(self, _tier: K::Home) -> usize {
                let Required(m, n, k, threads) = self;
                let plan = Plan::new::<K>(m, n, k, threads);
                plan.total_lines().saturating_mul(size_of::<Line>())
            }
        }
        let required = Required(m, n, k, threads.count());
        let usual = with_kernel(isa, arithmetic, required);
        if arithmetic == Arithmetic::Int8 {
            // What the weights are is not known here.
            usual.max(with_split_kernel(isa, (m, n, k), required))
        } else {
            usual
        }
    }
}
