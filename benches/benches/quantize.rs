//! Elementwise work on every tier, for development: `cargo bench -p quaver-benches --bench quantize`.
#![allow(
    missing_docs,
    reason = "criterion's macros make functions without documentation"
)]

mod run;

use criterion::{Criterion, criterion_group, criterion_main};
use quaver_benches::machine::Machine;
use quaver_benches::{ops, sizes};

fn quantize(criterion: &mut Criterion) {
    let sizes = sizes::parse("l2,mem", &Machine::detect()).expect("both are levels of memory");
    run::all(criterion, ops::quantize::jobs(&sizes));
}

criterion_group!(benches, quantize);
criterion_main!(benches);
