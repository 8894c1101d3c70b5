//! Methods for single tensors, over the one of the options.

use std::collections::BTreeMap;

use qcalib::observers::HistogramObserver;
use qcalib::{Observer, ObserverKind, Policy, Target};
use qformat::{DType, Granularity, Scheme};
use qmodel::{Graph, Tensor};

use crate::placement::Placement;
use crate::rewrite::weights::channel_axis;
use crate::steps::{Chosen, in_value};
use crate::{Calibrated, ConvertOptions, Converted, Method, QuantizeError, WeightGranularity};

/// Bins of a channel's histogram on each side of zero: a channel has few values, and a weight many
/// channels.
const CHANNEL_BINS: u32 = 512;

/// Names in an error.
const SHOWN: usize = 12;

impl Calibrated {
    /// [`convert`](Self::convert) with other methods for single tensors.
    ///
    /// The key is the name of an activation that was observed, or of a weight. A weight is clipped
    /// to the range that the method chooses for it (for each of its channels where
    /// [`ConvertOptions::weights`] says so), made symmetric, and then covered as ever; so its range
    /// is never wider than its values.
    ///
    /// # Errors
    ///
    /// Those of [`convert`](Self::convert), and [`QuantizeError::NoTensor`] for a name that is
    /// neither.
    ///
    /// ```no_run
    /// use quaver::{ConvertOptions, Method};
    /// # fn load() -> quaver::Calibrated { unreachable!() }
    /// let calibrated = load();
    /// let methods = [("image".to_owned(), Method::Percentile(99.9))].into();
    /// let converted = calibrated.convert_mixed(&ConvertOptions::default(), &methods)?;
    /// # Ok::<(), quaver::QuantizeError>(())
    /// ```
    pub fn convert_mixed(
        &self,
        options: &ConvertOptions,
        methods: &BTreeMap<String, Method>,
    ) -> Result<Converted, QuantizeError> {
        let Chosen { model, placement } = &self.chosen;
        let (mut graph, mut placement) = (model.graph.clone(), placement.clone());
        let mut ranges = self.ranges(options)?;
        for (name, &method) in methods {
            if self.observers.contains_key(name) {
                ranges.insert(name.clone(), self.params_by(name, method, options)?);
            } else if let Some(w) = WeightRecord::of(self, name, &[method], options.weights)? {
                w.put(&mut graph, &mut placement, w.clipped(method)?);
            } else {
                return Err(self.no_tensor(name));
            }
        }
        let mut converted = self.converted(&graph, &placement, &ranges, options)?;
        converted.report.tensor_methods = methods
            .iter()
            .map(|(name, method)| (name.clone(), method.to_string()))
            .collect();
        Ok(converted)
    }

    fn no_tensor(&self, name: &str) -> QuantizeError {
        let sites = &self.chosen.placement.sites;
        let mut known: Vec<&str> = self.observers.keys().map(String::as_str).collect();
        known.extend(sites.iter().filter_map(|s| s.weight.as_deref()));
        let more = known.len().saturating_sub(SHOWN);
        known.truncate(SHOWN);
        let mut known = known.join(", ");
        if more > 0 {
            known.push_str(&format!(" and {more} more"));
        }
        QuantizeError::NoTensor {
            given: name.to_owned(),
            known,
        }
    }
}

/// The values of a weight as methods see them.
#[derive(Debug)]
pub(crate) struct WeightRecord<'m> {
    name: &'m str,
    pub(crate) tensor: &'m Tensor,
    pub(crate) values: &'m [f32],
    /// The axis of channels with ranges of their own.
    axis: Option<usize>,
    observers: Vec<Box<dyn Observer>>,
}

impl<'m> WeightRecord<'m> {
    /// Records the weight `name` for `methods`; `None` where it is the weight of no site.
    pub(crate) fn of(
        calibrated: &'m Calibrated,
        name: &str,
        methods: &[Method],
        granularity: WeightGranularity,
    ) -> Result<Option<WeightRecord<'m>>, QuantizeError> {
        let Chosen { model, placement } = &calibrated.chosen;
        let found = placement.sites.iter().find_map(|site| {
            let own = site.weight.as_deref().filter(|w| *w == name)?;
            let tensor = &**model.graph.initializer(own)?;
            Some((site, own, tensor, tensor.as_slice::<f32>()?))
        });
        let Some((site, name, tensor, values)) = found else {
            return Ok(None);
        };
        let axis = channel_axis(site, granularity);
        let mut observers = Vec::new();
        for kind in Method::observers_for(methods) {
            let mut observer = match (kind, axis) {
                (ObserverKind::Histogram, Some(axis)) => {
                    let granularity = Granularity::PerChannel { axis };
                    HistogramObserver::with_bins(granularity, Policy::Error, CHANNEL_BINS)
                        .map(|o| Box::new(o) as Box<dyn Observer>)
                }
                (kind, Some(axis)) => {
                    kind.observer(Granularity::PerChannel { axis }, Policy::Error)
                }
                (kind, None) => kind.observer(Granularity::PerTensor, Policy::Error),
            }
            .map_err(|e| in_value(name, e))?;
            observer
                .observe(0, values, tensor.shape())
                .map_err(|e| in_value(name, e))?;
            observers.push(observer);
        }
        Ok(Some(WeightRecord {
            name,
            tensor,
            values,
            axis,
            observers,
        }))
    }

    /// The channel of every element, in order; 0 where they share a range.
    pub(crate) fn channels(&self) -> impl Iterator<Item = usize> + use<> {
        let shape = self.tensor.shape();
        let (inner, count) = match self.axis {
            Some(axis) => (shape[axis + 1..].iter().product(), shape[axis]),
            None => (1, 1),
        };
        // No dimension is 0 where there are elements to ask about.
        let (inner, count): (usize, usize) = (inner.max(1), count.max(1));
        (0..self.values.len()).map(move |i| i / inner % count)
    }

    /// The weight, cut to the symmetric ranges of a method.
    pub(crate) fn clipped(&self, method: Method) -> Result<Tensor, QuantizeError> {
        if method == Method::MinMax || self.values.is_empty() {
            return Ok(self.tensor.clone());
        }
        let observer = self
            .observers
            .iter()
            .find(|o| method.served_by(o.kind()))
            .ok_or_else(|| QuantizeError::NotObserved {
                method: method.to_string(),
                needs: method.observer_kind().to_string(),
            })?;
        let target = Target::new(DType::I8, Scheme::Symmetric);
        let reach: Vec<f32> = target
            .map_err(Into::into)
            .and_then(|t| qcalib::ranges(&**observer, &*method.estimator()?, t))
            .map_err(|e| in_value(self.name, e))?
            .iter()
            .map(|r| r.min.abs().max(r.max.abs()))
            .collect();
        let values = self.values.iter().zip(self.channels());
        let cut = |(&v, channel): (&f32, usize)| {
            let reach = reach.get(channel).copied().unwrap_or(f32::INFINITY);
            v.max(-reach).min(reach)
        };
        Ok(Tensor::new(
            self.tensor.shape(),
            values.map(cut).collect::<Vec<f32>>(),
        )?)
    }

    /// Makes the sites of a graph that read this weight read another one.
    pub(crate) fn put(&self, graph: &mut Graph, placement: &mut Placement, tensor: Tensor) {
        let readers = graph.consumers(self.name);
        let only_weight = |s: &crate::placement::Site| s.weight.as_deref() == Some(self.name);
        let all_sites = readers.iter().all(|&n| {
            placement
                .sites
                .iter()
                .any(|s| s.node == n && only_weight(s))
        });
        if all_sites {
            graph.set_initializer(self.name, tensor);
            return;
        }
        // Whoever else reads the weight keeps it as it is.
        let fresh = graph.names().fresh(&format!("{}_clipped", self.name));
        graph.set_initializer(fresh.as_str(), tensor);
        for site in placement.sites.iter_mut().filter(|s| only_weight(s)) {
            if let Some(input) = graph.nodes[site.node].inputs.get_mut(1) {
                input.clone_from(&fresh);
            }
            site.weight = Some(fresh.clone());
        }
    }
}
