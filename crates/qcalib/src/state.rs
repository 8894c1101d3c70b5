//! Observers as serde sees them: versioned, and checked before they are believed.

use alloc::boxed::Box;
use alloc::string::ToString;
use qformat::Granularity;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::grouped::{Grouped, GroupsWire};
use crate::observers::{
    BatchesAccumulator, HistogramAccumulator, MinMaxAccumulator, MomentsAccumulator,
};
use crate::{CalibError, Observer, ObserverKind, Policy};

/// The state of an observer, for serde: what sharded calibration sends around.
///
/// The same data gives the same bytes, however it was split. Whatever is read is checked: the
/// version first, then every count, order and length against each other, so that a value of this
/// type always belongs to an observer that could have made it. Nothing is allocated from a length
/// that a file only claims.
///
/// ```
/// use qcalib::{Observer, ObserverKind, ObserverState, Policy};
/// use qformat::Granularity;
///
/// let mut a = ObserverKind::Histogram.observer(Granularity::PerTensor, Policy::Ignore)?;
/// a.observe(0, &[0.5, -2.0, f32::NAN], &[3])?;
/// let json = serde_json::to_string(&a.state()).unwrap();
/// let b = serde_json::from_str::<ObserverState>(&json).unwrap().into_observer();
/// assert_eq!(json, serde_json::to_string(&b.state()).unwrap());
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "UncheckedState")]
pub struct ObserverState(Box<dyn Observer>);

impl ObserverState {
    /// The version that this build writes and reads.
    pub const VERSION: u32 = 1;

    /// The state of an observer.
    pub(crate) fn new(observer: Box<dyn Observer>) -> Self {
        ObserverState(observer)
    }

    /// Which observer it belongs to.
    #[must_use]
    pub fn kind(&self) -> ObserverKind {
        self.0.kind()
    }

    /// The observer, ready to go on or to be merged.
    #[must_use]
    pub fn into_observer(self) -> Box<dyn Observer> {
        self.0
    }
}

impl Serialize for ObserverState {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        StateWire {
            version: Version(ObserverState::VERSION),
            granularity: self.0.granularity(),
            policy: self.0.policy(),
            record: self.0.wire(),
        }
        .serialize(s)
    }
}

/// The table of what is stored: one line an observer.
macro_rules! records {
    ($($kind:ident($accumulator:ty);)*) => {
        /// The groups of an observer, under the name of its kind.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum RecordWire {
            $(
                #[doc = concat!("Of a ", stringify!($kind), " observer.")]
                $kind(GroupsWire<$accumulator>),
            )*
        }

        impl RecordWire {
            fn restore(
                self,
                granularity: Granularity,
                policy: Policy,
            ) -> Result<Box<dyn Observer>, CalibError> {
                match self {
                    $(RecordWire::$kind(w) => {
                        Ok(Box::new(Grouped::from_wire(granularity, policy, w)?))
                    })*
                }
            }
        }
    };
}
records! {
    MinMax(MinMaxAccumulator);
    MovingAverage(BatchesAccumulator);
    Histogram(HistogramAccumulator);
    Moments(MomentsAccumulator);
}

/// What a file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateWire {
    version: Version,
    granularity: Granularity,
    policy: Policy,
    record: RecordWire,
}

/// An [`ObserverState`] as it was read, not believed yet.
///
/// Reading an [`ObserverState`] checks it at once, and what is wrong becomes a message of the
/// format. Formats such as postcard have no room for messages; so whoever reads from one reads
/// this, and keeps the [`CalibError`] of the conversion with its field, group and reason.
///
/// ```
/// use qcalib::{CalibError, ObserverKind, ObserverState, Policy, UncheckedState};
/// use qformat::Granularity;
///
/// let mut o = ObserverKind::MinMax.observer(Granularity::PerTensor, Policy::Error)?;
/// o.observe(0, &[1.0, 2.0], &[2])?;
/// let mut bytes = postcard::to_allocvec(&o.state()).unwrap();
/// let read: UncheckedState = postcard::from_bytes(&bytes).unwrap();
/// assert_eq!(ObserverState::try_from(read)?.kind(), ObserverKind::MinMax);
///
/// let count = bytes.len() - 4; // of the finite values, before three other counts
/// bytes[count] = 0;
/// let read: UncheckedState = postcard::from_bytes(&bytes).unwrap();
/// let e = ObserverState::try_from(read).unwrap_err();
/// assert!(matches!(e, CalibError::State { field: "range", group: 0, .. }));
/// # Ok::<(), CalibError>(())
/// ```
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct UncheckedState(StateWire);

impl TryFrom<UncheckedState> for ObserverState {
    type Error = CalibError;

    /// Compares the version, then checks every count, order and length against each other.
    fn try_from(UncheckedState(w): UncheckedState) -> Result<ObserverState, CalibError> {
        w.version.check()?;
        Ok(ObserverState(w.record.restore(w.granularity, w.policy)?))
    }
}

/// The version number. It comes first in the file, so a format that has room for messages names
/// another one before anything that this build might not understand.
#[derive(Debug, Clone, Copy)]
struct Version(u32);

impl Version {
    fn check(self) -> Result<(), CalibError> {
        if self.0 == ObserverState::VERSION {
            return Ok(());
        }
        Err(CalibError::Mismatch {
            what: "version of the stored state",
            given: self.0.to_string(),
            expected: ObserverState::VERSION.to_string(),
        })
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let messages = d.is_human_readable();
        let version = Version(u32::deserialize(d)?);
        if messages {
            version.check().map_err(de::Error::custom)?;
        }
        Ok(version)
    }
}
