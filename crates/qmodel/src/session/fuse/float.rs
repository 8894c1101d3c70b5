//! Float products with the activation that follows.

use super::Change;
use super::view::View;
use crate::ModelError;
use crate::ops::{Operator, conv::Conv, gemm::Gemm, matmul::MatMul};

/// Fuses step `i` with its Relu or Clip, where it is a product.
pub(super) fn rewrite(view: &View<'_>, i: usize) -> Result<Option<Change>, ModelError> {
    let Some(spec) = view.spec(i)? else {
        return Ok(None);
    };
    let Some(tail) = view.tail(i, false) else {
        return Ok(None);
    };
    if tail.clamp.is_none() {
        return Ok(None);
    }
    let op: Box<dyn Operator> = if spec.node.is("Conv") {
        Box::new(Conv::new(&spec, tail.clamp)?)
    } else if spec.node.is("Gemm") {
        Box::new(Gemm::new(&spec, tail.clamp)?)
    } else if spec.node.is("MatMul") {
        Box::new(MatMul::new(&spec, tail.clamp)?)
    } else {
        return Ok(None);
    };
    let inputs = view.plan.steps[i].inputs.clone();
    let step = view.step(op, &tail.steps, inputs, tail.output);
    Ok(Some(Change {
        step,
        replaced: tail.steps,
    }))
}
