//! Row and column sums of byte matrices: what zero points multiply.

use crate::error::check_len;
use crate::isa::{Task, Tier};
use crate::{Isa, KernelError, Lhs, MatRef};

/// `out[i] = Σ_j m[i, j]`, exact.
///
/// # Errors
///
/// [`KernelError::Length`] unless `out` has one element a row, [`KernelError::Depth`] when a sum
/// could leave i32: beyond 8,421,504 columns of u8, 16,777,215 of i8.
///
/// ```
/// use qkernels::{Isa, MatRef, row_sums};
/// let m = MatRef::new(&[1i8, -2, 3, 4], 2, 2)?;
/// let mut sums = [0; 2];
/// row_sums(Isa::detect(), m, &mut sums)?;
/// assert_eq!(sums, [-1, 7]);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
pub fn row_sums<A: Lhs>(isa: Isa, m: MatRef<'_, A>, out: &mut [i32]) -> Result<(), KernelError> {
    check_len("out", out.len(), m.rows())?;
    check_terms::<A>(m.cols())?;
    // A row of a transposed view is a column in memory.
    if m.is_row_major() {
        isa.enter(Rows { m, out });
    } else {
        let m = m.transposed();
        isa.enter_shared(Columns { m, out });
    }
    Ok(())
}

/// `out[j] = Σ_i m[i, j]`, exact.
///
/// # Errors
///
/// [`KernelError::Length`] unless `out` has one element a column, [`KernelError::Depth`] when a sum
/// could leave i32: beyond 8,421,504 rows of u8, 16,777,215 of i8.
///
/// ```
/// use qkernels::{Isa, MatRef, col_sums};
/// let m = MatRef::new(&[1u8, 2, 255, 4], 2, 2)?;
/// let mut sums = [0; 2];
/// col_sums(Isa::detect(), m, &mut sums)?;
/// assert_eq!(sums, [256, 6]);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
pub fn col_sums<A: Lhs>(isa: Isa, m: MatRef<'_, A>, out: &mut [i32]) -> Result<(), KernelError> {
    check_len("out", out.len(), m.cols())?;
    check_terms::<A>(m.rows())?;
    if m.is_row_major() {
        isa.enter_shared(Columns { m, out });
    } else {
        let m = m.transposed();
        isa.enter(Rows { m, out });
    }
    Ok(())
}

/// `Ok` when so many elements surely add up to an i32.
fn check_terms<A: Lhs>(terms: usize) -> Result<(), KernelError> {
    let largest: u32 = if A::DTYPE.is_signed() { 128 } else { 255 };
    let max = (i32::MAX as u32 / largest) as usize;
    if terms <= max {
        Ok(())
    } else {
        Err(KernelError::Depth {
            depth: terms,
            product: largest.into(),
            max,
        })
    }
}

struct Rows<'a, A> {
    m: MatRef<'a, A>,
    out: &'a mut [i32],
}

impl<A: Lhs> Task for Rows<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, tier: T) {
        for (i, sum) in self.out.iter_mut().enumerate() {
            *sum = self.m.row(i).map_or(0, |row| tier.sum(row));
        }
    }
}

struct Columns<'a, A> {
    m: MatRef<'a, A>,
    out: &'a mut [i32],
}

/// Columns whose sums are kept at once: 2 KiB.
const COLUMNS: usize = 1024;

/// Rows whose bytes add up in 16 bits: 255 · 257 = 2^16 − 1. A multiple of four is easier.
const ROWS: usize = 256;

impl<A: Lhs> Task for Columns<'_, A> {
    type Output = ();

    /// Signed bytes are read as unsigned ones, 128 too high.
    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) {
        let (flip, excess) = if A::DTYPE.is_signed() {
            (0x80u8, 128 * self.m.rows() as i32)
        } else {
            (0, 0)
        };
        let row = |i: usize, at: usize, n: usize| -> &[u8] {
            let row = self.m.row(i).unwrap_or_default();
            bytemuck::cast_slice(&row[at..at + n])
        };
        for (c, out) in self.out.chunks_mut(COLUMNS).enumerate() {
            let (at, n) = (c * COLUMNS, out.len());
            out.fill(0);
            for first in (0..self.m.rows()).step_by(ROWS) {
                let mut sums = [0u16; COLUMNS];
                let sums = &mut sums[..n];
                let end = (first + ROWS).min(self.m.rows());
                let mut i = first;
                while i + 4 <= end {
                    let four = [0, 1, 2, 3].map(|r| row(i + r, at, n));
                    let rows = four[0].iter().zip(four[1]).zip(four[2]).zip(four[3]);
                    for (sum, (((a, b), c), d)) in sums.iter_mut().zip(rows) {
                        let [a, b, c, d] = [a, b, c, d].map(|v| u16::from(v ^ flip));
                        *sum += a + b + c + d;
                    }
                    i += 4;
                }
                for i in i..end {
                    for (sum, v) in sums.iter_mut().zip(row(i, at, n)) {
                        *sum += u16::from(v ^ flip);
                    }
                }
                for (out, &sum) in out.iter_mut().zip(&*sums) {
                    // Modulo 2^32 on the way: at the bound the excess is still in it.
                    *out = out.wrapping_add(i32::from(sum));
                }
            }
            for out in out {
                *out = out.wrapping_sub(excess);
            }
        }
    }
}
