//! `MinMaxCalibrater`.

use alloc::vec::Vec;

use super::super::{check_average, check_constant, ends, numpy::pairwise_sum};
use crate::{CalibError, ValueRange};

/// What `create_calibrator` takes for this method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MinMaxSettings {
    /// Whether the range is `[−t, t]`.
    pub symmetric: bool,
    /// Whether batches are averaged instead of joined.
    pub moving_average: bool,
    /// Weight of a later `collect_data` call against the earlier ones.
    pub averaging_constant: f32,
}

impl Default for MinMaxSettings {
    fn default() -> Self {
        MinMaxSettings {
            symmetric: false,
            moving_average: false,
            averaging_constant: 0.01,
        }
    }
}

/// ONNX Runtime's `MinMaxCalibrater`, which also does its moving average.
///
/// ```
/// use qcalib::compat::onnxruntime::{MinMax, MinMaxSettings};
/// let mut c = MinMax::new(MinMaxSettings { moving_average: true, ..Default::default() });
/// c.collect(&[&[0.0, 1.0], &[0.0, 3.0]])?; // one call: the mean of its batches
/// assert_eq!(c.range()?.max, 2.0);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone)]
pub struct MinMax {
    settings: MinMaxSettings,
    range: Option<ValueRange>,
}

impl MinMax {
    /// A calibrator that has seen nothing.
    #[must_use]
    pub fn new(settings: MinMaxSettings) -> Self {
        MinMax {
            settings,
            range: None,
        }
    }

    /// One call of `collect_data` with these batches.
    ///
    /// # Errors
    ///
    /// [`CalibError::NonFinite`], [`CalibError::NoData`] for no batch or an empty one, and
    /// [`CalibError::Setting`] when an average overflows f32 or its constant is not from 0 to 1.
    /// After an error the calibrator is what it was.
    pub fn collect(&mut self, batches: &[&[f32]]) -> Result<(), CalibError> {
        let all: Vec<ValueRange> = batches
            .iter()
            .map(|b| ends(b)?.ok_or(CalibError::NoData { group: 0 }))
            .collect::<Result<_, _>>()?;
        let Some(&first) = all.first() else {
            return Err(CalibError::NoData { group: 0 });
        };
        let s = self.settings;
        if s.moving_average {
            check_constant(s.averaging_constant)?;
        }
        let ValueRange { mut min, mut max } = if s.moving_average {
            // The mean is divided in f64 and rounded to f32.
            let mean = |end: fn(&ValueRange) -> f32| {
                let ends: Vec<f32> = all.iter().map(end).collect();
                (f64::from(pairwise_sum(&ends)) / ends.len() as f64) as f32
            };
            ValueRange {
                min: mean(|r| r.min),
                max: mean(|r| r.max),
            }
        } else {
            all.iter().fold(first, |a, b| ValueRange {
                min: a.min.min(b.min),
                max: a.max.max(b.max),
            })
        };
        if s.symmetric {
            max = max.abs().max(min.abs());
            min = -max;
        }
        if let Some(old) = self.range {
            if s.moving_average {
                min = old.min + s.averaging_constant * (min - old.min);
                max = old.max + s.averaging_constant * (max - old.max);
            } else {
                min = old.min.min(min);
                max = old.max.max(max);
            }
        }
        self.range = Some(check_average(ValueRange { min, max })?);
        Ok(())
    }

    /// What `compute_data` gives: the joined or averaged ends, in the unit of the values.
    ///
    /// # Errors
    ///
    /// [`CalibError::NoData`] before the first [`collect`](Self::collect).
    pub fn range(&self) -> Result<ValueRange, CalibError> {
        self.range.ok_or(CalibError::NoData { group: 0 })
    }
}
