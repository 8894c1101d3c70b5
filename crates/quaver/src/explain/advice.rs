//! Changes that may help, and whether they do.

use super::tensor::Found;
use super::trial::Trials;
use super::types::{Action, Layer, MethodQuality, Quality, Role, Suggestion, Tensor};
use super::{ExplainOptions, Progress, Stage};
use crate::mixed::WeightRecord;
use crate::{Calibrated, Method, QuantizeError};

/// What is known before changes are tried.
pub(super) struct Advice<'a> {
    /// The best first.
    pub(super) methods: &'a [MethodQuality],
    /// The one that hurts most first, with the index of its node.
    pub(super) layers: &'a [(usize, Layer)],
    /// The noisiest tensor first.
    pub(super) found: &'a Found,
    /// The methods of `found`.
    pub(super) compared: &'a [Method],
    pub(super) options: &'a ExplainOptions,
}

impl Advice<'_> {
    /// The changes that help, that which helps most first, and how many were tried.
    pub(super) fn confirmed(
        &self,
        calibrated: &Calibrated,
        trials: &mut Trials<'_, '_>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(Vec<Suggestion>, usize), QuantizeError> {
        let tensors: Vec<(&Tensor, usize)> = self
            .found
            .tensors
            .iter()
            .filter_map(|t| Some((t, self.better(t)?)))
            .take(self.options.trials)
            .collect();
        let layers = &self.layers[..self.options.trials.min(self.layers.len())];
        let total = tensors.len() + layers.len();
        let (mut done, mut tried) = (0, Vec::new());
        let mut at = |name: &str| {
            progress(Progress {
                stage: Stage::Suggestions,
                done,
                total,
                name,
            });
            done += 1;
        };
        // Whole models were run for the methods already.
        for m in self.methods.iter().filter(|m| !m.chosen).take(1) {
            let action = Action::SwitchMethod {
                method: m.method.clone(),
            };
            tried.push((action, m.quality));
        }
        for (tensor, method) in tensors {
            at(&tensor.name);
            let quality = self.switched(calibrated, trials, tensor, method)?;
            let action = Action::SwitchTensor {
                tensor: tensor.name.clone(),
                role: tensor.role,
                method: self.compared[method].to_string(),
            };
            tried.push((action, quality));
        }
        for (node, layer) in layers {
            at(&layer.name);
            let sites = &calibrated.chosen.placement.sites;
            let rest: Vec<usize> = sites.iter().map(|s| s.node).filter(|n| n != node).collect();
            let action = Action::KeepFloat {
                layer: layer.name.clone(),
                named: layer.named,
                time_share: layer.time_share,
            };
            tried.push((action, trials.run_nodes(&rest)?));
        }
        let count = tried.len();
        Ok((self.helpful(tried, trials.before()), count))
    }

    /// The method that promises most for a tensor, where it promises enough.
    fn better(&self, tensor: &Tensor) -> Option<usize> {
        let (chosen, best) = (tensor.chosen()?, tensor.best()?);
        if best.chosen || !best.sqnr.beats(chosen.sqnr, self.options.least_gain_db) {
            return None;
        }
        self.compared
            .iter()
            .position(|m| m.to_string() == best.method)
    }

    /// The whole model with another method for one tensor.
    fn switched(
        &self,
        calibrated: &Calibrated,
        trials: &mut Trials<'_, '_>,
        tensor: &Tensor,
        method: usize,
    ) -> Result<Quality, QuantizeError> {
        let chosen = &calibrated.chosen;
        let (mut graph, mut placement) = (chosen.model.graph.clone(), chosen.placement.clone());
        let mut ranges = trials.ranges().clone();
        match tensor.role {
            Role::Activation => {
                let other = self.found.ranges[method].params(&tensor.name)?;
                ranges.insert(tensor.name.clone(), other);
            }
            Role::Weight => {
                let method = self.compared[method];
                let granularity = self.options.convert.weights;
                let w = WeightRecord::of(calibrated, &tensor.name, &[method], granularity)?;
                if let Some(w) = w {
                    w.put(&mut graph, &mut placement, w.clipped(method)?);
                }
            }
        }
        trials.run(&graph, &placement, &ranges)
    }

    /// Those that help enough, that which helps most first.
    fn helpful(&self, tried: Vec<(Action, Quality)>, before: Quality) -> Vec<Suggestion> {
        let least = self.options.least_gain_db;
        let mut suggestions: Vec<Suggestion> = tried
            .into_iter()
            .filter(|(_, after)| after.sqnr.beats(before.sqnr, least))
            .map(|(action, after)| Suggestion {
                action,
                before,
                after,
                gain_db: after.sqnr.gain_over(before.sqnr),
            })
            .collect();
        // All start from the same model: what ends best gains most.
        suggestions.sort_by(|a, b| b.after.sqnr.total_cmp(a.after.sqnr));
        suggestions
    }
}
