//! Products of i16 summed in i64, weights packed ahead.

use std::hint::black_box;
use std::sync::Arc;

use qkernels::{Isa, KernelError, Layout, MatMut, MatRef, PackedB, Threads, Workspace, gemm_i64};

use super::{Field, Job, OURS, check_answers};
use crate::BenchError;
use crate::data::Source;
use crate::measure::{Cell, Contender, Work};
use crate::shapes::Shape;

/// The name of the operation.
const OP: &str = "gemm_i64";

/// A job for each shape.
#[must_use]
pub fn jobs(shapes: &[Shape]) -> Vec<Job> {
    shapes
        .iter()
        .map(|&shape| Job {
            label: format!("{OP} {shape}"),
            build: Box::new(move |field| cell(shape, field)),
        })
        .collect()
}

/// Full-range words.
fn i16s(source: &mut Source, len: usize) -> Vec<i16> {
    let bytes = source.u8s(2 * len);
    let (pairs, _) = bytes.as_chunks();
    pairs.iter().map(|&pair| i16::from_le_bytes(pair)).collect()
}

fn cell(shape: Shape, field: &Field) -> Result<Cell, BenchError> {
    let Shape { m, k, n } = shape;
    let failed = |isa: Isa| {
        move |source| BenchError::Kernel {
            op: OP,
            shape: shape.to_string(),
            isa: isa.name(),
            source,
        }
    };
    let mut source = Source::new(0x1de);
    let a = Arc::new(i16s(&mut source, m * k));
    let b = i16s(&mut source, k * n);
    let pack = |isa| PackedB::pack(isa, MatRef::new(&b, k, n)?, Layout::RowMajor);
    // A row of the result depends on one row of A alone.
    let rows: Vec<usize> = super::gemm::scattered(m).collect();
    let some: Vec<i16> = rows
        .iter()
        .flat_map(|row| &a[row * k..(row + 1) * k])
        .copied()
        .collect();
    let reference = || -> Result<Vec<i64>, KernelError> {
        let mut out = vec![0; rows.len() * n];
        let packed = pack(Isa::SCALAR)?;
        let mut ws = Workspace::new();
        multiply(&some, shape, &packed, &mut out, &mut ws, Threads::Single)?;
        Ok(out)
    };
    let expected = reference().map_err(failed(Isa::SCALAR))?;
    let mut contenders = Vec::new();
    for &isa in &field.isas {
        let packed = Arc::new(pack(isa).map_err(failed(isa))?);
        for team in &field.teams {
            let (a, packed) = (Arc::clone(&a), Arc::clone(&packed));
            let (mut out, mut ws, threads) = (vec![0; m * n], Workspace::new(), team.policy());
            team.run(|| multiply(&a, shape, &packed, &mut out, &mut ws, threads))
                .map_err(failed(isa))?;
            let found: Vec<i64> = rows
                .iter()
                .flat_map(|row| &out[row * n..(row + 1) * n])
                .copied()
                .collect();
            check_answers(OP, &shape.to_string(), isa, &found, &expected)?;
            contenders.push(Contender {
                library: OURS,
                types: "i16·i16→i64".to_owned(),
                isa: isa.name(),
                team: Arc::clone(team),
                // There is no loop of these instructions to measure against.
                demands: Vec::new(),
                repeats: 1,
                agreement: None,
                detail: None,
                call: Box::new(move || {
                    let done = multiply(&a, shape, &packed, &mut out, &mut ws, threads);
                    debug_assert!(done.is_ok(), "the same call has succeeded before");
                    let _ = black_box(done);
                }),
            });
        }
    }
    Ok(Cell {
        op: OP,
        shape: (m, k, n),
        batch: 1,
        data: "hot".to_owned(),
        work: Work::Ops(shape.ops()),
        contenders,
    })
}

/// As many rows as `a` has.
fn multiply(
    a: &[i16],
    Shape { k, n, .. }: Shape,
    b: &PackedB,
    out: &mut [i64],
    ws: &mut Workspace,
    threads: Threads<'static>,
) -> Result<(), KernelError> {
    let m = a.len() / k.max(1);
    let a = MatRef::new(a, m, k)?;
    gemm_i64(a, b, MatMut::new(out, m, n)?, ws, threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_runs_and_is_right() {
        // Depths around the 256 that are summed before i64.
        let shapes = crate::shapes::parse("1x1x1,3x7x5,40x257x17,9x512x70").unwrap();
        crate::ops::tests::run_all(jobs(&shapes));
    }
}
