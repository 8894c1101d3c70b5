//! The quantizer that is trained: any number of levels, a scale and a zero point a group.

use alloc::string::ToString;
use alloc::vec::Vec;
use qformat::{Granularity, QRange, Scheme, TensorQParams};

use crate::CalibError;
use crate::layout::check_len;

/// The integers of a quantizer of 2 to 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Levels {
    min: i32,
    max: i32,
}

impl Levels {
    /// All integers of so many bits for the affine scheme; for the symmetric one without the
    /// lowest, so that both sides are equally long.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] for other than 2 to 16 bits.
    ///
    /// ```
    /// use qcalib::train::Levels;
    /// use qformat::Scheme;
    /// let w = Levels::new(4, true, Scheme::Symmetric)?;
    /// assert_eq!((w.min(), w.max()), (-7, 7));
    /// let a = Levels::new(3, false, Scheme::Affine)?;
    /// assert_eq!((a.min(), a.max()), (0, 7));
    /// # Ok::<(), qcalib::CalibError>(())
    /// ```
    pub fn new(bits: u32, signed: bool, scheme: Scheme) -> Result<Self, CalibError> {
        if !(2..=16).contains(&bits) {
            return Err(CalibError::Setting {
                argument: "bits",
                given: bits.into(),
                allowed: "from 2 to 16",
            });
        }
        let (min, max) = if signed {
            (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        } else {
            (0, (1 << bits) - 1)
        };
        Ok(Levels {
            min: min + i32::from(scheme == Scheme::Symmetric),
            max,
        })
    }

    /// The lowest integer.
    #[must_use]
    pub const fn min(self) -> i32 {
        self.min
    }

    /// The highest integer.
    #[must_use]
    pub const fn max(self) -> i32 {
        self.max
    }

    /// The zero point of the symmetric scheme: the middle, rounded up.
    #[must_use]
    pub const fn middle(self) -> i32 {
        (self.min + self.max + 1).div_euclid(2)
    }
}

impl TryFrom<QRange> for Levels {
    type Error = CalibError;

    /// The integers of a storage type of at most 16 bits.
    fn try_from(r: QRange) -> Result<Self, CalibError> {
        if r.steps() > u32::from(u16::MAX) {
            return Err(CalibError::Setting {
                argument: "levels",
                given: f64::from(r.steps()) + 1.0,
                allowed: "at most 65536",
            });
        }
        Ok(Levels {
            min: r.min(),
            max: r.max(),
        })
    }
}

/// Scales and zero points as they are trained.
///
/// A zero point is a real number while it is learned; the quantizer uses the nearest integer of
/// the levels, ties to even, so that 0 is always exact.
///
/// ```
/// use qcalib::train::{Levels, Quantizer};
/// use qformat::{Granularity, Scheme};
///
/// let levels = Levels::new(3, true, Scheme::Symmetric)?;
/// let q = Quantizer::new(Granularity::PerTensor, levels, vec![0.5], vec![0.0])?;
/// let mut y = [0.0; 3];
/// q.forward(&[0.3, -0.8, 9.0], &[3], &mut y)?;
/// assert_eq!(y, [0.5, -1.0, 1.5]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Quantizer {
    granularity: Granularity,
    levels: Levels,
    scales: Vec<f32>,
    zero_points: Vec<f32>,
}

/// One value on its way through a quantizer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    /// `q − Z` before clipping, an integer; its magnitude may be anything.
    pub(super) rounded: f32,
    /// Lowest and highest `q − Z`.
    pub(super) low: f32,
    pub(super) high: f32,
}

impl Passed {
    /// `q − Z` after clipping.
    pub(super) fn clipped(self) -> f32 {
        // NaN goes to the lowest, as in the forward.
        if self.rounded > self.high {
            self.high
        } else if self.rounded >= self.low {
            self.rounded
        } else {
            self.low
        }
    }

    /// Whether nothing was clipped.
    pub(super) fn inside(self) -> bool {
        self.rounded >= self.low && self.rounded <= self.high
    }
}

impl Quantizer {
    /// A quantizer from its parts, one scale and zero point a group, in the order of
    /// [`Granularity::runs`]' group indices.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] for a scale that is not positive and finite or a zero point that is
    /// not finite, [`CalibError::Mismatch`] when they are not equally many or none.
    pub fn new(
        granularity: Granularity,
        levels: Levels,
        scales: Vec<f32>,
        zero_points: Vec<f32>,
    ) -> Result<Self, CalibError> {
        let mut q = Quantizer {
            granularity,
            levels,
            scales: Vec::new(),
            zero_points: Vec::new(),
        };
        q.set(scales, zero_points)?;
        Ok(q)
    }

    /// A quantizer that starts where a calibration ended.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] for a type of more than 16 bits.
    pub fn from_params(params: &TensorQParams) -> Result<Self, CalibError> {
        let range = QRange::new(params.dtype(), params.scheme())?;
        Self::new(
            params.granularity(),
            range.try_into()?,
            params.scales().collect(),
            // At most 65,535: exact.
            params.zero_points().map(|z| z as f32).collect(),
        )
    }

    /// Replaces what is learned, after a step of training.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); nothing changes then.
    pub fn set(&mut self, scales: Vec<f32>, zero_points: Vec<f32>) -> Result<(), CalibError> {
        if let Some(&s) = scales.iter().find(|&&s| !(s > 0.0 && s.is_finite())) {
            return Err(CalibError::Setting {
                argument: "scale",
                given: s.into(),
                allowed: "positive and finite",
            });
        }
        if let Some(&z) = zero_points.iter().find(|z| !z.is_finite()) {
            return Err(CalibError::Setting {
                argument: "zero point",
                given: z.into(),
                allowed: "finite",
            });
        }
        let (given, expected) = (zero_points.len(), scales.len());
        let one = self.granularity == Granularity::PerTensor;
        if given != expected || given == 0 || (one && given != 1) {
            return Err(CalibError::Mismatch {
                what: "number of zero points",
                given: given.to_string(),
                expected: if one { 1 } else { expected.max(1) }.to_string(),
            });
        }
        self.scales = scales;
        self.zero_points = zero_points;
        Ok(())
    }

    /// Which values share a scale.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The integers.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.levels
    }

    /// The scale of every group, in the unit of the values and in the order of
    /// [`Granularity::runs`]' group indices.
    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The zero point of every group as it is learned, in steps and in the same order.
    #[must_use]
    pub fn zero_points(&self) -> &[f32] {
        &self.zero_points
    }

    /// The zero point of a group as it is used.
    fn zero_point(&self, group: usize) -> i32 {
        let Levels { min, max } = self.levels;
        // At most 17 bits: exact both ways.
        libm::rintf(self.zero_points[group].clamp(min as f32, max as f32)) as i32
    }

    /// `out = S · (clamp(rne(x / S) + Z, qmin, qmax) − Z)`: what dequantizing the quantized values
    /// gives, bit for bit.
    ///
    /// # Errors
    ///
    /// [`CalibError::Length`] when a slice does not fill the shape, [`CalibError::Mismatch`] when
    /// the shape has another number of groups, [`CalibError::Format`] for an axis that it lacks.
    pub fn forward(&self, x: &[f32], shape: &[usize], out: &mut [f32]) -> Result<(), CalibError> {
        check_len("out", out.len(), shape)?;
        self.for_each(x, shape, |_, i, scale, passed| {
            // An integer difference has no −0.
            out[i] = (passed.clipped() + 0.0) * scale;
        })
    }

    /// Calls `f` with group, index, scale and way of every value, in memory order.
    pub(super) fn for_each(
        &self,
        x: &[f32],
        shape: &[usize],
        mut f: impl FnMut(usize, usize, f32, Passed),
    ) -> Result<(), CalibError> {
        check_len("x", x.len(), shape)?;
        let (given, expected) = (self.scales.len(), self.granularity.groups(shape)?);
        if given != expected {
            return Err(CalibError::Mismatch {
                what: "number of scales",
                given: given.to_string(),
                expected: expected.to_string(),
            });
        }
        for (group, run) in self.granularity.runs(shape)? {
            let (scale, zero) = (self.scales[group], self.zero_point(group));
            let (low, high) = (self.levels.min - zero, self.levels.max - zero);
            let (low, high) = (low as f32, high as f32);
            for i in run {
                let rounded = libm::rintf(x[i] / scale);
                f(group, i, scale, Passed { rounded, low, high });
            }
        }
        Ok(())
    }
}
