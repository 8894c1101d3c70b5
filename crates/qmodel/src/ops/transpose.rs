//! `Transpose`: the axes in another order.

use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{ModelError, Tensor, TensorData, TensorElement, TensorType};

struct Transpose {
    perm: Option<Vec<usize>>,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(1..=1, 1..=1, &["perm"])?;
    let perm = spec
        .ints("perm")?
        .map(|p| {
            let perm: Option<Vec<usize>> = p.iter().map(|&i| usize::try_from(i).ok()).collect();
            perm.filter(|perm| is_permutation(perm))
                .ok_or_else(|| spec.refuse("perm", "each axis once"))
        })
        .transpose()?;
    Ok(Box::new(Transpose { perm }))
}

fn is_permutation(perm: &[usize]) -> bool {
    let mut seen = vec![false; perm.len()];
    perm.iter()
        .all(|&i| seen.get_mut(i).is_some_and(|s| !std::mem::replace(s, true)))
}

impl Transpose {
    fn order(&self, rank: usize) -> Result<Vec<usize>, ModelError> {
        match &self.perm {
            Some(p) if p.len() == rank => Ok(p.clone()),
            Some(p) => Err(ModelError::operand(
                "perm",
                format!("{p:?}"),
                format!("{rank} axes"),
            )),
            None => Ok((0..rank).rev().collect()),
        }
    }
}

/// Copies `x` with its axes in another order.
pub(crate) fn permute<T: Copy>(x: &[T], shape: &[usize], order: &[usize], out: &mut [T]) {
    let mut steps = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        steps[i - 1] = steps[i] * shape[i];
    }
    // Sizes and input steps in output order; axes that stay neighbours are merged.
    let mut dims: Vec<(usize, usize)> = Vec::new();
    for &o in order.iter().filter(|&&o| shape[o] != 1) {
        match dims.last_mut() {
            Some((n, step)) if *step == steps[o] * shape[o] => {
                (*n, *step) = (*n * shape[o], steps[o]);
            }
            _ => dims.push((shape[o], steps[o])),
        }
    }
    let (n, step) = dims.pop().unwrap_or((1, 1));
    if n == 0 || out.is_empty() {
        return;
    }
    let mut at = vec![0usize; dims.len()];
    let mut from = 0usize;
    for run in out.chunks_exact_mut(n) {
        if step == 1 {
            run.copy_from_slice(&x[from..from + n]);
        } else {
            for (o, &v) in run.iter_mut().zip(x[from..].iter().step_by(step)) {
                *o = v;
            }
        }
        for (d, &(size, step)) in dims.iter().enumerate().rev() {
            at[d] += 1;
            from += step;
            if at[d] < size {
                break;
            }
            from -= size * step;
            at[d] = 0;
        }
    }
}

impl Operator for Transpose {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.get(0)?.ty.element;
        let shape = match inputs.dims(0)? {
            Some(d) => Some(self.order(d.len())?.iter().map(|&i| d[i].clone()).collect()),
            None => None,
        };
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
            (x, from): (&[T], &[usize]),
            order: &[usize],
            shape: &[usize],
        ) -> Result<Tensor, ModelError> {
            let mut out = cx.scratch::<T>(shape)?;
            permute(x, from, order, &mut out);
            cx.tensor(shape, out)
        }
        let x = inputs.get(0)?;
        let order = self.order(x.rank())?;
        let (from, to) = (x.shape(), &shapes[0][..]);
        let out = match x.data() {
            TensorData::F32(v) => go(cx, (v, from), &order, to),
            TensorData::F64(v) => go(cx, (v, from), &order, to),
            TensorData::F16(v) => go(cx, (v, from), &order, to),
            TensorData::Bf16(v) => go(cx, (v, from), &order, to),
            TensorData::I8(v) => go(cx, (v, from), &order, to),
            TensorData::U8(v) => go(cx, (v, from), &order, to),
            TensorData::I16(v) => go(cx, (v, from), &order, to),
            TensorData::U16(v) => go(cx, (v, from), &order, to),
            TensorData::I32(v) => go(cx, (v, from), &order, to),
            TensorData::I64(v) => go(cx, (v, from), &order, to),
            TensorData::Bool(v) => go(cx, (v, from), &order, to),
        };
        Ok(vec![out?])
    }
}
