//! Batch normalizations on their way through training.

use candle_core::{Device, Tensor, Var};
use qcalib::train::{BatchNorm, BatchStatistics};

use crate::graph::Operands;
use crate::{Network, Normalized, TrainError};

/// The batch normalizations of all layers; their `β` are the biases of the graph.
pub(super) struct Norms {
    momentum: f32,
    layers: Vec<Option<Norm>>,
}

struct Norm {
    gamma: Var,
    /// Running statistics; `γ` and `β` of it are those that training started from.
    running: BatchNorm,
}

impl Norms {
    pub(super) fn new(network: &Normalized, momentum: f32) -> Result<Norms, TrainError> {
        let layers = network.layers().iter().map(|own| {
            let Some(own) = own else { return Ok(None) };
            let (gamma, channels) = (own.norm.gamma.clone(), own.norm.gamma.len());
            Ok(Some(Norm {
                gamma: Var::from_vec(gamma, channels, &Device::Cpu)?,
                running: own.norm.clone(),
            }))
        });
        Ok(Norms {
            momentum,
            layers: layers.collect::<Result<_, TrainError>>()?,
        })
    }

    /// What is trained: all `γ`.
    pub(super) fn variables(&self) -> impl Iterator<Item = Var> {
        self.layers.iter().flatten().map(|n| n.gamma.clone())
    }

    /// Running statistics stay from here on, and are used instead of those of batches.
    pub(super) fn freeze(&mut self) {
        for norm in self.layers.iter_mut().flatten() {
            norm.running.frozen = true;
        }
    }

    /// The network of the graph with the normalizations as they are now.
    pub(super) fn join(&self, network: Network) -> Result<Normalized, TrainError> {
        let norms = self.layers.iter().map(|norm| {
            let Some(norm) = norm else { return Ok(None) };
            Ok(Some(BatchNorm {
                gamma: norm.gamma.to_vec1()?,
                ..norm.running.clone()
            }))
        });
        Normalized::join(network, norms.collect::<Result<_, TrainError>>()?)
    }

    fn layer(&mut self, layer: usize) -> Option<&mut Norm> {
        self.layers.get_mut(layer)?.as_mut()
    }
}

impl Norm {
    /// `√(σ² + ε)` of the running statistics.
    fn deviation(&self) -> impl Iterator<Item = f64> + '_ {
        let epsilon = f64::from(self.running.epsilon);
        let variances = self.running.variance.iter();
        variances.map(move |&v| (f64::from(v) + epsilon).sqrt())
    }

    fn tensor(&self, values: impl Iterator<Item = f64>) -> Result<Tensor, TrainError> {
        let values = values.map(|v| v as f32).collect();
        let channels = self.running.gamma.len();
        Ok(Tensor::from_vec(values, channels, &Device::Cpu)?)
    }

    /// `w · γ / √(σ² + ε)`, by the running statistics.
    fn fold(&self, w: &Tensor) -> Result<Tensor, TrainError> {
        let factor = (&*self.gamma * self.tensor(self.deviation().map(f64::recip))?)?;
        let mut along = vec![1; w.rank()];
        along[0] = factor.elem_count();
        Ok(w.broadcast_mul(&factor.reshape(along)?)?)
    }

    /// What belongs between the product of folded weights and `β`. `float` are the products of the
    /// weights before folding, `[positions, channels]`.
    fn correct(
        &mut self,
        y: &Tensor,
        float: &dyn Fn() -> Result<Tensor, TrainError>,
        momentum: f32,
    ) -> Result<Tensor, TrainError> {
        if self.running.frozen {
            let means = self.running.mean.iter().zip(self.deviation());
            let shift = self.tensor(means.map(|(&m, d)| f64::from(m) / d))?;
            return Ok(y.broadcast_sub(&(&*self.gamma * shift)?)?);
        }
        let z = float()?;
        let mean = z.mean_keepdim(0)?;
        let variance = z.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?;
        let now = (&variance + f64::from(self.running.epsilon))?.sqrt()?;
        let factor = self.tensor(self.deviation())?.broadcast_div(&now)?;
        let shift = self.gamma.broadcast_mul(&(&mean / &now)?)?;
        let y = y.broadcast_mul(&factor)?.broadcast_sub(&shift)?;
        // Not before: the weights were folded by the statistics until here.
        let batch = BatchStatistics {
            mean: mean.flatten_all()?.to_vec1()?,
            variance: variance.flatten_all()?.to_vec1()?,
        };
        self.running.update(&batch, momentum)?;
        Ok(y)
    }
}

/// Operands that `inner` sees, weights folded.
pub(super) struct Folding<'a> {
    pub(super) norms: &'a mut Norms,
    pub(super) inner: &'a mut dyn Operands,
}

impl Operands for Folding<'_> {
    fn input(&mut self, layer: usize, x: Tensor) -> Result<Tensor, TrainError> {
        self.inner.input(layer, x)
    }

    fn weight(&mut self, layer: usize, w: &Tensor) -> Result<Tensor, TrainError> {
        match self.norms.layer(layer) {
            Some(norm) => self.inner.weight(layer, &norm.fold(w)?),
            None => self.inner.weight(layer, w),
        }
    }

    fn output(
        &mut self,
        layer: usize,
        y: Tensor,
        float: &dyn Fn() -> Result<Tensor, TrainError>,
    ) -> Result<Tensor, TrainError> {
        let y = self.inner.output(layer, y, float)?;
        let momentum = self.norms.momentum;
        match self.norms.layer(layer) {
            Some(norm) => norm.correct(&y, float, momentum),
            None => Ok(y),
        }
    }
}
