//! The step that training with a learned step starts from.

use crate::{CalibError, Estimator, Record, Target, ValueRange};
use qformat::Scheme;

/// The initial step of LSQ, `S = 2 · E[|x|] / √Qp`, as a range.
///
/// `Qp` is the number of positive levels (Esser et al. 2020, *Learned step size quantization*,
/// arXiv 1902.08153, §2.1). The range is what that step spans:
///
/// * symmetric: `[−S·Qp, S·Qp]`, `Qp` the levels above the middle (127 for i8);
/// * affine, values on one side only (after a rectifier): `[0, S·Qp]` with all levels above zero
///   (255 for u8), or its mirror image;
/// * affine, values on both sides: `[−S·Qn, S·Qp]` with `Qp = (levels − 1) / 2` rounded down and
///   `Qn` the rest (127 and 128 for 8 bits).
///
/// `E[|x|]` counts zeros and is in the unit of the values. This is a **start for training**, not
/// an optimum: the range is what the formula gives, wider than the observed one at 8 bits and
/// usually narrower at 2 or 3; only what f32 cannot hold is cut. The step itself, for whoever
/// learns it, is [`step`](LsqInit::step). Reads the record of a
/// [`MomentsObserver`](crate::observers::MomentsObserver).
///
/// ```
/// use qcalib::estimators::LsqInit;
/// use qcalib::{Observer, ObserverKind, Policy, Target, ranges};
/// use qformat::{DType, Granularity, Scheme};
///
/// let mut o = ObserverKind::Moments.observer(Granularity::PerTensor, Policy::Error)?;
/// o.observe(0, &[1.0, -2.0, 3.0, -2.0], &[4])?;
/// let target = Target::new(DType::I4, Scheme::Symmetric)?;
/// let r = ranges(&*o, &LsqInit, target)?[0];
/// assert_eq!(r.max, (2.0 * 2.0 / 7f64.sqrt() * 7.0) as f32);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LsqInit;

impl LsqInit {
    /// `2 · E[|x|] / √Qp`, in the unit of the values; 0 when all of them are 0.
    ///
    /// # Errors
    ///
    /// [`CalibError::NoData`] and [`CalibError::Needs`] as [`Estimator::range`].
    pub fn step(record: &Record<'_>, positive_levels: u32) -> Result<f64, CalibError> {
        let s = record.statistics_for("lsq")?;
        Ok(2.0 * s.mean_abs / libm::sqrt(f64::from(positive_levels.max(1))))
    }
}

impl Estimator for LsqInit {
    fn name(&self) -> &'static str {
        "lsq"
    }

    fn range(&self, record: &Record<'_>, target: Target) -> Result<ValueRange, CalibError> {
        let seen = record.range()?;
        let steps = target.range().steps();
        // Levels below and above zero.
        let (below, above) = match target.scheme() {
            Scheme::Symmetric => (steps / 2, steps / 2),
            Scheme::Affine if seen.min >= 0.0 => (0, steps),
            Scheme::Affine if seen.max <= 0.0 => (steps, 0),
            Scheme::Affine => (steps - steps / 2, steps / 2),
        };
        let step = Self::step(record, if above == 0 { below } else { above })?;
        let end = |levels: u32| (step * f64::from(levels)).min(f64::from(f32::MAX)) as f32;
        Ok(ValueRange {
            min: 0.0 - end(below),
            max: end(above),
        })
    }
}
