//! Changes that may help, and whether they do.

use super::tensor::Found;
use super::trial::Trials;
use super::types::{Action, Layer, MethodEffect, MethodQuality, Quality, Role, Suggestion, Tensor};
use super::{ExplainOptions, Progress, Stage};
use crate::mixed::WeightRecord;
use crate::{Calibrated, Method, QuantizeError};

/// The share of unused integers that is a reason to try another method.
const MANY: f64 = 0.25;

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
        let tensors: Vec<(&Tensor, Vec<usize>)> = self
            .found
            .tensors
            .iter()
            .map(|t| (t, self.promising(t)))
            .filter(|(_, methods)| !methods.is_empty())
            .take(self.options.trials)
            .collect();
        let layers = &self.layers[..self.options.trials.min(self.layers.len())];
        let switches: usize = tensors.iter().map(|(_, methods)| methods.len()).sum();
        let total = switches + layers.len();
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
        let best = self.methods.iter().find(|m| !m.chosen);
        if let Some(m) = best {
            let action = Action::SwitchMethod {
                method: m.method.clone(),
            };
            tried.push((action, m.quality));
        }
        for (tensor, methods) in tensors {
            // One suggestion a tensor: the best of those that were tried.
            let mut best: Option<(usize, Quality)> = None;
            for method in methods {
                at(&tensor.name);
                let quality = self.switched(calibrated, trials, tensor, method)?;
                if best.is_none_or(|(_, b)| quality.sqnr.total_cmp(b.sqnr).is_gt()) {
                    best = Some((method, quality));
                }
            }
            if let Some((method, quality)) = best {
                let action = Action::SwitchTensor {
                    tensor: tensor.name.clone(),
                    role: tensor.role,
                    method: self.compared[method].to_string(),
                };
                tried.push((action, quality));
            }
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
        let count = usize::from(best.is_some()) + total;
        Ok((self.helpful(tried, trials.before()), count))
    }

    /// The methods that are worth a try for a tensor: the one with the least noise; and where the
    /// chosen one leaves many integers unused, the one with the least noise of those that use them.
    /// An outlier that is kept may be the larger part of a tensor's signal and of no use to the
    /// model.
    fn promising(&self, tensor: &Tensor) -> Vec<usize> {
        let Some(chosen) = tensor.chosen() else {
            return Vec::new();
        };
        let least = self.options.least_gain_db;
        let quiet = tensor
            .best()
            .filter(|b| !b.chosen && b.sqnr.beats(chosen.sqnr, least));
        let used = (chosen.dead_codes >= MANY)
            .then(|| {
                let fuller = |m: &&MethodEffect| m.dead_codes <= 0.75 * chosen.dead_codes;
                let others = tensor.methods.iter().rev().filter(fuller);
                others.max_by(|a, b| a.sqnr.total_cmp(b.sqnr))
            })
            .flatten();
        let place = |m: &MethodEffect| self.compared.iter().position(|c| c.to_string() == m.method);
        let mut places: Vec<usize> = quiet.into_iter().chain(used).filter_map(place).collect();
        places.dedup();
        places
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
