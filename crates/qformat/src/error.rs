//! The one error type of the crate.

use alloc::string::String;
use thiserror::Error;

use crate::{DType, Scheme};

/// What can be wrong with a description of quantized numbers.
///
/// Every variant names the argument, what was given, and what is allowed.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A scale that is zero, negative, NaN or infinite.
    #[error("scale {given} is not allowed: it must be positive and finite")]
    Scale {
        /// The scale as given.
        given: f32,
    },
    /// A zero point outside the integer range of its type and scheme.
    #[error(
        "zero_point {given} is outside [{min}, {max}], the values of {dtype} under the {scheme} scheme"
    )]
    ZeroPoint {
        /// The zero point as given.
        given: i32,
        /// Lowest value allowed.
        min: i32,
        /// Highest value allowed.
        max: i32,
        /// Element type asked for.
        dtype: DType,
        /// Scheme asked for.
        scheme: Scheme,
    },
    /// A range with an infinite or NaN end, or with its ends swapped.
    #[error("range [{min}, {max}] is not allowed: both ends must be finite and min <= max")]
    Range {
        /// Lower end as given.
        min: f32,
        /// Upper end as given.
        max: f32,
    },
    /// A floating-point type where an integer type is needed.
    #[error("dtype {given} cannot hold quantized values: use an integer type such as i8 or u8")]
    NotAnInteger {
        /// The type as given.
        given: DType,
    },
    /// A name that no element type, scheme or format has.
    #[error("{what} \"{given}\" is unknown: use one of {allowed}")]
    Name {
        /// What was being named.
        what: &'static str,
        /// The name as given.
        given: String,
        /// The names that exist.
        allowed: &'static str,
    },
    /// An axis that the shape does not have.
    #[error("axis {axis} is not allowed: the tensor has rank {rank}")]
    Axis {
        /// The axis as given.
        axis: usize,
        /// Number of dimensions of the shape.
        rank: usize,
    },
    /// A block of length zero.
    #[error("block length 0 is not allowed: it must be at least 1")]
    Block,
    /// A number of elements or parameters that does not fit the shape.
    #[error("{what}: {given} given, {expected} expected")]
    Count {
        /// What was counted.
        what: &'static str,
        /// The number given.
        given: usize,
        /// The number expected.
        expected: usize,
    },
    /// Parameters of different type or scheme inside one tensor.
    #[error(
        "parameters of one tensor must share dtype and scheme: {given} differs from {expected}"
    )]
    Mixed {
        /// The type that differs.
        given: DType,
        /// The type of the first parameter.
        expected: DType,
    },
    /// A shape whose number of elements overflows `usize`.
    #[error("the shape has more elements than the address space")]
    ShapeOverflow,
    /// A width that a bit layout does not support.
    #[error("{what} {given} is not allowed: use {min} to {max}")]
    Width {
        /// What the number means.
        what: &'static str,
        /// The number given.
        given: u32,
        /// Lowest value allowed.
        min: u32,
        /// Highest value allowed.
        max: u32,
    },
}
