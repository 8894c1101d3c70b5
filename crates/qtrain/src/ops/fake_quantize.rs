//! Fake quantization with qcalib's forward and its gradients.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Error, Layout, Result, Shape, Tensor};
use qcalib::train::{Levels, Quantizer, lsq, straight_through};
use qformat::Granularity;

use super::{operand, read, tensor};

/// Fake quantization whose scales stay: `S · (clamp(rne(x / S) + Z) − Z)`, and backward the
/// straight-through estimator, zero where values clip
/// ([`straight_through`](qcalib::train::straight_through)).
///
/// ```
/// use candle_core::{Device, Var};
/// use qcalib::train::{Levels, Quantizer};
/// use qformat::{Granularity, Scheme};
/// use qtrain::ops::FakeQuantize;
///
/// let levels = Levels::new(2, true, Scheme::Symmetric)?;
/// let q = Quantizer::new(Granularity::PerTensor, levels, vec![1.0], vec![0.0])?;
/// let x = Var::new(&[0.4f32, 1.4, 1.6], &Device::Cpu)?;
/// let y = x.apply_op1(FakeQuantize(q))?;
/// assert_eq!(y.to_vec1::<f32>()?, [0.0, 1.0, 1.0]);
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [1.0, 1.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct FakeQuantize(pub Quantizer);

impl CustomOp1 for FakeQuantize {
    fn name(&self) -> &'static str {
        "fake-quantize"
    }

    fn cpu_fwd(&self, s: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        forward(&self.0, s, layout, self.name())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = vec![0f32; x.elem_count()];
        read(x, |x_values| {
            read(dy, |dy| {
                straight_through(&self.0, x_values, x.dims(), dy, &mut dx).map_err(Error::wrap)
            })
        })?;
        tensor(dx, x.dims()).map(Some)
    }
}

/// Fake quantization whose scales are the second operand, one a group, and learned: the backward
/// is that of LSQ ([`lsq`](qcalib::train::lsq)) with a gradient scale of 1. Zero points are 0.
///
/// ```
/// use candle_core::{Device, Var};
/// use qcalib::train::Levels;
/// use qformat::{Granularity, Scheme};
/// use qtrain::ops::LearnedStep;
///
/// let op = LearnedStep {
///     granularity: Granularity::PerTensor,
///     levels: Levels::new(2, true, Scheme::Symmetric)?,
/// };
/// let x = Var::new(&[0.25f32, 7.0], &Device::Cpu)?;
/// let scale = Var::new(&[1f32], &Device::Cpu)?;
/// let y = x.apply_op2(&scale, op)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0.0, 1.0]);
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [1.0, 0.0]);
/// assert_eq!(grads.get(&scale).unwrap().to_vec1::<f32>()?, [-0.25 + 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LearnedStep {
    /// Which values share a scale.
    pub granularity: Granularity,
    /// The integers.
    pub levels: Levels,
}

impl LearnedStep {
    fn quantizer(&self, scales: &[f32]) -> Result<Quantizer> {
        let zeros = vec![0.0; scales.len()];
        Quantizer::new(self.granularity, self.levels, scales.to_vec(), zeros).map_err(Error::wrap)
    }
}

impl CustomOp2 for LearnedStep {
    fn name(&self) -> &'static str {
        "learned-step"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let q = self.quantizer(operand(s2, l2, self.name())?)?;
        forward(&q, s1, l1, self.name())
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let q = read(scale, |s| self.quantizer(s))?;
        let mut dx = vec![0f32; x.elem_count()];
        let ds = read(x, |x_values| {
            read(dy, |dy| {
                lsq(&q, x_values, x.dims(), dy, &mut dx, 1.0).map_err(Error::wrap)
            })
        })?;
        Ok((Some(tensor(dx, x.dims())?), Some(tensor(ds, scale.dims())?)))
    }
}

fn forward(
    q: &Quantizer,
    s: &CpuStorage,
    layout: &Layout,
    op: &'static str,
) -> Result<(CpuStorage, Shape)> {
    let x = operand(s, layout, op)?;
    let mut y = vec![0f32; x.len()];
    q.forward(x, layout.dims(), &mut y).map_err(Error::wrap)?;
    Ok((CpuStorage::F32(y), layout.shape().clone()))
}
