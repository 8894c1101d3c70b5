//! Checked panels as pointers, for kernels in intrinsics.

use super::{
    Acc, Ahead, Init, LhsTile, MAX_ROWS, Microkernel, Products, RhsPanel, Segment, TileMut,
};

/// What sums start at where nothing is added, and rows without a term: known by their place.
static ZEROS: [i32; MAX_ROWS] = [0; MAX_ROWS];

/// So many zeros, of which a kernel knows that they are zeros.
///
/// # Panics
///
/// When these are more than [`MAX_ROWS`].
#[inline(always)]
pub(crate) fn zeros<A: Acc>(count: usize) -> &'static [A] {
    bytemuck::cast_slice(&ZEROS[..count])
}

/// A tile as pointers, for kernels in intrinsics.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "only the vector tiers use it")]
pub(crate) struct RawTile<L, R, A: 'static = i32, E = A> {
    /// Rows of A, `a_stride` apart: each valid for reads of `groups · KG` elements. Interleaved
    /// ones: every `LHS_ROWS · a_stride`, `groups · KG · LHS_ROWS` elements.
    pub(crate) a: *const L,
    pub(crate) a_stride: usize,
    /// Tiles of as many rows each, one below the other.
    pub(crate) tiles: usize,
    /// Steps of KG in K, of each segment.
    pub(crate) groups: usize,
    /// Where a tile that unpacks B puts it; null where none does.
    pub(crate) unpacked: *mut u8,
    /// Valid for reads of `groups · KG · width` elements.
    pub(crate) b: *const R,
    /// So many stretches of K, at least one: what is said of `a` and `b` holds from each start on
    /// (in elements of a row, and in steps of K). Kernels without segments have one, at zero.
    pub(crate) segments: *const Segment,
    pub(crate) segment_count: usize,
    /// What to ask memory for, of a tile that does; where there is nothing, B itself.
    pub(crate) ahead: Ahead,
    /// What the sums start at: rows `init_stride` apart (0: the same for all), each valid for
    /// reads of `width` elements, and added to it one value a row.
    pub(crate) init: *const A,
    pub(crate) init_stride: usize,
    pub(crate) init_rows: *const A,
    /// If not null, one value for each row, and `width` values: their products are added, too.
    pub(crate) products: *const Products<'static, A>,
    /// Where the results go: rows `c_stride` apart, each valid for reads and writes of `width`
    /// elements, borrowed exclusively; of a kernel that masks, all but the last unit of them, and
    /// of that at least one.
    pub(crate) c: *mut E,
    pub(crate) c_stride: usize,
}

impl<L, R, A: 'static, E> RawTile<L, R, A, E> {
    /// Whether no row adds anything to what sums start at.
    #[inline(always)]
    #[allow(dead_code, reason = "only kernels that skip it ask")]
    pub(crate) fn rows_are_alike(&self) -> bool {
        core::ptr::addr_eq(self.init_rows, ZEROS.as_ptr())
    }

    /// Whether no column adds anything to what sums start at.
    #[inline(always)]
    #[allow(dead_code, reason = "only kernels that skip it ask")]
    pub(crate) fn columns_are_zeros(&self) -> bool {
        core::ptr::addr_eq(self.init, ZEROS.as_ptr())
    }

    /// The same tile with B elsewhere.
    #[inline(always)]
    #[allow(dead_code, reason = "only kernels that unpack use it")]
    pub(crate) fn with_rhs<B>(self, b: *const B) -> RawTile<L, B, A, E> {
        RawTile {
            a: self.a,
            a_stride: self.a_stride,
            tiles: self.tiles,
            groups: self.groups,
            unpacked: self.unpacked,
            b,
            segments: self.segments,
            segment_count: self.segment_count,
            ahead: self.ahead,
            init: self.init,
            init_stride: self.init_stride,
            init_rows: self.init_rows,
            products: self.products,
            c: self.c,
            c_stride: self.c_stride,
        }
    }
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
    init: Option<Init<'_, K::Acc>>,
    out: &mut TileMut<'_, K::Acc>,
) -> RawTile<K::Lhs, K::Rhs, K::Acc> {
    match init {
        Some(init) => check_finished::<K, K::Acc>(a, b, init, out, 1),
        None => {
            // Of a single row it may be 0, which would say that there are no sums to go on from.
            let (init, stride) = (out.ptr.cast_const(), out.stride.max(1));
            let rows = ZEROS.as_ptr().cast();
            check_shapes::<K, K::Acc>(a, b, out, b.width, init, stride, rows)
        }
    }
}

/// As [`check_tile`], for a tile of finished columns of `size` elements each.
#[inline(always)]
pub(crate) fn check_finished<K: Microkernel, E>(
    a: &LhsTile<'_, K::Lhs>,
    b: &RhsPanel<'_, K::Rhs>,
    init: Init<'_, K::Acc>,
    out: &mut TileMut<'_, E>,
    size: usize,
) -> RawTile<K::Lhs, K::Rhs, K::Acc, E> {
    let least = if K::MASKS {
        (b.width + 1).saturating_sub(K::UNIT)
    } else {
        b.width
    };
    let least = least.saturating_mul(size);
    // Rows and width are small, so that nothing wraps before it is compared.
    let rows_fit = || init.start.len() / a.rows.max(1) >= init.stride;
    assert!(
        init.start.len() >= b.width && (init.stride == 0 || init.stride >= b.width && rows_fit())
    );
    let rows = match init.rows {
        Some(rows) => {
            assert!(rows.len() >= a.rows && init.stride == 0);
            rows.as_ptr()
        }
        None => ZEROS.as_ptr().cast(),
    };
    let tile = check_shapes::<K, E>(a, b, out, least, init.start.as_ptr(), init.stride, rows);
    let Some(products) = init.products else {
        return tile;
    };
    let Products { rows, columns, cut } = products;
    assert!(K::PRODUCTS && init.stride == 0 && rows.len() >= a.rows && columns.len() >= b.width);
    assert!(cut.is_none_or(|cut| cut.len() >= b.width));
    RawTile {
        products: core::ptr::from_ref(products).cast(),
        ..tile
    }
}

#[inline(always)]
fn check_shapes<K: Microkernel, E>(
    a: &LhsTile<'_, K::Lhs>,
    b: &RhsPanel<'_, K::Rhs>,
    out: &mut TileMut<'_, E>,
    least: usize,
    init: *const K::Acc,
    init_stride: usize,
    init_rows: *const K::Acc,
) -> RawTile<K::Lhs, K::Rhs, K::Acc, E> {
    // Zeros of four bytes serve every type of sums.
    const { assert!(size_of::<K::Acc>() == 4 && align_of::<K::Acc>() <= 4 && K::NR <= MAX_ROWS) };
    let height = K::ROWS[b.width / K::UNIT - 1];
    assert!(
        (a.rows <= height
            || K::STACKS && a.rows.is_multiple_of(height)
            || a.rows <= K::TALL && b.width == K::NR)
            && a.rows <= MAX_ROWS
            && out.rows >= a.rows
            && out.width >= least
            && a.depth.is_multiple_of(K::KG)
            && a.interleave == K::LHS_ROWS
            && (K::SEGMENTS || a.segments.list.len() == 1 && a.segments.most.a == 0)
    );
    let tiles = if a.rows > height { a.rows / height } else { 1 };
    let depth = a.segments.most.b.checked_add(a.depth);
    let elements = depth.and_then(|depth| depth.checked_mul(b.width));
    assert!(if K::SEGMENTS {
        elements.is_some_and(|n| n <= b.data.len())
    } else {
        elements == Some(b.data.len())
    });
    RawTile {
        a: a.data.as_ptr(),
        a_stride: a.stride,
        tiles,
        groups: a.depth / K::KG,
        unpacked: core::ptr::null_mut(),
        b: b.data.as_ptr(),
        segments: a.segments.list.as_ptr(),
        segment_count: a.segments.list.len(),
        ahead: b.ahead.unwrap_or(Ahead {
            at: b.data.as_ptr().cast(),
            step: 0,
        }),
        init,
        init_stride,
        init_rows,
        products: core::ptr::null(),
        c: out.ptr,
        c_stride: out.stride,
    }
}
