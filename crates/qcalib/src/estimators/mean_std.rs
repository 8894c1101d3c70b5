//! So many standard deviations around the mean.

use crate::{CalibError, Estimator, Record, Target, ValueRange};

/// `[μ − k·σ, μ + k·σ]`, brought inside the observed range.
///
/// `μ` and `σ` are the mean and the (population) standard deviation of all values, zeros
/// included, in their unit; the symmetric scheme covers the end further from zero. Whatever the
/// distribution, at most `1 / k²` of the values lie outside (Chebyshev); of normal ones 0.27 % for
/// `k = 3`, 0.006 % for `k = 4`. As a clipping rule it is the `N_STD` mode of Neural
/// Network Distiller's post-training quantizer; Zhao et al. 2019 (arXiv 1901.09504) compare such
/// rules. Reads the record of a
/// [`MomentsObserver`](crate::observers::MomentsObserver).
///
/// ```
/// use qcalib::estimators::MeanStd;
/// use qcalib::{Observer, ObserverKind, Policy, Target, ranges};
/// use qformat::{DType, Granularity, Scheme};
///
/// let mut o = ObserverKind::Moments.observer(Granularity::PerTensor, Policy::Error)?;
/// o.observe(0, &[3.0, 5.0, 3.0, 5.0, -100.0, 108.0], &[6])?;
/// let target = Target::new(DType::I8, Scheme::Affine)?;
/// let r = ranges(&*o, &MeanStd::new(1.0)?, target)?[0];
/// let sigma = ((4.0 + 2.0 * 104.0f64 * 104.0) / 6.0).sqrt();
/// assert_eq!((r.min, r.max), ((4.0 - sigma) as f32, (4.0 + sigma) as f32));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanStd {
    k: f64,
}

impl MeanStd {
    /// Four deviations: this crate's own choice, beyond which 0.006 % of normal values lie.
    pub const DEFAULT_K: f64 = 4.0;

    /// `k` standard deviations on either side.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] unless `0 < k <= 1000`.
    pub fn new(k: f64) -> Result<Self, CalibError> {
        if k > 0.0 && k <= 1000.0 {
            Ok(MeanStd { k })
        } else {
            Err(CalibError::Setting {
                argument: "standard deviations",
                given: k,
                allowed: "above 0 and at most 1000",
            })
        }
    }
}

impl Default for MeanStd {
    fn default() -> Self {
        MeanStd { k: Self::DEFAULT_K }
    }
}

impl Estimator for MeanStd {
    fn name(&self) -> &'static str {
        "mean-std"
    }

    fn range(&self, record: &Record<'_>, _: Target) -> Result<ValueRange, CalibError> {
        let s = record.statistics_for(self.name())?;
        Ok(record.range()?.around(s.mean, self.k * s.std()))
    }
}
