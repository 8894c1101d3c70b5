//! `DynamicQuantizeLinear`: u8 with the range of the data itself, widened to hold 0.
//!
//! `scale = (max − min) / 255`, `zero_point = saturate(rne(−min / scale))`, in f32 as the standard
//! defines it. A tensor of zeros has the scale 1. Infinities and NaN do not widen the range; they
//! are quantized by the usual rules.

use qformat::{DType, QParams, Scheme, rne};

use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{ElementType, ModelError, Tensor, TensorType};

struct DynamicQuantizeLinear;

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(1..=1, 3..=3, &[])?;
    Ok(Box::new(DynamicQuantizeLinear))
}

/// The parameters for data of this range.
fn params(min: f32, max: f32) -> Result<QParams, ModelError> {
    let (min, max) = (min.min(0.0), max.max(0.0));
    let scale = match (max - min) / 255.0 {
        0.0 => 1.0,
        s => s,
    };
    // A float-to-integer cast saturates.
    let zero = (rne(-min / scale) as i32).clamp(0, 255);
    Ok(QParams::new(scale, zero, DType::U8, Scheme::Affine)?)
}

impl Operator for DynamicQuantizeLinear {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        inputs.element(0, &[ElementType::F32])?;
        Ok(vec![
            TensorType {
                element: ElementType::U8,
                shape: inputs.get(0)?.ty.shape.clone(),
            },
            TensorType::known(ElementType::F32, &[]),
            TensorType::known(ElementType::U8, &[]),
        ])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let x = inputs.slice::<f32>(0)?;
        let range = qkernels::min_max(cx.isa, x);
        let p = params(range.min.unwrap_or(0.0), range.max.unwrap_or(0.0))?;
        let mut out = cx.scratch::<u8>(&shapes[0])?;
        qkernels::quantize(cx.isa, x, &p, &mut out)?;
        // A zero point of u8 parameters is a u8.
        let zero = u8::try_from(p.zero_point()).unwrap_or_default();
        Ok(vec![
            cx.tensor(&shapes[0], out)?,
            Tensor::scalar(p.scale()),
            Tensor::scalar(zero),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degenerate_and_extreme_ranges() {
        let p = params(0.0, 0.0).unwrap();
        assert_eq!((p.scale(), p.zero_point()), (1.0, 0));
        let p = params(-2.0, -1.0).unwrap();
        assert_eq!((p.scale(), p.zero_point()), (2.0 / 255.0, 255));
        // A range that f32 cannot hold is an error, not an infinite scale.
        assert!(params(f32::MIN, f32::MAX).is_err());
    }
}
