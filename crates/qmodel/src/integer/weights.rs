//! The right operand of integer products, packed.

use std::borrow::Cow;

use qkernels::{Isa, Layout, MatRef, PackedB, ZeroPoint};

use crate::{ModelError, Tensor, TensorData};

/// A matrix of weights, packed for the kernels, with its zero points.
///
/// Kernels take signed weights. Unsigned ones move down by 128, and their zero points with them:
/// differences stay what they are, so this is exact.
#[derive(Debug)]
pub(crate) struct Weights {
    packed: PackedB,
    zero: Zero,
}

/// The zero points of packed weights: one, or one for each column.
#[derive(Debug)]
pub(super) enum Zero {
    One(i32),
    Column(Vec<i32>),
}

impl Zero {
    /// From one zero point, one for each of `n` columns, or none (0); `shift` is what was taken
    /// off the weights.
    pub(super) fn new(zero: &[i32], n: usize, shift: i32) -> Result<Zero, ModelError> {
        match zero {
            [] => Ok(Zero::One(-shift)),
            [z] => Ok(Zero::One(z - shift)),
            _ if zero.len() == n => Ok(Zero::Column(zero.iter().map(|z| z - shift).collect())),
            _ => Err(ModelError::operand(
                "zero points of the weights",
                format!("{} elements", zero.len()),
                format!("one, or one for each of {n} outputs"),
            )),
        }
    }

    pub(super) fn point(&self) -> ZeroPoint<'_> {
        match self {
            Zero::One(z) => ZeroPoint::Tensor(*z),
            Zero::Column(z) => ZeroPoint::Vector(z),
        }
    }
}

/// What takes unsigned weights to signed ones.
const SHIFT: i32 = 128;

/// The elements of a tensor as signed bytes, and what was taken off them.
pub(super) fn signed(t: &Tensor) -> Result<(Cow<'_, [i8]>, i32), ModelError> {
    match t.data() {
        TensorData::I8(v) => Ok((Cow::Borrowed(v), 0)),
        // Flipping the top bit subtracts 128 and makes the type signed.
        TensorData::U8(v) => Ok((
            Cow::Owned(v.iter().map(|&x| (x ^ 0x80) as i8).collect()),
            SHIFT,
        )),
        other => Err(ModelError::operand_type(
            "weights",
            other.element_type(),
            "u8 or i8",
        )),
    }
}

impl Weights {
    /// Packs a `k × n` matrix, stored as rows of `n` or (transposed) of `k`. `zero` holds one zero
    /// point, one for each column, or none (0); `shift` is what was taken off the values.
    pub(crate) fn pack(
        isa: Isa,
        data: &[i8],
        (k, n): (usize, usize),
        layout: Layout,
        zero: &[i32],
        shift: i32,
    ) -> Result<Weights, ModelError> {
        let matrix = match layout {
            Layout::RowMajor => MatRef::new(data, k, n)?,
            Layout::Transposed => MatRef::new(data, n, k)?,
        };
        Ok(Weights {
            zero: Zero::new(zero, n, shift)?,
            packed: PackedB::pack(isa, matrix, layout)?,
        })
    }

    pub(crate) fn columns(&self) -> usize {
        self.packed.n()
    }

    pub(crate) fn depth(&self) -> usize {
        self.packed.k()
    }

    pub(super) fn packed(&self) -> &PackedB {
        &self.packed
    }

    pub(super) fn zero_point(&self) -> ZeroPoint<'_> {
        self.zero.point()
    }
}
