//! Least squared error: the chosen range against a grid of ranges, judged by all values.

use qcalib::{Target, ValueRange};
use qformat::{QParams, Scheme};

use crate::activation::Activation;

/// What the chosen range may err more than the best of the grid. The estimator reads counts in
/// bins and takes values as evenly spread there; the grid is judged by the values themselves.
const SLACK: f64 = 1.01;

/// The same for tensors in which single values recur many thousand times, since the digits' empty
/// background gives every channel its bias: at 8 bits, where a step is 4 to 8 bins, it counts
/// where in its bin such a value lies, and the estimator cannot know.
const SLACK_RECURRING: f64 = 1.12;
const RECURRING: [&str; 3] = ["conv1.out", "relu1.out", "relu2.out"];

/// Whose values are not spread at all: multiples of 1 / 255.
const DISCRETE: &str = "image";

/// Candidates for one end, and for each of two.
const LINE: u32 = 400;
const PLANE: u32 = 40;

pub(crate) fn check(a: &Activation, chosen: ValueRange, target: Target, place: &str) {
    let (min, max) = a.ends();
    assert!(
        chosen.min >= min.min(0.0) && chosen.max <= max.max(0.0),
        "{place}"
    );
    let sums = Sums::new(&a.sorted);
    let error = |min: f32, max: f32| {
        let p = QParams::from_range(min, max, target.dtype(), target.scheme()).unwrap();
        sums.squared_error(&p)
    };
    let share = |end: f32, i: u32, n: u32| end * (i as f32 / n as f32);
    let mut best = (f64::INFINITY, 0.0, 0.0);
    let mut offer = |min: f32, max: f32| {
        let e = error(min, max);
        if e < best.0 {
            best = (e, min, max);
        }
    };
    if target.scheme() == Scheme::Symmetric || a.one_sided() {
        for i in 1..=LINE {
            offer(share(min, i, LINE), share(max, i, LINE));
        }
    } else {
        for i in 1..=PLANE {
            for j in 1..=PLANE {
                offer(share(min, i, PLANE), share(max, j, PLANE));
            }
        }
    }
    let ours = error(chosen.min, chosen.max);
    let allowed = if a.name == DISCRETE {
        // Where a value lies in its bin is unknown: its distance to the nearest code is known to
        // w / √3 (from an edge, to all places that it might have), for both ranges.
        let known = a.bin_width() * (sums.nonzero() / 3.0).sqrt();
        (best.0.sqrt() + 2.0 * known).powi(2)
    } else if target.range().steps() > 15 && RECURRING.contains(&a.name.as_str()) {
        SLACK_RECURRING * best.0
    } else {
        SLACK * best.0
    };
    assert!(
        ours <= allowed,
        "{place} errs by {ours}, but {} to {} by {}",
        best.1,
        best.2,
        best.0
    );
}

/// Values in ascending order, with the sums of the first so many of them and of their squares.
struct Sums<'v> {
    sorted: &'v [f32],
    first: Vec<(f64, f64)>,
}

impl Sums<'_> {
    fn new(sorted: &[f32]) -> Sums<'_> {
        let mut first = vec![(0.0, 0.0)];
        for &v in sorted {
            let (v, &(sum, squares)) = (f64::from(v), first.last().unwrap());
            first.push((sum + v, squares + v * v));
        }
        Sums { sorted, first }
    }

    /// How many values are not zero.
    fn nonzero(&self) -> f64 {
        self.sorted.iter().filter(|&&v| v != 0.0).count() as f64
    }

    /// `Σ (x − Q(x))²` over all values: those of one code are neighbours.
    fn squared_error(&self, p: &QParams) -> f64 {
        let (scale, zero) = (p.scale(), p.zero_point() as f32);
        let (lowest, highest) = (p.range().min(), p.range().max());
        let code = |x: f32| (x / scale).round_ties_even() + zero;
        let (mut start, mut total) = (0, 0.0);
        for q in lowest..=highest {
            let end = if q == highest {
                self.sorted.len()
            } else {
                start + self.sorted[start..].partition_point(|&x| code(x) <= q as f32)
            };
            let value = f64::from(scale * (q as f32 - zero));
            let sum = self.first[end].0 - self.first[start].0;
            let squares = self.first[end].1 - self.first[start].1;
            total += squares - 2.0 * value * sum + value * value * (end - start) as f64;
            start = end;
        }
        // Where nothing is lost, rounding may leave less than nothing.
        total.max(0.0)
    }
}
