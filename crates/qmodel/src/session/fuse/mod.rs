//! Making fewer and better steps of a plan.
//!
//! In order: dequantizations move down past operators that only move or compare values
//! ([`push`]); integer products swallow what surrounds them ([`integer`], [`dynamic`]), and so do
//! sums of quantized tensors ([`add`]); float products swallow their activation ([`float`]);
//! activations between integer convolutions keep their channels last ([`layout`]).
//!
//! A value only disappears when nothing else reads it and the graph does not return it.
//!
//! # What fusion changes in the results
//!
//! An integer product with its quantization is computed as one: exact sums, the bias added in i32,
//! and one multiplication by `x_scale · w_scale / y_scale` before rounding. Running the same QDQ
//! nodes one by one in float rounds at every step instead, so a value close to the middle between
//! two steps may come out one step off, in either direction; the fused result is the one that
//! `QLinearConv` and its kin define. Everything else here gives the same bits as the single steps,
//! but for float products with an f32 result, where the fused form rounds less often.

mod add;
mod dynamic;
mod float;
mod integer;
mod layout;
mod push;
mod view;

use self::view::{View, remove_marked};
use super::plan::{Plan, Step};
use super::{Pool, SessionOptions};
use crate::{Model, ModelError};

/// Rewrites a plan of single operators.
pub(super) fn fuse(
    plan: &mut Plan,
    model: &Model,
    options: &SessionOptions,
    pool: &mut Pool,
    workspace: &mut qkernels::Workspace,
) -> Result<(), ModelError> {
    // Quantized constants must not become floats before they are seen.
    let not_weights = |s: &Step| s.node.as_ref().is_none_or(|n| !n.is("DequantizeLinear"));
    plan.fold_constants(options, pool, workspace, &not_weights)?;
    // What never runs must not be refused for its parameters.
    plan.remove_dead();
    push::down(plan, model, options)?;
    plan.fold_constants(options, pool, workspace, &not_weights)?;
    for rule in [
        integer::rewrite as Rule,
        dynamic::rewrite,
        add::rewrite,
        float::rewrite,
    ] {
        let mut from = 0;
        while let Some(change) = next_change(&View::new(plan, model, options), rule, from)? {
            from = change.apply(plan);
        }
    }
    plan.remove_dead();
    layout::assign(plan, model)
}

/// What a rule finds to do at a step.
type Rule = fn(&View<'_>, usize) -> Result<Option<Change>, ModelError>;

/// The first change that a rule finds, from a step on.
fn next_change(view: &View<'_>, rule: Rule, from: usize) -> Result<Option<Change>, ModelError> {
    for i in from..view.plan.steps.len() {
        if let Some(change) = rule(view, i)? {
            return Ok(Some(change));
        }
    }
    Ok(None)
}

/// One fused step in place of others.
pub(super) struct Change {
    /// Goes to the place of the last of these.
    step: Step,
    /// Steps that it stands for, in order.
    replaced: Vec<usize>,
}

impl Change {
    /// Makes the change, and returns where to go on: behind the first replaced step.
    fn apply(self, plan: &mut Plan) -> usize {
        let first = self.replaced.first().copied().unwrap_or_default();
        if let Some(&last) = self.replaced.last() {
            plan.steps[last] = self.step;
            remove_marked(&mut plan.steps, &self.replaced[..self.replaced.len() - 1]);
        }
        first + usize::from(self.replaced.len() == 1)
    }
}
