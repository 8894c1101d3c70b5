//! `QLinearConv`: convolution of quantized tensors with a quantized result.
//!
//! Sums and bias are exact in i32; the result is `saturate(rne(sum · (x_scale · w_scale /
//! y_scale)) + y_zero_point)`, with one scale or one for each filter.

use super::conv::{ATTRIBUTES, ConvAttributes};
use super::matmulinteger::{zero_count, zero_type};
use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::integer::conv::{Channels, Filters, convolve};
use crate::integer::{Factor, Finish, Output, params, scale, scales, zero_point, zero_points};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

pub(crate) struct QLinearConv(ConvAttributes);

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Ok(Box::new(QLinearConv(attributes(spec)?)))
}

/// Checks a `QLinearConv` node and reads its attributes.
pub(crate) fn attributes(spec: &Spec<'_>) -> Result<ConvAttributes, ModelError> {
    spec.check(8..=9, 1..=1, ATTRIBUTES)?;
    ConvAttributes::read(spec)
}

/// What the operands other than x come to.
pub(crate) struct Parameters {
    pub(crate) x_zero: i32,
    pub(crate) filters: Filters,
    pub(crate) finish: Finish,
}

/// Packs the filters and computes the multipliers; `get` gives operands by number.
pub(crate) fn parameters<'t>(
    isa: qkernels::Isa,
    attributes: &ConvAttributes,
    get: &dyn Fn(usize) -> Option<&'t Tensor>,
) -> Result<Parameters, ModelError> {
    let need = |i: usize| {
        get(i).ok_or_else(|| {
            ModelError::operand(super::operand_name(i), "nothing", "it must be given")
        })
    };
    let x_scale = scale(need(1)?, "input 1 (x_scale)")?;
    let w_scale = scales(need(4)?, "input 4 (w_scale)")?;
    let y = params(
        need(6)?,
        Some(need(7)?),
        ElementType::U8,
        "input 6 (y_scale)",
    )?;
    let factors = w_scale.iter().map(|w| x_scale * w / y.scale()).collect();
    let bias = get(8)
        .map(|b| super::slice_of::<i32>(b, 8).map(<[i32]>::to_vec))
        .transpose()?;
    Ok(Parameters {
        x_zero: zero_point(get(2), "input 2 (x_zero_point)")?,
        filters: Filters::pack(
            isa,
            need(3)?,
            attributes,
            &zero_points(need(5)?, "input 5 (w_zero_point)")?,
        )?,
        finish: Finish {
            bias,
            factor: Factor::of(factors),
            bias_f32: None,
            clamp: None,
            output: Output::quantized(&y, None)?,
        },
    })
}

impl Operator for QLinearConv {
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
        let w = inputs.dims(3)?;
        let shape = self.0.output_dims(inputs.dims(0)?, w, (0, 3))?;
        if let Some([filters, ..]) = w {
            zero_count(inputs, 4, filters)?;
            zero_count(inputs, 5, filters)?;
            inputs.length(8, filters)?;
        }
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let (x, w) = (inputs.get(0)?, inputs.get(3)?);
        let p = parameters(cx.isa, &self.0, &|i| inputs.optional(i))?;
        let s = self.0.shape(x.shape(), w.shape())?;
        let (from, to) = ((x, Channels::First), (&shapes[0][..], Channels::First));
        Ok(vec![convolve(
            cx, from, p.x_zero, &p.filters, &s, &p.finish, to,
        )?])
    }
}
