//! What every observer knows of a group: its ends and its counts.

use qkernels::MinMax;

use crate::{CalibError, ValueRange};

/// The ends of the finite values of one group, and how many values of each kind were seen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Extent {
    range: Option<(f32, f32)>,
    finite: u64,
    nan: u64,
    pos_inf: u64,
    neg_inf: u64,
}

impl Extent {
    /// Lowest and highest finite value seen, in the unit of the values, or `None` when there was
    /// none. −0.0 counts as +0.0.
    #[must_use]
    pub fn range(&self) -> Option<ValueRange> {
        self.range.map(|(min, max)| ValueRange { min, max })
    }

    /// Number of finite values.
    #[must_use]
    pub fn finite(&self) -> u64 {
        self.finite
    }

    /// Number of NaN.
    #[must_use]
    pub fn nan(&self) -> u64 {
        self.nan
    }

    /// Number of +∞.
    #[must_use]
    pub fn pos_inf(&self) -> u64 {
        self.pos_inf
    }

    /// Number of −∞.
    #[must_use]
    pub fn neg_inf(&self) -> u64 {
        self.neg_inf
    }

    /// Number of values of all kinds; never overflows, because whatever adds to it is checked.
    pub(crate) fn seen(&self) -> u64 {
        self.finite + self.nan + self.pos_inf + self.neg_inf
    }

    /// Largest magnitude of a finite value; 0 when there was none.
    pub(crate) fn magnitude(&self) -> f32 {
        self.range
            .map_or(0.0, |(min, max)| (-min).max(max).max(0.0))
    }

    /// Adds a run of `len` values. The caller has checked that the counts cannot overflow.
    pub(crate) fn add(&mut self, len: usize, s: &MinMax) {
        self.join(s.min.zip(s.max));
        self.finite += len as u64 - s.nan - s.pos_inf - s.neg_inf;
        self.nan += s.nan;
        self.pos_inf += s.pos_inf;
        self.neg_inf += s.neg_inf;
    }

    /// Whether `more` values can be added without overflow.
    pub(crate) fn check_room(&self, more: u64) -> Result<(), CalibError> {
        self.seen()
            .checked_add(more)
            .map(|_| ())
            .ok_or(CalibError::CountOverflow)
    }

    /// Adds another extent. The caller has checked that the counts cannot overflow.
    pub(crate) fn merge(&mut self, other: &Extent) {
        self.join(other.range);
        self.finite += other.finite;
        self.nan += other.nan;
        self.pos_inf += other.pos_inf;
        self.neg_inf += other.neg_inf;
    }

    fn join(&mut self, other: Option<(f32, f32)>) {
        self.range = join(self.range, other);
    }
}

/// The range that holds both; the ends are finite and never −0.0, so the result does not depend
/// on the order.
pub(crate) fn join(a: Option<(f32, f32)>, b: Option<(f32, f32)>) -> Option<(f32, f32)> {
    match (a, b) {
        (Some((a_min, a_max)), Some((b_min, b_max))) => Some((a_min.min(b_min), a_max.max(b_max))),
        (one, None) | (None, one) => one,
    }
}

/// Whether a stored range is one that values can have: finite, ordered, no −0.0.
pub(crate) fn check_range(
    field: &'static str,
    group: usize,
    (min, max): (f32, f32),
) -> Result<(), CalibError> {
    let bad = |reason| {
        Err(CalibError::State {
            field,
            group,
            reason,
        })
    };
    if !(min.is_finite() && max.is_finite()) {
        return bad("has an end that is not finite");
    }
    if min > max {
        return bad("has its ends swapped");
    }
    if [min, max].iter().any(|v| *v == 0.0 && v.is_sign_negative()) {
        return bad("has an end of negative zero, which is stored as zero");
    }
    Ok(())
}

/// [`Extent`] as it is stored.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtentWire {
    range: Option<(f32, f32)>,
    finite: u64,
    nan: u64,
    pos_inf: u64,
    neg_inf: u64,
}

impl ExtentWire {
    pub(crate) fn new(e: &Extent) -> ExtentWire {
        let Extent {
            range,
            finite,
            nan,
            pos_inf,
            neg_inf,
        } = *e;
        ExtentWire {
            range,
            finite,
            nan,
            pos_inf,
            neg_inf,
        }
    }

    pub(crate) fn check(&self, group: usize) -> Result<Extent, CalibError> {
        let ExtentWire {
            range,
            finite,
            nan,
            pos_inf,
            neg_inf,
        } = *self;
        let bad = |field, reason| {
            Err(CalibError::State {
                field,
                group,
                reason,
            })
        };
        if let Some(range) = range {
            check_range("range", group, range)?;
        }
        if range.is_some() != (finite > 0) {
            return bad(
                "range",
                "must be there exactly when finite values were counted",
            );
        }
        let sum = [nan, pos_inf, neg_inf]
            .iter()
            .try_fold(finite, |s, &n| s.checked_add(n));
        if sum.is_none() {
            return bad(
                "finite",
                "and the other counts exceed the largest count together",
            );
        }
        Ok(Extent {
            range,
            finite,
            nan,
            pos_inf,
            neg_inf,
        })
    }
}
