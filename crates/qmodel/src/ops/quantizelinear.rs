//! `QuantizeLinear`: `saturate(rne(x / scale) + zero_point)`, for a tensor or along an axis.

use qformat::{QParams, QuantElement, Scheme};

use super::{Facts, Inputs, Operator, RunContext, Spec, for_element, resolve_axis};
use crate::integer::{scales, zero_points};
use crate::{Dim, ElementType, ModelError, Tensor, TensorElement, TensorType};

/// What `QuantizeLinear` and `DequantizeLinear` read from their attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Linear {
    pub(crate) axis: i64,
    /// The quantized type where no zero point tells.
    pub(crate) default: ElementType,
}

impl Linear {
    pub(crate) fn read(spec: &Spec<'_>, quantize: bool) -> Result<Linear, ModelError> {
        let attributes = [
            "axis",
            "saturate",
            "block_size",
            "output_dtype",
            "precision",
        ];
        let known = match (spec.version, quantize) {
            (..13, _) => &attributes[..0],
            (13..19, _) => &attributes[..1],
            (19..21, _) => &attributes[..2],
            (21..23, _) => &attributes[..4],
            _ => &attributes[..],
        };
        spec.check(2..=3, 1..=1, known)?;
        if spec.int_or("block_size", 0)? != 0 {
            return Err(spec.refuse("block_size", "0: blocks are not supported"));
        }
        if !matches!(spec.int_or("precision", 0)?, 0 | 1) {
            return Err(spec.refuse("precision", "0 or 1 (f32)"));
        }
        let default = if quantize {
            ElementType::U8
        } else {
            ElementType::F32
        };
        let code = spec.int_or("output_dtype", 0)?;
        let default = match i32::try_from(code)
            .ok()
            .and_then(ElementType::from_onnx_code)
        {
            _ if code == 0 => default,
            Some(t) if quantize && is_quantized(t) => t,
            Some(ElementType::F32) if !quantize => ElementType::F32,
            _ => {
                let allowed = if quantize {
                    "0, or u8, i8, u16 or i16"
                } else {
                    "0 or f32"
                };
                return Err(spec.refuse("output_dtype", allowed));
            }
        };
        Ok(Linear {
            axis: spec.int_or("axis", 1)?,
            default,
        })
    }

    /// Demands that scale and zero point are single, or one for each index along the axis.
    pub(crate) fn check(&self, inputs: &Facts<'_>) -> Result<(), ModelError> {
        let single = |dims: &[Dim]| super::known_count(dims) == Some(1) && dims.len() <= 1;
        let Some(scale) = inputs.dims(1)? else {
            return Ok(());
        };
        let many = match (scale, inputs.dims(0)?) {
            (d, _) if single(d) => Dim::Known(1),
            ([n], Some(x)) => {
                let axis = resolve_axis(self.axis, x.len())?;
                inputs.length(1, &x[axis])?;
                n.clone()
            }
            ([n], None) => n.clone(),
            (d, _) => {
                return Err(ModelError::operand(
                    "input 1 (scale)",
                    crate::graph::show_dims(d),
                    "a scalar, or a vector along the axis",
                ));
            }
        };
        inputs.length(2, &many)
    }
}

fn is_quantized(t: ElementType) -> bool {
    matches!(
        t,
        ElementType::U8 | ElementType::I8 | ElementType::U16 | ElementType::I16
    )
}

/// The parameters of every group of elements, and the length of the runs that share one; groups
/// follow each other in turn.
pub(crate) fn groups(
    shape: &[usize],
    axis: i64,
    scale: &Tensor,
    zero: Option<&Tensor>,
    element: ElementType,
) -> Result<(Vec<QParams>, usize), ModelError> {
    let dtype = element
        .dtype()
        .ok_or_else(|| ModelError::operand_type("input 2", element, "u8, i8, u16, i16 or i32"))?;
    let scales = scales(scale, "input 1 (scale)")?;
    let zeros = match zero {
        Some(t) => zero_points(t, "input 2 (zero point)")?,
        None => vec![0; scales.len()],
    };
    let params = scales
        .iter()
        .zip(&zeros)
        .map(|(&s, &z)| QParams::new(s, z, dtype, Scheme::Affine))
        .collect::<Result<Vec<_>, _>>()?;
    let run = if params.len() == 1 {
        shape.iter().product()
    } else {
        let axis = resolve_axis(axis, shape.len())?;
        shape[axis + 1..].iter().product()
    };
    Ok((params, run))
}

struct QuantizeLinear(Linear);

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Ok(Box::new(QuantizeLinear(Linear::read(spec, true)?)))
}

impl Operator for QuantizeLinear {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        inputs.element(0, &[ElementType::F32])?;
        inputs.element(1, &[ElementType::F32])?;
        self.0.check(inputs)?;
        let element = match inputs.optional(2) {
            Some(z) if !is_quantized(z.ty.element) => {
                return Err(ModelError::operand_type(
                    "input 2",
                    z.ty.element,
                    "u8, i8, u16 or i16",
                ));
            }
            Some(z) => z.ty.element,
            None => self.0.default,
        };
        Ok(vec![TensorType {
            element,
            shape: inputs.get(0)?.ty.shape.clone(),
        }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        fn go<T: TensorElement + QuantElement>(
            cx: &mut RunContext<'_>,
            x: &[f32],
            shape: &[usize],
            (params, run): (Vec<QParams>, usize),
        ) -> Result<Tensor, ModelError> {
            let mut out = cx.scratch::<T>(shape)?;
            let runs = x.chunks(run.max(1)).zip(out.chunks_mut(run.max(1)));
            for ((x, out), p) in runs.zip(params.iter().cycle()) {
                qkernels::quantize(cx.isa, x, p, out)?;
            }
            cx.tensor(shape, out)
        }
        let zero = inputs.optional(2);
        let element = zero.map_or(self.0.default, Tensor::element_type);
        let shape = &shapes[0];
        let groups = groups(shape, self.0.axis, inputs.get(1)?, zero, element)?;
        let x = inputs.slice::<f32>(0)?;
        let out = for_element!(
            element,
            [U8 u8, I8 i8, U16 u16, I16 i16],
            go::<T>(cx, x, shape, groups)
        );
        Ok(vec![out?])
    }
}
