//! The trained network as a standard ONNX file.
//!
//! Quantized values travel in bytes, as every runtime has them; fewer bits are a matter of which
//! bytes can come up. Weights are `int8` constants within ±Qp behind a `DequantizeLinear`. An
//! activation of `b` bits is a `uint8` whose zero point is `255 − (2^b − 1)`: 240 for 4 bits. It
//! saturates at 15 steps above zero, and the `Relu` before it keeps values from falling below
//! zero, so that
//!
//! ```text
//! saturate(rne(x / S) + 240) − 240 = min(rne(x / S), 15)     for x ≥ 0
//! ```
//!
//! exactly what was trained, without a `Clip` that runtimes would have to see through. Biases stay
//! f32: executors add them behind the sums.

use qformat::rne;
use qmodel::{Attribute, Model, Node, Session, SessionOptions, Tensor};

use crate::data::Samples;
use crate::evaluate::{BATCH, predictions};
use crate::quantized::LayerQuantizers;
use crate::{Network, TrainError};

/// The graph of a network with its quantizers, in QDQ form; opset and names are those of the model
/// that the network was read from.
///
/// # Errors
///
/// [`TrainError::Count`] unless there are quantizers for every layer, [`TrainError::Setting`] for
/// integers beyond bytes, and those of [`qmodel`].
pub fn model(network: &Network, quantizers: &[LayerQuantizers]) -> Result<Model, TrainError> {
    if quantizers.len() != network.layers.len() {
        return Err(TrainError::Count {
            what: "layers with quantizers",
            given: quantizers.len(),
            expected: network.layers.len(),
        });
    }
    let mut model = network.model.clone();
    let graph = &mut model.graph;
    let mut names = graph.names();
    for (layer, q) in network.layers.iter().zip(quantizers) {
        let mut source = layer.source.clone();
        if graph.is_input(&source) {
            // What comes from outside may be negative.
            let relu = names.fresh(&format!("{source}.relu"));
            graph.replace_uses(&source, &relu);
            graph
                .nodes
                .push(Node::new(&*relu, "Relu", [&*source], [&*relu]));
            source = relu;
        }
        let mut constant = |graph: &mut qmodel::Graph, what: &str, of: &str, t: Tensor| {
            let name = names.fresh(&format!("{of}.{what}"));
            graph.set_initializer(&*name, t);
            name
        };
        let scale = constant(
            graph,
            "scale",
            &source,
            Tensor::scalar(single(q.input.scales())?),
        );
        let zero = constant(graph, "zero_point", &source, Tensor::scalar(zero_point(q)?));
        let w_scales = q.weight.scales().to_vec();
        let axis = w_scales.len() > 1;
        let w_scale = if axis {
            Tensor::vector(w_scales)
        } else {
            Tensor::scalar(single(&w_scales)?)
        };
        let w_scale = constant(graph, "scale", &layer.node, w_scale);
        let integers = Tensor::new(&layer.shape, weight_integers(layer, q)?)?;
        let w_quantized = constant(graph, "weight.quantized", &layer.node, integers);
        let bias = constant(
            graph,
            "bias.trained",
            &layer.node,
            Tensor::vector(layer.bias.clone()),
        );

        let quantized = names.fresh(&format!("{source}.quantized"));
        let value = names.fresh(&format!("{source}.dequantized"));
        let weight = names.fresh(&format!("{}.weight.dequantized", layer.node));
        graph.replace_uses(&source, &value);
        let of_input = |op, x: &str, y: &str| Node::new(y, op, [x, &*scale, &*zero], [y]);
        graph
            .nodes
            .push(of_input("QuantizeLinear", &source, &quantized));
        graph
            .nodes
            .push(of_input("DequantizeLinear", &quantized, &value));
        let mut of_weight = Node::new(
            &*weight,
            "DequantizeLinear",
            [&*w_quantized, &*w_scale],
            [&*weight],
        );
        if axis {
            of_weight.set_attribute("axis", Attribute::Int(0));
        }
        graph.nodes.push(of_weight);
        let product = graph.producer(&layer.value);
        if let Some(node) = product.and_then(|i| graph.nodes.get_mut(i)) {
            node.inputs.truncate(1);
            node.inputs.extend([weight, bias]);
        }
    }
    graph.value_info.clear();
    graph.remove_dead();
    graph.validate()?;
    graph.sort()?;
    Ok(model)
}

/// What the written model predicts in this workspace's executor: its outputs, row by row.
///
/// # Errors
///
/// Those of [`Session`].
pub fn run(network: &Network, model: &Model, samples: &Samples) -> Result<Vec<f32>, TrainError> {
    let mut session = Session::new(model, SessionOptions::default())?;
    let [c, h, w] = network.sample;
    let input = model
        .graph
        .inputs
        .first()
        .map_or("", |i| &i.name)
        .to_owned();
    let mut all = Vec::new();
    for images in samples.images.chunks(BATCH * samples.pixels.max(1)) {
        let count = images.len() / samples.pixels.max(1);
        // With one channel, channels last is channels first.
        let x = Tensor::new(&[count, c, h, w], channels_first(images, [c, h, w]))?;
        for (_, y) in session.run(&[(&input, &x)])? {
            all.extend_from_slice(y.as_slice::<f32>().unwrap_or(&[]));
        }
    }
    Ok(all)
}

/// Images `[N, H, W, C]` as `[N, C, H, W]`.
fn channels_first(images: &[f32], [c, h, w]: [usize; 3]) -> Vec<f32> {
    let mut turned = Vec::with_capacity(images.len());
    for image in images.chunks((c * h * w).max(1)) {
        for channel in 0..c {
            turned.extend(image.iter().skip(channel).step_by(c));
        }
    }
    turned
}

/// Checks that a written model predicts what was trained: as many samples as `allowed` may differ,
/// where float sums in another order put a value beside the middle between two steps. Returns how
/// many do.
///
/// # Errors
///
/// [`TrainError::Disagreement`] when more differ, [`TrainError::Count`] when there are not equally
/// many outputs.
pub fn compare(
    trained: &[f32],
    written: &[f32],
    classes: usize,
    allowed: usize,
) -> Result<usize, TrainError> {
    if trained.len() != written.len() {
        return Err(TrainError::Count {
            what: "outputs",
            given: written.len(),
            expected: trained.len(),
        });
    }
    let (ours, theirs) = (predictions(trained, classes), predictions(written, classes));
    let differing = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
    if differing > allowed {
        return Err(TrainError::Disagreement {
            differing,
            samples: ours.len(),
            allowed,
        });
    }
    Ok(differing)
}

fn single(scales: &[f32]) -> Result<f32, TrainError> {
    match scales {
        [one] => Ok(*one),
        _ => Err(TrainError::Count {
            what: "scales",
            given: scales.len(),
            expected: 1,
        }),
    }
}

/// The byte that stands for zero, so that the highest byte stands for the highest level.
fn zero_point(q: &LayerQuantizers) -> Result<u8, TrainError> {
    let levels = q.input.levels();
    let zeros = q.input.zero_points().iter().all(|&z| z == 0.0);
    u8::try_from(i32::from(u8::MAX) - levels.max())
        .ok()
        .filter(|_| levels.min() == 0 && zeros)
        .ok_or_else(|| TrainError::Setting {
            argument: "levels of an input",
            given: format!("{} to {}", levels.min(), levels.max()),
            allowed: "from 0 to at most 255, with zero point 0",
        })
}

/// `clamp(rne(w / S))`, as the forward of training has it.
fn weight_integers(layer: &crate::Layer, q: &LayerQuantizers) -> Result<Vec<i8>, TrainError> {
    let levels = q.weight.levels();
    let byte = |v: i32| i8::try_from(v).is_ok();
    let zeros = q.weight.zero_points().iter().all(|&z| z == 0.0);
    let granularity = q.weight.granularity();
    let groups = granularity.groups(&layer.shape)?;
    if !(byte(levels.min()) && byte(levels.max()) && zeros) {
        return Err(TrainError::Setting {
            argument: "levels of weights",
            given: format!("{} to {}", levels.min(), levels.max()),
            allowed: "from -127 to 127, with zero point 0",
        });
    }
    if groups != q.weight.scales().len() {
        return Err(TrainError::Count {
            what: "scales of weights",
            given: q.weight.scales().len(),
            expected: groups,
        });
    }
    let mut integers = Vec::with_capacity(layer.weight.len());
    for (group, run) in granularity.runs(&layer.shape)? {
        let scale = q.weight.scales()[group];
        let (low, high) = (levels.min() as f32, levels.max() as f32);
        let run = layer.weight.get(run).unwrap_or(&[]);
        integers.extend(run.iter().map(|w| rne(w / scale).clamp(low, high) as i8));
    }
    Ok(integers)
}
