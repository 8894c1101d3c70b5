//! `Identity`.

use super::reshape::move_data;
use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{ModelError, Tensor, TensorType};

struct Identity;

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(1..=1, 1..=1, &[])?;
    Ok(Box::new(Identity))
}

impl Operator for Identity {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        Ok(vec![inputs.get(0)?.ty.clone()])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        Ok(vec![move_data(cx, inputs, &shapes[0])?])
    }
}
