//! Models that are quantized and run, so that nothing is only estimated.

use qmodel::{Graph, Session, SessionOptions};

use super::types::{MethodQuality, Quality, Sqnr};
use super::{ExplainOptions, Progress, Stage};
use crate::data::refs;
use crate::placement::Placement;
use crate::ranges::Ranges;
use crate::{Baseline, Calibrated, ConvertOptions, Dataset, Method, QuantizeError};

/// The float model's outputs, and how to make models to compare with them.
pub(super) struct Trials<'c, 'd> {
    calibrated: &'c Calibrated,
    options: ConvertOptions,
    baseline: Baseline<'d>,
    /// Whether outputs are one row of scores a sample.
    scores: bool,
    /// The chosen parameters of activations.
    ranges: Ranges,
    /// The whole model with the chosen method, once it was run.
    before: Quality,
}

impl<'c, 'd> Trials<'c, 'd> {
    pub(super) fn new(
        calibrated: &'c Calibrated,
        data: &'d Dataset,
        options: &ExplainOptions,
    ) -> Result<Self, QuantizeError> {
        let model = &calibrated.chosen.model;
        let batch = options.batch.max(1);
        // Rows are comparable by their largest element only where they are one score a class.
        let first =
            Session::new(model, SessionOptions::default())?.run(&refs(&data.rows(0..batch)))?;
        let scores = first
            .first()
            .is_some_and(|(_, t)| t.rank() == 2 && t.shape()[1] > 1);
        Ok(Trials {
            calibrated,
            options: options.convert,
            baseline: Baseline::new(model, data, batch)?,
            scores,
            ranges: Ranges::default(),
            before: Quality {
                sqnr: Sqnr::Undefined,
                agreement: None,
                accuracy: None,
            },
        })
    }

    /// The whole model with the chosen method.
    pub(super) fn before(&self) -> Quality {
        self.before
    }

    /// The chosen parameters of activations.
    pub(super) fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// The whole model by each method; the best first. This sets what other trials start from.
    pub(super) fn methods(
        &mut self,
        methods: &[Method],
        ranges: &[Ranges],
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<MethodQuality>, QuantizeError> {
        let chosen = &self.calibrated.chosen;
        let mut qualities = Vec::new();
        for (i, (method, ranges)) in methods.iter().zip(ranges).enumerate() {
            let name = method.to_string();
            progress(Progress {
                stage: Stage::Methods,
                done: i,
                total: methods.len(),
                name: &name,
            });
            let quality = self.run(&chosen.model.graph, &chosen.placement, ranges)?;
            let is_chosen = *method == self.options.method;
            if is_chosen {
                self.before = quality;
                self.ranges = ranges.clone();
            }
            qualities.push(MethodQuality {
                method: name,
                chosen: is_chosen,
                quality,
            });
        }
        qualities.sort_by(|a, b| b.quality.sqnr.total_cmp(a.quality.sqnr));
        Ok(qualities)
    }

    /// Quantizes a graph and compares it with the float model.
    pub(super) fn run(
        &mut self,
        graph: &Graph,
        placement: &Placement,
        ranges: &Ranges,
    ) -> Result<Quality, QuantizeError> {
        let model = self
            .calibrated
            .rewritten(graph, placement, ranges, &self.options)?;
        let e = self.baseline.evaluate(&model, None)?;
        Ok(Quality {
            sqnr: e.sqnr_db.map_or(Sqnr::Noiseless, Sqnr::of),
            agreement: self.scores.then_some(e.agreement),
            accuracy: e.accuracy.filter(|_| self.scores),
        })
    }

    /// The model with only these of the chosen nodes quantized; the float model where there are
    /// none.
    pub(super) fn run_nodes(&mut self, nodes: &[usize]) -> Result<Quality, QuantizeError> {
        let model = &self.calibrated.chosen.model;
        let placement = Placement::new(model, nodes);
        let ranges = self.ranges.clone();
        self.run(&model.graph, &placement, &ranges)
    }
}
