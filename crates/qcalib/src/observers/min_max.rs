//! Lowest and highest value: what every observer keeps, and nothing else.

use crate::grouped::{Accumulator, Grouped, GroupsWire, Piece};
use crate::state::RecordWire;
use crate::{CalibError, Extent, ObserverKind, Record};

/// Records the lowest and the highest value of every group: a few words of memory a group.
///
/// ```
/// use qcalib::Policy;
/// use qcalib::observers::MinMaxObserver;
/// use qcalib::Observer;
/// use qformat::Granularity;
///
/// let mut o = MinMaxObserver::new(Granularity::PerChannel { axis: 1 }, Policy::Ignore)?;
/// o.observe(0, &[1.0, f32::NAN, -1.0, 8.0], &[2, 2])?;
/// assert_eq!(o.record(0).unwrap().extent.range().unwrap().min, -1.0);
/// assert_eq!(o.record(1).unwrap().extent.nan(), 1);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub type MinMaxObserver = Grouped<MinMaxAccumulator>;

/// Nothing beside the extent.
#[derive(Debug, Clone, Default)]
pub struct MinMaxAccumulator;

/// No settings, and nothing beside the extent.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl Accumulator for MinMaxAccumulator {
    const KIND: ObserverKind = ObserverKind::MinMax;
    type Settings = Nothing;
    type Wire = Nothing;
    type Scratch = ();
    const STAGED_FROM: usize = 64;
    const AT_ONCE: usize = usize::MAX;

    fn check_settings(_: &Nothing) -> Result<(), CalibError> {
        Ok(())
    }

    fn add(&mut self, _: &Nothing, _: &Extent, _: Piece<'_>, (): &mut ()) {}

    fn merge(&mut self, _: &Nothing, _: &Extent, _: &Self) {}

    fn show<'a>(&'a self, _: &mut Record<'a>) {}

    fn to_wire(&self) -> Nothing {
        Nothing {}
    }

    fn from_wire(_: &Nothing, _: &Extent, _: usize, _: Nothing) -> Result<Self, CalibError> {
        Ok(MinMaxAccumulator)
    }

    fn record_wire(wire: GroupsWire<Self>) -> RecordWire {
        RecordWire::MinMax(wire)
    }
}
