//! What all observers share: groups, policy, checks, merging, state. An observer adds only what
//! it accumulates.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use qformat::Granularity;
use qkernels::{Isa, MinMax, min_max};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::extent::{Extent, ExtentWire};
use crate::layout::{self, COPIED, Layout, check_granularity};
use crate::observer::sealed::Sealed;
use crate::room::reserve;
use crate::state::{ObserverState, RecordWire};
use crate::view::{TensorView, non_finite};
use crate::{CalibError, Observer, ObserverKind, Policy, Record};

/// A run of values of one group.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    pub(crate) batch: u64,
    pub(crate) values: &'a [f32],
    pub(crate) summary: &'a MinMax,
    /// What [`begin`](Accumulator::begin) gave.
    pub(crate) left: Option<u64>,
}

/// What one observer keeps of one group beside its [`Extent`].
///
/// Whatever it keeps must be a function of the multiset of `(batch, value)` pairs added, so that
/// merging is exact.
pub trait Accumulator: Clone + fmt::Debug + Default + Send + Sync + 'static {
    /// The line of the table of observers.
    const KIND: ObserverKind;
    /// What the user chooses; the same for all groups.
    type Settings: Copy
        + PartialEq
        + fmt::Debug
        + Default
        + Send
        + Sync
        + Serialize
        + DeserializeOwned;
    /// The form in which it is stored.
    type Wire: fmt::Debug + Clone + Serialize + DeserializeOwned;

    /// Room to work in, kept between batches.
    type Scratch: Clone + fmt::Debug + Default + Send + Sync;

    /// Values of a group from which on joining two accumulators takes less time than looking at
    /// the values once more.
    const STAGED_FROM: usize;
    /// Values that are looked at for the second time while they are in a second-level cache:
    /// 256 KiB. All, where none is.
    const AT_ONCE: usize = 1 << 16;

    /// Checks settings that come from outside.
    fn check_settings(settings: &Self::Settings) -> Result<(), CalibError>;
    /// Adds what can be added of a piece before its ends are known, and gives how many of its
    /// finite values are left to [`add`](Self::add); `None` where all are. Of the two looks at a
    /// piece, at its ends and at each value, the first waits for memory: it should be the one that
    /// has work to do meanwhile.
    fn begin(&mut self, _values: &[f32], _scratch: &mut Self::Scratch) -> Option<u64> {
        None
    }
    /// Becomes an accumulator of nothing that is shaped like `other`, where that makes recording
    /// into it and merging it into `other` cheaper.
    fn empty_as(&mut self, _other: &Self) {
        *self = Self::default();
    }
    /// Adds values; `extent` already includes them. `scratch` is room to work in.
    fn add(
        &mut self,
        settings: &Self::Settings,
        extent: &Extent,
        piece: Piece<'_>,
        scratch: &mut Self::Scratch,
    );
    /// Adds what another one holds; `extent` already includes it.
    fn merge(&mut self, settings: &Self::Settings, extent: &Extent, other: &Self);
    /// Shows estimators what is here.
    fn show<'a>(&'a self, record: &mut Record<'a>);
    /// The form in which it is stored.
    fn to_wire(&self) -> Self::Wire;
    /// The way back; refuses what [`add`](Self::add) and [`merge`](Self::merge) cannot make.
    fn from_wire(
        settings: &Self::Settings,
        extent: &Extent,
        group: usize,
        wire: Self::Wire,
    ) -> Result<Self, CalibError>;
    /// The line of the table of stored records.
    fn record_wire(wire: GroupsWire<Self>) -> RecordWire;
}

/// What [`CalibError::Memory`] calls the groups.
const GROUPS: &str = "channels or blocks";

#[derive(Debug, Clone, Default)]
struct Group<A> {
    extent: Extent,
    more: A,
}

impl<A: Accumulator> Group<A> {
    /// Adds values of a batch, and tells whether all were finite.
    fn add(
        &mut self,
        settings: &A::Settings,
        isa: Isa,
        batch: u64,
        values: &[f32],
        scratch: &mut A::Scratch,
    ) -> bool {
        let mut finite = true;
        for values in values.chunks(A::AT_ONCE) {
            let summary = || min_max(isa, values);
            finite &= self.add_piece(settings, batch, values, summary, scratch);
        }
        finite
    }

    /// Adds values whose ends `summary` finds or knows, and tells whether all were finite.
    fn add_piece(
        &mut self,
        settings: &A::Settings,
        batch: u64,
        values: &[f32],
        summary: impl FnOnce() -> MinMax,
        scratch: &mut A::Scratch,
    ) -> bool {
        let left = self.more.begin(values, scratch);
        let summary = summary();
        self.extent.add(values.len(), &summary);
        let piece = Piece {
            batch,
            values,
            summary: &summary,
            left,
        };
        self.more.add(settings, &self.extent, piece, scratch);
        summary.all_finite()
    }

    /// Becomes a group that has seen nothing, in the shape of `other`.
    fn empty_as(&mut self, other: &Self) {
        self.extent = Extent::default();
        self.more.empty_as(&other.more);
    }

    /// The caller has checked that the counts cannot overflow.
    fn merge(&mut self, settings: &A::Settings, other: &Self) {
        self.extent.merge(&other.extent);
        self.more.merge(settings, &self.extent, &other.more);
    }
}

/// Room to work in: no part of the state, so that a copy begins without any.
#[derive(Debug)]
struct Room<A: Accumulator> {
    copied: layout::Room,
    scratch: A::Scratch,
    /// The groups of a batch that may still be refused.
    staged: Vec<Group<A>>,
}

impl<A: Accumulator> Default for Room<A> {
    fn default() -> Self {
        Room {
            copied: layout::Room::default(),
            scratch: A::Scratch::default(),
            staged: Vec::new(),
        }
    }
}

impl<A: Accumulator> Clone for Room<A> {
    fn clone(&self) -> Self {
        Room::default()
    }
}

/// An [`Observer`] that keeps an [`Extent`] and an accumulator for every group.
///
/// Use it by the names of the observers, such as
/// [`HistogramObserver`](crate::observers::HistogramObserver).
#[derive(Debug, Clone)]
pub struct Grouped<A: Accumulator> {
    granularity: Granularity,
    policy: Policy,
    settings: A::Settings,
    groups: Vec<Group<A>>,
    room: Room<A>,
}

impl<A: Accumulator> Grouped<A> {
    /// An observer with default settings that has seen nothing.
    ///
    /// # Errors
    ///
    /// [`CalibError::Format`] for blocks of no elements.
    pub fn new(granularity: Granularity, policy: Policy) -> Result<Self, CalibError> {
        Self::with_settings(granularity, policy, A::Settings::default())
    }

    pub(crate) fn with_settings(
        granularity: Granularity,
        policy: Policy,
        settings: A::Settings,
    ) -> Result<Self, CalibError> {
        check_granularity(granularity)?;
        A::check_settings(&settings)?;
        Ok(Grouped {
            granularity,
            policy,
            settings,
            groups: Vec::new(),
            room: Room::default(),
        })
    }

    /// What the user chose.
    pub(crate) fn settings(&self) -> &A::Settings {
        &self.settings
    }

    /// Everything but the values that must hold before the first of them is recorded, and room
    /// for the groups: what follows fails at values that are not finite only.
    fn check_batch(&mut self, x: &TensorView<'_>) -> Result<(Layout, usize), CalibError> {
        let layout = Layout::new(self.granularity, x.shape())?;
        let (given, expected) = (layout.groups()?, self.groups.len());
        if x.is_empty() {
            return Ok((layout, given));
        }
        if expected != 0 && given != expected {
            let axis = match self.granularity {
                Granularity::PerChannel { axis } | Granularity::PerBlock { axis, .. } => axis,
                Granularity::PerTensor => 0,
            };
            return Err(CalibError::Channels {
                axis,
                given,
                expected,
            });
        }
        let share = layout.share() as u64;
        self.groups
            .iter()
            .try_for_each(|g| g.extent.check_room(share))?;
        // A view may repeat one element, so there can be more groups than memory.
        reserve(&mut self.groups, GROUPS, given)?;
        if self.stages(layout) {
            reserve(&mut self.room.staged, GROUPS, given)?;
        }
        Ok((layout, given))
    }

    /// Whether a batch that may be refused is recorded beside the groups first.
    fn stages(&self, layout: Layout) -> bool {
        self.policy == Policy::Error && layout.share() >= A::STAGED_FROM
    }

    /// Records a batch that is one piece, once its ends are known to be finite. Tells whether they
    /// were; else nothing has changed.
    fn look_first(&mut self, batch: u64, values: &[f32]) -> bool {
        let summary = min_max(Isa::detect(), values);
        if !summary.all_finite() {
            return false;
        }
        if self.groups.is_empty() {
            self.groups.push(Group::default());
        }
        let Grouped {
            settings,
            groups,
            room: Room { scratch, .. },
            ..
        } = self;
        for group in groups {
            group.add_piece(settings, batch, values, || summary, scratch);
        }
        true
    }

    /// Records a batch beside the groups and adds it to them at the end, so that its values are
    /// read once although any of them may have it refused. Tells whether all were finite; else
    /// nothing has changed.
    fn stage(
        &mut self,
        batch: u64,
        x: &TensorView<'_>,
        (layout, count): (Layout, usize),
    ) -> Result<bool, CalibError> {
        let Grouped {
            settings,
            groups,
            room:
                Room {
                    copied,
                    scratch,
                    staged,
                },
            ..
        } = self;
        let isa = Isa::detect();
        staged.resize_with(count, Group::default);
        for (index, aside) in staged.iter_mut().enumerate() {
            match groups.get(index) {
                Some(group) => aside.empty_as(group),
                None => *aside = Group::default(),
            }
        }
        let mut finite = true;
        layout.for_each_piece(x, copied, |group, values| {
            finite = finite && staged[group].add(settings, isa, batch, values, scratch);
        })?;
        if !finite {
            return Ok(false);
        }
        if groups.is_empty() {
            core::mem::swap(groups, staged);
        } else {
            for (group, more) in groups.iter_mut().zip(&*staged) {
                group.merge(settings, more);
            }
        }
        Ok(true)
    }

    /// Names the first value that is not finite, in row-major order.
    fn check_finite(&mut self, x: &TensorView<'_>) -> Result<(), CalibError> {
        let mut first = None;
        let mut all = 0;
        let mut look = |start: usize, part: &[f32]| {
            if let Some((index, kind, count)) = non_finite(part) {
                first.get_or_insert((start + index, kind));
                all += count;
            }
        };
        if let Some(x) = x.in_place() {
            look(0, x);
        } else {
            let part = &mut self.room.copied.slab;
            for start in (0..x.len()).step_by(COPIED) {
                x.copy(start, COPIED.min(x.len() - start), part)?;
                look(start, part);
            }
        }
        match first {
            Some((index, kind)) => Err(CalibError::NonFinite {
                count: all,
                index,
                kind,
            }),
            None => Ok(()),
        }
    }

    fn check_mergeable(&self, other: &Self) -> Result<(), CalibError> {
        let differs = |what, given: &dyn fmt::Display, expected: &dyn fmt::Display| {
            Err(CalibError::Mismatch {
                what,
                given: given.to_string(),
                expected: expected.to_string(),
            })
        };
        if self.granularity != other.granularity {
            return differs("granularity", &other.granularity, &self.granularity);
        }
        if self.policy != other.policy {
            return differs("policy", &other.policy, &self.policy);
        }
        if self.settings != other.settings {
            let show = |s: &A::Settings| format!("{s:?}");
            return differs("settings", &show(&other.settings), &show(&self.settings));
        }
        let (given, expected) = (other.groups.len(), self.groups.len());
        if given != 0 && expected != 0 && given != expected {
            return differs("number of channels", &given, &expected);
        }
        self.groups
            .iter()
            .zip(&other.groups)
            .try_for_each(|(a, b)| a.extent.check_room(b.extent.seen()))
    }

    /// Restores an observer, checking everything.
    pub(crate) fn from_wire(
        granularity: Granularity,
        policy: Policy,
        wire: GroupsWire<A>,
    ) -> Result<Self, CalibError> {
        let mut observer = Self::with_settings(granularity, policy, wire.settings)?;
        if granularity == Granularity::PerTensor && wire.groups.len() > 1 {
            let reason = "is one too many: a tensor has one group";
            return Err(CalibError::State {
                field: "groups",
                group: 1,
                reason,
            });
        }
        for (group, w) in wire.groups.into_iter().enumerate() {
            let extent = w.extent.check(group)?;
            let bad = |field, reason| {
                Err(CalibError::State {
                    field,
                    group,
                    reason,
                })
            };
            if extent.seen() == 0 {
                return bad("finite", "and the other counts are all zero");
            }
            if policy == Policy::Error && extent.seen() != extent.finite() {
                return bad(
                    "nan",
                    "or an infinity was counted, though the policy refuses them",
                );
            }
            let more = A::from_wire(&observer.settings, &extent, group, w.more)?;
            observer.groups.push(Group { extent, more });
        }
        Ok(observer)
    }
}

impl<A: Accumulator> Sealed for Grouped<A> {
    fn wire(&self) -> RecordWire {
        let store = |g: &Group<A>| GroupWire {
            extent: ExtentWire::new(&g.extent),
            more: g.more.to_wire(),
        };
        A::record_wire(GroupsWire {
            settings: self.settings,
            groups: self.groups.iter().map(store).collect(),
        })
    }

    fn check_view(&mut self, x: &TensorView<'_>) -> Result<(), CalibError> {
        self.check_batch(x).map(|_| ())
    }
}

impl<A: Accumulator> Observer for Grouped<A> {
    fn kind(&self) -> ObserverKind {
        A::KIND
    }

    fn granularity(&self) -> Granularity {
        self.granularity
    }

    fn policy(&self) -> Policy {
        self.policy
    }

    fn groups(&self) -> usize {
        self.groups.len()
    }

    fn observe_view(&mut self, batch_index: u64, x: TensorView<'_>) -> Result<(), CalibError> {
        let (layout, count) = self.check_batch(&x)?;
        if x.is_empty() {
            return Ok(());
        }
        if self.policy == Policy::Error {
            let done = match layout.only_piece(&x) {
                Some(values) => self.look_first(batch_index, values),
                None if self.stages(layout) => self.stage(batch_index, &x, (layout, count))?,
                None => false,
            };
            if done {
                return Ok(());
            }
            self.check_finite(&x)?;
        }
        if self.groups.is_empty() {
            self.groups.resize_with(count, Group::default);
        }
        let Grouped {
            settings,
            groups,
            room: Room {
                copied, scratch, ..
            },
            ..
        } = self;
        let isa = Isa::detect();
        layout.for_each_piece(&x, copied, |group, values| {
            groups[group].add(settings, isa, batch_index, values, scratch);
        })
    }

    fn merge(&mut self, other: &dyn Observer) -> Result<(), CalibError> {
        let Some(other) = (other as &dyn Any).downcast_ref::<Self>() else {
            return Err(CalibError::Mismatch {
                what: "observer",
                given: other.kind().to_string(),
                expected: A::KIND.to_string(),
            });
        };
        self.check_mergeable(other)?;
        if self.groups.is_empty() {
            self.groups.clone_from(&other.groups);
            return Ok(());
        }
        for (a, b) in self.groups.iter_mut().zip(&other.groups) {
            a.merge(&self.settings, b);
        }
        Ok(())
    }

    fn record(&self, group: usize) -> Option<Record<'_>> {
        let Group { extent, more } = self.groups.get(group)?;
        let policy = self.policy;
        let mut record = Record {
            group,
            policy,
            extent,
            batches: None,
            histogram: None,
            moments: None,
        };
        more.show(&mut record);
        Some(record)
    }

    fn to_per_tensor(&self) -> Result<Box<dyn Observer>, CalibError> {
        let mut whole = Self::with_settings(Granularity::PerTensor, self.policy, self.settings)?;
        let mut groups = self.groups.iter();
        if let Some(first) = groups.next() {
            let mut sum = first.clone();
            for g in groups {
                sum.extent.check_room(g.extent.seen())?;
                sum.merge(&self.settings, g);
            }
            whole.groups.push(sum);
        }
        Ok(Box::new(whole))
    }

    fn clone_box(&self) -> Box<dyn Observer> {
        Box::new(self.clone())
    }

    fn state(&self) -> ObserverState {
        ObserverState::new(self.clone_box())
    }
}

/// The groups of an observer as they are stored.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
pub struct GroupsWire<A: Accumulator> {
    settings: A::Settings,
    groups: Vec<GroupWire<A>>,
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
struct GroupWire<A: Accumulator> {
    extent: ExtentWire,
    more: A::Wire,
}
