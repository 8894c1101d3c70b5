//! An integer convolution with constant filters and everything that follows in one.

use crate::integer::conv::{Channels, Filters, convolve};
use crate::integer::{Factor, Finish, zero_point};
use crate::ops::conv::ConvAttributes;
use crate::ops::{Facts, Inputs, Operator, RunContext};
use crate::{Dim, ElementType, ModelError, Tensor, TensorData, TensorType};

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
            let o = Operands::read(&self.finish, inputs)?;
            o.clamp(convolve(
                cx,
                from,
                o.zero,
                &self.filters,
                &s,
                &o.finish,
                to,
            )?)?
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
pub(super) struct Operands {
    pub(super) zero: i32,
    pub(super) finish: Finish,
    /// Limits that the kernels would not apply as `Relu` and `Clip` do.
    late: Option<(f32, f32)>,
}

impl Operands {
    pub(super) fn read(finish: &Finish, inputs: &Inputs<'_>) -> Result<Operands, ModelError> {
        let factors = inputs.slice::<f32>(2)?;
        // Kernels turn NaN, and a zero of either sign, into the limit that it is not inside of.
        // Neither can come up with factors that are as scales should be, and finite biases.
        let usual = factors.iter().all(|f| *f > 0.0 && f.is_finite())
            && finish.bias_f32.iter().flatten().all(|b| b.is_finite());
        let negative_zero = |v: f32| v == 0.0 && v.is_sign_negative();
        let late = finish
            .clamp
            .filter(|&(low, high)| !usual || negative_zero(low) || negative_zero(high));
        let mut finish = finish.clone();
        finish.factor = Factor::of(factors.to_vec());
        finish.clamp = finish.clamp.filter(|_| late.is_none());
        Ok(Operands {
            zero: zero_point(inputs.optional(1), "zero point")?,
            finish,
            late,
        })
    }

    /// Applies the limits that are left.
    pub(super) fn clamp(&self, t: Tensor) -> Result<Tensor, ModelError> {
        let Some((low, high)) = self.late else {
            return Ok(t);
        };
        let shape = t.shape().to_vec();
        let mut data = t.into_data();
        if let TensorData::F32(v) = &mut data {
            for x in v {
                // As Clip has it: NaN stays, and so do both zeros.
                *x = if *x < low { low } else { *x };
                *x = if *x > high { high } else { *x };
            }
        }
        Tensor::new(&shape, data)
    }
}
