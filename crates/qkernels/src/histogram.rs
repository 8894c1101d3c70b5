//! Counting values into bins of width `2^k` anchored at 0.
//!
//! The bin of x, `trunc(|x| / 2^k)`, is exact: a product with a power of two rounds nothing unless
//! it underflows, far inside the first bin. Indices of many values are found in vectors; then each
//! counts on its own. Neighbours count in different copies of the counters, because one that is hit
//! twice in a row waits for its own store (four copies: two are 1.5 times slower where most values
//! share a bin). Exact zeros, often half of all values, take turns among counters of their own.

use alloc::vec::Vec;

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
/// `scratch` is room for 32-bit counters: four times as many as both sides have bins, and a few.
/// It is empty or holds zeros, before and after, and is not allocated again while it is long
/// enough.
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
    scratch: &mut Vec<u32>,
) -> Result<Unbinned, KernelError> {
    let bins = into.positive.len().max(into.negative.len());
    if !EXPONENTS.contains(&into.exponent) || bins > MAX_BINS {
        return Err(KernelError::Bins {
            exponent: into.exponent,
            bins,
            max_bins: MAX_BINS,
        });
    }
    let mut rest = isa.enter(Fill {
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
const COPIES: usize = 4;

/// Counters of a copy that the exact zeros share.
const ZEROS: usize = 16;

/// Values whose counters are found before they are counted.
const CHUNK: usize = 256;

/// Values that 32-bit counters can count.
const PIECE: usize = 1 << 31;

struct Fill<'a> {
    x: &'a [f32],
    into: HistogramMut<'a>,
    bins: usize,
    scratch: &'a mut Vec<u32>,
}

/// Where a value counts: its bin, or behind the last bin of its side.
#[derive(Clone, Copy)]
struct Place {
    /// `2^−k`, which alone can exceed f32, in two factors.
    scale: (f32, f32),
    bins: f32,
    /// Counters of a side.
    side: u32,
}

impl Place {
    fn new(exponent: i32, bins: usize) -> Place {
        // −149 ≤ k ≤ 127: exact, also where the first factor is subnormal.
        let pow2 = |e: i32| f64::from_bits(((e + 1023) as u64) << 52) as f32;
        let first = exponent.max(-120);
        Place {
            scale: (pow2(-first), pow2(first - exponent)),
            bins: bins as f32,
            side: bins as u32 + 1,
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
        let mut rest = Unbinned::default();
        let place = Place::new(self.into.exponent, self.bins);
        // Emptying the counters takes longer than counting so few values one by one.
        if self.x.len() < self.bins / 2 {
            for &v in self.x {
                self.add(v, place, &mut rest);
            }
            return rest;
        }
        let copy = 2 * (self.bins + 1) + ZEROS;
        if self.scratch.len() < COPIES * copy {
            self.scratch.resize(COPIES * copy, 0);
        }
        for piece in self.x.chunks(PIECE) {
            let counters = &mut self.scratch[..COPIES * copy];
            count(piece, place, counters);
            self.empty(copy, &mut rest);
        }
        rest
    }
}

impl Fill<'_> {
    /// Adds what the copies of the counters found, and leaves them at zero.
    #[inline(always)]
    fn empty(&mut self, copy: usize, rest: &mut Unbinned) {
        let (first, others) = self.scratch[..COPIES * copy].split_at_mut(copy);
        for other in others.chunks_exact_mut(copy) {
            for (sum, c) in first.iter_mut().zip(other) {
                // A piece has fewer than 2^32 values.
                *sum += core::mem::take(c);
            }
        }
        let side = self.bins + 1;
        let (positive, others) = first.split_at_mut(side);
        let (negative, zeros) = others.split_at_mut(side);
        for (bins, counters) in [
            (&mut *self.into.positive, positive),
            (&mut *self.into.negative, negative),
        ] {
            let (inside, outside) = counters.split_at_mut(bins.len());
            for (bin, c) in bins.iter_mut().zip(inside) {
                *bin += u64::from(core::mem::take(c));
            }
            rest.outside += outside
                .iter_mut()
                .map(|c| u64::from(core::mem::take(c)))
                .sum::<u64>();
        }
        rest.zeros += zeros
            .iter_mut()
            .map(|c| u64::from(core::mem::take(c)))
            .sum::<u64>();
    }

    /// Counts one value.
    #[inline(always)]
    fn add(&mut self, x: f32, place: Place, rest: &mut Unbinned) {
        let (side, counter) = (self.bins + 1, place.of(x, 0) as usize);
        let bin = if counter < side {
            self.into.positive.get_mut(counter)
        } else if counter < 2 * side {
            self.into.negative.get_mut(counter - side)
        } else {
            Some(&mut rest.zeros)
        };
        *bin.unwrap_or(&mut rest.outside) += 1;
    }
}

/// Counts values in the copies of the counters that `counters` consists of.
#[inline(always)]
fn count(x: &[f32], place: Place, counters: &mut [u32]) {
    let copy = counters.len() / COPIES;
    let (a, b) = counters.split_at_mut(2 * copy);
    let ((a, b), (c, d)) = (a.split_at_mut(copy), b.split_at_mut(copy));
    let mut index = [0u32; CHUNK];
    let (chunks, last) = x.as_chunks::<CHUNK>();
    for chunk in chunks {
        for (lane, (i, &v)) in index.iter_mut().zip(chunk).enumerate() {
            *i = place.of(v, lane);
        }
        for &[i, j, k, l] in index.as_chunks::<COPIES>().0 {
            a[i as usize] += 1;
            b[j as usize] += 1;
            c[k as usize] += 1;
            d[l as usize] += 1;
        }
    }
    for (lane, &v) in last.iter().enumerate() {
        a[place.of(v, lane) as usize] += 1;
    }
}
