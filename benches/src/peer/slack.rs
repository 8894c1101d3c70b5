//! How far apart two right answers may lie where f32 rounds each in a way of its own.

use super::task::{Finish, MatMul, Scaled, Task};
use crate::shapes::Shape;

/// The most that one rounding to f32 takes from a number, as a share of it: half a step.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

/// Integers up to this magnitude are exact in f32, and so are sums that never exceed it.
const EXACT: f64 = (1_u32 << f32::MANTISSA_DIGITS) as f64;

/// The largest magnitude of the product of two bytes.
const LARGEST_PRODUCT: f64 = 255.0 * 128.0;

impl Task<'_> {
    /// How far a right answer in floats may lie from ours. It does not speak of answers in integers,
    /// which are exact.
    #[must_use]
    pub fn slack(&self) -> f64 {
        match self {
            Task::MatMul(task) => {
                let sums = Sums {
                    depth: task.shape.k,
                    reach: reach(task),
                    integer: !task.a.dtype().is_float(),
                };
                sums.slack(&task.finish)
            }
            Task::Conv(task) => {
                let depth = task.geometry.patch();
                let sums = Sums {
                    depth,
                    reach: depth as f64 * LARGEST_PRODUCT,
                    integer: true,
                };
                sums.slack(&task.finish)
            }
            // A value by itself is rounded once, or not at all.
            Task::Map(_) => 0.0,
        }
    }
}

/// What the sums of a product are like.
struct Sums {
    /// How many products are in one.
    depth: usize,
    /// The most that the magnitudes of its products add up to.
    reach: f64,
    /// Whether the operands are integers.
    integer: bool,
}

impl Sums {
    fn slack(&self, finish: &Finish<'_>) -> f64 {
        match finish {
            Finish::Sums => self.order(),
            Finish::Scaled(scaled) => self.scaling(scaled),
        }
    }

    /// Products of two bytes, f16 or bf16 are exact in f32. Each of `depth` additions rounds, in
    /// whichever order: the error is at most `γ · Σ|a·b|` with `γ = depth·u / (1 − depth·u)`, and two
    /// sums lie at most twice that apart.
    fn order(&self) -> f64 {
        if self.integer && self.reach <= EXACT {
            return 0.0;
        }
        let roundings = self.depth as f64 * UNIT;
        2.0 * roundings / (1.0 - roundings) * self.reach
    }

    /// We round the sum with its bias and the product by the scale. Another may round the sum, the bias,
    /// the product of each by the scale, and their total. Each of these roundings is of no more than
    /// both magnitudes scaled, and no answer has more than four on its way.
    fn scaling(&self, scaled: &Scaled<'_>) -> f64 {
        let bias = scaled.bias.iter().map(|bias| bias.unsigned_abs()).max();
        let scale = scaled.scales.iter().fold(0.0, |a: f32, &b| a.max(b.abs()));
        let most = self.reach + f64::from(bias.unwrap_or(0));
        (self.order() + 8.0 * UNIT * most) * f64::from(scale)
    }
}

/// The most that the magnitudes of the products in a sum add up to: by Cauchy and Schwarz, the longest
/// row of A times the longest column of B, zero points taken off.
fn reach(task: &MatMul<'_>) -> f64 {
    let Shape { m, k, n } = task.shape;
    let (zero_a, zero_b) = match task.finish {
        Finish::Sums => (0, 0),
        Finish::Scaled(scaled) => (scaled.zero_point_a, scaled.zero_point_b),
    };
    let (zero_a, zero_b) = (f64::from(zero_a), f64::from(zero_b));
    let mut rows = vec![0.0_f64; task.batch * m];
    for (row, square) in rows.iter_mut().enumerate() {
        for at in row * k..(row + 1) * k {
            *square += (task.a.number(at) - zero_a).powi(2);
        }
    }
    let mut columns = vec![0.0_f64; task.batch * n];
    for (matrix, columns) in columns.chunks_exact_mut(n).enumerate() {
        for row in matrix * k..(matrix + 1) * k {
            for (at, square) in (row * n..).zip(&mut *columns) {
                *square += (task.b.number(at) - zero_b).powi(2);
            }
        }
    }
    let longest = |squares: Vec<f64>| squares.into_iter().fold(0.0, f64::max).sqrt();
    longest(rows) * longest(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Requantize, Weights};
    use crate::values::Values;

    /// A row of `a` by a column of `b`.
    fn product<'a>(a: Values<'a>, b: Values<'a>, finish: Finish<'a>) -> Task<'a> {
        Task::MatMul(MatMul {
            shape: Shape {
                m: 1,
                k: a.len(),
                n: 1,
            },
            batch: 1,
            a,
            b,
            weights: Weights::Plain,
            finish,
        })
    }

    #[test]
    fn integers_have_none_while_f32_holds_their_sums() {
        let (a, b) = ([255_u8; 520], [127_i8; 520]);
        let slack = |depth: usize| {
            product(
                Values::U8(&a[..depth]),
                Values::I8(&b[..depth]),
                Finish::Sums,
            )
            .slack()
        };
        assert_eq!(slack(518).to_bits(), 0.0_f64.to_bits());
        assert!(slack(519) > 0.0);
    }

    #[test]
    fn sums_in_another_order_lie_within() {
        // 1 is lost beside the large number, or not.
        let large = (2.0 / UNIT) as f32;
        let (a, b) = ([large, 1.0, -large, 1.0], [1.0_f32; 4]);
        let slack = product(Values::F32(&a), Values::F32(&b), Finish::Sums).slack();
        let one = a.iter().sum::<f32>();
        let other = (a[0] + a[2]) + (a[1] + a[3]);
        let apart = f64::from((one - other).abs());
        assert!(apart > 0.0 && apart <= slack, "{apart} beside {slack}");
    }

    #[test]
    fn scaled_otherwise_lies_within() {
        let (a, b, bias, scales) = ([200_u8, 3], [-77_i8, 9], [16_777_215], [0.1]);
        let scaled = Scaled {
            zero_point_a: 128,
            zero_point_b: 2,
            bias: &bias,
            scales: &scales,
            output: Requantize::Relu,
        };
        let slack = product(Values::U8(&a), Values::I8(&b), Finish::Scaled(scaled)).slack();
        let sum = (200 - 128) * (-77 - 2) + (3 - 128) * (9 - 2);
        let ours = (sum + bias[0]) as f32 * scales[0];
        let other = sum as f32 * scales[0] + bias[0] as f32 * scales[0];
        let apart = f64::from((ours - other).abs());
        assert!(apart <= slack, "{apart} beside {slack}");
        assert!(slack < 1.0, "{slack} is more than f32's steps here");
    }
}
