//! Bytes to bytes: what the element-wise quantized operators share.

use qformat::{QParams, QuantElement};

use crate::integer::params;
use crate::ops::broadcast::{output_dims, zip};
use crate::ops::{Facts, Inputs, RunContext, operand_name, slice_of};
use crate::{Dim, ElementType, ModelError, Tensor, TensorElement, TensorType};

/// The types that quantized tensors of these operators have.
pub(super) const BYTES: [ElementType; 2] = [ElementType::U8, ElementType::I8];

/// A byte type, with the bits of a value as an index into a table.
pub(super) trait Byte: TensorElement + QuantElement {
    /// The bits as a number.
    fn bits(self) -> usize;
}

impl Byte for u8 {
    fn bits(self) -> usize {
        usize::from(self)
    }
}

impl Byte for i8 {
    fn bits(self) -> usize {
        usize::from(self.cast_unsigned())
    }
}

/// What every byte value becomes: quantized by `to` from `f` of its real value in `from`.
pub(super) fn table<T: Byte>(from: &QParams, to: &QParams, f: impl Fn(f32) -> f32) -> [T; 256] {
    let mut table = [T::default(); 256];
    for q in -128..=255 {
        let v = T::saturate(q);
        // Values that saturate are entered again with themselves.
        table[v.bits()] = T::saturate(to.quantize(f(from.dequantize(v.to_i32()))));
    }
    table
}

/// Demands that scale (operand `i`) and zero point (operand `i + 1`, where given) are single, and
/// the zero point of type `element`.
pub(super) fn check_params(
    inputs: &Facts<'_>,
    i: usize,
    element: ElementType,
) -> Result<(), ModelError> {
    inputs.element(i, &[ElementType::F32])?;
    if let Some(zero) = inputs.optional(i + 1)
        && zero.ty.element != element
    {
        return Err(ModelError::operand_type(
            operand_name(i + 1),
            zero.ty.element,
            element.name(),
        ));
    }
    inputs.length(i, &Dim::Known(1))?;
    inputs.length(i + 1, &Dim::Known(1))
}

/// Parameters from scale operand `i` and zero point operand `i + 1`.
pub(super) fn read_params(
    inputs: &Inputs<'_>,
    i: usize,
    element: ElementType,
) -> Result<QParams, ModelError> {
    params(
        inputs.get(i)?,
        inputs.optional(i + 1),
        element,
        &operand_name(i),
    )
}

/// Types of the element-wise operators of two tensors: A, its parameters, B, its parameters, and
/// the result's parameters.
pub(super) fn infer_binary(inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
    let element = inputs.element(0, &BYTES)?;
    inputs.same_element(3)?;
    for i in [1, 4, 6] {
        check_params(inputs, i, element)?;
    }
    let shape = match (inputs.dims(0)?, inputs.dims(3)?) {
        (Some(a), Some(b)) => Some(output_dims(a, b)?),
        _ => None,
    };
    Ok(vec![TensorType { element, shape }])
}

/// `quantize(f(dequantize(a), dequantize(b)))`, with broadcasting.
pub(super) fn run_binary(
    cx: &mut RunContext<'_>,
    inputs: &Inputs<'_>,
    shape: &[usize],
    f: impl Fn(f32, f32) -> f32,
) -> Result<Vec<Tensor>, ModelError> {
    fn go<T: Byte, F: Fn(f32, f32) -> f32>(
        cx: &mut RunContext<'_>,
        inputs: &Inputs<'_>,
        shape: &[usize],
        f: F,
    ) -> Result<Tensor, ModelError> {
        let (a, b) = (inputs.get(0)?, inputs.get(3)?);
        let (pa, pb) = (
            read_params(inputs, 1, T::TYPE)?,
            read_params(inputs, 4, T::TYPE)?,
        );
        let pc = read_params(inputs, 6, T::TYPE)?;
        let real = |p: &QParams| {
            let mut table = [0f32; 256];
            for q in -128..=255 {
                let v = T::saturate(q);
                table[v.bits()] = p.dequantize(v.to_i32());
            }
            table
        };
        let (ra, rb) = (real(&pa), real(&pb));
        let mut out = cx.scratch::<T>(shape)?;
        zip(
            (slice_of::<T>(a, 0)?, a.shape()),
            (slice_of::<T>(b, 3)?, b.shape()),
            shape,
            &mut out,
            |x: T, y: T| T::saturate(pc.quantize(f(ra[x.bits()], rb[y.bits()]))),
        );
        cx.tensor(shape, out)
    }
    let out = match inputs.get(0)?.element_type() {
        ElementType::U8 => go::<u8, _>(cx, inputs, shape, f),
        ElementType::I8 => go::<i8, _>(cx, inputs, shape, f),
        other => Err(ModelError::operand_type(operand_name(0), other, "u8 or i8")),
    };
    Ok(vec![out?])
}
