//! What calibration costs on this machine: `cargo run --release -p qcalib --example figures`.
//!
//! Observers in GB/s of f32 read, estimators in milliseconds a tensor of 2^22 values. Each figure
//! is the best of several runs. Add `--features qkernels/avx2,qkernels/avx512` for the vector
//! kernels, which the crates above this one turn on.

use qcalib::{Method, ObserverKind, Policy, Target, ranges};
use qformat::{DType, Granularity, Scheme};
use std::hint::black_box;
use std::time::Instant;

/// Values that look like activations: a normal distribution with heavier tails, or its positive
/// part.
fn activations(n: usize, relu: bool) -> Vec<f32> {
    let mut s = 0x2545_f491_4f6c_dd1du64;
    let mut uniform = || {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        (s >> 40) as f32 / 16_777_216.0
    };
    (0..n)
        .map(|_| {
            let sum: f32 = (0..6).map(|_| uniform()).sum::<f32>() - 3.0;
            let x = if uniform() < 0.001 { sum * 8.0 } else { sum };
            if relu { x.max(0.0) } else { x }
        })
        .collect()
}

fn best_of(runs: usize, mut f: impl FnMut()) -> f64 {
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..runs)
        .map(|_| time(&mut f))
        .fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), qcalib::CalibError> {
    let n = 1 << 22;
    let shape = [n / 4096, 64, 64];
    for relu in [false, true] {
        let x = activations(n, relu);
        println!("{}", if relu { "after a ReLU" } else { "both signs" });
        for kind in ObserverKind::ALL {
            for granularity in [
                Granularity::PerTensor,
                Granularity::PerChannel { axis: 1 },
                Granularity::PerChannel { axis: 2 },
            ] {
                let mut o = kind.observer(granularity, Policy::Error)?;
                let mut i = 0;
                let seconds = best_of(5, || {
                    i += 1;
                    black_box(&mut o)
                        .observe(i, black_box(&x), &shape)
                        .expect("finite");
                });
                let rate = 4e-9 * n as f64 / seconds;
                let granularity = granularity.to_string();
                println!("  {kind:<15} {granularity:<24} {rate:7.2} GB/s");
            }
        }
        let kinds = Method::observers_for(&Method::ALL);
        let mut observers = Vec::new();
        for kind in kinds {
            let mut o = kind.observer(Granularity::PerTensor, Policy::Error)?;
            o.observe(0, &x, &shape)?;
            observers.push(o);
        }
        for scheme in [Scheme::Affine, Scheme::Symmetric] {
            let target = Target::new(DType::I8, scheme)?;
            for method in Method::ALL {
                let estimator = method.estimator()?;
                let Some(o) = observers.iter().find(|o| method.served_by(o.kind())) else {
                    continue;
                };
                let mut found = None;
                let seconds = best_of(9, || {
                    found = black_box(ranges(&**o, &*estimator, target)).ok();
                });
                let r = found.expect("finite data")[0];
                println!(
                    "  {scheme:<10} {:<18} {:8.3} ms   [{}, {}]",
                    method.to_string(),
                    seconds * 1e3,
                    r.min,
                    r.max
                );
            }
        }
    }
    Ok(())
}
