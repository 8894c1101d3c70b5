//! How a range is chosen: the estimator trait, and parameters from an observer.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use qformat::{DType, FormatError, Granularity, QParams, QRange, QuantSpec, Scheme, TensorQParams};

use crate::{CalibError, Method, Observer, Record};

/// A closed interval of real numbers with finite ends, in the unit of the values it was chosen
/// for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueRange {
    /// Lower end.
    pub min: f32,
    /// Upper end; not below the lower.
    pub max: f32,
}

impl ValueRange {
    /// `[centre − reach, centre + reach]` inside the observed range `self`, or reaching to zero
    /// where that lies wholly on the other side.
    pub(crate) fn around(self, centre: f64, reach: f64) -> ValueRange {
        let (low, high) = (f64::from(self.min.min(0.0)), f64::from(self.max.max(0.0)));
        // Between two f32 values, so the conversions cannot overflow.
        let min = (centre - reach).clamp(low, 0.0) as f32;
        let max = (centre + reach).clamp(0.0, high) as f32;
        ValueRange {
            min: min + 0.0, // never −0.0
            max: max + 0.0,
        }
    }
}

/// The quantizer that a range is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    dtype: DType,
    scheme: Scheme,
    range: QRange,
}

impl Target {
    /// A target of an integer type.
    ///
    /// # Errors
    ///
    /// [`FormatError::NotAnInteger`] for floating-point types.
    pub fn new(dtype: DType, scheme: Scheme) -> Result<Target, FormatError> {
        Ok(Target {
            dtype,
            scheme,
            range: QRange::new(dtype, scheme)?,
        })
    }

    /// Element type of the integers.
    #[must_use]
    pub fn dtype(self) -> DType {
        self.dtype
    }

    /// Affine or symmetric.
    #[must_use]
    pub fn scheme(self) -> Scheme {
        self.scheme
    }

    /// The integers in use.
    #[must_use]
    pub fn range(self) -> QRange {
        self.range
    }

    /// The parameters that cover a range.
    pub(crate) fn params(self, r: ValueRange) -> Result<QParams, FormatError> {
        QParams::from_range(r.min, r.max, self.dtype, self.scheme)
    }
}

/// Chooses a range from what an observer recorded.
///
/// Implement it to add a method of your own; [`params_with`] takes any. The range need not hold
/// 0: [`QParams::from_range`] widens it.
pub trait Estimator: fmt::Debug + Send + Sync {
    /// A short name for messages.
    fn name(&self) -> &'static str;

    /// The range for one group under `target`'s quantizer, in the unit of the values.
    ///
    /// # Errors
    ///
    /// [`CalibError::NoData`] when no finite value was recorded, [`CalibError::Needs`] when the
    /// record lacks what the method reads.
    fn range(&self, record: &Record<'_>, target: Target) -> Result<ValueRange, CalibError>;
}

/// The range of every group of an observer, in the order of the groups (that of
/// [`Granularity::runs`]' indices) and in the unit of the values.
///
/// # Errors
///
/// [`CalibError::NoData`] when a group, or all, saw no finite value, and the estimator's own.
pub fn ranges(
    observer: &dyn Observer,
    estimator: &dyn Estimator,
    target: Target,
) -> Result<Vec<ValueRange>, CalibError> {
    if observer.groups() == 0 {
        return Err(CalibError::NoData { group: 0 });
    }
    (0..observer.groups())
        .map(|group| {
            let record = observer.record(group).ok_or(CalibError::NoData { group })?;
            record.range()?;
            estimator.range(&record, target)
        })
        .collect()
}

/// The parameters of a tensor by one of the built-in methods.
///
/// The granularity of `spec` is the observer's, or per tensor: a per-channel record serves
/// per-tensor parameters exactly. There is one pair of scale and zero point a group, in the order
/// of [`Granularity::runs`]' indices: one per tensor, one a channel along the axis, or one a block
/// at every position of the other axes, row-major. Scales are in the unit of the values.
///
/// # Errors
///
/// As [`params_with`], and [`CalibError::Setting`] for a percentile outside (0, 100].
///
/// ```
/// use qcalib::{Method, Policy, params};
/// use qformat::{DType, Granularity, QuantSpec, Scheme};
///
/// let granularity = Granularity::PerTensor;
/// let mut observer = Method::MinMax.observer(granularity, Policy::Error)?;
/// observer.observe(0, &[-1.0, 0.0, 3.0], &[3])?;
/// let spec = QuantSpec { dtype: DType::U8, scheme: Scheme::Affine, granularity };
/// let p = params(&*observer, Method::MinMax, spec)?;
/// assert_eq!(p.params()[0].zero_point(), 64);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn params(
    observer: &dyn Observer,
    method: Method,
    spec: QuantSpec,
) -> Result<TensorQParams, CalibError> {
    params_with(observer, &*method.estimator()?, spec)
}

/// The parameters of a tensor by any estimator; number, order and unit as in [`params`].
///
/// ```
/// use qcalib::{CalibError, Estimator, ObserverKind, Policy, Record, Target, ValueRange};
/// use qformat::{DType, Granularity, QuantSpec, Scheme};
///
/// /// Softmax outputs are shares: their range is known.
/// #[derive(Debug)]
/// struct Shares;
///
/// impl Estimator for Shares {
///     fn name(&self) -> &'static str {
///         "shares"
///     }
///     fn range(&self, _: &Record<'_>, _: Target) -> Result<ValueRange, CalibError> {
///         Ok(ValueRange { min: 0.0, max: 1.0 })
///     }
/// }
///
/// let granularity = Granularity::PerTensor;
/// let mut o = ObserverKind::MinMax.observer(granularity, Policy::Error)?;
/// o.observe(0, &[0.25, 0.5, 0.25], &[1, 3])?;
/// let spec = QuantSpec { dtype: DType::U8, scheme: Scheme::Affine, granularity };
/// let p = qcalib::params_with(&*o, &Shares, spec)?;
/// assert_eq!(p.params()[0].scale(), 1.0 / 255.0);
/// # Ok::<(), CalibError>(())
/// ```
///
/// # Errors
///
/// [`CalibError::Mismatch`] when the granularity of `spec` is neither the observer's nor per
/// tensor, [`CalibError::NoData`] when a group saw no finite value, [`CalibError::Needs`] when
/// the observer records too little for the method, [`CalibError::Format`] for a target type that
/// is not an integer.
pub fn params_with(
    observer: &dyn Observer,
    estimator: &dyn Estimator,
    spec: QuantSpec,
) -> Result<TensorQParams, CalibError> {
    let target = Target::new(spec.dtype, spec.scheme)?;
    let ranges = if spec.granularity == observer.granularity() {
        ranges(observer, estimator, target)?
    } else if spec.granularity == Granularity::PerTensor {
        ranges(&*observer.to_per_tensor()?, estimator, target)?
    } else {
        return Err(CalibError::Mismatch {
            what: "granularity",
            given: spec.granularity.to_string(),
            expected: observer.granularity().to_string(),
        });
    };
    let params = ranges
        .into_iter()
        .map(|r| target.params(r))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(TensorQParams::new(spec.granularity, params)?)
}
