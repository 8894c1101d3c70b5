//! The network as training sees it: a chain of layers, read from an ONNX graph.

use qmodel::{Attribute, Dim, Model, Node};

use crate::{TrainError, batch_norm};

/// The most numbers of a sample: memory for a batch is bounded before any is asked for.
const MAX_PIXELS: usize = 1 << 24;

/// What a layer does with its input and its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// A convolution with square filters that move by 1: weights `[O, C, size, size]`.
    Conv {
        /// Height and width of the filters.
        size: usize,
        /// Rows and columns of zeros on each side.
        pad: usize,
    },
    /// A matrix product: weights `[O, I]`.
    Dense,
}

/// What happens between two layers; nothing of it computes new values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// The largest values of `size × size` windows that touch.
    MaxPool {
        /// Height and width of the windows.
        size: usize,
    },
    /// An image `[N, C, H, W]` as rows `[N, C · H · W]`.
    Flatten,
}

/// A convolution or matrix product with its bias and rectifier, and what comes before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The node that computes the product; several may have the same name.
    pub node: String,
    /// What the input passes through first.
    pub before: Vec<Passing>,
    /// What is computed.
    pub product: Product,
    /// Weights, row-major, output channels first.
    pub weight: Vec<f32>,
    pub(crate) shape: Vec<usize>,
    /// One number an output channel.
    pub bias: Vec<f32>,
    /// Whether negative results become 0.
    pub relu: bool,
    /// The value of the graph that is quantized for this layer: its input before [`before`].
    ///
    /// [`before`]: Self::before
    pub(crate) source: String,
    /// The value of the graph that the product becomes. It tells layers apart, as names of nodes
    /// need not.
    pub(crate) value: String,
}

impl Layer {
    /// The shape of the weights: `[O, C, size, size]` or `[O, I]`, no dimension of which is 0.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The weights as `outputs × inputs × area`: area is 1 for a matrix and the number of a
    /// filter's positions for a convolution.
    #[must_use]
    pub fn extents(&self) -> [usize; 3] {
        let (outputs, inputs) = (self.shape[0], self.shape[1]);
        [outputs, inputs, self.shape[2..].iter().product()]
    }
}

/// A chain of layers with its graph.
///
/// ```
/// let network = qtrain::Network::new(&qtrain::data::model()?)?;
/// let layers: Vec<_> = network.layers.iter().map(|l| l.node.as_str()).collect();
/// assert_eq!(layers, ["conv1", "conv2", "conv3", "conv4", "fc1", "fc2"]);
/// # Ok::<(), qtrain::TrainError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// The layers in order.
    pub layers: Vec<Layer>,
    /// Channels, height and width of a sample.
    pub sample: [usize; 3],
    /// The graph that the layers were read from, batch normalizations folded.
    pub(crate) model: Model,
}

impl Network {
    /// Reads a model that is one chain of `Conv`, `Gemm`, `BatchNormalization`, `Relu`, `MaxPool`
    /// and `Flatten` from an image `[N, C, H, W]` to its only output.
    ///
    /// A batch normalization behind a convolution is folded into it with its running statistics
    /// ([`BatchNorm::fold`](qcalib::train::BatchNorm::fold)), and stays frozen: training goes on
    /// with the folded weights. [`Normalized`](crate::Normalized) keeps it apart.
    ///
    /// # Errors
    ///
    /// [`TrainError::Unsupported`] for anything else, naming the node.
    pub fn new(model: &Model) -> Result<Network, TrainError> {
        let mut model = model.clone();
        model.drop_default_inputs();
        batch_norm::fold_all(&mut model)?;
        let [input] = &model.graph.inputs[..] else {
            return Err(part("inputs", model.graph.inputs.len(), "one"));
        };
        let dims = input.tensor_type().and_then(|t| t.shape.clone());
        let known = |d: &Dim| d.known().filter(|&n| n > 0);
        let sample = match dims.as_deref() {
            Some([_, c, h, w]) => match [known(c), known(h), known(w)] {
                [Some(c), Some(h), Some(w)] => Some([c, h, w]),
                _ => None,
            }
            .filter(|dims| count_of(dims).is_some_and(|n| n <= MAX_PIXELS)),
            _ => None,
        };
        let sample = sample.ok_or_else(|| {
            let given = format!("input \"{}\"", input.name);
            part(
                "inputs",
                given,
                "an image [N, C, H, W] of at most 2^24 numbers",
            )
        })?;
        let (mut value, mut layers) = (input.name.clone(), Vec::<Layer>::new());
        let (mut source, mut before) = (value.clone(), Vec::new());
        while !model.graph.is_output(&value) {
            let readers = model.graph.consumers(&value);
            let [reader] = readers[..] else {
                let given = format!("value \"{value}\" with {} readers", readers.len());
                return Err(part("graph", given, "a chain, each value read once"));
            };
            let node = &model.graph.nodes[reader];
            if node.is("Relu") {
                let last = layers.last_mut().filter(|_| before.is_empty());
                let last = last.ok_or_else(|| refuse(node, "a rectifier", "behind a product"))?;
                last.relu = true;
            } else if node.is("MaxPool") {
                before.push(max_pool(node)?);
            } else if node.is("Flatten") && node.int_attribute("axis").unwrap_or(1) == 1 {
                before.push(Passing::Flatten);
            } else {
                let mut layer = product(&model, node)?;
                layer.source.clone_from(&source);
                layer.before = std::mem::take(&mut before);
                layers.push(layer);
            }
            value = node.output(0).unwrap_or_default().to_owned();
            if before.is_empty() {
                source.clone_from(&value);
            }
        }
        let behind = layers.last().is_none_or(|l| l.relu) || !before.is_empty();
        if behind || model.graph.outputs.len() != 1 {
            return Err(part(
                "outputs",
                "something else",
                "one, of the last product",
            ));
        }
        check_rectified(&layers)?;
        Ok(Network {
            layers,
            sample,
            model,
        })
    }

    /// Number of outputs.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.layers.last().map_or(0, |l| l.shape[0])
    }
}

/// The product of dimensions, if it can be counted.
fn count_of(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// All inputs of layers must not be negative, since they are quantized without a sign: each layer
/// but the last ends in a rectifier.
fn check_rectified(layers: &[Layer]) -> Result<(), TrainError> {
    let inner = &layers[..layers.len().saturating_sub(1)];
    match inner.iter().find(|l| !l.relu) {
        None => Ok(()),
        Some(l) => Err(TrainError::Unsupported {
            place: l.node.clone(),
            given: "a product without a rectifier".to_owned(),
            allowed: "each but the last needs one",
        }),
    }
}

fn part(place: &str, given: impl ToString, allowed: &'static str) -> TrainError {
    TrainError::Unsupported {
        place: format!("the model's {place}"),
        given: given.to_string(),
        allowed,
    }
}

pub(crate) fn refuse(node: &Node, given: impl ToString, allowed: &'static str) -> TrainError {
    TrainError::Unsupported {
        place: node.label(),
        given: given.to_string(),
        allowed,
    }
}

/// An attribute's integers, or what stands for them where it is absent.
fn ints(node: &Node, name: &str, default: &[i64]) -> Vec<i64> {
    match node.attribute(name) {
        Some(Attribute::Ints(v)) => v.clone(),
        _ => default.to_vec(),
    }
}

/// A size that a node states, as a count.
fn count(node: &Node, what: &str, given: i64) -> Result<usize, TrainError> {
    usize::try_from(given).map_err(|_| refuse(node, format!("{what} {given}"), "from 0 on"))
}

/// Refuses padding by a rule, which no attribute tells the amount of.
fn explicit(node: &Node) -> Result<(), TrainError> {
    match node.attribute("auto_pad") {
        None => Ok(()),
        Some(Attribute::String(s)) if s == "NOTSET" => Ok(()),
        Some(_) => Err(refuse(node, "auto_pad", "explicit pads are")),
    }
}

fn max_pool(node: &Node) -> Result<Passing, TrainError> {
    explicit(node)?;
    let kernel = ints(node, "kernel_shape", &[]);
    let touching = ints(node, "strides", &[1, 1]) == kernel;
    let plain = ints(node, "pads", &[0; 4]) == [0; 4]
        && ints(node, "dilations", &[1, 1]) == [1, 1]
        && node.int_attribute("ceil_mode").unwrap_or(0) == 0;
    match kernel[..] {
        [h, w] if h == w && h > 0 && touching && plain => Ok(Passing::MaxPool {
            size: count(node, "kernel_shape", h)?,
        }),
        _ => Err(refuse(
            node,
            "this window",
            "square ones that touch, without pads, are",
        )),
    }
}

fn product(model: &Model, node: &Node) -> Result<Layer, TrainError> {
    let floats = |i: usize| {
        let tensor = node.input(i).and_then(|n| model.graph.initializer(n));
        let values = tensor.and_then(|t| Some((t.shape().to_vec(), t.as_slice::<f32>()?.to_vec())));
        values.ok_or_else(|| refuse(node, format!("input {i}"), "a constant of f32 is"))
    };
    let (shape, weight) = floats(1)?;
    let product = match (node.op_type.as_str(), &shape[..]) {
        ("Conv", &[_, _, h, w]) if h == w && node.is_standard() => {
            explicit(node)?;
            let plain = ints(node, "strides", &[1, 1]) == [1, 1]
                && ints(node, "dilations", &[1, 1]) == [1, 1]
                && node.int_attribute("group").unwrap_or(1) == 1;
            let pads = ints(node, "pads", &[0; 4]);
            let [pad, rest @ ..] = &pads[..] else {
                return Err(refuse(node, "an empty list of pads", "four are"));
            };
            let pad = count(node, "pads", *pad)?;
            let equal = rest.len() == 3 && rest.iter().all(|p| *p == pads[0]) && pad < h;
            if !(plain && equal) {
                let allowed = "steps of 1, one group and equal pads within the filters are";
                return Err(refuse(node, "this convolution", allowed));
            }
            Product::Conv { size: h, pad }
        }
        ("Gemm", &[_, _]) if node.is_standard() => {
            let one = |name| match node.attribute(name) {
                None => true,
                Some(Attribute::Float(v)) => *v == 1.0,
                Some(_) => false,
            };
            let turned = node.int_attribute("transB") == Some(1)
                && node.int_attribute("transA").unwrap_or(0) == 0;
            if !(turned && one("alpha") && one("beta")) {
                let allowed = "transB = 1, alpha = beta = 1 is";
                return Err(refuse(node, "this product", allowed));
            }
            Product::Dense
        }
        _ => {
            let allowed = "Conv with square filters, Gemm, BatchNormalization behind Conv, Relu, \
                           MaxPool and Flatten are";
            return Err(refuse(node, "this operator", allowed));
        }
    };
    let bias = if node.input(2).is_some() {
        floats(2)?.1
    } else {
        vec![0.0; shape[0]]
    };
    if bias.len() != shape[0] || weight.is_empty() {
        let given = format!("{} biases for weights {shape:?}", bias.len());
        return Err(refuse(node, given, "one an output channel"));
    }
    Ok(Layer {
        node: node.display_name().to_owned(),
        before: Vec::new(),
        product,
        weight,
        shape,
        bias,
        relu: false,
        source: String::new(),
        value: node.output(0).unwrap_or_default().to_owned(),
    })
}
