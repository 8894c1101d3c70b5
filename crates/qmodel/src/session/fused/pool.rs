//! `MaxPool` with channels last: whole rows of channels are compared at a time.

use crate::ops::maxpool::Largest;
use crate::ops::window::{Axis, Window};
use crate::ops::{Facts, Inputs, Operator, RunContext, for_element};
use crate::{ElementType, ModelError, Tensor, TensorType};

/// The pooling of `[N, …, C]`.
pub(crate) struct PoolLast {
    pub(crate) window: Window,
}

impl Operator for PoolLast {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        use ElementType::{F32, F64, I8, U8};
        let element = inputs.element(0, &[F32, F64, I8, U8])?;
        let shape = match inputs.dims_of_rank(0, 3..=4)? {
            None => None,
            Some(x) => {
                let last = x.len() - 1;
                let mut out = vec![x[0].clone()];
                out.extend(self.window.output_dims(&x[1..last], self.window.kernel())?);
                out.push(x[last].clone());
                Some(out)
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
        let x = inputs.get(0)?;
        let last = x.rank() - 1;
        let axes = self
            .window
            .two_axes(&x.shape()[1..last], self.window.kernel())?;
        let element = x.element_type();
        let out = for_element!(
            element,
            [F32 f32, F64 f64, I8 i8, U8 u8],
            pool::<T>(cx, inputs, &shapes[0], axes)
        );
        Ok(vec![out?])
    }
}

fn pool<T: Largest>(
    cx: &mut RunContext<'_>,
    inputs: &Inputs<'_>,
    shape: &[usize],
    [y, x]: [Axis; 2],
) -> Result<Tensor, ModelError> {
    let data = inputs.slice::<T>(0)?;
    let mut out = cx.scratch::<T>(shape)?;
    let channels = shape[shape.len() - 1];
    let images = data
        .chunks_exact((y.input * x.input * channels).max(1))
        .zip(out.chunks_exact_mut((y.output * x.output * channels).max(1)));
    for (image, out) in images {
        for (i, best) in out.chunks_exact_mut(channels.max(1)).enumerate() {
            let ((ky, row), (kx, col)) = (y.inside(i / x.output), x.inside(i % x.output));
            if ky.len() == 2 && kx.len() == 2 {
                // The common case: four taps at once.
                let tap = |ty: usize, tx: usize| {
                    let at = ((row + ty * y.dilation) * x.input + col + tx * x.dilation) * channels;
                    &image[at..at + channels]
                };
                let (upper, lower) = (
                    tap(0, 0).iter().zip(tap(0, 1)),
                    tap(1, 0).iter().zip(tap(1, 1)),
                );
                for ((b, (&p, &q)), (&r, &s)) in best.iter_mut().zip(upper).zip(lower) {
                    *b = p.larger(q).larger(r.larger(s));
                }
                continue;
            }
            let mut fresh = true;
            for ty in 0..ky.len() {
                for tx in 0..kx.len() {
                    let at = ((row + ty * y.dilation) * x.input + col + tx * x.dilation) * channels;
                    let tap = &image[at..at + channels];
                    if fresh {
                        best.copy_from_slice(tap);
                        fresh = false;
                    } else {
                        best.iter_mut()
                            .zip(tap)
                            .for_each(|(b, &t)| *b = b.larger(t));
                    }
                }
            }
            if fresh {
                best.fill(T::default());
            }
        }
    }
    cx.tensor(shape, out)
}
