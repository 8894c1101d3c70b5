//! Tensors that break observers elsewhere: every method gives finite parameters or a typed error.

use qcalib::{CalibError, Method, Observer, ObserverKind, Policy, Target, params, ranges};
use qformat::{DType, Granularity, QuantSpec, Scheme};

const TYPES: [DType; 7] = [
    DType::I4,
    DType::U4,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::U16,
    DType::I32,
];

fn for_each_result(
    x: &[f32],
    mut check: impl FnMut(Policy, Method, Scheme, DType, Result<(f32, f32, f32), CalibError>),
) {
    for policy in [Policy::Ignore, Policy::Saturate] {
        let mut all: Vec<Box<dyn Observer>> = ObserverKind::ALL
            .into_iter()
            .map(|k| k.observer(Granularity::PerTensor, policy).unwrap())
            .collect();
        for o in &mut all {
            o.observe(0, x, &[x.len()]).unwrap();
        }
        for method in Method::ALL.into_iter().chain([Method::Percentile(0.5)]) {
            let o = all
                .iter()
                .find(|o| o.kind() == method.observer_kind())
                .unwrap();
            for scheme in [Scheme::Affine, Scheme::Symmetric] {
                for dtype in TYPES {
                    let granularity = Granularity::PerTensor;
                    let spec = QuantSpec {
                        dtype,
                        scheme,
                        granularity,
                    };
                    let target = Target::new(dtype, scheme).unwrap();
                    let r = ranges(&**o, &*method.estimator().unwrap(), target);
                    let result = params(&**o, method, spec).and_then(|p| {
                        let r = r?[0];
                        Ok((r.min, r.max, p.params()[0].scale()))
                    });
                    check(policy, method, scheme, dtype, result);
                }
            }
        }
    }
}

/// The range of LSQ's first step, `2 · mean |x| / √Qp` over the levels on either side, by sums in
/// f64 and with the infinities at the ends.
fn lsq_start(x: &[f32], policy: Policy, scheme: Scheme, dtype: DType) -> (f64, f64) {
    let finite = || x.iter().copied().filter(|v| v.is_finite());
    let (low, high) = finite().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(v), b.max(v)));
    let seen: Vec<f64> = x
        .iter()
        .filter_map(|&v| match v {
            _ if v.is_finite() => Some(v),
            _ if v.is_nan() || policy == Policy::Ignore => None,
            _ => Some(if v > 0.0 { high } else { low }),
        })
        .map(f64::from)
        .collect();
    let mean = seen.iter().map(|v| v.abs()).sum::<f64>() / seen.len() as f64;
    let steps = f64::from(Target::new(dtype, scheme).unwrap().range().steps());
    let half = (steps / 2.0).floor();
    let (below, above) = match scheme {
        Scheme::Symmetric => (half, half),
        _ if low >= 0.0 => (0.0, steps),
        _ if high <= 0.0 => (steps, 0.0),
        _ => (steps - half, half),
    };
    let positive = if above == 0.0 { below } else { above };
    let end = |levels: f64| (2.0 * mean / positive.sqrt() * levels).min(f32::MAX.into());
    (end(below), end(above))
}

#[test]
fn every_method_survives_every_degenerate_tensor() {
    let mut mixed = vec![0.0; 100];
    mixed.extend([
        f32::MAX,
        f32::MIN,
        f32::from_bits(1),
        -1e-40,
        f32::NAN,
        f32::INFINITY,
    ]);
    let tensors: [(&str, Vec<f32>); 13] = [
        ("zeros", vec![0.0; 50]),
        ("negative zeros", vec![-0.0; 50]),
        ("constant", vec![3.25; 50]),
        ("negative constant", vec![-1e-3; 50]),
        ("one element", vec![42.0]),
        ("smallest subnormal", vec![f32::from_bits(1)]),
        ("subnormals", vec![1e-40, -3e-41, 1e-45]),
        ("smallest normal", vec![f32::MIN_POSITIVE; 3]),
        ("largest", vec![f32::MAX]),
        ("both largest", vec![f32::MAX, f32::MIN]),
        ("one far outlier", [vec![1e-6; 1000], vec![3.4e38]].concat()),
        ("one infinity", vec![f32::INFINITY, -2.0]),
        ("mixed", mixed),
    ];
    for (name, x) in tensors {
        let finite = || x.iter().copied().filter(|v| v.is_finite());
        let low = finite().fold(0f32, f32::min);
        let high = finite().fold(0f32, f32::max);
        let widest = high.max(-low);
        for_each_result(&x, |policy, method, scheme, dtype, result| {
            let case = format!("{name} {method} {scheme} {dtype}");
            let (min, max, scale) = result.unwrap_or_else(|e| panic!("{case}: {e}"));
            assert!(scale > 0.0 && scale.is_finite(), "{case}");
            assert!(min <= max && min.is_finite() && max.is_finite(), "{case}");
            let inside = match scheme {
                // What training starts from is a formula, whatever was seen.
                _ if method == Method::Lsq => {
                    let (below, above) = lsq_start(&x, policy, scheme, dtype);
                    let close = |a: f32, b: f64| {
                        (f64::from(a) - b).abs() <= 1e-6 * b.abs() + f64::from(f32::from_bits(1))
                    };
                    close(min, -below) && close(max, above)
                }
                Scheme::Affine => low <= min.min(0.0) && max.max(0.0) <= high,
                Scheme::Symmetric => -min <= widest && max <= widest,
            };
            assert!(inside, "{case}: [{min}, {max}] of [{low}, {high}]");
        });
    }
}

#[test]
fn without_a_finite_value_there_is_no_range() {
    for x in [&[f32::NAN; 3][..], &[f32::INFINITY, f32::NEG_INFINITY], &[]] {
        for_each_result(x, |_, _, _, _, result| {
            assert_eq!(result, Err(CalibError::NoData { group: 0 }));
        });
    }
    // A dead channel is named.
    for kind in ObserverKind::ALL {
        let granularity = Granularity::PerChannel { axis: 0 };
        let mut o = kind.observer(granularity, Policy::Ignore).unwrap();
        o.observe(0, &[1.0, f32::NAN], &[2, 1]).unwrap();
        let spec = QuantSpec {
            dtype: DType::I8,
            scheme: Scheme::Symmetric,
            granularity,
        };
        for m in Method::ALL.into_iter().filter(|m| m.served_by(kind)) {
            assert_eq!(params(&*o, m, spec), Err(CalibError::NoData { group: 1 }));
        }
    }
}

/// Values of one magnitude stay representable: a constant tensor loses at most a few steps of
/// its range to clipping.
#[test]
fn a_constant_is_kept_by_every_method_that_minimises_a_loss() {
    for c in [3.25f32, -0.001, 1.0, 255.0] {
        for_each_result(&[c; 100], |_, method, scheme, dtype, result| {
            if dtype.bits() >= 8 && ![Method::Percentile(0.5), Method::Lsq].contains(&method) {
                let (min, max, _) = result.unwrap();
                let end = if c > 0.0 { max } else { -min };
                assert!(
                    (end - c.abs()).abs() <= 0.02 * c.abs(),
                    "{c} {method} {scheme} {dtype}"
                );
            }
        });
    }
}
