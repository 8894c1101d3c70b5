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
#[serde(try_from = "StateWire")]
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
            version: Version,
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

impl TryFrom<StateWire> for ObserverState {
    type Error = CalibError;

    fn try_from(w: StateWire) -> Result<ObserverState, CalibError> {
        Ok(ObserverState(w.record.restore(w.granularity, w.policy)?))
    }
}

/// The version number. It comes first in the file, so another one is named before anything that
/// this build might not understand.
#[derive(Debug, Clone, Copy)]
struct Version;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u32(ObserverState::VERSION)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match u32::deserialize(d)? {
            ObserverState::VERSION => Ok(Version),
            other => Err(de::Error::custom(CalibError::Mismatch {
                what: "version of the stored state",
                given: other.to_string(),
                expected: ObserverState::VERSION.to_string(),
            })),
        }
    }
}
