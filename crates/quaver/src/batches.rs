//! Which batches of a data set were seen: what keeps shards from being counted twice or left out.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::QuantizeError;

/// How a data set is cut into batches. All shards of a calibration share it, so that a batch has
/// the same number wherever it is observed.
///
/// ```
/// use quaver::BatchPlan;
/// let plan = BatchPlan { samples: 25, batch: 10 };
/// assert_eq!(plan.batches(), 3);
/// let shards: Vec<_> = (1..=2).map(|i| plan.shard(i, 2)).collect();
/// assert_eq!(shards, [0..1, 1..3]);
/// assert_eq!(plan.rows(2), 20..25);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchPlan {
    /// Samples of the whole data set.
    pub samples: u64,
    /// Samples of a batch; the last one may have fewer. 0 is taken as 1.
    pub batch: u64,
}

impl BatchPlan {
    /// Number of batches of the whole data set.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.samples.div_ceil(self.batch.max(1))
    }

    /// The batches of shard `index` of `count`, counted from 1: a run of neighbours, so that a
    /// shard reads one piece of the data; as many in each as can be. Empty where there are more
    /// shards than batches, or for an index that is not one of `1..=count`.
    #[must_use]
    pub fn shard(&self, index: u64, count: u64) -> Range<u64> {
        if index == 0 || index > count {
            return 0..0;
        }
        let edge = |i: u64| {
            let at = u128::from(self.batches()) * u128::from(i) / u128::from(count);
            // At most the number of batches.
            u64::try_from(at).unwrap_or(u64::MAX)
        };
        edge(index - 1)..edge(index)
    }

    /// The samples of a batch.
    #[must_use]
    pub fn rows(&self, batch: u64) -> Range<u64> {
        let start = batch.saturating_mul(self.batch.max(1)).min(self.samples);
        start..start.saturating_add(self.batch.max(1)).min(self.samples)
    }
}

/// A set of batch numbers as runs: sorted, apart from each other, and none empty, so that equal
/// sets have equal bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct BatchSet(Vec<(u64, u64)>);

impl BatchSet {
    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// The number after the last.
    pub(crate) fn end(&self) -> u64 {
        self.0.last().map_or(0, |r| r.1)
    }

    /// Adds one number.
    pub(crate) fn insert(&mut self, batch: u64) -> Result<(), QuantizeError> {
        // The last number of all could not be followed by an end.
        let Some(end) = batch.checked_add(1) else {
            return Err(QuantizeError::Overlap { batch });
        };
        self.join(&BatchSet(vec![(batch, end)]))
    }

    /// Adds all of another set; the sets must have nothing in common.
    pub(crate) fn join(&mut self, other: &BatchSet) -> Result<(), QuantizeError> {
        let mut all: Vec<(u64, u64)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match joined.last_mut() {
                Some(last) if start < last.1 => {
                    return Err(QuantizeError::Overlap { batch: start });
                }
                Some(last) if start == last.1 => last.1 = end,
                _ => joined.push((start, end)),
            }
        }
        self.0 = joined;
        Ok(())
    }

    /// The first run of numbers below `total` that is not here.
    pub(crate) fn missing(&self, total: u64) -> Option<Range<u64>> {
        let (mut at, mut next) = (0, total);
        for &(start, end) in &self.0 {
            if start > at {
                next = start;
                break;
            }
            at = end;
        }
        (at < total).then(|| at..next.min(total))
    }

    /// Whether a stored set is one that [`join`](Self::join) makes, of numbers below `total`.
    pub(crate) fn is_valid(&self, total: u64) -> bool {
        self.0.iter().all(|(start, end)| start < end)
            && self.0.windows(2).all(|w| w[0].1 < w[1].0)
            && self.end() <= total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_every_batch_once() {
        for (samples, batch, count) in [(25, 10, 2), (200, 10, 3), (1, 1, 7), (7, 0, 7), (9, 2, 4)]
        {
            let plan = BatchPlan { samples, batch };
            let all: Vec<u64> = (1..=count).flat_map(|i| plan.shard(i, count)).collect();
            assert_eq!(all, (0..plan.batches()).collect::<Vec<_>>());
            let rows: Vec<u64> = all.iter().flat_map(|&b| plan.rows(b)).collect();
            assert_eq!(rows, (0..samples).collect::<Vec<_>>());
        }
        let plan = BatchPlan {
            samples: u64::MAX,
            batch: 1,
        };
        assert_eq!(plan.shard(u64::MAX, u64::MAX), u64::MAX - 1..u64::MAX);
        assert!(plan.shard(0, 2).is_empty() && plan.shard(3, 2).is_empty());
    }

    #[test]
    fn sets_are_the_same_whatever_the_order() {
        let set = |order: &[u64]| {
            let mut s = BatchSet::default();
            order.iter().for_each(|&b| s.insert(b).unwrap());
            s
        };
        let s = set(&[0, 1, 2, 5, 6]);
        assert_eq!(s, set(&[6, 0, 2, 5, 1]));
        assert_eq!((s.len(), s.end()), (5, 7));
        assert_eq!(s.missing(7), Some(3..5));
        assert_eq!(s.missing(9), Some(3..5));
        assert_eq!(set(&[0, 1]).missing(2), None);
        assert_eq!(set(&[0, 1]).missing(4), Some(2..4));
        assert_eq!(set(&[]).missing(0), None);
        assert!(s.is_valid(7) && !s.is_valid(6));
        assert!(!BatchSet(vec![(3, 3)]).is_valid(9));
        assert!(!BatchSet(vec![(4, 5), (2, 3)]).is_valid(9));
        for twice in [0, 2, 5] {
            let mut s = s.clone();
            assert!(
                matches!(s.insert(twice), Err(QuantizeError::Overlap { batch }) if batch == twice)
            );
        }
        assert!(BatchSet::default().insert(u64::MAX).is_err());
    }
}
