//! Integer matrix products: the call, its checks, and the choice of what to run.

use qformat::QuantElement;

use crate::driver::{self, Operands};
use crate::isa::{Tier, Visit};
use crate::plan::Plan;
use crate::store::{Floats, Quantized, Sums};
use crate::workspace::Line;
use crate::zero_point::check_depth;
use crate::{Epilogue, Isa, KernelError, MatRef, OutMut, PackedB, Threads, Workspace, ZeroPoints};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
}

/// Element types of the A operand: u8 and i8.
pub trait Lhs: QuantElement + bytemuck::Pod + sealed::Sealed {}

impl Lhs for u8 {}
impl Lhs for i8 {}

/// `out = epilogue((A − Z_a) · (B − Z_b))`: A is `M × K`, B `K × N`, packed ahead.
///
/// Sums are exact in i32 on every tier and for every thread count; [`Epilogue`] says what happens
/// to them before they are stored. It runs on the tier that B was packed for. Nothing is allocated
/// once the workspace is as large as [`Workspace::required`] says.
///
/// # Errors
///
/// [`KernelError::Shape`] and [`KernelError::Length`] when shapes do not fit,
/// [`KernelError::Depth`] when a sum could leave i32 (u8 by i8: K > 65,793; i8 by i8:
/// K > 131,071; zero points move the bound), [`KernelError::Bias`] when the bias could push it
/// out, [`KernelError::OutParams`], [`KernelError::Clamp`] and [`KernelError::Epilogue`] for
/// parameters that do not fit the output.
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
pub fn gemm<A: Lhs>(
    a: MatRef<'_, A>,
    b: &PackedB,
    zp: ZeroPoints<'_>,
    epilogue: &Epilogue<'_>,
    out: OutMut<'_>,
    ws: &mut Workspace,
    threads: Threads,
) -> Result<(), KernelError> {
    let call = Call::new(a, b, zp, epilogue, out, ws, threads)?;
    b.isa().dispatch(call)
}

/// A call whose arguments fit each other.
pub(crate) struct Call<'c, 'w, A> {
    operands: Operands<'c, A>,
    out: OutMut<'c>,
    ws: &'w mut Workspace,
    threads: Threads,
}

impl<'c, 'w, A: Lhs> Call<'c, 'w, A> {
    pub(crate) fn new(
        a: MatRef<'c, A>,
        b: &'c PackedB,
        zp: ZeroPoints<'c>,
        epilogue: &Epilogue<'c>,
        out: OutMut<'c>,
        ws: &'w mut Workspace,
        threads: Threads,
    ) -> Result<Self, KernelError> {
        let (m, n, k) = (a.rows(), b.n(), b.k());
        if a.cols() != k {
            return Err(KernelError::Shape {
                what: "a",
                given: (m, a.cols()),
                expected: (m, k),
            });
        }
        if out.shape() != (m, n) {
            return Err(KernelError::Shape {
                what: "out",
                given: out.shape(),
                expected: (m, n),
            });
        }
        zp.a.check("zero points of a", m)?;
        zp.b.check("zero points of b", n)?;
        epilogue.check(n, &out)?;
        let a_range = A::DTYPE.int_range().unwrap_or((i32::MIN, i32::MAX));
        let bound = check_depth(k, &zp, a_range, (-128, 127))?;
        if let Some(&given) = epilogue
            .bias
            .and_then(|b| b.iter().max_by_key(|v| v.unsigned_abs()))
        {
            let max = i32::MAX - bound;
            if given.unsigned_abs() > max.unsigned_abs() {
                return Err(KernelError::Bias { given, max });
            }
        }

        Ok(Call {
            operands: Operands {
                a,
                b,
                zp,
                epilogue: *epilogue,
            },
            out,
            ws,
            threads,
        })
    }
}

impl<A: Lhs> Visit for Call<'_, '_, A> {
    type Output = Result<(), KernelError>;

    fn visit<T: Tier>(self, tier: T) -> Self::Output {
        let Call {
            operands,
            out,
            ws,
            threads,
        } = self;
        let clamp = operands.epilogue.clamp;
        match out {
            OutMut::I32(c) => driver::run(tier, operands, Sums, c, ws, threads),
            OutMut::F32(c) => driver::run(tier, operands, Floats { clamp }, c, ws, threads),
            OutMut::U8(c, p) => driver::run(tier, operands, Quantized::new(p), c, ws, threads),
            OutMut::I8(c, p) => driver::run(tier, operands, Quantized::new(p), c, ws, threads),
        }
    }
}

impl Workspace {
    /// Bytes that [`gemm`] needs for an `m × k` by `k × n` product packed for `isa`. On a rayon
    /// pool the number of its threads counts: call this inside the pool.
    #[must_use]
    pub fn required(isa: Isa, m: usize, n: usize, k: usize, threads: Threads) -> usize {
        struct Required(usize, usize, usize, Threads);
        impl Visit for Required {
            type Output = usize;
            fn visit<T: Tier>(self, _tier: T) -> usize {
                let Required(m, n, k, threads) = self;
                let plan = Plan::new::<T::Int8>(m, n, k, threads.count());
                plan.total_lines().saturating_mul(size_of::<Line>())
            }
        }
        isa.dispatch(Required(m, n, k, threads))
    }
}
