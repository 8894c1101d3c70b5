//! Element types that products take, and the arithmetic that each has.

use bytemuck::Pod;
use half::{bf16, f16};
use qformat::{DType, Element, QuantElement};

use crate::MatRef;

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
    impl Sealed for i16 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// How a product multiplies and adds. It is chosen when B is packed, and A must be of its type.
///
/// ```
/// use qkernels::{Arithmetic, Operand};
/// assert_eq!(<u8 as Operand>::ARITHMETIC, Arithmetic::Int8);
/// assert!(!Arithmetic::Bf16Hardware.exact());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arithmetic {
    /// u8 and i8 in any combination, summed in i32: exact.
    Int8,
    /// i16 by i16, summed in i32 where the values at hand prove that it fits, or in i64: exact.
    Int16,
    /// f16 by f16, summed in f32: each output element is one chain of additions in the order of
    /// K. (A product of two f16 is exact in f32, so fused or not is the same.)
    F16,
    /// f16 by f16, summed in f16 as hardware without wider sums does: each product rounded to
    /// f16, then each sum, in the order of K.
    F16Sums,
    /// bf16 by bf16, summed in f32: each output element is one chain of fused multiply-adds in the
    /// order of K.
    Bf16,
    /// bf16 by bf16 as the processor's own instruction does it (`vdpbf16ps`: pairs of products,
    /// subnormals flushed to zero), twice as fast on Zen 4. **Outside the contract**: the bits depend on
    /// the processor, and one without the instruction, or where it is slow (Intel's), does as
    /// [`Bf16`](Self::Bf16).
    Bf16Hardware,
}

impl Arithmetic {
    /// Whether the result is the same on every tier. Integer sums are exact besides.
    #[must_use]
    pub const fn exact(self) -> bool {
        !matches!(self, Arithmetic::Bf16Hardware)
    }

    /// Whether operands are integers, with zero points.
    #[must_use]
    pub const fn integer(self) -> bool {
        matches!(self, Arithmetic::Int8 | Arithmetic::Int16)
    }

    /// Whether operands of this type can be multiplied so.
    #[must_use]
    pub const fn takes(self, dtype: DType) -> bool {
        match self {
            Arithmetic::Int8 => matches!(dtype, DType::U8 | DType::I8),
            Arithmetic::Int16 => matches!(dtype, DType::I16),
            Arithmetic::F16 | Arithmetic::F16Sums => matches!(dtype, DType::F16),
            Arithmetic::Bf16 | Arithmetic::Bf16Hardware => matches!(dtype, DType::Bf16),
        }
    }
}

/// Element types of A and B: u8, i8, i16, f16 and bf16.
pub trait Operand: Element + Pod + Default + Send + Sync + sealed::Sealed {
    /// The arithmetic that is used unless another is asked for.
    const ARITHMETIC: Arithmetic;
    /// The value of an integer; the bits of a float.
    #[doc(hidden)]
    fn int(self) -> i32;
    /// The value, exact.
    #[doc(hidden)]
    fn float(self) -> f32;
}

macro_rules! operands {
    ($($t:ty = $arithmetic:ident, |$x:ident| $int:expr, $float:expr;)*) => {$(
        impl Operand for $t {
            const ARITHMETIC: Arithmetic = Arithmetic::$arithmetic;
            #[inline(always)]
            fn int(self) -> i32 {
                let $x = self;
                $int
            }
            #[inline(always)]
            fn float(self) -> f32 {
                let $x = self;
                $float
            }
        }
    )*};
}

operands! {
    u8 = Int8, |x| i32::from(x), f32::from(x);
    i8 = Int8, |x| i32::from(x), f32::from(x);
    i16 = Int16, |x| i32::from(x), f32::from(x);
    f16 = F16, |x| i32::from(x.to_bits()), crate::portable::f16_bits_to_f32(x.to_bits());
    bf16 = Bf16, |x| i32::from(x.to_bits()), crate::portable::bf16_bits_to_f32(x.to_bits());
}

/// Bytes: u8 and i8.
pub trait Lhs: Operand + QuantElement {}

impl Lhs for u8 {}
impl Lhs for i8 {}

/// A matrix of any type: what functions generic over the type hand to those that are not, so that
/// kernels are compiled in this crate once, and not in every crate that calls them.
#[derive(Clone, Copy)]
pub(crate) enum Matrix<'a> {
    U8(MatRef<'a, u8>),
    I8(MatRef<'a, i8>),
    I16(MatRef<'a, i16>),
    F16(MatRef<'a, f16>),
    Bf16(MatRef<'a, bf16>),
}

/// Calls one generic expression for whichever matrix it is.
macro_rules! with_typed {
    ($matrix:expr, $m:ident => $call:expr) => {
        match $matrix {
            $crate::operand::Matrix::U8($m) => $call,
            $crate::operand::Matrix::I8($m) => $call,
            $crate::operand::Matrix::I16($m) => $call,
            $crate::operand::Matrix::F16($m) => $call,
            $crate::operand::Matrix::Bf16($m) => $call,
        }
    };
}
pub(crate) use with_typed;

impl<'a, T: Operand> From<MatRef<'a, T>> for Matrix<'a> {
    #[inline]
    fn from(m: MatRef<'a, T>) -> Self {
        match T::DTYPE {
            DType::U8 => Matrix::U8(m.cast()),
            DType::I8 => Matrix::I8(m.cast()),
            DType::I16 => Matrix::I16(m.cast()),
            DType::F16 => Matrix::F16(m.cast()),
            // The only one left: the trait is sealed.
            _ => Matrix::Bf16(m.cast()),
        }
    }
}
