//! The windows of a convolution as the rows of a matrix.

use candle_core::{CpuStorage, CustomOp1, Error, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{image, operand, read, tensor};

/// Turns an image `[N, H, W, C]` into a matrix with a row for each position of a `size × size`
/// window that moves by 1 over the image padded with zeros: `[N · H' · W', size · size · C]`,
/// `H' = H + 2 · pad − size + 1`. Its product with filters `[size · size · C, O]` is the
/// convolution. Backward, each pixel gets the sum over the windows that hold it.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use qtrain::ops::Patches;
/// let x = Tensor::new(&[1f32, 2.0, 3.0, 4.0], &Device::Cpu)?.reshape((1, 2, 2, 1))?;
/// let rows = x.apply_op1(Patches { size: 2, pad: 0 })?;
/// assert_eq!(rows.to_vec2::<f32>()?, [[1.0, 2.0, 3.0, 4.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patches {
    /// Height and width of the window.
    pub size: usize,
    /// Rows and columns of zeros on each side.
    pub pad: usize,
}

/// A run of pixels that a window's row and an image share: where it starts in each, and how long
/// it is, in elements.
type Shared = (usize, usize, usize);

impl Patches {
    /// Height or width of the result for that of an image.
    fn positions(&self, length: usize) -> Result<usize> {
        let padded = self.pad.checked_mul(2).and_then(|p| p.checked_add(length));
        padded
            .and_then(|p| p.checked_add(1)?.checked_sub(self.size))
            .filter(|&n| n > 0 && self.size > 0)
            .ok_or_else(|| {
                Error::Msg(format!(
                    "patches: a window of {} does not fit into {length} with a border of {}",
                    self.size, self.pad
                ))
            })
    }

    /// Positions of the window in an image, and numbers in it, if their products with the number
    /// of samples can be counted.
    fn extent(&self, [n, h, w, c]: [usize; 4]) -> Result<(usize, usize)> {
        let (high, wide) = (self.positions(h)?, self.positions(w)?);
        let factors = [n, high, wide, self.size, self.size, c];
        // Zero dimensions count as one, so that every part of the product can be counted too.
        let all = factors
            .iter()
            .try_fold(1usize, |m, &d| m.checked_mul(d.max(1)));
        match all {
            Some(_) => Ok((high * wide, self.size * self.size * c)),
            None => Err(Error::Msg("patches: too many to count".to_owned())),
        }
    }

    /// The runs that one sample and its patches share, as offsets into each.
    fn shared(&self, [_, h, w, c]: [usize; 4]) -> Result<Vec<Shared>> {
        let (high, wide) = (self.positions(h)?, self.positions(w)?);
        let (size, pad) = (self.size, self.pad);
        let mut runs = Vec::with_capacity(high * wide * size);
        for (oy, ox) in (0..high).flat_map(|y| (0..wide).map(move |x| (y, x))) {
            let row = (oy * wide + ox) * size * size * c;
            // Columns of the window that lie inside the image.
            let first = pad.saturating_sub(ox).min(size);
            let last = (w + pad).saturating_sub(ox).min(size);
            for ky in 0..size {
                let inside = (oy + ky).checked_sub(pad).filter(|&y| y < h);
                if let (Some(y), true) = (inside, first < last) {
                    let at = (y * w + ox + first - pad) * c;
                    runs.push((row + (ky * size + first) * c, at, (last - first) * c));
                }
            }
        }
        Ok(runs)
    }
}

impl CustomOp1 for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }

    fn cpu_fwd(&self, s: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let dims @ [n, h, w, c] = image(self.name(), layout)?;
        let x = operand(s, layout, self.name())?;
        let (positions, depth) = self.extent(dims)?;
        let runs = self.shared(dims)?;
        let mut rows = vec![0f32; n * positions * depth];
        let samples = rows.par_chunks_mut((positions * depth).max(1));
        samples
            .zip(x.par_chunks((h * w * c).max(1)))
            .for_each(|(rows, x)| {
                for &(to, from, len) in &runs {
                    rows[to..to + len].copy_from_slice(&x[from..from + len]);
                }
            });
        Ok((CpuStorage::F32(rows), (n * positions, depth).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dims @ [_, h, w, c] = image(self.name(), x.layout())?;
        let (positions, depth) = self.extent(dims)?;
        let (runs, each) = (self.shared(dims)?, positions * depth);
        let mut dx = vec![0f32; x.elem_count()];
        read(dy, |dy| {
            dx.par_chunks_mut((h * w * c).max(1))
                .zip(dy.par_chunks(each.max(1)))
                .for_each(|(dx, dy)| {
                    for &(from, to, len) in &runs {
                        let into = dx[to..to + len].iter_mut();
                        into.zip(&dy[from..from + len]).for_each(|(d, g)| *d += g);
                    }
                });
            Ok(())
        })?;
        tensor(dx, x.dims()).map(Some)
    }
}
