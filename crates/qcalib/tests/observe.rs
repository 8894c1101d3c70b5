//! What observers refuse, and that a refusal leaves no trace.

use qcalib::observers::{HistogramObserver, MinMaxObserver};
use qcalib::{CalibError, Method, NonFinite, Observer, ObserverKind, Policy, params};
use qformat::{DType, FormatError, Granularity, QuantSpec, Scheme};

const CHANNEL_1: Granularity = Granularity::PerChannel { axis: 1 };

fn bytes(o: &dyn Observer) -> String {
    serde_json::to_string(&o.state()).unwrap()
}

#[test]
fn non_finite_values_are_refused_with_count_index_and_kind() {
    for kind in ObserverKind::ALL {
        let mut o = kind
            .observer(Granularity::PerTensor, Policy::Error)
            .unwrap();
        o.observe(0, &[1.0, 2.0], &[2]).unwrap();
        let before = bytes(&*o);
        let mut x = vec![0.5; 10_000];
        x[5_000] = f32::NEG_INFINITY;
        x[7_000] = f32::NAN;
        x[9_999] = f32::INFINITY;
        assert_eq!(
            o.observe(1, &x, &[100, 100]),
            Err(CalibError::NonFinite {
                count: 3,
                index: 5_000,
                kind: NonFinite::NegInf
            })
        );
        assert_eq!(bytes(&*o), before);
    }
}

#[test]
fn non_finite_values_are_counted_and_never_reach_a_range() {
    for policy in [Policy::Ignore, Policy::Saturate] {
        for kind in ObserverKind::ALL {
            let mut o = kind.observer(Granularity::PerTensor, policy).unwrap();
            let x = [
                f32::NAN,
                1.0,
                f32::INFINITY,
                -2.0,
                f32::NEG_INFINITY,
                f32::INFINITY,
            ];
            o.observe(0, &x, &[6]).unwrap();
            let e = o.record(0).unwrap().extent;
            assert_eq!(
                (e.finite(), e.nan(), e.pos_inf(), e.neg_inf()),
                (2, 1, 2, 1)
            );
            let r = e.range().unwrap();
            assert_eq!((r.min, r.max), (-2.0, 1.0));
        }
    }
}

#[test]
fn saturated_infinities_weigh_where_ignored_ones_do_not() {
    // 90 small values, one large, and ten infinities: by percentile 95 the large value is an
    // outlier unless the infinities stand beside it.
    let mut x = vec![0.25f32; 90];
    x.push(8.0);
    x.extend([f32::INFINITY; 10]);
    let range = |policy| {
        let mut o = ObserverKind::Histogram
            .observer(Granularity::PerTensor, policy)
            .unwrap();
        o.observe(0, &x, &[x.len()]).unwrap();
        let target = qcalib::Target::new(DType::I8, Scheme::Symmetric).unwrap();
        qcalib::ranges(&*o, &*Method::Percentile(95.0).estimator().unwrap(), target).unwrap()[0]
    };
    assert!(range(Policy::Ignore).max < 0.3);
    assert_eq!(range(Policy::Saturate).max, 8.0);
}

#[test]
fn shapes_lengths_and_channels_are_checked() {
    let mut o = MinMaxObserver::new(CHANNEL_1, Policy::Error).unwrap();
    o.observe(0, &[1.0, 2.0, 3.0], &[1, 3]).unwrap();
    let before = bytes(&o);
    assert_eq!(
        o.observe(1, &[1.0, 2.0], &[1, 2]),
        Err(CalibError::Channels {
            axis: 1,
            given: 2,
            expected: 3
        })
    );
    assert!(matches!(
        o.observe(1, &[1.0; 5], &[2, 3]),
        Err(CalibError::Length { .. })
    ));
    assert!(matches!(
        o.observe(1, &[1.0; 3], &[3]),
        Err(CalibError::Format(FormatError::Axis { axis: 1, rank: 1 }))
    ));
    assert!(matches!(
        o.observe(1, &[], &[usize::MAX, 2, 3]),
        Err(CalibError::Format(FormatError::ShapeOverflow))
    ));
    assert_eq!(bytes(&o), before);
    // Batches may differ in every other dimension, and may be empty.
    o.observe(1, &[4.0; 12], &[2, 3, 2]).unwrap();
    o.observe(2, &[], &[0, 7]).unwrap();
    assert_eq!(o.groups(), 3);
}

#[test]
fn blocks_are_not_observed() {
    let given = Granularity::PerBlock { axis: 0, block: 4 };
    for kind in ObserverKind::ALL {
        assert_eq!(
            kind.observer(given, Policy::Error).unwrap_err(),
            CalibError::Granularity { given }
        );
    }
}

#[test]
fn unlike_observers_do_not_merge_and_stay_as_they_were() {
    let (tensor, policy) = (Granularity::PerTensor, Policy::Ignore);
    let fed = |mut o: Box<dyn Observer>, shape: &[usize]| {
        o.observe(0, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], shape)
            .unwrap();
        o
    };
    let histogram = |g, p| ObserverKind::Histogram.observer(g, p).unwrap();
    let mut a = fed(histogram(CHANNEL_1, policy), &[2, 3]);
    let before = bytes(&*a);
    let small: Box<dyn Observer> =
        Box::new(HistogramObserver::with_bins(CHANNEL_1, policy, 32).unwrap());
    for (other, what) in [
        (
            fed(
                ObserverKind::MinMax.observer(CHANNEL_1, policy).unwrap(),
                &[2, 3],
            ),
            "observer",
        ),
        (fed(histogram(tensor, policy), &[2, 3]), "granularity"),
        (
            fed(histogram(CHANNEL_1, Policy::Saturate), &[2, 3]),
            "policy",
        ),
        (
            fed(histogram(CHANNEL_1, policy), &[3, 2]),
            "number of channels",
        ),
        (small, "settings"),
    ] {
        match a.merge(&*other) {
            Err(CalibError::Mismatch { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(bytes(&*a), before);
    }
    // One that saw nothing merges both ways.
    let mut fresh = histogram(CHANNEL_1, policy);
    a.merge(&*fresh).unwrap();
    fresh.merge(&*a).unwrap();
    assert_eq!((bytes(&*a), bytes(&*fresh)), (before.clone(), before));
}

#[test]
fn histogram_sizes_are_checked() {
    for bins in [0, 1, 8, 17, 131_072, u32::MAX] {
        assert!(matches!(
            HistogramObserver::with_bins(Granularity::PerTensor, Policy::Error, bins),
            Err(CalibError::Setting {
                argument: "bins",
                ..
            })
        ));
    }
}

#[test]
fn one_histogram_serves_all_methods_that_read_values() {
    let mut o = ObserverKind::Histogram
        .observer(CHANNEL_1, Policy::Error)
        .unwrap();
    o.observe(0, &[1.0, -2.0, 3.0, -4.0], &[2, 2]).unwrap();
    for granularity in [CHANNEL_1, Granularity::PerTensor] {
        let spec = QuantSpec {
            dtype: DType::U8,
            scheme: Scheme::Affine,
            granularity,
        };
        for m in Method::ALL {
            let p = params(&*o, m, spec);
            if m.served_by(ObserverKind::Histogram) {
                let groups = if granularity == CHANNEL_1 { 2 } else { 1 };
                assert_eq!(p.unwrap().params().len(), groups, "{m}");
            } else {
                assert!(matches!(p, Err(CalibError::Needs { .. })), "{m}");
            }
        }
    }
    let granularity = Granularity::PerChannel { axis: 0 };
    let spec = QuantSpec {
        dtype: DType::U8,
        scheme: Scheme::Affine,
        granularity,
    };
    assert!(matches!(
        params(&*o, Method::Mse, spec),
        Err(CalibError::Mismatch { .. })
    ));
    let spec = QuantSpec {
        dtype: DType::F16,
        scheme: Scheme::Affine,
        granularity: CHANNEL_1,
    };
    assert!(matches!(
        params(&*o, Method::Mse, spec),
        Err(CalibError::Format(_))
    ));
    assert!(
        params(
            &*o,
            Method::Percentile(-3.0),
            QuantSpec {
                dtype: DType::I8,
                ..spec
            }
        )
        .is_err()
    );
}
