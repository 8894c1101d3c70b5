//! Products of matrices.

use qkernels::{Layout, Lhs, MatRef, ZeroPoint};

use super::{Finish, Place, Weights, multiply, result_buffer, weights::signed};
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
    let zero = match a_zero {
        [] => ZeroPoint::Tensor(0),
        [z] => ZeroPoint::Tensor(*z),
        rows => ZeroPoint::Vector(rows),
    };
    let a = MatRef::new(a, m, weights.depth())?;
    multiply(
        cx,
        a,
        zero,
        weights,
        (finish, 0..weights.columns()),
        out,
        place,
    )
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
