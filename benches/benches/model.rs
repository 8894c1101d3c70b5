//! The digit classifier in each form on every tier, for development:
//! `cargo bench -p quaver-benches --bench model`.
#![allow(
    missing_docs,
    reason = "criterion's macros make functions without documentation"
)]

mod run;

use criterion::{Criterion, criterion_group, criterion_main};
use quaver_benches::ops;

fn model(criterion: &mut Criterion) {
    run::all(criterion, ops::model::jobs(&[1, 32]));
}

criterion_group!(benches, model);
criterion_main!(benches);
