//! `Flatten`: a matrix, the axes before `axis` times the axes from it on.

use super::reshape::move_data;
use super::{Facts, Inputs, Operator, RunContext, Spec, known_count};
use crate::{Dim, ModelError, Tensor, TensorType};

struct Flatten {
    axis: i64,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(1..=1, 1..=1, &["axis"])?;
    Ok(Box::new(Flatten {
        axis: spec.int_or("axis", 1)?,
    }))
}

/// The product of dimensions; one symbol among ones stays that symbol.
fn product(dims: &[Dim]) -> Dim {
    if let Some(n) = known_count(dims) {
        return Dim::Known(n);
    }
    let mut others = dims.iter().filter(|d| **d != Dim::Known(1));
    match (others.next(), others.next()) {
        (Some(d), None) => d.clone(),
        _ => Dim::Unknown,
    }
}

impl Operator for Flatten {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.get(0)?.ty.element;
        let shape = match inputs.dims(0)? {
            None => Some(vec![Dim::Unknown, Dim::Unknown]),
            Some(d) => {
                // The axis may also stand behind the last.
                let axis = if i64::try_from(d.len()) == Ok(self.axis) {
                    d.len()
                } else {
                    super::resolve_axis(self.axis, d.len())?
                };
                Some(vec![product(&d[..axis]), product(&d[axis..])])
            }
        };
        Ok(vec![TensorType { element, shape }])
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
