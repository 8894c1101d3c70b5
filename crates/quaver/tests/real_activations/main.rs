//! Every method of the list on the activations of a trained network, each against a slow reference
//! that is computed from the values themselves.
//!
//! Drawn data has smooth tails. What a network produces has none of that: half of the values after
//! a rectifier are exact zeros, a channel's bias over an empty background recurs a thousand times,
//! and the ends are a handful of values. So the digits model is run on its calibration digits, and
//! every float value on the way is recorded: 16 tensors, some of one sign and some of both.

mod activation;
mod bins;
mod error;
mod formulas;

use std::panic::{AssertUnwindSafe, catch_unwind};

use activation::{Activation, observed};
use qcalib::estimators::{Percentile, Tails};
use qcalib::{Method, Target, ValueRange, ranges};
use qformat::{DType, Scheme};

/// The range that a method chooses for a tensor.
fn chosen(a: &Activation, method: Method, target: Target) -> ValueRange {
    let estimator = method.estimator().unwrap();
    ranges(a.record_for(method), &*estimator, target).unwrap()[0]
}

/// Compares a range for one tensor with the reference of its method.
fn check(a: &Activation, method: Method, target: Target, chosen: ValueRange) {
    let place = format!("{method} of {} for {target:?}: {chosen:?}", a.name);
    match method {
        Method::MinMax => equal(chosen, a.ends(), &place),
        Method::MovingAverage => formulas::near(chosen, formulas::moving_average(a, 0.01), &place),
        Method::Entropy => bins::check_entropy(a, chosen, false, target, &place),
        Method::EntropyAll => bins::check_entropy(a, chosen, true, target, &place),
        Method::Mse => error::check(a, chosen, target, &place),
        Method::Percentile(p) => bins::check_percentile(a, chosen, p, Tails::Both, target, &place),
        Method::AciqLaplace => formulas::near(chosen, formulas::laplace(a, target), &place),
        Method::AciqGauss => formulas::near(chosen, formulas::gauss(a, target), &place),
        Method::MeanStd(k) => formulas::near(chosen, formulas::mean_std(a, k), &place),
        Method::Lsq => formulas::near(chosen, formulas::lsq(a, target), &place),
        other => panic!("{other} has no reference: write one here"),
    }
}

fn equal(chosen: ValueRange, (min, max): (f32, f32), place: &str) {
    assert!(
        chosen.min == min && chosen.max == max,
        "{place}, but the ends are {min} and {max}"
    );
}

/// All methods of the list, and settings other than the defaults: at 99.9 % and 99 % whole bins of
/// these tensors may go, at 99.999 % two or three values of the largest.
fn methods() -> impl Iterator<Item = Method> {
    Method::ALL.into_iter().chain([
        Method::Percentile(99.9),
        Method::Percentile(99.0),
        Method::MeanStd(2.0),
    ])
}

fn check_all(dtype: DType, scheme: Scheme) {
    let target = Target::new(dtype, scheme).unwrap();
    for a in observed() {
        for method in methods() {
            check(a, method, target, chosen(a, method, target));
        }
    }
}

#[test]
fn every_method_is_its_reference_for_symmetric_i8() {
    check_all(DType::I8, Scheme::Symmetric);
}

#[test]
fn every_method_is_its_reference_for_affine_u8() {
    check_all(DType::U8, Scheme::Affine);
}

/// At four bits clipping costs less than rounding: the methods that weigh them differ most here.
#[test]
fn every_method_is_its_reference_for_symmetric_i4() {
    check_all(DType::I4, Scheme::Symmetric);
}

#[test]
fn every_method_is_its_reference_for_affine_u4() {
    check_all(DType::U4, Scheme::Affine);
}

#[test]
fn percentiles_of_one_tail_keep_the_other_end() {
    let target = Target::new(DType::U8, Scheme::Affine).unwrap();
    for a in observed() {
        for percent in [99.999, 99.9, 99.0] {
            for tails in [Tails::Upper, Tails::Lower] {
                let estimator = Percentile::new(percent).unwrap().with_tails(tails);
                let record = a.record_for(Method::Percentile(percent));
                let chosen = ranges(record, &estimator, target).unwrap()[0];
                let place = format!("{percent} % of {}, {tails:?}: {chosen:?}", a.name);
                bins::check_percentile(a, chosen, percent, tails, target, &place);
            }
        }
    }
}

/// What the search for a pair of ends loses against the best of all pairs: never less than nothing,
/// and nothing where there is one end to choose.
#[test]
fn the_search_for_two_ends_comes_close_to_the_best_pair() {
    for (dtype, most) in [(DType::U8, 0.1), (DType::U4, 0.1)] {
        let target = Target::new(dtype, Scheme::Affine).unwrap();
        for a in observed() {
            let [searched, best] =
                [Method::Entropy, Method::EntropyAll].map(|m| chosen(a, m, target));
            if a.one_sided() {
                assert_eq!(searched, best, "{}", a.name);
                continue;
            }
            let lost = bins::entropy_lost(a, searched, best, target);
            println!("{dtype} {}: {:.2} %", a.name, 100.0 * lost);
            // The divergences themselves are sums of thousands of terms.
            assert!((-1e-9..=most).contains(&lost), "{dtype} {}: {lost}", a.name);
        }
    }
}

/// The references are tight: a range that is a little narrower is refused, by all of them.
#[test]
fn narrower_ranges_are_refused() {
    for (dtype, scheme) in [(DType::I4, Scheme::Symmetric), (DType::U4, Scheme::Affine)] {
        let target = Target::new(dtype, scheme).unwrap();
        for a in observed()
            .iter()
            .filter(|a| ["relu3.out", "conv4.out"].contains(&&*a.name))
        {
            for method in methods() {
                // Near its least the squared error is flat; and bins are whole.
                let share = match method {
                    Method::Mse => 0.8,
                    Method::Entropy | Method::EntropyAll => 0.9,
                    _ => 0.99,
                };
                let right = chosen(a, method, target);
                let off = ValueRange {
                    min: right.min * share,
                    max: right.max * share,
                };
                let outcome = catch_unwind(AssertUnwindSafe(|| check(a, method, target, off)));
                assert!(outcome.is_err(), "{method} of {}: {off:?}", a.name);
            }
        }
    }
}

/// The references compare something: the tensors are those of the model, and methods disagree.
#[test]
fn the_activations_are_those_of_the_network() {
    let names: Vec<&str> = observed().iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names.len(), 16, "{names:?}");
    assert!(
        names.contains(&"image") && names.contains(&"logits"),
        "{names:?}"
    );
    let of_both_signs = observed().iter().filter(|a| a.ends().0 < 0.0).count();
    assert_eq!(of_both_signs, 6, "four convolutions and two products");
    let target = Target::new(DType::U4, Scheme::Affine).unwrap();
    for a in observed().iter().filter(|a| a.ends().0 < 0.0) {
        let mut ends: Vec<f32> = Method::ALL
            .into_iter()
            .map(|m| chosen(a, m, target).max)
            .collect();
        ends.sort_by(f32::total_cmp);
        ends.dedup();
        assert!(ends.len() >= 5, "{}: {ends:?}", a.name);
    }
}
