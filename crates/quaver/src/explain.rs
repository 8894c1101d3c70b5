//! Why a quantized model is as good as it is: every tensor with each method's range, every layer
//! with the error it adds alone, and what would help, tried out.
//!
//! ```no_run
//! use quaver::calib::Policy;
//! use quaver::{Dataset, ExplainOptions, Method, Operators};
//! # fn load() -> (quaver::model::Model, Dataset) { unreachable!() }
//! let (model, data) = load();
//! let calibrated = Operators::new()
//!     .choose(&model)?
//!     .observe(&Method::ALL, Policy::Error)? // one pass over the data serves all methods
//!     .calibrate(data.batches(10))?;
//! let explanation = calibrated.explain(&data, &ExplainOptions::default(), &mut |_| ())?;
//! for s in &explanation.suggestions {
//!     println!("{}: {:?} dB", s.action, s.gain_db);
//! }
//! # Ok::<(), quaver::QuantizeError>(())
//! ```
//!
//! # Where the numbers come from
//!
//! | number | from |
//! |---|---|
//! | ranges, shares and noise of activations | the recorded histograms ([`assess`](qcalib::assess)); values inside a bin are taken as evenly spread |
//! | the same of weights | the weights themselves, each one |
//! | errors of models and layers, and every suggestion | models that were quantized and run on the data |
//! | shares of run time | runs of the float model, operator by operator, without fusion |

mod advice;
mod layer;
mod tensor;
mod timing;
mod trial;
mod types;
mod weight;

use crate::steps::Calibrated;
use crate::{ConvertOptions, Dataset, Method, QuantizeError};

pub use self::types::{
    Action, Explanation, Histogram, Layer, MethodEffect, MethodQuality, Quality, Role, Settings,
    Sqnr, Suggestion, Tensor,
};

/// What [`Calibrated::explain`] looks at, and how much it may cost.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainOptions {
    /// How the model is quantized: what is explained.
    pub convert: ConvertOptions,
    /// The methods to compare with; that of [`convert`](Self::convert) is always one of them. Each
    /// must have been named when observers were placed.
    pub methods: Vec<Method>,
    /// The most samples that a model run takes from the start of the data; at least a batch.
    pub samples: usize,
    /// Samples in a run; 0 is taken as 1.
    pub batch: usize,
    /// Runs that time the layers; with 0 nothing is timed.
    pub rounds: usize,
    /// The most bins of a histogram in the result; at least 2.
    pub bins: usize,
    /// The most tensors whose method is switched, and the most layers that are left in float, to
    /// see what it gives: at most two quantized models a tensor, and one a layer.
    pub trials: usize,
    /// A change is suggested when it raises the SQNR of the model's output by at least so many dB.
    pub least_gain_db: f64,
}

impl Default for ExplainOptions {
    /// The default conversion against every method: 200 samples in runs of 50, 10 timed runs, 96
    /// bins, 8 trials of a kind, and a gain of 0.1 dB.
    fn default() -> Self {
        ExplainOptions {
            convert: ConvertOptions::default(),
            methods: Method::ALL.to_vec(),
            samples: 200,
            batch: 50,
            rounds: 10,
            bins: 96,
            trials: 8,
            least_gain_db: 0.1,
        }
    }
}

impl ExplainOptions {
    /// The methods, each once, with the chosen one among them.
    fn methods(&self) -> Vec<Method> {
        let mut methods: Vec<Method> = Vec::new();
        for m in self.methods.iter().chain([&self.convert.method]) {
            if !methods.contains(m) {
                methods.push(*m);
            }
        }
        methods
    }

    /// How many samples model runs take: whole batches where the data is cut, since a model may be
    /// fixed to their size.
    fn samples(&self, data: &Dataset) -> usize {
        let batch = self.batch.max(1);
        if self.samples >= data.len() {
            return data.len();
        }
        (self.samples - self.samples % batch)
            .max(batch)
            .min(data.len())
    }
}

/// What an explanation is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Ranges and their effects, tensor by tensor.
    Tensors,
    /// Runs of the float model that time its layers.
    Timing,
    /// Models quantized by one method each.
    Methods,
    /// Models with one quantized layer each.
    Layers,
    /// Models with one change each.
    Suggestions,
}

/// One step of an explanation that is about to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What the step belongs to.
    pub stage: Stage,
    /// Steps of this stage that are done.
    pub done: usize,
    /// Steps of this stage.
    pub total: usize,
    /// The tensor, layer or method of this step.
    pub name: &'a str,
}

impl Calibrated {
    /// Explains what quantization with these options does to the model: see [the
    /// module](crate::explain).
    ///
    /// `data` is what models are run on; its labels, if any, give accuracies. `progress` is called
    /// before each step. The model is quantized and run once for every method and every layer, and
    /// at most `3 · trials` times more.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::NotObserved`] for a method that was not named when observers were placed,
    /// or when none of them was one that keeps histograms; [`QuantizeError::Model`] for data that
    /// the model does not take; [`QuantizeError::Output`] when the model's first output is not
    /// float32 with one row a sample; and those of [`convert`](Self::convert).
    ///
    /// ```
    /// use quaver::calib::Policy;
    /// use quaver::model::{ElementType, Graph, Model, Node, Tensor, ValueInfo};
    /// use quaver::{Dataset, ExplainOptions, Method, Operators};
    ///
    /// let mut g = Graph::new("demo");
    /// g.inputs.push(ValueInfo::tensor("x", ElementType::F32, vec![4.into(), 2.into()]));
    /// g.outputs.push(ValueInfo::tensor("y", ElementType::F32, vec![4.into(), 2.into()]));
    /// g.set_initializer("w", Tensor::new(&[2, 2], vec![0.9f32, -0.3, 0.2, 0.7])?);
    /// g.nodes.push(Node::new("product", "MatMul", ["x", "w"], ["y"]));
    /// let x = Tensor::new(&[4, 2], vec![0.1f32, 0.9, -0.4, 0.3, 0.8, -0.7, 0.6, 0.2])?;
    /// let data = Dataset::new(vec![("x".to_owned(), x)], None)?;
    ///
    /// let calibrated = Operators::new()
    ///     .choose(&Model::new(g, 17))?
    ///     .observe(&Method::ALL, Policy::Error)?
    ///     .calibrate(data.batches(4))?;
    /// let options = ExplainOptions { batch: 4, ..ExplainOptions::default() };
    /// let e = calibrated.explain(&data, &options, &mut |_| ())?;
    /// assert_eq!(e.layers[0].name, "product");
    /// assert_eq!(e.tensors.len(), 2); // the activation x and the weight w
    /// assert_eq!(e.tensors[0].methods.len(), Method::ALL.len());
    /// # Ok::<(), quaver::QuantizeError>(())
    /// ```
    pub fn explain(
        &self,
        data: &Dataset,
        options: &ExplainOptions,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Explanation, QuantizeError> {
        let methods = options.methods();
        let data = &data.truncated(options.samples(data));
        let mut found = tensor::Found::new(self, options, &methods, progress)?;
        let times = timing::of(self, data, options, progress)?;
        let mut trials = trial::Trials::new(self, data, options)?;
        let qualities = trials.methods(&methods, &found.ranges, progress)?;
        let layers = layer::of(self, &mut trials, times.as_ref(), progress)?;
        found.sort();
        let advice = advice::Advice {
            methods: &qualities,
            layers: &layers,
            found: &found,
            compared: &methods,
            options,
        };
        let (suggestions, tried) = advice.confirmed(self, &mut trials, progress)?;
        let quality = trials.before();
        Ok(Explanation {
            version: Explanation::VERSION,
            model: self.chosen.model.graph.name.clone(),
            settings: Settings {
                method: options.convert.method.to_string(),
                activations: options.convert.activations.to_string(),
                weights: options.convert.weights.to_string(),
                format: options.convert.format.to_string(),
                batches: self.batches(),
                samples: data.len(),
                rounds: options.rounds,
            },
            quality,
            methods: qualities,
            tensors: found.tensors,
            layers: layers.into_iter().map(|(_, layer)| layer).collect(),
            other_share: times.map(|t| t.other),
            suggestions,
            tried,
        })
    }
}
