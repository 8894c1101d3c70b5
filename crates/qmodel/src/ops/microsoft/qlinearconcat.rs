//! `QLinearConcat`: quantized tensors joined along an axis, each brought to the result's
//! parameters by a table of all 256 values.

use super::bytes::{BYTES, Byte, check_params, read_params, table};
use crate::ops::concat::{join, joined_dims};
use crate::ops::{Facts, Inputs, Operator, RunContext, Spec, for_element, resolve_axis, slice_of};
use crate::{ModelError, Tensor, TensorType};

struct QLinearConcat {
    axis: i64,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(5..=usize::MAX, 1..=1, &["axis"])?;
    let axis = spec
        .int("axis")?
        .ok_or_else(|| spec.refuse("axis", "it must be given"))?;
    let n = spec.node.inputs.len();
    if n % 3 != 2 {
        return Err(ModelError::Arity {
            node: String::new(),
            what: "inputs",
            given: n,
            allowed: "2, and 3 for each tensor".to_owned(),
        });
    }
    Ok(Box::new(QLinearConcat { axis }))
}

/// Numbers of the tensor operands; scale and zero point of each follow it.
fn tensors(count: usize) -> impl Iterator<Item = usize> + Clone {
    (2..count).step_by(3)
}

impl Operator for QLinearConcat {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.element(2, &BYTES)?;
        check_params(inputs, 0, element)?;
        for i in tensors(inputs.count()) {
            inputs.element(i, &[element])?;
            check_params(inputs, i + 1, element)?;
        }
        let shape = joined_dims(inputs, tensors(inputs.count()), self.axis)?;
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        fn go<T: Byte>(
            cx: &mut RunContext<'_>,
            inputs: &Inputs<'_>,
            shape: &[usize],
            axis: usize,
        ) -> Result<Tensor, ModelError> {
            let to = read_params(inputs, 0, T::TYPE)?;
            let outer = shape[..axis].iter().product();
            let mut mapped = Vec::new();
            for i in tensors(inputs.0.len()) {
                let t = inputs.get(i)?;
                let from = read_params(inputs, i + 1, T::TYPE)?;
                let map = table::<T>(&from, &to, |x| x);
                let values: Vec<T> = slice_of::<T>(t, i)?.iter().map(|q| map[q.bits()]).collect();
                mapped.push((values, t.shape()[axis..].iter().product::<usize>()));
            }
            let parts: Vec<(&[T], usize)> = mapped.iter().map(|(v, n)| (&v[..], *n)).collect();
            let mut out = cx.scratch::<T>(shape)?;
            join(&parts, outer, &mut out);
            cx.tensor(shape, out)
        }
        let axis = resolve_axis(self.axis, shapes[0].len())?;
        let element = inputs.get(2)?.element_type();
        let out = for_element!(element, [U8 u8, I8 i8], go::<T>(cx, inputs, &shapes[0], axis));
        Ok(vec![out?])
    }
}
