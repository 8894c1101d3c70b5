//! `Squeeze`: drops axes of size 1. The axes are an attribute before version 13, then an input.

use super::reshape::move_data;
use super::{Facts, Inputs, Operator, RunContext, Spec, resolve_axis};
use crate::{Dim, ModelError, Tensor, TensorType};

struct Squeeze {
    axes: Option<Vec<i64>>,
    from_input: bool,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    let from_input = spec.version >= 13;
    if from_input {
        spec.check(1..=2, 1..=1, &[])?;
    } else {
        spec.check(1..=1, 1..=1, &["axes"])?;
    }
    let axes = spec.ints("axes")?.map(<[i64]>::to_vec);
    Ok(Box::new(Squeeze { axes, from_input }))
}

impl Operator for Squeeze {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.get(0)?.ty.element;
        let axes = match inputs.optional(1).filter(|_| self.from_input) {
            Some(f) => match f.integers() {
                Some(v) => Some(v),
                None => return Ok(vec![TensorType::unknown(element)]),
            },
            None => self.axes.clone(),
        };
        let Some(dims) = inputs.dims(0)? else {
            return Ok(vec![TensorType::unknown(element)]);
        };
        let shape = match axes {
            Some(axes) => {
                let mut drop = vec![false; dims.len()];
                for a in axes {
                    let a = resolve_axis(a, dims.len())?;
                    if dims[a].known().is_some_and(|n| n != 1) {
                        return Err(ModelError::operand(
                            "axes",
                            format!("{a} of {}", crate::graph::show_dims(dims)),
                            "axes of size 1",
                        ));
                    }
                    drop[a] = true;
                }
                let kept = dims.iter().zip(drop).filter(|(_, drop)| !drop);
                Some(kept.map(|(d, _)| d.clone()).collect())
            }
            // Every axis of size 1: only known where all are.
            None => super::known_shape(dims)
                .map(|d| d.into_iter().filter(|&n| n != 1).map(Dim::Known).collect()),
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
