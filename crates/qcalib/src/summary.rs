//! One pass over a run of values: its ends, and what is not finite in it.

use crate::NonFinite;

/// What one pass over a run finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    /// Lowest and highest finite value, −0.0 as +0.0; `None` when there is none.
    pub(crate) range: Option<(f32, f32)>,
    pub(crate) finite: u64,
    pub(crate) nan: u64,
    pub(crate) pos_inf: u64,
    pub(crate) neg_inf: u64,
}

impl Summary {
    pub(crate) fn all_finite(&self) -> bool {
        self.nan == 0 && self.pos_inf == 0 && self.neg_inf == 0
    }
}

/// Enough lanes for the compiler to keep several vectors in flight.
const LANES: usize = 32;

pub(crate) fn summarize(x: &[f32]) -> Summary {
    let mut lo = [f32::INFINITY; LANES];
    let mut hi = [f32::NEG_INFINITY; LANES];
    // v · 0 is 0 for finite values and NaN for all others, and NaN stays.
    let mut bad = [0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    let mut step = |i: usize, v: f32| {
        lo[i] = if v < lo[i] { v } else { lo[i] };
        hi[i] = if v > hi[i] { v } else { hi[i] };
        bad[i] += v * 0.0;
    };
    for chunk in whole {
        for (i, &v) in chunk.iter().enumerate() {
            step(i, v);
        }
    }
    for (i, &v) in rest.iter().enumerate() {
        step(i, v);
    }
    if x.is_empty() || bad.iter().any(|b| b.is_nan()) {
        return summarize_mixed(x);
    }
    let lo = lo.into_iter().fold(f32::INFINITY, f32::min);
    let hi = hi.into_iter().fold(f32::NEG_INFINITY, f32::max);
    // Adding +0.0 turns −0.0 into +0.0, whichever of the two came first.
    Summary {
        range: Some((lo + 0.0, hi + 0.0)),
        finite: x.len() as u64,
        nan: 0,
        pos_inf: 0,
        neg_inf: 0,
    }
}

/// The same for runs with non-finite values, one at a time.
fn summarize_mixed(x: &[f32]) -> Summary {
    let mut s = Summary {
        range: None,
        finite: 0,
        nan: 0,
        pos_inf: 0,
        neg_inf: 0,
    };
    for &v in x {
        match NonFinite::of(v) {
            None => {
                let v = v + 0.0;
                let (lo, hi) = s.range.unwrap_or((v, v));
                s.range = Some((lo.min(v), hi.max(v)));
                s.finite += 1;
            }
            Some(NonFinite::Nan) => s.nan += 1,
            Some(NonFinite::PosInf) => s.pos_inf += 1,
            Some(NonFinite::NegInf) => s.neg_inf += 1,
        }
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_fast_pass_equals_the_plain_one_at_every_length() {
        for n in 0..200usize {
            for special in [
                1.0,
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                -0.0,
                f32::MIN,
            ] {
                let mut x: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
                if let Some(v) = x.get_mut(n * 2 / 3) {
                    *v = special;
                }
                assert_eq!(summarize(&x), summarize_mixed(&x), "{n} {special}");
            }
        }
    }

    #[test]
    fn negative_zero_is_zero() {
        for x in [[-0.0, 0.0], [0.0, -0.0], [-0.0, -0.0]] {
            let (lo, hi) = summarize(&x).range.unwrap();
            assert_eq!((lo.to_bits(), hi.to_bits()), (0, 0));
        }
    }
}
