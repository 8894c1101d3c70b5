//! Stored state is believed only after it was checked; nothing that is wrong with it panics.

use proptest::prelude::*;
use qcalib::{Observer, ObserverKind, ObserverState, Policy};
use qformat::Granularity;
use serde_json::{Value, json};

fn observed(kind: ObserverKind) -> Box<dyn Observer> {
    let mut o = kind
        .observer(Granularity::PerChannel { axis: 1 }, Policy::Ignore)
        .unwrap();
    o.observe(3, &[1.0, -0.5, 0.0, 7.0, f32::NAN, 2.5], &[3, 2])
        .unwrap();
    o.observe(1, &[-8.0, 5.0], &[1, 2]).unwrap();
    o
}

fn value(kind: ObserverKind) -> Value {
    serde_json::to_value(observed(kind).state()).unwrap()
}

fn reason(v: &Value) -> String {
    match serde_json::from_str::<ObserverState>(&v.to_string()) {
        Ok(_) => panic!("accepted: {v}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn states_survive_a_round_trip() {
    for kind in ObserverKind::ALL {
        let json = serde_json::to_string(&observed(kind).state()).unwrap();
        let state: ObserverState = serde_json::from_str(&json).unwrap();
        assert_eq!(state.kind(), kind);
        let o = state.into_observer();
        assert_eq!(serde_json::to_string(&o.state()).unwrap(), json);
    }
}

#[test]
fn the_version_is_named_before_anything_else() {
    let mut v = value(ObserverKind::MinMax);
    v["version"] = json!(2);
    v["record"] = json!({"wavelet": {}});
    // As files have it: the version first.
    let text = format!(
        r#"{{"version":2,"granularity":"per_tensor","policy":"error","record":{}}}"#,
        v["record"]
    );
    let e = serde_json::from_str::<ObserverState>(&text)
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("version") && e.contains('2') && e.contains('1'),
        "{e}"
    );
}

/// One change each, and a word of the reason.
#[test]
fn impossible_states_are_refused_with_a_reason() {
    use ObserverKind::{Histogram, MinMax, Moments, MovingAverage};
    let max = json!(u64::MAX);
    let cases: Vec<(ObserverKind, &str, Value, &str)> = vec![
        (MinMax, "/extent/range", json!([2.0, 1.0]), "swapped"),
        (MinMax, "/extent/range", json!([0.0, 1e39]), ""),
        (MinMax, "/extent/range", json!([-0.0, 1.0]), "negative zero"),
        (MinMax, "/extent/range", json!(null), "exactly when"),
        (MinMax, "/extent/range", json!([null, null]), "f32"),
        (MinMax, "/extent/finite", json!(0), "exactly when"),
        (MinMax, "/extent/finite", max.clone(), "exceed"),
        (MinMax, "/extent/nan", json!(-1), ""),
        (MinMax, "/extent/more", json!(1), "unknown field"),
        (MovingAverage, "/more", json!([]), "range"),
        (
            MovingAverage,
            "/more",
            json!([[3, 0.0, 1.0], [1, -8.0, -8.0]]),
            "order",
        ),
        (
            MovingAverage,
            "/more",
            json!([[1, -8.0, -8.0], [1, 0.0, 1.0]]),
            "order",
        ),
        (MovingAverage, "/more", json!([[1, -8.0, 9.0]]), "range"),
        (MovingAverage, "/more/0/1", json!(7.0), "swapped"),
        (
            MovingAverage,
            "/more",
            json!((0..9).map(|i| (i, -8.0, 1.0)).collect::<Vec<_>>()),
            "outnumber",
        ),
        (Moments, "/more/zeros", json!(9), "outnumber"),
        (Moments, "/more/positive", json!([1, 0]), "size"),
        (Moments, "/more/positive", json!(vec![1; 7]), "size"),
        (Moments, "/more/positive", json!([]), "end there"),
        (
            Moments,
            "/more/positive",
            json!([0, 0, 0, 0, 0, 1]),
            "end there",
        ),
        (Moments, "/more/negative", json!([]), "end there"),
        (Moments, "/more/squares", json!([]), "squares of such"),
        (
            Moments,
            "/more/squares",
            json!(vec![1; 10]),
            "squares of such",
        ),
        (Histogram, "/more/exponent", json!(-6), "exponent"),
        (Histogram, "/more/exponent", json!(i32::MAX), "exponent"),
        (Histogram, "/more/exponent", json!(i32::MIN), "exponent"),
        (Histogram, "/more/zeros", json!(0), "add up"),
        (Histogram, "/more/zeros", max.clone(), "add up"),
        (Histogram, "/more/positive", json!([]), "highest"),
        (Histogram, "/more/negative", json!(vec![1; 5000]), "lowest"),
        (Histogram, "/more/negative/0", max, "add up"),
        (Histogram, "/extent/range", json!([-8.0, 1.02]), "highest"),
        (Histogram, "/extent/range", json!([-9.0, 1.0]), ""),
    ];
    for (kind, path, new, expected) in cases {
        let name = serde_json::to_value(kind.name().replace("minmax", "min_max").replace('-', "_"))
            .unwrap();
        let mut v = value(kind);
        let full = format!("/record/{}/groups/0{path}", name.as_str().unwrap());
        match v.pointer_mut(&full) {
            Some(slot) => *slot = new.clone(),
            None => {
                let (parent, field) = full.rsplit_once('/').unwrap();
                v.pointer_mut(parent).unwrap()[field] = new.clone();
            }
        }
        let e = reason(&v);
        assert!(e.contains(expected), "{kind} {path} = {new}: {e}");
    }
}

#[test]
fn counts_cannot_be_moved_between_bins_at_the_ends() {
    let mut v = value(ObserverKind::Histogram);
    let group = v
        .pointer_mut("/record/histogram/groups/0/more/negative")
        .unwrap();
    let last = group.as_array().unwrap().len() - 1;
    group[last] = json!(0);
    group[0] = json!(1);
    assert!(reason(&v).contains("count"), "{}", reason(&v));
}

#[test]
fn settings_groups_and_policies_must_fit() {
    let mut v = value(ObserverKind::Histogram);
    v["record"]["histogram"]["settings"]["bins"] = json!(3_000_000_000u32);
    assert!(reason(&v).contains("power of two"));
    let mut v = value(ObserverKind::MinMax);
    v["granularity"] = json!("per_tensor");
    assert!(reason(&v).contains("one group"));
    let mut v = value(ObserverKind::MinMax);
    v["policy"] = json!("error");
    assert!(reason(&v).contains("policy"));
    let mut v = value(ObserverKind::MinMax);
    v["granularity"] = json!({"per_block": {"axis": 0, "block": 0}});
    assert!(reason(&v).contains("block"), "{}", reason(&v));
    let mut v = value(ObserverKind::MinMax);
    v["record"]["min_max"]["groups"][0]["extent"] =
        json!({"range": null, "finite": 0, "nan": 0, "pos_inf": 0, "neg_inf": 0});
    assert!(reason(&v).contains("zero"));
}

#[test]
fn merged_counts_do_not_overflow() {
    let mut v = value(ObserverKind::MinMax);
    for g in 0..2 {
        v["record"]["min_max"]["groups"][g]["extent"]["finite"] = json!(u64::MAX - 1);
        v["record"]["min_max"]["groups"][g]["extent"]["nan"] = json!(0);
    }
    let full: ObserverState = serde_json::from_value(v).unwrap();
    let mut full = full.into_observer();
    let before = serde_json::to_string(&full.state()).unwrap();
    let other = observed(ObserverKind::MinMax);
    assert_eq!(full.merge(&*other), Err(qcalib::CalibError::CountOverflow));
    assert_eq!(
        full.observe(0, &[0.0; 4], &[2, 2]),
        Err(qcalib::CalibError::CountOverflow)
    );
    assert_eq!(
        full.to_per_tensor().unwrap_err(),
        qcalib::CalibError::CountOverflow
    );
    assert_eq!(serde_json::to_string(&full.state()).unwrap(), before);
    full.observe(0, &[0.0; 2], &[1, 2]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever a damaged file still means, it is refused or belongs to a working observer.
    #[test]
    fn damaged_files_never_panic(
        kind in 0usize..4,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        truncate in any::<Option<prop::sample::Index>>(),
    ) {
        let mut text = serde_json::to_vec(&observed(ObserverKind::ALL[kind]).state()).unwrap();
        for (at, byte) in cuts {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if let Some(at) = truncate {
            text.truncate(at.index(text.len()));
        }
        if let Ok(state) = serde_json::from_slice::<ObserverState>(&text) {
            let mut o = state.into_observer();
            let _ = o.merge(&*observed(ObserverKind::ALL[kind]));
            let _ = o.observe(9, &[1.0, 1e30], &[1, 2]);
        }
    }
}
