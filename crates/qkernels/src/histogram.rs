//! Counting values into bins of width `2^k` anchored at 0.
//!
//! The bin of x, `trunc(|x| / 2^k)`, is exact: a product with a power of two rounds nothing unless
//! it underflows, far inside the first bin. Indices of many values are found in vectors; then each
//! counts on its own. Neighbours count in different copies of the counters, because one that is hit
//! twice in a row waits for its own store. Two copies of 16-bit counters for 2,048 bins a side leave
//! half of a first-level cache to the values: on Zen 4 four copies are 1.2 times slower from memory
//! where values spread, and 1.1 times faster where nearly all share a bin. Exact zeros, often half
//! of all values, take turns among counters of their own.

use alloc::vec::Vec;

use crate::arch::prefetch;
use crate::isa::{Task, Tier};
use crate::{Isa, KernelError};

/// Bins to count into, on both sides of zero. The sides may have different lengths.
#[derive(Debug)]
pub struct HistogramMut<'a> {
    /// `k`: bins are `2^k` wide, in the unit of the values; from −149 (all f32 values fall into
    /// different bins) to 127.
    pub exponent: i32,
    /// Index `j` counts the values in `[j · 2^k, (j + 1) · 2^k)`, without 0.
    pub positive: &'a mut [u64],
    /// Index `j` counts the values in `(−(j + 1) · 2^k, −j · 2^k]`, without 0.
    pub negative: &'a mut [u64],
}

/// Values that [`histogram`] met outside all bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unbinned {
    /// Values that are ±0.
    pub zeros: u64,
    /// Finite values beyond the last bin of their side.
    pub outside: u64,
    /// NaN.
    pub nan: u64,
    /// +∞.
    pub pos_inf: u64,
    /// −∞.
    pub neg_inf: u64,
}

/// Adds the values of `x` to the counts of their bins, and says what is in none.
///
/// `scratch` is room for 16-bit counters, twice as many as both sides have bins, and a few: it may
/// hold anything, and is not allocated again while it is long enough.
///
/// # Errors
///
/// [`KernelError::Bins`] when the exponent is out of range or a side has more than 2^20 bins.
///
/// ```
/// use qkernels::{HistogramMut, Isa, histogram};
/// let (mut positive, mut negative) = ([0; 4], [0; 4]);
/// let into = HistogramMut { exponent: -1, positive: &mut positive, negative: &mut negative };
/// let x = [0.4, 0.5, -1.9, 0.0, 7.0, f32::NAN];
/// let rest = histogram(Isa::detect(), &x, into, &mut Vec::new())?;
/// assert_eq!((positive, negative), ([1, 1, 0, 0], [0, 0, 0, 1]));
/// assert_eq!((rest.zeros, rest.outside, rest.nan), (1, 1, 1));
/// # Ok::<(), qkernels::KernelError>(())
/// ```
pub fn histogram(
    isa: Isa,
    x: &[f32],
    into: HistogramMut<'_>,
    scratch: &mut Vec<u16>,
) -> Result<Unbinned, KernelError> {
    let bins = into.positive.len().max(into.negative.len());
    if !EXPONENTS.contains(&into.exponent) || bins > MAX_BINS {
        return Err(KernelError::Bins {
            exponent: into.exponent,
            bins,
            max_bins: MAX_BINS,
        });
    }
    let mut rest = isa.enter_shared(Fill {
        x,
        into,
        bins,
        scratch,
    });
    if rest.outside > 0 {
        for v in x.iter().filter(|v| !v.is_finite()) {
            rest.nan += u64::from(v.is_nan());
            rest.pos_inf += u64::from(*v == f32::INFINITY);
            rest.neg_inf += u64::from(*v == f32::NEG_INFINITY);
        }
        rest.outside -= rest.nan + rest.pos_inf + rest.neg_inf;
    }
    Ok(rest)
}

const EXPONENTS: core::ops::RangeInclusive<i32> = -149..=127;

/// Bins of a side: their indices must be exact in f32, and counters should fit a cache.
const MAX_BINS: usize = 1 << 20;

/// Copies of the counters.
const COPIES: usize = 2;

/// Counters of a copy that the exact zeros share.
const ZEROS: usize = 16;

/// Values whose counters are found before they are counted.
const CHUNK: usize = 256;

/// Values that 16-bit counters can count: a half goes to each copy, less than a chunk that is left
/// over to one of them.
const PIECE: usize = COPIES * 255 * CHUNK;

/// How far ahead of the chunk that is counted memory is asked for the next: while counters are
/// stored, few loads are under way.
const AHEAD: usize = 4096 / size_of::<f32>();

/// Values of a cache line: the next is asked for after so many, since many at once wait for each
/// other.
const LINE: usize = 16;

struct Fill<'a> {
    x: &'a [f32],
    into: HistogramMut<'a>,
    bins: usize,
    scratch: &'a mut Vec<u16>,
}

/// Where a value counts: its bin, or behind the last bin of its side.
#[derive(Clone, Copy)]
struct Place {
    /// `2^−k`, which alone can exceed f32, in two factors.
    scale: (f32, f32),
    bins: f32,
    /// Where the negative side's counters begin; the zeros' are as far behind them.
    side: u32,
}

impl Place {
    fn new(exponent: i32, bins: usize, side: usize) -> Place {
        // −149 ≤ k ≤ 127: exact, also where the first factor is subnormal.
        let pow2 = |e: i32| f64::from_bits(((e + 1023) as u64) << 52) as f32;
        let first = exponent.max(-120);
        Place {
            scale: (pow2(-first), pow2(first - exponent)),
            bins: bins as f32,
            side: side as u32,
        }
    }

    /// The counter of a value that stands at `lane` of a chunk.
    #[inline(always)]
    fn of(self, x: f32, lane: usize) -> u32 {
        let y = x.abs() * self.scale.0 * self.scale.1;
        // NaN, too, goes behind the last bin.
        let y = if y < self.bins { y } else { self.bins };
        // SAFETY: between 0 and `MAX_BINS`.
        let j = unsafe { y.to_int_unchecked::<i32>() } as u32;
        let j = j + (x.to_bits() >> 31) * self.side;
        if x == 0.0 {
            2 * self.side + (lane % ZEROS) as u32
        } else {
            j
        }
    }
}

impl Task for Fill<'_> {
    type Output = Unbinned;

    #[inline(always)]
    fn run<T: Tier>(mut self, _tier: T) -> Unbinned {
        // Adding the counters up takes longer than counting so few values at their bins.
        if self.x.len() < self.bins / 2 {
            return self.count_at_bins();
        }
        let mut rest = Unbinned::default();
        let side = self.bins + 1;
        let place = Place::new(self.into.exponent, self.bins, side);
        let copy = 2 * side + ZEROS;
        if self.scratch.len() < COPIES * copy {
            self.scratch.resize(COPIES * copy, 0);
        }
        for piece in self.x.chunks(PIECE) {
            let counters = &mut self.scratch[..COPIES * copy];
            counters.fill(0);
            count(piece, place, counters);
            self.collect(copy, &mut rest);
        }
        rest
    }
}

impl Fill<'_> {
    /// Adds what the copies of the counters found.
    #[inline(always)]
    fn collect(&mut self, copy: usize, rest: &mut Unbinned) {
        let (a, b) = self.scratch[..COPIES * copy].split_at(copy);
        let sum = |(&a, &b): (&u16, &u16)| u64::from(a) + u64::from(b);
        let side = self.bins + 1;
        for (bins, start) in [
            (&mut *self.into.positive, 0),
            (&mut *self.into.negative, side),
        ] {
            let beyond = start + bins.len()..start + side;
            let inside = start..beyond.start;
            for (bin, counted) in bins
                .iter_mut()
                .zip(a[inside.clone()].iter().zip(&b[inside]))
            {
                *bin += sum(counted);
            }
            let outside = a[beyond.clone()].iter().zip(&b[beyond]);
            rest.outside += outside.map(sum).sum::<u64>();
        }
        rest.zeros += a[2 * side..]
            .iter()
            .zip(&b[2 * side..])
            .map(sum)
            .sum::<u64>();
    }

    /// Counts without counters between.
    #[inline(always)]
    fn count_at_bins(self) -> Unbinned {
        /// Behind all bins of a side.
        const SIDE: usize = 2 * MAX_BINS;
        let place = Place::new(self.into.exponent, self.bins, SIDE);
        let (mut zeros, mut outside) = ([0; ZEROS], 0);
        let sides = [self.into.positive, self.into.negative, &mut zeros, &mut []];
        let mut index = [0u32; CHUNK];
        for chunk in self.x.chunks(CHUNK) {
            for (lane, (i, &v)) in index.iter_mut().zip(chunk).enumerate() {
                *i = place.of(v, lane);
            }
            for &i in &index[..chunk.len()] {
                let i = i as usize;
                match sides[i / SIDE % sides.len()].get_mut(i % SIDE) {
                    Some(bin) => *bin += 1,
                    None => outside += 1,
                }
            }
        }
        Unbinned {
            zeros: zeros.iter().sum(),
            outside,
            ..Unbinned::default()
        }
    }
}

/// Counts values in the copies of the counters that `counters` consists of.
#[inline(always)]
fn count(x: &[f32], place: Place, counters: &mut [u16]) {
    let (a, b) = counters.split_at_mut(counters.len() / COPIES);
    let mut index = [0u32; CHUNK];
    let (chunks, last) = x.as_chunks::<CHUNK>();
    for chunk in chunks {
        for (lane, (i, &v)) in index.iter_mut().zip(chunk).enumerate() {
            *i = place.of(v, lane);
        }
        let ahead = chunk.as_ptr().wrapping_add(AHEAD);
        for (line, index) in index.as_chunks::<LINE>().0.iter().enumerate() {
            prefetch(ahead.wrapping_add(line * LINE), LINE * size_of::<f32>());
            for &[i, j] in index.as_chunks::<COPIES>().0 {
                a[i as usize] += 1;
                b[j as usize] += 1;
            }
        }
    }
    for (lane, &v) in last.iter().enumerate() {
        a[place.of(v, lane) as usize] += 1;
    }
}
