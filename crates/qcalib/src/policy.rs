//! What to do with values that are not finite.

use alloc::string::ToString;
use core::fmt;
use core::str::FromStr;

use crate::CalibError;

/// What an observer does with NaN and ±∞. Whatever the policy, they never reach a scale.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// A batch with a non-finite value is refused with
    /// [`CalibError::NonFinite`]; the state stays as it was before the batch. The default: a
    /// network that produces NaN while it is calibrated is broken, and should be looked at.
    #[default]
    Error,
    /// They are counted and skipped.
    Ignore,
    /// NaN is counted and skipped. ±∞ is counted, and counts as the largest (smallest) finite
    /// value of its group: the value that it saturates to once the range is chosen.
    ///
    /// Which value that is is decided when a range is asked for, so that the order of arrival
    /// does not matter. Infinities therefore never widen a range; they weigh on the methods that
    /// read a histogram. A group with infinities only has no range.
    Saturate,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Policy; 3] = [Policy::Error, Policy::Ignore, Policy::Saturate];

    /// The name, as [`FromStr`] reads it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Policy::Error => "error",
            Policy::Ignore => "ignore",
            Policy::Saturate => "saturate",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Policy {
    type Err = CalibError;

    fn from_str(s: &str) -> Result<Self, CalibError> {
        Policy::ALL
            .into_iter()
            .find(|p| p.name() == s)
            .ok_or_else(|| CalibError::Name {
                what: "policy",
                given: s.to_string(),
                allowed: "error, ignore, saturate",
            })
    }
}

/// The three kinds of values that are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NonFinite {
    /// Not a number.
    Nan,
    /// +∞.
    PosInf,
    /// −∞.
    NegInf,
}

impl NonFinite {
    /// The kind of a value, or `None` when it is finite.
    ///
    /// ```
    /// use qcalib::NonFinite;
    /// assert_eq!(NonFinite::of(f32::NEG_INFINITY), Some(NonFinite::NegInf));
    /// assert_eq!(NonFinite::of(1.0), None);
    /// ```
    #[must_use]
    pub fn of(x: f32) -> Option<NonFinite> {
        if x.is_finite() {
            None
        } else if x.is_nan() {
            Some(NonFinite::Nan)
        } else if x > 0.0 {
            Some(NonFinite::PosInf)
        } else {
            Some(NonFinite::NegInf)
        }
    }
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NonFinite::Nan => "NaN",
            NonFinite::PosInf => "+inf",
            NonFinite::NegInf => "-inf",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for p in Policy::ALL {
            assert_eq!(p.to_string().parse(), Ok(p));
        }
        assert!("skip".parse::<Policy>().is_err());
    }
}
