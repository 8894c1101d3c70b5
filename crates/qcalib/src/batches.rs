//! A set of batch indices, small where they are neighbours.

use alloc::vec::Vec;

use crate::CalibError;

/// Indices of batches as ranges: sorted, apart from each other, first and last included. One set
/// has one form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Batches(Vec<(u64, u64)>);

impl Batches {
    /// Number of indices.
    pub(crate) fn count(&self) -> u64 {
        let len = |&(first, last): &(u64, u64)| last - first;
        // Saturates for the set of all 2^64 indices only.
        self.0
            .iter()
            .fold(0u64, |n, r| n.saturating_add(len(r)).saturating_add(1))
    }

    /// Adds an index; one that is there already changes nothing.
    pub(crate) fn insert(&mut self, index: u64) {
        let after = self.0.partition_point(|&(first, _)| first <= index);
        let before = after.checked_sub(1);
        if before.is_some_and(|b| index <= self.0[b].1) {
            return;
        }
        let joins_before = before.filter(|&b| self.0[b].1.checked_add(1) == Some(index));
        let joins_after = self
            .0
            .get(after)
            .is_some_and(|&(first, _)| index.checked_add(1) == Some(first));
        match (joins_before, joins_after) {
            (Some(b), true) => {
                self.0[b].1 = self.0[after].1;
                self.0.remove(after);
            }
            (Some(b), false) => self.0[b].1 = index,
            (None, true) => self.0[after].0 = index,
            (None, false) => self.0.insert(after, (index, index)),
        }
    }

    /// Adds another set that has no index in common.
    pub(crate) fn merge(&mut self, other: &Batches) -> Result<(), CalibError> {
        let mut all: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match joined.last_mut() {
                Some(end) if first <= end.1 => return Err(CalibError::Overlap { batch: first }),
                Some(end) if end.1 + 1 == first => end.1 = last,
                _ => joined.push((first, last)),
            }
        }
        self.0 = joined;
        Ok(())
    }
}

impl From<Batches> for Vec<(u64, u64)> {
    fn from(b: Batches) -> Self {
        b.0
    }
}

impl TryFrom<Vec<(u64, u64)>> for Batches {
    type Error = CalibError;

    fn try_from(ranges: Vec<(u64, u64)>) -> Result<Self, CalibError> {
        let apart = |w: &[(u64, u64)]| w[0].1.checked_add(1).is_some_and(|next| next < w[1].0);
        if ranges.iter().any(|&(a, b)| a > b) || !ranges.windows(2).all(apart) {
            return Err(CalibError::State {
                field: "batches",
                group: 0,
                reason: "are not ranges in order and apart from each other",
            });
        }
        Ok(Batches(ranges))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_set_with_one_form(x in prop::collection::vec(0u64..40, 0..40), cut in 0usize..40) {
            let all: BTreeSet<u64> = x.iter().copied().collect();
            let of = |x: &mut dyn Iterator<Item = u64>| {
                let mut b = Batches::default();
                x.for_each(|i| b.insert(i));
                b
            };
            let whole = of(&mut x.iter().copied());
            prop_assert_eq!(whole.count(), all.len() as u64);
            prop_assert_eq!(&whole, &of(&mut all.iter().rev().copied()));
            prop_assert_eq!(Batches::try_from(Vec::from(whole.clone())), Ok(whole.clone()));
            let (a, b) = (all.iter().take(cut), all.iter().skip(cut));
            let (mut a, b) = (of(&mut a.copied()), of(&mut b.copied()));
            a.merge(&b).unwrap();
            prop_assert_eq!(&a, &whole);
            let twice = a.merge(&b);
            prop_assert_eq!(twice.is_err(), b.count() > 0);
            prop_assert_eq!(a, whole);
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_indices_too() {
        let mut b = Batches::default();
        for i in [u64::MAX, 0, u64::MAX - 1, 1, u64::MAX] {
            b.insert(i);
        }
        assert_eq!(b.0, [(0, 1), (u64::MAX - 1, u64::MAX)]);
        assert_eq!(b.clone().merge(&b), Err(CalibError::Overlap { batch: 0 }));
        for bad in [
            vec![(1, 0)],
            vec![(0, 1), (2, 3)],
            vec![(5, 6), (0, 1)],
            vec![(0, u64::MAX), (3, 4)],
        ] {
            assert!(Batches::try_from(bad).is_err());
        }
    }
}
