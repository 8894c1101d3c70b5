//! Integer matrix products and convolutions, which the quantized operators share: packed weights,
//! what happens to the sums, and the drivers over `qkernels`.
//!
//! Sums are exact i32 whatever the operator; the operators differ in what they make of them
//! ([`Finish`]) and in where their parameters come from.

pub(crate) mod conv;
pub(crate) mod product;
mod weights;

use qformat::QParams;
use qkernels::{Epilogue, Lhs, MatMut, MatRef, OutMut, OutParams, Scale, ZeroPoint, ZeroPoints};

pub(crate) use self::weights::Weights;
use crate::ops::RunContext;
use crate::{ElementType, ModelError, Tensor, TensorData};

/// Factors of the sums.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Factor {
    None,
    Tensor(f32),
    Channel(Vec<f32>),
}

impl Factor {
    /// One factor, or one for each channel.
    pub(crate) fn of(factors: Vec<f32>) -> Factor {
        match factors[..] {
            [one] => Factor::Tensor(one),
            _ => Factor::Channel(factors),
        }
    }
}

/// The form of the results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Output {
    I32,
    F32,
    U8(OutParams),
    I8(OutParams),
}

impl Output {
    /// Quantized results; `clamp` is a fused Relu or Clip, in real numbers. Quantization is
    /// monotonic, so clamping the integers at the quantized limits gives the same as clamping
    /// before it.
    pub(crate) fn quantized(p: &QParams, clamp: Option<(f32, f32)>) -> Result<Output, ModelError> {
        let mut out = OutParams::from(p);
        if let Some((low, high)) = clamp {
            out.min = p.quantize(low);
            // Where the bounds are swapped, the upper one wins.
            out.max = p.quantize(high);
            out.min = out.min.min(out.max);
        }
        match p.dtype() {
            qformat::DType::U8 => Ok(Output::U8(out)),
            qformat::DType::I8 => Ok(Output::I8(out)),
            _ => Err(ModelError::operand(
                "output zero point",
                p.dtype().name(),
                "u8 or i8",
            )),
        }
    }

    pub(crate) fn element(self) -> ElementType {
        match self {
            Output::I32 => ElementType::I32,
            Output::F32 => ElementType::F32,
            Output::U8(_) => ElementType::U8,
            Output::I8(_) => ElementType::I8,
        }
    }
}

/// What becomes of the sums of one operator, channel by channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finish {
    /// In units of the sums.
    pub(crate) bias: Option<Vec<i32>>,
    pub(crate) factor: Factor,
    /// In units of the scaled sums.
    pub(crate) bias_f32: Option<Vec<f32>>,
    /// Of f32 results.
    pub(crate) clamp: Option<(f32, f32)>,
    pub(crate) output: Output,
}

impl Finish {
    /// The sums themselves.
    pub(crate) const SUMS: Finish = Finish {
        bias: None,
        factor: Factor::None,
        bias_f32: None,
        clamp: None,
        output: Output::I32,
    };

    /// The epilogue of a range of channels.
    fn epilogue(&self, channels: std::ops::Range<usize>) -> Epilogue<'_> {
        Epilogue {
            bias: self.bias.as_ref().map(|b| &b[channels.clone()]),
            scale: match &self.factor {
                Factor::None => Scale::None,
                Factor::Tensor(f) => Scale::Tensor(*f),
                Factor::Channel(f) => Scale::Channel(&f[channels.clone()]),
            },
            bias_f32: self.bias_f32.as_ref().map(|b| &b[channels]),
            clamp: self.clamp,
            ..Epilogue::default()
        }
    }

    /// The place of `rows` results of `cols` channels in the buffer of all.
    fn results<'d>(
        &self,
        data: &'d mut TensorData,
        size: (usize, usize),
        place: Place,
    ) -> Result<OutMut<'d>, ModelError> {
        fn window<T>(
            data: &mut [T],
            (rows, cols): (usize, usize),
            place: Place,
        ) -> Result<MatMut<'_, T>, ModelError> {
            let from = data.get_mut(place.offset..).unwrap_or_default();
            Ok(MatMut::with_stride(from, rows, cols, place.stride)?)
        }
        Ok(match (self.output, data) {
            (Output::I32, TensorData::I32(v)) => OutMut::I32(window(v, size, place)?),
            (Output::F32, TensorData::F32(v)) => OutMut::F32(window(v, size, place)?),
            (Output::U8(p), TensorData::U8(v)) => OutMut::U8(window(v, size, place)?, p),
            (Output::I8(p), TensorData::I8(v)) => OutMut::I8(window(v, size, place)?, p),
            (_, other) => {
                return Err(ModelError::operand_type(
                    "output",
                    other.element_type(),
                    self.output.element().name(),
                ));
            }
        })
    }

    /// Demands that everything given for each channel is there for `channels` of them.
    pub(crate) fn check(&self, channels: usize) -> Result<(), ModelError> {
        let lengths = [
            ("bias", self.bias.as_ref().map(Vec::len)),
            ("bias", self.bias_f32.as_ref().map(Vec::len)),
            (
                "scales",
                match &self.factor {
                    Factor::Channel(f) => Some(f.len()),
                    _ => None,
                },
            ),
        ];
        match lengths
            .into_iter()
            .find(|(_, n)| n.is_some_and(|n| n != channels))
        {
            None => Ok(()),
            Some((what, n)) => Err(ModelError::operand(
                what,
                format!("{} elements", n.unwrap_or_default()),
                format!("one for each of {channels} channels, or one at all"),
            )),
        }
    }
}

/// A buffer for results of the given form.
pub(crate) fn result_buffer(
    cx: &mut RunContext<'_>,
    output: Output,
    shape: &[usize],
) -> Result<TensorData, ModelError> {
    Ok(match output {
        Output::I32 => TensorData::I32(cx.scratch(shape)?),
        Output::F32 => TensorData::F32(cx.scratch(shape)?),
        Output::U8(_) => TensorData::U8(cx.scratch(shape)?),
        Output::I8(_) => TensorData::I8(cx.scratch(shape)?),
    })
}

/// Where the results of one product go: rows that are `stride` apart, from `offset` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) offset: usize,
    pub(crate) stride: usize,
}

/// One product: the rows of `a` by packed weights, whose columns are `channels` of the operator's.
pub(crate) fn multiply<A: Lhs>(
    cx: &mut RunContext<'_>,
    a: MatRef<'_, A>,
    a_zero: ZeroPoint<'_>,
    weights: &Weights,
    (finish, channels): (&Finish, std::ops::Range<usize>),
    results: &mut TensorData,
    place: Place,
) -> Result<(), ModelError> {
    let (rows, cols) = (a.rows(), weights.columns());
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let out = finish.results(results, (rows, cols), place)?;
    qkernels::gemm(
        a,
        weights.packed(),
        ZeroPoints {
            a: a_zero,
            b: weights.zero_point(),
        },
        &finish.epilogue(channels),
        out,
        cx.workspace,
        cx.threads,
    )?;
    Ok(())
}

/// Scales as a list; they must be positive and finite.
pub(crate) fn scales(t: &Tensor, what: &str) -> Result<Vec<f32>, ModelError> {
    let v = t
        .as_slice::<f32>()
        .ok_or_else(|| ModelError::operand_type(what, t.element_type(), "f32"))?;
    match v.iter().find(|s| !(**s > 0.0 && s.is_finite())) {
        None => Ok(v.to_vec()),
        Some(s) => Err(ModelError::operand(
            what,
            s.to_string(),
            "positive and finite",
        )),
    }
}

/// The one scale of a tensor.
pub(crate) fn scale(t: &Tensor, what: &str) -> Result<f32, ModelError> {
    match scales(t, what)?[..] {
        [s] => Ok(s),
        ref v => Err(ModelError::operand(
            what,
            format!("{} elements", v.len()),
            "one",
        )),
    }
}

/// Zero points as a list.
pub(crate) fn zero_points(t: &Tensor, what: &str) -> Result<Vec<i32>, ModelError> {
    match t.data() {
        TensorData::U8(v) => Ok(v.iter().map(|&z| i32::from(z)).collect()),
        TensorData::I8(v) => Ok(v.iter().map(|&z| i32::from(z)).collect()),
        TensorData::U16(v) => Ok(v.iter().map(|&z| i32::from(z)).collect()),
        TensorData::I16(v) => Ok(v.iter().map(|&z| i32::from(z)).collect()),
        TensorData::I32(v) => Ok(v.clone()),
        other => Err(ModelError::operand_type(
            what,
            other.element_type(),
            "u8, i8, u16, i16 or i32",
        )),
    }
}

/// The one zero point of a tensor; 0 where it is not given.
pub(crate) fn zero_point(t: Option<&Tensor>, what: &str) -> Result<i32, ModelError> {
    let Some(t) = t else { return Ok(0) };
    match zero_points(t, what)?[..] {
        [z] => Ok(z),
        ref v => Err(ModelError::operand(
            what,
            format!("{} elements", v.len()),
            "one",
        )),
    }
}

/// Parameters of a whole tensor from its scale and zero point operands; the type is that of the
/// zero point.
pub(crate) fn params(
    scale_of: &Tensor,
    zero: Option<&Tensor>,
    default: ElementType,
    what: &str,
) -> Result<QParams, ModelError> {
    let element = zero.map_or(default, Tensor::element_type);
    let dtype = element
        .dtype()
        .ok_or_else(|| ModelError::operand_type(what, element, "u8, i8, u16, i16 or i32"))?;
    let s = scale(scale_of, what)?;
    Ok(QParams::new(
        s,
        zero_point(zero, what)?,
        dtype,
        qformat::Scheme::Affine,
    )?)
}
