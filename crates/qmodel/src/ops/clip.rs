//! `Clip`: `min(max(x, low), high)`; the bounds are attributes before version 11, then inputs.

use super::{Facts, Inputs, Operator, RunContext, Spec, for_element};
use crate::{Dim, ElementType, ModelError, Tensor, TensorElement, TensorType};

struct Clip {
    /// Bounds from attributes.
    bounds: (Option<f32>, Option<f32>),
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    let bounds = if spec.version < 11 {
        spec.check(1..=1, 1..=1, &["min", "max"])?;
        (spec.float("min")?, spec.float("max")?)
    } else {
        spec.check(1..=3, 1..=1, &[])?;
        (None, None)
    };
    Ok(Box::new(Clip { bounds }))
}

impl Operator for Clip {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        use ElementType::{F32, F64, I8, I16, I32, I64, U8, U16};
        inputs.element(0, &[F32, F64, I8, I16, I32, I64, U8, U16])?;
        for i in [1, 2] {
            inputs.same_element(i)?;
            inputs.length(i, &Dim::Known(1))?;
        }
        Ok(vec![inputs.get(0)?.ty.clone()])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        fn go<T: TensorElement + PartialOrd>(
            cx: &mut RunContext<'_>,
            inputs: &mut Inputs<'_>,
            shape: &[usize],
            low: Option<T>,
            high: Option<T>,
        ) -> Result<Tensor, ModelError> {
            let low = inputs.optional_scalar::<T>(1)?.or(low);
            let high = inputs.optional_scalar::<T>(2)?.or(high);
            let mut v = inputs.take_or_copy::<T>(0, cx.pool)?;
            if let Some(low) = low {
                for x in &mut v {
                    *x = if *x < low { low } else { *x };
                }
            }
            // Last, so that it wins where the bounds are swapped, as the standard says.
            if let Some(high) = high {
                for x in &mut v {
                    *x = if *x > high { high } else { *x };
                }
            }
            cx.tensor(shape, v)
        }
        let element = inputs.get(0)?.element_type();
        let out = if element == ElementType::F32 {
            go::<f32>(cx, inputs, &shapes[0], self.bounds.0, self.bounds.1)
        } else {
            for_element!(
                element,
                [F64 f64, I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16],
                go::<T>(cx, inputs, &shapes[0], None, None)
            )
        };
        Ok(vec![out?])
    }
}
