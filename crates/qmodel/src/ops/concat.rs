//! `Concat`: tensors joined along an axis.

use super::{Facts, Inputs, Operator, RunContext, Spec, operand_name, resolve_axis, slice_of};
use crate::{Dim, ElementType, ModelError, Tensor, TensorElement, TensorType};

struct Concat {
    axis: i64,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(1..=usize::MAX, 1..=1, &["axis"])?;
    let axis = spec
        .int("axis")?
        .ok_or_else(|| spec.refuse("axis", "it must be given"))?;
    if spec.node.inputs.iter().any(String::is_empty) {
        return Err(ModelError::operand(
            "inputs",
            "a gap",
            "every input must be given",
        ));
    }
    Ok(Box::new(Concat { axis }))
}

/// Dimensions of tensors joined along an axis; `operands` are their numbers as inputs.
pub(crate) fn joined_dims(
    inputs: &Facts<'_>,
    operands: impl Iterator<Item = usize>,
    axis: i64,
) -> Result<Option<Vec<Dim>>, ModelError> {
    let mut out: Option<Vec<Dim>> = None;
    for i in operands {
        let Some(d) = inputs.dims(i)? else {
            return Ok(None);
        };
        let at = resolve_axis(axis, d.len())?;
        let Some(out) = &mut out else {
            out = Some(d.to_vec());
            continue;
        };
        let alike =
            out.len() == d.len()
                && out.iter().zip(d).enumerate().all(|(j, (a, b))| {
                    j == at || a.known().is_none() || b.known().is_none() || a == b
                });
        if !alike {
            return Err(ModelError::operand(
                operand_name(i),
                crate::graph::show_dims(d),
                format!("{} except along axis {at}", crate::graph::show_dims(out)),
            ));
        }
        for (j, (a, b)) in out.iter_mut().zip(d).enumerate() {
            if j == at {
                *a = match (a.known(), b.known()) {
                    (Some(x), Some(y)) => x.checked_add(y).map_or(Dim::Unknown, Dim::Known),
                    _ => Dim::Unknown,
                };
            } else if a.known().is_none() && b.known().is_some() {
                *a = b.clone();
            }
        }
    }
    Ok(out)
}

/// Copies tensors of shape `[outer, n_i, inner]`, given as their runs of `n_i · inner` elements,
/// behind each other.
pub(crate) fn join<T: Copy>(parts: &[(&[T], usize)], outer: usize, out: &mut [T]) {
    let total: usize = parts.iter().map(|p| p.1).sum();
    if total == 0 {
        return;
    }
    for (i, row) in out.chunks_exact_mut(total).take(outer).enumerate() {
        let mut at = 0;
        for &(data, run) in parts {
            row[at..at + run].copy_from_slice(&data[i * run..(i + 1) * run]);
            at += run;
        }
    }
}

impl Operator for Concat {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.get(0)?.ty.element;
        for i in 1..inputs.count() {
            inputs.same_element(i)?;
        }
        let shape = joined_dims(inputs, 0..inputs.count(), self.axis)?;
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        fn go<T: TensorElement>(
            cx: &mut RunContext<'_>,
            inputs: &Inputs<'_>,
            shape: &[usize],
            axis: usize,
        ) -> Result<Tensor, ModelError> {
            let mut out = cx.scratch::<T>(shape)?;
            let outer = shape[..axis].iter().product();
            let parts = (0..inputs.0.len())
                .map(|i| {
                    let t = inputs.get(i)?;
                    Ok((slice_of::<T>(t, i)?, t.shape()[axis..].iter().product()))
                })
                .collect::<Result<Vec<_>, ModelError>>()?;
            join(&parts, outer, &mut out);
            cx.tensor(shape, out)
        }
        let shape = &shapes[0];
        let axis = resolve_axis(self.axis, shape.len())?;
        let out = match inputs.get(0)?.element_type() {
            ElementType::F32 => go::<f32>(cx, inputs, shape, axis),
            ElementType::F64 => go::<f64>(cx, inputs, shape, axis),
            ElementType::F16 => go::<qformat::f16>(cx, inputs, shape, axis),
            ElementType::Bf16 => go::<qformat::bf16>(cx, inputs, shape, axis),
            ElementType::I8 => go::<i8>(cx, inputs, shape, axis),
            ElementType::U8 => go::<u8>(cx, inputs, shape, axis),
            ElementType::I16 => go::<i16>(cx, inputs, shape, axis),
            ElementType::U16 => go::<u16>(cx, inputs, shape, axis),
            ElementType::I32 => go::<i32>(cx, inputs, shape, axis),
            ElementType::I64 => go::<i64>(cx, inputs, shape, axis),
            ElementType::Bool => go::<bool>(cx, inputs, shape, axis),
        };
        Ok(vec![out?])
    }
}
