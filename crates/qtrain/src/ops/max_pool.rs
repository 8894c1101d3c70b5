//! Largest values of windows.

use candle_core::{CpuStorage, CustomOp1, Error, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{image, operand, read, tensor};

/// The largest value of each `size × size` window of an image `[N, H, W, C]`; windows touch, and
/// what they do not cover at the right and at the bottom falls away. Backward, the first of equal
/// values in a window, row by row, gets the gradient.
///
/// ```
/// use candle_core::{Device, Var};
/// use qtrain::ops::MaxPool;
/// let x = Var::new(&[1f32, 4.0, 4.0, 3.0], &Device::Cpu)?;
/// let y = x.reshape((1, 2, 2, 1))?.apply_op1(MaxPool { size: 2 })?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [4.0]);
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [0.0, 1.0, 0.0, 0.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPool {
    /// Height and width of the windows, and the steps between them.
    pub size: usize,
}

impl MaxPool {
    fn windows(&self, [_, h, w, _]: [usize; 4]) -> Result<(usize, usize)> {
        match (h.checked_div(self.size), w.checked_div(self.size)) {
            (Some(high @ 1..), Some(wide @ 1..)) => Ok((high, wide)),
            _ => Err(Error::Msg(format!(
                "max-pool: windows of {} do not fit into {h} × {w}",
                self.size
            ))),
        }
    }

    /// Calls `f` with the offset of every output in its sample and that of its first largest
    /// input.
    fn largest(&self, x: &[f32], [_, _, w, c]: [usize; 4], mut f: impl FnMut(usize, usize)) {
        let wide = w / self.size;
        let high = x.len() / (w * c) / self.size;
        for (oy, ox) in (0..high).flat_map(|y| (0..wide).map(move |x| (y, x))) {
            for channel in 0..c {
                let at = |k: usize| {
                    let (y, x) = (
                        oy * self.size + k / self.size,
                        ox * self.size + k % self.size,
                    );
                    (y * w + x) * c + channel
                };
                let mut best = at(0);
                for k in 1..self.size * self.size {
                    if x[at(k)] > x[best] {
                        best = at(k);
                    }
                }
                f((oy * wide + ox) * c + channel, best);
            }
        }
    }
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, s: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let dims @ [n, h, w, c] = image(self.name(), layout)?;
        let (high, wide) = self.windows(dims)?;
        let x = operand(s, layout, self.name())?;
        let mut y = vec![0f32; n * high * wide * c];
        y.par_chunks_mut((high * wide * c).max(1))
            .zip(x.par_chunks((h * w * c).max(1)))
            .for_each(|(y, x)| self.largest(x, dims, |to, from| y[to] = x[from]));
        Ok((CpuStorage::F32(y), (n, high, wide, c).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dims @ [_, h, w, c] = image(self.name(), x.layout())?;
        let (high, wide) = self.windows(dims)?;
        let mut dx = vec![0f32; x.elem_count()];
        read(x, |x| {
            read(dy, |dy| {
                dx.par_chunks_mut((h * w * c).max(1))
                    .zip(x.par_chunks((h * w * c).max(1)))
                    .zip(dy.par_chunks((high * wide * c).max(1)))
                    .for_each(|((dx, x), dy)| {
                        self.largest(x, dims, |from, to| dx[to] = dy[from]);
                    });
                Ok(())
            })
        })?;
        tensor(dx, x.dims()).map(Some)
    }
}
