//! `MaxPool`, 1-D and 2-D. Padding never wins; the indices output is not supported.

use super::window::{Axis, Window};
use super::{Facts, Inputs, Operator, RunContext, Spec, for_element};
use crate::{Dim, ElementType, ModelError, Tensor, TensorElement, TensorType};

struct MaxPool {
    window: Window,
}

/// Reads the window of a `MaxPool` node.
pub(crate) fn window(spec: &Spec<'_>) -> Result<Window, ModelError> {
    let attributes = [
        "auto_pad",
        "kernel_shape",
        "pads",
        "strides",
        "storage_order",
        "ceil_mode",
        "dilations",
    ];
    let known = match spec.version {
        ..8 => &attributes[..4],
        8..10 => &attributes[..5],
        _ => &attributes[..],
    };
    spec.check(1..=1, 1..=1, known)?;
    Window::read(spec, true)
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Ok(Box::new(MaxPool {
        window: window(spec)?,
    }))
}

/// Output dimensions of a pooling.
pub(crate) fn pooled_dims(
    window: &Window,
    inputs: &Facts<'_>,
) -> Result<Option<Vec<Dim>>, ModelError> {
    let Some(x) = inputs.dims_of_rank(0, 3..=4)? else {
        return Ok(None);
    };
    let mut out = x[..2].to_vec();
    out.extend(window.output_dims(&x[2..], window.kernel())?);
    Ok(Some(out))
}

impl Operator for MaxPool {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        use ElementType::{F32, F64, I8, U8};
        let element = inputs.element(0, &[F32, F64, I8, U8])?;
        Ok(vec![TensorType {
            element,
            shape: pooled_dims(&self.window, inputs)?,
        }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let x = inputs.get(0)?;
        let axes = self
            .window
            .two_axes(&x.shape()[2..], self.window.kernel())?;
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
    axes: [Axis; 2],
) -> Result<Tensor, ModelError> {
    let x = inputs.slice::<T>(0)?;
    let mut out = cx.scratch::<T>(shape)?;
    let [y, c] = axes;
    let (in_plane, out_plane) = (y.input * c.input, y.output * c.output);
    let planes = x
        .chunks_exact(in_plane.max(1))
        .zip(out.chunks_exact_mut(out_plane.max(1)));
    // The common case, 2 × 2 by steps of 2 without padding, in straight lines.
    let halving = axes.iter().all(|a| {
        (a.kernel, a.stride, a.dilation, a.before) == (2, 2, 1, 0) && 2 * a.output <= a.input
    });
    for (plane, out) in planes {
        for oy in 0..y.output {
            let row = &mut out[oy * c.output..(oy + 1) * c.output];
            if halving {
                let top = &plane[2 * oy * c.input..][..2 * c.output];
                let bottom = &plane[(2 * oy + 1) * c.input..][..2 * c.output];
                let pairs = top.as_chunks::<2>().0.iter().zip(bottom.as_chunks::<2>().0);
                for (o, (t, b)) in row.iter_mut().zip(pairs) {
                    *o = t[0].larger(t[1]).larger(b[0].larger(b[1]));
                }
                continue;
            }
            let (ky, first_row) = y.inside(oy);
            for (ox, o) in row.iter_mut().enumerate() {
                let (kx, first) = c.inside(ox);
                let mut best = None;
                for i in 0..ky.len() {
                    let line = (first_row + i * y.dilation) * c.input + first;
                    for j in 0..kx.len() {
                        let v = plane[line + j * c.dilation];
                        best = Some(best.map_or(v, |b: T| b.larger(v)));
                    }
                }
                // A window has at least one element inside, because padding is smaller than it;
                // with dilation it may have none, and is then zero.
                *o = best.unwrap_or_default();
            }
        }
    }
    cx.tensor(shape, out)
}

/// Elements of which a window can take the largest.
pub(crate) trait Largest: TensorElement {
    /// The larger of two values; NaN wins, as in ONNX Runtime's and `NumPy`'s `maximum`.
    fn larger(self, other: Self) -> Self;
}

macro_rules! largest {
    ($($int:ty)*; $($float:ty)*) => {
        $(impl Largest for $int {
            #[inline]
            fn larger(self, other: $int) -> $int {
                self.max(other)
            }
        })*
        $(impl Largest for $float {
            #[inline]
            fn larger(self, other: $float) -> $float {
                if other > self || other.is_nan() { other } else { self }
            }
        })*
    };
}
largest!(i8 u8; f32 f64);
