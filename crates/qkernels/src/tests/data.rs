//! Reproducible data in which extreme values are common, and how much of it a run tries.

use alloc::vec::Vec;

use crate::Isa;

/// A small generator (Knuth's MMIX constants), so that a case is its seed.
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    pub(crate) fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }

    /// Bytes of one of the kinds that break kernels: any values, only extremes, all equal, as weights
    /// are.
    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        const EXTREMES: [u8; 6] = [0, 1, 127, 128, 129, 255];
        match self.below(5) {
            0 => {
                let b = EXTREMES[self.below(6) as usize];
                alloc::vec![b; n]
            }
            1 => (0..n).map(|_| EXTREMES[self.below(6) as usize]).collect(),
            2 => self.weights(n).into_iter().map(|w| w as u8).collect(),
            _ => (0..n).map(|_| self.next() as u8).collect(),
        }
    }
}

impl Rng {
    /// Signed bytes as weights are, so that tiers split them: bell-shaped, or nearly all equal such
    /// that four just fit 128, with rare extremes beside.
    pub(crate) fn weights(&mut self, n: usize) -> Vec<i8> {
        const USUAL: [i8; 5] = [0, 31, 32, -32, -31];
        const RARE: [i8; 8] = [127, -128, -127, 64, 65, 33, -33, -64];
        let kind = self.below(6) as usize;
        if kind < 2 {
            // The sum of four numbers has a deviation of 37; half of it, of 18.
            return (0..n)
                .map(|_| {
                    let parts = self.next().to_le_bytes();
                    let sum: i32 = parts.into_iter().map(|part| i32::from(part) / 4).sum();
                    ((sum - 126) >> kind) as i8
                })
                .collect();
        }
        let rarely = 1 << self.below(8);
        let usual = USUAL[self.below(5) as usize];
        (0..n)
            .map(|_| match self.below(16 * rarely) {
                0 => RARE[self.below(8) as usize],
                _ => usual,
            })
            .collect()
    }
}

/// A property test's number of cases: `full`, or fewer where `PROPTEST_CASES` says so (under
/// emulation; some always remain), or more.
pub(crate) fn cases(full: u32) -> proptest::test_runner::Config {
    let default = proptest::test_runner::Config::default();
    let cases = drawn(full, default.cases);
    proptest::test_runner::Config { cases, ..default }
}

/// A fixed loop's number of rounds: `full`, or fewer (never none) where `PROPTEST_CASES` is small.
pub(crate) fn rounds(full: u32) -> u32 {
    share(full, proptest::test_runner::Config::default().cases).min(full)
}

/// The share of `full`, but so many cases that each meets some of what it draws from: with a few
/// bits and tails, one or two would meet next to nothing.
fn drawn(full: u32, cases: u32) -> u32 {
    const FEWEST: u32 = 8;
    share(full, cases).max(full.min(FEWEST))
}

/// The share of `full` that `cases` are of the usual number; never none.
fn share(full: u32, cases: u32) -> u32 {
    const USUAL: u64 = 256;
    let share = (u64::from(full) * u64::from(cases)).div_ceil(USUAL);
    u32::try_from(share).unwrap_or(u32::MAX).max(1)
}

/// The tiers that tests go through, the best last: all that run here, or of them those that
/// `QUAVER_TEST_ISA` lists (the others were tested elsewhere, says who sets it).
pub(crate) fn tiers() -> impl DoubleEndedIterator<Item = Isa> {
    let listed = std::env::var("QUAVER_TEST_ISA").unwrap_or_default();
    let listed: Vec<Isa> = listed
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| Isa::from_name(name).unwrap_or_else(|e| panic!("QUAVER_TEST_ISA: {e}")))
        .collect();
    Isa::available().filter(move |isa| listed.is_empty() || listed.contains(isa))
}

/// Whether code that is the same in all tiers is to be tested: where the scalar tier is, which runs
/// everywhere. Who sets `QUAVER_TEST_ISA` says what is left out: what a test prints is not shown.
pub(crate) fn plain_code_too() -> bool {
    tiers().any(|isa| isa == Isa::SCALAR)
}

#[test]
fn shares_are_never_none_and_never_more_than_asked_for() {
    assert_eq!(
        [share(256, 256), share(64, 256), share(64, 8)],
        [256, 64, 2]
    );
    assert_eq!([share(1, 8), share(24, 8), share(256, 512)], [1, 1, 512]);
    assert_eq!([share(1, 0), share(2048, 0)], [1, 1]);
    assert!((1..=7).contains(&rounds(7)));
}

#[test]
fn some_cases_are_always_drawn() {
    assert_eq!(
        [drawn(256, 256), drawn(256, 512), drawn(24, 256)],
        [256, 512, 24]
    );
    assert_eq!([drawn(2048, 8), drawn(256, 8), drawn(24, 8)], [64, 8, 8]);
    assert_eq!(
        [drawn(256, 0), drawn(24, 0), drawn(3, 0), drawn(3, 1)],
        [8, 8, 3, 3]
    );
    assert!(cases(256).cases >= 8);
}
