//! Matrix products on every tier, for development: `cargo bench -p quaver-benches --bench gemm`.
#![allow(
    missing_docs,
    reason = "criterion's macros make functions without documentation"
)]

mod run;

use criterion::{Criterion, criterion_group, criterion_main};
use quaver_benches::ops::finish::Output;
use quaver_benches::ops::gemm::{Distribution, Types, Wanted, Weights, jobs};
use quaver_benches::shapes;

/// One square, one layer of BERT, one convolution, one row, one that fits no tile.
const SHAPES: &str = "512x512x512,128x768x3072,784x1152x128,1x4096x4096,97x131x203";

fn gemm(criterion: &mut Criterion) {
    run::all(
        criterion,
        jobs(&Wanted {
            shapes: shapes::parse(SHAPES).expect("the shapes above are shapes"),
            types: vec![Types::U8I8, Types::I8I8],
            outputs: vec![Output::Sums, Output::U8],
            weights: vec![Weights::Hot],
            distributions: vec![Distribution::Uniform],
        }),
    );
}

criterion_group!(benches, gemm);
criterion_main!(benches);
