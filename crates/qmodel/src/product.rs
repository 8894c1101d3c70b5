//! Float matrix products: the one place where the `gemm` crate, whose interface is pointers, is
//! called.
#![allow(unsafe_code)]

use qkernels::Threads;

/// A matrix operand: elements with a step between rows and one between columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operand<'a> {
    data: &'a [f32],
    row_step: usize,
    col_step: usize,
}

impl<'a> Operand<'a> {
    /// Row-major, rows `row_step` apart.
    pub(crate) fn rows(data: &'a [f32], row_step: usize) -> Operand<'a> {
        Operand {
            data,
            row_step,
            col_step: 1,
        }
    }

    /// The transpose of [`rows`](Self::rows).
    pub(crate) fn columns(data: &'a [f32], col_step: usize) -> Operand<'a> {
        Operand {
            data,
            row_step: 1,
            col_step,
        }
    }
}

/// The index behind the last element of a matrix, or `None` where it overflows.
fn end(rows: usize, cols: usize, row_step: usize, col_step: usize) -> Option<usize> {
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    let last_row = (rows - 1).checked_mul(row_step)?;
    let last_col = (cols - 1).checked_mul(col_step)?;
    let end = last_row.checked_add(last_col)?.checked_add(1)?;
    // `gemm` takes steps as isize.
    isize::try_from(end.max(row_step).max(col_step)).ok()?;
    Some(end)
}

/// `out[i, j] = accumulate · out[i, j] + alpha · Σ_k a[i, k] · b[k, j]`; rows of `out` are
/// `out_step` apart. `accumulate` is whether what `out` holds counts.
///
/// # Panics
///
/// When an operand is shorter than the sizes say: sizes come from shapes that are checked against
/// the data, so that would be a mistake in this crate.
#[allow(clippy::too_many_arguments)] // The parts of one equation.
pub(crate) fn multiply(
    (m, k, n): (usize, usize, usize),
    alpha: f32,
    a: Operand<'_>,
    b: Operand<'_>,
    out: &mut [f32],
    out_step: usize,
    accumulate: bool,
    threads: Threads,
) {
    if m == 0 || n == 0 {
        return;
    }
    let fits = |end: Option<usize>, len: usize| end.is_some_and(|e| e <= len);
    assert!(
        fits(end(m, k, a.row_step, a.col_step), a.data.len()),
        "left operand too short"
    );
    assert!(
        fits(end(k, n, b.row_step, b.col_step), b.data.len()),
        "right operand too short"
    );
    assert!(fits(end(m, n, out_step, 1), out.len()), "output too short");
    assert!(n == 1 || m == 1 || out_step >= n, "output rows overlap");
    if k == 0 {
        if !accumulate {
            for row in out.chunks_mut(out_step.max(1)).take(m) {
                row[..n].fill(0.0);
            }
        }
        return;
    }
    let parallelism = match threads {
        // 0: as many as the pool has.
        Threads::Rayon => gemm::Parallelism::Rayon(0),
        _ => gemm::Parallelism::None,
    };
    // The casts are exact: `end` has shown that every step fits in isize.
    // SAFETY: `a`, `b` and `out` are valid for every offset that `gemm` forms, which are
    // i·row_step + j·col_step for i and j below the sizes: the largest was compared with the
    // length of each slice above, and all steps are non-negative. `out` is exclusively borrowed
    // and its elements are initialised floats, so reading it is sound too; rows of `out` do not
    // overlap (out_step ≥ n), so no element is written by two threads. f32 is one of the types
    // that `gemm` does not panic on.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_step as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_step as isize,
            a.row_step as isize,
            b.data.as_ptr(),
            b.col_step as isize,
            b.row_step as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_three_loops_in_every_orientation() {
        let (m, k, n) = (5, 7, 6);
        let a: Vec<f32> = (0..m * k).map(|i| (i % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i % 7) as f32 - 3.0).collect();
        let mut expected = vec![0f32; m * n];
        for i in 0..m {
            for j in 0..n {
                expected[i * n + j] = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
            }
        }
        let at: Vec<f32> = (0..k * m).map(|i| a[i % m * k + i / m]).collect();
        let bt: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        for (a, b) in [
            (Operand::rows(&a, k), Operand::rows(&b, n)),
            (Operand::columns(&at, m), Operand::rows(&b, n)),
            (Operand::rows(&a, k), Operand::columns(&bt, k)),
            (Operand::columns(&at, m), Operand::columns(&bt, k)),
        ] {
            let step = n + 2;
            let mut out = vec![1f32; m * step];
            multiply((m, k, n), 2.0, a, b, &mut out, step, true, Threads::Single);
            for i in 0..m {
                for j in 0..n {
                    assert_eq!(out[i * step + j], 2.0 * expected[i * n + j] + 1.0);
                }
                assert!(i + 1 == m || out[i * step + n] == 1.0);
            }
        }
    }

    #[test]
    fn an_empty_sum_is_zero() {
        let mut out = [7f32; 4];
        let none = Operand::rows(&[], 0);
        multiply(
            (2, 0, 2),
            1.0,
            none,
            Operand::rows(&[], 2),
            &mut out,
            2,
            false,
            Threads::Single,
        );
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "right operand too short")]
    fn a_short_operand_never_reaches_the_pointers() {
        let a = [0f32; 4];
        let mut out = [0f32; 4];
        let b = Operand::rows(&a[..3], 2);
        multiply(
            (2, 2, 2),
            1.0,
            Operand::rows(&a, 2),
            b,
            &mut out,
            2,
            false,
            Threads::Single,
        );
    }
}
