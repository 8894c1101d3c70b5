//! The quantizers of a network: how wide, and with which scales.

use qcalib::train::{Levels, Quantizer};
use qformat::{DType, Granularity, QuantSpec, Scheme};

use candle_core::Tensor;

use crate::graph::Operands;
use crate::ops::FakeQuantize;
use crate::{Network, TrainError};

/// Bits of weights and activations.
///
/// Weights are signed and symmetric (4 bits: −7 to 7), with a scale a tensor or an output channel;
/// activations are unsigned (4 bits: 0 to 15), with a scale a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Width {
    /// Bits of a weight, from 2 to 8.
    pub weights: u32,
    /// Bits of an activation: 4 or 8.
    pub activations: u32,
}

impl Width {
    /// Four bits for both.
    pub const W4A4: Width = Width {
        weights: 4,
        activations: 4,
    };

    /// Integers of the weights.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] for other than 2 to 8 bits.
    pub fn weight_levels(self) -> Result<Levels, TrainError> {
        if !(2..=8).contains(&self.weights) {
            return Err(TrainError::Setting {
                argument: "bits of weights",
                given: self.weights.to_string(),
                allowed: "from 2 to 8",
            });
        }
        Ok(Levels::new(self.weights, true, Scheme::Symmetric)?)
    }

    /// How activations are quantized.
    ///
    /// # Errors
    ///
    /// [`TrainError::Setting`] for other than 4 or 8 bits: ranges of activations are estimated for
    /// these types.
    pub fn activation_spec(self) -> Result<QuantSpec, TrainError> {
        let dtype = match self.activations {
            4 => DType::U4,
            8 => DType::U8,
            other => {
                return Err(TrainError::Setting {
                    argument: "bits of activations",
                    given: other.to_string(),
                    allowed: "4 or 8",
                });
            }
        };
        Ok(QuantSpec {
            dtype,
            scheme: Scheme::Affine,
            granularity: Granularity::PerTensor,
        })
    }
}

impl std::fmt::Display for Width {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("W{}A{}", self.weights, self.activations))
    }
}

/// The two quantizers of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerQuantizers {
    /// Of its weights.
    pub weight: Quantizer,
    /// Of its input.
    pub input: Quantizer,
}

/// Weights of a layer that are covered wholly: `S = max|w| / Qp` a group.
///
/// # Errors
///
/// [`TrainError::Calib`] for weights that are not finite or do not fill the shape.
pub fn cover(
    weight: &[f32],
    shape: &[usize],
    levels: Levels,
    granularity: Granularity,
) -> Result<Quantizer, TrainError> {
    let mut most = vec![0f32; granularity.groups(shape)?];
    for (group, run) in granularity.runs(shape)? {
        let run = weight.get(run).unwrap_or(&[]);
        most[group] = run.iter().fold(most[group], |m, w| m.max(w.abs()));
    }
    let scales: Vec<f32> = most
        .iter()
        // Zeros, and what would need a subnormal step, round to zero with any step.
        .map(|&m| m / levels.max() as f32)
        .map(|s| if s < f32::MIN_POSITIVE { 1.0 } else { s })
        .collect();
    let zeros = vec![0.0; scales.len()];
    Ok(Quantizer::new(granularity, levels, scales, zeros)?)
}

/// Operands quantized with scales that stay.
#[derive(Debug, Clone, Copy)]
pub struct Fixed<'q>(pub &'q [LayerQuantizers]);

impl Fixed<'_> {
    fn layer(&self, layer: usize) -> Result<&LayerQuantizers, TrainError> {
        self.0.get(layer).ok_or(TrainError::Count {
            what: "layers with quantizers",
            given: self.0.len(),
            expected: layer + 1,
        })
    }
}

impl Operands for Fixed<'_> {
    fn input(&mut self, layer: usize, x: Tensor) -> Result<Tensor, TrainError> {
        let q = self.layer(layer)?.input.clone();
        Ok(x.contiguous()?.apply_op1(FakeQuantize(q))?)
    }

    fn weight(&mut self, layer: usize, w: &Tensor) -> Result<Tensor, TrainError> {
        Ok(w.apply_op1(FakeQuantize(self.layer(layer)?.weight.clone()))?)
    }
}

/// The quantizers of all weights by [`cover`].
///
/// # Errors
///
/// Those of [`Width::weight_levels`] and [`cover`].
pub fn cover_weights(
    network: &Network,
    width: Width,
    granularity: Granularity,
) -> Result<Vec<Quantizer>, TrainError> {
    let levels = width.weight_levels()?;
    network
        .layers
        .iter()
        .map(|l| cover(&l.weight, &l.shape, levels, granularity))
        .collect()
}
