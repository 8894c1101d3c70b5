//! Choosing a range from a record: every method by itself, and all of them together.

use std::hint::black_box;
use std::sync::Arc;

use qformat::{DType, Granularity, Scheme};
use qkernels::Isa;
use quaver::Method;
use quaver::calib::{CalibError, Estimator, Observer, Policy, Target, ranges};

use crate::BenchError;
use crate::data::Source;
use crate::machine::Team;
use crate::measure::{Cell, Contender, Work};
use crate::ops::{Field, Job, OURS};

/// The name of the operation.
pub const OP: &str = "estimate";

/// Bins on each side of zero.
const BINS: usize = 2048;

/// Values recorded, in so many batches.
const VALUES: usize = 1 << 20;
const BATCHES: u64 = 64;

/// What is recorded, and the quantizer that a range is chosen for.
#[derive(Debug, Clone, Copy)]
struct Case {
    relu: bool,
    dtype: DType,
    scheme: Scheme,
}

const CASES: [Case; 3] = [
    Case {
        relu: false,
        dtype: DType::I8,
        scheme: Scheme::Symmetric,
    },
    Case {
        relu: false,
        dtype: DType::U8,
        scheme: Scheme::Affine,
    },
    Case {
        relu: true,
        dtype: DType::U8,
        scheme: Scheme::Affine,
    },
];

impl Case {
    fn name(self) -> String {
        let values = if self.relu { "relu" } else { "both signs" };
        format!("{values} {}", self.dtype)
    }
}

/// A job for each kind of values and quantizer.
#[must_use]
pub fn jobs() -> Vec<Job> {
    CASES
        .map(|case| Job {
            label: format!("{OP} {}", case.name()),
            build: Box::new(move |_: &Field| cell(case)),
        })
        .into()
}

/// The observers that all methods need, fed with the same values.
fn observers(case: Case) -> Result<Vec<Box<dyn Observer>>, CalibError> {
    let mut values = Source::new(0xe5).f32s(VALUES);
    for (index, x) in values.iter_mut().enumerate() {
        // One in a thousand is an outlier, so that there is something to clip.
        *x *= if index.is_multiple_of(1000) { 4.0 } else { 1.0 };
        if case.relu {
            *x = x.max(0.0);
        }
    }
    let mut observers = Vec::new();
    for kind in Method::observers_for(&Method::ALL) {
        let mut observer = kind.observer(Granularity::PerTensor, Policy::Error)?;
        let batches = values.chunks(VALUES / BATCHES as usize);
        for (index, batch) in (0..BATCHES).zip(batches) {
            observer.observe(index, batch, &[batch.len()])?;
        }
        observers.push(observer);
    }
    Ok(observers)
}

fn cell(case: Case) -> Result<Cell, BenchError> {
    let team = Arc::new(Team::new(1)?);
    let contender = |types, call| Contender {
        library: OURS,
        types,
        isa: Isa::detect().name(),
        team: Arc::clone(&team),
        demands: Vec::new(),
        repeats: 1,
        agreement: None,
        detail: None,
        call,
    };
    let target = Target::new(case.dtype, case.scheme).map_err(CalibError::from)?;
    let observers = Arc::new(observers(case)?);
    let mut contenders = Vec::new();
    for method in Method::ALL {
        let call = choose(&observers, &[method], target)?;
        contenders.push(contender(method.to_string(), call));
    }
    let call = choose(&observers, &Method::ALL, target)?;
    contenders.push(contender("all methods".to_owned(), call));
    Ok(Cell {
        op: OP,
        shape: (1, 1, BINS),
        batch: 1,
        data: case.name(),
        work: Work::Calls,
        contenders,
    })
}

/// A call that chooses a range by each of the methods; it has been made once.
fn choose(
    observers: &Arc<Vec<Box<dyn Observer>>>,
    methods: &[Method],
    target: Target,
) -> Result<Box<dyn FnMut() + Send>, CalibError> {
    let mut choices: Vec<(usize, Box<dyn Estimator>)> = Vec::new();
    for method in methods {
        // Of the observers for all methods some serves each.
        let serving = observers
            .iter()
            .position(|o| method.served_by(o.kind()))
            .unwrap_or(0);
        choices.push((serving, method.estimator()?));
    }
    for (serving, estimator) in &choices {
        ranges(&*observers[*serving], &**estimator, target)?;
    }
    let observers = Arc::clone(observers);
    Ok(Box::new(move || {
        for (serving, estimator) in &choices {
            let chosen = ranges(&*observers[*serving], &**estimator, target);
            debug_assert!(chosen.is_ok(), "the same call has succeeded before");
            let _ = black_box(chosen);
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_runs() {
        crate::ops::tests::run_all(jobs());
    }

    #[test]
    fn the_histogram_has_as_many_bins_as_the_rows_say() {
        for case in CASES {
            let observers = observers(case).unwrap();
            let histogram = observers
                .iter()
                .find_map(|o| o.record(0).unwrap().histogram)
                .unwrap();
            let used = histogram.positive().len();
            assert!(used > BINS / 2 && used <= BINS, "{case:?}: {used}");
            assert_eq!(histogram.negative().is_empty(), case.relu);
        }
    }
}
