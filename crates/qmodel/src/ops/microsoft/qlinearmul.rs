//! `QLinearMul`: the product of two quantized tensors, with broadcasting.

use super::bytes::{infer_binary, run_binary};
use crate::ops::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{ModelError, Tensor, TensorType};

struct QLinearMul;

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check_with_gaps(7..=8, &[2, 5], 1..=1, &[])?;
    Ok(Box::new(QLinearMul))
}

impl Operator for QLinearMul {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        infer_binary(inputs)
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        run_binary(cx, inputs, &shapes[0], |a, b| a * b)
    }
}
