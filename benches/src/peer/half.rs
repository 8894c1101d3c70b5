//! The `half` crate: slices of f16 and bf16 to f32 and back.

use half::slice::HalfFloatSliceExt;
use qformat::{DType, bf16, f16};
use qkernels::Isa;

use super::task::{MapOp, Task};
use super::{Peer, Work};
use crate::BenchError;
use crate::values::{Element, Values};

struct Half;

#[expect(clippy::unnecessary_wraps, reason = "every peer is opened alike")]
pub(super) fn open(_cap: Option<Isa>) -> Result<Box<dyn Peer>, BenchError> {
    Ok(Box::new(Half))
}

impl Peer for Half {
    fn name(&self) -> &'static str {
        "half"
    }

    fn prepare(
        &self,
        task: &Task<'_>,
        _threads: usize,
    ) -> Result<Option<Box<dyn Work>>, BenchError> {
        let Task::Map(task) = task else {
            return Ok(None);
        };
        let MapOp::Convert = task.op else {
            return Ok(None);
        };
        Ok(match (task.input, task.output) {
            (Values::F32(x), DType::F16) => {
                Some(work::<f32, f16>(x, |x, out| out.convert_from_f32_slice(x)))
            }
            (Values::F32(x), DType::Bf16) => {
                Some(work::<f32, bf16>(x, |x, out| out.convert_from_f32_slice(x)))
            }
            (Values::F16(x), DType::F32) => {
                Some(work::<f16, f32>(x, HalfFloatSliceExt::convert_to_f32_slice))
            }
            (Values::Bf16(x), DType::F32) => Some(work::<bf16, f32>(
                x,
                HalfFloatSliceExt::convert_to_f32_slice,
            )),
            _ => None,
        })
    }
}

struct HalfWork<T, U> {
    input: Vec<T>,
    out: Vec<U>,
    convert: fn(&[T], &mut [U]),
}

fn work<T: Element, U: Element>(input: &[T], convert: fn(&[T], &mut [U])) -> Box<dyn Work> {
    Box::new(HalfWork {
        input: input.to_vec(),
        out: vec![U::default(); input.len()],
        convert,
    })
}

impl<T: Element, U: Element> Work for HalfWork<T, U> {
    fn run(&mut self) -> Result<(), BenchError> {
        (self.convert)(&self.input, &mut self.out);
        Ok(())
    }

    fn answer(&self) -> Values<'_> {
        U::values(&self.out)
    }
}
