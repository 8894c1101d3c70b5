//! What is recorded: the observer trait, the table of observers, and what estimators read.

use alloc::boxed::Box;
use alloc::string::ToString;
use core::any::Any;
use core::fmt;
use core::str::FromStr;
use qformat::Granularity;

use crate::observers::{
    Batches, Histogram, HistogramObserver, MinMaxObserver, Moments, MomentsObserver,
    MovingAverageObserver,
};
use crate::{CalibError, Extent, ObserverState, Policy, TensorView, ValueRange};

pub(crate) mod sealed {
    use crate::state::RecordWire;
    use crate::{CalibError, TensorView};

    pub trait Sealed {
        /// The groups in the form in which they are stored.
        fn wire(&self) -> RecordWire;
        /// Fails where observing would fail at anything but values that are not finite.
        fn check_view(&mut self, x: &TensorView<'_>) -> Result<(), CalibError>;
    }
}

/// Records the values of one tensor, batch after batch, in memory that does not grow with them
/// (the moving average alone keeps two numbers a batch).
///
/// Every observer keeps what it keeps as exact integers and exact extremes, so that **the state
/// is a function of the multiset of values seen, not of the way they came**: any split of the
/// data over observers, in any order, merges to the same bytes as one pass over all of it.
///
/// The trait is object-safe and sealed: a state must be readable wherever it is merged. How a
/// range is *chosen* from a record is open to other crates: see [`Estimator`](crate::Estimator).
///
/// ```
/// use qcalib::{Observer, ObserverKind, Policy};
/// use qformat::Granularity;
///
/// let mut a = ObserverKind::MinMax.observer(Granularity::PerTensor, Policy::Error)?;
/// let mut b = a.clone();
/// a.observe(0, &[1.0, 2.0], &[1, 2])?;
/// b.observe(1, &[-3.0], &[1, 1])?;
/// a.merge(&*b)?;
/// let range = a.record(0).unwrap().extent.range().unwrap();
/// assert_eq!((range.min, range.max), (-3.0, 2.0));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub trait Observer: Any + fmt::Debug + Send + Sync + sealed::Sealed {
    /// Which line of the table of observers this is.
    fn kind(&self) -> ObserverKind;

    /// Which values share a range.
    fn granularity(&self) -> Granularity;

    /// What happens to values that are not finite.
    fn policy(&self) -> Policy;

    /// Number of groups: the channels, the blocks, or 1 per tensor; 0 until the first value.
    fn groups(&self) -> usize;

    /// Records a batch: `x` in row-major order, of any shape that has the granularity's axis.
    ///
    /// `batch_index` names the batch in the order of the data set, wherever and whenever it is
    /// observed; parts of one batch share it. Only the moving average reads it. A batch without
    /// values changes nothing.
    ///
    /// # Errors
    ///
    /// [`CalibError::Length`] when `x` does not fill `shape`, [`CalibError::Channels`] when another
    /// number of channels or blocks was seen before, [`CalibError::NonFinite`] under
    /// [`Policy::Error`], [`CalibError::CountOverflow`], a [`CalibError::Format`] for an axis that
    /// the shape lacks, and [`CalibError::Memory`] for more groups than fit. After an error the
    /// state is what it was.
    fn observe(&mut self, batch_index: u64, x: &[f32], shape: &[usize]) -> Result<(), CalibError> {
        self.observe_view(batch_index, TensorView::new(x, shape)?)
    }

    /// [`observe`](Self::observe) for elements of any floating-point type at any strides.
    ///
    /// # Errors
    ///
    /// Those of [`observe`](Self::observe); indices in them are row-major.
    fn observe_view(&mut self, batch_index: u64, x: TensorView<'_>) -> Result<(), CalibError>;

    /// Adds what `other` recorded, exactly: commutative and associative, and equal byte for byte
    /// to having observed it all.
    ///
    /// # Errors
    ///
    /// [`CalibError::Mismatch`] when kind, settings, granularity, policy or number of channels
    /// differ, [`CalibError::CountOverflow`]. After an error the state is what it was.
    fn merge(&mut self, other: &dyn Observer) -> Result<(), CalibError>;

    /// What was recorded of a group, or `None` when `group >= self.groups()`.
    fn record(&self, group: usize) -> Option<Record<'_>>;

    /// The same record without telling channels apart: byte for byte what a per-tensor observer
    /// would hold.
    ///
    /// # Errors
    ///
    /// [`CalibError::CountOverflow`].
    fn to_per_tensor(&self) -> Result<Box<dyn Observer>, CalibError>;

    /// A copy behind a new box; `Box<dyn Observer>` is `Clone` through it.
    fn clone_box(&self) -> Box<dyn Observer>;

    /// The state, ready for serde.
    fn state(&self) -> ObserverState;
}

impl Clone for Box<dyn Observer> {
    fn clone(&self) -> Self {
        // Through the trait object: `self.clone_box()` alone would also find the box.
        (**self).clone_box()
    }
}

/// What an observer recorded of one group, as estimators read it.
///
/// Every observer has an extent; what else is there depends on its kind.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Record<'a> {
    /// The channel, or 0 per tensor.
    pub group: usize,
    /// How non-finite values were treated.
    pub policy: Policy,
    /// Ends and counts.
    pub extent: &'a Extent,
    /// The ends of every batch, of a [`MovingAverageObserver`].
    pub batches: Option<&'a Batches>,
    /// The distribution of the values, of a [`HistogramObserver`].
    pub histogram: Option<&'a Histogram>,
    /// Exact sums of the values, of a [`MomentsObserver`].
    pub moments: Option<&'a Moments>,
}

impl Record<'_> {
    /// The ends of all values, in their unit.
    ///
    /// # Errors
    ///
    /// [`CalibError::NoData`] when no finite value was seen.
    pub fn range(&self) -> Result<ValueRange, CalibError> {
        self.extent
            .range()
            .ok_or(CalibError::NoData { group: self.group })
    }
}

/// The observers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ObserverKind {
    /// Ends and counts: [`MinMaxObserver`].
    MinMax,
    /// The ends of every batch: [`MovingAverageObserver`].
    MovingAverage,
    /// A histogram that grows exactly: [`HistogramObserver`].
    Histogram,
    /// Exact sums: [`MomentsObserver`].
    Moments,
}

/// One line of the table of observers.
struct Facts {
    name: &'static str,
    about: &'static str,
    make: fn(Granularity, Policy) -> Result<Box<dyn Observer>, CalibError>,
}

impl ObserverKind {
    /// Every observer, the cheapest first.
    pub const ALL: [ObserverKind; 4] = [
        ObserverKind::MinMax,
        ObserverKind::MovingAverage,
        ObserverKind::Moments,
        ObserverKind::Histogram,
    ];

    /// The table.
    const fn facts(self) -> Facts {
        match self {
            ObserverKind::MinMax => Facts {
                name: "minmax",
                about: "lowest and highest value",
                make: |g, p| Ok(Box::new(MinMaxObserver::new(g, p)?)),
            },
            ObserverKind::MovingAverage => Facts {
                name: "moving-average",
                about: "lowest and highest value of every batch",
                make: |g, p| Ok(Box::new(MovingAverageObserver::new(g, p)?)),
            },
            ObserverKind::Moments => Facts {
                name: "moments",
                about: "exact sums: mean, variance, mean magnitude",
                make: |g, p| Ok(Box::new(MomentsObserver::new(g, p)?)),
            },
            ObserverKind::Histogram => Facts {
                name: "histogram",
                about: "exact counts in bins whose width is a power of two",
                make: |g, p| Ok(Box::new(HistogramObserver::new(g, p)?)),
            },
        }
    }

    /// The name, as [`FromStr`] reads it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// What it records, in a few words.
    #[must_use]
    pub const fn about(self) -> &'static str {
        self.facts().about
    }

    /// A new observer with default settings.
    ///
    /// # Errors
    ///
    /// [`CalibError::Format`] for blocks of no elements.
    pub fn observer(
        self,
        granularity: Granularity,
        policy: Policy,
    ) -> Result<Box<dyn Observer>, CalibError> {
        (self.facts().make)(granularity, policy)
    }
}

impl fmt::Display for ObserverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ObserverKind {
    type Err = CalibError;

    fn from_str(s: &str) -> Result<Self, CalibError> {
        ObserverKind::ALL
            .into_iter()
            .find(|k| k.name() == s)
            .ok_or_else(|| CalibError::Name {
                what: "observer",
                given: s.to_string(),
                allowed: "minmax, moving-average, moments, histogram",
            })
    }
}
