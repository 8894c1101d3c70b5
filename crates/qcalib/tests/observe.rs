//! What observers refuse, and that a refusal leaves no trace.

use proptest::prelude::*;
use qcalib::observers::{HistogramObserver, MinMaxObserver};
use qcalib::{
    CalibError, Method, NonFinite, Observer, ObserverKind, ObserverState, Policy, TensorView,
    Values, params,
};
use qformat::{DType, FormatError, Granularity, QuantSpec, Scheme, bf16, f16};

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

/// Shapes with an axis 1. Every observer looks at the values of some before it records them, and
/// records others (64 to 2^15 values a group or more) aside; the largest are read in several
/// pieces of 2^16 values, or copied in parts of 2^18.
const SHAPES: [[usize; 3]; 5] = [
    [1, 1, 5],
    [3, 2, 200],
    [300, 2, 120],
    [2, 2, 20_000],
    [1, 3, 90_000],
];

/// A third of the values are 0, the others of either sign and many magnitudes.
fn drawn(seed: u32, len: usize) -> Vec<f32> {
    let mut s = seed | 1;
    (0..len)
        .map(|_| {
            s ^= s << 13;
            s ^= s >> 17;
            s ^= s << 5;
            let x = (s >> 8) as f32 / 8_388_608.0 - 1.0;
            if s.is_multiple_of(3) { 0.0 } else { x * x * x }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// With the batches around it accepted, the state is that of an observer that never met the
    /// rejected one, whatever was recorded of it before its bad value came.
    #[test]
    fn a_rejected_batch_leaves_the_state_byte_equal(
        kind in prop::sample::select(&ObserverKind::ALL[..]),
        granularity in prop::sample::select(vec![
            Granularity::PerTensor,
            CHANNEL_1,
            Granularity::PerBlock { axis: 2, block: 500 },
            Granularity::PerBlock { axis: 2, block: 40_000 },
        ]),
        shape in prop::sample::select(&SHAPES[..]),
        seed in any::<u32>(),
        // The rejected batch has magnitudes that would widen bins and ranges, or not.
        scale in prop::sample::select(vec![0.5f32, 1000.0]),
        bad in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        place in 0.0f64..1.0,
        at_end in any::<bool>(),
        strided in any::<bool>(),
    ) {
        let len: usize = shape.iter().product();
        let (good, later) = (drawn(seed, len), drawn(!seed, len));
        let mut rejected: Vec<f32> = later.iter().map(|v| v * scale).collect();
        let index = if at_end { len - 1 } else { (place * len as f64) as usize };
        rejected[index] = bad;
        // The same tensor with a gap after every element.
        let spread: Vec<f32> = rejected.iter().flat_map(|&v| [v, 0.0]).collect();
        let strides = [2 * shape[1] * shape[2], 2 * shape[2], 2].map(|s| s as isize);
        let view = if strided {
            TensorView::with_strides(&spread[..], 0, &shape, &strides).unwrap()
        } else {
            TensorView::new(&rejected[..], &shape).unwrap()
        };
        let kind_of_bad = NonFinite::of(bad).unwrap();
        let refusal = Err(CalibError::NonFinite { count: 1, index, kind: kind_of_bad });

        let mut o = kind.observer(granularity, Policy::Error).unwrap();
        let mut without = o.clone();
        let fresh = bytes(&*o);
        prop_assert_eq!(o.observe_view(7, view), refusal.clone());
        prop_assert_eq!(bytes(&*o), fresh);
        prop_assert_eq!(o.groups(), 0);
        for (batch, x) in [(0, &good), (1, &later)] {
            o.observe(batch, x, &shape).unwrap();
            without.observe(batch, x, &shape).unwrap();
            let before = bytes(&*o);
            prop_assert_eq!(&before, &bytes(&*without));
            prop_assert_eq!(o.observe_view(batch, view), refusal.clone());
            prop_assert_eq!(bytes(&*o), before);
        }
    }

    /// What is recorded aside and added at the end is what is recorded at once: the other policies
    /// record finite values at once, and differ in the policy's name alone.
    #[test]
    fn values_recorded_aside_give_the_bytes_of_values_recorded_at_once(
        kind in prop::sample::select(&ObserverKind::ALL[..]),
        granularity in prop::sample::select(vec![
            Granularity::PerTensor,
            CHANNEL_1,
            Granularity::PerBlock { axis: 2, block: 40_000 },
        ]),
        shape in prop::sample::select(&SHAPES[..]),
        seed in any::<u32>(),
        scales in prop::collection::vec(0.001f32..100.0, 1..4),
    ) {
        let len: usize = shape.iter().product();
        let mut aside = kind.observer(granularity, Policy::Error).unwrap();
        let mut at_once = kind.observer(granularity, Policy::Ignore).unwrap();
        for (batch, scale) in (0..).zip(scales) {
            let x: Vec<f32> = drawn(seed ^ batch, len).iter().map(|v| v * scale).collect();
            for o in [&mut aside, &mut at_once] {
                o.observe(u64::from(batch), &x, &shape).unwrap();
            }
        }
        prop_assert_eq!(as_ignored(&*aside), bytes(&*at_once));
    }

    /// A batch is recorded aside in the bins of those before it, wider or narrower than they are.
    /// Those that are refused, for a bad value in their last piece, leave nothing in the room
    /// where the next is recorded, nor in that of a restored observer.
    #[test]
    fn batches_recorded_aside_between_refused_ones_give_the_bytes_of_those_accepted(
        kind in prop::sample::select(&ObserverKind::ALL[..]),
        granularity in prop::sample::select(vec![Granularity::PerTensor, CHANNEL_1]),
        shape in prop::sample::select(&SHAPES[3..]),
        seed in any::<u32>(),
        // A scale of zero makes batches that need no bins.
        steps in prop::collection::vec(
            (prop_oneof![4 => 1e-6f32..1.0, 4 => 1f32..1e6, 1 => Just(0.0)], any::<bool>(), any::<bool>()),
            2..7,
        ),
        bad in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        before_end in 0usize..1000,
    ) {
        let len: usize = shape.iter().product();
        let mut aside = kind.observer(granularity, Policy::Error).unwrap();
        let mut at_once = kind.observer(granularity, Policy::Ignore).unwrap();
        for (batch, (scale, refused, restored)) in (0..).zip(steps) {
            let mut x: Vec<f32> = drawn(seed ^ batch, len).iter().map(|v| v * scale).collect();
            let batch = u64::from(batch);
            if restored {
                let state: ObserverState = serde_json::from_str(&bytes(&*aside)).unwrap();
                aside = state.into_observer();
            }
            if refused {
                x[len - 1 - before_end] = bad;
                prop_assert!(aside.observe(batch, &x, &shape).is_err());
            } else {
                aside.observe(batch, &x, &shape).unwrap();
                at_once.observe(batch, &x, &shape).unwrap();
            }
            prop_assert_eq!(as_ignored(&*aside), bytes(&*at_once));
        }
    }
}

/// The bytes of an observer that refuses, as those of one that ignores: the policy's name differs.
fn as_ignored(o: &dyn Observer) -> String {
    bytes(o).replace("\"policy\":\"error\"", "\"policy\":\"ignore\"")
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

/// Every block is what a tensor of its own would be.
#[test]
fn blocks_are_observed_each_on_its_own() {
    let x: Vec<f32> = (0..2 * 7 * 3)
        .map(|i| ((i * 37) % 19) as f32 - 9.0)
        .collect();
    let shape = [2, 7, 3];
    for (axis, block) in [(0, 1), (1, 2), (1, 3), (1, 100), (2, 2), (2, 3)] {
        let granularity = Granularity::PerBlock { axis, block };
        let groups = granularity.groups(&shape).unwrap();
        let mut parts = vec![Vec::new(); groups];
        for (group, run) in granularity.runs(&shape).unwrap() {
            parts[group].extend_from_slice(&x[run]);
        }
        for kind in ObserverKind::ALL {
            let mut o = kind.observer(granularity, Policy::Error).unwrap();
            o.observe(0, &x, &shape).unwrap();
            assert_eq!(o.groups(), groups);
            let mut whole = kind
                .observer(Granularity::PerTensor, Policy::Error)
                .unwrap();
            whole.observe(0, &x, &shape).unwrap();
            assert_eq!(bytes(&*o.to_per_tensor().unwrap()), bytes(&*whole));
            for (group, part) in parts.iter().enumerate() {
                let mut alone = kind
                    .observer(Granularity::PerTensor, Policy::Error)
                    .unwrap();
                alone.observe(0, part, &[part.len()]).unwrap();
                let (a, b) = (o.record(group).unwrap(), alone.record(0).unwrap());
                assert_eq!(a.extent, b.extent);
                if let (Some(a), Some(b)) = (a.histogram, b.histogram) {
                    assert_eq!((a.exponent(), a.zeros()), (b.exponent(), b.zeros()));
                    assert_eq!((a.negative(), a.positive()), (b.negative(), b.positive()));
                }
                if kind == ObserverKind::Moments {
                    assert_eq!(a.statistics(), b.statistics());
                }
            }
            // Batches with other blocks are refused.
            let e = o.observe(1, &x, &[1, 14, 3]).err();
            let same = granularity.groups(&[1, 14, 3]) == Ok(groups);
            assert_eq!(e.is_none(), same, "{granularity}");
            // Parameters come out at the same granularity.
            let spec = QuantSpec {
                dtype: DType::I8,
                scheme: Scheme::Symmetric,
                granularity,
            };
            let method = if kind == ObserverKind::Histogram {
                Method::Mse
            } else {
                Method::MinMax
            };
            assert_eq!(params(&*o, method, spec).unwrap().params().len(), groups);
        }
    }
    let empty = Granularity::PerBlock { axis: 0, block: 0 };
    assert_eq!(
        ObserverKind::MinMax
            .observer(empty, Policy::Error)
            .unwrap_err(),
        CalibError::Format(FormatError::Block)
    );
}

/// Tensors in half precision and at odd strides are observed as their f32 copies are.
#[test]
fn halves_and_strides_are_observed_as_their_copies() {
    let n = 6 * 50 * 11;
    let x: Vec<f32> = (0..n)
        .map(|i| ((i * 7919) % 4001) as f32 / 16.0 - 100.0)
        .collect();
    let f16s: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
    let bf16s: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
    let shape = [6, 50, 11];
    // Transposed, backwards, and one row repeated.
    let layouts: [(usize, [usize; 3], [isize; 3]); 4] = [
        (0, shape, [550, 11, 1]),
        (0, [11, 6, 50], [1, 550, 11]),
        (n - 1, [6, 50, 11], [-550, -11, -1]),
        (7, [3, 5, 40], [0, 2, 11]),
    ];
    for (offset, shape, strides) in layouts {
        let gathered = |wide: &[f32]| -> Vec<f32> {
            let mut out = Vec::new();
            for i in 0..shape[0] {
                for j in 0..shape[1] {
                    for k in 0..shape[2] {
                        let at = [i, j, k]
                            .iter()
                            .zip(strides)
                            .fold(offset as isize, |at, (&i, s)| at + i as isize * s);
                        out.push(wide[at as usize]);
                    }
                }
            }
            out
        };
        for kind in ObserverKind::ALL {
            for granularity in [
                Granularity::PerTensor,
                Granularity::PerChannel { axis: 0 },
                Granularity::PerChannel { axis: 2 },
                Granularity::PerBlock { axis: 1, block: 4 },
            ] {
                let fresh = kind.observer(granularity, Policy::Error).unwrap();
                for (values, wide) in [
                    (Values::from(&x[..]), x.clone()),
                    (
                        Values::from(&f16s[..]),
                        f16s.iter().map(|v| v.to_f32()).collect(),
                    ),
                    (
                        Values::from(&bf16s[..]),
                        bf16s.iter().map(|v| v.to_f32()).collect(),
                    ),
                ] {
                    let (mut a, mut b) = (fresh.clone(), fresh.clone());
                    let view = TensorView::with_strides(values, offset, &shape, &strides).unwrap();
                    a.observe_view(3, view).unwrap();
                    b.observe(3, &gathered(&wide), &shape).unwrap();
                    assert_eq!(bytes(&*a), bytes(&*b), "{kind} {granularity} {strides:?}");
                }
            }
        }
    }
}

#[test]
fn strides_beyond_the_elements_are_refused() {
    let x = [0.0f32; 12];
    let view = |offset, shape: &'static [usize], strides: &'static [isize]| {
        TensorView::with_strides(&x[..], offset, shape, strides)
    };
    assert!(view(0, &[3, 4], &[4, 1]).is_ok());
    assert!(view(11, &[3, 4], &[-4, -1]).is_ok());
    assert!(view(12, &[0, 4], &[9, 9]).is_ok());
    assert!(view(11, &[], &[]).is_ok());
    for bad in [
        view(1, &[3, 4], &[4, 1]),
        view(0, &[3, 4], &[-4, 1]),
        view(12, &[], &[]),
        view(0, &[3, 4], &[1]),
        view(0, &[2], &[isize::MAX]),
        view(usize::MAX, &[2], &[1]),
        view(0, &[2, 2], &[isize::MAX, isize::MIN]),
    ] {
        assert!(matches!(bad, Err(CalibError::Strides { .. })), "{bad:?}");
    }
    // The index of a value that is not finite is the one in row-major order.
    let mut y = [1.0f32; 12];
    y[4] = f32::NAN;
    let mut o = ObserverKind::MinMax
        .observer(Granularity::PerTensor, Policy::Error)
        .unwrap();
    let view = TensorView::with_strides(&y[..], 0, &[4, 3], &[1, 4]).unwrap();
    assert_eq!(
        o.observe_view(0, view),
        Err(CalibError::NonFinite {
            count: 1,
            index: 1,
            kind: NonFinite::Nan
        })
    );
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

/// A view can repeat one element as often as a word counts.
#[test]
fn more_groups_than_memory_are_an_error() {
    let huge = isize::MAX as usize;
    let shape = [huge];
    let granularities = [
        Granularity::PerChannel { axis: 0 },
        Granularity::PerBlock { axis: 0, block: 1 },
    ];
    for (kind, granularity) in granularities
        .into_iter()
        .flat_map(|g| ObserverKind::ALL.map(|k| (k, g)))
    {
        for policy in Policy::ALL {
            let mut o = kind.observer(granularity, policy).unwrap();
            let x = TensorView::with_strides(&[1.0f32][..], 0, &shape, &[0]).unwrap();
            let e = o.observe_view(0, x).unwrap_err();
            assert!(
                matches!(e, CalibError::Memory { given, .. } if given == huge),
                "{e}"
            );
            // It goes on as if nothing had been.
            assert_eq!(o.groups(), 0);
            o.observe(0, &[1.0, 2.0], &[2]).unwrap();
            assert_eq!(o.groups(), 2);
        }
    }
}
