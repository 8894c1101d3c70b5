//! The fake quantizers on their way through training.

use candle_core::{Device, Tensor, Var};
use qcalib::CalibError;
use qcalib::train::{Phase, Quantizer, Schedule};

use super::{Ranges, TrainOptions};
use crate::calibrate::{self, current};
use crate::data::Samples;
use crate::evaluate;
use crate::graph::{Graph, Operands};
use crate::ops::{FakeQuantize, LearnedStep, read};
use crate::quantized::{Fixed, LayerQuantizers, cover};
use crate::{Network, TrainError};

/// The fake quantizers of all layers on their way through the phases.
pub(super) struct Sites {
    options: TrainOptions,
    pub(super) phase: Phase,
    /// Batches seen, those of calibration among them.
    pub(super) batch: u64,
    schedules: Vec<Schedule>,
    /// `ln S` of weights and inputs, where scales are learned.
    learned: Vec<[Var; 2]>,
    /// Shapes of the weights.
    shapes: Vec<Vec<usize>>,
    /// Where ranges started, and in the end where they stay.
    pub(super) frozen: Vec<LayerQuantizers>,
}

impl Sites {
    /// Observes the inputs of the float network, and goes on to adapting.
    pub(super) fn new(
        network: &Network,
        float: &Graph<'_>,
        calibration: &Samples,
        options: &TrainOptions,
    ) -> Result<Sites, TrainError> {
        let (width, method) = (options.width, options.method);
        let mut sets = [calibrate::schedules(network, method, width)?];
        calibrate::observe(float, calibration, &mut sets)?;
        let [mut schedules] = sets;
        let inputs = calibrate::choose(&mut schedules)?;
        let weights = calibrate::weights(network, method, width, options.granularity)?;
        let frozen = calibrate::join(weights, inputs);
        let logarithm = |scales: &[f32]| {
            let logs: Vec<f32> = scales.iter().map(|s| s.ln()).collect();
            Var::from_vec(logs, scales.len(), &Device::Cpu)
        };
        let learned = match options.ranges {
            Ranges::Observed => Vec::new(),
            Ranges::Learned => frozen
                .iter()
                .map(|q| Ok([logarithm(q.weight.scales())?, logarithm(q.input.scales())?]))
                .collect::<Result<_, TrainError>>()?,
        };
        Ok(Sites {
            options: options.clone(),
            phase: Phase::Adapt,
            batch: calibration.len().div_ceil(evaluate::BATCH) as u64,
            schedules,
            learned,
            shapes: network.layers.iter().map(|l| l.shape.clone()).collect(),
            frozen,
        })
    }

    pub(super) fn variables(&self) -> Vec<Var> {
        self.learned.iter().flatten().cloned().collect()
    }

    /// The quantizers as they are now, of `network` as it is now.
    pub(super) fn quantizers(&self, network: &Network) -> Result<Vec<LayerQuantizers>, TrainError> {
        let mut now = self.frozen.clone();
        if self.phase == Phase::Frozen {
            return Ok(now);
        }
        for (i, q) in now.iter_mut().enumerate() {
            if let Some([weight, input]) = self.learned.get(i) {
                // The same operation as in training, so the same bits: of scales. What is divided
                // by them is not, where normalizations are folded (see `Norm::fold`).
                for (q, ln) in [(&mut q.weight, weight), (&mut q.input, input)] {
                    let zeros = q.zero_points().to_vec();
                    q.set(ln.exp()?.to_vec1()?, zeros)?;
                }
            } else {
                q.input = current(&self.schedules[i])?;
                let weight = &network.layers[i].weight;
                q.weight = self.cover(i, weight)?;
            }
        }
        Ok(now)
    }

    /// Keeps the ranges as they are now.
    pub(super) fn freeze(&mut self, network: &Network) -> Result<(), TrainError> {
        self.frozen = self.quantizers(network)?;
        for s in &mut self.schedules {
            s.advance()?;
        }
        self.phase = Phase::Frozen;
        Ok(())
    }

    fn cover(&self, layer: usize, weight: &[f32]) -> Result<Quantizer, TrainError> {
        let levels = self.options.width.weight_levels()?;
        cover(
            weight,
            &self.shapes[layer],
            levels,
            self.options.granularity,
        )
    }

    /// The operator of a learned scale.
    fn step(&self, layer: usize, which: usize) -> Option<(LearnedStep, &Var)> {
        let q = &self.frozen[layer];
        let q = [&q.weight, &q.input][which];
        let op = LearnedStep {
            granularity: q.granularity(),
            levels: q.levels(),
        };
        Some((op, &self.learned.get(layer)?[which]))
    }
}

impl Operands for Sites {
    fn input(&mut self, layer: usize, x: Tensor) -> Result<Tensor, TrainError> {
        let x = x.contiguous()?;
        if self.phase == Phase::Frozen {
            return Fixed(&self.frozen).input(layer, x);
        }
        if let Some((op, ln)) = self.step(layer, 1) {
            return Ok(x.apply_op2(&ln.exp()?, op)?);
        }
        let schedule = &mut self.schedules[layer];
        let mut outcome = Ok::<(), CalibError>(());
        read(&x, |values| {
            let mut passed = vec![0f32; values.len()];
            outcome = schedule.forward(self.batch, values, x.dims(), &mut passed);
            Ok(())
        })?;
        outcome?;
        Ok(x.apply_op1(FakeQuantize(current(schedule)?))?)
    }

    fn weight(&mut self, layer: usize, w: &Tensor) -> Result<Tensor, TrainError> {
        if self.phase == Phase::Frozen {
            return Fixed(&self.frozen).weight(layer, w);
        }
        if let Some((op, ln)) = self.step(layer, 0) {
            return Ok(w.apply_op2(&ln.exp()?, op)?);
        }
        let values: Vec<f32> = w.flatten_all()?.to_vec1()?;
        Ok(w.apply_op1(FakeQuantize(self.cover(layer, &values)?))?)
    }
}
