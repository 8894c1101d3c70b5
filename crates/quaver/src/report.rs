//! Step 6: what was quantized, with which parameters, and what came of it.

use std::collections::BTreeMap;

use qformat::Scheme;
use qmodel::Model;
use serde::Serialize;

use crate::placement::Placement;
use crate::ranges::Ranges;
use crate::{ConvertOptions, Evaluation, Format, WeightGranularity};

/// How a model was quantized.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// Ranges of activations at run time.
    Dynamic {
        /// Granularity of the weights.
        weights: WeightGranularity,
    },
    /// Ranges from calibration.
    Static {
        /// Everything that was chosen.
        options: ConvertOptions,
    },
}

/// What became of one chosen node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeReport {
    /// Name of the node; of its first output where it has none.
    pub name: String,
    /// Operator type.
    pub operator: String,
    /// Whether it was quantized.
    pub quantized: bool,
    /// Why not, where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The parameters of one activation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorReport {
    /// Name of the value.
    pub name: String,
    /// Element type of the integers: `u8`.
    pub dtype: String,
    /// Step between neighbouring values.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
    /// Lowest representable number.
    pub min: f32,
    /// Highest representable number.
    pub max: f32,
}

/// Everything that was done to a model, and measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Version of this library.
    pub quaver: &'static str,
    /// `static` or `dynamic`.
    pub mode: &'static str,
    /// The operators written: `qdq`, `qoperator`, or `integer` for dynamic models.
    pub format: String,
    /// How ranges were chosen; absent for dynamic models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The tensors whose range another method chose, and that method.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tensor_methods: BTreeMap<String, String>,
    /// Scheme of activations.
    pub activations: String,
    /// Granularity of weights.
    pub weights: String,
    /// File size of the float model.
    pub float_bytes: usize,
    /// File size of the quantized model.
    pub quantized_bytes: usize,
    /// The chosen nodes, in the order in which they run.
    pub nodes: Vec<NodeReport>,
    /// The quantized activations, in the order in which they are computed.
    pub tensors: Vec<TensorReport>,
    /// The scores, once the model was evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
}

impl Report {
    pub(crate) fn new(
        mode: Mode,
        float: &Model,
        quantized: &Model,
        placement: &Placement,
        ranges: &Ranges,
    ) -> Report {
        let (name, format, method, scheme, weights) = match mode {
            Mode::Dynamic { weights } => (
                "dynamic",
                "integer".to_owned(),
                None,
                Scheme::Affine,
                weights,
            ),
            Mode::Static { options: o } => (
                "static",
                o.format.to_string(),
                Some(o.method.to_string()),
                o.activations,
                o.weights,
            ),
        };
        let mut nodes: Vec<(usize, Option<String>)> =
            placement.sites.iter().map(|s| (s.node, None)).collect();
        nodes.extend(
            placement
                .skipped
                .iter()
                .map(|s| (s.node, Some(s.reason.clone()))),
        );
        nodes.sort_by_key(|(i, _)| *i);
        let nodes = nodes.into_iter().map(|(i, reason)| {
            let n = &float.graph.nodes[i];
            NodeReport {
                name: n.display_name().to_owned(),
                operator: n.op_type.clone(),
                quantized: reason.is_none(),
                reason,
            }
        });
        // Values that are only read as float have a range, but no integers unless the convolution
        // that computes them is an integer operator.
        let written = |v: &&String| {
            placement.is_quantized(v)
                || matches!(mode, Mode::Static { options } if options.format == Format::QOperator)
        };
        let observed = placement.observed(&float.graph);
        let tensors = observed.iter().filter(written).filter_map(|value| {
            let p = ranges.params(value).ok()?;
            let (min, max) = p.clip_bounds();
            Some(TensorReport {
                name: value.clone(),
                dtype: p.dtype().to_string(),
                scale: p.scale(),
                zero_point: p.zero_point(),
                min,
                max,
            })
        });
        Report {
            quaver: env!("CARGO_PKG_VERSION"),
            mode: name,
            format,
            method,
            tensor_methods: BTreeMap::new(),
            activations: scheme.to_string(),
            weights: weights.to_string(),
            float_bytes: float.to_bytes().len(),
            quantized_bytes: quantized.to_bytes().len(),
            nodes: nodes.collect(),
            tensors: tensors.collect(),
            evaluation: None,
        }
    }
}
