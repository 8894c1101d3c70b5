//! The range whose quantizer errs least, in squares.

use alloc::vec::Vec;
use qformat::{QParams, Scheme};

use super::counts::Counts;
use crate::{CalibError, Estimator, Record, Target, ValueRange};

/// The range that minimises the expected squared error `E[(x − Q(x))²]` under the target's own
/// quantizer.
///
/// `Q` is the quantizer that [`QParams::from_range`] makes of a candidate range, with its rounded
/// scale and zero point. Inside a bin values are taken as evenly spread, and the error of a bin
/// is then integrated exactly, not sampled: with `u = x / S`,
///
/// ```text
/// ∫₀ᵘ (t − Q(t))² dt = n / 12 + (u − n)³ / 3,   n = min(rne(u), clip bound in steps)
/// ```
///
/// which covers rounding and clipping alike. Bins that clip wholly are summed through moments. Both
/// ends are searched for the affine scheme, one for the symmetric: first over ranges that shrink by
/// a constant ratio down to a single bin, then around the best with ratios ever nearer to 1. The
/// widest of equally good ranges wins; it is in the unit of the values. Exact zeros cost nothing
/// under any quantizer.
///
/// The criterion is that of optimal scalar quantization (Max 1960, *Quantizing for minimum
/// distortion*); as a choice of clipping ranges see Banner et al. 2019 (arXiv 1810.05723), who
/// assume a distribution where this reads the histogram. Reads the record of a
/// [`HistogramObserver`](crate::observers::HistogramObserver). The squared error of the chosen
/// range is [`expected_error`](Mse::expected_error).
///
/// ```
/// use qcalib::estimators::{MinMax, Mse};
/// use qcalib::{Observer, ObserverKind, Policy, Target, ranges};
/// use qformat::{DType, Granularity, Scheme};
///
/// let mut o = ObserverKind::Histogram.observer(Granularity::PerTensor, Policy::Error)?;
/// // Many small values and one large: four bits are better spent on the many.
/// let x: Vec<f32> = (0..4000).map(|i| (i % 100) as f32 / 100.0).chain([4.0]).collect();
/// o.observe(0, &x, &[x.len()])?;
/// let target = Target::new(DType::U4, Scheme::Affine)?;
/// let wide = ranges(&*o, &MinMax, target)?[0];
/// let r = ranges(&*o, &Mse, target)?[0];
/// assert!(wide.max == 4.0 && r.max < 2.0);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Mse;

impl Mse {
    /// `E[(x − Q(x))²]` of the recorded values under given parameters, in the square of their
    /// unit: what [`Mse`] minimises.
    ///
    /// # Errors
    ///
    /// [`CalibError::NoData`] and [`CalibError::Needs`] as [`Estimator::range`].
    pub fn expected_error(record: &Record<'_>, params: &QParams) -> Result<f64, CalibError> {
        let counts = Counts::of(record, "mse")?;
        let n = counts.total() as f64;
        Ok(Cost::new(&counts).of_params(params) * counts.width * counts.width / n)
    }
}

impl Estimator for Mse {
    fn name(&self) -> &'static str {
        "mse"
    }

    fn range(&self, record: &Record<'_>, target: Target) -> Result<ValueRange, CalibError> {
        let counts = Counts::of(record, self.name())?;
        let ValueRange { min, max } = counts.range;
        let (mut min, mut max) = (f64::from(min.min(0.0)), f64::from(max.max(0.0)));
        if target.scheme() == Scheme::Symmetric {
            max = max.max(-min);
            min = -max;
        }
        // One end to move: the other mirrors it, or stays at zero.
        let tied = target.scheme() == Scheme::Symmetric || min == 0.0 || max == 0.0;
        let mut search = Search {
            cost: Cost::new(&counts),
            target,
            min,
            max,
            tied,
            best: None,
        };
        search.run()?;
        // Never none: the widest range was tried. What lies outside the observed range does not
        // matter to the symmetric scheme, as long as the longer side stays.
        let ValueRange { min, max } = counts.range;
        Ok(search.best.map_or(counts.range, |b| ValueRange {
            min: b.range.min.max(min.min(0.0)),
            max: b.range.max.min(max.max(0.0)),
        }))
    }
}

/// Octaves by which the coarse search shrinks an end: to about one of 2,048 bins.
const OCTAVES: u32 = 11;

/// The fine search halves the distance between candidates until it is below this share of an
/// octave, which changes a range by 0.2 %.
const FINEST: f64 = 1.0 / 384.0;

#[derive(Debug, Clone, Copy)]
struct Best {
    /// Octaves by which the ends are shrunk.
    at: (f64, f64),
    cost: f64,
    range: ValueRange,
}

/// A search over both ends of `[min, max]`.
struct Search {
    cost: Cost,
    target: Target,
    min: f64,
    max: f64,
    tied: bool,
    best: Option<Best>,
}

impl Search {
    fn run(&mut self) -> Result<(), CalibError> {
        // The plane costs the square of a line, so its first net is wider.
        let per_octave = if self.tied { 8 } else { 3 };
        let mut step = 1.0 / f64::from(per_octave);
        for i in 0..=OCTAVES * per_octave {
            let a = f64::from(i) * step;
            if self.tied {
                self.offer(a, a)?;
                continue;
            }
            for j in 0..=OCTAVES * per_octave {
                self.offer(a, f64::from(j) * step)?;
            }
        }
        while let Some(Best { at: (a, b), .. }) = self.best {
            step /= 2.0;
            if step < FINEST {
                break;
            }
            for da in [-step, 0.0, step] {
                if self.tied {
                    self.offer(a + da, a + da)?;
                    continue;
                }
                for db in [-step, 0.0, step] {
                    self.offer(a + da, b + db)?;
                }
            }
        }
        Ok(())
    }

    /// Tries the ends shrunk by so many octaves.
    fn offer(&mut self, a: f64, b: f64) -> Result<(), CalibError> {
        if a < 0.0 || b < 0.0 {
            return Ok(());
        }
        // Never wider than the finite ends they start from.
        let range = ValueRange {
            min: (self.min * libm::exp2(-a)) as f32,
            max: (self.max * libm::exp2(-b)) as f32,
        };
        let cost = self.cost.of_params(&self.target.params(range)?);
        // Wider ranges come first, so that they win where nothing is gained.
        if self.best.is_none_or(|best| cost < best.cost) {
            self.best = Some(Best {
                at: (a, b),
                cost,
                range,
            });
        }
        Ok(())
    }
}

/// The squared error of all values under any parameters, in the square of the bin width.
#[derive(Debug)]
struct Cost {
    width: f64,
    negative: Side,
    positive: Side,
}

impl Cost {
    fn new(counts: &Counts) -> Cost {
        Cost {
            width: counts.width,
            negative: Side::new(&counts.negative),
            positive: Side::new(&counts.positive),
        }
    }

    fn of_params(&self, p: &QParams) -> f64 {
        let steps = |end: i32| f64::from(end.abs_diff(p.zero_point()));
        let r = self.width / f64::from(p.scale());
        // Ties go to even on both sides of zero, so the negative side is a mirror image.
        self.negative.squared_error(r, steps(p.range().min()))
            + self.positive.squared_error(r, steps(p.range().max()))
    }
}

/// The bins on one side of zero, prepared for sums.
#[derive(Debug)]
struct Side {
    counts: Vec<f64>,
    /// At edge `e`: the count before it less the count after it.
    drops: Vec<f64>,
    /// Sums from bin `j` to the last of `1`, `x` and `x²`, in bin widths.
    moments: Vec<[f64; 3]>,
}

impl Side {
    fn new(counts: &[u64]) -> Side {
        // Counts above 2^53 round: relative weights are all that matters here.
        let counts: Vec<f64> = counts.iter().map(|&c| c as f64).collect();
        let after = |e: usize| counts.get(e).copied().unwrap_or(0.0);
        let drops = (0..counts.len())
            .map(|e| {
                if e == 0 {
                    -after(0)
                } else {
                    counts[e - 1] - after(e)
                }
            })
            .collect();
        let mut moments = alloc::vec![[0.0; 3]; counts.len() + 1];
        for (j, &c) in counts.iter().enumerate().rev() {
            let centre = j as f64 + 0.5;
            let [n, x, xx] = moments[j + 1];
            moments[j] = [
                n + c,
                x + c * centre,
                xx + c * (centre * centre + 1.0 / 12.0),
            ];
        }
        Side {
            counts,
            drops,
            moments,
        }
    }

    /// Sum of `(x − Q(x))²`, in squared bin widths, with `r` steps a bin and clipping above
    /// `limit` steps.
    fn squared_error(&self, r: f64, limit: f64) -> f64 {
        // Bins from `clipped` on lie where everything rounds to the limit. The conversion
        // saturates.
        let clipped = (libm::ceil((limit + 0.5) / r) as usize).min(self.counts.len());
        let [n, x, xx] = self.moments[clipped];
        let t = limit / r;
        // Rounding can leave a tiny negative sum where the true one is zero.
        let clipping = (xx - 2.0 * t * x + t * t * n).max(0.0);
        // Σ c · (H(right edge) − H(left edge)), summed by edges: H(0) = 0.
        let mut sum = [0.0; 8];
        let drops = &self.drops[..clipped];
        let mut edge = 0u32;
        let (whole, rest) = drops.as_chunks::<8>();
        for chunk in whole {
            for (lane, (s, &drop)) in (0u32..).zip(sum.iter_mut().zip(chunk)) {
                *s += drop * primitive(f64::from(edge + lane) * r, limit);
            }
            edge += 8;
        }
        for (lane, (s, &drop)) in (0u32..).zip(sum.iter_mut().zip(rest)) {
            *s += drop * primitive(f64::from(edge + lane) * r, limit);
        }
        let mut rounding: f64 = sum.iter().sum();
        if let Some(last) = clipped.checked_sub(1) {
            rounding += self.counts[last] * primitive(clipped as f64 * r, limit);
        }
        // ∫ over u is r times the mean over a bin, and a step is 1 / r bin widths.
        clipping + rounding.max(0.0) / (r * r * r)
    }
}

/// `∫₀ᵘ (t − Q(t))² dt` in steps, for `u ≥ 0` and clipping above `limit`.
#[inline(always)]
fn primitive(u: f64, limit: f64) -> f64 {
    // Adding 1.5 · 2^52 leaves no bits below 1, so the sum rounds to an integer, ties to even; a
    // `u` too large for that is far above the limit.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let rounded = (u + ROUND) - ROUND;
    let n = if rounded < limit { rounded } else { limit };
    let d = u - n;
    n * (1.0 / 12.0) + d * d * d * (1.0 / 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The integral of the rounding error, by the midpoint rule.
    #[test]
    fn the_primitive_is_the_integral_of_the_squared_error() {
        let limit = 3.0;
        let (mut sum, h) = (0.0, 1e-4);
        for i in 0..60_000 {
            let t = (f64::from(i) + 0.5) * h;
            let q = libm::rint(t).min(limit);
            sum += (t - q) * (t - q) * h;
            assert!((primitive(t + h / 2.0, limit) - sum).abs() < 1e-6, "{t}");
        }
    }

    /// The sum over bins against sampling every bin.
    #[test]
    fn the_error_of_a_side_is_that_of_evenly_spread_values() {
        let counts: Vec<u64> = (0..100).map(|j| (j * j * 7 + 3) % 11).collect();
        let side = Side::new(&counts);
        for (r, limit) in [
            (0.1, 7.0),
            (0.37, 100.0),
            (2.5, 127.0),
            (3.0, 0.0),
            (1e-3, 5.0),
        ] {
            let mut sampled = 0.0;
            for (j, &c) in counts.iter().enumerate() {
                for k in 0..1000 {
                    let u = (j as f64 + (f64::from(k) + 0.5) / 1000.0) * r;
                    let d = (u - libm::rint(u).min(limit)) / r;
                    sampled += c as f64 / 1000.0 * d * d;
                }
            }
            let exact = side.squared_error(r, limit);
            assert!(
                (exact - sampled).abs() <= 1e-4 * sampled,
                "{r} {limit}: {exact} {sampled}"
            );
        }
    }
}
