//! An average of the batches' ends that forgets.

use crate::{CalibError, Estimator, ObserverKind, Record, Target, ValueRange};

/// The exponential moving average of the batches' ends.
///
/// From the first batch on, in the order of the batch indices:
/// `m ← m + c · (min of the batch − m)`, and likewise for the maximum, in f64 and rounded to f32
/// at the end (PyTorch's `MovingAverageMinMaxObserver` has the same formula in f32; Jacob et al.
/// 2018, arXiv 1712.05877, §3.1 propose it for activations). The result lies between the ends of
/// the batches, in the unit of the values. Reads the record of a
/// [`MovingAverageObserver`](crate::observers::MovingAverageObserver).
///
/// ```
/// use qcalib::estimators::MovingAverage;
/// use qcalib::{Observer, ObserverKind, Policy, Target, ranges};
/// use qformat::{DType, Granularity, Scheme};
///
/// let mut o = ObserverKind::MovingAverage.observer(Granularity::PerTensor, Policy::Error)?;
/// o.observe(1, &[5.0], &[1])?; // arrives first, but counts second
/// o.observe(0, &[1.0], &[1])?;
/// let target = Target::new(DType::U8, Scheme::Affine)?;
/// let r = ranges(&*o, &MovingAverage::new(0.25)?, target)?[0];
/// assert_eq!(r.max, 1.0 + 0.25 * (5.0 - 1.0));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MovingAverage {
    constant: f64,
}

impl MovingAverage {
    /// PyTorch's default.
    pub const DEFAULT_CONSTANT: f64 = 0.01;

    /// An average with the weight `constant` for each new batch.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] unless `0 < constant <= 1`.
    pub fn new(constant: f64) -> Result<Self, CalibError> {
        if constant > 0.0 && constant <= 1.0 {
            Ok(MovingAverage { constant })
        } else {
            let allowed = "above 0 and at most 1";
            Err(CalibError::Setting {
                argument: "averaging constant",
                given: constant,
                allowed,
            })
        }
    }
}

impl Default for MovingAverage {
    fn default() -> Self {
        MovingAverage {
            constant: Self::DEFAULT_CONSTANT,
        }
    }
}

impl Estimator for MovingAverage {
    fn name(&self) -> &'static str {
        "moving-average"
    }

    fn range(&self, record: &Record<'_>, _: Target) -> Result<ValueRange, CalibError> {
        record.range()?;
        let needs = CalibError::Needs {
            estimator: self.name(),
            needs: ObserverKind::MovingAverage,
        };
        let mut batches = record
            .batches
            .ok_or(needs)?
            .iter()
            .map(|(_, r)| (f64::from(r.min), f64::from(r.max)));
        let first = batches.next().ok_or(CalibError::NoData {
            group: record.group,
        })?;
        let c = self.constant;
        let (min, max) = batches.fold(first, |(min, max), (batch_min, batch_max)| {
            (min + c * (batch_min - min), max + c * (batch_max - max))
        });
        // Both lie between finite f32 values, so neither conversion overflows.
        Ok(ValueRange {
            min: min as f32,
            max: max as f32,
        })
    }
}
