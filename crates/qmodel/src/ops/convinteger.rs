//! `ConvInteger`: convolution of bytes with zero points taken off, exact in i32.

use super::conv::{ATTRIBUTES, ConvAttributes};
use super::matmulinteger::{zero_count, zero_type};
use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::integer::conv::{Channels, Filters, convolve};
use crate::integer::{Finish, zero_point, zero_points};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

struct ConvInteger(ConvAttributes);

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(2..=4, 1..=1, ATTRIBUTES)?;
    Ok(Box::new(ConvInteger(ConvAttributes::read(spec)?)))
}

impl Operator for ConvInteger {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        for i in [0, 1] {
            let element = inputs.element(i, &[ElementType::U8, ElementType::I8])?;
            zero_type(inputs, i + 2, element)?;
        }
        let w = inputs.dims(1)?;
        let shape = self.0.output_dims(inputs.dims(0)?, w, (0, 1))?;
        inputs.length(2, &Dim::Known(1))?;
        if let Some([filters, ..]) = w {
            zero_count(inputs, 3, filters)?;
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
        let (x, w) = (inputs.get(0)?, inputs.get(1)?);
        let x_zero = zero_point(inputs.optional(2), "input 2 (zero point)")?;
        let w_zero = match inputs.optional(3) {
            Some(t) => zero_points(t, "input 3 (zero point)")?,
            None => Vec::new(),
        };
        let filters = Filters::pack(cx.isa, w, &self.0, &w_zero)?;
        let s = self.0.shape(x.shape(), w.shape())?;
        let (from, to) = ((x, Channels::First), (&shapes[0][..], Channels::First));
        Ok(vec![convolve(
            cx,
            from,
            x_zero,
            &filters,
            &s,
            &Finish::SUMS,
            to,
        )?])
    }
}
