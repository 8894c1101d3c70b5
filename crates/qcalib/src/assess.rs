//! What a quantizer does to the values that were recorded.

use qformat::QParams;

use crate::estimators::{Counts, Mse};
use crate::{CalibError, Record};

/// What given parameters do to recorded values, as far as a histogram tells: within a bin values
/// are taken as evenly spread.
///
/// It says why a range is good or bad, and compares any two of them, whatever chose them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Assessment {
    /// Number of values, with the infinities that [`Policy::Saturate`](crate::Policy::Saturate)
    /// puts at the ends.
    pub count: u64,
    /// Share of the values that clip at the lower end: `rne(x / S) + Z < qmin`; from 0 to 1.
    pub clipped_below: f64,
    /// Share of the values that clip at the upper end.
    pub clipped_above: f64,
    /// Share of the values that become the lowest integer, clipped or not.
    pub at_lowest: f64,
    /// Share of the values that become the highest integer, clipped or not.
    pub at_highest: f64,
    /// `E[(x − Q(x))²]`, in the square of the values' unit.
    pub mean_square_error: f64,
    /// `E[x²]`, in the same unit.
    pub mean_square: f64,
    /// Number of integers that the quantizer has.
    pub codes: u64,
    /// How many of them some value becomes, at most.
    pub codes_used: u64,
}

impl Assessment {
    /// Signal to quantization noise, `10 · log10(E[x²] / E[(x − Q(x))²])` in dB; infinite without
    /// noise, and for values that are all zero.
    #[must_use]
    pub fn sqnr_db(&self) -> f64 {
        if self.mean_square_error > 0.0 {
            10.0 * libm::log10(self.mean_square / self.mean_square_error)
        } else {
            f64::INFINITY
        }
    }

    /// Share of the values that clip.
    #[must_use]
    pub fn clipped(&self) -> f64 {
        self.clipped_below + self.clipped_above
    }

    /// Share of the integers that no value becomes, `1 − codes_used / codes`: from 0 to 1.
    #[must_use]
    pub fn dead_codes(&self) -> f64 {
        1.0 - self.codes_used as f64 / self.codes as f64
    }
}

/// Assesses parameters on a record.
///
/// # Errors
///
/// [`CalibError::NoData`] when no finite value was seen, [`CalibError::Needs`] unless the record
/// has a histogram.
///
/// ```
/// use qcalib::{ObserverKind, Policy, assess};
/// use qformat::{DType, Granularity, QParams, Scheme};
///
/// let mut o = ObserverKind::Histogram.observer(Granularity::PerTensor, Policy::Error)?;
/// let x: Vec<f32> = (0..1000).map(|i| i as f32 / 100.0).collect();
/// o.observe(0, &x, &[1000])?;
/// let p = QParams::from_range(0.0, 5.0, DType::U8, Scheme::Affine)?;
/// let a = assess(&o.record(0).unwrap(), &p)?;
/// assert!((a.clipped_above - 0.5).abs() < 0.01 && a.clipped_below == 0.0);
/// assert_eq!(a.codes_used, 256);
/// assert!(a.sqnr_db() < 15.0);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn assess(record: &Record<'_>, params: &QParams) -> Result<Assessment, CalibError> {
    let counts = Counts::of(record, "assess")?;
    let count = counts.total();
    let n = count as f64;
    let step = f64::from(params.scale());
    let offset = |q: i32| f64::from(q) - f64::from(params.zero_point());
    let (low, high) = (offset(params.range().min()), offset(params.range().max()));
    let below = |steps: f64| values_below(&counts, steps * step) / n;
    Ok(Assessment {
        count,
        clipped_below: below(low - 0.5),
        clipped_above: 1.0 - below(high + 0.5),
        at_lowest: below(low + 0.5),
        at_highest: 1.0 - below(high - 0.5),
        mean_square_error: Mse::expected_error(record, params)?,
        mean_square: mean_square(&counts),
        codes: u64::from(params.range().steps()) + 1,
        codes_used: codes_used(&counts, params),
    })
}

/// Expected number of values below `v`.
fn values_below(counts: &Counts, v: f64) -> f64 {
    let sum = |side: &[u64]| side.iter().map(|&c| c as f64).sum::<f64>();
    let outside = |side: &[u64], t: f64| {
        let edge = t / counts.width;
        let whole = (libm::ceil(edge) as usize).min(side.len()); // saturates
        let part = side
            .get(whole.wrapping_sub(1))
            .map_or(0.0, |&c| c as f64 * (whole as f64 - edge).max(0.0));
        sum(&side[whole..]) + part
    };
    if v <= 0.0 {
        return outside(&counts.negative, -v);
    }
    let above = outside(&counts.positive, v);
    sum(&counts.negative) + counts.zeros as f64 + sum(&counts.positive) - above
}

fn mean_square(counts: &Counts) -> f64 {
    let side = |side: &[u64]| -> f64 {
        let term = |(j, &c): (usize, &u64)| {
            let centre = j as f64 + 0.5;
            c as f64 * (centre * centre + 1.0 / 12.0)
        };
        side.iter().enumerate().map(term).sum()
    };
    let sum = side(&counts.negative) + side(&counts.positive);
    sum * counts.width * counts.width / counts.total() as f64
}

/// The most integers that values in these bins can become: bins are walked upwards, and each takes
/// the lowest integers between its edges that are free, but no more than it has values.
fn codes_used(counts: &Counts, params: &QParams) -> u64 {
    let code = |x: f64| i64::from(params.quantize(x as f32));
    let bin = |j: usize| j as f64 * counts.width;
    let negative = counts
        .negative
        .iter()
        .enumerate()
        .rev()
        .map(|(j, &c)| (-bin(j + 1), -bin(j), c));
    let positive = counts
        .positive
        .iter()
        .enumerate()
        .map(|(j, &c)| (bin(j), bin(j + 1), c));
    // Up to `last` all integers were within reach, of which the highest `free` were not taken.
    let (mut used, mut last, mut free) = (0u64, i64::MIN, 0u64);
    for (from, to, c) in negative.chain([(0.0, 0.0, counts.zeros)]).chain(positive) {
        if c == 0 {
            continue;
        }
        // The ends of the values lie inside the outermost bins.
        let first = code(from.max(f64::from(counts.range.min)));
        let end = code(to.min(f64::from(counts.range.max))).max(last);
        let fresh = end.abs_diff(first.max(last.saturating_add(1)) - 1);
        let shared = (last.saturating_add(1))
            .saturating_sub(first)
            .max(0)
            .unsigned_abs();
        let within = fresh + free.min(shared);
        let taken = within.min(c);
        used += taken;
        free = within - taken;
        last = end;
    }
    used
}
