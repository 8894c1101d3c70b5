//! Weights: each method's ranges, and what they do to every element.

use qcalib::observers::HistogramObserver;
use qcalib::{Observer, Policy};
use qformat::{Granularity, TensorQParams};

use super::ExplainOptions;
use super::tensor::{compare, shown};
use super::types::{MethodEffect, Role, Sqnr, Tensor};
use crate::mixed::WeightRecord;
use crate::placement::{Placement, activations};
use crate::ranges::Ranges;
use crate::rewrite::weights;
use crate::steps::in_value;
use crate::{Calibrated, Method, QuantizeError};

/// The weights of the sites, each once.
pub(super) fn names(placement: &Placement) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in placement.sites.iter().filter_map(|s| s.weight.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A weight; `None` for one without elements. `inputs` has the chosen parameters of activations.
pub(super) fn of(
    calibrated: &Calibrated,
    name: &str,
    options: &ExplainOptions,
    methods: &[Method],
    inputs: Option<&Ranges>,
) -> Result<Option<Tensor>, QuantizeError> {
    let granularity = options.convert.weights;
    let chosen = &calibrated.chosen;
    let Some(record) = WeightRecord::of(calibrated, name, methods, granularity)? else {
        return Ok(None);
    };
    let site = chosen
        .placement
        .sites
        .iter()
        .find(|s| s.weight.as_deref() == Some(name));
    let (Some(site), false) = (site, record.values.is_empty()) else {
        return Ok(None);
    };
    let graph = &chosen.model.graph;
    // As the rewrites have it: the bias decides with the input's scale how fine scales may be.
    let mut input_scale = None;
    for value in activations(site, &graph.nodes[site.node]) {
        let root = chosen.placement.root(value);
        input_scale = inputs
            .map(|r| r.params(root))
            .transpose()?
            .map(|p| p.scale());
    }
    let mut effects = Vec::new();
    // Weights are always covered wholly.
    let mut all = methods.to_vec();
    if !all.contains(&Method::MinMax) {
        all.push(Method::MinMax);
    }
    for method in all {
        let clipped = record.clipped(method)?;
        let params = weights::parameters(graph, site, name, &clipped, granularity, input_scale)?;
        effects.push(effect(method, &params, &record));
    }
    compare(&mut effects);

    let mut whole = HistogramObserver::new(Granularity::PerTensor, Policy::Error)
        .map_err(|e| in_value(name, e))?;
    whole
        .observe(0, record.values, record.tensor.shape())
        .map_err(|e| in_value(name, e))?;
    let seen = whole.record(0).ok_or_else(|| QuantizeError::Unobserved {
        value: name.to_owned(),
    })?;
    let range = seen.range().map_err(|e| in_value(name, e))?;
    Ok(Some(Tensor {
        name: name.to_owned(),
        role: Role::Weight,
        readers: Vec::new(),
        count: seen.extent.finite(),
        min: range.min,
        max: range.max,
        histogram: shown(&seen, options.bins),
        methods: effects,
    }))
}

/// What parameters do to the elements of a weight, counted one by one.
fn effect(method: Method, params: &TensorQParams, record: &WeightRecord<'_>) -> MethodEffect {
    let groups = params.params();
    let (mut below, mut above, mut ends) = (0u64, 0u64, 0u64);
    let (mut signal, mut noise) = (0f64, 0f64);
    // Weights are i8: 256 integers, of which the scheme uses all but the lowest.
    let mut used = [false; 256];
    for (&x, channel) in record.values.iter().zip(record.channels()) {
        let Some(p) = groups.get(channel) else {
            continue;
        };
        let q = p.quantize(x);
        let (low, high) = (p.range().min(), p.range().max());
        let steps = qformat::rne(x / p.scale()) + p.zero_point() as f32;
        below += u64::from(steps < low as f32);
        above += u64::from(steps > high as f32);
        ends += u64::from(q == low || q == high);
        if let Some(slot) = usize::try_from(q - low).ok().and_then(|i| used.get_mut(i)) {
            *slot = true;
        }
        let (x, y) = (f64::from(x), f64::from(p.dequantize(q)));
        signal += x * x;
        noise += (x - y) * (x - y);
    }
    let n = record.values.len() as f64;
    let codes = groups.first().map_or(1, |p| p.range().steps() + 1);
    let live = used.iter().filter(|u| **u).count() as f64;
    let sqnr = if noise == 0.0 {
        Sqnr::Noiseless
    } else {
        Sqnr::of(10.0 * (signal / noise).log10())
    };
    let scales = || params.scales();
    let widest = groups
        .iter()
        .max_by(|a, b| a.scale().total_cmp(&b.scale()))
        .map_or((0.0, 0.0), qformat::QParams::clip_bounds);
    MethodEffect {
        method: method.to_string(),
        chosen: method == Method::MinMax,
        min: widest.0,
        max: widest.1,
        scale: scales().fold(0.0, f32::max),
        least_scale: scales().fold(f32::INFINITY, f32::min),
        zero_point: params.zero_points().next().unwrap_or(0),
        clipped_below: below as f64 / n,
        clipped_above: above as f64 / n,
        sqnr,
        saturated: ends as f64 / n,
        dead_codes: 1.0 - live / f64::from(codes),
        switch_db: None,
    }
}
