//! From the typed graph to protobuf messages.

use super::decode;
use super::proto::{self, DimValue, TypeValue, attribute_type as kind};
use crate::node::NamedAttribute;
use crate::{
    Attribute, Dim, Graph, Model, Node, Tensor, TensorData, TensorType, ValueInfo, ValueType,
};

pub(crate) fn model(m: &Model) -> proto::ModelProto {
    proto::ModelProto {
        ir_version: m.ir_version,
        opset_import: m
            .opset_imports
            .iter()
            .map(|o| proto::OperatorSetIdProto {
                domain: o.domain.clone(),
                version: o.version,
            })
            .collect(),
        producer_name: m.producer_name.clone(),
        producer_version: m.producer_version.clone(),
        domain: m.domain.clone(),
        model_version: m.model_version,
        doc_string: m.doc_string.clone(),
        graph: Some(graph(&m.graph)),
        metadata_props: pairs(&m.metadata),
        training_info: m.rest.training_info.clone(),
        functions: m.rest.functions.clone(),
        configuration: m.rest.configuration.clone(),
    }
}

fn pairs(entries: &[(String, String)]) -> Vec<proto::StringStringEntryProto> {
    entries
        .iter()
        .map(|(k, v)| proto::StringStringEntryProto {
            key: k.clone(),
            value: v.clone(),
        })
        .collect()
}

fn graph(g: &Graph) -> proto::GraphProto {
    proto::GraphProto {
        node: g.nodes.iter().map(node).collect(),
        name: g.name.clone(),
        initializer: g
            .initializers
            .iter()
            .map(|(name, init)| proto::TensorProto {
                name: name.clone(),
                doc_string: init.doc_string.clone(),
                metadata_props: pairs(&init.metadata),
                ..tensor(&init.tensor)
            })
            .collect(),
        sparse_initializer: g.rest.sparse_initializer.clone(),
        doc_string: g.doc_string.clone(),
        input: g.inputs.iter().map(value_info).collect(),
        output: g.outputs.iter().map(value_info).collect(),
        value_info: g.value_info.iter().map(value_info).collect(),
        quantization_annotation: g.rest.quantization_annotation.clone(),
        metadata_props: pairs(&g.metadata),
    }
}

fn node(n: &Node) -> proto::NodeProto {
    proto::NodeProto {
        input: n.inputs.clone(),
        output: n.outputs.clone(),
        name: n.name.clone(),
        op_type: n.op_type.clone(),
        domain: n.domain.clone(),
        overload: n.overload.clone(),
        attribute: n.attributes.iter().map(attribute).collect(),
        doc_string: n.doc_string.clone(),
        metadata_props: pairs(&n.metadata),
        device_configurations: n.devices.clone(),
    }
}

fn attribute(a: &NamedAttribute) -> proto::AttributeProto {
    let mut out = match &a.value {
        Attribute::Opaque(o) => (*o.0).clone(),
        _ => proto::AttributeProto::default(),
    };
    out.name.clone_from(&a.name);
    out.doc_string = Some(a.doc_string.clone()).filter(|d| !d.is_empty());
    match &a.value {
        Attribute::Opaque(_) => {}
        Attribute::Float(v) => (out.r#type, out.f) = (kind::FLOAT, Some(*v)),
        Attribute::Int(v) => (out.r#type, out.i) = (kind::INT, Some(*v)),
        Attribute::String(v) => {
            (out.r#type, out.s) = (kind::STRING, Some(v.clone().into_bytes()));
        }
        Attribute::Tensor(v) => (out.r#type, out.t) = (kind::TENSOR, Some(tensor(v))),
        Attribute::Floats(v) => (out.r#type, out.floats) = (kind::FLOATS, v.clone()),
        Attribute::Ints(v) => (out.r#type, out.ints) = (kind::INTS, v.clone()),
        Attribute::Strings(v) => {
            out.r#type = kind::STRINGS;
            out.strings = v.iter().map(|s| s.clone().into_bytes()).collect();
        }
    }
    out
}

fn value_info(v: &ValueInfo) -> proto::ValueInfoProto {
    let r#type = match (&v.ty, &v.original) {
        (ValueType::Opaque(o), _) => o.0.as_deref().cloned(),
        (ValueType::Tensor(t), Some(o)) if decode::tensor_type(o).as_ref() == Some(t) => {
            Some((**o).clone())
        }
        (ValueType::Tensor(t), _) => Some(tensor_type(t)),
    };
    proto::ValueInfoProto {
        name: v.name.clone(),
        r#type,
        doc_string: v.doc_string.clone(),
        metadata_props: pairs(&v.metadata),
    }
}

pub(crate) fn tensor_type(t: &TensorType) -> proto::TypeProto {
    let dimension = |d: &Dim| proto::Dimension {
        value: match d {
            // A dimension of a tensor in memory fits; an absurd one saturates.
            Dim::Known(n) => Some(DimValue::DimValue(i64::try_from(*n).unwrap_or(i64::MAX))),
            Dim::Symbol(s) => Some(DimValue::DimParam(s.clone())),
            Dim::Unknown => None,
        },
        denotation: String::new(),
    };
    proto::TypeProto {
        value: Some(TypeValue::Tensor(proto::TensorTypeProto {
            elem_type: t.element.onnx_code(),
            shape: t.shape.as_ref().map(|s| proto::TensorShapeProto {
                dim: s.iter().map(dimension).collect(),
            }),
        })),
        denotation: String::new(),
    }
}

/// A tensor as a message without a name; elements go into `raw_data`.
pub(crate) fn tensor(t: &Tensor) -> proto::TensorProto {
    fn bytes<const N: usize, T: Copy>(v: &[T], f: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        v.iter().flat_map(|&x| f(x)).collect()
    }
    let raw = match t.data() {
        TensorData::F32(v) => bytes(v, f32::to_le_bytes),
        TensorData::F64(v) => bytes(v, f64::to_le_bytes),
        TensorData::F16(v) => bytes(v, qformat::f16::to_le_bytes),
        TensorData::Bf16(v) => bytes(v, qformat::bf16::to_le_bytes),
        TensorData::I8(v) => bytes(v, i8::to_le_bytes),
        TensorData::U8(v) => v.clone(),
        TensorData::I16(v) => bytes(v, i16::to_le_bytes),
        TensorData::U16(v) => bytes(v, u16::to_le_bytes),
        TensorData::I32(v) => bytes(v, i32::to_le_bytes),
        TensorData::I64(v) => bytes(v, i64::to_le_bytes),
        TensorData::Bool(v) => v.iter().map(|&b| u8::from(b)).collect(),
    };
    proto::TensorProto {
        // Lengths of vectors fit in i64.
        dims: t
            .shape()
            .iter()
            .map(|&d| i64::try_from(d).unwrap_or(i64::MAX))
            .collect(),
        data_type: t.element_type().onnx_code(),
        raw_data: Some(raw),
        ..proto::TensorProto::default()
    }
}
