//! Training: the forward against real integers, gradients against PyTorch and finite differences,
//! the schedule and batch normalization against what they stand for.

use proptest::prelude::*;
use qcalib::train::{
    BatchNorm, BatchStatistics, Levels, Phase, Quantizer, Schedule, ScheduleState, lsq,
    lsq_gradient_scale, lsq_plus, pact, pact_forward, straight_through,
};
use qcalib::{CalibError, Method, Policy, fake_quantize};
use qformat::{DType, Granularity, QParams, QuantSpec, Scheme, TensorQParams};
use serde_json::Value;

mod answers;
mod drawn;
use answers::{bits, fixture, rows};
use drawn::draw;

fn to_bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

fn floats(v: &Value) -> Vec<f32> {
    bits(v).into_iter().map(f32::from_bits).collect()
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-5 * (1.0 + a.abs().max(b.abs()))
}

/// Sums of `dy · (rne(x / S) − x / S)`, in which PyTorch multiplies with `1 / S`: another rounding
/// of each quotient.
fn close_sum(a: f32, b: f32, x: &[f32], q: &Quantizer) -> bool {
    let finest = q.scales().iter().copied().fold(f32::MAX, f32::min);
    let steps = q.levels().max() as f32 - q.levels().min() as f32;
    let quotients: f32 = x.iter().map(|v| (v / finest).abs().min(steps)).sum();
    (a - b).abs() <= 1e-5 * (1.0 + a.abs().max(b.abs())) + 2.0 * quotients * f32::EPSILON
}

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => -60f32..60.0,
        1 => any::<f32>(),
        1 => Just(f32::NAN),
        1 => Just(f32::INFINITY),
        1 => Just(-0.0),
        3 => (-500i32..500).prop_map(|i| i as f32 / 4.0),
    ]
}

proptest! {
    #[test]
    fn the_forward_is_that_of_integers(
        bits in 2u32..=16, signed in any::<bool>(), symmetric in any::<bool>(),
        kind in 0..3, axis in 0usize..3, block in 1usize..4,
        x in prop::collection::vec(value(), 3 * 4 * 5),
        scales in prop::collection::vec(prop_oneof![Just(0.25f32), 1e-3f32..3.0], 60),
        zeros in prop::collection::vec(-40_000f32..70_000.0, 60),
    ) {
        let scheme = if symmetric { Scheme::Symmetric } else { Scheme::Affine };
        let levels = Levels::new(bits, signed, scheme).unwrap();
        let granularity = match kind {
            0 => Granularity::PerTensor,
            1 => Granularity::PerChannel { axis },
            _ => Granularity::PerBlock { axis, block },
        };
        let shape = [3, 4, 5];
        let groups = granularity.groups(&shape).unwrap();
        let zeros: Vec<f32> = zeros[..groups]
            .iter()
            .map(|&z| if symmetric { levels.middle() as f32 } else { z })
            .collect();
        let q = Quantizer::new(granularity, levels, scales[..groups].to_vec(), zeros.clone()).unwrap();
        let mut y = vec![f32::NAN; x.len()];
        q.forward(&x, &shape, &mut y).unwrap();
        for (group, run) in granularity.runs(&shape).unwrap() {
            for i in run {
                let s = scales[group];
                let (min, max) = (i64::from(levels.min()), i64::from(levels.max()));
                let zero = (qformat::rne(zeros[group]) as i64).clamp(min, max);
                let v = x[i] / s;
                let integer = if v.is_nan() {
                    min
                } else {
                    (qformat::rne(v) as i64).saturating_add(zero).clamp(min, max)
                };
                let expected = (integer - zero) as f32 * s;
                prop_assert_eq!(y[i].to_bits(), expected.to_bits(), "{} {}", x[i], s);
            }
        }
    }

    /// What is trained is what is deployed: the same bits as the parameters of a calibration.
    #[test]
    fn the_forward_is_the_fake_quantize_of_inference(
        dtype in prop::sample::select(
            &[DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16][..]),
        symmetric in any::<bool>(), kind in 0..3, axis in 0usize..2,
        x in prop::collection::vec(value(), 35),
        ends in prop::collection::vec((-50f32..0.0, 0f32..50.0), 35),
    ) {
        let scheme = if symmetric { Scheme::Symmetric } else { Scheme::Affine };
        let granularity = match kind {
            0 => Granularity::PerTensor,
            1 => Granularity::PerChannel { axis },
            _ => Granularity::PerBlock { axis, block: 3 },
        };
        let shape = [5, 7];
        let groups = granularity.groups(&shape).unwrap();
        let params = ends[..groups]
            .iter()
            .map(|&(a, b)| QParams::from_range(a, b, dtype, scheme).unwrap())
            .collect();
        let params = TensorQParams::new(granularity, params).unwrap();
        let q = Quantizer::from_params(&params).unwrap();
        let (mut a, mut b) = (vec![0.0; 35], vec![0.0; 35]);
        q.forward(&x, &shape, &mut a).unwrap();
        fake_quantize(&x, &shape, &params, &mut b).unwrap();
        prop_assert_eq!(to_bits(&a), to_bits(&b));
    }

    /// With the rounding error held fixed the quantizer is piecewise linear, and its difference
    /// quotients are the gradients.
    #[test]
    fn gradients_are_those_of_the_smoothed_quantizer(
        x in prop::collection::vec(-12f32..12.0, 24),
        dy in prop::collection::vec(-1f32..1.0, 24),
        scale in 0.05f32..1.0, zero in 2i32..14,
    ) {
        let levels = Levels::new(4, false, Scheme::Affine).unwrap();
        let q = Quantizer::new(Granularity::PerTensor, levels, vec![scale], vec![zero as f32]).unwrap();
        let mut dx = vec![0.0; x.len()];
        let g = lsq_plus(&q, &x, &[24], &dy, &mut dx, 1.0).unwrap();
        let mut ste = vec![0.0; x.len()];
        straight_through(&q, &x, &[24], &dy, &mut ste).unwrap();
        prop_assert_eq!(&dx, &ste);

        let (s0, z0) = (f64::from(scale), f64::from(zero));
        let rest: Vec<f64> = x
            .iter()
            .map(|&x| {
                let v = x / scale;
                f64::from(qformat::rne(v)) - f64::from(x) / s0
            })
            .collect();
        // The integer that a value rounds to clips beyond the levels; half-way between is far from
        // every integer, so no difference crosses it.
        let soft = |x: f64, r: f64, s: f64, z: f64| {
            let u = x / s + r + z;
            let clipped = if u < -0.5 { 0.0 } else if u > 15.5 { 15.0 } else { u };
            s * (clipped - z)
        };
        let loss = |s: f64, z: f64| -> f64 {
            x.iter().zip(&rest).zip(&dy)
                .map(|((&x, &r), &dy)| f64::from(dy) * soft(x.into(), r, s, z))
                .sum()
        };
        let h = 1e-6;
        let ds = (loss(s0 + h * s0, z0) - loss(s0 - h * s0, z0)) / (2.0 * h * s0);
        let dz = (loss(s0, z0 + h) - loss(s0, z0 - h)) / (2.0 * h);
        let bound = 1e-3 * (1.0 + ds.abs());
        prop_assert!((f64::from(g.scales[0]) - ds).abs() < bound, "{} {ds}", g.scales[0]);
        prop_assert!((f64::from(g.zero_points[0]) - dz).abs() < 1e-3, "{} {dz}", g.zero_points[0]);
        for i in 0..x.len() {
            let at = |x: f64| f64::from(dy[i]) * soft(x, rest[i], s0, z0);
            let v = f64::from(x[i]);
            let slope = (at(v + h) - at(v - h)) / (2.0 * h);
            prop_assert!((f64::from(dx[i]) - slope).abs() < 1e-3, "{} {}: {} {slope}", i, v, dx[i]);
        }
    }
}

fn levels(row: &Value) -> Levels {
    let end = |i: usize| row["range"][i].as_i64().unwrap();
    let (bits, signed) = match (end(0), end(1)) {
        (-128, 127) => (8, true),
        (0, 255) => (8, false),
        (0, 15) => (4, false),
        (-2, 1) => (2, true),
        (-32_768, 32_767) => (16, true),
        other => panic!("{other:?}"),
    };
    Levels::new(bits, signed, Scheme::Affine).unwrap()
}

#[test]
fn torch_has_the_same_values_and_gradients_per_tensor() {
    for row in rows(&fixture("torch_gradients.json"), "per_tensor") {
        let x = draw(&row["in"]);
        let mut upstream = row["in"].clone();
        upstream[0] = "uniform".into();
        upstream[1] = (row["in"][1].as_u64().unwrap() + 7).into();
        upstream[3] = 1.0.into();
        let dy = draw(&upstream);
        let shape = [x.len()];
        let scale = vec![row["scale"].as_f64().unwrap() as f32];
        let zero = vec![row["zero"].as_f64().unwrap() as f32];
        let q = Quantizer::new(Granularity::PerTensor, levels(&row), scale, zero).unwrap();
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        q.forward(&x, &shape, &mut y).unwrap();
        straight_through(&q, &x, &shape, &dy, &mut dx).unwrap();
        assert_eq!(to_bits(&y), bits(&row["y"]), "{row}");
        assert_eq!(dx, floats(&row["dx"]), "{row}");
        for learned in rows(&row, "learnable") {
            let factor = learned["factor"].as_f64().unwrap() as f32;
            assert_eq!(to_bits(&y), bits(&learned["y"]));
            let g = lsq_plus(&q, &x, &shape, &dy, &mut dx, factor).unwrap();
            assert_eq!(dx, floats(&learned["dx"]));
            let (ds, dz) = (floats(&learned["ds"])[0], floats(&learned["dz"])[0]);
            assert!(
                close_sum(g.scales[0], ds, &x, &q),
                "{row}: {} {ds}",
                g.scales[0]
            );
            assert!(
                close(g.zero_points[0], dz),
                "{row}: {} {dz}",
                g.zero_points[0]
            );
            assert_eq!(lsq(&q, &x, &shape, &dy, &mut dx, factor).unwrap(), g.scales);
        }
    }
}

#[test]
fn torch_has_the_same_values_and_gradients_per_channel() {
    for row in rows(&fixture("torch_gradients.json"), "per_channel") {
        let x = draw(&row["in"]);
        let dy = draw(&serde_json::json!(["uniform", 68, 60, 1.0]));
        let shape = [3, 4, 5];
        let axis = row["axis"].as_u64().unwrap() as usize;
        let zeros = row["zeros"].as_array().unwrap();
        let zeros = zeros.iter().map(|z| z.as_f64().unwrap() as f32).collect();
        let levels = Levels::new(8, false, Scheme::Affine).unwrap();
        let granularity = Granularity::PerChannel { axis };
        let q = Quantizer::new(granularity, levels, floats(&row["scales"]), zeros).unwrap();
        let (mut y, mut dx) = (vec![0.0; 60], vec![0.0; 60]);
        q.forward(&x, &shape, &mut y).unwrap();
        assert_eq!(to_bits(&y), bits(&row["y"]), "{row}");
        let g = lsq_plus(&q, &x, &shape, &dy, &mut dx, 0.5).unwrap();
        assert_eq!(dx, floats(&row["dx"]), "{row}");
        for (a, b) in g.scales.iter().zip(floats(&row["ds"])) {
            assert!(close_sum(*a, b, &x, &q), "{row}: {a} {b}");
        }
        for (a, b) in g.zero_points.iter().zip(floats(&row["dz"])) {
            assert!(close(*a, b), "{row}: {a} {b}");
        }
    }
}

#[test]
fn torch_has_the_same_gradients_of_a_learned_clip() {
    for row in rows(&fixture("torch_gradients.json"), "pact") {
        let x = draw(&row["in"]);
        let seed = row["in"][1].as_u64().unwrap() + 7;
        let dy = draw(&serde_json::json!(["uniform", seed, x.len(), 1.0]));
        let alpha = row["alpha"].as_f64().unwrap() as f32;
        let steps = row["levels"].as_u64().unwrap() as u32;
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let da = pact(&x, alpha, &dy, &mut dx).unwrap();
        assert_eq!(dx, floats(&row["dx"]), "{row}");
        assert!(close(da, floats(&row["da"])[0]), "{row}: {da}");
        // Half a step from the clamp, and on the grid.
        pact_forward(&x, alpha, steps, &mut y).unwrap();
        for (x, y) in x.iter().zip(&y) {
            let step = alpha / steps as f32;
            assert!((x.clamp(0.0, alpha) - y).abs() <= 0.5001 * step, "{x} {y}");
            assert!((y / step - qformat::rne(y / step)).abs() < 1e-3);
        }
    }
}

#[test]
fn arguments_of_training_are_checked() {
    for bits in [0, 1, 17] {
        assert!(Levels::new(bits, true, Scheme::Affine).is_err());
    }
    let levels = Levels::new(4, true, Scheme::Affine).unwrap();
    let make = |s: &[f32], z: &[f32]| {
        Quantizer::new(Granularity::PerTensor, levels, s.to_vec(), z.to_vec())
    };
    for (s, z) in [
        (&[0.0][..], &[0.0][..]),
        (&[f32::NAN], &[0.0]),
        (&[1.0], &[f32::INFINITY]),
        (&[1.0], &[]),
        (&[], &[]),
        (&[1.0, 1.0], &[0.0, 0.0]),
    ] {
        assert!(make(s, z).is_err(), "{s:?} {z:?}");
    }
    let mut q = make(&[1.0], &[0.0]).unwrap();
    assert!(q.set(vec![-1.0], vec![0.0]).is_err());
    assert_eq!(q.scales(), [1.0]);
    let mut dx = [0.0; 2];
    assert!(straight_through(&q, &[1.0; 2], &[3], &[1.0; 2], &mut dx).is_err());
    assert!(straight_through(&q, &[1.0; 2], &[2], &[1.0; 1], &mut dx).is_err());
    let channels = Granularity::PerChannel { axis: 0 };
    let two = Quantizer::new(channels, levels, vec![1.0; 2], vec![0.0; 2]).unwrap();
    assert!(matches!(
        two.forward(&[0.0; 3], &[3], &mut [0.0; 3]),
        Err(CalibError::Mismatch { .. })
    ));
    assert!(pact(&[1.0], 0.0, &[1.0], &mut [0.0]).is_err());
    assert!(pact_forward(&[1.0], 1.0, 0, &mut [0.0]).is_err());
    let i32s = QParams::from_range(-1.0, 1.0, DType::I32, Scheme::Affine).unwrap();
    assert!(Quantizer::from_params(&TensorQParams::per_tensor(i32s)).is_err());
    assert_eq!(lsq_gradient_scale(0, 0), 1.0);
}

/// Saved and loaded at any step, a run ends as it would have.
#[test]
fn a_schedule_survives_save_and_load_at_every_step() {
    for (method, granularity) in [
        (Method::MinMax, Granularity::PerTensor),
        (Method::MovingAverage, Granularity::PerTensor),
        (Method::Mse, Granularity::PerChannel { axis: 1 }),
        (
            Method::AciqLaplace,
            Granularity::PerBlock { axis: 1, block: 2 },
        ),
        (Method::Percentile(90.0), Granularity::PerTensor),
    ] {
        let spec = QuantSpec {
            dtype: DType::I4,
            scheme: Scheme::Symmetric,
            granularity,
        };
        let step = |s: &mut Schedule, i: u64| {
            let x = draw(&serde_json::json!(["heavy", 900 + i, 24, 1.0 + i as f64]));
            let mut y = vec![0.0; 24];
            s.forward(i, &x, &[4, 6], &mut y).unwrap();
            if i == 2 || i == 5 {
                s.advance().unwrap();
            }
            (x, y)
        };
        let mut whole = Schedule::new(method, spec, Policy::Error).unwrap();
        let mut saved = whole.clone();
        let mut frozen = None;
        for i in 0..9 {
            let ((x, a), (_, b)) = (step(&mut whole, i), step(&mut saved, i));
            assert_eq!(a, b);
            match i {
                0..=2 => assert_eq!(a, x),
                _ => assert_ne!(a, x),
            }
            let text = serde_json::to_string(&saved.state()).unwrap();
            saved = Schedule::from_state(serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(serde_json::to_string(&saved.state()).unwrap(), text);
            assert_eq!(saved.phase(), whole.phase());
            if i >= 5 {
                let p = whole.params().cloned();
                assert_eq!(*frozen.get_or_insert(p.clone()), p, "{method}");
            }
        }
        assert!(matches!(
            whole.advance(),
            Err(CalibError::Phase {
                given: Phase::Frozen,
                ..
            })
        ));
    }
}

#[test]
fn schedules_refuse_what_does_not_belong_together() {
    let granularity = Granularity::PerTensor;
    let spec = QuantSpec {
        dtype: DType::U8,
        scheme: Scheme::Affine,
        granularity,
    };
    let mut s = Schedule::new(Method::MinMax, spec, Policy::Error).unwrap();
    assert_eq!(s.advance(), Err(CalibError::NoData { group: 0 }));
    assert_eq!(s.phase(), Phase::Observe);
    let mut y = [7.0; 2];
    assert!(s.forward(0, &[f32::NAN, 1.0], &[2], &mut y).is_err());
    assert!(s.forward(0, &[1.0], &[2], &mut y).is_err());
    assert_eq!(y, [7.0; 2]);
    s.forward(0, &[0.0, 1.0], &[2], &mut y).unwrap();
    s.advance().unwrap();
    let good = serde_json::to_value(s.state()).unwrap();
    for (field, value) in [
        ("method", serde_json::json!("magic")),
        ("method", serde_json::json!("mse")),
        ("phase", serde_json::json!("observe")),
        ("params", serde_json::json!(null)),
        ("params", serde_json::json!([])),
        (
            "spec",
            serde_json::json!({"dtype": "i8", "scheme": "affine", "granularity": "per_tensor"}),
        ),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        if let Ok(state) = serde_json::from_value::<ScheduleState>(bad.clone()) {
            assert!(Schedule::from_state(state).is_err(), "{field}: {bad}");
        }
    }
    let float = QuantSpec {
        dtype: DType::F16,
        ..spec
    };
    assert!(Schedule::new(Method::MinMax, float, Policy::Error).is_err());
}

fn norm() -> BatchNorm {
    BatchNorm {
        gamma: vec![1.5, -0.5],
        beta: vec![0.25, 1.0],
        mean: vec![0.5, -2.0],
        variance: vec![4.0, 0.01],
        epsilon: 1e-3,
        frozen: false,
    }
}

/// Layer and normalization one after the other, against the folded layer.
#[test]
fn folding_changes_nothing_but_rounding() {
    let bn = norm();
    let (w, b) = ([0.5f32, -1.0, 2.0, 0.25, 0.75, -0.125], [0.1f32, -0.2]);
    let x = [0.7f32, -1.3, 0.4];
    let (fw, fb) = bn.fold(&w, &[2, 3], Some(&b)).unwrap();
    let dot = |w: &[f32]| -> f64 {
        w.iter()
            .zip(&x)
            .map(|(&w, &x)| f64::from(w) * f64::from(x))
            .sum()
    };
    // With the batch's statistics, through the correction.
    let batch = BatchStatistics {
        mean: vec![-0.4, 1.0],
        variance: vec![1.0, 0.09],
    };
    let c = bn.correction(&batch).unwrap();
    let (plain, _) = bn.fold(&w, &[2, 3], None).unwrap();
    for i in 0..2 {
        let row = i * 3..i * 3 + 3;
        let apply = |v: f64, mean: f32, variance: f32| {
            f64::from(bn.gamma[i]) * (v - f64::from(mean)) / (f64::from(variance) + 1e-3f64).sqrt()
                + f64::from(bn.beta[i])
        };
        let one = apply(
            dot(&w[row.clone()]) + f64::from(b[i]),
            bn.mean[i],
            bn.variance[i],
        );
        let folded = dot(&fw[row.clone()]) + f64::from(fb[i]);
        assert!((one - folded).abs() < 1e-5, "{one} {folded}");
        let one = apply(dot(&w[row.clone()]), batch.mean[i], batch.variance[i]);
        let corrected = dot(&plain[row]) * f64::from(c.factor[i]) + f64::from(c.bias[i]);
        assert!((one - corrected).abs() < 1e-5, "{one} {corrected}");
    }
    // Frozen, the correction is the folded bias.
    let frozen = BatchNorm {
        frozen: true,
        ..bn.clone()
    };
    let c = frozen.correction(&batch).unwrap();
    assert_eq!(c.factor, [1.0, 1.0]);
    let (_, biases) = bn.fold(&w, &[2, 3], None).unwrap();
    for (a, b) in c.bias.iter().zip(&biases) {
        assert!(close(*a, *b));
    }
}

#[test]
fn running_statistics_move_until_they_are_frozen() {
    let mut bn = norm();
    let batch = BatchStatistics {
        mean: vec![1.5, 0.0],
        variance: vec![2.0, 0.03],
    };
    bn.update(&batch, 0.5).unwrap();
    assert_eq!(bn.mean, [1.0, -1.0]);
    assert_eq!(bn.variance[0], 3.0);
    bn.frozen = true;
    let before = bn.clone();
    bn.update(&batch, 0.5).unwrap();
    assert_eq!(bn, before);
    let text = serde_json::to_string(&bn).unwrap();
    assert_eq!(serde_json::from_str::<BatchNorm>(&text).unwrap(), bn);
    assert!(bn.update(&batch, 1.5).is_err());
    let short = BatchStatistics {
        mean: vec![0.0],
        variance: vec![1.0, 1.0],
    };
    assert!(bn.update(&short, 0.1).is_err() && bn.correction(&short).is_err());
    let negative = BatchNorm {
        variance: vec![-1.0, 1.0],
        ..norm()
    };
    assert!(negative.fold(&[0.0; 2], &[2, 1], None).is_err());
    assert!(norm().fold(&[0.0; 3], &[3, 1], None).is_err());
    assert!(norm().fold(&[0.0; 3], &[2, 1], None).is_err());
    assert!(norm().fold(&[0.0; 2], &[2, 1], Some(&[0.0; 3])).is_err());
    assert!(
        BatchNorm {
            epsilon: 0.0,
            ..norm()
        }
        .fold(&[0.0; 2], &[2, 1], None)
        .is_err()
    );
}

/// The groups of values by their place alone: an index of each axis, cut into blocks.
fn group_at(granularity: Granularity, shape: [usize; 3], i: usize) -> usize {
    let at = [
        i / (shape[1] * shape[2]),
        i / shape[2] % shape[1],
        i % shape[2],
    ];
    match granularity {
        Granularity::PerTensor => 0,
        Granularity::PerChannel { axis } => at[axis],
        Granularity::PerBlock { axis, block } => {
            let (mut at, mut shape) = (at, shape);
            at[axis] /= block;
            shape[axis] = shape[axis].div_ceil(block);
            (at[0] * shape[1] + at[1]) * shape[2] + at[2]
        }
    }
}

proptest! {
    /// Every group is as if it were a tensor of its own.
    #[test]
    fn gradients_of_groups_are_those_of_their_values_alone(
        kind in 0..3, axis in 0usize..3, block in 1usize..4,
        x in prop::collection::vec(-40f32..40.0, 60),
        dy in prop::collection::vec(-1f32..1.0, 60),
        scales in prop::collection::vec(0.05f32..3.0, 60),
        zeros in prop::collection::vec(-10f32..20.0, 60),
    ) {
        let granularity = match kind {
            0 => Granularity::PerTensor,
            1 => Granularity::PerChannel { axis },
            _ => Granularity::PerBlock { axis, block },
        };
        let shape = [3, 4, 5];
        let levels = Levels::new(4, false, Scheme::Affine).unwrap();
        let groups = granularity.groups(&shape).unwrap();
        let (scales, zeros) = (&scales[..groups], &zeros[..groups]);
        let q = Quantizer::new(granularity, levels, scales.to_vec(), zeros.to_vec()).unwrap();
        let mut dx = vec![9.0; 60];
        let g = lsq_plus(&q, &x, &shape, &dy, &mut dx, 0.5).unwrap();
        prop_assert_eq!(&g.scales, &lsq(&q, &x, &shape, &dy, &mut dx, 0.5).unwrap());
        let (mut ds, mut dz) = (vec![0.0f64; groups], vec![0.0f64; groups]);
        for i in 0..60 {
            let group = group_at(granularity, shape, i);
            let (s, z) = (scales[group], qformat::rne(zeros[group].clamp(0.0, 15.0)));
            let v = x[i] / s;
            let integer = qformat::rne(v) + z;
            let clipped = !(0.0..=15.0).contains(&integer);
            let slope = if clipped { integer.clamp(0.0, 15.0) - z } else { qformat::rne(v) - v };
            ds[group] += f64::from(dy[i]) * f64::from(slope);
            if clipped {
                dz[group] -= f64::from(dy[i]) * f64::from(s);
            }
            prop_assert_eq!(dx[i], if clipped { 0.0 } else { dy[i] });
        }
        for group in 0..groups {
            let (s, z) = (g.scales[group], g.zero_points[group]);
            prop_assert!((f64::from(s) - 0.5 * ds[group]).abs() < 1e-4, "{} {}", s, ds[group]);
            prop_assert!((f64::from(z) - 0.5 * dz[group]).abs() < 1e-4, "{} {}", z, dz[group]);
        }
    }

    /// The gradients of a learned clip are the difference quotients of the clamp.
    #[test]
    fn a_learned_clip_has_the_gradients_of_its_differences(
        x in prop::collection::vec(-6f32..12.0, 40),
        dy in prop::collection::vec(-1f32..1.0, 40),
        alpha in 0.5f32..8.0,
    ) {
        let h = 1e-3f64;
        // No difference crosses a corner.
        let x: Vec<f32> = x
            .into_iter()
            .filter(|&v| f64::from(v).abs() > 2.0 * h && f64::from(v - alpha).abs() > 2.0 * h)
            .collect();
        let dy = &dy[..x.len()];
        let mut dx = vec![9.0; x.len()];
        let da = pact(&x, alpha, dy, &mut dx).unwrap();
        let loss = |moved: Option<usize>, by: f64, alpha: f64| -> f64 {
            x.iter()
                .zip(dy)
                .enumerate()
                .map(|(i, (&x, &dy))| {
                    let x = f64::from(x) + if moved == Some(i) { by } else { 0.0 };
                    f64::from(dy) * x.clamp(0.0, alpha)
                })
                .sum()
        };
        let a = f64::from(alpha);
        let slope = (loss(None, 0.0, a + h) - loss(None, 0.0, a - h)) / (2.0 * h);
        prop_assert!((f64::from(da) - slope).abs() < 1e-5, "{} {}", da, slope);
        for (i, &d) in dx.iter().enumerate() {
            let slope = (loss(Some(i), h, a) - loss(Some(i), -h, a)) / (2.0 * h);
            prop_assert!((f64::from(d) - slope).abs() < 1e-5, "{} {}", d, slope);
        }
    }
}
