//! Everything that was seen.

use crate::{CalibError, Estimator, Record, Target, ValueRange};

/// The lowest and the highest value seen: nothing clips, and one outlier sets the step.
///
/// `[min x, max x]`, in the unit of the values. Reads any record.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MinMax;

impl Estimator for MinMax {
    fn name(&self) -> &'static str {
        "minmax"
    }

    fn range(&self, record: &Record<'_>, _: Target) -> Result<ValueRange, CalibError> {
        record.range()
    }
}
