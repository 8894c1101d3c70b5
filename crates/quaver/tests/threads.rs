//! Calibration on several threads: the same bytes and the same errors as on one.

mod common;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use common::{dataset, digits_model, samples, shared_weight};
use quaver::calib::Policy;
use quaver::model::{Model, Tensor};
use quaver::{Batch, BatchPlan, ConvertOptions, Method, Observing, Operators, QuantizeError};

fn observing(model: &Model) -> Observing {
    let chosen = Operators::new().choose(model).unwrap();
    chosen.observe(&Method::ALL, Policy::Error).unwrap()
}

/// The record of batches that were observed on so many threads, or of one after the other.
fn recorded(model: &Model, batches: &[(u64, Batch)], threads: Option<usize>) -> Vec<u8> {
    let mut o = observing(model);
    match threads {
        Some(threads) => {
            let threads = NonZeroUsize::new(threads).unwrap();
            o.observe_on(threads, batches.to_vec()).unwrap();
        }
        None => {
            for (index, batch) in batches {
                o.observe_at(*index, batch).unwrap();
            }
        }
    }
    let plan = BatchPlan {
        samples: 100,
        batch: 1,
    };
    o.record(plan).unwrap().to_bytes().unwrap()
}

/// Batches of several sizes, in an order of their own, with gaps.
fn batches(count: u64) -> Vec<(u64, Batch)> {
    let batch = |i: u64| samples("image", 1 + (i % 3) as usize, &[1, 28, 28], i);
    (0..count).map(|i| (7 * (i + 1) % 50, batch(i))).collect()
}

#[test]
fn threads_leave_no_trace_in_the_record() {
    let model = digits_model();
    // None, fewer than threads, and more than each takes at once.
    for count in [0, 1, 2, 11] {
        let batches = batches(count);
        let one_by_one = recorded(&model, &batches, None);
        for threads in [1, 2, 3, 64] {
            let found = recorded(&model, &batches, Some(threads));
            assert!(found == one_by_one, "{count} batches, {threads} threads");
        }
    }
}

/// Batches go on until a second thread has come for one, and a few more: so a thread beside the
/// calling one has observed some, however the system shares out its time.
#[test]
fn what_several_threads_observed_is_in_the_record() {
    let model = digits_model();
    let batch = |i: u64| samples("image", 1, &[1, 28, 28], i % 16);
    let (mut count, mut more) = (0, 6);
    let mut seen: HashSet<ThreadId> = HashSet::new();
    let start = Instant::now();
    let mut o = observing(&model);
    let numbered = std::iter::from_fn(|| {
        seen.insert(thread::current().id());
        if seen.len() > 1 {
            more -= 1;
        }
        if more == 0 || start.elapsed() > Duration::from_secs(60) {
            return None;
        }
        count += 1;
        Some((count - 1, batch(count - 1)))
    });
    o.observe_on(NonZeroUsize::new(2).unwrap(), numbered)
        .unwrap();
    assert_eq!(seen.len(), 2, "{count} batches");
    let plan = BatchPlan {
        samples: count,
        batch: 1,
    };
    let found = o.record(plan).unwrap().to_bytes().unwrap();
    let mut one_by_one = observing(&model);
    for i in 0..count {
        one_by_one.observe_at(i, &batch(i)).unwrap();
    }
    let expected = one_by_one.record(plan).unwrap().to_bytes().unwrap();
    assert!(found == expected, "{count} batches");
}

#[test]
fn after_an_error_all_is_as_before() {
    let model = digits_model();
    let batches = batches(9);
    let mut broken = batches[3..].to_vec();
    let image = Tensor::new(&[1, 1, 28, 28], vec![f32::NAN; 28 * 28]).unwrap();
    broken[4].1 = vec![("image".to_owned(), image)];
    let mut twice = batches[3..].to_vec();
    twice[4].0 = twice[1].0;
    let plan = BatchPlan {
        samples: 100,
        batch: 1,
    };
    for threads in [1, 3].map(|n| NonZeroUsize::new(n).unwrap()) {
        let mut o = observing(&model);
        o.observe_on(threads, batches[..3].to_vec()).unwrap();
        for bad in [&broken, &twice] {
            o.observe_on(threads, bad.clone()).unwrap_err();
        }
        // As if nothing had happened, the same batches can be observed once they are mended.
        o.observe_on(threads, batches[3..].to_vec()).unwrap();
        let found = o.record(plan).unwrap().to_bytes().unwrap();
        assert!(found == recorded(&model, &batches, None), "{threads}");

        let mut o = observing(&model);
        o.observe_on(threads, broken.clone()).unwrap_err();
        assert_eq!(o.record(plan).unwrap().batches(), 0, "{threads}");
        let mut o = observing(&model);
        o.observe_on(threads, broken.clone()).unwrap_err();
        assert!(matches!(o.finish(), Err(QuantizeError::NoBatches)));
    }
}

#[test]
fn the_converted_model_and_its_sample_are_those_of_one_thread() {
    let data = dataset(9, &[8], 3);
    let model = shared_weight();
    let options = ConvertOptions {
        method: Method::MovingAverage,
        ..ConvertOptions::default()
    };
    let converted = |calibrated: quaver::Calibrated| {
        assert_eq!(calibrated.batches(), 5);
        let converted = calibrated.convert(&options).unwrap();
        converted.checked_bytes().unwrap()
    };
    let one = converted(observing(&model).calibrate(data.batches(2)).unwrap());
    for threads in [1, 2, 3] {
        let threads = NonZeroUsize::new(threads).unwrap();
        let several = observing(&model).calibrate_on(threads, data.batches(2));
        assert_eq!(converted(several.unwrap()), one, "{threads}");
        let chosen = observing(&model).calibrate(data.batches(2)).unwrap();
        assert_eq!(converted(chosen.with_threads(threads)), one, "{threads}");
    }
    let none = observing(&model).calibrate_on(NonZeroUsize::MIN, []);
    assert!(matches!(none, Err(QuantizeError::NoBatches)));
}

/// Whatever comes first in time, the error is that of the first batch that has one.
#[test]
fn the_first_failure_in_the_order_of_the_batches_is_reported() {
    let model = digits_model();
    let mut broken = batches(12);
    let bad = |value: f32| {
        let image = Tensor::new(&[1, 1, 28, 28], vec![value; 28 * 28]).unwrap();
        vec![("image".to_owned(), image)]
    };
    // The first takes a whole run to fail, those after it fail at once.
    broken[6].1 = bad(f32::NAN);
    broken[7].1 = vec![("other".to_owned(), bad(0.0)[0].1.clone())];
    broken[8].1 = bad(f32::INFINITY);
    for threads in [1, 2, 3, 8] {
        for _ in 0..4 {
            let threads = NonZeroUsize::new(threads).unwrap();
            let error = observing(&model)
                .observe_on(threads, broken.clone())
                .unwrap_err();
            assert!(error.to_string().contains("NaN"), "{threads}: {error}");
        }
    }
    // A number that is there twice, or was observed before, is refused whoever takes it.
    let mut twice = batches(4);
    twice[3].0 = twice[1].0;
    let index = twice[1].0;
    for threads in [1, 3] {
        let threads = NonZeroUsize::new(threads).unwrap();
        let refused = |o: &mut Observing, batches| {
            let error = o.observe_on(threads, batches).unwrap_err();
            assert!(
                matches!(error, QuantizeError::Overlap { batch } if batch == index),
                "{error}"
            );
        };
        refused(&mut observing(&model), twice.clone());
        let mut o = observing(&model);
        o.observe_at(index, &twice[1].1).unwrap();
        refused(&mut o, twice[..3].to_vec());
    }
}
