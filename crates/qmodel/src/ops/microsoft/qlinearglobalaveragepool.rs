//! `QLinearGlobalAveragePool`: the mean of every channel's plane. The sum is exact in i64; the
//! result is the mean's real value, quantized.

use qformat::QParams;

use super::bytes::{BYTES, Byte, check_params, read_params};
use crate::ops::globalaveragepool::pooled;
use crate::ops::{Facts, Inputs, Operator, RunContext, Spec, for_element};
use crate::{Dim, ModelError, Tensor, TensorType};

struct QLinearGlobalAveragePool {
    channels_last: bool,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check_with_gaps(4..=5, &[2], 1..=1, &["channels_last"])?;
    Ok(Box::new(QLinearGlobalAveragePool {
        channels_last: spec.flag("channels_last")?,
    }))
}

/// The quantized mean of `count` values whose integers, zero points taken off, add up to `sum`.
pub(super) fn mean(sum: i64, count: usize, x: &QParams, y: &QParams) -> i32 {
    let mean = x.scale() * (sum as f32 / count as f32);
    y.quantize(mean)
}

impl Operator for QLinearGlobalAveragePool {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.element(0, &BYTES)?;
        check_params(inputs, 1, element)?;
        check_params(inputs, 3, element)?;
        let shape = inputs.dims_of_rank(0, 2..=usize::MAX)?.map(|d| {
            if self.channels_last {
                let last = d.len() - 1;
                let one = |(i, d): (usize, &Dim)| {
                    if i == 0 || i == last {
                        d.clone()
                    } else {
                        Dim::Known(1)
                    }
                };
                d.iter().enumerate().map(one).collect()
            } else {
                pooled(d)
            }
        });
        Ok(vec![TensorType { element, shape }])
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
            channels_last: bool,
        ) -> Result<Tensor, ModelError> {
            let (px, py) = (
                read_params(inputs, 1, T::TYPE)?,
                read_params(inputs, 3, T::TYPE)?,
            );
            let dims = inputs.get(0)?.shape();
            let x = inputs.slice::<T>(0)?;
            let mut out = cx.scratch::<T>(shape)?;
            // Element `p` of channel `i` (counted over the batch) lies at `start + p · step`.
            let (channels, pixels, step) = if channels_last {
                let c = dims[dims.len() - 1];
                (c, dims[1..dims.len() - 1].iter().product::<usize>(), c)
            } else {
                (dims[1], dims[2..].iter().product(), 1)
            };
            for (i, o) in out.iter_mut().enumerate() {
                let (n, c) = (i / channels, i % channels);
                let start = n * channels * pixels + if channels_last { c } else { c * pixels };
                let plane = x[start.min(x.len())..].iter().step_by(step).take(pixels);
                let sum = plane.map(|q| i64::from(q.to_i32() - px.zero_point())).sum();
                *o = T::saturate(mean(sum, pixels, &px, &py));
            }
            cx.tensor(shape, out)
        }
        let element = inputs.get(0)?.element_type();
        let out = for_element!(
            element,
            [U8 u8, I8 i8],
            go::<T>(cx, inputs, &shapes[0], self.channels_last)
        );
        Ok(vec![out?])
    }
}
