//! What a microkernel is: its facts, and one function over checked panels.

mod raw;

use core::cell::Cell;

use bytemuck::Pod;

use crate::isa::Tier;
use crate::outliers::PanelOutliers;
use crate::store::Steps;
use crate::{Arithmetic, Operand};

#[allow(unused_imports, reason = "only the vector tiers use them")]
pub(crate) use raw::{RawTile, check_finished, check_tile, zeros};

/// What sums are kept in: i32 or f32.
pub(crate) trait Acc: Pod + Default + Send + Sync {
    /// Whether these are exact integers.
    const INTEGER: bool;
    /// The sum as f32, rounded once.
    fn to_f32(self) -> f32;
    /// The sum plus an integer modulo 2^32; floats have nothing to add.
    fn plus(self, term: i32) -> Self;
    /// The sum of two, modulo 2^32 of integers.
    fn plus_acc(self, other: Self) -> Self;
    /// An integer as a sum.
    fn from_i32(v: i32) -> Self;
    /// The sum as it is stored: of all NaN one.
    fn canonical(self) -> Self;
}

impl Acc for i32 {
    const INTEGER: bool = true;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
    #[inline(always)]
    fn plus(self, term: i32) -> i32 {
        self.wrapping_add(term)
    }
    #[inline(always)]
    fn plus_acc(self, other: i32) -> i32 {
        self.wrapping_add(other)
    }
    #[inline(always)]
    fn from_i32(v: i32) -> i32 {
        v
    }
    #[inline(always)]
    fn canonical(self) -> i32 {
        self
    }
}

impl Acc for f32 {
    const INTEGER: bool = false;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn plus(self, _term: i32) -> f32 {
        self
    }
    #[inline(always)]
    fn plus_acc(self, other: f32) -> f32 {
        self + other
    }
    #[inline(always)]
    fn from_i32(_v: i32) -> f32 {
        0.0
    }
    #[inline(always)]
    fn canonical(self) -> f32 {
        if self.is_nan() { f32::NAN } else { self }
    }
}

/// What the sums of a tile start at:
/// `start[r · stride + j] + rows[r] + products.rows[r] · products.columns[j]`.
#[derive(Clone, Copy)]
pub(crate) struct Init<'a, A> {
    /// One value a column, of floats zeros; with a stride, rows of them. A kernel may know [`zeros`].
    pub(crate) start: &'a [A],
    /// Distance of rows; 0 where all start alike.
    pub(crate) stride: usize,
    /// One value a row, if there are any; none with a stride.
    pub(crate) rows: Option<&'a [A]>,
    /// None with a stride, nor for kernels without [`PRODUCTS`](Microkernel::PRODUCTS).
    pub(crate) products: Option<&'a Products<'a, A>>,
}

/// One value a row and one a column.
#[derive(Clone, Copy)]
pub(crate) struct Products<'a, A> {
    pub(crate) rows: &'a [A],
    pub(crate) columns: &'a [A],
    /// The values of columns cut into `low + 128 · high`, where all of these are i16 ([`cut`]) and
    /// those of rows from −255 to 255: products of pairs of i16 are what a kernel may be fast at.
    pub(crate) cut: Option<&'a [A]>,
}

/// A value as `low + 128 · high`, the high part in the upper half; `None` where that is no i16.
#[inline(always)]
pub(crate) fn cut(v: i32) -> Option<i32> {
    let high = v >> 7;
    (i32::from(high as i16) == high).then_some(v & 127 | high << 16)
}

/// The inner product of the loop nest: a tile of `rows × width` sums over the whole depth.
///
/// The facts travel with the code: packing, blocking, tails and tests are written once against
/// them. `width` is a multiple of [`UNIT`](Self::UNIT), so a narrow last panel costs no more than
/// the units it needs.
pub(crate) trait Microkernel:
    Copy + Send + Sync + 'static + From<<Self as Microkernel>::Home>
{
    /// The lowest tier that has the kernel: what calls it is compiled once, in that tier's door,
    /// for the tiers above as well.
    type Home: Tier;
    /// What it computes.
    const ARITHMETIC: Arithmetic;
    /// Identifies the packed layout; stored in packed weights.
    const ID: &'static str;
    /// Neighbours in K that one step eats.
    const KG: usize;
    /// K is padded to multiples of this, itself a multiple of [`KG`](Self::KG): larger where another kernel
    /// reads the same layout.
    const K_UNIT: usize = Self::KG;
    /// Columns of the narrowest tile; panel widths are multiples of it.
    const UNIT: usize;
    /// Columns of a full panel.
    const NR: usize;
    /// Rows of the highest tile for a panel of so many units (index 0: one unit).
    const ROWS: &'static [usize];
    /// What must be added to a signed A so that the instruction can read it; the driver takes
    /// `shift · colsum(B)` off again.
    const SIGNED_LHS_SHIFT: i32;
    /// The same for an unsigned A.
    const UNSIGNED_LHS_SHIFT: i32 = 0;
    /// Whether the kernel can add the shift itself while it reads ([`LhsTile::with_shift`]).
    const SHIFTS: bool;
    /// Bytes that an element of B takes once it is unpacked; 0 where it is read as it is packed.
    const UNPACKED: usize = 0;
    /// Whether it pays on this processor to unpack panels, for kernels that can.
    #[inline(always)]
    fn unpacks() -> bool {
        Self::UNPACKED > 0
    }
    /// Whether a tile of full height unpacks the panel that it is multiplied with
    /// ([`Unpacked::Meanwhile`]).
    const UNPACKS_MEANWHILE: bool = false;
    /// Rows of a block from which it pays to unpack each panel of B first, for kernels that can.
    const UNPACK_ROWS: usize = 24;
    /// Depth of a block in K. Whole depths keep the sums in registers; beyond this a panel of B would
    /// outgrow L2, and the sums' extra trip through memory costs less than a thousandth.
    #[inline(always)]
    fn block_depth() -> usize {
        4096
    }
    /// Whether its tiles ask memory for the next panel of B, where that pays on this processor.
    #[inline(always)]
    fn asks() -> bool {
        false
    }
    /// Whether [`accumulate`](Self::accumulate) from an `init`, and [`finish`](Self::finish), take
    /// an output that ends inside the last unit of the panel, and store no further than it goes.
    const MASKS: bool = false;
    /// Whether sums may start at products of a row's and a column's value. Otherwise the loop nest
    /// makes them, in memory.
    const PRODUCTS: bool = false;
    /// Rows of A that lie interleaved: the first group of each of them, then the second group of
    /// each, and so on. Other than 1, A is always copied, and the heights in [`ROWS`](Self::ROWS)
    /// are multiples of it. Where the rows end early, what stands in place of the missing ones is
    /// any values; their sums are not stored.
    const LHS_ROWS: usize = 1;
    /// Whether tiles take an A and a panel of several [`Segment`]s.
    const SEGMENTS: bool = false;
    /// Whether one call multiplies several tiles of full height, one below the other: what is
    /// between calls takes as long as some steps in K.
    const STACKS: bool = false;
    /// The most rows of a call that multiplies a full panel as two halves of its columns, so that each is
    /// read once for more rows than a tile has; 0 where no call does.
    const TALL: usize = 0;
    /// Whether [`finish`](Self::finish) takes all tiles that [`accumulate`](Self::accumulate) does, and
    /// stacks of them, to all steps but those of bf16.
    const FINISHES: bool = false;
    /// What sums are kept in.
    type Acc: Acc;
    /// A as the instruction reads it. Where this is the caller's own type, rows are read in place.
    type Lhs: Pod + Send + Sync;
    /// B as it is packed.
    type Rhs: Pod + Send + Sync;

    /// Whether adding the shift while reading takes no time on this processor, for kernels that
    /// can: where other pipes do it than those that multiply.
    #[inline(always)]
    fn shifts_freely(self) -> bool {
        false
    }

    /// One element of A as the instruction reads it, shifted if it is signed.
    fn lhs<A: Operand>(a: A) -> Self::Lhs;
    /// A row of A as the instruction reads it; `to` is as long or longer, and what follows takes zeros,
    /// or of integers any values.
    #[inline(always)]
    fn lhs_row<A: Operand>(self, from: &[A], to: &mut [Self::Lhs]) {
        let (to, rest) = to.split_at_mut(from.len());
        for (to, &from) in to.iter_mut().zip(from) {
            *to = Self::lhs(from);
        }
        rest.fill(bytemuck::Zeroable::zeroed());
    }
    /// One element of B as it is packed (of bytes always a signed one); zero for zero.
    fn rhs<B: Operand>(b: B) -> Self::Rhs;

    /// What stands in B beyond K, where A has zeros (of integers, any values): a product that
    /// changes no sum.
    #[inline(always)]
    fn rhs_padding() -> Self::Rhs {
        bytemuck::Zeroable::zeroed()
    }

    /// Unpacks a part of a panel that many rows of A will meet, into [`UNPACKED`](Self::UNPACKED)
    /// bytes an element.
    #[inline(always)]
    fn unpack(self, _b: RhsPanel<'_, Self::Rhs>, _to: &mut [u8]) {}

    /// Interleaves [`LHS_ROWS`](Self::LHS_ROWS) rows, equally long in whole groups: they fill `to`.
    #[inline(always)]
    fn interleave(self, rows: &[&[Self::Lhs]], to: &mut [Self::Lhs]) {
        for (r, row) in rows.iter().enumerate() {
            let to = to[r * Self::KG..].chunks_mut(Self::KG * Self::LHS_ROWS);
            for (group, to) in row.chunks_exact(Self::KG).zip(to) {
                to[..Self::KG].copy_from_slice(group);
            }
        }
    }

    /// `out += A · B` on a tile, or `out = init + A · B` where `init` is given.
    fn accumulate(
        self,
        a: LhsTile<'_, Self::Lhs>,
        b: RhsPanel<'_, Self::Rhs>,
        init: Option<Init<'_, Self::Acc>>,
        out: &mut TileMut<'_, Self::Acc>,
    );

    /// `out = epilogue(init + A · B)` with the sums still in registers; `false`, and nothing done,
    /// where the kernel has no such tile: then the loop nest takes the way through memory. `out`
    /// counts in bytes.
    #[inline(always)]
    fn finish(
        self,
        _a: LhsTile<'_, Self::Lhs>,
        _b: RhsPanel<'_, Self::Rhs>,
        _init: Init<'_, Self::Acc>,
        _scaling: Scaling<'_>,
        _steps: &Steps<'_>,
        _out: &mut TileMut<'_, u8>,
    ) -> bool {
        false
    }
}

/// What the epilogue multiplies and adds: by column and by row, from the first ones of a tile on.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "read by kernels that finish tiles themselves")]
pub(crate) struct Scaling<'a> {
    pub(crate) scale: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
    /// Factors of the tile's rows, multiplied with those of columns first.
    pub(crate) rows: Option<&'a [f32]>,
    /// Whether every scaled sum is known to be at most 2^30 in magnitude.
    pub(crate) small: bool,
}

/// The shift that a kernel applies to an A of this type.
pub(crate) const fn lhs_shift<K: Microkernel, A: Operand>() -> i32 {
    shift_of::<K>(A::DTYPE.is_signed())
}

/// The shift that a kernel applies to a signed or an unsigned A.
pub(crate) const fn shift_of<K: Microkernel>(signed: bool) -> i32 {
    if signed {
        K::SIGNED_LHS_SHIFT
    } else {
        K::UNSIGNED_LHS_SHIFT
    }
}

/// Where a copy of A has element `k` of row `r`, its rows `stride` apart.
#[inline(always)]
pub(crate) const fn lhs_place<K: Microkernel>(r: usize, k: usize, stride: usize) -> usize {
    if K::LHS_ROWS == 1 {
        return r * stride + k;
    }
    let (block, row) = (r / K::LHS_ROWS, r % K::LHS_ROWS);
    let (group, within) = (k / K::KG, k % K::KG);
    (block * stride + group * K::KG) * K::LHS_ROWS + row * K::KG + within
}

/// A stretch of K: where it starts in each row of A, and in K as B is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Segment {
    pub(crate) a: usize,
    pub(crate) b: usize,
}

/// The stretches of K that a tile sums over, all of one length.
#[derive(Clone, Copy)]
pub(crate) struct Segments<'a> {
    list: &'a [Segment],
    /// The largest of each start.
    most: Segment,
}

impl<'a> Segments<'a> {
    /// All of K, in one.
    const WHOLE: Segments<'static> = Segments {
        list: &[Segment { a: 0, b: 0 }],
        most: Segment { a: 0, b: 0 },
    };

    /// At least one.
    pub(crate) fn new(list: &'a [Segment]) -> Self {
        assert!(!list.is_empty());
        let most = list.iter().fold(Segment { a: 0, b: 0 }, |most, s| Segment {
            a: most.a.max(s.a),
            b: most.b.max(s.b),
        });
        Segments { list, most }
    }
}

/// Rows of A, `groups · KG` elements each, `stride` apart; or, with `interleave` of them together,
/// so many elements for all of these and so many strides apart.
#[derive(Clone, Copy)]
pub(crate) struct LhsTile<'a, L> {
    data: &'a [L],
    stride: usize,
    rows: usize,
    depth: usize,
    interleave: usize,
    shift: bool,
    segments: Segments<'a>,
}

impl<'a, L> LhsTile<'a, L> {
    /// Elements that a tile spans, or `None` when that overflows.
    #[inline(always)]
    pub(crate) fn span(rows: usize, stride: usize, depth: usize) -> Option<usize> {
        rows.checked_sub(1)?.checked_mul(stride)?.checked_add(depth)
    }

    /// A tile at the start of `data`; `depth` counts whole groups.
    ///
    /// # Panics
    ///
    /// When `data` ends before the tile: a bug in the loop nest.
    #[inline(always)]
    pub(crate) fn new(data: &'a [L], rows: usize, stride: usize, depth: usize) -> Self {
        assert!(Self::span(rows, stride, depth).is_some_and(|n| n <= data.len()));
        LhsTile {
            data,
            stride,
            rows,
            depth,
            interleave: 1,
            shift: false,
            segments: Segments::WHOLE,
        }
    }

    /// A tile whose rows are `segments`, `depth` elements each.
    ///
    /// # Panics
    ///
    /// When `data` ends before the tile: a bug in the loop nest.
    #[inline(always)]
    pub(crate) fn in_segments(
        data: &'a [L],
        rows: usize,
        stride: usize,
        segments: Segments<'a>,
        depth: usize,
    ) -> Self {
        assert!(segments.most.a <= data.len());
        // Every segment ends inside where the last one does.
        Self::new(&data[segments.most.a..], rows, stride, depth);
        LhsTile {
            segments,
            ..Self::new(data, rows, stride, depth)
        }
    }

    /// A tile at the start of `data`, copied as the kernel wants it: interleaved if it says so
    /// ([`Microkernel::LHS_ROWS`]).
    ///
    /// # Panics
    ///
    /// When `data` ends before the tile: a bug in the loop nest.
    #[inline(always)]
    pub(crate) fn copied<K: Microkernel<Lhs = L>>(
        data: &'a [L],
        rows: usize,
        stride: usize,
        depth: usize,
    ) -> Self {
        let count = K::LHS_ROWS;
        if count == 1 {
            return Self::new(data, rows, stride, depth);
        }
        // Neither product wraps where the copy could be allocated.
        let blocks = Self::new(data, rows.div_ceil(count), count * stride, count * depth);
        LhsTile {
            stride,
            rows,
            depth,
            interleave: count,
            ..blocks
        }
    }

    /// The same tile; with `shift` the elements are those of a signed A as they are, and the
    /// kernel has to add the shift.
    #[inline(always)]
    pub(crate) fn with_shift(self, shift: bool) -> Self {
        LhsTile { shift, ..self }
    }

    /// Whether K is one stretch.
    #[inline(always)]
    #[allow(dead_code, reason = "only kernels that unpack meanwhile ask")]
    pub(crate) fn is_whole(&self) -> bool {
        self.segments.list.len() == 1
    }

    /// Whether the kernel has to add the shift.
    #[inline(always)]
    #[allow(dead_code, reason = "only kernels that shift ask")]
    pub(crate) fn shift(&self) -> bool {
        self.shift
    }

    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Element `k` of row `r`, where groups have `kg` elements.
    #[cfg(test)]
    pub(crate) fn at(&self, r: usize, k: usize, kg: usize) -> L
    where
        L: Copy,
    {
        let (count, depth) = (self.interleave, self.depth);
        assert!(r < self.rows && k < depth);
        let rows = &self.data[r / count * count * self.stride..][..count * depth];
        rows[k / kg * kg * count + r % count * kg + k % kg]
    }

    /// Row `r`, for kernels that do not interleave.
    #[inline(always)]
    pub(crate) fn row(&self, r: usize) -> &'a [L] {
        debug_assert!(self.interleave == 1);
        &self.data[r * self.stride..r * self.stride + self.depth]
    }
}

/// A packed panel of B: for every group of KG steps, `width` columns of KG neighbours.
#[derive(Clone, Copy)]
pub(crate) struct RhsPanel<'a, R> {
    data: &'a [R],
    width: usize,
    unpacked: Unpacked<'a>,
    /// Behind a reference: what a tile does not read should not be copied for each of them.
    outliers: Option<&'a PanelOutliers<'a>>,
    ahead: Option<Ahead>,
}

/// A panel as its kernel unpacks it.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "only kernels that unpack read it")]
pub(crate) enum Unpacked<'a> {
    /// It is read as it is packed.
    No,
    /// It was unpacked before.
    Done(&'a [u8]),
    /// Here, by the tile that reads it, of a kernel that [does so](Microkernel::UNPACKS_MEANWHILE).
    Meanwhile(&'a [Cell<u8>]),
}

/// What a tile asks memory for while it multiplies: its part of the panel that comes next.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// Where it starts. Nothing is read there, so it may be anywhere.
    pub(crate) at: *const u8,
    /// Bytes for each group in K.
    pub(crate) step: usize,
}

impl<'a, R> RhsPanel<'a, R> {
    #[inline(always)]
    pub(crate) fn new(data: &'a [R], width: usize) -> Self {
        RhsPanel {
            data,
            width,
            unpacked: Unpacked::No,
            outliers: None,
            ahead: None,
        }
    }

    /// The same panel, and what to ask memory for meanwhile.
    #[inline(always)]
    pub(crate) fn with_ahead(self, ahead: Option<Ahead>) -> Self {
        RhsPanel { ahead, ..self }
    }

    /// What to ask memory for meanwhile.
    #[inline(always)]
    #[allow(dead_code, reason = "only kernels that ask for it")]
    pub(crate) fn ahead(&self) -> Option<Ahead> {
        self.ahead
    }

    /// The same panel, with its outliers.
    #[inline(always)]
    pub(crate) fn with_outliers(self, outliers: Option<&'a PanelOutliers<'a>>) -> Self {
        RhsPanel { outliers, ..self }
    }

    /// The outliers, if there are.
    #[inline(always)]
    #[allow(dead_code, reason = "only kernels of split weights ask")]
    pub(crate) fn outliers(&self) -> Option<&'a PanelOutliers<'a>> {
        self.outliers
    }

    /// The same panel, and how it is unpacked.
    #[inline(always)]
    pub(crate) fn with_unpacked(self, unpacked: Unpacked<'a>) -> Self {
        RhsPanel { unpacked, ..self }
    }

    /// The elements as the kernel unpacked them, if it did.
    #[inline(always)]
    #[allow(dead_code, reason = "only kernels that unpack ask")]
    pub(crate) fn unpacked(&self) -> Unpacked<'a> {
        self.unpacked
    }

    #[inline(always)]
    #[allow(dead_code, reason = "only kernels with more than one width ask")]
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    #[inline(always)]
    pub(crate) fn data(&self) -> &'a [R] {
        self.data
    }
}

/// A tile to write to, row-major with a stride, borrowed exclusively.
pub(crate) struct TileMut<'a, E> {
    ptr: *mut E,
    stride: usize,
    rows: usize,
    width: usize,
    life: core::marker::PhantomData<&'a mut [E]>,
}

impl<'a, E> TileMut<'a, E> {
    /// A tile in a slice.
    ///
    /// # Panics
    ///
    /// When the slice ends before the tile: a bug in the loop nest.
    #[inline(always)]
    pub(crate) fn new(data: &'a mut [E], stride: usize, rows: usize, width: usize) -> Self {
        assert!(width <= stride);
        assert!(LhsTile::<E>::span(rows, stride, width).is_some_and(|n| n <= data.len()));
        let ptr = data.as_mut_ptr();
        TileMut {
            ptr,
            stride,
            rows,
            width,
            life: core::marker::PhantomData,
        }
    }

    /// A tile in memory that is shared out by columns, so that no slice can stand for it.
    ///
    /// # Safety
    ///
    /// For `'a`, each row `r < rows` is valid for reads and writes of `width` elements from
    /// `ptr + r · stride`, and nothing else touches them.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(
        ptr: *mut E,
        stride: usize,
        rows: usize,
        width: usize,
    ) -> TileMut<'a, E> {
        TileMut {
            ptr,
            stride,
            rows,
            width,
            life: core::marker::PhantomData,
        }
    }

    /// Elements of a row.
    #[inline(always)]
    #[allow(dead_code, reason = "only kernels that finish tiles themselves ask")]
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Row `r`.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, r: usize) -> &mut [E] {
        assert!(r < self.rows);
        // SAFETY: `r < rows`, and a tile's rows are valid for reads and writes of `width` elements
        // and exclusively borrowed (both constructors see to it); `&mut self` keeps two from
        // being handed out at once.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.add(r * self.stride), self.width) }
    }
}

/// The most rows that a tile has, or tiles below each other.
pub(crate) const MAX_ROWS: usize = 256;

/// The most rows that lie interleaved.
pub(crate) const MAX_LHS_ROWS: usize = 8;
