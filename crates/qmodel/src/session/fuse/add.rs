//! Sums of two dequantized tensors that are quantized again: the joints of residual networks.

use super::super::fused::add::FusedAdd;
use super::Change;
use super::view::{Dequantized, View};
use crate::{Dim, ModelError};

/// Fuses step `i` with what surrounds it, where it is such a sum.
pub(super) fn rewrite(view: &View<'_>, i: usize) -> Result<Option<Change>, ModelError> {
    if !view.node(i).is_some_and(|n| n.is("Add")) {
        return Ok(None);
    }
    let operand = |k: usize| {
        let d = view
            .dequantized(view.input(i, k)?)
            .filter(Dequantized::is_bytes)?;
        Some((d.quantized, d.params()?))
    };
    let (Some((a, pa)), Some((b, pb))) = (operand(0), operand(1)) else {
        return Ok(None);
    };
    // Only tensors of one shape: nothing broadcasts.
    let dims = |s: usize| view.plan.values[s].ty.shape.as_ref();
    let alike = dims(a).is_some_and(|d| Some(d) == dims(b) && !d.contains(&Dim::Unknown));
    let Some(tail) = view.tail(i, true).filter(|_| alike) else {
        return Ok(None);
    };
    let Some(result) = tail.quantized else {
        return Ok(None);
    };
    let op = FusedAdd::new([pa, pb], tail.clamp, result);
    let step = view.step(
        Box::new(op),
        &tail.steps,
        vec![Some(a), Some(b)],
        tail.output,
    );
    Ok(Some(Change {
        step,
        replaced: tail.steps,
    }))
}
