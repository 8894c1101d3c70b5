//! `DequantizeLinear`: `(x − zero_point) · scale`, for a tensor or along an axis.

use qformat::{QParams, QuantElement};

use super::quantizelinear::{Linear, groups};
use super::{Facts, Inputs, Operator, RunContext, Spec, for_element, slice_of};
use crate::{ElementType, ModelError, Tensor, TensorElement, TensorType};

struct DequantizeLinear(Linear);

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Ok(Box::new(DequantizeLinear(Linear::read(spec, false)?)))
}

impl Operator for DequantizeLinear {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        use ElementType::{I8, I16, I32, U8, U16};
        inputs.element(0, &[I8, U8, I16, U16, I32])?;
        inputs.element(1, &[ElementType::F32])?;
        inputs.same_element(2)?;
        self.0.check(inputs)?;
        Ok(vec![TensorType {
            element: ElementType::F32,
            shape: inputs.get(0)?.ty.shape.clone(),
        }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        fn go<T: TensorElement + QuantElement>(
            cx: &mut RunContext<'_>,
            x: &Tensor,
            (params, run): (Vec<QParams>, usize),
        ) -> Result<Tensor, ModelError> {
            let mut out = cx.scratch::<f32>(x.shape())?;
            let q = slice_of::<T>(x, 0)?;
            let runs = q.chunks(run.max(1)).zip(out.chunks_mut(run.max(1)));
            for ((q, out), p) in runs.zip(params.iter().cycle()) {
                qkernels::dequantize(cx.isa, q, p, out)?;
            }
            cx.tensor(x.shape(), out)
        }
        let x = inputs.get(0)?;
        let element = x.element_type();
        let groups = groups(
            &shapes[0],
            self.0.axis,
            inputs.get(1)?,
            inputs.optional(2),
            element,
        )?;
        let out = for_element!(
            element,
            [I8 i8, U8 u8, I16 i16, U16 u16, I32 i32],
            go::<T>(cx, x, groups)
        );
        Ok(vec![out?])
    }
}
