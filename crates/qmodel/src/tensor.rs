//! Tensors: a shape and row-major data of one element type.

use std::fmt;

use qformat::{bf16, f16};

use crate::ModelError;

macro_rules! element_types {
    ($($variant:ident($ty:ty), $name:literal, $onnx:literal = $code:literal, $doc:literal;)*) => {
        /// An element type that a [`Tensor`] can hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ElementType {
            $(#[doc = $doc] $variant,)*
        }

        impl ElementType {
            /// Every element type, in declaration order.
            pub const ALL: &'static [ElementType] = &[$(ElementType::$variant),*];

            /// The short name, as in Rust: `f32`, `u8`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(ElementType::$variant => $name),* }
            }

            /// The name in ONNX (`TensorProto.DataType`): `FLOAT`, `UINT8`.
            #[must_use]
            pub const fn onnx_name(self) -> &'static str {
                match self { $(ElementType::$variant => $onnx),* }
            }

            /// The number in ONNX (`TensorProto.DataType`).
            #[must_use]
            pub const fn onnx_code(self) -> i32 {
                match self { $(ElementType::$variant => $code),* }
            }

            /// Bytes of one element in ONNX's `raw_data`.
            #[must_use]
            pub const fn bytes(self) -> usize {
                match self { $(ElementType::$variant => size_of::<$ty>()),* }
            }
        }

        /// The names of all types, for error messages.
        pub(crate) const ALL_NAMES: &str = concat!($($name, " "),*);

        /// Row-major elements of one type.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum TensorData {
            $(#[doc = $doc] $variant(Vec<$ty>),)*
        }

        impl TensorData {
            /// The element type.
            #[must_use]
            pub const fn element_type(&self) -> ElementType {
                match self { $(TensorData::$variant(_) => ElementType::$variant),* }
            }

            /// Number of elements.
            #[must_use]
            pub const fn len(&self) -> usize {
                match self { $(TensorData::$variant(v) => v.len()),* }
            }

            /// Whether there are no elements.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// `n` default elements (zero, or false).
            #[must_use]
            pub fn zeros(ty: ElementType, n: usize) -> TensorData {
                match ty {
                    $(ElementType::$variant =>
                        TensorData::$variant(vec![<$ty>::default(); n])),*
                }
            }
        }

        $(
            impl sealed::Sealed for $ty {}
            impl TensorElement for $ty {
                const TYPE: ElementType = ElementType::$variant;
                fn slice(data: &TensorData) -> Option<&[$ty]> {
                    match data { TensorData::$variant(v) => Some(v), _ => None }
                }
                fn slice_mut(data: &mut TensorData) -> Option<&mut Vec<$ty>> {
                    match data { TensorData::$variant(v) => Some(v), _ => None }
                }
                fn capacity(data: &TensorData) -> Option<usize> {
                    match data { TensorData::$variant(v) => Some(v.capacity()), _ => None }
                }
                fn into_vec(data: TensorData) -> Option<Vec<$ty>> {
                    match data { TensorData::$variant(v) => Some(v), _ => None }
                }
                fn wrap(v: Vec<$ty>) -> TensorData {
                    TensorData::$variant(v)
                }
            }
            impl From<Vec<$ty>> for TensorData {
                fn from(v: Vec<$ty>) -> TensorData {
                    TensorData::$variant(v)
                }
            }
        )*
    };
}

element_types! {
    F32(f32), "f32", "FLOAT" = 1, "IEEE 754 binary32.";
    U8(u8), "u8", "UINT8" = 2, "Unsigned 8-bit integer.";
    I8(i8), "i8", "INT8" = 3, "Signed 8-bit integer.";
    U16(u16), "u16", "UINT16" = 4, "Unsigned 16-bit integer.";
    I16(i16), "i16", "INT16" = 5, "Signed 16-bit integer.";
    I32(i32), "i32", "INT32" = 6, "Signed 32-bit integer.";
    I64(i64), "i64", "INT64" = 7, "Signed 64-bit integer: shapes and axes.";
    Bool(bool), "bool", "BOOL" = 9, "Boolean.";
    F16(f16), "f16", "FLOAT16" = 10, "IEEE 754 binary16.";
    F64(f64), "f64", "DOUBLE" = 11, "IEEE 754 binary64.";
    Bf16(bf16), "bf16", "BFLOAT16" = 16, "bfloat16.";
}

impl ElementType {
    /// The type of an ONNX number, if it is one of ours.
    #[must_use]
    pub fn from_onnx_code(code: i32) -> Option<ElementType> {
        ElementType::ALL
            .iter()
            .copied()
            .find(|t| t.onnx_code() == code)
    }

    /// Whether this is a floating-point type.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            ElementType::F32 | ElementType::F64 | ElementType::F16 | ElementType::Bf16
        )
    }

    /// The type of quantized numbers that this is, if it is one.
    #[must_use]
    pub const fn dtype(self) -> Option<qformat::DType> {
        use qformat::DType;
        Some(match self {
            ElementType::F32 => DType::F32,
            ElementType::U8 => DType::U8,
            ElementType::I8 => DType::I8,
            ElementType::U16 => DType::U16,
            ElementType::I16 => DType::I16,
            ElementType::I32 => DType::I32,
            ElementType::F16 => DType::F16,
            ElementType::Bf16 => DType::Bf16,
            ElementType::I64 | ElementType::Bool | ElementType::F64 => return None,
        })
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that tensors can hold.
pub trait TensorElement:
    Copy + Default + PartialEq + fmt::Debug + Send + Sync + sealed::Sealed + 'static
{
    /// Its element type.
    const TYPE: ElementType;
    /// The elements of `data`, if they are of this type.
    fn slice(data: &TensorData) -> Option<&[Self]>;
    /// The elements of `data` for writing, if they are of this type.
    fn slice_mut(data: &mut TensorData) -> Option<&mut Vec<Self>>;
    /// How many elements fit into the buffer of `data`, if it is of this type.
    fn capacity(data: &TensorData) -> Option<usize>;
    /// The elements of `data` by value, if they are of this type.
    fn into_vec(data: TensorData) -> Option<Vec<Self>>;
    /// Data from elements.
    fn wrap(v: Vec<Self>) -> TensorData;
}

/// A shape and the row-major elements that fill it. A scalar has the shape `[]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: TensorData,
}

/// Number of elements of a shape; `None` where it cannot be counted.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    let extent = extent(shape)?;
    Some(if shape.contains(&0) { 0 } else { extent })
}

/// The product of a shape's dimensions other than zero. Where it fits, so does the product of any
/// of the dimensions; and it bounds how often loops over some of them can turn, which the number
/// of elements does not when that is zero.
pub(crate) fn extent(shape: &[usize]) -> Option<usize> {
    let most = isize::MAX.unsigned_abs();
    shape
        .iter()
        .filter(|&&d| d != 0)
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= most)
}

impl Tensor {
    /// A tensor from its shape and elements.
    ///
    /// # Errors
    ///
    /// [`ModelError::DataLength`] unless the elements fill the shape exactly.
    ///
    /// ```
    /// use qmodel::Tensor;
    /// let t = Tensor::new(&[2, 3], vec![1f32, 2., 3., 4., 5., 6.])?;
    /// assert_eq!(t.as_slice::<f32>(), Some(&[1., 2., 3., 4., 5., 6.][..]));
    /// assert!(Tensor::new(&[2, 3], vec![1f32]).is_err());
    /// # Ok::<(), qmodel::ModelError>(())
    /// ```
    pub fn new(shape: &[usize], data: impl Into<TensorData>) -> Result<Tensor, ModelError> {
        Tensor::named("", shape, data.into())
    }

    /// [`Tensor::new`], with the name to use in an error.
    pub(crate) fn named(
        name: &str,
        shape: &[usize],
        data: TensorData,
    ) -> Result<Tensor, ModelError> {
        let expected = element_count(shape).unwrap_or(usize::MAX);
        if data.len() == expected {
            Ok(Tensor {
                shape: shape.to_vec(),
                data,
            })
        } else {
            Err(ModelError::DataLength {
                tensor: name.to_owned(),
                shape: shape.to_vec(),
                given: data.len(),
                expected,
                unit: "elements",
            })
        }
    }

    /// A tensor of shape `[]`.
    #[must_use]
    pub fn scalar<T: TensorElement>(value: T) -> Tensor {
        Tensor {
            shape: Vec::new(),
            data: T::wrap(vec![value]),
        }
    }

    /// A tensor of shape `[n]`.
    #[must_use]
    pub fn vector<T: TensorElement>(values: Vec<T>) -> Tensor {
        Tensor {
            shape: vec![values.len()],
            data: T::wrap(values),
        }
    }

    /// The dimensions, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of dimensions.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The element type.
    #[must_use]
    pub fn element_type(&self) -> ElementType {
        self.data.element_type()
    }

    /// The elements.
    #[must_use]
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// The elements, by value.
    #[must_use]
    pub fn into_data(self) -> TensorData {
        self.data
    }

    /// The elements, if they are of type `T`.
    #[must_use]
    pub fn as_slice<T: TensorElement>(&self) -> Option<&[T]> {
        T::slice(&self.data)
    }

    /// The elements for writing, if they are of type `T`.
    #[must_use]
    pub fn as_mut_slice<T: TensorElement>(&mut self) -> Option<&mut [T]> {
        T::slice_mut(&mut self.data).map(Vec::as_mut_slice)
    }

    /// A tensor of the same shape around data of the same length.
    pub(crate) fn with_data(&self, data: TensorData) -> Tensor {
        debug_assert_eq!(data.len(), self.len());
        Tensor {
            shape: self.shape.clone(),
            data,
        }
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    ///
    /// [`ModelError::DataLength`] unless the elements fill the new shape exactly.
    pub fn reshaped(self, shape: &[usize]) -> Result<Tensor, ModelError> {
        Tensor::named("", shape, self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_found_again() {
        for &t in ElementType::ALL {
            assert_eq!(ElementType::from_onnx_code(t.onnx_code()), Some(t));
            assert_eq!(TensorData::zeros(t, 3).element_type(), t);
            assert_eq!(TensorData::zeros(t, 3).len(), 3);
            if let Some(d) = t.dtype() {
                assert_eq!(
                    (d.name(), d.onnx_name(), d.onnx_code()),
                    (t.name(), t.onnx_name(), t.onnx_code())
                );
            }
        }
        assert_eq!(ElementType::from_onnx_code(8), None);
    }

    #[test]
    fn shapes_must_be_filled() {
        assert!(Tensor::new(&[usize::MAX, usize::MAX], vec![0u8; 4]).is_err());
        assert!(Tensor::new(&[9, 0], Vec::<u8>::new()).is_ok());
        // No elements, but loops over the first dimension would not end.
        assert!(Tensor::new(&[usize::MAX, 0], Vec::<u8>::new()).is_err());
        assert!(Tensor::new(&[], vec![1i64]).is_ok());
        assert!(Tensor::scalar(1f32).reshaped(&[1, 1]).is_ok());
        assert!(Tensor::scalar(1f32).reshaped(&[2]).is_err());
    }
}
