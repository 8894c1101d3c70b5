//! The one error type of the crate.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use qformat::FormatError;
use qkernels::KernelError;
use thiserror::Error;

use crate::{NonFinite, ObserverKind};

/// What can go wrong while ranges are observed, merged, stored or chosen.
///
/// Every variant names the argument, what was given, and what is allowed.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CalibError {
    /// A description that `qformat` rejects: a bad axis, a floating-point target, and so on.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A kernel that refuses its arguments.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A slice whose length is not that of its shape.
    #[error("{argument} has {given} elements, but shape {shape:?} has {expected}")]
    Length {
        /// The argument with the wrong length.
        argument: &'static str,
        /// Its length.
        given: usize,
        /// The length that the shape asks for.
        expected: usize,
        /// The shape.
        shape: Vec<usize>,
    },
    /// A batch with another number of channels (or blocks) than the batches before it.
    #[error(
        "the batch has {given} channels or blocks on axis {axis}, but the batches before it had \
         {expected}"
    )]
    Channels {
        /// The axis of the channels or blocks.
        axis: usize,
        /// Channels of this batch.
        given: usize,
        /// Channels of every batch before it.
        expected: usize,
    },
    /// Strides that do not fit a shape and its elements.
    #[error("strides {given:?} do not fit shape {shape:?}: {reason}")]
    Strides {
        /// The strides, in elements.
        given: Vec<isize>,
        /// The shape.
        shape: Vec<usize>,
        /// What is wrong.
        reason: &'static str,
    },
    /// A batch with non-finite values under [`Policy::Error`](crate::Policy::Error). Nothing of
    /// the batch was recorded.
    #[error(
        "the batch holds {count} non-finite values, the first ({kind}) at element {index}: only \
         finite values are allowed under the policy \"error\""
    )]
    NonFinite {
        /// How many values are not finite.
        count: u64,
        /// Row-major index of the first.
        index: usize,
        /// What the first one is.
        kind: NonFinite,
    },
    /// A range was asked for, but no finite value was seen.
    #[error("no finite value was observed for group {group}: at least one is needed for a range")]
    NoData {
        /// The channel, or 0 per tensor.
        group: usize,
    },
    /// Two things that must agree and do not: observers to merge, or a request and an observer.
    #[error("{what} differs: {given} given, {expected} expected")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// What was given.
        given: String,
        /// What it must be.
        expected: String,
    },
    /// A batch that both of two shards have seen.
    #[error("batch {batch} is in both archives: each may be observed in one only")]
    Overlap {
        /// Index of the first such batch.
        batch: u64,
    },
    /// A file whose contents cannot be read, though its checksum is right.
    #[error("the calibration file cannot be read: {reason}")]
    Decode {
        /// What is wrong.
        reason: String,
    },
    /// Something that went wrong with one tensor of many.
    #[error("in tensor \"{tensor}\": {source}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What went wrong.
        source: Box<CalibError>,
    },
    /// A step that the phase of a training schedule does not allow.
    #[error("the schedule is in phase {given:?}: only {allowed} can be left")]
    Phase {
        /// The phase.
        given: crate::train::Phase,
        /// Phases in which the step is allowed.
        allowed: &'static str,
    },
    /// A bias, or what stands for one, beyond the integers of an accumulator.
    #[error("bias {bias} of channel {channel} at scale {scale} is beyond i32: use a larger scale")]
    Overflow {
        /// The channel.
        channel: usize,
        /// The bias.
        bias: f32,
        /// The step of the integers.
        scale: f32,
    },
    /// A method that needs more than the observer recorded.
    #[error("{estimator} needs the record of a {needs} observer")]
    Needs {
        /// The estimator.
        estimator: &'static str,
        /// The observer that records what it reads.
        needs: ObserverKind,
    },
    /// A count that would pass `u64::MAX`. Nothing was recorded.
    #[error("the number of values observed would exceed {}", u64::MAX)]
    CountOverflow,
    /// Room that memory does not have: a shape may be huge although it holds nothing, or one
    /// element many times.
    #[error("there is no room for {given} {what}: use a smaller shape")]
    Memory {
        /// What there would be so many of.
        what: &'static str,
        /// How many.
        given: usize,
    },
    /// A numeric setting outside its domain.
    #[error("{argument} {given} is not allowed: it must be {allowed}")]
    Setting {
        /// The setting.
        argument: &'static str,
        /// Its value.
        given: f64,
        /// The domain.
        allowed: &'static str,
    },
    /// A name that no method, policy or observer has.
    #[error("{what} \"{given}\" is unknown: use one of {allowed}")]
    Name {
        /// What was being named.
        what: &'static str,
        /// The name as given.
        given: String,
        /// The names that exist.
        allowed: &'static str,
    },
    /// Stored state that no observer can have.
    #[error("the stored state is not valid: {field} of group {group} {reason}")]
    State {
        /// The field at fault.
        field: &'static str,
        /// The channel, or 0 per tensor.
        group: usize,
        /// Why it is impossible.
        reason: &'static str,
    },
}

impl CalibError {
    /// The same error, with the name of the tensor.
    pub(crate) fn in_tensor(self, tensor: &str) -> CalibError {
        CalibError::Tensor {
            tensor: tensor.to_string(),
            source: Box::new(self),
        }
    }
}
