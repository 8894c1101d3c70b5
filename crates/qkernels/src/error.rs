//! The one error type of the crate.

use alloc::string::String;
use qformat::DType;
use thiserror::Error;

use crate::Arithmetic;

/// What can be wrong with a call.
///
/// Every variant names the argument, what was given, and what is allowed. A call that returns an
/// error has written nothing to its output.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A name that no instruction set tier has.
    #[error("instruction set \"{given}\" is unknown: use one of {known}")]
    UnknownIsa {
        /// The name as given.
        given: String,
        /// The names of the whole table, lowest tier first.
        known: &'static str,
    },
    /// A tier that exists but cannot run here.
    #[error("instruction set {name} cannot run here: {reason}")]
    IsaNotRunnable {
        /// Name of the tier.
        name: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// A slice of the wrong length.
    #[error("{what} has {given} elements, but {expected} are needed")]
    Length {
        /// Which argument.
        what: &'static str,
        /// Its length.
        given: usize,
        /// The length needed.
        expected: usize,
    },
    /// A row stride that makes rows overlap.
    #[error("row_stride {given} is shorter than the {cols} columns of a row")]
    Stride {
        /// The stride as given, in elements.
        given: usize,
        /// Columns of the matrix: the least stride.
        cols: usize,
    },
    /// A matrix that does not fit the address space, or whose packed form does not fit memory.
    #[error("a matrix of {rows} rows with stride {row_stride} does not fit memory")]
    TooLarge {
        /// Rows of the matrix.
        rows: usize,
        /// Its row stride, in elements.
        row_stride: usize,
    },
    /// A matrix whose shape does not fit the others.
    #[error("{what} is {}x{}, but {}x{} is needed", given.0, given.1, expected.0, expected.1)]
    Shape {
        /// Which argument.
        what: &'static str,
        /// Rows and columns as given.
        given: (usize, usize),
        /// Rows and columns needed.
        expected: (usize, usize),
    },
    /// A depth at which an exact sum could leave i32.
    #[error(
        "a sum of {depth} products of magnitude up to {product} can leave i32: at most {max} fit"
    )]
    Depth {
        /// Number of products in a sum, as given.
        depth: usize,
        /// Largest magnitude of one product, zero points taken off.
        product: u64,
        /// Largest depth that is exact.
        max: usize,
    },
    /// A bias so large that adding it to the accumulator could leave i32.
    #[error("bias {given} is not allowed: |bias| may be at most {max} at this depth")]
    Bias {
        /// The bias as given.
        given: i32,
        /// Largest magnitude allowed.
        max: i32,
    },
    /// Parameters of a quantized output that its type cannot hold.
    #[error(
        "output parameters zero_point {zero_point}, min {min}, max {max} are not allowed: \
         all must be values of {dtype}, and min <= max"
    )]
    OutParams {
        /// Zero point as given.
        zero_point: i32,
        /// Lowest output value as given.
        min: i32,
        /// Highest output value as given.
        max: i32,
        /// Element type of the output.
        dtype: DType,
    },
    /// A clamp with a NaN end, or with its ends swapped.
    #[error("clamp [{min}, {max}] is not allowed: neither end may be NaN, and min <= max")]
    Clamp {
        /// Lower end as given.
        min: f32,
        /// Upper end as given.
        max: f32,
    },
    /// An epilogue step that the output type has no use for.
    #[error("{step} is not possible with {output} output: {hint}")]
    Epilogue {
        /// The step asked for.
        step: &'static str,
        /// The output type.
        output: DType,
        /// What to do instead.
        hint: &'static str,
    },
    /// Quantization parameters of another element type than the slice.
    #[error("quantization parameters are for {given}, but the elements are {expected}")]
    Type {
        /// Type of the parameters.
        given: DType,
        /// Type of the slice.
        expected: DType,
    },
    /// An operand that the arithmetic does not take.
    #[error("{what} has elements of {given}, which {arithmetic:?} arithmetic does not take")]
    Arithmetic {
        /// Which argument.
        what: &'static str,
        /// Type of its elements.
        given: DType,
        /// The arithmetic asked for, or that B was packed for.
        arithmetic: Arithmetic,
    },
    /// Zero points of floats.
    #[error("zero points of a product of {dtype} are not possible: leave them at 0")]
    FloatZeroPoint {
        /// Type of B.
        dtype: DType,
    },
    /// Activations whose range has no scale.
    #[error(
        "values from {min} to {max}{} are too far apart to be quantized in f32",
        row.map(|r| alloc::format!(" in row {r}")).unwrap_or_default()
    )]
    DynamicRange {
        /// The row, where each has its own range.
        row: Option<usize>,
        /// Lowest finite value.
        min: f32,
        /// Highest finite value.
        max: f32,
    },
    /// Matrices of a batch that would overlap where they are written.
    #[error(
        "{count} matrices {stride} elements apart overlap: stride must be at least {span}, or rows must leave room for all of them"
    )]
    Overlap {
        /// Number of matrices.
        count: usize,
        /// Distance between them, in elements.
        stride: usize,
        /// Elements from the first to the last of a matrix.
        span: usize,
    },
    /// Scratch memory that cannot be had.
    #[error("no memory for a workspace of {bytes} bytes")]
    Memory {
        /// Bytes needed.
        bytes: usize,
    },
    /// Bytes that are no packed weights, or damaged ones.
    #[error("the bytes cannot be read as packed weights: {reason}")]
    Stored {
        /// What is wrong with them.
        reason: String,
    },
    /// Stored weights in a layout that no tier of this machine reads.
    #[error(
        "the weights are packed for kernel \"{kernel}\", which cannot run here: pack them again"
    )]
    StoredFor {
        /// The kernel's name as stored.
        kernel: String,
    },
    /// Histogram bins of a width or number that cannot be.
    #[error(
        "{bins} bins of width 2^{exponent} are not allowed: the exponent must be -149 to 127, and \
         a side may have at most {max_bins} bins"
    )]
    Bins {
        /// Exponent of the width as given.
        exponent: i32,
        /// Bins of the longer side as given.
        bins: usize,
        /// Most bins of a side.
        max_bins: usize,
    },
    /// More values than an exact sum has room for.
    #[error("{given} values are too many for exact sums of their squares: at most {max} fit")]
    Terms {
        /// Number of values as given.
        given: usize,
        /// Most values of one call.
        max: u64,
    },
    /// A convolution whose windows do not fit its image.
    #[error(
        "{what} {given} is not possible for the {axis} of a convolution: \
         {} to {} are", allowed.0, allowed.1
    )]
    Window {
        /// Which axis: height or width.
        axis: &'static str,
        /// Which of its parameters.
        what: &'static str,
        /// The parameter as given, in pixels or taps.
        given: usize,
        /// Least and largest value allowed.
        allowed: (usize, usize),
    },
    /// Output channels that cannot be cut into groups of equal size.
    #[error("{outputs} output channels cannot be cut into {groups} groups of equal size")]
    Groups {
        /// Number of groups as given.
        groups: usize,
        /// Number of output channels.
        outputs: usize,
    },
    /// A zero point that stands for padding but is no value of the type.
    #[error("{what}: {given} is not a value of {dtype}, so padding cannot stand for it")]
    ZeroPoint {
        /// Which argument.
        what: &'static str,
        /// The zero point as given.
        given: i32,
        /// Element type of the operand.
        dtype: DType,
    },
    /// Weights that were packed for another kernel.
    #[error("the weights are packed for kernel {packed}, but kernel {asked} is to run")]
    PackedFor {
        /// Kernel that the weights are packed for.
        packed: &'static str,
        /// Kernel that was to run.
        asked: &'static str,
    },
}

/// `Ok` when a slice has the length that is needed.
#[inline]
pub(crate) fn check_len(
    what: &'static str,
    given: usize,
    expected: usize,
) -> Result<(), KernelError> {
    if given == expected {
        Ok(())
    } else {
        Err(KernelError::Length {
            what,
            given,
            expected,
        })
    }
}

/// `Ok` when a matrix has the rows and columns that are needed.
#[inline]
pub(crate) fn check_shape(
    what: &'static str,
    given: (usize, usize),
    expected: (usize, usize),
) -> Result<(), KernelError> {
    if given == expected {
        Ok(())
    } else {
        Err(KernelError::Shape {
            what,
            given,
            expected,
        })
    }
}
