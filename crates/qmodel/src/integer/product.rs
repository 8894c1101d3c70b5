//! Products of matrices.

use qkernels::{
    Arithmetic, BatchMut, BatchOut, BatchRef, Layout, Lhs, MatRef, ZeroPoint, ZeroPoints,
};

use super::weights::{Zero, signed};
use super::{Finish, Output, Place, Weights, multiply, result_buffer};
use crate::ops::matmul::Batch;
use crate::ops::{RunContext, transpose::permute};
use crate::{ModelError, Tensor, TensorData};

/// Packs a whole matrix tensor; `transposed` is whether its rows are the columns of the operand.
pub(crate) fn pack_matrix(
    isa: qkernels::Isa,
    b: &Tensor,
    transposed: bool,
    zero: &[i32],
) -> Result<Weights, ModelError> {
    let (rows, cols) = match b.shape() {
        [n] => (*n, 1),
        [.., r, c] if b.len() == r * c => (*r, *c),
        _ => {
            return Err(ModelError::operand(
                "weights",
                format!("{:?}", b.shape()),
                "one matrix",
            ));
        }
    };
    let (data, shift) = signed(b)?;
    if transposed {
        Weights::pack(isa, &data, (cols, rows), Layout::Transposed, zero, shift)
    } else {
        Weights::pack(isa, &data, (rows, cols), Layout::RowMajor, zero, shift)
    }
}

/// The rows of `a` (`m × k`) by one packed matrix.
pub(crate) fn rows_by_matrix(
    cx: &mut RunContext<'_>,
    a: &Tensor,
    m: usize,
    a_zero: &[i32],
    weights: &Weights,
    finish: &Finish,
    shape: &[usize],
) -> Result<Tensor, ModelError> {
    finish.check(weights.columns())?;
    let mut out = result_buffer(cx, finish.output, shape)?;
    let place = Place {
        offset: 0,
        stride: weights.columns(),
    };
    match a.data() {
        TensorData::U8(v) => rows_of(cx, v, m, a_zero, weights, finish, &mut out, place)?,
        TensorData::I8(v) => rows_of(cx, v, m, a_zero, weights, finish, &mut out, place)?,
        other => {
            return Err(ModelError::operand_type(
                "input 0",
                other.element_type(),
                "u8 or i8",
            ));
        }
    }
    Tensor::named("", shape, out)
}

#[allow(clippy::too_many_arguments)] // One call's worth of parts, passed on.
fn rows_of<A: Lhs>(
    cx: &mut RunContext<'_>,
    a: &[A],
    m: usize,
    a_zero: &[i32],
    weights: &Weights,
    finish: &Finish,
    out: &mut TensorData,
    place: Place,
) -> Result<(), ModelError> {
    let a = MatRef::new(a, m, weights.depth())?;
    multiply(
        cx,
        a,
        rows_zero(a_zero),
        weights,
        (finish, 0..weights.columns()),
        out,
        place,
    )
}

/// Zero points of rows: one, one for each, or none (0).
fn rows_zero(zero: &[i32]) -> ZeroPoint<'_> {
    match zero {
        [] => ZeroPoint::Tensor(0),
        [z] => ZeroPoint::Tensor(*z),
        rows => ZeroPoint::Vector(rows),
    }
}

/// The distances from product to product in both operands, where they are the same for all and
/// every product has a right operand of its own.
fn steps(pairs: &[(usize, usize)]) -> Option<(usize, usize)> {
    let step =
        |p: &[(usize, usize)]| Some((p[1].0.checked_sub(p[0].0)?, p[1].1.checked_sub(p[0].1)?));
    let first = step(pairs.get(..2)?)?;
    let even = pairs.windows(2).all(|p| step(p) == Some(first));
    (even && first.1 > 0).then_some(first)
}

/// Where the matrices of one operand of a batch are, in elements.
struct Matrices {
    first: usize,
    count: usize,
    step: usize,
    size: (usize, usize),
}

impl Matrices {
    /// The matrices that `side` of the pairs names, `step` matrices apart.
    fn new(
        pairs: &[(usize, usize)],
        side: impl Fn(&(usize, usize)) -> usize,
        step: usize,
        (rows, cols): (usize, usize),
    ) -> Matrices {
        Matrices {
            first: pairs.first().map_or(0, side) * rows * cols,
            count: pairs.len(),
            step: step * rows * cols,
            size: (rows, cols),
        }
    }

    fn of<'d, T>(&self, data: &'d [T]) -> Result<BatchRef<'d, T>, ModelError> {
        let data = data.get(self.first..).unwrap_or_default();
        let (rows, cols) = self.size;
        Ok(BatchRef::with_strides(
            data, self.count, self.step, rows, cols, cols,
        )?)
    }
}

/// A batch of products into matrices that follow each other.
fn batch<A: Lhs>(
    cx: &mut RunContext<'_>,
    a: BatchRef<'_, A>,
    b: BatchRef<'_, i8>,
    zero: ZeroPoints<'_>,
    finish: &Finish,
    out: &mut TensorData,
) -> Result<(), ModelError> {
    let (count, m, n) = (a.count(), a.shape().0, b.shape().1);
    let out = match (finish.output, out) {
        (Output::I32, TensorData::I32(v)) => BatchOut::I32(BatchMut::new(v, count, m, n)?),
        (Output::F32, TensorData::F32(v)) => BatchOut::F32(BatchMut::new(v, count, m, n)?),
        (Output::U8(p), TensorData::U8(v)) => BatchOut::U8(BatchMut::new(v, count, m, n)?, p),
        (Output::I8(p), TensorData::I8(v)) => BatchOut::I8(BatchMut::new(v, count, m, n)?, p),
        (output, other) => {
            return Err(ModelError::operand_type(
                "output",
                other.element_type(),
                output.element().name(),
            ));
        }
    };
    qkernels::gemm_batch(
        cx.isa,
        Arithmetic::Int8,
        a,
        b,
        zero,
        &finish.epilogue(0..n),
        out,
        cx.workspace,
        cx.threads,
    )?;
    Ok(())
}

/// Products with broadcasting, the right operand packed on the way: what is not known before the
/// run.
pub(crate) fn matmul(
    cx: &mut RunContext<'_>,
    (a, a_zero): (&Tensor, &[i32]),
    (b, b_zero): (&Tensor, &[i32]),
    finish: &Finish,
    shape: &[usize],
) -> Result<Tensor, ModelError> {
    let Batch { m, k, n, pairs } = Batch::new(a.shape(), b.shape());
    let (b_data, shift) = signed(b)?;
    finish.check(n)?;
    let mut out = result_buffer(cx, finish.output, shape)?;
    if let Some(steps) = steps(&pairs).filter(|_| n > 0 && m > 0) {
        let of_a = Matrices::new(&pairs, |p| p.0, steps.0, (m, k));
        let b = Matrices::new(&pairs, |p| p.1, steps.1, (k, n)).of(&b_data)?;
        let zero = Zero::new(b_zero, n, shift)?;
        let zero = ZeroPoints {
            a: rows_zero(a_zero),
            b: zero.point(),
        };
        match a.data() {
            TensorData::U8(v) => batch(cx, of_a.of(v)?, b, zero, finish, &mut out)?,
            TensorData::I8(v) => batch(cx, of_a.of(v)?, b, zero, finish, &mut out)?,
            other => {
                return Err(ModelError::operand_type(
                    "input 0",
                    other.element_type(),
                    "u8 or i8",
                ));
            }
        }
        return Tensor::named("", shape, out);
    }
    let mut packed: Option<(usize, Weights)> = None;
    for (i, (left, right)) in pairs.into_iter().enumerate() {
        let weights = match &packed {
            Some((at, w)) if *at == right => w,
            _ => {
                let matrix = &b_data[right * k * n..(right + 1) * k * n];
                let w = Weights::pack(cx.isa, matrix, (k, n), Layout::RowMajor, b_zero, shift)?;
                &packed.insert((right, w)).1
            }
        };
        let place = Place {
            offset: i * m * n,
            stride: n,
        };
        let rows = left * m * k..(left + 1) * m * k;
        match a.data() {
            TensorData::U8(v) => {
                rows_of(cx, &v[rows], m, a_zero, weights, finish, &mut out, place)?;
            }
            TensorData::I8(v) => {
                rows_of(cx, &v[rows], m, a_zero, weights, finish, &mut out, place)?;
            }
            other => {
                return Err(ModelError::operand_type(
                    "input 0",
                    other.element_type(),
                    "u8 or i8",
                ));
            }
        }
    }
    Tensor::named("", shape, out)
}

/// A matrix of bytes with rows and columns exchanged.
pub(crate) fn transposed(cx: &mut RunContext<'_>, t: &Tensor) -> Result<Tensor, ModelError> {
    let [r, c] = t.shape() else {
        return Err(ModelError::operand(
            "input 0",
            format!("{:?}", t.shape()),
            "a matrix",
        ));
    };
    let data = match t.data() {
        TensorData::U8(v) => {
            let mut out = cx.scratch::<u8>(t.shape())?;
            permute(v, &[*r, *c], &[1, 0], &mut out);
            TensorData::U8(out)
        }
        TensorData::I8(v) => {
            let mut out = cx.scratch::<i8>(t.shape())?;
            permute(v, &[*r, *c], &[1, 0], &mut out);
            TensorData::I8(out)
        }
        other => {
            return Err(ModelError::operand_type(
                "input 0",
                other.element_type(),
                "u8 or i8",
            ));
        }
    };
    Tensor::named("", &[*c, *r], data)
}
