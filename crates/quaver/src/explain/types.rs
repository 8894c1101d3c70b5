//! An explanation as plain data.

use std::cmp::Ordering;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// What quantization does to a model, and what would help.
///
/// It serialises, and reads back equal. Lists are sorted by harm, the worst first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The version of this layout: [`Explanation::VERSION`], and no other is read.
    #[serde(deserialize_with = "version")]
    pub version: u32,
    /// Name of the model's graph.
    pub model: String,
    /// How the model was quantized and measured.
    pub settings: Settings,
    /// The quantized model beside the float one.
    pub quality: Quality,
    /// The same for every method, with all else equal; the best first.
    pub methods: Vec<MethodQuality>,
    /// The quantized activations and the weights; the noisiest under the chosen method first.
    pub tensors: Vec<Tensor>,
    /// The quantized layers; the one that hurts most alone first.
    pub layers: Vec<Layer>,
    /// Share of the float model's run time that is spent outside of the layers that were timed:
    /// with their shares it makes 1. `None` where nothing was timed.
    pub other_share: Option<f64>,
    /// Changes that were tried and help; that which helps most first.
    pub suggestions: Vec<Suggestion>,
    /// Changes that were tried.
    pub tried: usize,
}

impl Explanation {
    /// The version that this build writes and reads.
    pub const VERSION: u32 = 1;
}

fn version<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    let given = u32::deserialize(d)?;
    if given == Explanation::VERSION {
        return Ok(given);
    }
    Err(D::Error::custom(format_args!(
        "the explanation has version {given}: this build reads version {}",
        Explanation::VERSION
    )))
}

/// How a model was quantized and measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settings {
    /// The method that chose the ranges of activations.
    pub method: String,
    /// Scheme of activations: `affine` or `symmetric`.
    pub activations: String,
    /// Granularity of weights: `per-channel` or `per-tensor`.
    pub weights: String,
    /// The operators written: `qdq` or `qoperator`.
    pub format: String,
    /// Batches of calibration.
    pub batches: u64,
    /// Samples that models were run on.
    pub samples: usize,
    /// Runs that timed the layers.
    pub rounds: usize,
}

/// Signal to quantization noise: `10 · log10(Σ x² / Σ (x − y)²)`.
///
/// Ordered from the worst to the best.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sqnr {
    /// No number: there is noise but no signal (nothing but zeros), or one of them overflows.
    Undefined,
    /// In dB.
    Db(f64),
    /// There is no noise.
    Noiseless,
}

impl Sqnr {
    /// From decibels that may be infinite or NaN.
    pub(super) fn of(db: f64) -> Sqnr {
        if db.is_finite() {
            Sqnr::Db(db)
        } else if db == f64::INFINITY {
            Sqnr::Noiseless
        } else {
            Sqnr::Undefined
        }
    }

    /// In dB, where there is a number.
    #[must_use]
    pub fn db(self) -> Option<f64> {
        match self {
            Sqnr::Db(db) => Some(db),
            Sqnr::Undefined | Sqnr::Noiseless => None,
        }
    }

    /// By how many dB this is better than `other`; `None` unless both are numbers.
    #[must_use]
    pub fn gain_over(self, other: Sqnr) -> Option<f64> {
        Some(self.db()? - other.db()?)
    }

    /// Whether this is better than `other` by at least `least` dB; anything is far better than
    /// noise without signal, and no noise far better than any.
    pub(super) fn beats(self, other: Sqnr, least: f64) -> bool {
        self.gain_over(other).map_or_else(
            || self.total_cmp(other) == Ordering::Greater,
            |gain| gain >= least,
        )
    }

    /// The order by quality: the worst is the least.
    #[must_use]
    pub fn total_cmp(self, other: Sqnr) -> Ordering {
        let rank = |s: Sqnr| match s {
            Sqnr::Undefined => f64::NEG_INFINITY,
            Sqnr::Db(db) => db,
            Sqnr::Noiseless => f64::INFINITY,
        };
        rank(self).total_cmp(&rank(other))
    }
}

impl fmt::Display for Sqnr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sqnr::Undefined => f.pad("undefined"),
            Sqnr::Db(db) => f.pad(&format!("{db:.1} dB")),
            Sqnr::Noiseless => f.pad("no noise"),
        }
    }
}

/// A model beside the float one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Of the first output.
    pub sqnr: Sqnr,
    /// Share of samples whose largest output is the float model's; `None` where the output is not
    /// one row of scores a sample.
    pub agreement: Option<f64>,
    /// Share of samples whose largest output is the label's; `None` without labels or scores.
    pub accuracy: Option<f64>,
}

/// The whole model with one method for all activations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodQuality {
    /// The method, as the command line takes it.
    pub method: String,
    /// Whether it is the one that is explained.
    pub chosen: bool,
    /// What came of it.
    pub quality: Quality,
}

/// What a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Computed from the input.
    Activation,
    /// A constant.
    Weight,
}

/// A tensor that is quantized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The layers that read it, in the order in which they run.
    pub readers: Vec<String>,
    /// Number of its finite values: all of calibration, or the weight's elements.
    pub count: u64,
    /// The least of them.
    pub min: f32,
    /// The largest of them.
    pub max: f32,
    /// How they are distributed.
    pub histogram: Histogram,
    /// What each method does to it, in the order of the options.
    pub methods: Vec<MethodEffect>,
}

impl Tensor {
    /// What the chosen method does.
    #[must_use]
    pub fn chosen(&self) -> Option<&MethodEffect> {
        self.methods.iter().find(|m| m.chosen)
    }

    /// What the method with the least noise does; the first of equally good ones.
    #[must_use]
    pub fn best(&self) -> Option<&MethodEffect> {
        let better = |a: &MethodEffect, b: &MethodEffect| a.sqnr.total_cmp(b.sqnr);
        self.methods.iter().rev().max_by(|a, b| better(a, b))
    }
}

/// Counts of values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Values that are exactly 0. They are in no bin: every quantizer represents them exactly.
    pub zeros: u64,
    /// The edges of the bins, rising, one more than there are bins; 0 is one of them.
    pub edges: Vec<f32>,
    /// Number of values in each bin.
    pub counts: Vec<u64>,
}

/// What the range of one method does to a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MethodEffect {
    /// The method, as the command line takes it.
    pub method: String,
    /// Whether it is the one that is explained. Weights are covered wholly: `minmax`.
    pub chosen: bool,
    /// The least number that can be represented; of the widest channel.
    pub min: f32,
    /// The largest number that can be represented; of the widest channel.
    pub max: f32,
    /// Step between neighbouring numbers; of the widest channel.
    pub scale: f32,
    /// The least step of a channel; `scale` itself where there are none.
    pub least_scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
    /// Share of the values that are cut at the lower end, from 0 to 1.
    pub clipped_below: f64,
    /// Share of the values that are cut at the upper end.
    pub clipped_above: f64,
    /// Signal to quantization noise of the tensor.
    pub sqnr: Sqnr,
    /// Share of the values that become the lowest or the highest integer, cut or not. Where that
    /// integer stands for 0 (after a rectifier, say) only cut values count.
    pub saturated: f64,
    /// Share of the integers that no value becomes.
    pub dead_codes: f64,
    /// What switching to this method changes: its SQNR minus that of the chosen one, in dB; `None`
    /// where one of them is no number.
    pub switch_db: Option<f64>,
}

impl MethodEffect {
    /// Share of the values that are cut.
    #[must_use]
    pub fn clipped(&self) -> f64 {
        self.clipped_below + self.clipped_above
    }
}

/// A layer that is quantized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Layer {
    /// Name of its node; of the first output where it has none.
    pub name: String,
    /// Operator type.
    pub operator: String,
    /// Whether the node has a name, by which include and exclude lists know it.
    pub named: bool,
    /// The model with this layer alone quantized, beside the float model: the error it adds.
    pub alone: Quality,
    /// Share of the float model's run time, without the activation function behind it; `None`
    /// where it could not be timed on its own.
    pub time_share: Option<f64>,
}

/// Something to do about the error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Action {
    /// Choose all ranges of activations by another method.
    SwitchMethod {
        /// The method.
        method: String,
    },
    /// Choose the range of one tensor by another method:
    /// [`convert_mixed`](crate::Calibrated::convert_mixed).
    SwitchTensor {
        /// The tensor.
        tensor: String,
        /// What it is.
        role: Role,
        /// The method.
        method: String,
    },
    /// Leave a layer in float.
    KeepFloat {
        /// The layer.
        layer: String,
        /// Whether the node has a name, by which exclude lists know it.
        named: bool,
        /// Its share of the float model's run time, which will not become shorter.
        time_share: Option<f64>,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::SwitchMethod { method } => write!(f, "use {method} for all activations"),
            Action::SwitchTensor {
                tensor,
                role,
                method,
            } => {
                let role = match role {
                    Role::Activation => "activation",
                    Role::Weight => "weight",
                };
                write!(f, "use {method} for the {role} {tensor}")
            }
            Action::KeepFloat { layer, .. } => write!(f, "leave {layer} in float"),
        }
    }
}

/// A change that helps, as a model with it has shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Suggestion {
    /// What to change.
    pub action: Action,
    /// The model without the change.
    pub before: Quality,
    /// The model with it.
    pub after: Quality,
    /// What it gives, in dB of the output's SQNR; `None` where one of them is no number: the
    /// change takes all noise away, or brings a signal back.
    pub gain_db: Option<f64>,
}
