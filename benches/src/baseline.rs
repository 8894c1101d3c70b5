//! Which results became slower than a saved run's.

use crate::record::Record;

/// A change smaller than this is none, however steady the rows are.
const LEAST_CHANGE: f64 = 0.05;

/// What a change means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Slower by more than the noise.
    Slower,
    /// Within the noise.
    Even,
    /// Faster by more than the noise.
    Faster,
}

/// A result beside the baseline's.
#[derive(Debug, Clone)]
pub struct Change {
    /// The baseline's result.
    pub before: Record,
    /// The result now.
    pub now: Record,
    /// Now against before; above 1 is faster. On another processor the shares of the limit are
    /// compared instead of the rates.
    pub ratio: f64,
    /// What it means.
    pub verdict: Verdict,
}

/// What [`compare`] found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Each result that both runs have.
    pub changes: Vec<Change>,
    /// How many results the baseline does not have.
    pub new: usize,
    /// How many results were compared by their share of the limit, since the processors differ.
    pub by_share: usize,
}

impl Comparison {
    /// How many results became slower.
    #[must_use]
    pub fn slower(&self) -> usize {
        self.changes
            .iter()
            .filter(|change| change.verdict == Verdict::Slower)
            .count()
    }
}

/// Sets each result beside the baseline's result for the same thing.
#[must_use]
pub fn compare(baseline: &[Record], records: &[Record]) -> Comparison {
    let mut comparison = Comparison::default();
    for now in records {
        let alike = |before: &&Record| {
            before.key == now.key && before.best_ns.is_some() == now.best_ns.is_some()
        };
        let Some(before) = baseline.iter().find(alike) else {
            comparison.new += 1;
            continue;
        };
        let ratio = match (before.cpu == now.cpu, before.share(), now.share()) {
            (false, Some(before), Some(now)) => {
                comparison.by_share += 1;
                now / before
            }
            // The work is the same, so this is the ratio of the rates, too.
            _ => before.time_ns() / now.time_ns(),
        };
        // Both rows move by their spread without any cause.
        let noise = before
            .spread
            .unwrap_or(0.0)
            .hypot(now.spread.unwrap_or(0.0));
        let least = noise.max(LEAST_CHANGE);
        let verdict = if ratio < 1.0 - least {
            Verdict::Slower
        } else if ratio > 1.0 + least {
            Verdict::Faster
        } else {
            Verdict::Even
        };
        comparison.changes.push(Change {
            before: before.clone(),
            now: now.clone(),
            ratio,
            verdict,
        });
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn verdict(before: &Record, now: &Record) -> Verdict {
        compare(std::slice::from_ref(before), std::slice::from_ref(now)).changes[0].verdict
    }

    #[test]
    fn a_change_must_exceed_the_noise() {
        let before = record("avx2", 50.0);
        assert_eq!(verdict(&before, &record("avx2", 49.0)), Verdict::Even);
        assert_eq!(verdict(&before, &record("avx2", 45.0)), Verdict::Slower);
        assert_eq!(verdict(&before, &record("avx2", 55.0)), Verdict::Faster);
        let mut noisy = record("avx2", 45.0);
        noisy.spread = Some(0.2);
        assert_eq!(verdict(&before, &noisy), Verdict::Even);
    }

    #[test]
    fn another_processor_is_judged_by_its_own_limit() {
        let before = record("avx2", 50.0);
        let mut now = record("avx2", 100.0);
        now.cpu = "another".to_owned();
        now.limit = Some(250.0);
        let comparison = compare(std::slice::from_ref(&before), &[now]);
        assert_eq!(comparison.by_share, 1);
        assert_eq!(comparison.slower(), 1);
    }

    #[test]
    fn what_the_baseline_lacks_is_counted() {
        let comparison = compare(&[record("avx2", 1.0)], &[record("scalar", 1.0)]);
        assert_eq!((comparison.new, comparison.changes.len()), (1, 0));
    }
}
