//! The operators' gradients, against differences and against what they are made of.

mod common;

use candle_core::{Device, Tensor, Var};
use common::drawn;
use qcalib::train::{Levels, Quantizer, straight_through};
use qformat::{Granularity, Scheme, rne};
use qtrain::ops::{FakeQuantize, LearnedStep, MaxPool, Patches};

fn var(values: &[f32], shape: &[usize]) -> Var {
    Var::from_tensor(&Tensor::from_slice(values, shape, &Device::Cpu).unwrap()).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// The gradient of `Σ y · dy` by a variable.
fn gradient(y: &Tensor, dy: &[f32], by: &Var) -> Vec<f32> {
    let dy = Tensor::from_slice(dy, y.dims(), &Device::Cpu).unwrap();
    let loss = (y * dy).unwrap().sum_all().unwrap();
    values(loss.backward().unwrap().get(by).unwrap())
}

/// Of a quantizer, what LSQ differentiates: each value keeps the rounding error that it has at
/// `(x, scale)`, or the end at which it clips there.
struct HeldRounding(Vec<Held>);

enum Held {
    Error(f64),
    End(f64),
}

impl HeldRounding {
    fn new(x: &[f32], scales: &[f32], each: usize, levels: Levels) -> Self {
        let held = |i: usize| {
            let v = x[i] / scales[i / each];
            let (low, high) = (levels.min() as f32, levels.max() as f32);
            if (low..=high).contains(&rne(v)) {
                Held::Error(f64::from(rne(v) - v))
            } else {
                Held::End(f64::from(v.clamp(low, high)))
            }
        };
        HeldRounding((0..x.len()).map(held).collect())
    }

    /// `Σ dy · S · q` in f64.
    fn weighed(&self, x: &[f64], scales: &[f64], each: usize, dy: &[f32]) -> f64 {
        let terms = self.0.iter().enumerate().map(|(i, held)| {
            let s = scales[i / each];
            let q = match held {
                Held::Error(e) => x[i] / s + e,
                Held::End(end) => *end,
            };
            f64::from(dy[i]) * s * q
        });
        terms.sum()
    }
}

#[test]
fn gradients_of_learned_steps_are_differences_with_the_rounding_held() {
    // Per tensor and per channel; weights (signed) and activations (unsigned) of 4 bits.
    for (signed, scheme) in [(true, Scheme::Symmetric), (false, Scheme::Affine)] {
        for channels in [1, 3] {
            let (n, each) = (60, 60 / channels);
            let levels = Levels::new(4, signed, scheme).unwrap();
            let granularity = match channels {
                1 => Granularity::PerTensor,
                _ => Granularity::PerChannel { axis: 0 },
            };
            // Some values clip, on either side.
            let x: Vec<f32> = drawn(n, 5).iter().map(|v| v * 2.0).collect();
            let scales: Vec<f32> = (0..channels).map(|c| 0.1 + 0.05 * c as f32).collect();
            let dy = drawn(n, 6);
            let (vx, vs) = (var(&x, &[channels, each]), var(&scales, &[channels]));
            let y = vx
                .apply_op2(
                    &vs,
                    LearnedStep {
                        granularity,
                        levels,
                    },
                )
                .unwrap();

            let held = HeldRounding::new(&x, &scales, each, levels);
            let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
            let (x64, s64) = (wide(&x), wide(&scales));
            let base = held.weighed(&x64, &s64, each, &dy);
            let h = 1e-7;
            for (i, d) in gradient(&y, &dy, &vx).into_iter().enumerate() {
                let mut moved = x64.clone();
                moved[i] += h;
                let difference = (held.weighed(&moved, &s64, each, &dy) - base) / h;
                assert!(
                    (f64::from(d) - difference).abs() < 1e-4,
                    "x[{i}]: {d} {difference}"
                );
            }
            for (c, d) in gradient(&y, &dy, &vs).into_iter().enumerate() {
                let mut moved = s64.clone();
                moved[c] += h;
                let difference = (held.weighed(&x64, &moved, each, &dy) - base) / h;
                assert!(
                    (f64::from(d) - difference).abs() < 1e-3,
                    "S[{c}]: {d} {difference}"
                );
                assert!(d != 0.0);
            }
        }
    }
}

#[test]
fn fixed_quantizers_have_the_slope_of_the_dithered_quantizer() {
    let levels = Levels::new(4, true, Scheme::Symmetric).unwrap();
    let (scale, dithers) = (0.25f32, 512);
    let q = Quantizer::new(Granularity::PerTensor, levels, vec![scale], vec![0.0]).unwrap();
    // Averaged over a uniform shift of one step, rounding is the identity and clipping stays: away
    // from the ends, differences of that average are the straight-through gradient.
    let average = |x: f32| {
        let shifted: Vec<f32> = (0..dithers)
            .map(|k| x + scale * ((k as f32 + 0.5) / dithers as f32 - 0.5))
            .collect();
        let mut y = vec![0f32; dithers];
        q.forward(&shifted, &[dithers], &mut y).unwrap();
        y.iter().map(|&v| f64::from(v)).sum::<f64>() / dithers as f64
    };
    let x: Vec<f32> = drawn(200, 9)
        .iter()
        .map(|v| v * 4.0)
        .filter(|v| (v.abs() - 7.5 * scale).abs() > scale)
        .collect();
    let vx = var(&x, &[x.len()]);
    let y = vx.apply_op1(FakeQuantize(q.clone())).unwrap();
    let ones = vec![1f32; x.len()];
    let slopes = gradient(&y, &ones, &vx);
    let h = 0.25 * scale;
    for (&x, &slope) in x.iter().zip(&slopes) {
        let difference = (average(x + h) - average(x - h)) / f64::from(2.0 * h);
        assert!(
            (difference - f64::from(slope)).abs() < 0.02,
            "{x}: {difference} {slope}"
        );
    }
    assert!(slopes.contains(&0.0) && slopes.contains(&1.0));
    let mut theirs = vec![0f32; x.len()];
    straight_through(&q, &x, &[x.len()], &ones, &mut theirs).unwrap();
    assert_eq!(slopes, theirs);
}

#[test]
fn patches_and_filters_are_a_convolution_forward_and_backward() {
    // One pixel, a border wider than the image, more than one channel and sample.
    for (n, h, w, c, size, pad) in [
        (1, 1, 1, 1, 1, 0),
        (2, 5, 4, 3, 3, 1),
        (1, 2, 3, 2, 3, 2),
        (3, 4, 4, 1, 2, 0),
        (1, 1, 1, 2, 5, 3),
    ] {
        let outputs = 2;
        let (x, f) = (drawn(n * h * w * c, 1), drawn(outputs * c * size * size, 2));
        let (vx, vf) = (var(&x, &[n, h, w, c]), var(&f, &[outputs, c, size, size]));
        let (high, wide) = (h + 2 * pad + 1 - size, w + 2 * pad + 1 - size);
        let rows = vx.apply_op1(Patches { size, pad }).unwrap();
        let filters = vf.permute((0, 2, 3, 1)).unwrap().flatten_from(1).unwrap();
        let ours = rows.matmul(&filters.t().unwrap()).unwrap();
        let ours = ours.reshape((n, high, wide, outputs)).unwrap();
        let first = vx.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
        let theirs = first.conv2d(&vf, pad, 1, 1, 1).unwrap();
        let theirs = theirs.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let dy = drawn(n * high * wide * outputs, 3);
        let near = |a: &[f32], b: &[f32]| {
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(b) {
                assert!(
                    (a - b).abs() < 1e-4,
                    "{n} {h} {w} {c} {size} {pad}: {a} {b}"
                );
            }
        };
        near(&values(&ours), &values(&theirs));
        near(&gradient(&ours, &dy, &vx), &gradient(&theirs, &dy, &vx));
        near(&gradient(&ours, &dy, &vf), &gradient(&theirs, &dy, &vf));
    }
}

#[test]
fn pools_pass_gradients_to_the_first_largest_value_of_each_window() {
    // 7 × 5: the last row and column fall away.
    let (h, w, c, size) = (7, 5, 2, 2);
    let x: Vec<f32> = drawn(2 * h * w * c, 4);
    let vx = var(&x, &[2, h, w, c]);
    let y = vx.apply_op1(MaxPool { size }).unwrap();
    assert_eq!(y.dims(), [2, 3, 2, c]);
    let dy = drawn(2 * 3 * 2 * c, 5);
    let forward = |x: &[f32]| {
        let y = var(x, &[2, h, w, c]).apply_op1(MaxPool { size }).unwrap();
        let weighed = values(&y).into_iter().zip(&dy);
        weighed
            .map(|(y, d)| f64::from(y) * f64::from(*d))
            .sum::<f64>()
    };
    // Values lie further apart than the step, so a difference is the gradient.
    let step = 2e-4;
    for (i, d) in gradient(&y, &dy, &vx).into_iter().enumerate() {
        let (mut up, mut down) = (x.clone(), x.clone());
        up[i] += step;
        down[i] -= step;
        let difference = (forward(&up) - forward(&down)) / f64::from(up[i] - down[i]);
        assert!(
            (difference - f64::from(d)).abs() < 1e-2,
            "{i}: {difference} {d}"
        );
    }
    let equal = var(&[3f32; 4], &[1, 2, 2, 1]);
    let y = equal.apply_op1(MaxPool { size }).unwrap();
    assert_eq!(gradient(&y, &[2.0], &equal), [2.0, 0.0, 0.0, 0.0]);
}

#[test]
fn operands_of_other_shapes_are_errors() {
    let x = var(&[1.0; 4], &[4]);
    assert!(x.apply_op1(MaxPool { size: 2 }).is_err());
    assert!(x.apply_op1(Patches { size: 1, pad: 0 }).is_err());
    let image = var(&[1.0; 4], &[1, 2, 2, 1]);
    for size in [0, 3] {
        assert!(image.apply_op1(MaxPool { size }).is_err());
        assert!(image.apply_op1(Patches { size, pad: 0 }).is_err());
    }
    for (size, pad) in [(2, usize::MAX), (usize::MAX, 0), (2, usize::MAX / 4)] {
        assert!(image.apply_op1(Patches { size, pad }).is_err());
    }
    let op = LearnedStep {
        granularity: Granularity::PerTensor,
        levels: Levels::new(4, true, Scheme::Symmetric).unwrap(),
    };
    for scales in [&[0.0f32][..], &[f32::NAN], &[1.0, 1.0]] {
        assert!(x.apply_op2(&var(scales, &[scales.len()]), op).is_err());
    }
    assert!(x.apply_op2(&var(&[1.0], &[1]), op).is_ok());
}
