//! `Softmax`: `exp(x − max) / Σ exp(x − max)` along an axis.
//!
//! Before version 13 the input is taken as a matrix, split before `axis` (default 1), and each
//! row is one distribution; from 13 on the distribution is along `axis` (default −1) alone.

use super::{Facts, Inputs, Operator, RunContext, Spec, resolve_axis};
use crate::{ElementType, ModelError, Tensor, TensorType};

struct Softmax {
    axis: i64,
    /// Everything from the axis on is one distribution.
    coerced: bool,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(1..=1, 1..=1, &["axis"])?;
    let coerced = spec.version < 13;
    let axis = spec.int_or("axis", if coerced { 1 } else { -1 })?;
    Ok(Box::new(Softmax { axis, coerced }))
}

impl Softmax {
    /// The axis; the matrix form allows also the one behind the last.
    fn resolve(&self, rank: usize) -> Result<usize, ModelError> {
        if (self.coerced && i64::try_from(rank) == Ok(self.axis)) || rank == 0 {
            return Ok(rank);
        }
        resolve_axis(self.axis, rank)
    }
}

impl Operator for Softmax {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        inputs.element(0, &[ElementType::F32])?;
        if let Some(d) = inputs.dims(0)? {
            self.resolve(d.len())?;
        }
        Ok(vec![inputs.get(0)?.ty.clone()])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let shape = &shapes[0];
        let axis = self.resolve(shape.len())?;
        let (n, inner) = if self.coerced || axis == shape.len() {
            (shape[axis..].iter().product::<usize>(), 1)
        } else {
            (shape[axis], shape[axis + 1..].iter().product::<usize>())
        };
        let mut v = inputs.take_or_copy::<f32>(0, cx.pool)?;
        if !v.is_empty() {
            for block in v.chunks_exact_mut(n * inner) {
                if inner == 1 {
                    softmax(block);
                } else {
                    softmax_strided(block, inner);
                }
            }
        }
        Ok(vec![cx.tensor(shape, v)?])
    }
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in &mut *row {
        *x = (*x - max).exp();
        sum += *x;
    }
    for x in row {
        *x /= sum;
    }
}

/// `inner` distributions side by side: element `i` of each is at `i · inner`.
fn softmax_strided(block: &mut [f32], inner: usize) {
    for j in 0..inner {
        let max = block[j..]
            .iter()
            .step_by(inner)
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for x in block[j..].iter_mut().step_by(inner) {
            *x = (*x - max).exp();
            sum += *x;
        }
        for x in block[j..].iter_mut().step_by(inner) {
            *x /= sum;
        }
    }
}
