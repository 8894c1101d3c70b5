//! `Sigmoid`: `1 / (1 + exp(−x))`.

use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{ElementType, ModelError, Tensor, TensorType};

struct Sigmoid;

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(1..=1, 1..=1, &[])?;
    Ok(Box::new(Sigmoid))
}

/// The logistic function, written so that `exp` never overflows.
pub(crate) fn sigmoid(x: f32) -> f32 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

impl Operator for Sigmoid {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        inputs.element(0, &[ElementType::F32])?;
        Ok(vec![inputs.get(0)?.ty.clone()])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let mut v = inputs.take_or_copy::<f32>(0, cx.pool)?;
        for x in &mut v {
            *x = sigmoid(*x);
        }
        Ok(vec![cx.tensor(&shapes[0], v)?])
    }
}
