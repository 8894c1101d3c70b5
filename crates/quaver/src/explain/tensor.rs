//! Every tensor: its distribution, and what each method's range does to it.

use std::collections::HashMap;

use qcalib::{Assessment, Record, assess};
use qformat::QParams;

use super::types::{Histogram, MethodEffect, Role, Sqnr, Tensor};
use super::{ExplainOptions, Progress, Stage, weight};
use crate::placement::activations;
use crate::ranges::Ranges;
use crate::steps::in_value;
use crate::{Calibrated, Format, Method, QuantizeError};

/// Tensors, and the ranges that were computed on the way.
pub(super) struct Found {
    pub(super) tensors: Vec<Tensor>,
    /// The parameters of every activation, for each method in turn.
    pub(super) ranges: Vec<Ranges>,
}

impl Found {
    pub(super) fn new(
        calibrated: &Calibrated,
        options: &ExplainOptions,
        methods: &[Method],
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Found, QuantizeError> {
        let placement = &calibrated.chosen.placement;
        let weights = weight::names(placement);
        let total = calibrated.observers.len() + weights.len();
        let mut at = |done, name: &str| {
            progress(Progress {
                stage: Stage::Tensors,
                done,
                total,
                name,
            });
        };
        let readers = readers(calibrated);
        let readers = |name: &str| readers.get(name).cloned().unwrap_or_default();
        let mut found = Found {
            tensors: Vec::new(),
            ranges: vec![Ranges::default(); methods.len()],
        };
        for (i, value) in calibrated.observers.keys().enumerate() {
            at(i, value);
            let mut params = Vec::new();
            for (&method, ranges) in methods.iter().zip(&mut found.ranges) {
                let p = calibrated.params_by(value, method, &options.convert)?;
                ranges.insert(value.clone(), p);
                params.push(p);
            }
            // What is only read as float has a range, but no integers.
            if placement.is_quantized(value) || options.convert.format == Format::QOperator {
                let tensor = activation(calibrated, value, options, methods, &params)?;
                found.tensors.push(Tensor {
                    readers: readers(value),
                    ..tensor
                });
            }
        }
        let chosen = methods.iter().position(|m| *m == options.convert.method);
        let inputs = chosen.and_then(|i| found.ranges.get(i));
        for (i, name) in weights.iter().enumerate() {
            at(calibrated.observers.len() + i, name);
            if let Some(tensor) = weight::of(calibrated, name, options, methods, inputs)? {
                found.tensors.push(Tensor {
                    readers: readers(name),
                    ..tensor
                });
            }
        }
        Ok(found)
    }

    /// The noisiest first.
    pub(super) fn sort(&mut self) {
        let sqnr = |t: &Tensor| t.chosen().map_or(Sqnr::Undefined, |m| m.sqnr);
        self.tensors.sort_by(|a, b| sqnr(a).total_cmp(sqnr(b)));
    }
}

/// The layers that read each tensor.
fn readers(calibrated: &Calibrated) -> HashMap<String, Vec<String>> {
    let placement = &calibrated.chosen.placement;
    let mut readers: HashMap<String, Vec<String>> = HashMap::new();
    for site in &placement.sites {
        let node = &calibrated.chosen.model.graph.nodes[site.node];
        let read = activations(site, node).map(|v| placement.root(v));
        for tensor in read.chain(site.weight.as_deref()) {
            let list = readers.entry(tensor.to_owned()).or_default();
            // A product of a value with itself reads it twice.
            if list.last().is_none_or(|last| last != node.display_name()) {
                list.push(node.display_name().to_owned());
            }
        }
    }
    readers
}

fn activation(
    calibrated: &Calibrated,
    value: &str,
    options: &ExplainOptions,
    methods: &[Method],
    params: &[QParams],
) -> Result<Tensor, QuantizeError> {
    let record = calibrated
        .observers
        .get(value)
        .and_then(|list| list.iter().find_map(|o| histogram_of(o.record(0)?)))
        .ok_or_else(|| QuantizeError::NotObserved {
            method: "explain".to_owned(),
            needs: "histogram".to_owned(),
        })?;
    let range = record.range().map_err(|e| in_value(value, e))?;
    let mut effects = Vec::new();
    for (method, p) in methods.iter().zip(params) {
        let a = assess(&record, p).map_err(|e| in_value(value, e))?;
        let chosen = *method == options.convert.method;
        effects.push(effect(*method, chosen, p, &a));
    }
    compare(&mut effects);
    Ok(Tensor {
        name: value.to_owned(),
        role: Role::Activation,
        readers: Vec::new(),
        count: record.extent.finite(),
        min: range.min,
        max: range.max,
        histogram: shown(&record, options.bins),
        methods: effects,
    })
}

fn histogram_of(record: Record<'_>) -> Option<Record<'_>> {
    record.histogram.is_some().then_some(record)
}

fn effect(method: Method, chosen: bool, p: &QParams, a: &Assessment) -> MethodEffect {
    let (min, max) = p.clip_bounds();
    // An end that stands for 0 is where zeros belong.
    let end = |q: i32, at: f64, clipped: f64| if p.zero_point() == q { clipped } else { at };
    let (low, high) = (p.range().min(), p.range().max());
    MethodEffect {
        method: method.to_string(),
        chosen,
        min,
        max,
        scale: p.scale(),
        least_scale: p.scale(),
        zero_point: p.zero_point(),
        clipped_below: share(a.clipped_below),
        clipped_above: share(a.clipped_above),
        sqnr: Sqnr::of(a.sqnr_db()),
        saturated: share(
            end(low, a.at_lowest, a.clipped_below) + end(high, a.at_highest, a.clipped_above),
        ),
        dead_codes: share(a.dead_codes()),
        switch_db: None,
    }
}

/// A share that sums of floats may have moved past its ends.
pub(super) fn share(x: f64) -> f64 {
    // A share of fewer than one value in 2^50 is what is left of rounding.
    if x < 1e-15 { 0.0 } else { x.min(1.0) }
}

/// Fills in what switching would change.
pub(super) fn compare(effects: &mut [MethodEffect]) {
    let Some(chosen) = effects.iter().find(|e| e.chosen).map(|e| e.sqnr) else {
        return;
    };
    for e in effects {
        e.switch_db = e.sqnr.gain_over(chosen);
    }
}

/// A histogram with at most `bins` bins: neighbours joined, from 0 outwards.
pub(super) fn shown(record: &Record<'_>, bins: usize) -> Histogram {
    let Some(h) = record.histogram else {
        return Histogram {
            zeros: record.extent.finite(),
            edges: Vec::new(),
            counts: Vec::new(),
        };
    };
    let (negative, positive) = (h.negative(), h.positive());
    let needed = |m: usize| negative.len().div_ceil(m) + positive.len().div_ceil(m);
    let mut joined = (negative.len() + positive.len())
        .div_ceil(bins.max(2))
        .max(1);
    while needed(joined) > bins.max(2) {
        joined += 1;
    }
    let join = |side: &[u64]| -> Vec<u64> { side.chunks(joined).map(|c| c.iter().sum()).collect() };
    let (mut counts, above) = (join(negative), join(positive));
    counts.reverse();
    // Exact but for the outermost edges near the end of f32, which then are that end.
    let edge = |j: usize| ((j * joined) as f64 * h.width()).min(f64::from(f32::MAX)) as f32;
    let mut edges: Vec<f32> = (1..=counts.len()).rev().map(|j| -edge(j)).collect();
    edges.extend((0..=above.len()).map(edge));
    counts.extend(above);
    Histogram {
        zeros: h.zeros(),
        edges,
        counts,
    }
}
