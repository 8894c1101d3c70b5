//! What the machine could do at best, measured in the same rounds as what is judged by it.
//!
//! A contender states its [`Demand`]s: so many multiply-adds, so many bytes from this level of
//! memory. A [`Gauge`] runs nothing but such a demand. A contender's limit is the time that its
//! slowest demand takes at the gauge's rate: the roofline of this call on this machine, now.

use std::fmt;
use std::hint::black_box;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use pulp::{Arch, Simd, WithSimd};
use qkernels::Isa;
use qkernels::limit::int8_dot_loop;

use crate::machine::Team;

/// A resource of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The multiply-accumulate instructions of a tier's byte kernels, on registers only.
    Multiply(Isa),
    /// Fused multiply-adds of f32 in the widest vectors, on registers only.
    Fused,
    /// Reading so many bytes over and over, with the widest loads there are. The number decides
    /// which level of memory holds them.
    Read(usize),
    /// Copying with the system's `memcpy`, so many bytes read and written together.
    Copy(usize),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Multiply(_) => f.write_str("multiply"),
            Kind::Fused => f.write_str("fma"),
            Kind::Read(_) => f.write_str("read"),
            Kind::Copy(_) => f.write_str("memcpy"),
        }
    }
}

/// So much of a resource, needed by one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// The resource.
    pub kind: Kind,
    /// How much of it: operations, or bytes.
    pub amount: f64,
}

/// Runs nothing but a demand, on a team.
pub struct Gauge {
    kind: Kind,
    team: Arc<Team>,
    amount: f64,
    work: Work,
}

/// What a gauge runs on; each thread has its share.
enum Work {
    Multiply(Isa),
    Fused,
    Read {
        shares: Vec<Vec<u32>>,
        passes: usize,
    },
    Copy {
        shares: Vec<Mutex<Pair>>,
        passes: usize,
    },
}

/// Iterations of the multiply loop in one call: some hundred microseconds.
const ITERATIONS: u64 = 100_000;

/// The least that one call of a gauge moves, so that starting the threads does not count.
const LEAST_BYTES: usize = 8 << 20;

/// The smallest page.
const PAGE: usize = 4096;

/// What is copied and where to, at places in their pages that do not depend on the allocator.
///
/// On Zen 3, `rep movsb`, which glibc's `memcpy` takes from 3 KiB up to the size of the second-level
/// cache, falls from 100 to 5 GB/s wherever the destination starts 1 to 31 bytes past the source
/// modulo 4 KiB, as allocations after each other often do. Half a page apart, both at the start of a
/// cache line, is as fast as any other place.
struct Pair {
    memory: Vec<u8>,
    from: Range<usize>,
    to: usize,
}

impl Pair {
    fn new(share: usize) -> Self {
        let memory = filled(share.next_multiple_of(PAGE) + share + 2 * PAGE, 1);
        let start = memory.as_ptr().align_offset(PAGE);
        Self {
            memory,
            from: start..start + share,
            to: start + share.next_multiple_of(PAGE) + PAGE / 2,
        }
    }

    fn parts(&mut self) -> (&[u8], &mut [u8]) {
        let (before, after) = self.memory.split_at_mut(self.to);
        (&before[self.from.clone()], &mut after[..self.from.len()])
    }
}

impl Gauge {
    /// Prepares a gauge: its memory is allocated and touched here.
    #[must_use]
    pub fn new(kind: Kind, team: &Arc<Team>) -> Self {
        let threads = team.threads();
        let (amount, work) = match kind {
            Kind::Multiply(isa) => {
                let operations = int8_dot_loop(isa, ITERATIONS) as f64;
                (operations * threads as f64, Work::Multiply(isa))
            }
            Kind::Fused => {
                let operations = fused(ITERATIONS) as f64;
                (operations * threads as f64, Work::Fused)
            }
            Kind::Read(bytes) => {
                let share = (bytes / threads / size_of::<u32>()).max(1);
                let passes = LEAST_BYTES.div_ceil(share * size_of::<u32>() * threads);
                let shares = (0..threads).map(|_| filled(share, 1_u32)).collect();
                (
                    (share * size_of::<u32>() * threads * passes) as f64,
                    Work::Read { shares, passes },
                )
            }
            Kind::Copy(bytes) => {
                let share = (bytes / threads / 2).max(1);
                let passes = LEAST_BYTES.div_ceil(2 * share * threads);
                let shares = (0..threads).map(|_| Mutex::new(Pair::new(share))).collect();
                (
                    (2 * share * threads * passes) as f64,
                    Work::Copy { shares, passes },
                )
            }
        };
        Self {
            kind,
            team: Arc::clone(team),
            amount,
            work,
        }
    }

    /// The team it runs on.
    #[must_use]
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// How much of the resource one call uses.
    #[must_use]
    pub fn amount(&self) -> f64 {
        self.amount
    }

    /// Whether its rate is the one that counts for this demand of a contender on `team`.
    #[must_use]
    pub fn serves(&self, demand: &Demand, team: &Team) -> bool {
        self.kind == demand.kind && self.team.threads() == team.threads()
    }

    /// Uses the resource once.
    pub fn run(&self) {
        match &self.work {
            Work::Multiply(isa) => self.team.each(|_| {
                black_box(int8_dot_loop(*isa, black_box(ITERATIONS)));
            }),
            Work::Fused => self.team.each(|_| {
                black_box(fused(black_box(ITERATIONS)));
            }),
            Work::Read { shares, passes } => self.team.each(|index| {
                for _ in 0..*passes {
                    black_box(sum(black_box(&shares[index])));
                }
            }),
            Work::Copy { shares, passes } => self.team.each(|index| {
                let mut share = shares[index].lock().unwrap_or_else(PoisonError::into_inner);
                let (from, to) = share.parts();
                for _ in 0..*passes {
                    to.copy_from_slice(black_box(from));
                    black_box(&mut *to);
                }
            }),
        }
    }
}

/// One gauge for each distinct demand and number of threads among the contenders.
#[must_use]
pub fn gauges<'a>(
    contenders: impl IntoIterator<Item = (&'a Arc<Team>, &'a [Demand])>,
) -> Vec<Gauge> {
    let mut gauges: Vec<Gauge> = Vec::new();
    for (team, demands) in contenders {
        for demand in demands {
            if !gauges.iter().any(|gauge| gauge.serves(demand, team)) {
                gauges.push(Gauge::new(demand.kind, team));
            }
        }
    }
    gauges
}

fn filled<T: Clone>(len: usize, value: T) -> Vec<T> {
    vec![value; len]
}

/// Repeats fused multiply-adds of f32 in as many chains as hide their latency; gives the number of
/// multiplications and additions.
fn fused(iterations: u64) -> u64 {
    /// Two a cycle, each done after four: eight would do, more hide what is uneven.
    const CHAINS: usize = 12;

    struct Fused(u64);

    impl WithSimd for Fused {
        type Output = u64;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> u64 {
            let factor = simd.splat_f32s(black_box(0.999));
            let addend = simd.splat_f32s(black_box(0.001));
            let mut chains = [simd.splat_f32s(black_box(1.0)); CHAINS];
            for _ in 0..self.0 {
                for chain in &mut chains {
                    *chain = simd.mul_add_f32s(*chain, factor, addend);
                }
            }
            black_box(chains);
            self.0 * (2 * CHAINS * S::F32_LANES) as u64
        }
    }

    Arch::new().dispatch(Fused(iterations))
}

/// Adds up all words with the widest vectors: as fast as they can be read.
fn sum(words: &[u32]) -> u32 {
    struct Sum<'a>(&'a [u32]);

    impl WithSimd for Sum<'_> {
        type Output = u32;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> u32 {
            let (vectors, rest) = S::as_simd_u32s(self.0);
            // Eight chains, so that the loads and not the additions are what is waited for.
            let mut sums = [simd.splat_u32s(0); 8];
            let (blocks, few) = vectors.as_chunks::<8>();
            for block in blocks {
                for (sum, &vector) in sums.iter_mut().zip(block) {
                    *sum = simd.add_u32s(*sum, vector);
                }
            }
            for &vector in few {
                sums[0] = simd.add_u32s(sums[0], vector);
            }
            let total = sums
                .into_iter()
                .fold(simd.splat_u32s(0), |a, b| simd.add_u32s(a, b));
            let lanes: &[u32] = pulp::bytemuck::cast_slice(std::slice::from_ref(&total));
            lanes.iter().chain(rest).fold(0, |a, &b| a.wrapping_add(b))
        }
    }

    Arch::new().dispatch(Sum(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        for len in [0, 1, 15, 16, 127, 128, 129, 1000] {
            let words: Vec<u32> = (0..len).map(|i| i * i + 1).collect();
            assert_eq!(sum(&words), words.iter().sum::<u32>(), "{len}");
        }
    }

    #[test]
    fn a_gauge_moves_what_it_says() {
        let team = Arc::new(Team::new(2).unwrap());
        for kind in [Kind::Read(1 << 16), Kind::Copy(1 << 16)] {
            let gauge = Gauge::new(kind, &team);
            gauge.run();
            assert!(gauge.amount() >= LEAST_BYTES as f64, "{kind}");
            assert!(gauge.amount() < 1.1 * LEAST_BYTES as f64, "{kind}");
        }
        assert!(Gauge::new(Kind::Read(64 << 20), &team).amount() >= 67_108_864.0);
    }

    #[test]
    fn every_tier_has_a_multiply_limit() {
        let team = Arc::new(Team::new(2).unwrap());
        for isa in Isa::available() {
            let gauge = Gauge::new(Kind::Multiply(isa), &team);
            gauge.run();
            assert!(
                gauge.amount() >= 4.0 * ITERATIONS as f64,
                "{isa}: {}",
                gauge.amount()
            );
        }
    }

    #[test]
    fn copies_start_half_a_page_apart() {
        for share in [1, 4095, 4096, 4097, 100_000] {
            let mut pair = Pair::new(share);
            let (from, to) = pair.parts();
            assert_eq!((from.len(), to.len()), (share, share));
            let (from, to) = (from.as_ptr().addr(), to.as_ptr().addr());
            assert_eq!((from % PAGE, to % PAGE), (0, PAGE / 2), "{share}");
        }
    }

    #[test]
    fn fused_multiply_adds_are_in_the_widest_vectors() {
        let lanes = fused(1) / (2 * 12);
        for isa in Isa::available() {
            let least = match isa.name() {
                "avx2" => 8,
                "avx512_vnni" => 16,
                _ => 1,
            };
            assert!(lanes >= least, "{lanes} lanes where {isa} runs");
        }
    }

    #[test]
    fn fused_multiply_adds_are_counted() {
        let few = fused(10);
        assert!(few >= 10 * 2 * 12, "{few}");
        assert_eq!(fused(20), 2 * few);
    }

    #[test]
    fn equal_demands_share_a_gauge() {
        let one = Arc::new(Team::new(1).unwrap());
        let two = Arc::new(Team::new(2).unwrap());
        let demand = |kind| Demand { kind, amount: 1.0 };
        let read = [demand(Kind::Read(4096)), demand(Kind::Copy(4096))];
        let other = [demand(Kind::Read(8192))];
        let gauges = gauges([
            (&one, &read[..]),
            (&two, &read[..]),
            (&one, &read[..]),
            (&one, &other[..]),
        ]);
        assert_eq!(gauges.len(), 5);
    }
}
