//! An integer product with a constant matrix and everything that follows in one.

use super::conv::Operands;
use crate::integer::product::rows_by_matrix;
use crate::integer::{Finish, Weights};
use crate::ops::{Facts, Inputs, Operator, RunContext, operand_name};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

/// Operands: the quantized input, a matrix or a batch of them; and, [with
/// operands](FusedProduct::with_operands), its zero point (optional) and the factors of the sums.
pub(crate) struct FusedProduct {
    weights: Weights,
    a_zero: i32,
    finish: Finish,
    has_operands: bool,
}

impl FusedProduct {
    pub(crate) fn new(weights: Weights, a_zero: i32, finish: Finish) -> FusedProduct {
        FusedProduct {
            weights,
            a_zero,
            finish,
            has_operands: false,
        }
    }

    /// Zero point and factors come at run time.
    pub(crate) fn with_operands(mut self) -> FusedProduct {
        self.has_operands = true;
        self
    }
}

impl Operator for FusedProduct {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        inputs.element(0, &[ElementType::U8, ElementType::I8])?;
        let shape = match inputs.dims_of_rank(0, 2..=usize::MAX)? {
            None => None,
            Some(d) => {
                let (k, rows) = (&d[d.len() - 1], &d[..d.len() - 1]);
                if k.known().is_some_and(|k| k != self.weights.depth()) {
                    return Err(ModelError::operand(
                        operand_name(0),
                        crate::graph::show_dims(d),
                        format!("{} columns, as the weights have rows", self.weights.depth()),
                    ));
                }
                let mut out = rows.to_vec();
                out.push(Dim::Known(self.weights.columns()));
                Some(out)
            }
        };
        Ok(vec![TensorType {
            element: self.finish.output.element(),
            shape,
        }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let a = inputs.get(0)?;
        let shape = &shapes[0];
        let m = a.shape()[..a.rank() - 1].iter().product();
        let out = if self.has_operands {
            let o = Operands::read(&self.finish, inputs)?;
            o.clamp(rows_by_matrix(
                cx,
                a,
                m,
                &[o.zero],
                &self.weights,
                &o.finish,
                shape,
            )?)?
        } else {
            rows_by_matrix(cx, a, m, &[self.a_zero], &self.weights, &self.finish, shape)?
        };
        Ok(vec![out])
    }
}
