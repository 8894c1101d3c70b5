//! `Unsqueeze`: puts in axes of size 1. The axes are an attribute before version 13, then an
//! input; they count in the output.

use super::reshape::move_data;
use super::{Facts, Inputs, Operator, RunContext, Spec, resolve_axis};
use crate::{Dim, ModelError, Tensor, TensorType};

/// More axes than this are absurd.
const MOST_AXES: usize = 64;

struct Unsqueeze {
    axes: Vec<i64>,
    from_input: bool,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    let from_input = spec.version >= 13;
    if from_input {
        spec.check(2..=2, 1..=1, &[])?;
    } else {
        spec.check(1..=1, 1..=1, &["axes"])?;
    }
    let axes = match spec.ints("axes")? {
        Some(a) => a.to_vec(),
        None if from_input => Vec::new(),
        None => return Err(spec.refuse("axes", "it must be given")),
    };
    Ok(Box::new(Unsqueeze { axes, from_input }))
}

impl Operator for Unsqueeze {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.get(0)?.ty.element;
        let axes = if self.from_input {
            match inputs.get(1)?.integers() {
                Some(v) => v,
                None => return Ok(vec![TensorType::unknown(element)]),
            }
        } else {
            self.axes.clone()
        };
        let Some(dims) = inputs.dims(0)? else {
            return Ok(vec![TensorType::unknown(element)]);
        };
        let rank = dims.len() + axes.len();
        if rank > MOST_AXES {
            return Err(ModelError::operand(
                "axes",
                format!("{} of them", axes.len()),
                format!("a result of rank {MOST_AXES} at most"),
            ));
        }
        let mut new = vec![false; rank];
        for &a in &axes {
            let a = resolve_axis(a, rank)?;
            if std::mem::replace(&mut new[a], true) {
                return Err(ModelError::operand(
                    "axes",
                    format!("{axes:?}"),
                    "each once",
                ));
            }
        }
        let mut old = dims.iter();
        let shape = new
            .into_iter()
            .filter_map(|new| {
                if new {
                    Some(Dim::Known(1))
                } else {
                    old.next().cloned()
                }
            })
            .collect();
        Ok(vec![TensorType {
            element,
            shape: Some(shape),
        }])
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
