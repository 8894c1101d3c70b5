//! From protobuf messages to the typed graph.
//!
//! Messages are taken apart by value, so that weights are converted tensor by tensor and the raw
//! bytes of each are dropped before the next. No size in a message is believed before it is
//! compared with the bytes that are there.

use std::sync::Arc;

use qformat::{bf16, f16};

use super::encode;
use super::proto::{self, DimValue, TypeValue, attribute_type as kind};
use crate::graph::{GraphRest, Initializer};
use crate::model::ModelRest;
use crate::node::{NamedAttribute, OpaqueAttribute};
use crate::tensor::{ALL_NAMES, element_count};
use crate::value::OpaqueType;
use crate::{
    Attribute, Dim, ElementType, Graph, Model, ModelError, Node, OpsetImport, Tensor, TensorData,
    TensorType, ValueInfo, ValueType,
};

pub(crate) fn model(m: proto::ModelProto) -> Result<Model, ModelError> {
    Ok(Model {
        ir_version: m.ir_version,
        opset_imports: m
            .opset_import
            .into_iter()
            .map(|o| OpsetImport {
                domain: o.domain,
                version: o.version,
            })
            .collect(),
        producer_name: m.producer_name,
        producer_version: m.producer_version,
        domain: m.domain,
        model_version: m.model_version,
        doc_string: m.doc_string,
        graph: graph(m.graph.ok_or(ModelError::Missing { what: "graph" })?)?,
        metadata: pairs(m.metadata_props),
        rest: ModelRest {
            training_info: m.training_info,
            functions: m.functions,
            configuration: m.configuration,
        },
    })
}

fn pairs(entries: Vec<proto::StringStringEntryProto>) -> Vec<(String, String)> {
    entries.into_iter().map(|e| (e.key, e.value)).collect()
}

fn graph(g: proto::GraphProto) -> Result<Graph, ModelError> {
    let mut out = Graph {
        name: g.name,
        doc_string: g.doc_string,
        nodes: g.node.into_iter().map(node).collect::<Result<_, _>>()?,
        inputs: g.input.into_iter().map(value_info).collect(),
        outputs: g.output.into_iter().map(value_info).collect(),
        value_info: g.value_info.into_iter().map(value_info).collect(),
        metadata: pairs(g.metadata_props),
        rest: GraphRest {
            sparse_initializer: g.sparse_initializer,
            quantization_annotation: g.quantization_annotation,
        },
        ..Graph::default()
    };
    for mut t in g.initializer {
        let name = std::mem::take(&mut t.name);
        let doc_string = std::mem::take(&mut t.doc_string);
        let metadata = pairs(std::mem::take(&mut t.metadata_props));
        let tensor = Arc::new(tensor(t, &name)?);
        let init = Initializer {
            tensor,
            doc_string,
            metadata,
        };
        if out.initializers.contains_key(&name) {
            return Err(ModelError::DuplicateValue { value: name });
        }
        out.initializers.insert(name, init);
    }
    Ok(out)
}

fn node(n: proto::NodeProto) -> Result<Node, ModelError> {
    let mut out = Node {
        name: n.name,
        op_type: n.op_type,
        domain: n.domain,
        inputs: n.input,
        outputs: n.output,
        attributes: Vec::with_capacity(n.attribute.len()),
        doc_string: n.doc_string,
        metadata: pairs(n.metadata_props),
        overload: n.overload,
        devices: n.device_configurations,
    };
    for a in n.attribute {
        let a = attribute(a, &out)?;
        if out.attribute(&a.name).is_some() {
            return Err(ModelError::Attribute {
                node: out.label(),
                attribute: a.name,
                given: a.value.describe(),
                allowed: "it is given twice".to_owned(),
            });
        }
        out.attributes.push(a);
    }
    Ok(out)
}

fn attribute(mut a: proto::AttributeProto, node: &Node) -> Result<NamedAttribute, ModelError> {
    let is_reference = a.ref_attr_name.as_ref().is_some_and(|r| !r.is_empty());
    let ty = match a.r#type {
        // Files of before IR version 2 may leave the kind out.
        kind::UNDEFINED if a.f.is_some() => kind::FLOAT,
        kind::UNDEFINED if a.i.is_some() => kind::INT,
        kind::UNDEFINED if a.s.is_some() => kind::STRING,
        kind::UNDEFINED if a.t.is_some() => kind::TENSOR,
        kind::UNDEFINED if !a.floats.is_empty() => kind::FLOATS,
        kind::UNDEFINED if !a.ints.is_empty() => kind::INTS,
        kind::UNDEFINED if !a.strings.is_empty() => kind::STRINGS,
        given => given,
    };
    let text = |s: &[u8]| std::str::from_utf8(s).ok().map(str::to_owned);
    let value = match ty {
        _ if is_reference => None,
        kind::FLOAT => Some(Attribute::Float(a.f.unwrap_or(0.0))),
        kind::INT => Some(Attribute::Int(a.i.unwrap_or(0))),
        kind::STRING => text(a.s.as_deref().unwrap_or_default()).map(Attribute::String),
        kind::TENSOR => match a.t.take() {
            Some(t) => {
                let name = format!("{}.{}", node.label(), a.name);
                // A name of the tensor itself would be lost; it has no meaning.
                Some(Attribute::Tensor(Arc::new(tensor(t, &name)?)))
            }
            None => None,
        },
        kind::FLOATS => Some(Attribute::Floats(std::mem::take(&mut a.floats))),
        kind::INTS => Some(Attribute::Ints(std::mem::take(&mut a.ints))),
        kind::STRINGS => a
            .strings
            .iter()
            .map(|s| text(s))
            .collect::<Option<Vec<_>>>()
            .map(Attribute::Strings),
        _ => None,
    };
    Ok(match value {
        Some(value) => NamedAttribute {
            name: a.name,
            value,
            doc_string: a.doc_string.unwrap_or_default(),
        },
        None => NamedAttribute {
            name: std::mem::take(&mut a.name),
            doc_string: a.doc_string.take().unwrap_or_default(),
            value: Attribute::Opaque(OpaqueAttribute(Box::new(a))),
        },
    })
}

fn value_info(v: proto::ValueInfoProto) -> ValueInfo {
    let file = v.r#type.map(Box::new);
    let (ty, original) = match file.as_deref().and_then(tensor_type) {
        Some(t) => {
            let same = file.as_deref() == Some(&encode::tensor_type(&t));
            (ValueType::Tensor(t), file.filter(|_| !same))
        }
        None => (ValueType::Opaque(OpaqueType(file)), None),
    };
    ValueInfo {
        name: v.name,
        ty,
        doc_string: v.doc_string,
        metadata: pairs(v.metadata_props),
        original,
    }
}

/// The type as a tensor of a known element type; `None` for everything else.
pub(crate) fn tensor_type(t: &proto::TypeProto) -> Option<TensorType> {
    let Some(TypeValue::Tensor(t)) = &t.value else {
        return None;
    };
    let element = ElementType::from_onnx_code(t.elem_type)?;
    let shape = t
        .shape
        .as_ref()
        .map(|s| s.dim.iter().map(dimension).collect());
    Some(TensorType { element, shape })
}

fn dimension(d: &proto::Dimension) -> Dim {
    match &d.value {
        // Some exporters write -1 or 0 for "unknown"; 0 is a legal size and stays one.
        Some(DimValue::DimValue(n)) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Known),
        Some(DimValue::DimParam(s)) if !s.is_empty() => Dim::Symbol(s.clone()),
        Some(DimValue::DimParam(_)) | None => Dim::Unknown,
    }
}

/// A tensor message as a tensor; `name` is what errors call it.
pub(crate) fn tensor(t: proto::TensorProto, name: &str) -> Result<Tensor, ModelError> {
    if t.data_location == Some(1) || !t.external_data.is_empty() {
        return Err(ModelError::ExternalData {
            tensor: name.to_owned(),
        });
    }
    let element =
        ElementType::from_onnx_code(t.data_type).ok_or_else(|| ModelError::ElementType {
            what: "tensor",
            name: name.to_owned(),
            given: code_name(t.data_type),
            allowed: ALL_NAMES,
        })?;
    let shape = t
        .dims
        .iter()
        .map(|&d| usize::try_from(d).ok())
        .collect::<Option<Vec<usize>>>()
        .ok_or_else(|| ModelError::Dims {
            tensor: name.to_owned(),
            dims: t.dims.clone(),
        })?;
    let count = element_count(&shape).ok_or_else(|| ModelError::Dims {
        tensor: name.to_owned(),
        dims: t.dims.clone(),
    })?;
    let data = match t.raw_data {
        // An empty raw_data beside typed data is an absent one.
        Some(raw) if !(raw.is_empty() && count > 0) => {
            if Some(raw.len()) != count.checked_mul(element.bytes()) {
                return Err(ModelError::DataLength {
                    tensor: name.to_owned(),
                    shape,
                    given: raw.len(),
                    expected: count.saturating_mul(element.bytes()),
                    unit: "bytes",
                });
            }
            raw_data(element, raw)
        }
        _ => typed_data(
            element,
            t.float_data,
            &t.int32_data,
            t.int64_data,
            t.double_data,
        ),
    };
    Tensor::named(name, &shape, data)
}

/// Little-endian bytes as elements; the length is a multiple of the element's.
fn raw_data(element: ElementType, raw: Vec<u8>) -> TensorData {
    fn each<const N: usize, T>(raw: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
        raw.as_chunks::<N>().0.iter().map(|&c| f(c)).collect()
    }
    match element {
        ElementType::F32 => TensorData::F32(each(&raw, f32::from_le_bytes)),
        ElementType::F64 => TensorData::F64(each(&raw, f64::from_le_bytes)),
        ElementType::F16 => TensorData::F16(each(&raw, f16::from_le_bytes)),
        ElementType::Bf16 => TensorData::Bf16(each(&raw, bf16::from_le_bytes)),
        ElementType::I8 => TensorData::I8(each(&raw, i8::from_le_bytes)),
        ElementType::U8 => TensorData::U8(raw),
        ElementType::I16 => TensorData::I16(each(&raw, i16::from_le_bytes)),
        ElementType::U16 => TensorData::U16(each(&raw, u16::from_le_bytes)),
        ElementType::I32 => TensorData::I32(each(&raw, i32::from_le_bytes)),
        ElementType::I64 => TensorData::I64(each(&raw, i64::from_le_bytes)),
        ElementType::Bool => TensorData::Bool(raw.iter().map(|&b| b != 0).collect()),
    }
}

/// Elements from the typed fields, which the standard assigns to element types as here. Small
/// integers, booleans and the bits of 16-bit floats travel in `int32_data`, where only the low
/// bits count.
fn typed_data(
    element: ElementType,
    float_data: Vec<f32>,
    int32_data: &[i32],
    int64_data: Vec<i64>,
    double_data: Vec<f64>,
) -> TensorData {
    fn each<T>(data: &[i32], f: impl Fn(i32) -> T) -> Vec<T> {
        data.iter().map(|&v| f(v)).collect()
    }
    match element {
        ElementType::F32 => TensorData::F32(float_data),
        ElementType::F64 => TensorData::F64(double_data),
        ElementType::I64 => TensorData::I64(int64_data),
        ElementType::F16 => TensorData::F16(each(int32_data, |v| f16::from_bits(v as u16))),
        ElementType::Bf16 => TensorData::Bf16(each(int32_data, |v| bf16::from_bits(v as u16))),
        ElementType::I8 => TensorData::I8(each(int32_data, |v| v as i8)),
        ElementType::U8 => TensorData::U8(each(int32_data, |v| v as u8)),
        ElementType::I16 => TensorData::I16(each(int32_data, |v| v as i16)),
        ElementType::U16 => TensorData::U16(each(int32_data, |v| v as u16)),
        ElementType::I32 => TensorData::I32(int32_data.to_vec()),
        ElementType::Bool => TensorData::Bool(each(int32_data, |v| v != 0)),
    }
}

/// ONNX's name of an element type that is not one of ours.
pub(crate) fn code_name(code: i32) -> String {
    match code {
        0 => "UNDEFINED",
        8 => "STRING",
        12 => "UINT32",
        13 => "UINT64",
        14 => "COMPLEX64",
        15 => "COMPLEX128",
        17 => "FLOAT8E4M3FN",
        18 => "FLOAT8E4M3FNUZ",
        19 => "FLOAT8E5M2",
        20 => "FLOAT8E5M2FNUZ",
        21 => "UINT4",
        22 => "INT4",
        23 => "FLOAT4E2M1",
        24 => "FLOAT8E8M0",
        _ => return format!("number {code}"),
    }
    .to_owned()
}
