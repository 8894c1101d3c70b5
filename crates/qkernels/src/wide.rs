//! Products of i16 in i64.
//!
//! A is cut into its high and its low byte, `a = 256 · high + low`: a sum of [`BLOCK`] products
//! of a byte with an i16 fits i32, so the kernel of i16 does both halves, and i64 sums them up.
//! Two passes cost less than multiplying in 64 bits, of which a vector holds four times fewer.

use crate::error::check_shape;
use crate::isa::{Task, Tier};
use crate::kernel::{Init, LhsTile, Microkernel, RhsPanel, TileMut, lhs_place};
use crate::pack::{PackedRef, Panels};
use crate::plan::{lines, part};
use crate::select::{VisitKernel, with_int16_kernel};
use crate::workspace::Line;
use crate::{Arithmetic, KernelError, MatMut, MatRef, Threads, Workspace};

/// Depth of a block in K: 256 products of up to 255 · 32,768 stay below 2^31.
const BLOCK: usize = 256;

/// `out = A · B` of i16, exact in i64 at every depth: for sums that i32 might not hold, which
/// [`gemm`](crate::gemm()) refuses.
///
/// Nothing is allocated once the workspace has been as large.
///
/// # Errors
///
/// [`KernelError::Shape`] when shapes do not fit, [`KernelError::Arithmetic`] unless B was packed
/// from i16.
///
/// ```
/// use qkernels::{gemm_i64, Isa, Layout, MatMut, MatRef, PackedB, Threads, Workspace};
/// let b = PackedB::pack(Isa::detect(), MatRef::new(&[i16::MIN; 3], 3, 1)?, Layout::RowMajor)?;
/// let mut out = [0i64];
/// let a = [i16::MIN; 3];
/// let c = MatMut::new(&mut out, 1, 1)?;
/// gemm_i64(MatRef::new(&a, 1, 3)?, &b, c, &mut Workspace::new(), Threads::Single)?;
/// assert_eq!(out, [3 << 30]);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
pub fn gemm_i64<'b>(
    a: MatRef<'_, i16>,
    b: impl Into<PackedRef<'b>>,
    out: MatMut<'_, i64>,
    ws: &mut Workspace,
    threads: Threads<'_>,
) -> Result<(), KernelError> {
    run(a, b.into(), out, ws, threads)
}

/// Not generic: kernels are compiled here.
fn run(
    a: MatRef<'_, i16>,
    b: PackedRef<'_>,
    out: MatMut<'_, i64>,
    ws: &mut Workspace,
    threads: Threads<'_>,
) -> Result<(), KernelError> {
    if b.arithmetic() != Arithmetic::Int16 {
        return Err(KernelError::Arithmetic {
            what: "b",
            given: b.dtype(),
            arithmetic: Arithmetic::Int16,
        });
    }
    let (m, n, k) = (a.rows(), b.n(), b.k());
    check_shape("a", (m, a.cols()), (m, k))?;
    check_shape("out", (out.rows(), out.cols()), (m, n))?;
    let wide = Wide {
        a,
        b,
        out,
        ws,
        threads,
    };
    with_int16_kernel(b.isa(), wide)
}

struct Wide<'c, 'w> {
    a: MatRef<'c, i16>,
    b: PackedRef<'c>,
    out: MatMut<'c, i64>,
    ws: &'w mut Workspace,
    threads: Threads<'c>,
}

impl VisitKernel for Wide<'_, '_> {
    type Output = Result<(), KernelError>;

    fn visit<K: Microkernel>(self, tier: K::Home) -> Self::Output {
        let Wide {
            a,
            b,
            mut out,
            ws,
            threads,
        } = self;
        let packed = b.elements::<K>()?;
        let (m, n) = (a.rows(), b.n());
        if m == 0 || n == 0 {
            return Ok(());
        }
        let height = height::<K>();
        let lhs_lines = lines(height * BLOCK, size_of::<K::Lhs>());
        let share_lines = 2 * lhs_lines + lines(height * K::NR, size_of::<i32>());
        let shares = threads.count().min(m.div_ceil(height));
        let mem = ws.lines(share_lines.saturating_mul(shares))?;
        let (stride, first) = (out.row_stride(), Rows(out.as_mut_ptr()));
        threads.for_each(shares, mem, share_lines, &|share, mem| {
            let rows = part(m, shares, share);
            let first = &first;
            // SAFETY: the rows of a share are its own, and lie inside the matrix.
            let out = unsafe { first.from(rows.start * stride, (rows.len() - 1) * stride + n) };
            tier.enter(Share::<K> {
                kernel: K::from(tier),
                a,
                first: rows.start,
                rows: rows.len(),
                packed,
                n,
                out,
                stride,
                mem,
            });
        });
        Ok(())
    }
}

/// Rows of the output, to be shared out.
struct Rows(*mut i64);

// SAFETY: the pointer comes from an exclusively borrowed matrix, and every share takes rows of its
// own.
unsafe impl Sync for Rows {}

impl Rows {
    /// `len` elements from `start` on.
    ///
    /// # Safety
    ///
    /// They are inside the matrix, and no other reference to them is in use.
    #[allow(clippy::mut_from_ref, reason = "that is what the caller promises")]
    unsafe fn from(&self, start: usize, len: usize) -> &mut [i64] {
        // SAFETY: as promised by the caller.
        unsafe { core::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

struct Share<'s, K: Microkernel> {
    kernel: K,
    a: MatRef<'s, i16>,
    /// First row of A, and how many.
    first: usize,
    rows: usize,
    packed: &'s [K::Rhs],
    n: usize,
    /// The output's rows of this share.
    out: &'s mut [i64],
    stride: usize,
    mem: &'s mut [Line],
}

impl<K: Microkernel> Task for Share<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) {
        const { assert!(K::NR <= MAX_NR) };
        let (k, n) = (self.a.cols(), self.n);
        let depth = k.next_multiple_of(K::K_UNIT);
        let height = height::<K>();
        let (lhs, acc) = self
            .mem
            .split_at_mut(2 * lines(height * BLOCK, size_of::<K::Lhs>()));
        let lhs: &mut [K::Lhs] = bytemuck::cast_slice_mut(lhs);
        let acc: &mut [K::Acc] = bytemuck::cast_slice_mut(acc);
        let (high, low) = lhs.split_at_mut(lhs.len() / 2);
        let zeros = [K::Acc::default(); MAX_NR];
        let panels = Panels::new::<K>(n);
        for start in (0..self.rows).step_by(height) {
            let rows = height.min(self.rows - start);
            for r in 0..rows {
                self.out[(start + r) * self.stride..][..n].fill(0);
            }
            for k0 in (0..depth).step_by(BLOCK) {
                let len = BLOCK.min(depth - k0);
                for r in 0..rows {
                    let from = self.a.elements(self.first + start + r).skip(k0);
                    // What is beyond K is zero.
                    let from = from.take(BLOCK).chain(core::iter::repeat(0)).take(len);
                    for (i, a) in from.enumerate() {
                        high[lhs_place::<K>(r, i, BLOCK)] = K::lhs(a >> 8);
                        low[lhs_place::<K>(r, i, BLOCK)] = K::lhs(a & 0xff);
                    }
                }
                for p in 0..panels.count() {
                    let (cols, width) = (panels.cols(p), panels.width(p));
                    let b = &self.packed[cols.start * depth + k0 * width..][..len * width];
                    for (half, shift) in [(&*high, 8), (&*low, 0)] {
                        let init = Init {
                            start: &zeros[..width],
                            stride: 0,
                            rows: None,
                            products: None,
                        };
                        self.kernel.accumulate(
                            LhsTile::copied::<K>(half, rows, BLOCK, len),
                            RhsPanel::new(b, width),
                            Some(init),
                            &mut TileMut::new(acc, K::NR, rows, K::NR),
                        );
                        for (r, acc) in acc.chunks(K::NR).take(rows).enumerate() {
                            let out = &mut self.out[(start + r) * self.stride..];
                            for (out, &sum) in out[cols.clone()].iter_mut().zip(acc) {
                                *out += i64::from(bytemuck::cast::<_, i32>(sum)) << shift;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The most columns that a panel of any kernel has.
const MAX_NR: usize = 64;

/// Rows of a tile that every panel of the kernel can have.
const fn height<K: Microkernel>() -> usize {
    K::ROWS[K::ROWS.len() - 1]
}
