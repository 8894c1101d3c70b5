//! `Relu`: `max(x, 0)`; NaN stays NaN.

use super::{Facts, Inputs, Operator, RunContext, Spec, for_element};
use crate::{ElementType, ModelError, Tensor, TensorElement, TensorType};

struct Relu;

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(1..=1, 1..=1, &[])?;
    Ok(Box::new(Relu))
}

impl Operator for Relu {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        use ElementType::{F32, F64, I8, I16, I32, I64, U8};
        inputs.element(0, &[F32, F64, I8, I16, I32, I64, U8])?;
        Ok(vec![inputs.get(0)?.ty.clone()])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        fn go<T: TensorElement + PartialOrd>(
            cx: &mut RunContext<'_>,
            inputs: &mut Inputs<'_>,
            shape: &[usize],
        ) -> Result<Tensor, ModelError> {
            let mut v = inputs.take_or_copy::<T>(0, cx.pool)?;
            for x in &mut v {
                // Written so that NaN, which is not below zero, stays.
                *x = if *x < T::default() { T::default() } else { *x };
            }
            cx.tensor(shape, v)
        }
        let element = inputs.get(0)?.element_type();
        let out = for_element!(
            element,
            [F32 f32, F64 f64, I8 i8, I16 i16, I32 i32, I64 i64, U8 u8],
            go::<T>(cx, inputs, &shapes[0])
        );
        Ok(vec![out?])
    }
}
