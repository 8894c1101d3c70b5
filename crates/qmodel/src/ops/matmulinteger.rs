//! `MatMulInteger`: products of bytes with zero points taken off, exact in i32.

use super::matmul::output_dims;
use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::integer::{Finish, product::matmul, zero_points};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

struct MatMulInteger;

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(2..=4, 1..=1, &[])?;
    Ok(Box::new(MatMulInteger))
}

impl Operator for MatMulInteger {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        for i in [0, 1] {
            let element = inputs.element(i, &[ElementType::U8, ElementType::I8])?;
            zero_type(inputs, i + 2, element)?;
        }
        let (a, b) = (inputs.dims(0)?, inputs.dims(1)?);
        let shape = output_dims(a, b, (0, 1))?;
        if let (Some(a), Some(b)) = (a, b) {
            let rows = if a.len() < 2 {
                Dim::Known(1)
            } else {
                a[a.len() - 2].clone()
            };
            let cols = if b.len() < 2 {
                Dim::Known(1)
            } else {
                b[b.len() - 1].clone()
            };
            zero_count(inputs, 2, &rows)?;
            zero_count(inputs, 3, &cols)?;
        }
        Ok(vec![TensorType {
            element: ElementType::I32,
            shape,
        }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let zeros = |i: usize, what: &str| {
            inputs
                .optional(i)
                .map_or_else(|| Ok(Vec::new()), |t| zero_points(t, what))
        };
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let a_zero = zeros(2, "input 2 (zero point)")?;
        let b_zero = zeros(3, "input 3 (zero point)")?;
        // One zero point a row repeats for every matrix that becomes rows of one product.
        let rows = a.len() / a.shape().last().copied().unwrap_or(1).max(1);
        let batched = b.rank() > 2 && b.shape()[..b.rank() - 2].iter().any(|&d| d != 1);
        let a_zero = if a_zero.len() > 1 && !batched {
            a_zero.iter().copied().cycle().take(rows).collect()
        } else {
            a_zero
        };
        let out = matmul(cx, (a, &a_zero), (b, &b_zero), &Finish::SUMS, &shapes[0])?;
        Ok(vec![out])
    }
}

/// Demands that the zero point operand `i`, where given, is of its tensor's type.
pub(crate) fn zero_type(
    inputs: &Facts<'_>,
    i: usize,
    element: ElementType,
) -> Result<(), ModelError> {
    match inputs.optional(i) {
        Some(z) if z.ty.element != element => Err(ModelError::operand_type(
            super::operand_name(i),
            z.ty.element,
            format!("{element}, as the tensor that it belongs to"),
        )),
        _ => Ok(()),
    }
}

/// Demands that operand `i`, where given, is single or has `count` elements.
pub(crate) fn zero_count(inputs: &Facts<'_>, i: usize, count: &Dim) -> Result<(), ModelError> {
    inputs
        .length(i, &Dim::Known(1))
        .or_else(|_| inputs.length(i, count))
}
