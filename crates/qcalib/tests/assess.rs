//! What is assessed on a histogram is what happens to the values.

use proptest::prelude::*;
use qcalib::{CalibError, ObserverKind, Policy, assess};
use qformat::{DType, Granularity, QParams, Scheme};

proptest! {
    #[test]
    fn assessments_are_those_of_the_values(
        x in prop::collection::vec(prop_oneof![-20f32..30.0, Just(0.0)], 500..2000),
        low in -25f32..0.0, high in 1f32..40.0,
        dtype in prop::sample::select(&[DType::I4, DType::U8, DType::I8][..]),
        symmetric in any::<bool>(),
    ) {
        let scheme = if symmetric { Scheme::Symmetric } else { Scheme::Affine };
        let mut o = ObserverKind::Histogram.observer(Granularity::PerTensor, Policy::Error).unwrap();
        o.observe(0, &x, &[x.len()]).unwrap();
        let p = QParams::from_range(low, high, dtype, scheme).unwrap();
        let a = assess(&o.record(0).unwrap(), &p).unwrap();
        let n = x.len() as f64;
        let codes: Vec<i32> = x.iter().map(|&v| p.quantize(v)).collect();
        let share = |f: &dyn Fn(usize) -> bool| (0..x.len()).filter(|&i| f(i)).count() as f64 / n;
        let unclipped = |i: usize| {
            i64::from(qformat::rne(x[i] / p.scale()) as i32) + i64::from(p.zero_point())
        };
        // A bin on either side of an edge may be taken apart wrongly.
        let near = |a: f64, b: f64| (a - b).abs() < 0.012;
        let (min, max) = (i64::from(p.range().min()), i64::from(p.range().max()));
        prop_assert_eq!(a.count, x.len() as u64);
        prop_assert!(near(a.clipped_below, share(&|i| unclipped(i) < min)));
        prop_assert!(near(a.clipped_above, share(&|i| unclipped(i) > max)));
        prop_assert!(near(a.at_lowest, share(&|i| i64::from(codes[i]) == min)), "{a:?}");
        prop_assert!(near(a.at_highest, share(&|i| i64::from(codes[i]) == max)), "{a:?}");
        let power: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / n;
        prop_assert!((a.mean_square - power).abs() < 1e-2 * power);
        let mut used = codes.clone();
        used.sort_unstable();
        used.dedup();
        // At most: a bin may spread over integers that its values do not meet.
        prop_assert!(a.codes_used >= used.len() as u64, "{} {}", a.codes_used, used.len());
        prop_assert!(a.codes_used <= a.codes && (0.0..=1.0).contains(&a.dead_codes()));
        if dtype == DType::I4 {
            prop_assert!(a.codes_used <= used.len() as u64 + 2, "{} {}", a.codes_used, used.len());
        }
    }
}

#[test]
fn degenerate_records_are_assessed_or_refused() {
    let p = QParams::from_range(-1.0, 1.0, DType::I8, Scheme::Symmetric).unwrap();
    let kind = ObserverKind::Histogram;
    let mut o = kind
        .observer(Granularity::PerTensor, Policy::Ignore)
        .unwrap();
    o.observe(0, &[f32::NAN], &[1]).unwrap();
    assert_eq!(
        assess(&o.record(0).unwrap(), &p),
        Err(CalibError::NoData { group: 0 })
    );
    o.observe(0, &[0.0; 9], &[9]).unwrap();
    let a = assess(&o.record(0).unwrap(), &p).unwrap();
    assert_eq!(
        (a.codes_used, a.sqnr_db(), a.clipped()),
        (1, f64::INFINITY, 0.0)
    );
    o.observe(0, &[f32::MAX, f32::MIN], &[2]).unwrap();
    let a = assess(&o.record(0).unwrap(), &p).unwrap();
    assert!(
        (a.clipped() - 2.0 / 11.0).abs() < 1e-9 && a.codes_used == 3,
        "{a:?}"
    );
    let mut o = ObserverKind::MinMax
        .observer(Granularity::PerTensor, Policy::Ignore)
        .unwrap();
    o.observe(0, &[1.0], &[1]).unwrap();
    assert!(matches!(
        assess(&o.record(0).unwrap(), &p),
        Err(CalibError::Needs { .. })
    ));
}
