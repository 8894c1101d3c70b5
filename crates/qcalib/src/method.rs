//! The methods by name: the table that joins an observer to an estimator.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use qformat::Granularity;

use crate::estimators::{
    Aciq, Density, Entropy, LsqInit, MeanStd, MinMax, MovingAverage, Mse, Percentile,
};
use crate::{CalibError, Estimator, Observer, ObserverKind, Policy};

/// How the range of a tensor is found.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// Lowest and highest value: [`MinMax`].
    MinMax,
    /// Moving average of the batches' ends: [`MovingAverage`].
    MovingAverage,
    /// Least Kullback-Leibler divergence, by a search: [`Entropy::new`].
    Entropy,
    /// Least Kullback-Leibler divergence of all pairs of ends: [`Entropy::all_pairs`].
    EntropyAll,
    /// Least squared error: [`Mse`].
    Mse,
    /// All values but a share; the number is the percentage that is kept: [`Percentile`].
    Percentile(f64),
    /// Best clipping of a Laplace density: [`Aciq`].
    AciqLaplace,
    /// Best clipping of a normal density: [`Aciq`].
    AciqGauss,
    /// So many standard deviations around the mean: [`MeanStd`].
    MeanStd(f64),
    /// The start of training with a learned step: [`LsqInit`].
    Lsq,
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
    pub const ALL: [Method; 10] = [
        Method::MinMax,
        Method::MovingAverage,
        Method::Entropy,
        Method::EntropyAll,
        Method::Mse,
        Method::Percentile(Percentile::DEFAULT_PERCENT),
        Method::AciqLaplace,
        Method::AciqGauss,
        Method::MeanStd(MeanStd::DEFAULT_K),
        Method::Lsq,
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
                estimator: |_| Ok(Box::new(Entropy::new())),
            },
            Method::EntropyAll => Facts {
                name: "entropy-all",
                about: "entropy over every pair of ends, which takes far longer than to search",
                observer: ObserverKind::Histogram,
                estimator: |_| Ok(Box::new(Entropy::all_pairs())),
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
            Method::AciqLaplace => Facts {
                name: "aciq-laplace",
                about: "clips where a Laplace density of the same scale would best be clipped",
                observer: ObserverKind::Moments,
                estimator: |_| Ok(Box::new(Aciq::new(Density::Laplace))),
            },
            Method::AciqGauss => Facts {
                name: "aciq-gauss",
                about: "clips where a normal density of the same scale would best be clipped",
                observer: ObserverKind::Moments,
                estimator: |_| Ok(Box::new(Aciq::new(Density::Gauss))),
            },
            Method::MeanStd(_) => Facts {
                name: "mean-std",
                about: "keeps so many standard deviations on either side of the mean",
                observer: ObserverKind::Moments,
                estimator: |m| Ok(Box::new(MeanStd::new(m.deviations())?)),
            },
            Method::Lsq => Facts {
                name: "lsq",
                about: "the step that training with a learned step starts from",
                observer: ObserverKind::Moments,
                estimator: |_| Ok(Box::new(LsqInit)),
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
    /// [`CalibError::Format`] for blocks of no elements.
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

    /// The setting of the mean-std method, or its default.
    const fn deviations(self) -> f64 {
        match self {
            Method::MeanStd(k) => k,
            _ => MeanStd::DEFAULT_K,
        }
    }

    /// The same method with its setting, where it has one.
    fn with_setting(self, setting: f64) -> Option<Method> {
        match self {
            Method::Percentile(_) => Some(Method::Percentile(setting)),
            Method::MeanStd(_) => Some(Method::MeanStd(setting)),
            _ => None,
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
            Method::Percentile(x) | Method::MeanStd(x) => f.pad(&format!("{}={x}", self.name())),
            _ => f.pad(self.name()),
        }
    }
}

impl FromStr for Method {
    type Err = CalibError;

    /// Reads a name, with a setting where the method has one: `minmax`, `percentile=99.9`,
    /// `mean-std=3`.
    fn from_str(s: &str) -> Result<Self, CalibError> {
        let unknown = || CalibError::Name {
            what: "method",
            given: s.to_string(),
            allowed: "minmax, moving-average, entropy, entropy-all, mse, percentile, \
                      percentile=99.9, aciq-laplace, aciq-gauss, mean-std, mean-std=3, lsq",
        };
        let (name, setting) = match s.split_once('=') {
            Some((name, setting)) => (name, Some(setting)),
            None => (s, None),
        };
        let method = Method::ALL
            .into_iter()
            .find(|m| m.name() == name)
            .ok_or_else(unknown)?;
        let Some(setting) = setting else {
            return Ok(method);
        };
        let setting = setting.parse().map_err(|_| unknown())?;
        let method = method.with_setting(setting).ok_or_else(unknown)?;
        method.estimator()?; // refuses a setting outside its domain
        Ok(method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_with_their_settings() {
        for m in Method::ALL
            .into_iter()
            .chain([Method::Percentile(99.9), Method::MeanStd(2.5)])
        {
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
            "mean-std=0",
            "mean-std=-1",
            "mean-std=NaN",
        ] {
            assert!(
                matches!(bad.parse::<Method>(), Err(CalibError::Setting { .. })),
                "{bad}"
            );
        }
        assert!(Method::Percentile(f64::NAN).estimator().is_err());
    }
}
