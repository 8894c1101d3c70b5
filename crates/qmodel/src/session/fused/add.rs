//! The sum of two quantized tensors, quantized: a piece at a time, so that the floats in between
//! never leave the first-level cache. The operations and their order are those of the single
//! steps, so the bits are the same.

use std::ops::Range;

use qformat::QParams;
use qkernels::Isa;

use crate::ops::conv::clamp_keeping_nan;
use crate::ops::{Facts, Inputs, Operator, RunContext, operand_name};
use crate::{ElementType, ModelError, Tensor, TensorData, TensorType};

/// Elements of a piece.
const PIECE: usize = 1024;

/// Operands: two quantized tensors of one shape.
pub(crate) struct FusedAdd {
    operands: [QParams; 2],
    clamp: Option<(f32, f32)>,
    result: QParams,
}

impl FusedAdd {
    pub(crate) fn new(
        operands: [QParams; 2],
        clamp: Option<(f32, f32)>,
        result: QParams,
    ) -> FusedAdd {
        FusedAdd {
            operands,
            clamp,
            result,
        }
    }

    /// The sums of a piece.
    fn sums(
        &self,
        isa: Isa,
        [a, b]: [&Tensor; 2],
        piece: Range<usize>,
        sums: &mut [f32],
    ) -> Result<(), ModelError> {
        let mut other = [0f32; PIECE];
        let other = &mut other[..piece.len()];
        dequantize(isa, a, piece.clone(), &self.operands[0], sums)?;
        dequantize(isa, b, piece, &self.operands[1], other)?;
        sums.iter_mut().zip(other).for_each(|(s, o)| *s += *o);
        if let Some((low, high)) = self.clamp {
            sums.iter_mut()
                .for_each(|s| *s = clamp_keeping_nan(*s, low, high));
        }
        Ok(())
    }
}

fn dequantize(
    isa: Isa,
    t: &Tensor,
    piece: Range<usize>,
    p: &QParams,
    out: &mut [f32],
) -> Result<(), ModelError> {
    match t.data() {
        TensorData::U8(v) => qkernels::dequantize(isa, &v[piece], p, out)?,
        TensorData::I8(v) => qkernels::dequantize(isa, &v[piece], p, out)?,
        other => {
            return Err(ModelError::operand_type(
                "input",
                other.element_type(),
                "u8 or i8",
            ));
        }
    }
    Ok(())
}

impl Operator for FusedAdd {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        for i in [0, 1] {
            inputs.element(i, &[ElementType::U8, ElementType::I8])?;
        }
        let (a, b) = (inputs.dims(0)?, inputs.dims(1)?);
        if let (Some(a), Some(b)) = (a, b)
            && a != b
        {
            return Err(ModelError::operand(
                operand_name(1),
                crate::graph::show_dims(b),
                crate::graph::show_dims(a),
            ));
        }
        let element = match self.result.dtype() {
            qformat::DType::I8 => ElementType::I8,
            _ => ElementType::U8,
        };
        Ok(vec![TensorType {
            element,
            shape: inputs.get(0)?.ty.shape.clone(),
        }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let operands = [inputs.get(0)?, inputs.get(1)?];
        let isa = cx.isa;
        let mut sums = [0f32; PIECE];
        let mut start = 0;
        if self.result.dtype() == qformat::DType::I8 {
            let mut out = cx.scratch::<i8>(&shapes[0])?;
            for out in out.chunks_mut(PIECE) {
                let sums = &mut sums[..out.len()];
                self.sums(isa, operands, start..start + out.len(), sums)?;
                qkernels::quantize(isa, sums, &self.result, out)?;
                start += out.len();
            }
            return Ok(vec![cx.tensor(&shapes[0], out)?]);
        }
        let mut out = cx.scratch::<u8>(&shapes[0])?;
        for out in out.chunks_mut(PIECE) {
            let sums = &mut sums[..out.len()];
            self.sums(isa, operands, start..start + out.len(), sums)?;
            qkernels::quantize(isa, sums, &self.result, out)?;
            start += out.len();
        }
        Ok(vec![cx.tensor(&shapes[0], out)?])
    }

    fn is_elementwise(&self) -> bool {
        true
    }
}
