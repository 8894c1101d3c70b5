//! `QLinearMatMul`: products of quantized matrices with a quantized result.
//!
//! Sums are exact in i32; the result is `saturate(rne(sum · (a_scale · b_scale / y_scale)) +
//! y_zero_point)`. The right operand may have a scale for each column.

use super::matmul::output_dims;
use super::matmulinteger::{zero_count, zero_type};
use super::{Facts, Inputs, Operator, RunContext, Spec, operand_name};
use crate::integer::{
    Factor, Finish, Output, params, product::matmul, scale, scales, zero_point, zero_points,
};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

pub(crate) struct QLinearMatMul;

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(8..=8, 1..=1, &[])?;
    Ok(Box::new(QLinearMatMul))
}

/// What the operands other than the matrices come to.
pub(crate) struct Parameters {
    pub(crate) a_zero: i32,
    pub(crate) b_zero: Vec<i32>,
    pub(crate) finish: Finish,
}

/// Computes the multipliers; `get` gives operands by number.
pub(crate) fn parameters<'t>(
    get: &dyn Fn(usize) -> Option<&'t Tensor>,
) -> Result<Parameters, ModelError> {
    let need = |i: usize| {
        get(i).ok_or_else(|| ModelError::operand(operand_name(i), "nothing", "it must be given"))
    };
    let a_scale = scale(need(1)?, "input 1 (a_scale)")?;
    let b_scale = scales(need(4)?, "input 4 (b_scale)")?;
    let y = params(
        need(6)?,
        Some(need(7)?),
        ElementType::U8,
        "input 6 (y_scale)",
    )?;
    let factors = b_scale.iter().map(|b| a_scale * b / y.scale()).collect();
    Ok(Parameters {
        a_zero: zero_point(get(2), "input 2 (a_zero_point)")?,
        b_zero: zero_points(need(5)?, "input 5 (b_zero_point)")?,
        finish: Finish {
            bias: None,
            factor: Factor::of(factors),
            bias_f32: None,
            clamp: None,
            output: Output::quantized(&y, None)?,
        },
    })
}

impl Operator for QLinearMatMul {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let bytes = [ElementType::U8, ElementType::I8];
        for (tensor, zero) in [(0, 2), (3, 5)] {
            let element = inputs.element(tensor, &bytes)?;
            zero_type(inputs, zero, element)?;
        }
        for i in [1, 4, 6] {
            inputs.element(i, &[ElementType::F32])?;
        }
        let element = inputs.element(7, &bytes)?;
        for i in [1, 2, 6, 7] {
            inputs.length(i, &Dim::Known(1))?;
        }
        let b = inputs.dims(3)?;
        if let Some([.., _, columns]) = b {
            zero_count(inputs, 4, columns)?;
            zero_count(inputs, 5, columns)?;
        }
        let shape = output_dims(inputs.dims(0)?, b, (0, 3))?;
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let p = parameters(&|i| inputs.optional(i))?;
        let a_zero = [p.a_zero];
        let (a, b) = (
            (inputs.get(0)?, &a_zero[..]),
            (inputs.get(3)?, &p.b_zero[..]),
        );
        Ok(vec![matmul(cx, a, b, &p.finish, &shapes[0])?])
    }
}
