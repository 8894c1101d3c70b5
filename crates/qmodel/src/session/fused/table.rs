//! Bytes to bytes by a table of all 256 values.

use qformat::{DType, QParams};

use crate::ops::{Facts, Inputs, Operator, RunContext};
use crate::{ElementType, ModelError, Tensor, TensorType};

/// What every byte becomes; signed bytes count by their bits.
pub(crate) struct Table {
    from: ElementType,
    to: ElementType,
    bytes: [u8; 256],
    /// Nothing changes.
    is_identity: bool,
}

/// The value that these bits are in a byte type.
fn value(bits: u8, dtype: DType) -> i32 {
    if dtype == DType::I8 {
        i32::from(bits.cast_signed())
    } else {
        i32::from(bits)
    }
}

impl Table {
    fn new(from: DType, to: DType, f: impl Fn(i32) -> i32) -> Result<Table, ModelError> {
        let element = |d: DType| match d {
            DType::U8 => Ok(ElementType::U8),
            DType::I8 => Ok(ElementType::I8),
            other => Err(ModelError::operand(
                "quantized type",
                other.name(),
                "u8 or i8",
            )),
        };
        let mut bytes = [0u8; 256];
        for (bits, byte) in (0..=u8::MAX).zip(&mut bytes) {
            // A value of the type: its low bits are all there is.
            *byte = f(value(bits, from)) as u8;
        }
        let is_identity = from == to && (0..=u8::MAX).zip(&bytes).all(|(i, &b)| i == b);
        Ok(Table {
            from: element(from)?,
            to: element(to)?,
            bytes,
            is_identity,
        })
    }

    /// `quantize(dequantize(q))` from one set of parameters to another.
    pub(crate) fn requantize(from: &QParams, to: &QParams) -> Result<Table, ModelError> {
        Table::new(from.dtype(), to.dtype(), |q| {
            to.quantize(from.dequantize(q))
        })
    }

    /// `max(q, zero point)`: a Relu.
    pub(crate) fn at_least(p: &QParams) -> Result<Table, ModelError> {
        Table::new(p.dtype(), p.dtype(), |q| q.max(p.zero_point()))
    }
}

impl Operator for Table {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        inputs.element(0, &[self.from])?;
        Ok(vec![TensorType {
            element: self.to,
            shape: inputs.get(0)?.ty.shape.clone(),
        }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        if self.is_identity {
            if let Some(t) = inputs.take(0) {
                return Ok(vec![t]);
            }
            return Ok(vec![cx.pool.copy(inputs.get(0)?)]);
        }
        let x = inputs.get(0)?;
        let shape = &shapes[0];
        let map = |q: u8| self.bytes[usize::from(q)];
        let out = match (x.as_slice::<u8>(), x.as_slice::<i8>(), self.to) {
            (Some(x), _, ElementType::U8) => {
                let mut out = cx.scratch::<u8>(shape)?;
                out.iter_mut().zip(x).for_each(|(o, &q)| *o = map(q));
                cx.tensor(shape, out)
            }
            (Some(x), _, _) => {
                let mut out = cx.scratch::<i8>(shape)?;
                out.iter_mut()
                    .zip(x)
                    .for_each(|(o, &q)| *o = map(q).cast_signed());
                cx.tensor(shape, out)
            }
            (_, Some(x), ElementType::U8) => {
                let mut out = cx.scratch::<u8>(shape)?;
                out.iter_mut()
                    .zip(x)
                    .for_each(|(o, &q)| *o = map(q.cast_unsigned()));
                cx.tensor(shape, out)
            }
            (_, Some(x), _) => {
                let mut out = cx.scratch::<i8>(shape)?;
                let bytes = out.iter_mut().zip(x);
                bytes.for_each(|(o, &q)| *o = map(q.cast_unsigned()).cast_signed());
                cx.tensor(shape, out)
            }
            _ => Err(ModelError::operand_type(
                "input 0",
                x.element_type(),
                "u8 or i8",
            )),
        };
        Ok(vec![out?])
    }

    fn is_elementwise(&self) -> bool {
        true
    }
}
