//! The choices that a user makes, and their names.

use std::fmt;
use std::str::FromStr;

use qformat::{DType, Scheme};
use serde::Serialize;

use crate::{Method, QuantizeError};

/// Which elements of a weight share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightGranularity {
    /// One scale.
    PerTensor,
    /// One scale for every output channel: axis 0 of `Conv`, the output axis of `Gemm` and
    /// `MatMul`.
    #[default]
    PerChannel,
}

/// Which ONNX operators a quantized model is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Float operators between `QuantizeLinear` and `DequantizeLinear`: runs everywhere, and fast
    /// where the runtime fuses it.
    #[default]
    Qdq,
    /// `QLinearConv`, `QLinearMatMul`, `MatMulInteger`: integers in the file already.
    QOperator,
}

macro_rules! named {
    ($ty:ty, $what:literal, $($name:literal $(| $alias:literal)* => $value:expr),*) => {
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(if *self == $value { return f.pad($name); })*
                Ok(())
            }
        }

        impl FromStr for $ty {
            type Err = QuantizeError;

            fn from_str(s: &str) -> Result<Self, QuantizeError> {
                match s {
                    $($name $(| $alias)* => Ok($value),)*
                    _ => Err(QuantizeError::Name {
                        what: $what,
                        given: s.to_owned(),
                        allowed: concat!($($name, " "),*).trim_ascii_end(),
                    }),
                }
            }
        }
    };
}

named!(WeightGranularity, "weight granularity",
    "per-tensor" => WeightGranularity::PerTensor,
    "per-channel" => WeightGranularity::PerChannel);
named!(Format, "format",
    "qdq" | "QDQ" => Format::Qdq,
    "qoperator" | "QOperator" => Format::QOperator);

/// How ranges become a quantized model: what [`Calibrated::convert`](crate::Calibrated::convert)
/// needs to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvertOptions {
    /// How the range of an activation is chosen.
    pub method: Method,
    /// Scheme of activations: affine is stored as u8, symmetric as i8 with zero point 0.
    pub activations: Scheme,
    /// Granularity of weights, which are always symmetric i8.
    pub weights: WeightGranularity,
    /// The operators to write.
    pub format: Format,
}

impl Default for ConvertOptions {
    /// Min-max, affine activations, weights per channel, QDQ.
    fn default() -> Self {
        ConvertOptions {
            method: Method::MinMax,
            activations: Scheme::Affine,
            weights: WeightGranularity::default(),
            format: Format::default(),
        }
    }
}

impl ConvertOptions {
    /// The element type of activations.
    #[must_use]
    pub fn activation_dtype(&self) -> DType {
        match self.activations {
            Scheme::Affine => DType::U8,
            Scheme::Symmetric => DType::I8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for g in [WeightGranularity::PerTensor, WeightGranularity::PerChannel] {
            assert_eq!(g.to_string().parse::<WeightGranularity>().unwrap(), g);
        }
        for f in [Format::Qdq, Format::QOperator] {
            assert_eq!(f.to_string().parse::<Format>().unwrap(), f);
        }
        let e = "qdp".parse::<Format>().unwrap_err().to_string();
        assert!(e.contains("qdp") && e.contains("qoperator"), "{e}");
    }
}
