//! Element types: their ranges, accumulation types, and names in files.

use alloc::string::ToString;
use core::fmt;
use core::str::FromStr;

use half::{bf16, f16};

use crate::FormatError;

/// An element type.
///
/// `I4` and `U4` have their place in the list (range, names, quantization parameters); they have
/// no Rust element type, because two of them share a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum DType {
    /// Signed 4-bit integer.
    I4,
    /// Unsigned 4-bit integer.
    U4,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 32-bit integer: accumulators and biases.
    I32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
}

/// One line of the table of element types.
struct Facts {
    name: &'static str,
    bits: u32,
    /// Integer range; `None` for floats.
    range: Option<(i32, i32)>,
    accumulators: &'static [DType],
    onnx_name: &'static str,
    onnx_code: i32,
    safetensors: Option<&'static str>,
}

impl DType {
    /// Every element type, in declaration order.
    pub const ALL: [DType; 10] = [
        DType::I4,
        DType::U4,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::F16,
        DType::Bf16,
        DType::F32,
    ];

    /// The table. ONNX codes: `TensorProto.DataType` of onnx.proto3; safetensors names: its
    /// format description (which has no 4-bit integers).
    #[inline]
    const fn facts(self) -> Facts {
        const fn int(
            name: &'static str,
            bits: u32,
            range: (i32, i32),
            onnx_name: &'static str,
            onnx_code: i32,
            safetensors: Option<&'static str>,
        ) -> Facts {
            Facts {
                name,
                bits,
                range: Some(range),
                accumulators: &[DType::I32],
                onnx_name,
                onnx_code,
                safetensors,
            }
        }
        const fn float(
            name: &'static str,
            bits: u32,
            accumulators: &'static [DType],
            onnx_name: &'static str,
            onnx_code: i32,
            safetensors: &'static str,
        ) -> Facts {
            Facts {
                name,
                bits,
                range: None,
                accumulators,
                onnx_name,
                onnx_code,
                safetensors: Some(safetensors),
            }
        }
        match self {
            DType::I4 => int("i4", 4, (-8, 7), "INT4", 22, None),
            DType::U4 => int("u4", 4, (0, 15), "UINT4", 21, None),
            DType::I8 => int("i8", 8, (-128, 127), "INT8", 3, Some("I8")),
            DType::U8 => int("u8", 8, (0, 255), "UINT8", 2, Some("U8")),
            DType::I16 => int("i16", 16, (-32_768, 32_767), "INT16", 5, Some("I16")),
            DType::U16 => int("u16", 16, (0, 65_535), "UINT16", 4, Some("U16")),
            DType::I32 => int("i32", 32, (i32::MIN, i32::MAX), "INT32", 6, Some("I32")),
            DType::F16 => float("f16", 16, &[DType::F32, DType::F16], "FLOAT16", 10, "F16"),
            DType::Bf16 => float("bf16", 16, &[DType::F32], "BFLOAT16", 16, "BF16"),
            DType::F32 => float("f32", 32, &[DType::F32], "FLOAT", 1, "F32"),
        }
    }

    /// Width of one element in bits.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u32 {
        self.facts().bits
    }

    /// Bytes that `n` elements take when they are packed without gaps (two 4-bit values a byte).
    #[must_use]
    #[inline]
    pub const fn bytes_for(self, n: usize) -> usize {
        let bits = self.bits() as usize;
        // Exact without overflow: whole bytes of the element count first.
        n / 8 * bits + (n % 8 * bits).div_ceil(8)
    }

    /// Lowest and highest value, or `None` for floating-point types.
    #[must_use]
    #[inline]
    pub const fn int_range(self) -> Option<(i32, i32)> {
        self.facts().range
    }

    /// Whether this is a floating-point type.
    #[must_use]
    #[inline]
    pub const fn is_float(self) -> bool {
        self.facts().range.is_none()
    }

    /// Whether negative values exist.
    #[must_use]
    #[inline]
    pub const fn is_signed(self) -> bool {
        match self.facts().range {
            Some((min, _)) => min < 0,
            None => true,
        }
    }

    /// The types that sums of products of this type accumulate in; the first is the default.
    ///
    /// f16 accumulates in f32 or f16, bf16 in f32, integers in i32.
    #[must_use]
    #[inline]
    pub const fn accumulators(self) -> &'static [DType] {
        self.facts().accumulators
    }

    /// The short name used by this project, as in Rust: `i8`, `bf16`.
    #[must_use]
    #[inline]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The name in ONNX (`TensorProto.DataType`): `INT8`, `BFLOAT16`.
    #[must_use]
    #[inline]
    pub const fn onnx_name(self) -> &'static str {
        self.facts().onnx_name
    }

    /// The number in ONNX (`TensorProto.DataType`).
    #[must_use]
    #[inline]
    pub const fn onnx_code(self) -> i32 {
        self.facts().onnx_code
    }

    /// The type of an ONNX number, if it is one of ours.
    #[must_use]
    #[inline]
    pub fn from_onnx_code(code: i32) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.onnx_code() == code)
    }

    /// The name in safetensors headers, or `None` where that format has no such type.
    #[must_use]
    #[inline]
    pub const fn safetensors_name(self) -> Option<&'static str> {
        self.facts().safetensors
    }

    /// The type of a safetensors name, if it is one of ours.
    #[must_use]
    #[inline]
    pub fn from_safetensors_name(name: &str) -> Option<DType> {
        DType::ALL
            .into_iter()
            .find(|d| d.safetensors_name() == Some(name))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = FormatError;

    /// Reads the short name (`i8`), the ONNX name (`INT8`) or the safetensors name (`I8`).
    fn from_str(s: &str) -> Result<Self, FormatError> {
        DType::ALL
            .into_iter()
            .find(|d| d.name() == s || d.onnx_name() == s || d.safetensors_name() == Some(s))
            .ok_or_else(|| FormatError::Name {
                what: "dtype",
                given: s.to_string(),
                allowed: "i4, u4, i8, u8, i16, u16, i32, f16, bf16, f32",
            })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that stores elements of one [`DType`].
pub trait Element:
    Copy + Default + PartialEq + Send + Sync + fmt::Debug + sealed::Sealed + 'static
{
    /// The element type.
    const DTYPE: DType;
    /// The default type that sums of its products accumulate in.
    type Accumulator: Copy;
}

/// An integer [`Element`] that can hold quantized values.
pub trait QuantElement: Element + Ord {
    /// The value as an i32; always exact.
    fn to_i32(self) -> i32;
    /// The nearest value of this type: saturates at its ends.
    fn saturate(v: i32) -> Self;
}

macro_rules! elements {
    ($($ty:ty => $dtype:ident, $acc:ty;)*) => {$(
        impl sealed::Sealed for $ty {}
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            type Accumulator = $acc;
        }
    )*};
}
elements! {
    i8 => I8, i32;
    u8 => U8, i32;
    i16 => I16, i32;
    u16 => U16, i32;
    i32 => I32, i32;
    f16 => F16, f32;
    bf16 => Bf16, f32;
    f32 => F32, f32;
}

macro_rules! quant_elements {
    ($($ty:ty)*) => {$(
        impl QuantElement for $ty {
            #[inline]
            fn to_i32(self) -> i32 {
                i32::from(self)
            }
            #[inline]
            fn saturate(v: i32) -> Self {
                // The clamp makes the conversion exact.
                v.clamp(i32::from(<$ty>::MIN), i32::from(<$ty>::MAX)) as $ty
            }
        }
    )*};
}
quant_elements!(i8 u8 i16 u16 i32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_round_trip_and_are_unique() {
        for d in DType::ALL {
            assert_eq!(d.name().parse(), Ok(d));
            assert_eq!(d.onnx_name().parse(), Ok(d));
            assert_eq!(DType::from_onnx_code(d.onnx_code()), Some(d));
            if let Some(name) = d.safetensors_name() {
                assert_eq!(DType::from_safetensors_name(name), Some(d));
            }
        }
        assert!("int8x".parse::<DType>().is_err());
        assert_eq!(DType::from_onnx_code(0), None);
    }

    #[test]
    fn ranges_are_those_of_the_rust_types() {
        fn check<T: QuantElement>(min: T, max: T) {
            assert_eq!(T::DTYPE.int_range(), Some((min.to_i32(), max.to_i32())));
            assert_eq!(T::saturate(i32::MIN), min);
            assert_eq!(T::saturate(i32::MAX), max);
            assert_eq!(T::DTYPE.bits() as usize, 8 * size_of::<T>());
        }
        check(i8::MIN, i8::MAX);
        check(u8::MIN, u8::MAX);
        check(i16::MIN, i16::MAX);
        check(u16::MIN, u16::MAX);
        check(i32::MIN, i32::MAX);
    }

    #[test]
    fn four_bit_values_pack_two_a_byte() {
        assert_eq!(DType::I4.bytes_for(0), 0);
        assert_eq!(DType::I4.bytes_for(1), 1);
        assert_eq!(DType::I4.bytes_for(2), 1);
        assert_eq!(DType::U4.bytes_for(9), 5);
        assert_eq!(DType::F32.bytes_for(3), 12);
    }

    #[test]
    fn accumulators_follow_the_guide() {
        assert_eq!(DType::F16.accumulators(), [DType::F32, DType::F16]);
        assert_eq!(DType::Bf16.accumulators(), [DType::F32]);
        assert_eq!(DType::I16.accumulators(), [DType::I32]);
        assert_eq!(DType::I8.accumulators(), [DType::I32]);
    }
}
