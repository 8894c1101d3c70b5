//! The ends of every batch, for the moving average of them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::min_max::Nothing;
use crate::extent::{check_range, join};
use crate::grouped::{Accumulator, Grouped, GroupsWire, Piece};
use crate::state::RecordWire;
use crate::{CalibError, Extent, ObserverKind, Record, ValueRange};

/// Records the lowest and the highest value of every batch, under the batch's index.
///
/// A moving average depends on the order of the batches, so whoever wants it independent of the
/// order of *arrival* has to keep the batches apart: memory is O(batches × groups), 16 bytes each
/// and the map around them. The average is taken when a range is asked for
/// ([`estimators::MovingAverage`](crate::estimators::MovingAverage)).
///
/// Parts of one batch that share its index count as that one batch: their ends are joined.
///
/// ```
/// use qcalib::{Observer, Policy};
/// use qcalib::observers::MovingAverageObserver;
/// use qformat::Granularity;
///
/// let mut o = MovingAverageObserver::new(Granularity::PerTensor, Policy::Error)?;
/// o.observe(1, &[4.0], &[1])?;
/// o.observe(0, &[-2.0], &[1])?;
/// let batches = o.record(0).unwrap().batches.unwrap();
/// assert_eq!(batches.iter().map(|(i, r)| (i, r.max)).collect::<Vec<_>>(), [(0, -2.0), (1, 4.0)]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub type MovingAverageObserver = Grouped<BatchesAccumulator>;

/// The ends of every batch that had a finite value, in the order of their indices.
#[derive(Debug, Clone, Default)]
pub struct Batches(BTreeMap<u64, (f32, f32)>);

/// The accumulator of [`MovingAverageObserver`].
pub(crate) type BatchesAccumulator = Batches;

impl Batches {
    /// Index and ends of every batch, in the order of the indices; ends in the unit of the values.
    pub fn iter(&self) -> impl Iterator<Item = (u64, ValueRange)> + '_ {
        self.0
            .iter()
            .map(|(&index, &(min, max))| (index, ValueRange { min, max }))
    }

    fn add_range(&mut self, index: u64, range: (f32, f32)) {
        self.0
            .entry(index)
            .and_modify(|r| *r = join(Some(*r), Some(range)).unwrap_or(range))
            .or_insert(range);
    }
}

/// Index, lowest and highest value of one batch.
type BatchWire = (u64, f32, f32);

impl Accumulator for Batches {
    const KIND: ObserverKind = ObserverKind::MovingAverage;
    type Settings = Nothing;
    type Wire = Vec<BatchWire>;
    type Scratch = ();
    // A tree of one entry is made for each group.
    const STAGED_FROM: usize = 1 << 10;
    const AT_ONCE: usize = usize::MAX;

    fn check_settings(_: &Nothing) -> Result<(), CalibError> {
        Ok(())
    }

    fn add(&mut self, _: &Nothing, _: &Extent, piece: Piece<'_>, (): &mut ()) {
        if let Some(range) = piece.summary.min.zip(piece.summary.max) {
            self.add_range(piece.batch, range);
        }
    }

    fn merge(&mut self, _: &Nothing, _: &Extent, other: &Self) {
        for (&index, &range) in &other.0 {
            self.add_range(index, range);
        }
    }

    fn show<'a>(&'a self, record: &mut Record<'a>) {
        record.batches = Some(self);
    }

    fn to_wire(&self) -> Vec<BatchWire> {
        self.0
            .iter()
            .map(|(&index, &(min, max))| (index, min, max))
            .collect()
    }

    fn from_wire(
        _: &Nothing,
        extent: &Extent,
        group: usize,
        wire: Vec<BatchWire>,
    ) -> Result<Self, CalibError> {
        let bad = |reason| {
            Err(CalibError::State {
                field: "batches",
                group,
                reason,
            })
        };
        if wire.windows(2).any(|w| w[0].0 >= w[1].0) {
            return bad("are not in the order of their indices, each once");
        }
        if wire.len() as u64 > extent.finite() {
            return bad("outnumber the finite values");
        }
        let mut all = None;
        for &(_, min, max) in &wire {
            check_range("batches", group, (min, max))?;
            all = join(all, Some((min, max)));
        }
        if all.map(|(min, max)| ValueRange { min, max }) != extent.range() {
            return bad("do not have the range of the group");
        }
        Ok(Batches(
            wire.into_iter()
                .map(|(index, min, max)| (index, (min, max)))
                .collect(),
        ))
    }

    fn record_wire(wire: GroupsWire<Self>) -> RecordWire {
        RecordWire::MovingAverage(wire)
    }
}
