//! The one loop nest of integer products, generic over kernel, operand and output.
//!
//! ```text
//! for a block of rows of A        stays in L2; copied where the kernel cannot read it in place
//!   for a panel of B              streams from L2, L3 or memory, once a block
//!     for a block in K            nearly always one: the sums stay in registers
//!       for a tile of rows        the kernel, then the epilogue while its sums are in L1
//! ```
//!
//! The sums start at `bias − (shift + Z_a) · colsum(B)`, so a zero point of A, the shift and the
//! bias cost nothing. What depends on the row (`Z_b`, or `Z_a` per row) is added to the tile
//! before it is stored.

use core::any::TypeId;
use core::marker::PhantomData;
use core::ops::Range;

use crate::isa::{Task, Tier};
use crate::kernel::{AccTile, LhsTile, Microkernel, RhsPanel, Scaling, TileMut, lhs_shift};
use crate::pack::Panels;
use crate::plan::{COLUMN_ARRAYS, Plan};
use crate::store::{Store, store_tile};
use crate::workspace::Line;
use crate::{
    Epilogue, KernelError, Lhs, MatMut, MatRef, PackedB, Scale, Threads, Workspace, ZeroPoint,
    ZeroPoints,
};

/// The operands of a call, all shapes checked against each other.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a, A> {
    pub(crate) a: MatRef<'a, A>,
    pub(crate) b: &'a PackedB,
    pub(crate) zp: ZeroPoints<'a>,
    pub(crate) epilogue: Epilogue<'a>,
}

impl<A: Lhs> Operands<'_, A> {
    /// Whether sums need a term that depends on the row.
    fn row_terms(&self) -> bool {
        matches!(self.zp.a, ZeroPoint::Vector(_))
            || match self.zp.b {
                ZeroPoint::Tensor(z) => z != 0,
                ZeroPoint::Vector(z) => z.iter().any(|&z| z != 0),
            }
    }
}

/// The output, to be written by several threads at disjoint places.
#[derive(Clone, Copy)]
struct Out<'a, E> {
    ptr: *mut E,
    stride: usize,
    rows: usize,
    cols: usize,
    life: PhantomData<&'a mut [E]>,
}

// SAFETY: an `Out` is an exclusively borrowed matrix; threads use it at disjoint places only
// (`Out::rows_of` and `Out::tile` demand it), and its elements may be sent to them.
unsafe impl<E: Send> Send for Out<'_, E> {}
// SAFETY: as above; every access through a shared `Out` is an unsafe one that demands disjointness.
unsafe impl<E: Send> Sync for Out<'_, E> {}

impl<'a, E> Out<'a, E> {
    fn new(mut m: MatMut<'a, E>) -> Self {
        let (rows, cols, stride) = (m.rows(), m.cols(), m.row_stride());
        Out {
            ptr: m.as_mut_ptr(),
            stride,
            rows,
            cols,
            life: PhantomData,
        }
    }

    /// The part in `cols` of every row in `rows`.
    ///
    /// # Safety
    ///
    /// No other reference to these elements is in use.
    #[inline(always)]
    unsafe fn rows_of(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
    ) -> impl Iterator<Item = &'a mut [E]> + use<'a, E> {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        assert!(cols.start <= cols.end && cols.end <= self.cols);
        let (ptr, stride, width) = (self.ptr, self.stride, cols.len());
        rows.map(move |i| {
            // SAFETY: inside the matrix, which `MatMut` checked against its slice; exclusive
            // because the matrix was, rows do not overlap, and the caller keeps to its own part.
            unsafe { core::slice::from_raw_parts_mut(ptr.add(i * stride + cols.start), width) }
        })
    }

    /// A part of the matrix as a tile.
    ///
    /// # Safety
    ///
    /// No other reference to these elements is in use.
    #[inline(always)]
    unsafe fn tile(&self, rows: Range<usize>, cols: Range<usize>) -> TileMut<'a, E> {
        assert!(rows.start < rows.end && rows.end <= self.rows);
        assert!(cols.start < cols.end && cols.end <= self.cols);
        // SAFETY: inside the matrix, as in `rows_of`.
        unsafe {
            let first = self.ptr.add(rows.start * self.stride + cols.start);
            TileMut::from_raw(first, self.stride, rows.len(), cols.len())
        }
    }
}

/// Per-column data, each array padded to whole chunks and one more.
struct Columns<'a> {
    /// What the sums start at.
    init: &'a [i32],
    scale: &'a [f32],
    bias: Option<&'a [f32]>,
    /// Zero points of B.
    zb: &'a [i32],
}

/// Computes `out = epilogue((A − Z_a) · (B − Z_b))`.
pub(crate) fn run<T: Tier, A: Lhs, S: Store>(
    tier: T,
    operands: Operands<'_, A>,
    store: S,
    out: MatMut<'_, S::Elem>,
    ws: &mut Workspace,
    threads: Threads,
) -> Result<(), KernelError> {
    let (m, n, k) = (operands.a.rows(), operands.b.n(), operands.b.k());
    let packed = operands.b.elements::<T::Int8>()?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let plan = Plan::new::<T::Int8>(m, n, k, threads.count());
    let (columns, shares) = ws.lines(plan.total_lines()).split_at_mut(plan.column_lines);
    let columns = tier.enter(SetColumns::<A, T::Int8> {
        scaled: !S::SUMS,
        operands: &operands,
        plan: &plan,
        mem: columns,
        kernel: PhantomData,
    });
    let out = Out::new(out);
    threads.for_each(plan.shares(), shares, plan.share_lines, &|index, mem| {
        let (rows, panels) = plan.share::<T::Int8>(index);
        // Shares are disjoint: no two have both a row and a panel in common.
        tier.enter(Share {
            plan: &plan,
            operands: &operands,
            packed,
            columns: &columns,
            store,
            out,
            rows,
            panels,
            mem,
        });
    });
    Ok(())
}

/// Fills the per-column arrays.
struct SetColumns<'a, 'm, A, K> {
    /// Whether the output needs scales.
    scaled: bool,
    operands: &'a Operands<'a, A>,
    plan: &'a Plan,
    mem: &'m mut [Line],
    kernel: PhantomData<K>,
}

impl<'m, A: Lhs, K: Microkernel> Task for SetColumns<'_, 'm, A, K> {
    type Output = Columns<'m>;

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) -> Columns<'m> {
        let Operands {
            b, zp, epilogue, ..
        } = self.operands;
        let n = self.plan.n;
        let words: &mut [i32] = bytemuck::cast_slice_mut(self.mem);
        debug_assert!(words.len() >= COLUMN_ARRAYS * self.plan.columns);
        let (init, words) = words.split_at_mut(self.plan.columns);
        let (zb, words) = words.split_at_mut(self.plan.columns);
        let (scale, words) = words.split_at_mut(self.plan.columns);
        let bias = &mut words[..self.plan.columns];

        // Everything is modulo 2^32: only the finished sums are known to fit.
        let tensor = match zp.a {
            ZeroPoint::Tensor(z) => z,
            ZeroPoint::Vector(_) => 0,
        };
        let factor = lhs_shift::<K, A>().wrapping_add(tensor).wrapping_neg();
        let sums = b.padded_col_sums();
        for (init, sum) in init.iter_mut().zip(sums) {
            *init = sum.wrapping_mul(factor);
        }
        if let Some(bias) = epilogue.bias {
            for (init, bias) in init.iter_mut().zip(bias) {
                *init = init.wrapping_add(*bias);
            }
        }
        if self.operands.row_terms() {
            match zp.b {
                ZeroPoint::Tensor(z) => zb[..n].fill(z),
                ZeroPoint::Vector(z) => zb[..n].copy_from_slice(z),
            }
        }
        let scale: &mut [f32] = bytemuck::cast_slice_mut(scale);
        match epilogue.scale {
            _ if !self.scaled => {}
            Scale::None => scale[..n].fill(1.0),
            Scale::Tensor(s) => scale[..n].fill(s),
            Scale::Channel(s) => scale[..n].copy_from_slice(s),
        }
        let bias: &mut [f32] = bytemuck::cast_slice_mut(bias);
        let bias = epilogue.bias_f32.map(|b| {
            bias[..n].copy_from_slice(b);
            &*bias
        });
        Columns {
            init,
            scale,
            bias,
            zb,
        }
    }
}

/// One share of the output: the loop nest.
struct Share<'a, A, S: Store, R> {
    plan: &'a Plan,
    operands: &'a Operands<'a, A>,
    packed: &'a [R],
    columns: &'a Columns<'a>,
    store: S,
    out: Out<'a, S::Elem>,
    rows: Range<usize>,
    panels: Range<usize>,
    mem: &'a mut [Line],
}

impl<A: Lhs, S: Store, R: bytemuck::Pod + Send + Sync> Task for Share<'_, A, S, R> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, tier: T) {
        // `packed` was taken from the weights for this very kernel, so the cast keeps the type.
        let packed: &[<T::Int8 as Microkernel>::Rhs] = bytemuck::cast_slice(self.packed);
        let plan = self.plan;
        let (lhs, mem) = self.mem.split_at_mut(plan.lhs_lines);
        let (acc, terms) = mem.split_at_mut(plan.acc_lines);
        let (u, v) = terms.split_at_mut(plan.term_lines);
        let mut nest = Nest::<T, T::Int8, A, S> {
            tier,
            kernel: tier.int8(),
            plan,
            operands: self.operands,
            packed,
            columns: self.columns,
            store: self.store,
            out: self.out,
            row_terms: self.operands.row_terms(),
            in_place: in_place::<A, T::Int8>(&self.operands.a, plan),
            lhs: bytemuck::cast_slice_mut(lhs),
            acc: bytemuck::cast_slice_mut(acc),
            u: bytemuck::cast_slice_mut(u),
            v: bytemuck::cast_slice_mut(v),
        };
        for start in self.rows.clone().step_by(plan.block_rows) {
            nest.block(
                start..self.rows.end.min(start + plan.block_rows),
                self.panels.clone(),
            );
        }
    }
}

/// A as the caller holds it, if the kernel can read that.
#[inline(always)]
fn in_place<'a, A: Lhs, K: Microkernel>(a: &MatRef<'a, A>, plan: &Plan) -> Option<&'a [K::Lhs]> {
    // Rows apart by a multiple of a large power of two compete for few sets of L1.
    let spread = !a.row_stride().is_multiple_of(512) || a.rows() == 1;
    let same = TypeId::of::<A>() == TypeId::of::<K::Lhs>();
    // The kernel shifts a row once a panel and shares that among the panel's columns; a copy is
    // made once. So the kernel does it for one panel of several units, or where rows are so short
    // that copying each costs more than its bytes.
    let shifts = K::SHIFTS && A::DTYPE.is_signed() && size_of::<A>() == size_of::<K::Lhs>();
    let worth = plan.n <= K::NR && (plan.n > K::UNIT || plan.k <= 64);
    (spread && (same || shifts && worth)).then(|| bytemuck::cast_slice(a.data()))
}

/// What the loops of a share have in common.
struct Nest<'a, T, K: Microkernel, A, S: Store> {
    tier: T,
    kernel: K,
    plan: &'a Plan,
    operands: &'a Operands<'a, A>,
    packed: &'a [K::Rhs],
    columns: &'a Columns<'a>,
    store: S,
    out: Out<'a, S::Elem>,
    row_terms: bool,
    /// A as the caller holds it, if the kernel can read that.
    in_place: Option<&'a [K::Lhs]>,
    /// A copied for the kernel.
    lhs: &'a mut [K::Lhs],
    /// The tile buffer.
    acc: &'a mut [i32],
    /// Row terms: `u` is multiplied with the column sum, `v` with the zero point of the column.
    u: &'a mut [i32],
    v: &'a mut [i32],
}

impl<T: Tier, K: Microkernel, A: Lhs, S: Store> Nest<'_, T, K, A, S> {
    /// Copies rows of A as the kernel reads them, from `k0` on for `depth` with zeros beyond K.
    #[inline(always)]
    fn copy_rows(&mut self, rows: Range<usize>, k0: usize, depth: usize) {
        let (a, stride) = (self.operands.a, self.plan.lhs_stride);
        let count = depth.min(self.plan.k - k0);
        for (i, to) in rows.zip(self.lhs.chunks_exact_mut(stride)) {
            let from = &a.data()[i * a.row_stride() + k0..][..count];
            let (to, pad) = to[..depth].split_at_mut(count);
            for (to, &from) in to.iter_mut().zip(from) {
                *to = K::lhs(from);
            }
            pad.fill(bytemuck::Zeroable::zeroed());
        }
    }

    /// `(u, v)` of every row: what `Z_b`, and a `Z_a` of each row, add to the sums.
    #[inline(always)]
    fn set_row_terms(&mut self, rows: Range<usize>) {
        let Operands { a, zp, .. } = self.operands;
        for (i, (u, v)) in rows.zip(self.u.iter_mut().zip(&mut *self.v)) {
            let row = &a.data()[i * a.row_stride()..][..self.plan.k];
            let sum = self.tier.sum(row);
            let za = zp.a.at(i);
            *u = match zp.a {
                // Already in what the sums start at.
                ZeroPoint::Tensor(_) => 0,
                ZeroPoint::Vector(_) => za.wrapping_neg(),
            };
            // K was checked against i32 by the depth bound.
            *v = (self.plan.k as i32).wrapping_mul(za).wrapping_sub(sum);
        }
    }

    /// A block of rows against all panels of the share.
    #[inline(always)]
    fn block(&mut self, rows: Range<usize>, panels: Range<usize>) {
        if self.row_terms {
            self.set_row_terms(rows.clone());
        }
        if self.in_place.is_none() {
            self.copy_rows(rows.clone(), 0, self.plan.depth);
        }
        for p in panels {
            let mut k0 = 0;
            loop {
                let depth = self.plan.block_depth.min(self.plan.depth - k0);
                self.panel(rows.clone(), p, k0, depth);
                k0 += depth;
                if k0 >= self.plan.depth {
                    break;
                }
            }
        }
    }

    /// A block of rows against a panel of B, over one block in K.
    #[inline(always)]
    fn panel(&mut self, rows: Range<usize>, p: usize, k0: usize, depth: usize) {
        let panels = Panels::new::<K>(self.plan.n);
        let (cols, width) = (panels.cols(p), panels.width(p));
        let at = cols.start * self.plan.depth + k0 * width;
        let b = RhsPanel::new(&self.packed[at..][..depth * width], width);
        let init = (k0 == 0).then(|| &self.columns.init[cols.start..][..width]);
        let last = k0 + depth == self.plan.depth;
        // Sums that need nothing more, or nothing that depends on the row, can go to the output
        // without the tile buffer.
        let whole = !self.row_terms && width == cols.len();
        let scaling = Scaling {
            scale: &self.columns.scale[cols.start..],
            bias: self.columns.bias.map(|b| &b[cols.start..]),
        };
        let height = K::ROWS[width / K::UNIT - 1];
        let cut = self.plan.block_depth < self.plan.depth;

        for start in rows.clone().step_by(height) {
            let tile = start..rows.end.min(start + height);
            let count = tile.len();
            let a = match self.in_place {
                // The last group of a row may read on into what follows (B is zero there), but
                // not beyond the slice: such a tile is copied.
                Some(a) => {
                    let stride = self.operands.a.row_stride();
                    let a = &a[tile.start * stride + k0..];
                    if LhsTile::<K::Lhs>::span(count, stride, depth).is_some_and(|n| n <= a.len()) {
                        let shift = lhs_shift::<K, A>() != 0;
                        LhsTile::new(a, count, stride, depth).with_shift(shift)
                    } else {
                        self.copy_rows(tile.clone(), k0, depth);
                        LhsTile::new(self.lhs, count, self.plan.lhs_stride, depth)
                    }
                }
                None => {
                    let stride = self.plan.lhs_stride;
                    let a = &self.lhs[(start - rows.start) * stride + k0..];
                    LhsTile::new(a, count, stride, depth)
                }
            };
            if whole {
                // SAFETY: the tile belongs to this share, and nothing else of it is borrowed.
                let mut out = unsafe { self.out.tile(tile.clone(), cols.clone()) };
                if let Some(sums) = S::as_sums(&mut out) {
                    self.kernel.accumulate(a, b, init, sums);
                    continue;
                }
                if let (Some(init), true) = (init, last)
                    && self
                        .kernel
                        .finish(a, b, init, scaling, &self.store, &mut out)
                {
                    continue;
                }
            }
            let stride = self.plan.acc_stride;
            let at = if cut {
                (start - rows.start) * stride
            } else {
                0
            };
            let acc = &mut self.acc[at..at + count * stride];
            self.kernel
                .accumulate(a, b, init, &mut AccTile::new(acc, stride, count, stride));
            if last {
                self.finish(at, tile, start - rows.start, cols.clone());
            }
        }
    }

    /// Row terms and epilogue of a finished tile.
    #[inline(always)]
    fn finish(&mut self, at: usize, tile: Range<usize>, first: usize, cols: Range<usize>) {
        let (stride, columns) = (self.plan.acc_stride, self.columns);
        let acc = &mut self.acc[at..at + tile.len() * stride];
        if self.row_terms {
            let zp = &self.operands.zp;
            for (r, acc) in acc.chunks_exact_mut(stride).enumerate() {
                let (u, v) = (self.u[first + r], self.v[first + r]);
                if let (ZeroPoint::Tensor(_), ZeroPoint::Tensor(zb)) = (zp.a, zp.b) {
                    let term = zb.wrapping_mul(v);
                    for acc in acc {
                        *acc = acc.wrapping_add(term);
                    }
                    continue;
                }
                let sums = &self.operands.b.padded_col_sums()[cols.clone()];
                let zb = &columns.zb[cols.clone()];
                for ((acc, sum), zb) in acc.iter_mut().zip(sums).zip(zb) {
                    let term = sum.wrapping_mul(u).wrapping_add(zb.wrapping_mul(v));
                    *acc = acc.wrapping_add(term);
                }
            }
        }
        let out = &self.out;
        store_tile(
            &self.store,
            acc,
            stride,
            cols.len(),
            &columns.scale[cols.start..],
            columns.bias.map(|b| &b[cols.start..]),
            // SAFETY: the tile's part of the output belongs to this share alone, and
            // `store_tile` is done with one part before it asks for the next.
            |part| unsafe {
                out.rows_of(tile.clone(), cols.start + part.start..cols.start + part.end)
            },
        );
    }
}
