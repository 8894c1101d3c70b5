//! Where a product takes A from, and how a kernel's copy of it is made.

use core::any::TypeId;
use core::ops::Range;

use half::{bf16, f16};
use qformat::DType;

use crate::arch::l1_ways;
use crate::isa::{Task, Tier};
use crate::kernel::{Acc, MAX_LHS_ROWS, Microkernel, lhs_place, lhs_shift, shift_of};
use crate::operand::Matrix;
use crate::patches::Patches;
use crate::plan::{Plan, tallest};
use crate::{MatRef, Operand};

/// Rows of bytes that are made when they are needed: patches of an image, quantized floats.
pub(crate) trait Gather: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Elements of a row.
    fn depth(&self) -> usize;
    /// u8 or i8.
    fn dtype(&self) -> DType;
    /// Writes the elements of row `i` from `k0` on.
    fn fill(&self, i: usize, k0: usize, out: &mut [u8]);
    /// Where the first row of what is gathered starts, and the bytes from one to the next, if rows are
    /// read one after the other.
    fn lies(&self) -> Option<(*const u8, usize)> {
        None
    }
    /// The rows as patches of an image, if they are: those are copied inside a tier's door.
    fn patches(&self) -> Option<&Patches<'_>> {
        None
    }
}

/// The A operand.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    U8(MatRef<'a, u8>),
    I8(MatRef<'a, i8>),
    I16(MatRef<'a, i16>),
    F16(MatRef<'a, f16>),
    Bf16(MatRef<'a, bf16>),
    Gather(&'a dyn Gather),
}

/// Calls one generic expression for whichever matrix it is, another for gathered rows.
macro_rules! with_matrix {
    ($source:expr, $m:ident => $matrix:expr, $g:ident => $gather:expr) => {
        match $source {
            Source::U8($m) => $matrix,
            Source::I8($m) => $matrix,
            Source::I16($m) => $matrix,
            Source::F16($m) => $matrix,
            Source::Bf16($m) => $matrix,
            Source::Gather($g) => $gather,
        }
    };
}

impl<'a> From<Matrix<'a>> for Source<'a> {
    #[inline]
    fn from(m: Matrix<'a>) -> Self {
        match m {
            Matrix::U8(m) => Source::U8(m),
            Matrix::I8(m) => Source::I8(m),
            Matrix::I16(m) => Source::I16(m),
            Matrix::F16(m) => Source::F16(m),
            Matrix::Bf16(m) => Source::Bf16(m),
        }
    }
}

/// A matrix as a [`Source`].
#[inline]
pub(crate) fn source<A: Operand>(a: MatRef<'_, A>) -> Source<'_> {
    Matrix::from(a).into()
}

/// Bytes that are gathered at a time, on the stack.
const GATHER: usize = 512;

impl<'a> Source<'a> {
    pub(crate) fn rows(&self) -> usize {
        with_matrix!(self, m => m.rows(), g => g.rows())
    }

    pub(crate) fn depth(&self) -> usize {
        with_matrix!(self, m => m.cols(), g => g.depth())
    }

    pub(crate) fn dtype(&self) -> DType {
        fn of<A: Operand>(_: &MatRef<'_, A>) -> DType {
            A::DTYPE
        }
        with_matrix!(self, m => of(m), g => g.dtype())
    }

    /// Lowest and highest element of integers (0 among them): the type's range where they are not
    /// looked at.
    pub(crate) fn range(&self) -> (i32, i32) {
        match self {
            Source::I16(m) => (0..m.rows()).fold((0, 0), |range, i| {
                m.elements(i).fold(range, |(lo, hi), v| {
                    (lo.min(i32::from(v)), hi.max(i32::from(v)))
                })
            }),
            _ => self.dtype().int_range().unwrap_or((i32::MIN, i32::MAX)),
        }
    }

    /// The shift that the kernel applies to this A.
    #[inline(always)]
    pub(crate) fn shift<K: Microkernel>(&self) -> i32 {
        shift_of::<K>(self.dtype().is_signed())
    }

    /// A as the caller holds it, with its row stride, if the kernel can read that.
    #[inline(always)]
    pub(crate) fn in_place<K: Microkernel>(
        &self,
        kernel: K,
        plan: &Plan,
    ) -> Option<(&'a [K::Lhs], usize)> {
        #[inline(always)]
        fn of<'a, A: Operand, K: Microkernel>(
            kernel: K,
            a: &MatRef<'a, A>,
            plan: &Plan,
        ) -> Option<(&'a [K::Lhs], usize)> {
            let same = TypeId::of::<A>() == TypeId::of::<K::Lhs>();
            // What follows a row of floats may be NaN, which no padding of B makes harmless.
            let readable = K::Acc::INTEGER || same && a.cols().is_multiple_of(K::KG);
            if !readable {
                return None;
            }
            // Rows apart by a multiple of 4 KiB compete for one set of L1, which has ways enough for
            // bytes of all rows of a tile or has not. Of 512 bytes or 2 KiB they cost nothing, while
            // a copy takes as long as 10 to 30 columns.
            let apart = a.row_stride().saturating_mul(size_of::<A>());
            let spread = !apart.is_multiple_of(4096) || a.rows() == 1;
            let spread = spread || K::Acc::INTEGER && l1_ways() >= tallest::<K>();
            let spread = spread && K::LHS_ROWS == 1;
            // The kernel shifts a row once a panel and shares that among the panel's columns; a
            // copy is made once. So where shifting takes time, the kernel does it for one panel
            // of several units, or where rows are so short that copying each costs more than its
            // bytes, unless all of them stay in L1.
            let shifts =
                K::SHIFTS && lhs_shift::<K, A>() != 0 && size_of::<A>() == size_of::<K::Lhs>();
            let longest = if K::STACKS && plan.in_l1::<K::Lhs>(a.rows()) {
                32
            } else {
                64
            };
            let few = plan.n <= K::NR && plan.k <= longest;
            let worth = kernel.shifts_freely() || few;
            (a.col_stride() == 1 && spread && (same || shifts && worth))
                .then(|| (bytemuck::cast_slice(a.data()), a.row_stride()))
        }
        with_matrix!(self, m => of::<_, K>(kernel, m, plan), _g => None)
    }

    /// Where the first row starts, and the bytes from one to the next, if copying rows reads them one
    /// after the other.
    #[inline(always)]
    pub(crate) fn lies(&self) -> Option<(*const u8, usize)> {
        #[inline(always)]
        fn of<A: Operand>(a: &MatRef<'_, A>) -> Option<(*const u8, usize)> {
            let bytes = a.row_stride().saturating_mul(size_of::<A>());
            (a.col_stride() == 1).then(|| (a.data().as_ptr().cast(), bytes))
        }
        with_matrix!(self, m => of(m), g => g.lies())
    }

    /// The sum of row `i`, modulo 2^32.
    #[inline(always)]
    pub(crate) fn sum<T: Tier>(&self, tier: T, i: usize) -> i32 {
        fn strided<A: Operand>(m: &MatRef<'_, A>, i: usize) -> i32 {
            m.elements(i).fold(0, |sum, v| sum.wrapping_add(v.int()))
        }
        match self {
            Source::U8(m) if m.col_stride() == 1 => tier.sum(m.contiguous_row(i)),
            Source::I8(m) if m.col_stride() == 1 => tier.sum(m.contiguous_row(i)),
            Source::U8(m) => strided(m, i),
            Source::I8(m) => strided(m, i),
            Source::I16(m) => strided(m, i),
            // Floats have no zero points, so nobody asks.
            Source::F16(_) | Source::Bf16(_) => 0,
            Source::Gather(g) => {
                let mut sum = 0i32;
                let mut buffer = [0u8; GATHER];
                for k in (0..g.depth()).step_by(GATHER) {
                    let part = &mut buffer[..GATHER.min(g.depth() - k)];
                    g.fill(i, k, part);
                    sum = sum.wrapping_add(if g.dtype().is_signed() {
                        tier.sum::<i8>(bytemuck::cast_slice(part))
                    } else {
                        tier.sum::<u8>(part)
                    });
                }
                sum
            }
        }
    }
}

/// Copies rows as the kernel reads them, `stride` apart, from `k0` on for `depth` elements; where the
/// row ends before that, zeros, or of integers any values.
pub(crate) struct Copy<'s, 'a, K: Microkernel> {
    pub(crate) source: &'s Source<'a>,
    pub(crate) rows: Range<usize>,
    pub(crate) k0: usize,
    pub(crate) depth: usize,
    pub(crate) stride: usize,
    pub(crate) to: &'s mut [K::Lhs],
    pub(crate) kernel: K,
}

impl<K: Microkernel> Task for Copy<'_, '_, K> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) {
        let Copy {
            source,
            rows,
            k0,
            depth,
            stride,
            to,
            kernel,
        } = self;
        if K::LHS_ROWS == 1 {
            copy_rows(kernel, source, rows, k0, depth, stride, to);
        } else {
            copy_interleaved(kernel, source, rows, k0, depth, stride, to);
        }
    }
}

/// Copies rows one after the other.
#[inline(always)]
fn copy_rows<K: Microkernel>(
    kernel: K,
    source: &Source<'_>,
    rows: Range<usize>,
    k0: usize,
    depth: usize,
    stride: usize,
    to: &mut [K::Lhs],
) {
    with_matrix!(source,
        m => copy_matrix(kernel, m, rows, k0, depth, stride, to),
        g => copy_gathered::<K>(*g, rows, k0, depth, stride, to)
    );
}

/// Zeros from `count` on to `depth` of each row.
#[inline(always)]
fn pad<L: bytemuck::Pod>(rows: usize, count: usize, depth: usize, stride: usize, to: &mut [L]) {
    for to in to.chunks_mut(stride).take(rows) {
        to[count..depth].fill(bytemuck::Zeroable::zeroed());
    }
}

/// Elements of rows that are interleaved at a time, on the stack.
const INTERLEAVE: usize = 4096;

/// Copies rows interleaved, as [`Microkernel::LHS_ROWS`] says: from where they lie, or a part of some
/// rows as it would lie alone, then its groups to their places.
#[inline(always)]
fn copy_interleaved<K: Microkernel>(
    kernel: K,
    source: &Source<'_>,
    rows: Range<usize>,
    k0: usize,
    depth: usize,
    stride: usize,
    to: &mut [K::Lhs],
) {
    const { assert!(K::KG * K::LHS_ROWS <= INTERLEAVE && K::LHS_ROWS <= MAX_LHS_ROWS) };
    let whole = INTERLEAVE / K::LHS_ROWS / K::KG * K::KG;
    for first in rows.clone().step_by(K::LHS_ROWS) {
        let some = first..rows.end.min(first + K::LHS_ROWS);
        let to = &mut to[lhs_place::<K>(first - rows.start, 0, stride)..][..depth * K::LHS_ROWS];
        if some.len() == K::LHS_ROWS && interleave_bytes(kernel, source, first, k0, to) {
            continue;
        }
        let mut buffer = [bytemuck::Zeroable::zeroed(); INTERLEAVE];
        for (part, to) in to.chunks_mut(whole * K::LHS_ROWS).enumerate() {
            let len = to.len() / K::LHS_ROWS;
            copy_rows(
                kernel,
                source,
                some.clone(),
                k0 + part * whole,
                len,
                whole,
                &mut buffer,
            );
            let mut copies: [&[K::Lhs]; MAX_LHS_ROWS] = [&[]; MAX_LHS_ROWS];
            for (copy, row) in copies.iter_mut().zip(buffer.chunks_exact(whole)) {
                *copy = &row[..len];
            }
            kernel.interleave(&copies[..K::LHS_ROWS], to);
        }
    }
}

/// Interleaves bytes from where they lie; `false`, and `to` holds anything, where that cannot be done.
/// What follows a row may stand in place of zeros, as B is zero there.
#[inline(always)]
fn interleave_bytes<K: Microkernel>(
    kernel: K,
    source: &Source<'_>,
    first: usize,
    k0: usize,
    to: &mut [K::Lhs],
) -> bool {
    if TypeId::of::<K::Lhs>() != TypeId::of::<u8>() {
        return false;
    }
    let depth = to.len() / K::LHS_ROWS;
    match source {
        Source::U8(m) if m.col_stride() == 1 && source.shift::<K>() == 0 => {
            let mut rows: [&[K::Lhs]; MAX_LHS_ROWS] = [&[]; MAX_LHS_ROWS];
            for (r, row) in rows[..K::LHS_ROWS].iter_mut().enumerate() {
                let at = (first + r) * m.row_stride() + k0;
                let Some(bytes) = m.data().get(at..at + depth) else {
                    return false;
                };
                *row = bytemuck::cast_slice(bytes);
            }
            kernel.interleave(&rows[..K::LHS_ROWS], to);
            true
        }
        Source::Gather(g) if k0 == 0 => {
            let Some(patches) = g.patches() else {
                return false;
            };
            let mut at = 0;
            let done = patches.stretches(first, K::LHS_ROWS, K::KG, |rows| {
                let mut stretch: [&[K::Lhs]; MAX_LHS_ROWS] = [&[]; MAX_LHS_ROWS];
                for (to, from) in stretch.iter_mut().zip(rows) {
                    *to = bytemuck::cast_slice(from);
                }
                let end = at + rows[0].len() * K::LHS_ROWS;
                kernel.interleave(&stretch[..K::LHS_ROWS], &mut to[at..end]);
                at = end;
            });
            let flip = source.shift::<K>() as u8;
            if done && flip != 0 {
                for v in bytemuck::cast_slice_mut::<_, u8>(to) {
                    *v ^= flip;
                }
            }
            done
        }
        _ => false,
    }
}

#[inline(always)]
fn copy_matrix<A: Operand, K: Microkernel>(
    kernel: K,
    a: &MatRef<'_, A>,
    rows: Range<usize>,
    k0: usize,
    depth: usize,
    stride: usize,
    to: &mut [K::Lhs],
) {
    // Known when it is compiled: a call has checked its types.
    if K::Acc::INTEGER != A::ARITHMETIC.integer() {
        return;
    }
    let count = depth.min(a.cols() - k0);
    if a.col_stride() == 1 {
        // Up to whole lines, which are copied faster.
        let room = stride.min(depth.next_multiple_of(64 / size_of::<K::Lhs>()));
        for (i, to) in rows.zip(to.chunks_mut(stride)) {
            let from = &a.data()[i * a.row_stride() + k0..][..count];
            let room = room.min(to.len());
            kernel.lhs_row(from, &mut to[..room]);
        }
        return;
    }
    pad(rows.len(), count, depth, stride, to);
    // Columns one after the other in the order of memory; sixteen rows at a time, so that their
    // copies stay in L1.
    for first in rows.clone().step_by(16) {
        let part = first..rows.end.min(first + 16);
        let to = &mut to[(first - rows.start) * stride..];
        for k in 0..count {
            let column = a.data()[(k0 + k) * a.col_stride() + first * a.row_stride()..]
                .iter()
                .step_by(a.row_stride().max(1));
            for (r, &from) in column.take(part.len()).enumerate() {
                to[r * stride + k] = K::lhs(from);
            }
        }
    }
}

#[inline(always)]
fn copy_gathered<K: Microkernel>(
    g: &dyn Gather,
    rows: Range<usize>,
    k0: usize,
    depth: usize,
    stride: usize,
    to: &mut [K::Lhs],
) {
    if !K::Acc::INTEGER {
        return;
    }
    let count = depth.min(g.depth() - k0);
    pad(rows.len(), count, depth, stride, to);
    let signed = g.dtype().is_signed();
    let in_place = TypeId::of::<K::Lhs>() == TypeId::of::<u8>();
    if let (Some(patches), true) = (g.patches(), in_place) {
        let flip = shift_of::<K>(signed) as u8;
        let to: &mut [u8] = bytemuck::cast_slice_mut(to);
        return patches.copy(rows, k0..k0 + count, stride, flip, to);
    }
    for (i, to) in rows.zip(to.chunks_mut(stride)) {
        if in_place {
            let to: &mut [u8] = bytemuck::cast_slice_mut(&mut to[..count]);
            g.fill(i, k0, to);
            if shift_of::<K>(signed) != 0 {
                for v in to {
                    *v = v.wrapping_add(shift_of::<K>(signed) as u8);
                }
            }
            continue;
        }
        let mut buffer = [0u8; GATHER];
        for (part, to) in to[..count].chunks_mut(GATHER).enumerate() {
            let from = &mut buffer[..to.len()];
            g.fill(i, k0 + part * GATHER, from);
            for (to, &from) in to.iter_mut().zip(&*from) {
                *to = if signed {
                    K::lhs(from as i8)
                } else {
                    K::lhs(from)
                };
            }
        }
    }
}
