//! `AveragePool`, 1-D and 2-D.

use super::maxpool::pooled_dims;
use super::window::{Axis, Window};
use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{ElementType, ModelError, Tensor, TensorType};

/// What every form of average pooling reads from its attributes.
#[derive(Debug, Clone)]
pub(crate) struct Averaging {
    pub(crate) window: Window,
    /// Whether padding counts in the divisor.
    pub(crate) count_padding: bool,
}

impl Averaging {
    pub(crate) fn read(spec: &Spec<'_>) -> Result<Averaging, ModelError> {
        Ok(Averaging {
            window: Window::read(spec, true)?,
            count_padding: spec.flag("count_include_pad")?,
        })
    }

    /// What the sum of output position `(oy, ox)` is divided by. Where padding counts, what a
    /// window of ceil mode hangs over the padded input does not.
    pub(crate) fn divisor(&self, [y, x]: [Axis; 2], oy: usize, ox: usize) -> usize {
        let along = |a: Axis, o: usize| {
            if self.count_padding {
                let room = a.input + a.before + a.after - o * a.stride;
                room.div_ceil(a.dilation).min(a.kernel)
            } else {
                a.inside(o).0.len()
            }
        };
        along(y, oy) * along(x, ox)
    }
}

struct AveragePool(Averaging);

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    let attributes = [
        "auto_pad",
        "kernel_shape",
        "pads",
        "strides",
        "count_include_pad",
        "ceil_mode",
        "dilations",
    ];
    let known = match spec.version {
        ..10 => &attributes[..5],
        10..19 => &attributes[..6],
        _ => &attributes[..],
    };
    spec.check(1..=1, 1..=1, known)?;
    Ok(Box::new(AveragePool(Averaging::read(spec)?)))
}

impl Operator for AveragePool {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.element(0, &[ElementType::F32])?;
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
        let window = &self.0.window;
        let axes = window.two_axes(&inputs.get(0)?.shape()[2..], window.kernel())?;
        let x = inputs.slice::<f32>(0)?;
        let mut out = cx.scratch::<f32>(&shapes[0])?;
        let [y, c] = axes;
        let (in_plane, out_plane) = (y.input * c.input, y.output * c.output);
        let planes = x
            .chunks_exact(in_plane.max(1))
            .zip(out.chunks_exact_mut(out_plane.max(1)));
        for (plane, out) in planes {
            for (i, o) in out.iter_mut().enumerate() {
                let (oy, ox) = (i / c.output, i % c.output);
                let sum = sum(plane, axes, oy, ox, |v| v);
                *o = sum / self.0.divisor(axes, oy, ox).max(1) as f32;
            }
        }
        Ok(vec![cx.tensor(&shapes[0], out)?])
    }
}

/// The sum of the elements under a window.
pub(crate) fn sum<T: Copy, S: std::ops::Add<Output = S> + Default>(
    plane: &[T],
    [y, x]: [Axis; 2],
    oy: usize,
    ox: usize,
    value: impl Fn(T) -> S,
) -> S {
    let ((ky, row), (kx, col)) = (y.inside(oy), x.inside(ox));
    let mut total = S::default();
    for i in 0..ky.len() {
        let line = (row + i * y.dilation) * x.input + col;
        for j in 0..kx.len() {
            total = total + value(plane[line + j * x.dilation]);
        }
    }
    total
}
