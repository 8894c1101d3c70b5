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
    ///
    /// Gradients pass through, so it is f32 and rounded three times: `1 / √(σ² + ε)`, which is f64
    /// until then, times `γ`, times `w`. [`BatchNorm::fold`], by which epochs are rated and the file
    /// is written, is f64 and rounded once. The two are within `2⁻²²` of each other, relatively; of
    /// a weight so near the middle between two steps, training and file may have integers that
    /// differ by one.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Float;

    const CHANNELS: usize = 3;
    const INPUTS: usize = 4;
    const ROWS: usize = 7;

    /// Numbers in `[-1, 1)` without a pattern, offset by channel where rows are channels.
    fn drawn(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = (0..count).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        });
        next.collect()
    }

    fn norm() -> BatchNorm {
        BatchNorm {
            gamma: vec![1.5, -0.5, 0.75],
            beta: vec![0.0; CHANNELS],
            mean: vec![0.3, -0.2, 0.1],
            variance: vec![0.5, 2.0, 0.01],
            epsilon: 1e-3,
            frozen: false,
        }
    }

    fn norms(momentum: f32) -> Norms {
        let running = norm();
        let gamma = Var::from_vec(running.gamma.clone(), CHANNELS, &Device::Cpu).unwrap();
        let layers = vec![None, Some(Norm { gamma, running })];
        Norms { momentum, layers }
    }

    fn weights() -> Var {
        let w = drawn(CHANNELS * INPUTS, 1);
        Var::from_vec(w, (CHANNELS, INPUTS), &Device::Cpu).unwrap()
    }

    fn rows(seed: u32) -> Tensor {
        Tensor::from_vec(drawn(ROWS * INPUTS, seed), (ROWS, INPUTS), &Device::Cpu).unwrap()
    }

    /// Layer 1 on its way, as the graph has it.
    fn forward(norms: &mut Norms, x: &Tensor, w: &Tensor) -> Tensor {
        let inner = &mut Float;
        let mut operands = Folding { norms, inner };
        let folded = operands.weight(1, w).unwrap();
        let y = x.matmul(&folded.t().unwrap()).unwrap();
        let float = || Ok(x.matmul(&w.t()?)?);
        operands.output(1, y, &float).unwrap()
    }

    fn close(a: &Tensor, b: &Tensor) {
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(a.dims(), b.dims());
        for (a, b) in values(a).into_iter().zip(values(b)) {
            assert!((a - b).abs() < 2e-5 * (1.0 + b.abs()), "{a} {b}");
        }
    }

    fn batch(z: &Tensor) -> BatchStatistics {
        let mean = z.mean_keepdim(0).unwrap();
        let centered = z.broadcast_sub(&mean).unwrap();
        let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1().unwrap();
        BatchStatistics {
            variance: flat(centered.sqr().unwrap().mean_keepdim(0).unwrap()),
            mean: flat(mean),
        }
    }

    #[test]
    fn without_quantizers_it_is_batch_normalization_and_so_are_its_gradients() {
        let (mut norms, w, x) = (norms(0.1), weights(), rows(5));
        let ours = forward(&mut norms, &x, &w);
        // As it is written down: products, normalized by their own statistics.
        let gamma = norms.layers[1].as_ref().unwrap().gamma.clone();
        let z = x.matmul(&w.t().unwrap()).unwrap();
        let centered = z.broadcast_sub(&z.mean_keepdim(0).unwrap()).unwrap();
        let variance = centered.sqr().unwrap().mean_keepdim(0).unwrap();
        let deviation = (variance + 1e-3).unwrap().sqrt().unwrap();
        let plain = centered.broadcast_div(&deviation).unwrap();
        let plain = plain.broadcast_mul(&gamma).unwrap();
        close(&ours, &plain);

        let dy = Tensor::from_vec(drawn(ROWS * CHANNELS, 9), (ROWS, CHANNELS), &Device::Cpu);
        let dy = dy.unwrap();
        let of = |y: &Tensor| (y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        let (a, b) = (of(&ours), of(&plain));
        for variable in [&w, &gamma] {
            close(a.get(variable).unwrap(), b.get(variable).unwrap());
        }
    }

    #[test]
    fn the_correction_is_that_of_qcalib() {
        let (mut norms, w, x) = (norms(0.1), weights(), rows(6));
        let mut reference = norm();
        for frozen in [false, true] {
            if frozen {
                norms.freeze();
            }
            reference.frozen = frozen;
            let z = x.matmul(&w.t().unwrap()).unwrap();
            let batch = batch(&z);
            let c = reference.correction(&batch).unwrap();
            let flat: Vec<f32> = w.flatten_all().unwrap().to_vec1().unwrap();
            let (folded, _) = reference.fold(&flat, &[CHANNELS, INPUTS], None).unwrap();
            let folded = Tensor::from_vec(folded, (CHANNELS, INPUTS), &Device::Cpu).unwrap();
            let tensor = |v: Vec<f32>| Tensor::from_vec(v, CHANNELS, &Device::Cpu).unwrap();
            let y = x.matmul(&folded.t().unwrap()).unwrap();
            let y = y.broadcast_mul(&tensor(c.factor)).unwrap();
            let y = y.broadcast_add(&tensor(c.bias)).unwrap();
            close(&forward(&mut norms, &x, &w), &y);
            reference.update(&batch, 0.1).unwrap();
            let running = &norms.layers[1].as_ref().unwrap().running;
            close(
                &tensor(running.mean.clone()),
                &tensor(reference.mean.clone()),
            );
            close(
                &tensor(running.variance.clone()),
                &tensor(reference.variance.clone()),
            );
        }
    }

    #[test]
    fn running_statistics_follow_batches_and_stop_when_frozen() {
        let (mut norms, w) = (norms(0.25), weights());
        let running = |n: &Norms| n.layers[1].as_ref().unwrap().running.clone();
        forward(&mut norms, &rows(2), &w);
        let moved = running(&norms);
        assert_ne!(
            (&moved.mean, &moved.variance),
            (&norm().mean, &norm().variance)
        );
        let by_batch = forward(&mut norms, &rows(2), &w);
        norms.freeze();
        let last = running(&norms);
        assert_ne!(last.mean, moved.mean);
        let frozen = forward(&mut norms, &rows(2), &w);
        forward(&mut norms, &rows(3), &w);
        assert_eq!(running(&norms), last);
        // Another function than before, in which a row no longer depends on the others.
        let first = |t: &Tensor| t.narrow(0, 0, 1).unwrap().to_vec2::<f32>().unwrap();
        assert_ne!(first(&by_batch), first(&frozen));
        let alone = rows(2).narrow(0, 0, 1).unwrap().contiguous().unwrap();
        close(
            &forward(&mut norms, &alone, &w),
            &frozen.narrow(0, 0, 1).unwrap(),
        );
    }

    #[test]
    fn layers_without_one_pass_unchanged() {
        let (mut norms, w, x) = (norms(0.1), weights(), rows(4));
        let inner = &mut Float;
        let norms = &mut norms;
        let mut operands = Folding { norms, inner };
        close(&operands.weight(0, &w).unwrap(), &w);
        let asked = || -> Result<Tensor, TrainError> { panic!("no statistics are needed") };
        close(&operands.output(0, x.clone(), &asked).unwrap(), &x);
    }
}
