//! The six steps as types: each step consumes the value of the one before it, so a wrong order
//! does not compile.
//!
//! ```text
//! Operators ──choose──▶ Chosen ──dynamic──────────────────────────▶ Converted ──evaluate──▶ Evaluated
//!                          └──observe──▶ Observing ──finish──▶ Calibrated ──convert──▶ ┘        │
//!                                          ▲    │ one pass per batch                          report
//!                                          └────┘
//! ```

use std::num::NonZeroUsize;
use std::path::Path;

use qcalib::{ObserverKind, Policy};
use qformat::{FormatError, Granularity, QParams, QuantSpec};
use qmodel::{Graph, Model, Session, SessionOptions, Tensor};

use crate::batches::BatchSet;
use crate::data::refs;
use crate::each::each;
use crate::parallel::pass;
use crate::placement::Placement;
use crate::ranges::Ranges;
use crate::recorded::Observers;
use crate::report::{Mode, Report};
use crate::rewrite::{dynamic, qdq, qoperator, raise_opset};
use crate::{
    Baseline, Batch, ConvertOptions, Evaluation, Format, LatencyOptions, Method, Operators,
    QuantizeError, WeightGranularity,
};

impl Operators {
    /// Step 1: chooses the operators of a model.
    ///
    /// Chosen nodes that have no int8 form in this model (a convolution with a computed weight,
    /// say) stay in float; the report names each with its reason.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::NoMatch`] and [`QuantizeError::NotQuantizable`] for a pattern that does
    /// nothing, [`QuantizeError::NothingChosen`] and [`QuantizeError::NothingQuantizable`] when
    /// nothing is left, [`QuantizeError::Opset`] for a model too old to be quantized,
    /// [`QuantizeError::Format`] for a weight or bias that holds NaN or infinities.
    pub fn choose(&self, model: &Model) -> Result<Chosen, QuantizeError> {
        let mut model = model.clone();
        raise_opset(&mut model)?;
        // Weights behind a Constant, Transpose or Identity are weights too, and inputs with a
        // default value are constants.
        model.drop_default_inputs();
        qmodel::fold_constants(&mut model)?;
        let chosen = self.select(&model)?;
        let placement = Placement::new(&model, &chosen);
        if placement.sites.is_empty() {
            let reason = |s: &crate::placement::Skipped| {
                format!("{}: {}", model.graph.nodes[s.node].label(), s.reason)
            };
            let reasons: Vec<String> = placement.skipped.iter().map(reason).collect();
            return Err(QuantizeError::NothingQuantizable {
                reasons: reasons.join("; "),
            });
        }
        // Found here, broken weights are not taken for broken calibration data later.
        for site in &placement.sites {
            for (what, name) in [("weight", &site.weight), ("bias", &site.bias)] {
                let values = name
                    .as_ref()
                    .and_then(|n| model.graph.initializer(n)?.as_slice::<f32>());
                if let (Some(name), Some(&v)) =
                    (name, values.and_then(|v| v.iter().find(|v| !v.is_finite())))
                {
                    return Err(QuantizeError::Format {
                        value: format!("{what} \"{name}\""),
                        source: FormatError::Range { min: v, max: v },
                    });
                }
            }
        }
        Ok(Chosen { model, placement })
    }
}

/// After step 1: a model and the operators of it that will be quantized.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub(crate) model: Model,
    pub(crate) placement: Placement,
}

impl Chosen {
    /// The names of the nodes that will be quantized; where a node has none, that of its output.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.placement
            .sites
            .iter()
            .map(|s| self.model.graph.nodes[s.node].display_name())
    }

    /// Step 2, the quick way: weights are quantized now, activations at run time.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::Format`] for a weight that holds NaN or infinities.
    pub fn dynamic(self, weights: WeightGranularity) -> Result<Converted, QuantizeError> {
        let mut model = self.model.clone();
        model.graph = dynamic::rewrite(&self.model.graph, &self.placement, weights)?;
        let report = Report::new(
            Mode::Dynamic { weights },
            &self.model,
            &model,
            &self.placement,
            &Ranges::default(),
        );
        Ok(Converted {
            model,
            report,
            sample: None,
        })
    }

    /// Step 2: places an observer at every activation whose range is needed, for each of the
    /// methods that may be used later. One pass over the data then serves all of them.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::Model`] when the model cannot be run, [`QuantizeError::Calibration`] for
    /// a method with impossible settings.
    pub fn observe(self, methods: &[Method], policy: Policy) -> Result<Observing, QuantizeError> {
        let kinds = Method::observers_for(methods);
        let (session, observers) = self.place(&kinds, policy)?;
        Ok(Observing {
            chosen: self,
            session,
            kinds,
            policy,
            observers,
            batches: BatchSet::default(),
            sample: None,
        })
    }

    /// A session of the float model, and observers that have seen nothing at its activations.
    pub(crate) fn place(
        &self,
        kinds: &[ObserverKind],
        policy: Policy,
    ) -> Result<(Session, Observers), QuantizeError> {
        let session = Session::new(
            &self.model,
            SessionOptions {
                fuse: false,
                ..SessionOptions::default()
            },
        )?;
        let mut observers = Observers::new();
        for value in self.placement.observed(&self.model.graph) {
            let made: Result<Vec<_>, _> = kinds
                .iter()
                .map(|k| k.observer(Granularity::PerTensor, policy))
                .collect();
            let made = made.map_err(|source| in_value(&value, source))?;
            observers.insert(value, made);
        }
        Ok((session, observers))
    }
}

/// During steps 2 and 3: a model with observers at its activations.
pub struct Observing {
    pub(crate) chosen: Chosen,
    pub(crate) session: Session,
    pub(crate) kinds: Vec<ObserverKind>,
    pub(crate) policy: Policy,
    pub(crate) observers: Observers,
    pub(crate) batches: BatchSet,
    pub(crate) sample: Option<Batch>,
}

impl std::fmt::Debug for Observing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observing")
            .field("values", &self.observers.keys().collect::<Vec<_>>())
            .field("observers", &self.kinds)
            .field("batches", &self.batches.len())
            .finish_non_exhaustive()
    }
}

impl Observing {
    /// Step 3: one calibration pass. After an error a part of the batch may have been recorded:
    /// place observers anew. Batches may differ in shape; nothing of them is kept but
    /// what the observers record (and the first one, to try the converted model with).
    ///
    /// # Errors
    ///
    /// [`QuantizeError::Model`] for inputs that the model does not take,
    /// [`QuantizeError::Calibration`] naming the value for NaN and infinities under
    /// [`Policy::Error`].
    pub fn observe(&mut self, batch: &[(String, Tensor)]) -> Result<(), QuantizeError> {
        self.observe_at(self.batches.end(), batch)
    }

    /// One calibration pass over the batch that has the number `index` in the whole data set,
    /// counted from 0: what shards call. Batches may come in any order, each once.
    ///
    /// # Errors
    ///
    /// Those of [`observe`](Self::observe), and [`QuantizeError::Overlap`] for a number that was
    /// seen before.
    pub fn observe_at(
        &mut self,
        index: u64,
        batch: &[(String, Tensor)],
    ) -> Result<(), QuantizeError> {
        self.batches.insert(index)?;
        pass(&mut self.session, &mut self.observers, index, batch)?;
        if self.sample.is_none() {
            self.sample = Some(batch.to_vec());
        }
        Ok(())
    }

    /// Ends calibration.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::NoBatches`] when nothing was observed.
    pub fn finish(self) -> Result<Calibrated, QuantizeError> {
        if self.sample.is_none() {
            return Err(QuantizeError::NoBatches);
        }
        let batches = self.batches.len();
        Ok(Calibrated::from_parts(
            self.chosen,
            self.observers,
            batches,
            self.sample,
        ))
    }

    /// What a record is made of.
    pub(crate) fn into_parts(self) -> (Chosen, Observers, BatchSet) {
        (self.chosen, self.observers, self.batches)
    }

    /// Step 3 in one call: every batch, then the end.
    ///
    /// # Errors
    ///
    /// Those of [`observe`](Self::observe) and [`finish`](Self::finish).
    pub fn calibrate(
        mut self,
        batches: impl IntoIterator<Item = Batch>,
    ) -> Result<Calibrated, QuantizeError> {
        for batch in batches {
            self.observe(&batch)?;
        }
        self.finish()
    }
}

/// After step 3: the observers have seen the data. It can be converted any number of times, with
/// different methods and options.
#[derive(Debug)]
pub struct Calibrated {
    pub(crate) chosen: Chosen,
    pub(crate) observers: Observers,
    batches: u64,
    sample: Option<Batch>,
    threads: NonZeroUsize,
}

impl Calibrated {
    /// Observers that have seen their data elsewhere.
    pub(crate) fn from_parts(
        chosen: Chosen,
        observers: Observers,
        batches: u64,
        sample: Option<Batch>,
    ) -> Calibrated {
        Calibrated {
            chosen,
            observers,
            batches,
            sample,
            threads: NonZeroUsize::MIN,
        }
    }

    /// Number of batches that were observed.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Chooses ranges on as many threads: one, unless [`Observing::calibrate_on`] had more. They
    /// live no longer than a conversion, and its result does not depend on them.
    #[must_use]
    pub fn with_threads(mut self, threads: NonZeroUsize) -> Calibrated {
        self.threads = threads;
        self
    }

    /// Step 4: observers become scales and zero points, float operators their int8 forms.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::NotObserved`] for a method that was not named when observers were placed,
    /// [`QuantizeError::Calibration`] for a value without a range,
    /// [`QuantizeError::Format`] for a weight or bias that holds NaN or infinities.
    pub fn convert(&self, options: &ConvertOptions) -> Result<Converted, QuantizeError> {
        let Chosen { model, placement } = &self.chosen;
        let ranges = self.ranges(options)?;
        self.converted(&model.graph, placement, &ranges, options)
    }

    /// Writes `graph`, which is the float graph or one that stands in for it.
    pub(crate) fn converted(
        &self,
        graph: &Graph,
        placement: &Placement,
        ranges: &Ranges,
        options: &ConvertOptions,
    ) -> Result<Converted, QuantizeError> {
        let float = &self.chosen.model;
        let model = self.rewritten(graph, placement, ranges, options)?;
        let report = Report::new(
            Mode::Static { options: *options },
            float,
            &model,
            placement,
            ranges,
        );
        Ok(Converted {
            model,
            report,
            sample: self.sample.clone(),
        })
    }

    /// The quantized model alone.
    pub(crate) fn rewritten(
        &self,
        graph: &Graph,
        placement: &Placement,
        ranges: &Ranges,
        options: &ConvertOptions,
    ) -> Result<Model, QuantizeError> {
        let rewrite = match options.format {
            Format::Qdq => qdq::rewrite,
            Format::QOperator => qoperator::rewrite,
        };
        // The graph alone is replaced; what else the file holds stays.
        let float = &self.chosen.model;
        let mut model = float.clone();
        model.graph = rewrite(graph, placement, ranges, options.weights)?;
        Ok(model)
    }

    /// The parameters of every value that was observed.
    pub(crate) fn ranges(&self, options: &ConvertOptions) -> Result<Ranges, QuantizeError> {
        let values: Vec<&String> = self.observers.keys().collect();
        let params = each(self.threads, &values, |value| {
            self.params_by(value, options.method, options)
        })?;
        let mut ranges = Ranges::default();
        for (value, params) in values.into_iter().zip(params) {
            ranges.insert(value.clone(), params);
        }
        Ok(ranges)
    }

    /// The parameters that a method chooses for an observed value.
    pub(crate) fn params_by(
        &self,
        value: &str,
        method: Method,
        options: &ConvertOptions,
    ) -> Result<QParams, QuantizeError> {
        let spec = QuantSpec {
            dtype: options.activation_dtype(),
            scheme: options.activations,
            granularity: Granularity::PerTensor,
        };
        let unobserved = || QuantizeError::Unobserved {
            value: value.to_owned(),
        };
        let observer = self
            .observers
            .get(value)
            .ok_or_else(unobserved)?
            .iter()
            .find(|o| method.served_by(o.kind()))
            .ok_or_else(|| QuantizeError::NotObserved {
                method: method.to_string(),
                needs: method.observer_kind().to_string(),
            })?;
        let params =
            qcalib::params(&**observer, method, spec).map_err(|source| in_value(value, source))?;
        params.params().first().copied().ok_or_else(unobserved)
    }
}

/// After step 4: a quantized model.
#[derive(Debug, Clone)]
pub struct Converted {
    model: Model,
    pub(crate) report: Report,
    sample: Option<Batch>,
}

impl Converted {
    /// The quantized model, standard ONNX.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What was done to the model.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The model with a batch to try it on before it is written; static models come with the
    /// first calibration batch, dynamic ones with none.
    #[must_use]
    pub fn with_sample(mut self, batch: Batch) -> Converted {
        self.sample = Some(batch);
        self
    }

    /// Size of the model's file in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.report.quantized_bytes
    }

    /// The bytes of the model's file, after they were read back and run once: on the first
    /// calibration batch, or on zeros of the declared input shape.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::Model`] when the model does not run.
    pub fn checked_bytes(&self) -> Result<Vec<u8>, QuantizeError> {
        let bytes = self.model.to_bytes();
        let reloaded = Model::from_bytes(&bytes)?;
        let mut session = Session::new(&reloaded, SessionOptions::default())?;
        match &self.sample {
            Some(batch) => session.run(&refs(batch))?,
            None => session.run(&refs(&crate::evaluate::zeros(&reloaded)?))?,
        };
        Ok(bytes)
    }

    /// Writes the model, once [`checked_bytes`](Self::checked_bytes) has found it to run.
    ///
    /// An existing file is replaced whole or, on any error, left as it was.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::Model`] when the model does not run or cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), QuantizeError> {
        self.checked_bytes()?;
        Ok(self.model.save(path)?)
    }

    /// Step 5: runs the model on the baseline's data and compares it with the float model, in
    /// quality and (where `latency` is given) in time.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::Model`] when a model does not run, [`QuantizeError::Output`] when outputs
    /// cannot be compared.
    pub fn evaluate(
        self,
        baseline: &mut Baseline<'_>,
        latency: Option<&LatencyOptions>,
    ) -> Result<Evaluated, QuantizeError> {
        let evaluation = baseline.evaluate(&self.model, latency)?;
        Ok(Evaluated {
            converted: self,
            evaluation,
        })
    }
}

/// After step 5: a quantized model and how it compares with the float one.
#[derive(Debug, Clone)]
pub struct Evaluated {
    converted: Converted,
    evaluation: Evaluation,
}

impl Evaluated {
    /// The scores.
    #[must_use]
    pub fn evaluation(&self) -> &Evaluation {
        &self.evaluation
    }

    /// The quantized model.
    #[must_use]
    pub fn converted(&self) -> &Converted {
        &self.converted
    }

    /// Step 6: everything that was done and measured, for machines (it serialises) and people.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            evaluation: Some(self.evaluation.clone()),
            ..self.converted.report.clone()
        }
    }
}

/// Names the value in an error of calibration.
pub(crate) fn in_value(value: &str, source: qcalib::CalibError) -> QuantizeError {
    if matches!(source, qcalib::CalibError::NoData { .. }) {
        return QuantizeError::Unobserved {
            value: value.to_owned(),
        };
    }
    QuantizeError::Calibration {
        value: value.to_owned(),
        source,
    }
}
