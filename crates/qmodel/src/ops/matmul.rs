//! `MatMul`: products of matrices, with leading dimensions that broadcast.

use super::broadcast::{Walk, output_dims as broadcast_dims};
use super::{Facts, Inputs, Operator, RunContext, Spec, operand_name};
use crate::product::{Operand, multiply};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

/// Output dimensions of operands `a` (input `ai`) and `b` (input `bi`), as `NumPy`'s `matmul`.
pub(crate) fn output_dims(
    a: Option<&[Dim]>,
    b: Option<&[Dim]>,
    (ai, bi): (usize, usize),
) -> Result<Option<Vec<Dim>>, ModelError> {
    let (Some(a), Some(b)) = (a, b) else {
        return Ok(None);
    };
    let show = crate::graph::show_dims;
    let refuse = |allowed: &str| {
        Err(ModelError::operand(
            format!("{} and {}", operand_name(ai), operand_name(bi)),
            format!("{} and {}", show(a), show(b)),
            allowed,
        ))
    };
    if a.is_empty() || b.is_empty() {
        return refuse("rank 1 or more");
    }
    let (a_batch, a_rows, ka) = match a {
        [k] => (&[][..], None, k),
        [batch @ .., m, k] => (batch, Some(m), k),
        [] => return refuse("rank 1 or more"),
    };
    let (b_batch, kb, b_cols) = match b {
        [k] => (&[][..], k, None),
        [batch @ .., k, n] => (batch, k, Some(n)),
        [] => return refuse("rank 1 or more"),
    };
    if let (Some(x), Some(y)) = (ka.known(), kb.known())
        && x != y
    {
        return refuse("as many columns in the first as rows in the second");
    }
    let mut out = broadcast_dims(a_batch, b_batch)?;
    out.extend(a_rows.cloned());
    out.extend(b_cols.cloned());
    Ok(Some(out))
}

/// A batch of products of concrete operands.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// For each product: which matrix of the left operand, and which of the right one.
    pub(crate) pairs: Vec<(usize, usize)>,
}

impl Batch {
    /// The products that operands of these shapes make; leading dimensions of the left operand are
    /// rows of one product where the right operand is a single matrix.
    pub(crate) fn new(a: &[usize], b: &[usize]) -> Batch {
        let (a_batch, m, k) = match a {
            [batch @ .., m, k] => (batch, *m, *k),
            [k] => (&[][..], 1, *k),
            [] => (&[][..], 1, 1),
        };
        let (b_batch, n) = match b {
            [batch @ .., _, n] => (batch, *n),
            _ => (&[][..], 1),
        };
        if m == 0 || n == 0 {
            return Batch {
                m,
                k,
                n,
                pairs: Vec::new(),
            };
        }
        if b_batch.iter().all(|&d| d == 1) {
            let rows = a_batch.iter().product::<usize>() * m;
            return Batch {
                m: rows,
                k,
                n,
                pairs: vec![(0, 0)],
            };
        }
        let rank = a_batch.len().max(b_batch.len());
        let at =
            |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |j| dims[j]);
        let out: Vec<usize> = (0..rank)
            .map(|i| match (at(a_batch, i), at(b_batch, i)) {
                (1, d) | (d, _) => d,
            })
            .collect();
        let walk = Walk::new(a_batch, b_batch, &out);
        let mut pairs = Vec::new();
        walk.for_each(|run| {
            for i in 0..walk.len {
                let step = |moves: bool| if moves { i } else { 0 };
                pairs.push((run.a + step(walk.a_moves), run.b + step(walk.b_moves)));
            }
        });
        Batch { m, k, n, pairs }
    }
}

/// A float product.
pub(crate) struct MatMul {
    /// Applied to the result: a fused Relu or Clip.
    clamp: Option<(f32, f32)>,
}

impl MatMul {
    /// Reads a node; `clamp` is an activation that follows.
    pub(crate) fn new(spec: &Spec<'_>, clamp: Option<(f32, f32)>) -> Result<MatMul, ModelError> {
        spec.check(2..=2, 1..=1, &[])?;
        Ok(MatMul { clamp })
    }
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Ok(Box::new(MatMul::new(spec, None)?))
}

impl Operator for MatMul {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.element(0, &[ElementType::F32])?;
        inputs.same_element(1)?;
        let shape = output_dims(inputs.dims(0)?, inputs.dims(1)?, (0, 1))?;
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let shape = &shapes[0];
        let Batch { m, k, n, pairs } = Batch::new(inputs.get(0)?.shape(), inputs.get(1)?.shape());
        let (a, b) = (inputs.slice::<f32>(0)?, inputs.slice::<f32>(1)?);
        let mut out = cx.scratch::<f32>(shape)?;
        for (i, (left, right)) in pairs.into_iter().enumerate() {
            multiply(
                (m, k, n),
                1.0,
                Operand::rows(&a[left * m * k..(left + 1) * m * k], k),
                Operand::rows(&b[right * k * n..(right + 1) * k * n], n),
                &mut out[i * m * n..(i + 1) * m * n],
                n,
                false,
                cx.threads,
            );
        }
        if let Some((low, high)) = self.clamp {
            for v in &mut out {
                *v = super::conv::clamp_keeping_nan(*v, low, high);
            }
        }
        Ok(vec![cx.tensor(shape, out)?])
    }
}
