//! The tier that runs everywhere: plain Rust.
//!
//! The tile keeps its sums in a local array so that the compiler may hold them in whatever vector
//! registers the compile target guarantees. Exact: products of a byte widened to i16 with an i8,
//! summed in i32.

use crate::Lhs;
use crate::isa::{Task, Tier};
use crate::kernel::{AccTile, LhsTile, Microkernel, RhsPanel, check_tile};

/// The proof that plain Rust runs.
#[derive(Clone, Copy)]
pub(crate) struct Scalar(());

impl Scalar {
    pub(crate) const NEW: Scalar = Scalar(());
}

impl Tier for Scalar {
    type Int8 = Scalar;

    fn detect() -> Option<Self> {
        Some(Scalar::NEW)
    }

    fn int8(self) -> Scalar {
        self
    }

    #[inline(always)]
    fn enter<K: Task>(self, task: K) -> K::Output {
        task.run(self)
    }
}

impl Microkernel for Scalar {
    const ID: &'static str = "scalar/i8/1x8";
    const KG: usize = 1;
    const UNIT: usize = 8;
    const NR: usize = 8;
    const ROWS: &'static [usize] = &[4];
    const SIGNED_LHS_SHIFT: i32 = 0;
    const SHIFTS: bool = false;
    type Lhs = i16;
    type Rhs = i16;

    #[inline(always)]
    fn lhs<A: Lhs>(a: A) -> i16 {
        // Exact: A is a byte.
        a.to_i32() as i16
    }

    #[inline(always)]
    fn rhs(b: i8) -> i16 {
        i16::from(b)
    }

    #[inline]
    fn accumulate(
        self,
        a: LhsTile<'_, i16>,
        b: RhsPanel<'_, i16>,
        init: Option<&[i32]>,
        out: &mut AccTile<'_>,
    ) {
        check_tile::<Scalar>(&a, &b, init, out);
        match a.rows() {
            4 => tile::<4>(a, b, init, out),
            3 => tile::<3>(a, b, init, out),
            2 => tile::<2>(a, b, init, out),
            _ => tile::<1>(a, b, init, out),
        }
    }
}

#[inline(always)]
fn tile<const R: usize>(
    a: LhsTile<'_, i16>,
    b: RhsPanel<'_, i16>,
    init: Option<&[i32]>,
    out: &mut AccTile<'_>,
) {
    const N: usize = Scalar::NR;
    let rows: [&[i16]; R] = core::array::from_fn(|r| a.row(r));
    let mut acc = [[0i32; N]; R];
    for (r, acc) in acc.iter_mut().enumerate() {
        acc.copy_from_slice(&init.unwrap_or(&*out.row_mut(r))[..N]);
    }
    for (k, b) in b.data().as_chunks::<N>().0.iter().enumerate() {
        for (acc, row) in acc.iter_mut().zip(&rows) {
            let a = i32::from(row[k]);
            for (acc, &b) in acc.iter_mut().zip(b) {
                *acc = acc.wrapping_add(a * i32::from(b));
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        out.row_mut(r)[..N].copy_from_slice(acc);
    }
}
