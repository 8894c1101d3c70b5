//! Every layer: the error it adds alone, and its share of run time.

use super::timing::Shares;
use super::trial::Trials;
use super::types::Layer;
use super::{Progress, Stage};
use crate::{Calibrated, QuantizeError};

/// The layers with the indices of their nodes, the one that hurts most alone first.
pub(super) fn of(
    calibrated: &Calibrated,
    trials: &mut Trials<'_, '_>,
    times: Option<&Shares>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<(usize, Layer)>, QuantizeError> {
    let chosen = &calibrated.chosen;
    let sites = &chosen.placement.sites;
    let mut layers = Vec::with_capacity(sites.len());
    for (i, site) in sites.iter().enumerate() {
        let node = &chosen.model.graph.nodes[site.node];
        progress(Progress {
            stage: Stage::Layers,
            done: i,
            total: sites.len(),
            name: node.display_name(),
        });
        let layer = Layer {
            name: node.display_name().to_owned(),
            operator: node.op_type.clone(),
            named: !node.name.is_empty(),
            alone: trials.run_nodes(&[site.node])?,
            time_share: node.output(0).and_then(|o| times?.of(o)),
        };
        layers.push((site.node, layer));
    }
    layers.sort_by(|(_, a), (_, b)| a.alone.sqnr.total_cmp(b.alone.sqnr));
    Ok(layers)
}
