//! Questions that the rewriting rules ask of a plan.

use std::sync::Arc;

use qformat::{QParams, Scheme};

use super::super::SessionOptions;
use super::super::plan::{Plan, Slot, Step};
use crate::integer::{scales, zero_points};
use crate::ops::{Spec, registry};
use crate::{ElementType, Model, ModelError, Node, Tensor};

/// A plan with the links between its steps.
pub(super) struct View<'a> {
    pub(super) plan: &'a Plan,
    pub(super) model: &'a Model,
    pub(super) options: &'a SessionOptions,
    producers: Vec<Option<usize>>,
    consumers: Vec<Vec<usize>>,
}

/// A value that is dequantized from another one with constant parameters.
pub(super) struct Dequantized {
    /// The quantized value.
    pub(super) quantized: Slot,
    pub(super) element: ElementType,
    pub(super) scales: Vec<f32>,
    /// As many as scales.
    pub(super) zeros: Vec<i32>,
    /// Where there are several: the axis that they are along, as the node has it.
    pub(super) axis: i64,
}

impl Dequantized {
    /// The parameters, where they are of the whole tensor.
    pub(super) fn params(&self) -> Option<QParams> {
        match (&self.scales[..], &self.zeros[..]) {
            ([s], [z]) => QParams::new(*s, *z, self.element.dtype()?, Scheme::Affine).ok(),
            _ => None,
        }
    }

    pub(super) fn is_bytes(&self) -> bool {
        matches!(self.element, ElementType::U8 | ElementType::I8)
    }
}

/// What follows a product and can be done with its results on the way out.
pub(super) struct Tail {
    pub(super) clamp: Option<(f32, f32)>,
    /// The parameters of a quantization at the end.
    pub(super) quantized: Option<QParams>,
    /// The steps, in order, and what the last of them defines.
    pub(super) steps: Vec<usize>,
    pub(super) output: Slot,
}

impl<'a> View<'a> {
    pub(super) fn new(plan: &'a Plan, model: &'a Model, options: &'a SessionOptions) -> View<'a> {
        let mut producers = vec![None; plan.values.len()];
        let mut consumers = vec![Vec::new(); plan.values.len()];
        for (i, step) in plan.steps.iter().enumerate() {
            for &slot in step.outputs.iter().flatten() {
                producers[slot] = Some(i);
            }
            for &slot in step.inputs.iter().flatten() {
                consumers[slot].push(i);
            }
        }
        View {
            plan,
            model,
            options,
            producers,
            consumers,
        }
    }

    /// The node that step `i` was made from, unless it is fused already.
    pub(super) fn node(&self, i: usize) -> Option<&'a Node> {
        self.plan.steps[i].node.as_ref()
    }

    pub(super) fn spec(&self, i: usize) -> Result<Option<Spec<'a>>, ModelError> {
        self.node(i)
            .map(|n| registry::spec(n, self.model))
            .transpose()
    }

    pub(super) fn input(&self, i: usize, operand: usize) -> Option<Slot> {
        self.plan.steps[i].inputs.get(operand).copied().flatten()
    }

    pub(super) fn output(&self, i: usize) -> Option<Slot> {
        self.plan.steps[i].outputs.first().copied().flatten()
    }

    pub(super) fn constant(&self, slot: Slot) -> Option<&'a Arc<Tensor>> {
        self.plan.values[slot].constant.as_ref()
    }

    /// Operand of a step, where it is a constant.
    pub(super) fn constant_input(&self, i: usize, operand: usize) -> Option<&'a Arc<Tensor>> {
        self.constant(self.input(i, operand)?)
    }

    pub(super) fn producer(&self, slot: Slot) -> Option<usize> {
        self.producers[slot]
    }

    /// The step that reads a value, where nothing else does.
    pub(super) fn only_consumer(&self, slot: Slot) -> Option<usize> {
        match self.consumers[slot][..] {
            [one] if !self.plan.outputs.contains(&slot) => Some(one),
            _ => None,
        }
    }

    /// What a value is dequantized from.
    pub(super) fn dequantized(&self, slot: Slot) -> Option<Dequantized> {
        let i = self.producer(slot)?;
        let node = self.node(i).filter(|n| n.is("DequantizeLinear"))?;
        let quantized = self.input(i, 0)?;
        let scales = scales(self.constant_input(i, 1)?, "scale").ok()?;
        let zeros = match self.input(i, 2) {
            Some(z) => zero_points(self.constant(z)?, "zero point").ok()?,
            None => vec![0; scales.len()],
        };
        (scales.len() == zeros.len()).then(|| Dequantized {
            quantized,
            element: self.plan.values[quantized].ty.element,
            scales,
            zeros,
            axis: node.int_attribute("axis").unwrap_or(1),
        })
    }

    /// The constant parameters of a quantization of a whole tensor to bytes.
    pub(super) fn quantization(&self, i: usize) -> Option<QParams> {
        self.node(i).filter(|n| n.is("QuantizeLinear"))?;
        let scale = self.constant_input(i, 1)?;
        let zero = match self.input(i, 2) {
            Some(z) => Some(self.constant(z)?.as_ref()),
            None => None,
        };
        let element = self.plan.values[self.output(i)?].ty.element;
        crate::integer::params(scale, zero, element, "scale")
            .ok()
            .filter(|_| matches!(element, ElementType::U8 | ElementType::I8))
    }

    /// The bounds of a Relu or of a Clip with constant bounds.
    pub(super) fn clamp(&self, i: usize) -> Option<(f32, f32)> {
        let node = self.node(i)?;
        if node.is("Relu") {
            return Some((0.0, f32::INFINITY));
        }
        if !node.is("Clip") {
            return None;
        }
        let bound = |operand: usize, name: &str, default: f32| match self.input(i, operand) {
            Some(slot) => match self.constant(slot)?.as_slice::<f32>()? {
                [v] => Some(*v),
                _ => None,
            },
            None => match node.attribute(name) {
                Some(crate::Attribute::Float(v)) => Some(*v),
                _ => Some(default),
            },
        };
        let low = bound(1, "min", f32::NEG_INFINITY)?;
        let high = bound(2, "max", f32::INFINITY)?;
        // Anything else is left to the operator itself.
        (low <= high).then_some((low, high))
    }

    /// What follows step `i`, up to and including a quantization where `quantize` allows one.
    pub(super) fn tail(&self, i: usize, quantize: bool) -> Option<Tail> {
        let mut tail = Tail {
            clamp: None,
            quantized: None,
            steps: vec![i],
            output: self.output(i)?,
        };
        while let Some(next) = self.only_consumer(tail.output) {
            let (Some(output), true) =
                (self.output(next), self.input(next, 0) == Some(tail.output))
            else {
                break;
            };
            if let Some((low, high)) = self.clamp(next) {
                tail.clamp = Some(match tail.clamp {
                    None => (low, high),
                    // First to the inner bounds, then to these.
                    Some((a, b)) => (a.clamp(low, high), b.clamp(low, high)),
                });
            } else if quantize && let Some(p) = self.quantization(next) {
                tail.quantized = Some(p);
            } else {
                break;
            }
            tail.steps.push(next);
            tail.output = output;
            if tail.quantized.is_some() {
                break;
            }
        }
        Some(tail)
    }

    /// A fused step named after the steps it stands for.
    pub(super) fn step(
        &self,
        op: Box<dyn crate::ops::Operator>,
        steps: &[usize],
        inputs: Vec<Option<Slot>>,
        output: Slot,
    ) -> Step {
        let labels: Vec<&str> = steps
            .iter()
            .map(|&i| self.plan.steps[i].label.as_str())
            .collect();
        Step {
            op,
            label: labels.join(" + "),
            inputs,
            outputs: vec![Some(output)],
            last_uses: Vec::new(),
            node: None,
        }
    }
}

/// Removes the steps of these numbers, which are in order.
pub(super) fn remove_marked(steps: &mut Vec<Step>, marked: &[usize]) {
    let mut i = 0;
    steps.retain(|_| {
        i += 1;
        marked.binary_search(&(i - 1)).is_err()
    });
}
