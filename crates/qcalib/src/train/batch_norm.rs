//! Batch normalization, folded into the layer before it.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::CalibError;
use crate::layout::check_len;

/// Mean and (population) variance of a batch, one number a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchStatistics {
    /// Means, in the unit of the layer's output.
    pub mean: Vec<f32>,
    /// Variances, in the square of that unit.
    pub variance: Vec<f32>,
}

/// A batch normalization `y = γ · (x − μ) / √(σ² + ε) + β` with its running statistics, one number
/// a channel each.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    /// `γ`.
    pub gamma: Vec<f32>,
    /// `β`.
    pub beta: Vec<f32>,
    /// Running `μ`.
    pub mean: Vec<f32>,
    /// Running `σ²`.
    pub variance: Vec<f32>,
    /// `ε`, positive.
    pub epsilon: f32,
    /// Whether the running statistics no longer move.
    pub frozen: bool,
}

/// What is done to a convolution's output before its bias while batch statistics are still in use.
#[derive(Debug, Clone, PartialEq)]
pub struct Correction {
    /// What the output of the folded weights is multiplied with: `√(σ² + ε) / √(σ_B² + ε)`.
    pub factor: Vec<f32>,
    /// The bias that belongs to it: `β − γ · μ_B / √(σ_B² + ε)`.
    pub bias: Vec<f32>,
}

impl BatchNorm {
    fn check(&self) -> Result<usize, CalibError> {
        let channels = self.gamma.len();
        for (what, given) in [
            ("number of beta", self.beta.len()),
            ("number of means", self.mean.len()),
            ("number of variances", self.variance.len()),
        ] {
            same(what, given, channels)?;
        }
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(CalibError::Setting {
                argument: "epsilon",
                given: self.epsilon.into(),
                allowed: "positive and finite",
            });
        }
        check_variances(&self.variance)?;
        Ok(channels)
    }

    fn deviation(&self, variance: f32) -> f64 {
        libm::sqrt(f64::from(variance) + f64::from(self.epsilon))
    }

    /// Weights and bias of one layer that does what the layer and this normalization do:
    /// `w · γ / √(σ² + ε)` and `β + (b − μ) · γ / √(σ² + ε)` (Jacob et al. 2018, arXiv 1712.05877,
    /// §3.2; computed in f64, rounded once).
    ///
    /// `weight` is row-major with the output channels first; `bias`, where there is one, has a
    /// number for each.
    ///
    /// # Errors
    ///
    /// [`CalibError::Mismatch`] when numbers of channels differ, [`CalibError::Length`] when the
    /// weights do not fill the shape, [`CalibError::Setting`] for a negative variance or an `ε`
    /// that is not positive.
    ///
    /// ```
    /// use qcalib::train::BatchNorm;
    /// let bn = BatchNorm {
    ///     gamma: vec![2.0],
    ///     beta: vec![1.0],
    ///     mean: vec![3.0],
    ///     variance: vec![0.9375],
    ///     epsilon: 0.0625,
    ///     frozen: true,
    /// };
    /// let (w, b) = bn.fold(&[0.5, -1.0], &[1, 2], Some(&[4.0]))?;
    /// assert_eq!((w, b), (vec![1.0, -2.0], vec![1.0 + (4.0 - 3.0) * 2.0]));
    /// # Ok::<(), qcalib::CalibError>(())
    /// ```
    pub fn fold(
        &self,
        weight: &[f32],
        shape: &[usize],
        bias: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Vec<f32>), CalibError> {
        let channels = self.check()?;
        check_len("weight", weight.len(), shape)?;
        same(
            "number of output channels",
            shape.first().copied().unwrap_or(0),
            channels,
        )?;
        if let Some(bias) = bias {
            same("number of biases", bias.len(), channels)?;
        }
        let mut folded = Vec::with_capacity(weight.len());
        let mut biases = Vec::with_capacity(channels);
        let each = weight.len().checked_div(channels).unwrap_or(0);
        for c in 0..channels {
            let factor = f64::from(self.gamma[c]) / self.deviation(self.variance[c]);
            let row = &weight[c * each..(c + 1) * each];
            folded.extend(row.iter().map(|&w| (f64::from(w) * factor) as f32));
            let b = bias.map_or(0.0, |b| f64::from(b[c]));
            let shifted = (b - f64::from(self.mean[c])) * factor;
            biases.push((f64::from(self.beta[c]) + shifted) as f32);
        }
        Ok((folded, biases))
    }

    /// Moves the running statistics towards a batch's: `μ ← μ + m · (μ_B − μ)` and likewise `σ²`, in
    /// f32, with the `momentum` `m` (Ioffe & Szegedy 2015, arXiv 1502.03167, §3.1; `m` is the weight
    /// of the batch, as in PyTorch, and the variance is taken as it is given, without a factor
    /// `n / (n − 1)`). A frozen normalization stays as it is.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] for a momentum outside `[0, 1]` or a negative variance,
    /// [`CalibError::Mismatch`] for other numbers of channels.
    pub fn update(&mut self, batch: &BatchStatistics, momentum: f32) -> Result<(), CalibError> {
        let channels = self.check()?;
        check_batch(batch, channels)?;
        if !(0.0..=1.0).contains(&momentum) {
            return Err(CalibError::Setting {
                argument: "momentum",
                given: momentum.into(),
                allowed: "from 0 to 1",
            });
        }
        if self.frozen {
            return Ok(());
        }
        let step = |old: &mut Vec<f32>, new: &[f32]| {
            for (o, n) in old.iter_mut().zip(new) {
                *o += momentum * (n - *o);
            }
        };
        step(&mut self.mean, &batch.mean);
        step(&mut self.variance, &batch.variance);
        Ok(())
    }

    /// What follows a layer whose weights were folded with the *running* statistics, so that the
    /// output is normalized by the *batch's* while they still move, and the quantized weights do
    /// not jitter from batch to batch (Krishnamoorthi 2018, arXiv 1806.08342, §3.2.2). Frozen, it
    /// is the factor 1 and the bias of [`fold`](Self::fold) without a bias of the layer.
    ///
    /// # Errors
    ///
    /// [`CalibError::Mismatch`] for other numbers of channels, [`CalibError::Setting`] for a
    /// negative variance.
    pub fn correction(&self, batch: &BatchStatistics) -> Result<Correction, CalibError> {
        let channels = self.check()?;
        check_batch(batch, channels)?;
        let (mean, variance) = if self.frozen {
            (&self.mean, &self.variance)
        } else {
            (&batch.mean, &batch.variance)
        };
        let mut c = Correction {
            factor: Vec::with_capacity(channels),
            bias: Vec::with_capacity(channels),
        };
        for i in 0..channels {
            let (long, now) = (
                self.deviation(self.variance[i]),
                self.deviation(variance[i]),
            );
            c.factor.push((long / now) as f32);
            let shift = f64::from(self.gamma[i]) * f64::from(mean[i]) / now;
            c.bias.push((f64::from(self.beta[i]) - shift) as f32);
        }
        Ok(c)
    }
}

fn same(what: &'static str, given: usize, expected: usize) -> Result<(), CalibError> {
    if given == expected {
        return Ok(());
    }
    Err(CalibError::Mismatch {
        what,
        given: given.to_string(),
        expected: expected.to_string(),
    })
}

fn check_batch(batch: &BatchStatistics, channels: usize) -> Result<(), CalibError> {
    same("number of the batch's means", batch.mean.len(), channels)?;
    same(
        "number of the batch's variances",
        batch.variance.len(),
        channels,
    )?;
    check_variances(&batch.variance)
}

fn check_variances(variances: &[f32]) -> Result<(), CalibError> {
    match variances.iter().find(|&&v| !(v >= 0.0 && v.is_finite())) {
        None => Ok(()),
        Some(&v) => Err(CalibError::Setting {
            argument: "variance",
            given: v.into(),
            allowed: "not negative, and finite",
        }),
    }
}
