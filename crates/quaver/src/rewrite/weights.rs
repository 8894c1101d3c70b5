//! Int8 weights and int32 biases, each constant written once.

use std::collections::HashMap;

use qformat::{DType, FormatError, Granularity, QParams, QuantSpec, Scheme, TensorQParams};
use qmodel::{Graph, Tensor};

use super::{Rewriter, integers};
use crate::placement::{Kind, Site};
use crate::{QuantizeError, WeightGranularity};

/// How a weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Storage {
    /// As it is, int8 with zero point 0.
    Plain,
    /// Rows and columns swapped, so that `MatMul` reads what `Gemm` with `transB` read.
    Transposed,
    /// uint8 with zero point 128, for operators that take no signed weight.
    Unsigned,
}

/// A weight in the graph, quantized.
#[derive(Debug, Clone)]
pub(crate) struct Weight {
    pub(crate) quantized: String,
    pub(crate) scale: String,
    pub(crate) zero_point: String,
    /// The channel axis, as stored; `None` per tensor.
    pub(crate) axis: Option<usize>,
    pub(crate) params: TensorQParams,
}

/// What tells one stored form of a weight from another: its name, how it is stored, the channel
/// axis, and the bits of its scales.
type Key = (String, Storage, Option<usize>, Vec<u32>);

/// The weights quantized so far: one that several nodes share is quantized once.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    done: HashMap<Key, Weight>,
}

impl Weights {
    /// The weight of a site that multiplies an activation of scale `input_scale`, if that is
    /// known.
    ///
    /// The scale of a channel is the one that covers its largest weight, or a larger one where
    /// the bias would otherwise not fit into int32 (as ONNX Runtime does).
    pub(crate) fn get(
        &mut self,
        rewriter: &mut Rewriter,
        site: &Site,
        name: &str,
        storage: Storage,
        granularity: WeightGranularity,
        input_scale: Option<f32>,
    ) -> Result<Weight, QuantizeError> {
        let missing = || QuantizeError::Unobserved {
            value: name.to_owned(),
        };
        let tensor = rewriter
            .graph
            .initializer(name)
            .ok_or_else(missing)?
            .clone();
        let values = tensor.as_slice::<f32>().ok_or_else(missing)?;
        let in_value = |source| in_weight(name, source);
        let axis = channel_axis(site, granularity);
        let params = parameters(
            &rewriter.graph,
            site,
            name,
            &tensor,
            granularity,
            input_scale,
        )?;

        let key = (
            name.to_owned(),
            storage,
            axis,
            params.scales().map(f32::to_bits).collect(),
        );
        if let Some(w) = self.done.get(&key) {
            return Ok(w.clone());
        }
        let mut q: Vec<i8> = params.quantize(values, tensor.shape()).map_err(in_value)?;
        let mut shape = tensor.shape().to_vec();
        let mut stored_axis = axis;
        if let (Storage::Transposed, &[rows, cols]) = (storage, shape.as_slice()) {
            q = (0..cols)
                .flat_map(|c| (0..rows).map(move |r| (r, c)))
                .map(|(r, c)| q[r * cols + c])
                .collect();
            shape.swap(0, 1);
            stored_axis = axis.map(|a| 1 - a);
        }
        let (dtype, offset) = match storage {
            Storage::Unsigned => (DType::U8, 128),
            _ => (DType::I8, 0),
        };
        let q: Vec<i32> = q.iter().map(|&v| i32::from(v) + offset).collect();
        let groups = params.params().len();
        // One element per channel, or a scalar: what the operators want.
        let group_shape: &[usize] = if axis.is_some() { &[groups] } else { &[] };
        let scales = Tensor::new(group_shape, params.scales().collect::<Vec<f32>>())?;
        let weight = Weight {
            quantized: rewriter
                .constant(&format!("{name}_quantized"), integers(dtype, &shape, &q)?),
            scale: rewriter.constant(&format!("{name}_scale"), scales),
            zero_point: rewriter.constant(
                &format!("{name}_zero_point"),
                integers(dtype, group_shape, &vec![offset; groups])?,
            ),
            axis: stored_axis,
            params,
        };
        self.done.insert(key, weight.clone());
        Ok(weight)
    }
}

/// The axis whose elements have scales of their own.
pub(crate) fn channel_axis(site: &Site, granularity: WeightGranularity) -> Option<usize> {
    match granularity {
        WeightGranularity::PerTensor => None,
        WeightGranularity::PerChannel => site.channel_axis,
    }
}

/// Scales that cover the values of the weight `name` of a site, wide enough for its bias.
pub(crate) fn parameters(
    graph: &Graph,
    site: &Site,
    name: &str,
    tensor: &Tensor,
    granularity: WeightGranularity,
    input_scale: Option<f32>,
) -> Result<TensorQParams, QuantizeError> {
    let values = tensor
        .as_slice::<f32>()
        .ok_or_else(|| QuantizeError::Unobserved {
            value: name.to_owned(),
        })?;
    let axis = channel_axis(site, granularity);
    let spec = QuantSpec {
        dtype: DType::I8,
        scheme: Scheme::Symmetric,
        granularity: axis.map_or(Granularity::PerTensor, |axis| Granularity::PerChannel {
            axis,
        }),
    };
    let params =
        TensorQParams::from_data(values, tensor.shape(), spec).map_err(|e| in_weight(name, e))?;
    let bias = site
        .bias
        .as_ref()
        .and_then(|b| graph.initializer(b)?.as_slice::<f32>());
    match (bias, input_scale) {
        (Some(bias), Some(scale)) => widened(&params, bias, scale).map_err(|e| in_weight(name, e)),
        _ => Ok(params),
    }
}

/// Names the weight in an error of its parameters.
fn in_weight(name: &str, source: FormatError) -> QuantizeError {
    QuantizeError::Format {
        value: format!("weight \"{name}\""),
        source,
    }
}

/// Scales large enough for every `bias / (input_scale · scale)` to fit into int32.
fn widened(
    params: &TensorQParams,
    bias: &[f32],
    input_scale: f32,
) -> Result<TensorQParams, qformat::FormatError> {
    // Half of the range is left to the products.
    let needed = |b: f32| f64::from(b.abs()) / (f64::from(input_scale) * f64::from(1u32 << 30));
    let mut floor = vec![0f64; params.params().len()];
    for (i, &b) in bias.iter().enumerate() {
        let slot = if floor.len() == bias.len() { i } else { 0 };
        floor[slot] = floor[slot].max(needed(b));
    }
    let raised = params.params().iter().zip(floor).map(|(p, floor)| {
        let scale = f64::from(p.scale()).max(floor) as f32;
        QParams::new(scale, p.zero_point(), p.dtype(), p.scheme())
    });
    TensorQParams::new(params.granularity(), raised.collect::<Result<_, _>>()?)
}

/// A bias as int32 with scale `input_scale · weight scale` and zero point 0.
#[derive(Debug)]
pub(crate) struct Bias {
    pub(crate) values: Vec<i32>,
    pub(crate) scales: Vec<f32>,
}

/// Quantizes the bias of a site; `None` where it has none of the form that int32 can hold.
pub(crate) fn bias(
    rewriter: &Rewriter,
    site: &Site,
    weight: &Weight,
    input_scale: f32,
) -> Result<Option<Bias>, QuantizeError> {
    let Some(name) = &site.bias else {
        return Ok(None);
    };
    let Some(values) = rewriter
        .graph
        .initializer(name)
        .and_then(|t| t.as_slice::<f32>())
    else {
        return Ok(None);
    };
    // A product that underflows belongs to a channel whose weights and bias are all but zero
    // (`widened` made it large enough for any other bias): the smallest normal number serves.
    let scales: Vec<f32> = weight
        .params
        .scales()
        .map(|s| (s * input_scale).max(f32::MIN_POSITIVE))
        .collect();
    let mut q = Vec::with_capacity(values.len());
    for (i, &b) in values.iter().enumerate() {
        let scale = if scales.len() == values.len() {
            scales[i]
        } else {
            scales[0]
        };
        let named = |source| QuantizeError::Format {
            value: format!("bias \"{name}\""),
            source,
        };
        if !b.is_finite() {
            return Err(named(qformat::FormatError::Range { min: b, max: b }));
        }
        let p = QParams::new(scale, 0, DType::I32, Scheme::Symmetric).map_err(named)?;
        q.push(p.quantize(b));
    }
    Ok(Some(Bias { values: q, scales }))
}

/// Whether the weight of a site is stored transposed when `MatMulInteger` or `QLinearMatMul`
/// takes the place of its node.
pub(crate) fn matmul_storage(site: &Site) -> Storage {
    // `Gemm` counts output channels on axis 0 exactly where it has transB = 1.
    if site.kind == Kind::Gemm && site.channel_axis == Some(0) {
        Storage::Transposed
    } else {
        Storage::Plain
    }
}
