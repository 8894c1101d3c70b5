//! `MinMaxObserver`, `MovingAverageMinMaxObserver` and their per-channel forms.

use alloc::vec::Vec;

use super::super::{ToolParams, check_average, check_constant, ends};
use super::qparams::TorchQuantizer;
use crate::layout::{Layout, Room};
use crate::view::TensorView;
use crate::{CalibError, ValueRange};
use qformat::Granularity;

/// PyTorch's `MinMaxObserver` and `PerChannelMinMaxObserver`: `[min(m, min x), max(M, max x)]` of
/// every group, batch after batch.
///
/// ```
/// use qcalib::compat::torch::{MinMax, TorchQuantizer};
/// use qformat::Granularity;
/// let mut o = MinMax::new(TorchQuantizer::default(), Granularity::PerTensor);
/// o.observe(&[0.0, 255.0], &[2])?;
/// assert_eq!(o.params()?[0].scale, 1.0);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone)]
pub struct MinMax(Ranges);

/// PyTorch's `MovingAverageMinMaxObserver` and `MovingAveragePerChannelMinMaxObserver`:
/// `m + c · (batch − m)` in f32 from the second batch on.
///
/// ```
/// use qcalib::compat::torch::{MovingAverage, TorchQuantizer};
/// use qformat::Granularity;
/// let mut o = MovingAverage::new(TorchQuantizer::default(), Granularity::PerTensor, 0.5);
/// o.observe(&[0.0, 2.0], &[2])?;
/// o.observe(&[0.0, 4.0], &[2])?;
/// assert_eq!(o.ranges()[0].max, 3.0);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone)]
pub struct MovingAverage(Ranges, f32);

#[derive(Debug, Clone)]
struct Ranges {
    quantizer: TorchQuantizer,
    granularity: Granularity,
    ranges: Vec<ValueRange>,
}

impl Ranges {
    fn observe(
        &mut self,
        x: &[f32],
        shape: &[usize],
        join: impl Fn(ValueRange, ValueRange) -> ValueRange,
    ) -> Result<(), CalibError> {
        let x = TensorView::new(x, shape)?;
        let layout = Layout::new(self.granularity, shape)?;
        if x.is_empty() {
            return Ok(()); // the tool returns at once
        }
        let (given, expected) = (layout.groups()?, self.ranges.len());
        if expected != 0 && given != expected {
            let axis = match self.granularity {
                Granularity::PerChannel { axis } | Granularity::PerBlock { axis, .. } => axis,
                Granularity::PerTensor => 0,
            };
            return Err(CalibError::Channels {
                axis,
                given,
                expected,
            });
        }
        if let Some(x) = x.in_place() {
            super::super::check(x)?;
        }
        let mut batch = alloc::vec![None::<ValueRange>; given];
        layout.for_each_piece(&x, &mut Room::default(), |group, piece| {
            // Finite: checked above.
            if let (Some(slot), Ok(Some(new))) = (batch.get_mut(group), ends(piece)) {
                *slot = Some(slot.map_or(new, |old| ValueRange {
                    min: old.min.min(new.min),
                    max: old.max.max(new.max),
                }));
            }
        })?;
        let new = batch.into_iter().flatten();
        if self.ranges.is_empty() {
            self.ranges = new.collect();
        } else {
            self.ranges = self
                .ranges
                .iter()
                .zip(new)
                .map(|(&old, new)| check_average(join(old, new)))
                .collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    fn params(&self) -> Result<Vec<ToolParams>, CalibError> {
        if self.ranges.is_empty() {
            return Ok(alloc::vec![self.quantizer.params(None)?]);
        }
        let of = |&r: &ValueRange| self.quantizer.params(Some(r));
        self.ranges.iter().map(of).collect()
    }
}

macro_rules! shared {
    ($($name:ident)*) => {$(
        impl $name {
            /// The ends of every group in the unit of the values, in the order of
            /// [`Granularity::runs`]' group indices; none before the first batch.
            #[must_use]
            pub fn ranges(&self) -> &[ValueRange] {
                &self.0.ranges
            }

            /// `calculate_qparams`: one pair a group, in the same order; a single one of scale 1
            /// and zero point 0 before the first batch.
            ///
            /// # Errors
            ///
            /// Those of [`TorchQuantizer::params`].
            pub fn params(&self) -> Result<Vec<ToolParams>, CalibError> {
                self.0.params()
            }
        }
    )*};
}
shared!(MinMax MovingAverage);

impl MinMax {
    /// An observer that has seen nothing.
    #[must_use]
    pub fn new(quantizer: TorchQuantizer, granularity: Granularity) -> Self {
        MinMax(Ranges {
            quantizer,
            granularity,
            ranges: Vec::new(),
        })
    }

    /// Shows it a batch, row-major.
    ///
    /// # Errors
    ///
    /// [`CalibError::NonFinite`], [`CalibError::Length`], [`CalibError::Channels`], and
    /// [`CalibError::Format`] for an axis that the shape lacks.
    pub fn observe(&mut self, x: &[f32], shape: &[usize]) -> Result<(), CalibError> {
        self.0.observe(x, shape, |old, new| ValueRange {
            min: old.min.min(new.min),
            max: old.max.max(new.max),
        })
    }
}

impl MovingAverage {
    /// An observer that has seen nothing; the tool's `averaging_constant` is 0.01 by default.
    #[must_use]
    pub fn new(quantizer: TorchQuantizer, granularity: Granularity, constant: f32) -> Self {
        let ranges = Vec::new();
        MovingAverage(
            Ranges {
                quantizer,
                granularity,
                ranges,
            },
            constant,
        )
    }

    /// Shows it the next batch, row-major.
    ///
    /// # Errors
    ///
    /// As [`MinMax::observe`], and [`CalibError::Setting`] when an average overflows f32 or the
    /// constant is not from 0 to 1. After an error the observer is what it was.
    pub fn observe(&mut self, x: &[f32], shape: &[usize]) -> Result<(), CalibError> {
        let c = self.1;
        check_constant(c)?;
        self.0.observe(x, shape, |old, new| ValueRange {
            min: old.min + c * (new.min - old.min),
            max: old.max + c * (new.max - old.max),
        })
    }
}
