//! `Constant`: a tensor, number or list of numbers from an attribute.

use std::sync::Arc;

use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{ModelError, Tensor, TensorType};

struct Constant(Arc<Tensor>);

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    let forms = [
        "value",
        "value_float",
        "value_floats",
        "value_int",
        "value_ints",
    ];
    let known = if spec.version < 12 {
        &forms[..1]
    } else {
        &forms[..]
    };
    spec.check(0..=0, 1..=1, known)?;
    let value = if let Some(t) = spec.tensor("value")? {
        Arc::clone(t)
    } else if let Some(v) = spec.float("value_float")? {
        Arc::new(Tensor::scalar(v))
    } else if let Some(v) = spec.floats("value_floats")? {
        Arc::new(Tensor::vector(v.to_vec()))
    } else if let Some(v) = spec.int("value_int")? {
        Arc::new(Tensor::scalar(v))
    } else if let Some(v) = spec.ints("value_ints")? {
        Arc::new(Tensor::vector(v.to_vec()))
    } else {
        return Err(spec.refuse("value", "one of the value attributes must be given"));
    };
    Ok(Box::new(Constant(value)))
}

impl Operator for Constant {
    fn infer(&self, _: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        Ok(vec![TensorType::known(
            self.0.element_type(),
            self.0.shape(),
        )])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        _: &mut Inputs<'_>,
        _: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        Ok(vec![cx.pool.copy(&self.0)])
    }
}
