//! Hands the jobs of an operation to criterion: one group a cell, one line a tier.

use criterion::{BenchmarkId, Criterion, Throughput};
use qkernels::Isa;
use quaver_benches::measure::Work;
use quaver_benches::ops::{Field, Job};

/// Times every job on every tier that runs here, on one thread.
pub(crate) fn all(criterion: &mut Criterion, jobs: Vec<Job>) {
    let field =
        Field::new(Isa::available().collect(), &[1], Vec::new()).expect("one thread needs no pool");
    for job in jobs {
        let mut group = criterion.benchmark_group(&job.label);
        match (job.build)(&field) {
            Ok(mut cell) => {
                match cell.work {
                    Work::Ops(ops) => group.throughput(Throughput::Elements(ops as u64)),
                    Work::Bytes(bytes) => group.throughput(Throughput::Bytes(bytes as u64)),
                    Work::Calls => &mut group,
                };
                for contender in &mut cell.contenders {
                    let name = BenchmarkId::new(&contender.types, contender.isa);
                    group.bench_function(name, |bencher| bencher.iter(|| (contender.call)()));
                }
            }
            Err(error) => panic!("{}: {error}", job.label),
        }
        group.finish();
    }
}
