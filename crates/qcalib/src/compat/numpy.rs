//! The parts of NumPy that a calibrator's bits depend on, in f32.

use alloc::vec::Vec;

use crate::CalibError;

/// `np.sum` of contiguous f32: pairwise above 128 elements, eight accumulators below.
pub(super) fn pairwise_sum(x: &[f32]) -> f32 {
    if x.len() < 8 {
        return x.iter().fold(-0.0, |s, v| s + v);
    }
    if x.len() <= 128 {
        let (whole, rest) = x.as_chunks::<8>();
        let mut r = [-0.0f32; 8];
        for chunk in whole {
            for (r, v) in r.iter_mut().zip(chunk) {
                *r += v;
            }
        }
        let [a, b, c, d, e, f, g, h] = r;
        let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
        return rest.iter().fold(sum, |s, v| s + v);
    }
    let half = x.len() / 2;
    let (low, high) = x.split_at(half - half % 8);
    pairwise_sum(low) + pairwise_sum(high)
}

/// `np.linspace(first, last, bins + 1)`.
pub(super) fn linspace(first: f32, last: f32, bins: usize) -> Vec<f32> {
    let delta = last - first;
    let step = delta / bins as f32;
    (0..=bins)
        .map(|i| match i {
            _ if i == bins => last,
            _ if step == 0.0 => i as f32 / bins as f32 * delta + first,
            _ => i as f32 * step + first,
        })
        .collect()
}

/// `np.histogram` with bins of one width over `[first, last]`: counts and edges.
pub(super) fn histogram(
    x: &[f32],
    bins: usize,
    (mut first, mut last): (f32, f32),
) -> Result<(Vec<i64>, Vec<f32>), CalibError> {
    if first == last {
        first -= 0.5;
        last += 0.5;
    }
    let edges = linspace(first, last, bins);
    // A range that overflows f32 has edges of NaN.
    if !edges.windows(2).all(|w| w[0] < w[1]) {
        return Err(CalibError::Setting {
            argument: "bins",
            given: bins as f64,
            allowed: "few enough that the range can be cut into so many",
        });
    }
    let mut counts = alloc::vec![0i64; bins];
    let width = last - first;
    for &v in x.iter().filter(|&&v| v >= first && v <= last) {
        // Between 0 and `bins`, up to a rounding that is put right next.
        let mut i = ((v - first) / width * bins as f32) as usize;
        i = i.min(bins - 1);
        if v < edges[i] {
            i = i.saturating_sub(1);
        }
        if v >= edges[i + 1] && i != bins - 1 {
            i += 1;
        }
        counts[i] += 1;
    }
    Ok((counts, edges))
}

/// `np.histogram` with given edges, of which there are at least two.
pub(super) fn histogram_between(x: &[f32], edges: &[f32]) -> Vec<i64> {
    let mut counts = alloc::vec![0i64; edges.len().saturating_sub(1)];
    let last = edges.last().copied().unwrap_or(0.0);
    for &v in x {
        // The last bin holds its upper edge.
        let i = if v == last {
            counts.len()
        } else {
            edges.partition_point(|&e| e <= v)
        };
        if let Some(c) = i.checked_sub(1).and_then(|i| counts.get_mut(i)) {
            *c += 1;
        }
    }
    counts
}

/// Number of elements of `np.arange(start, stop, step)`, before it is an integer.
pub(super) fn arange_len(start: f32, stop: f32, step: f32) -> f64 {
    libm::ceil(f64::from((stop - start) / step))
}

/// `np.arange(start, stop, step)` of so many elements.
pub(super) fn arange(start: f32, step: f32, len: usize) -> impl Iterator<Item = f32> {
    let second = start + step;
    let delta = second - start;
    (0..len).map(move |i| match i {
        0 => start,
        1 => second,
        _ => start + i as f32 * delta,
    })
}
