//! The table of operators: one line each.

use super::{Operator, Spec};
use crate::node::canonical_domain;
use crate::{Model, ModelError, Node};

type Build = fn(&Spec<'_>) -> Result<Box<dyn Operator>, ModelError>;

struct Entry {
    domain: &'static str,
    name: &'static str,
    /// First version of the domain's operator set in which the operator is as it is here.
    since: i64,
    build: Build,
}

/// Later versions of the standard operators here added element types (which the operators check)
/// and nothing else, up to this one.
const NEWEST_STANDARD: i64 = 26;

const MICROSOFT: &str = "com.microsoft";

const fn standard(name: &'static str, since: i64, build: Build) -> Entry {
    Entry {
        domain: "",
        name,
        since,
        build,
    }
}

const fn microsoft(name: &'static str, build: Build) -> Entry {
    Entry {
        domain: MICROSOFT,
        name,
        since: 1,
        build,
    }
}

#[rustfmt::skip]
const REGISTRY: &[Entry] = &[
    standard("Add", 7, super::add::build),
    standard("AveragePool", 7, super::averagepool::build),
    standard("BatchNormalization", 7, super::batchnormalization::build),
    standard("Cast", 6, super::cast::build),
    standard("Clip", 6, super::clip::build),
    standard("Concat", 4, super::concat::build),
    standard("Constant", 1, super::constant::build),
    standard("Conv", 1, super::conv::build),
    standard("ConvInteger", 10, super::convinteger::build),
    standard("DequantizeLinear", 10, super::dequantizelinear::build),
    standard("Div", 7, super::div::build),
    standard("DynamicQuantizeLinear", 11, super::dynamicquantizelinear::build),
    standard("Flatten", 1, super::flatten::build),
    standard("Gemm", 7, super::gemm::build),
    standard("GlobalAveragePool", 1, super::globalaveragepool::build),
    standard("Identity", 1, super::identity::build),
    standard("MatMul", 1, super::matmul::build),
    standard("MatMulInteger", 10, super::matmulinteger::build),
    standard("MaxPool", 1, super::maxpool::build),
    standard("Mul", 7, super::mul::build),
    standard("QLinearConv", 10, super::qlinearconv::build),
    standard("QLinearMatMul", 10, super::qlinearmatmul::build),
    standard("QuantizeLinear", 10, super::quantizelinear::build),
    standard("Relu", 6, super::relu::build),
    standard("Reshape", 5, super::reshape::build),
    standard("Sigmoid", 6, super::sigmoid::build),
    standard("Softmax", 1, super::softmax::build),
    standard("Squeeze", 1, super::squeeze::build),
    standard("Sub", 7, super::sub::build),
    standard("Transpose", 1, super::transpose::build),
    standard("Unsqueeze", 1, super::unsqueeze::build),
    microsoft("QGemm", super::microsoft::qgemm::build),
    microsoft("QLinearAdd", super::microsoft::qlinearadd::build),
    microsoft("QLinearAveragePool", super::microsoft::qlinearaveragepool::build),
    microsoft("QLinearConcat", super::microsoft::qlinearconcat::build),
    microsoft("QLinearGlobalAveragePool", super::microsoft::qlinearglobalaveragepool::build),
    microsoft("QLinearMul", super::microsoft::qlinearmul::build),
    microsoft("QLinearSigmoid", super::microsoft::qlinearsigmoid::build),
];

/// The operators that can run, as domain, name and first version; the standard domain is `""`.
///
/// ```
/// assert!(qmodel::operators().any(|(domain, name, _)| domain.is_empty() && name == "Conv"));
/// ```
pub fn operators() -> impl Iterator<Item = (&'static str, &'static str, i64)> {
    REGISTRY.iter().map(|e| (e.domain, e.name, e.since))
}

/// Builds the operator of a node.
pub(crate) fn build(node: &Node, model: &Model) -> Result<Box<dyn Operator>, ModelError> {
    let spec = spec(node, model)?;
    let domain = canonical_domain(&node.domain);
    let entry = REGISTRY
        .iter()
        .find(|e| e.domain == domain && e.name == node.op_type);
    let unknown = |hint: String| ModelError::UnknownOperator {
        node: node.label(),
        op: node.op_type.clone(),
        domain: if domain.is_empty() {
            "ai.onnx".to_owned()
        } else {
            domain.to_owned()
        },
        version: spec.version,
        hint,
    };
    let Some(entry) = entry else {
        return Err(unknown(String::new()));
    };
    let newest = if domain.is_empty() {
        NEWEST_STANDARD
    } else {
        1
    };
    if !(entry.since..=newest).contains(&spec.version) {
        return Err(unknown(format!(
            ": versions {} to {newest} are",
            entry.since
        )));
    }
    (entry.build)(&spec).map_err(|e| e.at(&node.label()))
}

/// The node with the version of its domain that the model imports.
pub(crate) fn spec<'a>(node: &'a Node, model: &Model) -> Result<Spec<'a>, ModelError> {
    let domain = canonical_domain(&node.domain);
    // Writers of ONNX Runtime operators leave the domain out of the imports now and then.
    let version = match model.opset(domain) {
        Some(v) => v,
        None if domain == MICROSOFT => 1,
        None => {
            return Err(ModelError::MissingOpset {
                node: node.label(),
                domain: if domain.is_empty() {
                    "ai.onnx".into()
                } else {
                    domain.into()
                },
            });
        }
    };
    Ok(Spec { node, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_unique_and_sorted() {
        let keys: Vec<_> = REGISTRY.iter().map(|e| (e.domain, e.name)).collect();
        assert!(keys.is_sorted());
        assert!(keys.windows(2).all(|w| w[0] != w[1]));
    }
}
