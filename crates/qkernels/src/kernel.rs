//! What a microkernel is: its facts, and one function over checked panels.

use bytemuck::Pod;

use crate::Lhs;

/// The inner product of the loop nest: a tile of `rows × width` sums over the whole depth.
///
/// The facts travel with the code: packing, blocking, tails and tests are written once against
/// them. `width` is a multiple of [`UNIT`](Self::UNIT), so a narrow last panel costs no more than
/// the units it needs.
pub(crate) trait Microkernel: Copy + Send + Sync + 'static {
    /// Identifies the packed layout; stored in packed weights.
    const ID: &'static str;
    /// Neighbours in K that one step eats.
    const KG: usize;
    /// Columns of the narrowest tile; panel widths are multiples of it.
    const UNIT: usize;
    /// Columns of a full panel.
    const NR: usize;
    /// Rows of the highest tile for a panel of so many units (index 0: one unit).
    const ROWS: &'static [usize];
    /// What must be added to a signed A so that the instruction can read it; the driver takes
    /// `shift · colsum(B)` off again. An unsigned A is never shifted.
    const SIGNED_LHS_SHIFT: i32;
    /// Whether the kernel can add the shift itself while it reads ([`LhsTile::with_shift`]).
    const SHIFTS: bool;
    /// A as the instruction reads it. Where this is the caller's own type, rows are read in place.
    type Lhs: Pod + Send + Sync;
    /// B as it is packed.
    type Rhs: Pod + Send + Sync;

    /// One element of A as the instruction reads it, shifted if it is signed.
    fn lhs<A: Lhs>(a: A) -> Self::Lhs;
    /// One element of B as it is packed; zero for zero.
    fn rhs(b: i8) -> Self::Rhs;

    /// `out += A · B` on a tile, or `out = init + A · B` where `init` holds one value a column.
    fn accumulate(
        self,
        a: LhsTile<'_, Self::Lhs>,
        b: RhsPanel<'_, Self::Rhs>,
        init: Option<&[i32]>,
        out: &mut AccTile<'_>,
    );
}

/// The shift that a kernel applies to an A of this type.
pub(crate) const fn lhs_shift<K: Microkernel, A: Lhs>() -> i32 {
    if A::DTYPE.is_signed() {
        K::SIGNED_LHS_SHIFT
    } else {
        0
    }
}

/// Rows of A, `groups · KG` elements each, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct LhsTile<'a, L> {
    data: &'a [L],
    stride: usize,
    rows: usize,
    depth: usize,
    shift: bool,
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
            shift: false,
        }
    }

    /// The same tile; with `shift` the elements are those of a signed A as they are, and the
    /// kernel has to add the shift.
    #[inline(always)]
    pub(crate) fn with_shift(self, shift: bool) -> Self {
        LhsTile { shift, ..self }
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

    /// Row `r`.
    #[inline(always)]
    pub(crate) fn row(&self, r: usize) -> &'a [L] {
        &self.data[r * self.stride..r * self.stride + self.depth]
    }
}

/// A packed panel of B: for every group of KG steps, `width` columns of KG neighbours.
#[derive(Clone, Copy)]
pub(crate) struct RhsPanel<'a, R> {
    data: &'a [R],
    width: usize,
}

impl<'a, R> RhsPanel<'a, R> {
    #[inline(always)]
    pub(crate) fn new(data: &'a [R], width: usize) -> Self {
        RhsPanel { data, width }
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

/// A tile of sums, row-major with a stride, borrowed exclusively.
pub(crate) struct AccTile<'a> {
    ptr: *mut i32,
    stride: usize,
    rows: usize,
    width: usize,
    life: core::marker::PhantomData<&'a mut [i32]>,
}

impl<'a> AccTile<'a> {
    /// A tile in a slice.
    ///
    /// # Panics
    ///
    /// When the slice ends before the tile: a bug in the loop nest.
    #[inline(always)]
    pub(crate) fn new(data: &'a mut [i32], stride: usize, rows: usize, width: usize) -> Self {
        assert!(width <= stride);
        assert!(LhsTile::<i32>::span(rows, stride, width).is_some_and(|n| n <= data.len()));
        let ptr = data.as_mut_ptr();
        AccTile {
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
        ptr: *mut i32,
        stride: usize,
        rows: usize,
        width: usize,
    ) -> AccTile<'a> {
        AccTile {
            ptr,
            stride,
            rows,
            width,
            life: core::marker::PhantomData,
        }
    }

    /// Row `r`.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, r: usize) -> &mut [i32] {
        assert!(r < self.rows);
        // SAFETY: `r < rows`, and a tile's rows are valid for reads and writes of `width` elements
        // and exclusively borrowed (both constructors see to it); `&mut self` keeps two from
        // being handed out at once.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.add(r * self.stride), self.width) }
    }
}

/// A tile as pointers, for kernels in intrinsics.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "only the vector tiers use it")]
pub(crate) struct RawTile<L, R> {
    /// Rows of A, `a_stride` apart: each valid for reads of `groups · KG` elements.
    pub(crate) a: *const L,
    pub(crate) a_stride: usize,
    /// Steps of KG in K.
    pub(crate) groups: usize,
    /// Valid for reads of `groups · KG · width` elements.
    pub(crate) b: *const R,
    /// What the sums start at: rows `init_stride` apart, each valid for reads of `width` elements.
    pub(crate) init: *const i32,
    pub(crate) init_stride: usize,
    /// Where the sums go: rows `c_stride` apart, each valid for reads and writes of `width`
    /// elements, borrowed exclusively.
    pub(crate) c: *mut i32,
    pub(crate) c_stride: usize,
}

/// Checks that panels fit each other and gives them as pointers.
///
/// # Panics
///
/// When they do not: a bug in the loop nest. Otherwise the promises of [`RawTile`] hold for
/// `a.rows()` rows and a width of `b.width()` for as long as the panels are borrowed.
#[inline(always)]
pub(crate) fn check_tile<K: Microkernel>(
    a: &LhsTile<'_, K::Lhs>,
    b: &RhsPanel<'_, K::Rhs>,
    init: Option<&[i32]>,
    out: &mut AccTile<'_>,
) -> RawTile<K::Lhs, K::Rhs> {
    let width = b.width;
    assert!(
        out.rows >= a.rows
            && out.width >= width
            && a.depth.is_multiple_of(K::KG)
            && Some(b.data.len()) == a.depth.checked_mul(width)
            && init.is_none_or(|i| i.len() >= width)
    );
    let (c, c_stride) = (out.ptr, out.stride);
    let (init, init_stride) = init.map_or((c.cast_const(), c_stride), |i| (i.as_ptr(), 0));
    RawTile {
        a: a.data.as_ptr(),
        a_stride: a.stride,
        groups: a.depth / K::KG,
        b: b.data.as_ptr(),
        init,
        init_stride,
        c,
        c_stride,
    }
}
