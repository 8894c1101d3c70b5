//! Batch normalizations: folded, kept apart for training, and inserted where a file has none.

use candle_core::Tensor as CandleTensor;
use qcalib::train::BatchNorm;
use qmodel::{Attribute, Model, Node, Tensor};

use crate::data::Samples;
use crate::evaluate;
use crate::graph::{Graph, Operands};
use crate::network::refuse;
use crate::ops::read;
use crate::{Network, TrainError};

/// `ε` of the normalizations that [`insert`] makes, the ONNX standard's default.
const EPSILON: f32 = 1e-5;

/// A layer's weights and the normalization behind them, before one is folded into the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfolded {
    /// Weights in the shape of [`Layer::shape`](crate::Layer::shape); the layer has no bias.
    pub weight: Vec<f32>,
    /// What happens to their product; a bias of the layer is taken off its mean.
    pub norm: BatchNorm,
}

/// A network whose batch normalizations are not folded, so that training can go on with statistics
/// of batches.
///
/// ```
/// use qtrain::{Network, Normalized, batch_norm, data};
///
/// let model = data::model()?; // without batch normalizations
/// let digits = data::calibration()?.select(&[0, 1, 2, 3]);
/// let normalized = Normalized::new(&batch_norm::insert(&model, &digits)?)?;
/// let behind = normalized.layers().iter().filter(|l| l.is_some()).count();
/// assert_eq!(behind, 4); // one a convolution
/// let plain = Normalized::from(Network::new(&model)?);
/// assert!(plain.layers().iter().all(Option::is_none));
/// # Ok::<(), qtrain::TrainError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Normalized {
    folded: Network,
    layers: Vec<Option<Unfolded>>,
}

impl Normalized {
    /// Reads a model as [`Network::new`] does, and keeps the batch normalizations apart. Of several
    /// in a row only the last is: those before it are folded.
    ///
    /// # Errors
    ///
    /// Those of [`Network::new`].
    pub fn new(model: &Model) -> Result<Normalized, TrainError> {
        let mut model = model.clone();
        model.drop_default_inputs();
        let found = fold_all(&mut model)?;
        let folded = Network::new(&model)?;
        let mut layers = vec![None; folded.layers.len()];
        for (value, unfolded) in found {
            let at = folded.layers.iter().position(|l| l.value == value);
            if let Some(slot) = at.and_then(|i| layers.get_mut(i)) {
                *slot = Some(unfolded);
            }
        }
        Ok(Normalized { folded, layers })
    }

    /// The network with all normalizations folded, by their running statistics.
    #[must_use]
    pub fn folded(&self) -> &Network {
        &self.folded
    }

    /// What is not folded, layer by layer: none where no normalization follows.
    #[must_use]
    pub fn layers(&self) -> &[Option<Unfolded>] {
        &self.layers
    }

    /// The network before folding, as the graph of training has it: weights of their own, and `β`
    /// for biases.
    pub(crate) fn unfolded(&self) -> Network {
        let mut network = self.folded.clone();
        for (layer, own) in network.layers.iter_mut().zip(&self.layers) {
            if let Some(own) = own {
                layer.weight.clone_from(&own.weight);
                layer.bias.clone_from(&own.norm.beta);
            }
        }
        network
    }

    /// The way back from [`unfolded`](Self::unfolded): `network` with the normalizations `norms`,
    /// whose `β` are the network's biases.
    pub(crate) fn join(
        network: Network,
        norms: Vec<Option<BatchNorm>>,
    ) -> Result<Normalized, TrainError> {
        let mut folded = network;
        let mut layers = Vec::with_capacity(norms.len());
        for (layer, norm) in folded.layers.iter_mut().zip(norms) {
            layers.push(match norm {
                None => None,
                Some(mut norm) => {
                    norm.beta.clone_from(&layer.bias);
                    let (weight, bias) = norm.fold(&layer.weight, &layer.shape, None)?;
                    layer.bias = bias;
                    let weight = std::mem::replace(&mut layer.weight, weight);
                    Some(Unfolded { weight, norm })
                }
            });
        }
        Ok(Normalized { folded, layers })
    }
}

/// Nothing is normalized.
impl From<Network> for Normalized {
    fn from(folded: Network) -> Self {
        let layers = vec![None; folded.layers.len()];
        Normalized { folded, layers }
    }
}

/// A model with a batch normalization behind each convolution that has none, which changes nothing:
/// its running statistics are those of the convolution's outputs on `samples`, `γ = √(σ² + ε)` and
/// `β = μ`, so that `γ · (x − μ) / √(σ² + ε) + β = x` up to rounding.
///
/// Training of a network that was folded when it was written can then use batch statistics again.
///
/// # Errors
///
/// Those of [`Network::new`], [`TrainError::Count`] when there is no sample, and those of
/// [`Graph::logits`].
pub fn insert(model: &Model, samples: &Samples) -> Result<Model, TrainError> {
    let mut model = model.clone();
    model.drop_default_inputs();
    let normalized = Normalized::new(&model)?;
    let network = normalized.folded();
    let mut seen = Statistics(network.layers.iter().map(|_| Moments::default()).collect());
    evaluate::logits(&Graph::new(network)?, samples, &mut seen)?;

    let graph = &mut model.graph;
    let mut names = graph.names();
    let layers = network.layers.iter().zip(&normalized.layers).zip(&seen.0);
    for ((layer, own), moments) in layers {
        let node = graph.producer(&layer.value);
        let Some(i) = node.filter(|&i| own.is_none() && graph.nodes[i].is("Conv")) else {
            continue;
        };
        let (mean, variance) = moments.finish(&layer.bias)?;
        let gamma: Vec<f32> = variance
            .iter()
            .map(|&v| (f64::from(v) + f64::from(EPSILON)).sqrt() as f32)
            .collect();
        let value = &layer.value;
        // Keeps the layer's name where it is that of the value.
        graph.nodes[i].name.clone_from(&layer.node);
        let before = names.fresh(&format!("{value}.unnormalized"));
        let node = names.fresh(&format!("{}.norm", layer.node));
        let mut inputs = vec![before.clone()];
        for (what, values) in [
            ("gamma", gamma),
            ("beta", mean.clone()),
            ("mean", mean),
            ("variance", variance),
        ] {
            let name = names.fresh(&format!("{node}.{what}"));
            graph.set_initializer(&*name, Tensor::vector(values));
            inputs.push(name);
        }
        graph.nodes[i].outputs = vec![before];
        let norm = Node::new(&*node, "BatchNormalization", inputs, [&**value]);
        let norm = norm.with_attribute("epsilon", Attribute::Float(EPSILON));
        graph.nodes.insert(i + 1, norm);
    }
    graph.value_info.clear();
    graph.validate()?;
    Ok(model)
}

/// Sums over a layer's outputs, one a channel.
#[derive(Debug, Clone, Default)]
struct Moments {
    count: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn add(&mut self, rows: &[f32], channels: usize) {
        self.sum.resize(channels, 0.0);
        self.squares.resize(channels, 0.0);
        for row in rows.chunks_exact(channels.max(1)) {
            self.count += 1.0;
            let sums = self.sum.iter_mut().zip(&mut self.squares);
            for ((sum, squares), &v) in sums.zip(row) {
                let v = f64::from(v);
                *sum += v;
                *squares += v * v;
            }
        }
    }

    /// Means, the biases added, and population variances.
    fn finish(&self, bias: &[f32]) -> Result<(Vec<f32>, Vec<f32>), TrainError> {
        if self.count == 0.0 {
            return Err(TrainError::Count {
                what: "samples for statistics",
                given: 0,
                expected: 1,
            });
        }
        let means = self.sum.iter().map(|s| s / self.count);
        let variances = means.clone().zip(&self.squares);
        let variances = variances.map(|(m, s)| (s / self.count - m * m).max(0.0) as f32);
        let shifted = means.zip(bias).map(|(m, &b)| (m + f64::from(b)) as f32);
        Ok((shifted.collect(), variances.collect()))
    }
}

/// Float operands whose products are recorded.
struct Statistics(Vec<Moments>);

impl Operands for Statistics {
    fn input(&mut self, _: usize, x: CandleTensor) -> Result<CandleTensor, TrainError> {
        Ok(x)
    }

    fn weight(&mut self, _: usize, w: &CandleTensor) -> Result<CandleTensor, TrainError> {
        Ok(w.clone())
    }

    fn output(
        &mut self,
        layer: usize,
        y: CandleTensor,
        _: &dyn Fn() -> Result<CandleTensor, TrainError>,
    ) -> Result<CandleTensor, TrainError> {
        let channels = y.dims().last().copied().unwrap_or(0);
        if let Some(moments) = self.0.get_mut(layer) {
            read(&y, |rows| {
                moments.add(rows, channels);
                Ok(())
            })?;
        }
        Ok(y)
    }
}

/// Folds each batch normalization into the convolution that it follows. Returns what they were
/// before, by the value that convolution and normalization become, in the order of folding.
pub(crate) fn fold_all(model: &mut Model) -> Result<Vec<(String, Unfolded)>, TrainError> {
    let graph = &mut model.graph;
    let mut found = Vec::new();
    while let Some(i) = (graph.nodes.iter()).position(|n| n.is("BatchNormalization")) {
        let node = graph.nodes[i].clone();
        let behind = "only one behind a Conv, with constants and nothing else reading between, is";
        let refused = || refuse(&node, "this batch normalization", behind);
        let x = node.input(0).ok_or_else(refused)?;
        let before = graph.producer(x).ok_or_else(refused)?;
        let conv = graph.nodes[before].clone();
        if !conv.is("Conv") || graph.links().only_consumer(x) != Some(i) {
            return Err(refused());
        }
        let constant = |name: Option<&str>| {
            let tensor = name.and_then(|n| graph.initializer(n))?;
            Some((tensor.shape().to_vec(), tensor.as_slice::<f32>()?.to_vec()))
        };
        let statistic = |i| constant(node.input(i)).map(|c| c.1).ok_or_else(refused);
        let epsilon = match node.attribute("epsilon") {
            Some(Attribute::Float(e)) => *e,
            _ => 1e-5, // the standard's default
        };
        let mut norm = BatchNorm {
            gamma: statistic(1)?,
            beta: statistic(2)?,
            mean: statistic(3)?,
            variance: statistic(4)?,
            epsilon,
            frozen: false,
        };
        let (shape, weight) = constant(conv.input(1)).ok_or_else(refused)?;
        let bias = match conv.input(2) {
            Some(name) => Some(constant(Some(name)).ok_or_else(refused)?.1),
            None => None,
        };
        let (folded, folded_bias) = norm.fold(&weight, &shape, bias.as_deref())?;
        for (mean, b) in norm.mean.iter_mut().zip(bias.unwrap_or_default()) {
            *mean -= b;
        }
        let mut names = graph.names();
        let label = conv.display_name();
        let weights = names.fresh(&format!("{label}.folded.weight"));
        let biases = names.fresh(&format!("{label}.folded.bias"));
        graph.set_initializer(&*weights, Tensor::new(&shape, folded)?);
        graph.set_initializer(&*biases, Tensor::vector(folded_bias));
        let node_before = &mut graph.nodes[before];
        node_before.inputs = vec![node_before.inputs[0].clone(), weights, biases];
        node_before.outputs.clone_from(&node.outputs);
        node_before.outputs.truncate(1);
        let value = node_before.output(0).unwrap_or_default().to_owned();
        found.push((value, Unfolded { weight, norm }));
        graph.nodes.remove(i);
        graph.remove_dead();
    }
    Ok(found)
}
