//! Quantization-aware training.
//!
//! The fake quantizers stand where the integers will be, so that the network learns to live with
//! them (Jacob et al. 2018, arXiv 1712.05877, §3). They go through the phases of
//! [`Schedule`](qcalib::train::Schedule): inputs are **observed** on the calibration samples and ranges
//! chosen; then values are quantized and the ranges **adapt**; then the ranges are **frozen** and
//! only weights and biases go on (Krishnamoorthi 2018, arXiv 1806.08342, §3.2).
//!
//! While they adapt, scales are learned with LSQ's gradients (Esser et al. 2020, arXiv
//! 1902.08153). What an optimizer moves is `ln S`: scales stay positive, one learning rate serves
//! layers of any range, and LSQ's gradient scale has no effect under Adam, whose steps do not depend
//! on the size of gradients (Jain et al. 2020, *Trained quantization thresholds*, arXiv 1903.08066,
//! §3.2 and App. B).
//!
//! Batch normalizations that are not folded for good ([`Normalized`]) are trained with statistics
//! of batches, whose gradients are taken too, while the ranges adapt, and running statistics follow
//! them. Weights are folded by the *running* ones before they are quantized, so that the integers do
//! not jitter from batch to batch; their products are corrected to the batch's: times
//! `√(σ² + ε) / √(σ_B² + ε)`, plus `β − γ · μ_B / √(σ_B² + ε)`
//! ([`Correction`](qcalib::train::Correction); Krishnamoorthi 2018, §3.2.2). `μ_B` and `σ_B` are
//! those of the products of the float weights with the quantized inputs: the statistics of
//! quantized products know nothing of a channel whose weights all round to zero. Where ranges are frozen, so are the normalizations: the
//! running statistics stay, and the correction is gone, as in the file that is written.
//!
//! The loss is the cross entropy of the labels plus [`distill`](TrainOptions::distill) times the
//! mean squared distance to the float network's outputs (Hinton et al. 2015, arXiv 1503.02531,
//! §2.1: what distillation is at high temperatures): a network that already predicts its training
//! data has little to learn from labels.

mod norms;
mod sites;

use candle_core::{Device, Tensor, Var};
use candle_nn::loss;
use candle_nn::optim::{AdamW, Optimizer as _, ParamsAdamW};
use qcalib::Method;
use qcalib::train::{BatchNorm, Phase};
use qformat::Granularity;
use rand::seq::SliceRandom as _;
use rand::{SeedableRng as _, rngs::StdRng};

use self::norms::{Folding, Norms};
use self::sites::Sites;
use crate::data::Samples;
use crate::evaluate::{self, Score};
use crate::graph::{Float, Graph};
use crate::quantized::{Fixed, LayerQuantizers, Width};
use crate::{Network, Normalized, TrainError};

/// Where ranges come from while they adapt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ranges {
    /// Scales are parameters, trained with LSQ's gradients.
    Learned,
    /// Ranges of inputs follow from what is observed, those of weights cover them; gradients are
    /// the straight-through estimator's.
    Observed,
}

/// How a network is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Bits.
    pub width: Width,
    /// One scale a weight tensor, or one an output channel (axis 0).
    pub granularity: Granularity,
    /// The method that ranges start from.
    pub method: Method,
    /// Where they come from then.
    pub ranges: Ranges,
    /// Passes over the training samples; at least 1.
    pub epochs: usize,
    /// Samples a step; at least 1.
    pub batch: usize,
    /// Adam's learning rate for weights and biases at the first step; it falls to 0 along half a
    /// cosine.
    pub rate: f64,
    /// The same for `ln S`.
    pub scale_rate: f64,
    /// Weight of the distance to the float network's outputs in the loss.
    pub distill: f64,
    /// Share of the steps after which ranges and batch normalizations are frozen, in `[0, 1]`.
    pub freeze_after: f64,
    /// Weight of a batch in the running statistics of batch normalizations, in `[0, 1]`.
    pub momentum: f32,
    /// What the order of the samples is drawn from.
    pub seed: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        TrainOptions {
            width: Width::W4A4,
            granularity: Granularity::PerTensor,
            method: Method::Percentile(99.9),
            ranges: Ranges::Learned,
            epochs: 4,
            batch: 50,
            rate: 1e-3,
            scale_rate: 1e-2,
            distill: 10.0,
            freeze_after: 0.75,
            momentum: 0.1,
            seed: 1,
        }
    }
}

impl TrainOptions {
    fn check(&self) -> Result<(), TrainError> {
        let refuse = |argument, given: &dyn ToString, allowed| {
            Err(TrainError::Setting {
                argument,
                given: given.to_string(),
                allowed,
            })
        };
        if self.epochs == 0 {
            return refuse("number of epochs", &self.epochs, "at least 1");
        }
        if self.batch == 0 {
            return refuse("batch size", &self.batch, "at least 1");
        }
        for (argument, given) in [
            ("learning rate", self.rate),
            ("learning rate of scales", self.scale_rate),
            ("weight of distillation", self.distill),
        ] {
            if !(given >= 0.0 && given.is_finite()) {
                return refuse(argument, &given, "not negative, and finite");
            }
        }
        if !(0.0..=1.0).contains(&self.freeze_after) {
            return refuse(
                "share of steps before freezing",
                &self.freeze_after,
                "from 0 to 1",
            );
        }
        if !(0.0..=1.0).contains(&self.momentum) {
            return refuse("momentum", &self.momentum, "from 0 to 1");
        }
        Ok(())
    }
}

/// Refuses labels that are no class, and pixels that are no number.
fn check_samples(samples: &Samples, classes: usize) -> Result<(), TrainError> {
    for (sample, &label) in samples.labels.iter().enumerate() {
        let refuse = |given: String, allowed| {
            Err(TrainError::Sample {
                sample,
                given,
                allowed,
            })
        };
        if usize::try_from(label).is_ok_and(|l| l >= classes) {
            return refuse(format!("label {label}"), "classes of the network only");
        }
        if let Some(p) = samples.image(sample).iter().find(|p| !p.is_finite()) {
            return refuse(format!("pixel {p}"), "finite pixels only");
        }
    }
    Ok(())
}

/// What is told while a network is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// A step was made.
    Step {
        /// Steps made, from 1.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// The loss of its batch before it.
        loss: f32,
        /// Where the ranges stand.
        phase: Phase,
    },
    /// A pass over the samples ended.
    Epoch {
        /// Passes made, from 1.
        epoch: usize,
        /// Mean loss of its steps.
        loss: f32,
        /// How the network does on the held-out samples.
        held_out: Score,
    },
}

/// A trained network.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Weights and biases, batch normalizations folded.
    pub network: Network,
    /// The batch normalizations that were folded, layer by layer, frozen.
    pub norms: Vec<Option<BatchNorm>>,
    /// Frozen quantizers, layer by layer.
    pub quantizers: Vec<LayerQuantizers>,
    /// Mean loss of each epoch.
    pub losses: Vec<f32>,
}

/// Trains a network with fake quantization on `training`; `calibration` is what ranges start from,
/// `held_out` only rates the epochs. Batch normalizations stay folded.
///
/// The result depends on the arguments alone, and on the machine as far as its float products do.
///
/// # Errors
///
/// [`TrainError::Setting`] for options outside their domain, [`TrainError::Sample`] for labels and
/// pixels that cannot be, [`TrainError::Diverged`], and those of
/// calibration and of the tensor library.
pub fn train(
    network: &Network,
    training: &Samples,
    calibration: &Samples,
    held_out: &Samples,
    options: &TrainOptions,
    tell: &mut dyn FnMut(Event),
) -> Result<Trained, TrainError> {
    let network = Normalized::from(network.clone());
    train_normalized(&network, training, calibration, held_out, options, tell)
}

/// [`train`] of a network whose batch normalizations use statistics of batches until they are
/// frozen together with the ranges.
///
/// # Errors
///
/// Those of [`train`], and [`TrainError::Calib`] for statistics that are no longer numbers.
///
/// ```
/// use qtrain::train::{TrainOptions, train_normalized};
/// use qtrain::{Normalized, batch_norm, data};
///
/// let digits = data::calibration()?.select(&[0, 1, 2, 3, 4, 5, 6, 7]);
/// let network = Normalized::new(&batch_norm::insert(&data::model()?, &digits)?)?;
/// let options = TrainOptions { epochs: 2, batch: 4, ..TrainOptions::default() };
/// let trained = train_normalized(&network, &digits, &digits, &digits, &options, &mut |_| ())?;
/// let first = trained.norms[0].as_ref().unwrap();
/// assert!(first.frozen);
/// assert_ne!(first.mean, network.layers()[0].as_ref().unwrap().norm.mean);
/// # Ok::<(), qtrain::TrainError>(())
/// ```
pub fn train_normalized(
    normalized: &Normalized,
    training: &Samples,
    calibration: &Samples,
    held_out: &Samples,
    options: &TrainOptions,
    tell: &mut dyn FnMut(Event),
) -> Result<Trained, TrainError> {
    options.check()?;
    let network = normalized.folded();
    check_samples(training, network.classes())?;
    let float = Graph::new(network)?;
    let targets = evaluate::logits(&float, training, &mut Float)?;
    let float_held_out = evaluate::logits(&float, held_out, &mut Float)?;
    let unfolded = normalized.unfolded();
    let graph = Graph::trainable(&unfolded)?;
    let mut norms = Norms::new(normalized, options.momentum)?;
    let mut sites = Sites::new(network, &float, calibration, options)?;

    let adam = |vars: Vec<Var>, lr: f64| {
        AdamW::new(
            vars,
            ParamsAdamW {
                lr,
                weight_decay: 0.0,
                ..ParamsAdamW::default()
            },
        )
    };
    let parameters = graph.parameters().iter().cloned();
    let mut weights = adam(parameters.chain(norms.variables()).collect(), options.rate)?;
    let mut scales = adam(sites.variables(), options.scale_rate)?;

    let classes = network.classes();
    if targets.len() != training.len() * classes {
        return Err(TrainError::Count {
            what: "outputs for the training samples",
            given: targets.len(),
            expected: training.len() * classes,
        });
    }
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut order: Vec<usize> = (0..training.len()).collect();
    let steps = options
        .epochs
        .saturating_mul(order.len().div_ceil(options.batch));
    // Rounds down: at the latest after the last step.
    let freeze_at = (options.freeze_after * steps as f64) as usize;
    let (mut step, mut losses) = (0, Vec::new());
    for epoch in 1..=options.epochs {
        order.shuffle(&mut random);
        let (mut total, mut batches) = (0f32, 0f32);
        for rows in order.chunks(options.batch) {
            if step >= freeze_at && sites.phase == Phase::Adapt {
                sites.freeze(norms.join(graph.network()?)?.folded())?;
                norms.freeze();
            }
            let factor = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos());
            weights.set_learning_rate(options.rate * factor);
            scales.set_learning_rate(options.scale_rate * factor);

            let batch = training.select(rows);
            let labels = Tensor::from_vec(batch.labels, rows.len(), &Device::Cpu)?;
            let wanted: Vec<f32> = rows
                .iter()
                .flat_map(|&r| &targets[r * classes..(r + 1) * classes])
                .copied()
                .collect();
            let wanted = Tensor::from_vec(wanted, (rows.len(), classes), &Device::Cpu)?;
            let images = graph.images(batch.images)?;
            sites.batch += 1;
            let mut operands = Folding {
                norms: &mut norms,
                inner: &mut sites,
            };
            let logits = graph.logits(&images, &mut operands)?;
            let distance = loss::mse(&logits, &wanted)?;
            let loss = (loss::cross_entropy(&logits, &labels)? + (distance * options.distill)?)?;
            let value = loss.to_scalar::<f32>()?;
            if !value.is_finite() {
                return Err(TrainError::Diverged { step, loss: value });
            }
            let gradients = loss.backward()?;
            weights.step(&gradients)?;
            scales.step(&gradients)?;
            step += 1;
            total += value;
            batches += 1.0;
            tell(Event::Step {
                step,
                steps,
                loss: value,
                phase: sites.phase,
            });
        }
        let loss = total / batches.max(1.0);
        losses.push(loss);
        let now = norms.join(graph.network()?)?;
        let quantizers = sites.quantizers(now.folded())?;
        let folded = Graph::new(now.folded())?;
        let outputs = evaluate::logits(&folded, held_out, &mut Fixed(&quantizers))?;
        tell(Event::Epoch {
            epoch,
            loss,
            held_out: evaluate::score(&outputs, &float_held_out, &held_out.labels)?,
        });
    }
    norms.freeze();
    let trained = norms.join(graph.network()?)?;
    if sites.phase == Phase::Adapt {
        sites.freeze(trained.folded())?;
    }
    let norms = trained.layers().iter();
    Ok(Trained {
        norms: norms.map(|l| Some(l.as_ref()?.norm.clone())).collect(),
        network: trained.folded().clone(),
        quantizers: sites.frozen,
        losses,
    })
}
