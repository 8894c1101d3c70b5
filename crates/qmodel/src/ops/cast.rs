//! `Cast`: another element type. Numbers out of range saturate and NaN becomes 0 where the target
//! is an integer (the standard leaves both undefined); anything but zero is true.

use qformat::{bf16, f16};

use super::reshape::move_data;
use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{ElementType, ModelError, Tensor, TensorData, TensorType};

struct Cast {
    to: ElementType,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    // `saturate` and `round_mode` are about 8-bit floats, which this crate does not store.
    spec.check(1..=1, 1..=1, &["to", "saturate", "round_mode"])?;
    let code = spec
        .int("to")?
        .ok_or_else(|| spec.refuse("to", "it must be given"))?;
    let to = i32::try_from(code)
        .ok()
        .and_then(ElementType::from_onnx_code)
        .ok_or_else(|| spec.refuse("to", format!("the number of {}", crate::tensor::ALL_NAMES)))?;
    Ok(Box::new(Cast { to }))
}

/// A value on its way between types: integers exactly, floats as f64 (exact for all of them).
#[derive(Clone, Copy)]
enum Wide {
    Int(i64),
    Float(f64),
}

macro_rules! widen {
    ($data:expr, $f:ident, $to:ty) => {
        match $data {
            TensorData::F32(v) => v.iter().map(|&x| $f(Wide::Float(f64::from(x)))).collect(),
            TensorData::F64(v) => v.iter().map(|&x| $f(Wide::Float(x))).collect(),
            TensorData::F16(v) => v.iter().map(|&x| $f(Wide::Float(f64::from(x)))).collect(),
            TensorData::Bf16(v) => v.iter().map(|&x| $f(Wide::Float(f64::from(x)))).collect(),
            TensorData::I8(v) => v.iter().map(|&x| $f(Wide::Int(i64::from(x)))).collect(),
            TensorData::U8(v) => v.iter().map(|&x| $f(Wide::Int(i64::from(x)))).collect(),
            TensorData::I16(v) => v.iter().map(|&x| $f(Wide::Int(i64::from(x)))).collect(),
            TensorData::U16(v) => v.iter().map(|&x| $f(Wide::Int(i64::from(x)))).collect(),
            TensorData::I32(v) => v.iter().map(|&x| $f(Wide::Int(i64::from(x)))).collect(),
            TensorData::I64(v) => v.iter().map(|&x| $f(Wide::Int(x))).collect(),
            TensorData::Bool(v) => v.iter().map(|&x| $f(Wide::Int(i64::from(x)))).collect(),
        }
    };
}

/// An integer target: saturating from floats (`as` does), wrapping from integers, as in C and in
/// ONNX Runtime.
macro_rules! to_integer {
    ($data:expr, $ty:ty) => {{
        fn narrow(w: Wide) -> $ty {
            match w {
                Wide::Int(v) => v as $ty,
                Wide::Float(v) => v as $ty,
            }
        }
        widen!($data, narrow, $ty)
    }};
}

fn to_f32(w: Wide) -> f32 {
    match w {
        Wide::Int(v) => v as f32,
        Wide::Float(v) => v as f32,
    }
}

fn to_f64(w: Wide) -> f64 {
    match w {
        Wide::Int(v) => v as f64,
        Wide::Float(v) => v,
    }
}

fn to_f16(w: Wide) -> f16 {
    f16::from_f64(to_f64(w))
}

fn to_bf16(w: Wide) -> bf16 {
    bf16::from_f64(to_f64(w))
}

fn to_bool(w: Wide) -> bool {
    match w {
        Wide::Int(v) => v != 0,
        Wide::Float(v) => v != 0.0,
    }
}

impl Operator for Cast {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        Ok(vec![TensorType {
            element: self.to,
            shape: inputs.get(0)?.ty.shape.clone(),
        }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let x = inputs.get(0)?;
        if x.element_type() == self.to {
            return Ok(vec![move_data(cx, inputs, &shapes[0])?]);
        }
        let x = x.data();
        let data = match self.to {
            ElementType::F32 => {
                let mut out = cx.scratch::<f32>(&shapes[0])?;
                if let TensorData::I32(v) = x {
                    for (o, &v) in out.iter_mut().zip(v) {
                        *o = v as f32;
                    }
                    TensorData::F32(out)
                } else {
                    cx.pool.give_vec(out);
                    TensorData::F32(widen!(x, to_f32, f32))
                }
            }
            ElementType::F64 => TensorData::F64(widen!(x, to_f64, f64)),
            ElementType::F16 => TensorData::F16(widen!(x, to_f16, f16)),
            ElementType::Bf16 => TensorData::Bf16(widen!(x, to_bf16, bf16)),
            ElementType::I8 => TensorData::I8(to_integer!(x, i8)),
            ElementType::U8 => TensorData::U8(to_integer!(x, u8)),
            ElementType::I16 => TensorData::I16(to_integer!(x, i16)),
            ElementType::U16 => TensorData::U16(to_integer!(x, u16)),
            ElementType::I32 => TensorData::I32(to_integer!(x, i32)),
            ElementType::I64 => TensorData::I64(to_integer!(x, i64)),
            ElementType::Bool => TensorData::Bool(widen!(x, to_bool, bool)),
        };
        Ok(vec![Tensor::named("", &shapes[0], data)?])
    }
}
