//! From channels last to channels first.

use crate::ops::transpose::permute;
use crate::ops::{Facts, Inputs, Operator, RunContext, for_element};
use crate::{ModelError, Tensor, TensorElement, TensorType};

/// `[N, …, C]` becomes `[N, C, …]`.
pub(crate) struct ChannelsFirst;

impl Operator for ChannelsFirst {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let mut ty = inputs.get(0)?.ty.clone();
        inputs.dims_of_rank(0, 2..=usize::MAX)?;
        if let Some(d) = &mut ty.shape {
            d[1..].rotate_right(1);
        }
        Ok(vec![ty])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        fn go<T: TensorElement>(
            cx: &mut RunContext<'_>,
            inputs: &Inputs<'_>,
            shape: &[usize],
        ) -> Result<Tensor, ModelError> {
            let x = inputs.slice::<T>(0)?;
            let mut out = cx.scratch::<T>(shape)?;
            let dims = [shape[0], shape[2..].iter().product(), shape[1]];
            permute(x, &dims, &[0, 2, 1], &mut out);
            cx.tensor(shape, out)
        }
        let element = inputs.get(0)?.element_type();
        let out = for_element!(
            element,
            [
                F32 f32, F64 f64, F16 qformat::f16, Bf16 qformat::bf16, I8 i8, U8 u8, I16 i16,
                U16 u16, I32 i32, I64 i64, Bool bool,
            ],
            go::<T>(cx, inputs, &shapes[0])
        );
        Ok(vec![out?])
    }
}
