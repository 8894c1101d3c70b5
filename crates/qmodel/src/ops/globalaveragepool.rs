//! `GlobalAveragePool`: the mean of every channel's plane, over any number of spatial axes.

use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

struct GlobalAveragePool;

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(1..=1, 1..=1, &[])?;
    Ok(Box::new(GlobalAveragePool))
}

/// Input dimensions with every spatial axis become 1.
pub(crate) fn pooled(dims: &[Dim]) -> Vec<Dim> {
    let one = |(i, d): (usize, &Dim)| if i < 2 { d.clone() } else { Dim::Known(1) };
    dims.iter().enumerate().map(one).collect()
}

impl Operator for GlobalAveragePool {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.element(0, &[ElementType::F32])?;
        let shape = inputs.dims_of_rank(0, 2..=usize::MAX)?.map(pooled);
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let pixels: usize = inputs.get(0)?.shape()[2..].iter().product();
        let x = inputs.slice::<f32>(0)?;
        let mut out = cx.scratch::<f32>(&shapes[0])?;
        for (i, o) in out.iter_mut().enumerate() {
            let plane = &x[i * pixels..(i + 1) * pixels];
            *o = plane.iter().sum::<f32>() / pixels as f32;
        }
        Ok(vec![cx.tensor(&shapes[0], out)?])
    }
}
