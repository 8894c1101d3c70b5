//! `QLinearSigmoid`: the logistic function of a quantized tensor, by a table of all 256 values.

use super::bytes::{BYTES, Byte, check_params, read_params, table};
use crate::ops::sigmoid::sigmoid;
use crate::ops::{Facts, Inputs, Operator, RunContext, Spec, for_element};
use crate::{ModelError, Tensor, TensorType};

struct QLinearSigmoid;

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check_with_gaps(4..=5, &[2], 1..=1, &[])?;
    Ok(Box::new(QLinearSigmoid))
}

impl Operator for QLinearSigmoid {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.element(0, &BYTES)?;
        check_params(inputs, 1, element)?;
        check_params(inputs, 3, element)?;
        Ok(vec![inputs.get(0)?.ty.clone()])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        fn go<T: Byte>(
            cx: &mut RunContext<'_>,
            inputs: &mut Inputs<'_>,
            shape: &[usize],
        ) -> Result<Tensor, ModelError> {
            let (x, y) = (
                read_params(inputs, 1, T::TYPE)?,
                read_params(inputs, 3, T::TYPE)?,
            );
            let table = table::<T>(&x, &y, sigmoid);
            let mut v = inputs.take_or_copy::<T>(0, cx.pool)?;
            for q in &mut v {
                *q = table[q.bits()];
            }
            cx.tensor(shape, v)
        }
        let element = inputs.get(0)?.element_type();
        let out = for_element!(element, [U8 u8, I8 i8], go::<T>(cx, inputs, &shapes[0]));
        Ok(vec![out?])
    }
}
