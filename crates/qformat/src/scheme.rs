//! Affine and symmetric schemes, and the integer ranges that follow from them.

use alloc::string::ToString;
use core::fmt;
use core::str::FromStr;

use crate::{DType, FormatError};

/// How real numbers map to integers: `x = S · (q − Z)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Scheme {
    /// Any zero point; all values of the type are used.
    Affine,
    /// The zero point is the middle of the type and the range is restricted so that it is
    /// symmetric: i8 uses [−127, 127] with Z = 0, u8 uses [1, 255] with Z = 128.
    Symmetric,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scheme::Affine => "affine",
            Scheme::Symmetric => "symmetric",
        })
    }
}

impl FromStr for Scheme {
    type Err = FormatError;

    fn from_str(s: &str) -> Result<Self, FormatError> {
        match s {
            "affine" | "asymmetric" => Ok(Scheme::Affine),
            "symmetric" => Ok(Scheme::Symmetric),
            _ => Err(FormatError::Name {
                what: "scheme",
                given: s.to_string(),
                allowed: "affine, symmetric",
            }),
        }
    }
}

/// The integers that quantized values may take, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QRange {
    min: i32,
    max: i32,
}

impl QRange {
    /// The values of `dtype` that `scheme` uses.
    ///
    /// # Errors
    ///
    /// [`FormatError::NotAnInteger`] for floating-point types.
    #[inline]
    pub const fn new(dtype: DType, scheme: Scheme) -> Result<QRange, FormatError> {
        match (dtype.int_range(), scheme) {
            (Some((min, max)), Scheme::Affine) => Ok(QRange { min, max }),
            (Some((min, max)), Scheme::Symmetric) => Ok(QRange { min: min + 1, max }),
            (None, _) => Err(FormatError::NotAnInteger { given: dtype }),
        }
    }

    /// Lowest value.
    #[must_use]
    #[inline]
    pub const fn min(self) -> i32 {
        self.min
    }

    /// Highest value.
    #[must_use]
    #[inline]
    pub const fn max(self) -> i32 {
        self.max
    }

    /// Number of steps between the lowest and the highest value: `max − min`.
    #[must_use]
    #[inline]
    pub const fn steps(self) -> u32 {
        self.max.abs_diff(self.min)
    }

    /// Whether `q` is one of the values.
    #[must_use]
    #[inline]
    pub const fn contains(self, q: i32) -> bool {
        self.min <= q && q <= self.max
    }

    /// The zero point of the symmetric scheme: the middle of the restricted range.
    #[must_use]
    #[inline]
    pub const fn middle(self) -> i32 {
        // i64: min + max of i32 could overflow.
        (self.min as i64 + self.max as i64).div_euclid(2) as i32
    }

    /// The nearest value inside the range.
    #[must_use]
    #[inline]
    pub const fn saturate(self, q: i64) -> i32 {
        if q < self.min as i64 {
            self.min
        } else if q > self.max as i64 {
            self.max
        } else {
            q as i32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(dtype: DType, scheme: Scheme) -> (i32, i32, i32) {
        let r = QRange::new(dtype, scheme).unwrap();
        (r.min(), r.max(), r.middle())
    }

    #[test]
    fn symmetric_ranges_are_restricted_and_centred() {
        assert_eq!(range(DType::I8, Scheme::Symmetric), (-127, 127, 0));
        assert_eq!(range(DType::U8, Scheme::Symmetric), (1, 255, 128));
        assert_eq!(range(DType::I4, Scheme::Symmetric), (-7, 7, 0));
        assert_eq!(range(DType::U16, Scheme::Symmetric), (1, 65_535, 32_768));
        assert_eq!(
            range(DType::I32, Scheme::Symmetric),
            (-i32::MAX, i32::MAX, 0)
        );
        assert_eq!(range(DType::I8, Scheme::Affine), (-128, 127, -1));
        assert!(QRange::new(DType::F32, Scheme::Affine).is_err());
    }
}
