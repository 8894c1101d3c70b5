//! Integer products with parameters that are only known at run time, as dynamic quantization
//! makes them: `ConvInteger` or `MatMulInteger`, `Cast` to f32, `Mul` by the scale, and what
//! follows of `Add` of a bias and an activation. The fused step does the same operations in the
//! same order, so its results are the same bits, whatever the factors: a scale is positive, but
//! `Mul` takes any number, and a negative `alpha` of a `Gemm` ends up in its scale.

use super::super::fused::{conv::FusedConv, product::FusedProduct};
use super::super::plan::Slot;
use super::Change;
use super::view::View;
use crate::integer::conv::Filters;
use crate::integer::product::pack_matrix;
use crate::integer::{Factor, Finish, Output, zero_points};
use crate::ops::conv::ConvAttributes;
use crate::{ElementType, ModelError};

/// Fuses step `i` with what follows, where it is an integer product by constants.
pub(super) fn rewrite(view: &View<'_>, i: usize) -> Result<Option<Change>, ModelError> {
    let Some(spec) = view.spec(i)? else {
        return Ok(None);
    };
    let is_conv = spec.node.is("ConvInteger");
    if !(is_conv || spec.node.is("MatMulInteger")) {
        return Ok(None);
    }
    let (Some(x), Some(w)) = (view.input(i, 0), view.constant_input(i, 1)) else {
        return Ok(None);
    };
    let (columns, is_matrix) = match w.shape() {
        [filters, _, ..] if is_conv => (*filters, true),
        [_, n] => (*n, true),
        _ => (0, false),
    };
    let x_rank = view.plan.values[x].ty.shape.as_ref().map_or(0, Vec::len);
    let w_zero = match view.input(i, 3).map(|s| view.constant(s)) {
        None => Some(Vec::new()),
        Some(t) => t.and_then(|t| zero_points(t, "zero point").ok()),
    };
    let (Some(w_zero), true) = (w_zero, is_matrix && x_rank >= 2) else {
        return Ok(None);
    };
    // One zero point a row is left to the operator.
    let x_zero = view.input(i, 2);
    if x_zero.is_some_and(|s| elements(view, s) != Some(1)) {
        return Ok(None);
    }
    let Some(mut chain) = chain(view, i, columns, is_conv) else {
        return Ok(None);
    };
    let finish = Finish {
        bias_f32: chain.bias.take(),
        clamp: chain.clamp,
        output: Output::F32,
        // Replaced by the scale operand at every run.
        factor: Factor::None,
        bias: None,
    };
    let isa = view.options.isa;
    let op: Box<dyn crate::ops::Operator> = if is_conv {
        let attributes = ConvAttributes::read(&spec)?;
        if !columns.is_multiple_of(attributes.group) {
            return Ok(None);
        }
        let filters = Filters::pack(isa, w, &attributes, &w_zero)?;
        Box::new(FusedConv::new(attributes, filters, 0, finish).with_operands())
    } else {
        let weights = pack_matrix(isa, w, false, &w_zero)?;
        Box::new(FusedProduct::new(weights, 0, finish).with_operands())
    };
    let inputs = vec![Some(x), x_zero, Some(chain.scale)];
    let step = view.step(op, &chain.steps, inputs, chain.output);
    Ok(Some(Change {
        step,
        replaced: chain.steps,
    }))
}

/// What follows the sums.
struct Chain {
    scale: Slot,
    bias: Option<Vec<f32>>,
    clamp: Option<(f32, f32)>,
    steps: Vec<usize>,
    output: Slot,
}

fn chain(view: &View<'_>, i: usize, columns: usize, is_conv: bool) -> Option<Chain> {
    let sums = view.output(i)?;
    let rank = view.plan.values[sums].ty.shape.as_ref()?.len();
    let channels = (columns, is_conv, rank);
    let cast = view.only_consumer(sums)?;
    view.node(cast).filter(|n| n.is("Cast"))?;
    let value = view.output(cast)?;
    if view.plan.values[value].ty.element != ElementType::F32 {
        return None;
    }
    let mul = view.only_consumer(value)?;
    view.node(mul).filter(|n| n.is("Mul"))?;
    let scale = other(view, mul, value)?;
    if !is_along_channels(view, scale, channels) {
        return None;
    }
    let mut steps = vec![i, cast, mul];
    let mut output = view.output(mul)?;
    let mut bias = None;
    if let Some(add) = view.only_consumer(output)
        && view.node(add).is_some_and(|n| n.is("Add"))
        && let Some(slot) = other(view, add, output)
        && is_along_channels(view, slot, channels)
        && let Some(values) = view.constant(slot).and_then(|t| t.as_slice::<f32>())
    {
        bias = Some(match values {
            [one] => vec![*one; columns],
            many => many.to_vec(),
        });
        steps.push(add);
        output = view.output(add)?;
    }
    let tail = view.tail(*steps.last()?, false)?;
    steps.extend_from_slice(&tail.steps[1..]);
    Some(Chain {
        scale,
        bias,
        clamp: tail.clamp,
        steps,
        output: tail.output,
    })
    .filter(|c| c.output != output || c.clamp.is_none())
}

/// The operand of a step of two that is not `slot`.
fn other(view: &View<'_>, i: usize, slot: Slot) -> Option<Slot> {
    match (view.input(i, 0)?, view.input(i, 1)?) {
        (a, b) if a == slot && b != slot => Some(b),
        (a, b) if b == slot && a != slot => Some(a),
        _ => None,
    }
}

fn elements(view: &View<'_>, slot: Slot) -> Option<usize> {
    crate::ops::known_count(view.plan.values[slot].ty.shape.as_deref()?)
}

/// Whether a value, broadcast to the result's `rank`, is one number, or one for each of `columns`
/// channels: along the second axis of a convolution, the last of a product.
fn is_along_channels(
    view: &View<'_>,
    slot: Slot,
    (columns, is_conv, rank): (usize, bool, usize),
) -> bool {
    let Some(shape) = view.plan.values[slot]
        .ty
        .shape
        .as_deref()
        .and_then(crate::ops::known_shape)
    else {
        return false;
    };
    let Some(lead) = rank.checked_sub(shape.len()) else {
        return false;
    };
    let axis = if is_conv { 1 } else { rank.saturating_sub(1) };
    let fits = |(i, &d): (usize, &usize)| d == 1 || (i + lead == axis && d == columns);
    shape.iter().enumerate().all(fits)
}
