//! `QGemm`: `alpha · A' · B' + C` of quantized matrices, with a quantized or an f32 result.
//!
//! C is i32 in units of `alpha · a_scale · b_scale`. Sums and C are exact; the result is
//! `saturate(rne(sum · (alpha · a_scale · b_scale / y_scale)) + y_zero_point)`, or
//! `sum · (alpha · a_scale · b_scale)` where no `y_scale` is given.

use super::bytes::BYTES;
use crate::integer::product::{pack_matrix, rows_by_matrix, transposed};
use crate::integer::{
    Factor, Finish, Output, Weights, params, scale, scales, zero_point, zero_points,
};
use crate::ops::gemm::{GemmAttributes, broadcasts_to};
use crate::ops::matmulinteger::{zero_count, zero_type};
use crate::ops::{Facts, Inputs, Operator, RunContext, Spec, operand_name, slice_of};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

pub(crate) struct QGemm(GemmAttributes);

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Ok(Box::new(QGemm(attributes(spec)?)))
}

/// Checks a `QGemm` node and reads its attributes.
pub(crate) fn attributes(spec: &Spec<'_>) -> Result<GemmAttributes, ModelError> {
    spec.check(6..=9, 1..=1, &["alpha", "transA", "transB"])?;
    GemmAttributes::read(spec)
}

/// What the operands other than A come to.
pub(crate) struct Parameters {
    pub(crate) a_zero: i32,
    pub(crate) weights: Weights,
    pub(crate) finish: Finish,
}

/// Packs B and computes the multipliers; `get` gives operands by number.
pub(crate) fn parameters<'t>(
    isa: qkernels::Isa,
    at: GemmAttributes,
    get: &dyn Fn(usize) -> Option<&'t Tensor>,
) -> Result<Parameters, ModelError> {
    let need = |i: usize| {
        get(i).ok_or_else(|| ModelError::operand(operand_name(i), "nothing", "it must be given"))
    };
    let b = need(3)?;
    let a_scale = scale(need(1)?, "input 1 (a_scale)")?;
    let b_scale = scales(need(4)?, "input 4 (b_scale)")?;
    let y = get(7)
        .map(|s| params(s, get(8), ElementType::U8, "input 7 (y_scale)"))
        .transpose()?;
    let unit = |b: &f32| at.alpha * a_scale * b;
    let factors = match &y {
        Some(y) => b_scale.iter().map(|b| unit(b) / y.scale()).collect(),
        None => b_scale.iter().map(unit).collect(),
    };
    let b_zero = zero_points(need(5)?, "input 5 (b_zero_point)")?;
    let weights = pack_matrix(isa, b, at.trans_b, &b_zero)?;
    let n = weights.columns();
    let bias = match get(6) {
        None => None,
        Some(c) => {
            let values = slice_of::<i32>(c, 6)?;
            let column = c.shape().last().copied().unwrap_or(1);
            match values {
                [one] => Some(vec![*one; n]),
                v if v.len() == n && column == n => Some(v.to_vec()),
                _ => {
                    return Err(ModelError::operand(
                        "input 6 (C)",
                        format!("{:?}", c.shape()),
                        format!("one value, or one for each of {n} columns"),
                    ));
                }
            }
        }
    };
    Ok(Parameters {
        a_zero: zero_point(get(2), "input 2 (a_zero_point)")?,
        weights,
        finish: Finish {
            bias,
            factor: Factor::of(factors),
            bias_f32: None,
            clamp: None,
            output: match &y {
                Some(y) => Output::quantized(y, None)?,
                None => Output::F32,
            },
        },
    })
}

impl Operator for QGemm {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        for (tensor, zero) in [(0, 2), (3, 5)] {
            let element = inputs.element(tensor, &BYTES)?;
            zero_type(inputs, zero, element)?;
        }
        inputs.length(1, &Dim::Known(1))?;
        inputs.length(2, &Dim::Known(1))?;
        let shape = self
            .0
            .output_dims(inputs.dims(0)?, inputs.dims(3)?, (0, 3))?;
        if let Some([_, n]) = shape.as_deref() {
            zero_count(inputs, 4, n)?;
            zero_count(inputs, 5, n)?;
        }
        if let Some(dims) = &shape {
            broadcasts_to(inputs, 6, dims)?;
        }
        let element = match (inputs.optional(7), inputs.optional(8)) {
            (None, None) => ElementType::F32,
            (None, Some(_)) => {
                return Err(ModelError::operand(
                    "input 8 (y_zero_point)",
                    "given without y_scale",
                    "both or none",
                ));
            }
            (Some(_), None) => ElementType::U8,
            (Some(_), Some(_)) => inputs.element(8, &BYTES)?,
        };
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let p = parameters(cx.isa, self.0, &|i| inputs.optional(i))?;
        let a = inputs.get(0)?;
        let turned = if self.0.trans_a {
            Some(transposed(cx, a)?)
        } else {
            None
        };
        let a = turned.as_ref().unwrap_or(a);
        let (m, shape) = (shapes[0][0], &shapes[0]);
        Ok(vec![rows_by_matrix(
            cx,
            a,
            m,
            &[p.a_zero],
            &p.weights,
            &p.finish,
            shape,
        )?])
    }
}
