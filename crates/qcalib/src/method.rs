//! The methods by name: the table that joins an observer to an estimator.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use qformat::Granularity;

use crate::estimators::{Entropy, MinMax, MovingAverage, Mse, Percentile};
use crate::{CalibError, Estimator, Observer, ObserverKind, Policy};

/// How the range of a tensor is found.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// Lowest and highest value: [`MinMax`].
    MinMax,
    /// Moving average of the batches' ends: [`MovingAverage`].
    MovingAverage,
    /// Least Kullback-Leibler divergence: [`Entropy`].
    Entropy,
    /// Least squared error: [`Mse`].
    Mse,
    /// All values but a share; the number is the percentage that is kept: [`Percentile`].
    Percentile(f64),
}

/// One line of the table of methods.
struct Facts {
    name: &'static str,
    about: &'static str,
    observer: ObserverKind,
    estimator: fn(Method) -> Result<Box<dyn Estimator>, CalibError>,
}

impl Method {
    /// Every method, with default settings.
    pub const ALL: [Method; 5] = [
        Method::MinMax,
        Method::MovingAverage,
        Method::Entropy,
        Method::Mse,
        Method::Percentile(Percentile::DEFAULT_PERCENT),
    ];

    /// The table.
    const fn facts(self) -> Facts {
        match self {
            Method::MinMax => Facts {
                name: "minmax",
                about: "covers every value seen; one outlier sets the step",
                observer: ObserverKind::MinMax,
                estimator: |_| Ok(Box::new(MinMax)),
            },
            Method::MovingAverage => Facts {
                name: "moving-average",
                about: "averages the ends of the batches, so that a rare outlier weighs little",
                observer: ObserverKind::MovingAverage,
                estimator: |_| Ok(Box::new(MovingAverage::default())),
            },
            Method::Entropy => Facts {
                name: "entropy",
                about: "loses least of the distribution's information (Kullback-Leibler)",
                observer: ObserverKind::Histogram,
                estimator: |_| Ok(Box::new(Entropy)),
            },
            Method::Mse => Facts {
                name: "mse",
                about: "makes the mean squared error least, rounding and clipping together",
                observer: ObserverKind::Histogram,
                estimator: |_| Ok(Box::new(Mse)),
            },
            Method::Percentile(_) => Facts {
                name: "percentile",
                about: "leaves out a small share of the values at the ends",
                observer: ObserverKind::Histogram,
                estimator: |m| Ok(Box::new(Percentile::new(m.percent())?)),
            },
        }
    }

    /// The name without settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// What it does, in one sentence.
    #[must_use]
    pub const fn about(self) -> &'static str {
        self.facts().about
    }

    /// The cheapest observer that records what the method reads.
    #[must_use]
    pub const fn observer_kind(self) -> ObserverKind {
        self.facts().observer
    }

    /// Whether an observer of this kind records what the method reads. Every observer knows the
    /// ends, so each serves [`Method::MinMax`].
    #[must_use]
    pub fn served_by(self, kind: ObserverKind) -> bool {
        let needs = self.observer_kind();
        needs == ObserverKind::MinMax || needs == kind
    }

    /// The fewest kinds of observers that serve all of `methods`, the cheapest first.
    ///
    /// ```
    /// use qcalib::{Method, ObserverKind};
    /// let kinds = Method::observers_for(&Method::ALL);
    /// assert!(!kinds.contains(&ObserverKind::MinMax)); // the others know the ends, too
    /// assert!(Method::ALL.iter().all(|m| kinds.iter().any(|&k| m.served_by(k))));
    /// ```
    #[must_use]
    pub fn observers_for(methods: &[Method]) -> Vec<ObserverKind> {
        let needed = |k: &ObserverKind| methods.iter().any(|m| m.observer_kind() == *k);
        let mut kinds: Vec<_> = ObserverKind::ALL.into_iter().filter(needed).collect();
        if kinds.len() > 1 {
            kinds.retain(|&k| k != ObserverKind::MinMax);
        }
        kinds
    }

    /// A new observer for the method.
    ///
    /// # Errors
    ///
    /// [`CalibError::Granularity`] for per-block granularity.
    pub fn observer(
        self,
        granularity: Granularity,
        policy: Policy,
    ) -> Result<Box<dyn Observer>, CalibError> {
        self.observer_kind().observer(granularity, policy)
    }

    /// The setting of the percentile method, or its default.
    const fn percent(self) -> f64 {
        match self {
            Method::Percentile(p) => p,
            _ => Percentile::DEFAULT_PERCENT,
        }
    }

    /// The estimator of the method.
    ///
    /// # Errors
    ///
    /// [`CalibError::Setting`] for a setting outside its domain.
    pub fn estimator(self) -> Result<Box<dyn Estimator>, CalibError> {
        (self.facts().estimator)(self)
    }
}

impl fmt::Display for Method {
    /// The name, with the setting where it has one: `entropy`, `percentile=99.9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::Percentile(p) => f.pad(&format!("{}={p}", self.name())),
            _ => f.pad(self.name()),
        }
    }
}

impl FromStr for Method {
    type Err = CalibError;

    /// Reads a name, with a setting where the method has one: `minmax`, `percentile=99.9`.
    fn from_str(s: &str) -> Result<Self, CalibError> {
        let unknown = || CalibError::Name {
            what: "method",
            given: s.to_string(),
            allowed: "minmax, moving-average, entropy, mse, percentile, percentile=99.9",
        };
        let (name, setting) = match s.split_once('=') {
            Some((name, setting)) => (name, Some(setting)),
            None => (s, None),
        };
        let method = Method::ALL
            .into_iter()
            .find(|m| m.name() == name)
            .ok_or_else(unknown)?;
        match (method, setting) {
            (_, None) => Ok(method),
            (Method::Percentile(_), Some(p)) => {
                let p = p.parse().map_err(|_| unknown())?;
                Percentile::new(p)?;
                Ok(Method::Percentile(p))
            }
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_with_their_settings() {
        for m in Method::ALL.into_iter().chain([Method::Percentile(99.9)]) {
            assert_eq!(m.to_string().parse(), Ok(m));
            assert_eq!(m.name().parse::<Method>().unwrap().name(), m.name());
            assert!(m.estimator().is_ok());
            assert!(m.served_by(m.observer_kind()));
        }
        assert_eq!("percentile".parse(), Ok(Method::Percentile(99.999)));
        for bad in [
            "",
            "percentile=",
            "percentile=x",
            "minmax=1",
            "kl",
            "=",
            "minmax ",
        ] {
            assert!(
                matches!(bad.parse::<Method>(), Err(CalibError::Name { .. })),
                "{bad}"
            );
        }
        for bad in [
            "percentile=0",
            "percentile=101",
            "percentile=NaN",
            "percentile=inf",
        ] {
            assert!(
                matches!(bad.parse::<Method>(), Err(CalibError::Setting { .. })),
                "{bad}"
            );
        }
        assert!(Method::Percentile(f64::NAN).estimator().is_err());
    }
}
