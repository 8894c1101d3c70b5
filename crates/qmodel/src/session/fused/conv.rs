//! An integer convolution with constant filters and everything that follows in one.

use crate::integer::conv::{Channels, Filters, convolve};
use crate::integer::{Factor, Finish, scales, zero_point};
use crate::ops::conv::ConvAttributes;
use crate::ops::{Facts, Inputs, Operator, RunContext};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

/// Operands: the quantized input; and, [with operands](FusedConv::with_operands), its zero point
/// (optional) and the factors of the sums. The result has channels last.
pub(crate) struct FusedConv {
    attributes: ConvAttributes,
    filters: Filters,
    x_zero: i32,
    finish: Finish,
    has_operands: bool,
    input: Channels,
}

impl FusedConv {
    pub(crate) fn new(
        attributes: ConvAttributes,
        filters: Filters,
        x_zero: i32,
        finish: Finish,
    ) -> FusedConv {
        FusedConv {
            attributes,
            filters,
            x_zero,
            finish,
            has_operands: false,
            input: Channels::First,
        }
    }

    /// Zero point and factors come at run time.
    pub(crate) fn with_operands(mut self) -> FusedConv {
        self.has_operands = true;
        self
    }

    /// Says where the input has its channels.
    pub(crate) fn set_input(&mut self, channels: Channels) {
        self.input = channels;
    }

    fn channels_first<T: Clone>(&self, dims: &[T]) -> Vec<T> {
        let mut dims = dims.to_vec();
        if self.input == Channels::Last && dims.len() > 2 {
            dims[1..].rotate_right(1);
        }
        dims
    }
}

impl Operator for FusedConv {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        inputs.element(0, &[ElementType::U8, ElementType::I8])?;
        let x = inputs
            .dims_of_rank(0, 3..=4)?
            .map(|d| self.channels_first(d));
        let w: Vec<Dim> = self.filters.shape.iter().map(|&d| Dim::Known(d)).collect();
        let shape = self
            .attributes
            .output_dims(x.as_deref(), Some(&w), (0, 1))?
            .map(|mut d| {
                d[1..].rotate_left(1);
                d
            });
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
        let x = inputs.get(0)?;
        let s = self
            .attributes
            .shape(&self.channels_first(x.shape()), &self.filters.shape)?;
        let from = (x, self.input);
        let to = (&shapes[0][..], Channels::Last);
        let out = if self.has_operands {
            let (zero, finish) = operands(&self.finish, inputs)?;
            convolve(cx, from, zero, &self.filters, &s, &finish, to)?
        } else {
            convolve(cx, from, self.x_zero, &self.filters, &s, &self.finish, to)?
        };
        Ok(vec![out])
    }

    fn as_fused_conv(&mut self) -> Option<&mut FusedConv> {
        Some(self)
    }
}

/// Zero point and treatment of the sums from operands 1 and 2.
pub(super) fn operands(finish: &Finish, inputs: &Inputs<'_>) -> Result<(i32, Finish), ModelError> {
    let zero = zero_point(inputs.optional(1), "zero point")?;
    let factor = Factor::of(scales(inputs.get(2)?, "scale")?);
    Ok((
        zero,
        Finish {
            factor,
            ..finish.clone()
        },
    ))
}
