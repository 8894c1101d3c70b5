//! `QLinearAveragePool`, 1-D and 2-D, channels first. The sum is exact; the result is the mean's
//! real value, quantized.

use super::bytes::{BYTES, Byte, check_params, read_params};
use super::qlinearglobalaveragepool::mean;
use crate::ops::averagepool::{Averaging, sum};
use crate::ops::maxpool::pooled_dims;
use crate::ops::{Facts, Inputs, Operator, RunContext, Spec, for_element};
use crate::{ModelError, Tensor, TensorType};

struct QLinearAveragePool(Averaging);

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check_with_gaps(
        4..=5,
        &[2],
        1..=1,
        &[
            "auto_pad",
            "ceil_mode",
            "channels_last",
            "count_include_pad",
            "kernel_shape",
            "pads",
            "strides",
        ],
    )?;
    if spec.flag("channels_last")? {
        return Err(spec.refuse("channels_last", "0: channels first"));
    }
    Ok(Box::new(QLinearAveragePool(Averaging::read(spec)?)))
}

impl Operator for QLinearAveragePool {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.element(0, &BYTES)?;
        check_params(inputs, 1, element)?;
        check_params(inputs, 3, element)?;
        Ok(vec![TensorType {
            element,
            shape: pooled_dims(&self.0.window, inputs)?,
        }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        fn go<T: Byte>(
            cx: &mut RunContext<'_>,
            inputs: &Inputs<'_>,
            shape: &[usize],
            pooling: &Averaging,
        ) -> Result<Tensor, ModelError> {
            let (px, py) = (
                read_params(inputs, 1, T::TYPE)?,
                read_params(inputs, 3, T::TYPE)?,
            );
            let spatial = &inputs.get(0)?.shape()[2..];
            let axes = pooling.window.two_axes(spatial, pooling.window.kernel())?;
            let x = inputs.slice::<T>(0)?;
            let mut out = cx.scratch::<T>(shape)?;
            let [y, c] = axes;
            let planes = x
                .chunks_exact((y.input * c.input).max(1))
                .zip(out.chunks_exact_mut((y.output * c.output).max(1)));
            for (plane, out) in planes {
                for (i, o) in out.iter_mut().enumerate() {
                    let (oy, ox) = (i / c.output, i % c.output);
                    let value = |q: T| i64::from(q.to_i32() - px.zero_point());
                    let total = sum(plane, axes, oy, ox, value);
                    let count = pooling.divisor(axes, oy, ox).max(1);
                    *o = T::saturate(mean(total, count, &px, &py));
                }
            }
            cx.tensor(shape, out)
        }
        let element = inputs.get(0)?.element_type();
        let out = for_element!(element, [U8 u8, I8 i8], go::<T>(cx, inputs, &shapes[0], &self.0));
        Ok(vec![out?])
    }
}
