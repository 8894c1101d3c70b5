//! Everything that was seen.

use crate::{CalibError, Estimator, Record, Target, ValueRange};

/// The lowest and the highest value seen: nothing clips, and one outlier sets the step.
///
/// `[min x, max x]`, in the unit of the values ("max" calibration of Wu et al. 2020, *Integer
/// quantization for deep learning inference*, arXiv 2004.09602; Krishnamoorthi 2018, arXiv
/// 1806.08342, §2). Reads any record.
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
