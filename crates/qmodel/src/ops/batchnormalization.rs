//! `BatchNormalization`, inference: `(x − mean) / √(variance + epsilon) · scale + bias`.

use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

struct BatchNormalization {
    epsilon: f32,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    let attributes: &[&str] = match spec.version {
        ..9 => &["epsilon", "momentum", "spatial"],
        9..14 => &["epsilon", "momentum"],
        _ => &["epsilon", "momentum", "training_mode"],
    };
    if spec.version >= 14 && spec.int_or("training_mode", 0)? != 0 {
        return Err(spec.refuse("training_mode", "0: only inference is supported"));
    }
    if spec.version < 9 && spec.int_or("spatial", 1)? != 1 {
        return Err(spec.refuse("spatial", "1: one statistic for each channel"));
    }
    spec.check(5..=5, 1..=1, attributes)?;
    Ok(Box::new(BatchNormalization {
        epsilon: spec.float_or("epsilon", 1e-5)?,
    }))
}

impl Operator for BatchNormalization {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        inputs.element(0, &[ElementType::F32])?;
        let channels = match inputs.dims(0)? {
            Some([_, c, ..]) => c.clone(),
            Some(_) => Dim::Known(1),
            None => Dim::Unknown,
        };
        for i in 1..5 {
            inputs.same_element(i)?;
            inputs.length(i, &channels)?;
        }
        Ok(vec![inputs.get(0)?.ty.clone()])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let shape = &shapes[0];
        let mut v = inputs.take_or_copy::<f32>(0, cx.pool)?;
        let (scale, bias) = (inputs.slice::<f32>(1)?, inputs.slice::<f32>(2)?);
        let (mean, variance) = (inputs.slice::<f32>(3)?, inputs.slice::<f32>(4)?);
        let inner: usize = shape.iter().skip(2).product();
        for (i, plane) in v.chunks_exact_mut(inner.max(1)).enumerate() {
            let c = i % scale.len();
            let factor = scale[c] / (variance[c] + self.epsilon).sqrt();
            let shift = bias[c] - mean[c] * factor;
            for x in plane {
                *x = *x * factor + shift;
            }
        }
        Ok(vec![cx.tensor(shape, v)?])
    }
}
