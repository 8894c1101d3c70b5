//! The one loop nest of products, generic over the kernel alone: where A comes from and how results
//! are stored is data.
//!
//! ```text
//! for a block of rows of A        stays in L2; copied where the kernel cannot read it in place
//!   for a panel of B              streams from L2, L3 or memory, once a block
//!     for a block in K            nearly always one: the sums stay in registers
//!       for a tile of rows        the kernel, then the epilogue while its sums are in L1
//! ```
//!
//! Of floats that are widened, the panels of a share may all stay in L2 as they are read, and the few rows
//! of a block in L1 ([`Plan::resident`]).
//!
//! Integer sums start at `bias − (shift + Z_a) · colsum(B)`, plus `Z_b · (K · Z_a − rowsum(A))`
//! where one `Z_b` serves all columns, so zero points, the shift and the bias cost nothing. Where
//! rows of A have zero points of their own, products with `colsum(B)` are added; where columns of B
//! have, each tile starts at sums in memory.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ops::Range;

use crate::arch::l2_bytes;
use crate::columns::{Columns, SetColumns};
use crate::gemm::Target;
use crate::isa::{Task, Tier};
use crate::kernel::{
    Acc, Ahead, Init, LhsTile, Microkernel, Products, RhsPanel, Scaling, TileMut, Unpacked,
};
use crate::out::{Out, Rows};
use crate::pack::{PackedRef, Panels};
use crate::plan::{L1_PANEL, Plan, stacked_rows, tall_rows};
use crate::source::{Copy, Source};
use crate::store::{Steps, Store, Tile, store_tile};
use crate::workspace::Line;
use crate::{Epilogue, Threads, ZeroPoint, ZeroPoints};

/// Bytes of packed B from which on the next panel is asked for while one is multiplied by so many rows
/// in tiles of a height; none where that is never.
///
/// Of several tiles other data takes a part of L2. One tile alone reads B once: where L2 holds a part
/// of B, asking for it costs up to half the speed, from L3 a tenth; from memory two rows without are a
/// sixth slower and four a third, while one row reads as fast (Emerald Rapids).
fn far_bytes(rows: usize, height: usize) -> Option<usize> {
    match rows {
        ..=1 => None,
        // Tests are of small products.
        _ if cfg!(test) => Some(1),
        2 => Some(16 * l2_bytes()),
        _ if rows <= height => Some(3 * l2_bytes()),
        _ => Some(512 << 10),
    }
}

/// The operands of a call; the loop nest takes those whose shapes were checked against each other.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    pub(crate) a: Source<'a>,
    pub(crate) b: PackedRef<'a>,
    pub(crate) zp: ZeroPoints<'a>,
    pub(crate) epilogue: &'a Epilogue<'a>,
    /// A factor that the scales of columns are multiplied with first: a scale of A.
    pub(crate) a_scale: Option<f32>,
}

/// What sums need that depends on the row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowTerms {
    None,
    /// One number a row: a zero point of B, the same for all columns.
    Add,
    /// The same, and one a row times the sum of the column: zero points of rows.
    Products,
    /// A number a row and column: zero points of columns, with or without those of rows.
    Outer,
}

impl RowTerms {
    /// Whether the sums of a tile start at numbers in memory.
    fn in_memory<K: Microkernel>(self) -> bool {
        match self {
            RowTerms::None | RowTerms::Add => false,
            RowTerms::Products => !K::PRODUCTS,
            RowTerms::Outer => true,
        }
    }
}

impl Operands<'_> {
    /// Whether sums need nothing that depends on the row.
    pub(crate) fn rows_are_alike(&self) -> bool {
        self.row_terms() == RowTerms::None
    }

    pub(crate) fn row_terms(&self) -> RowTerms {
        let shift = self.b.shift();
        let b_alike = match self.zp.b {
            ZeroPoint::Tensor(_) => true,
            ZeroPoint::Vector(z) => z.iter().all(|&z| z.wrapping_add(shift) == 0),
        };
        match self.zp.a {
            _ if !b_alike => RowTerms::Outer,
            ZeroPoint::Vector(_) => RowTerms::Products,
            ZeroPoint::Tensor(_) if self.b_zero() != 0 => RowTerms::Add,
            ZeroPoint::Tensor(_) => RowTerms::None,
        }
    }

    /// The zero point of B as it is packed, where all columns have the same.
    fn b_zero(&self) -> i32 {
        match self.zp.b {
            ZeroPoint::Tensor(z) => z.wrapping_add(self.b.shift()),
            ZeroPoint::Vector(_) => 0,
        }
    }
}

/// Computes `out = epilogue((A − Z_a) · (B − Z_b))` of some rows and columns; `mem` holds the plan's
/// lines.
pub(crate) fn run<K: Microkernel>(
    tier: K::Home,
    operands: &Operands<'_>,
    packed: &[K::Rhs],
    &Target { out, steps, .. }: &Target<'_>,
    plan: &Plan,
    mem: &mut [Line],
    threads: Threads<'_>,
) {
    let steps = match steps {
        // Nothing is left to do to sums of floats, so they need no way through memory.
        Steps::Floats { .. } if !K::Acc::INTEGER && operands.epilogue.is_plain() => Steps::Sums,
        steps => steps,
    };
    let (columns, shares) = mem.split_at_mut(plan.column_lines);
    let columns = tier.enter(SetColumns::<K> {
        scaled: !matches!(steps, Steps::Sums),
        operands,
        plan,
        mem: columns,
        kernel: PhantomData,
    });
    let store = Store {
        steps,
        row_scale: operands.epilogue.row_scale,
        residual: operands.epilogue.residual,
    };
    threads.for_each(plan.shares(), shares, plan.share_lines, &|index, mem| {
        let (rows, panels) = plan.share::<K>(index);
        // Shares are disjoint: no two have both a row and a panel in common.
        tier.enter(Share::<K> {
            plan,
            operands,
            packed,
            columns: &columns,
            store: &store,
            out,
            rows,
            panels,
            mem,
            kernel: K::from(tier),
        });
    });
}

/// One share of the output: the loop nest.
struct Share<'a, K: Microkernel> {
    plan: &'a Plan,
    operands: &'a Operands<'a>,
    packed: &'a [K::Rhs],
    columns: &'a Columns<'a, K::Acc>,
    store: &'a Store<'a>,
    out: Out<'a>,
    rows: Range<usize>,
    panels: Range<usize>,
    mem: &'a mut [Line],
    kernel: K,
}

impl<K: Microkernel> Task for Share<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, tier: T) {
        let plan = self.plan;
        let (lhs, mem) = self.mem.split_at_mut(plan.lhs_lines);
        let (acc, terms) = mem.split_at_mut(plan.acc_lines);
        let (u, terms) = terms.split_at_mut(plan.term_lines);
        let (v, unpacked) = terms.split_at_mut(plan.term_lines);
        let in_place = self.operands.a.in_place::<K>(self.kernel, plan);
        // Nobody asks where the kernel reads A in place.
        let lies = match in_place {
            None => self.operands.a.lies(),
            Some(_) => None,
        };
        // Where all of A stays in L1, stacks of tiles gain more than copying meanwhile.
        let few = K::STACKS && plan.in_l1::<K::Lhs>(self.rows.len());
        let mut nest = Nest::<T, K> {
            tier,
            kernel: self.kernel,
            plan,
            operands: self.operands,
            packed: self.packed,
            columns: self.columns,
            sink: Sink {
                tier,
                kernel: self.kernel,
                store: self.store,
                out: self.out,
            },
            row_terms: self.operands.row_terms(),
            in_place,
            shift: self.operands.a.shift::<K>() != 0,
            copies: match in_place {
                Some(_) => Copies::None,
                None if few => Copies::Block,
                None if self.panels.len() == 1 && plan.block_depth >= plan.depth => {
                    Copies::OnePlace
                }
                None if lies.is_some() => Copies::Tile,
                None => Copies::Block,
            },
            first_row: self.rows.start,
            lies: lies.filter(|_| K::asks()),
            lhs: bytemuck::cast_slice_mut(lhs),
            acc: bytemuck::cast_slice_mut(acc),
            u: bytemuck::cast_slice_mut(u),
            v: bytemuck::cast_slice_mut(v),
            unpacked: bytemuck::cast_slice_mut(&mut unpacked[..plan.unpack_lines]),
        };
        // No `step_by`, which divides.
        let mut start = self.rows.start;
        while start < self.rows.end {
            let end = self.rows.end.min(start + plan.block_rows);
            nest.block(start..end, self.panels.clone());
            start = end;
        }
    }
}

/// When rows of A are copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copies {
    /// Never: the kernel reads them in place.
    None,
    /// A block before its first panel.
    Block,
    /// A tile before its first panel; the tile before it has asked memory for its rows, of kernels that
    /// [ask](Microkernel::asks).
    Tile,
    /// The same, to one place for all, which is in L1 then: where only one panel meets it.
    OnePlace,
}

/// A panel of B over a block in K.
#[derive(Clone, Copy)]
struct Part {
    p: usize,
    /// Its place among the panels of the share.
    index: usize,
    k0: usize,
    depth: usize,
}

/// What the loops of a share have in common.
struct Nest<'a, T, K: Microkernel> {
    tier: T,
    kernel: K,
    plan: &'a Plan,
    operands: &'a Operands<'a>,
    packed: &'a [K::Rhs],
    columns: &'a Columns<'a, K::Acc>,
    sink: Sink<'a, T, K>,
    row_terms: RowTerms,
    /// A as the caller holds it with its row stride, if the kernel can read that.
    in_place: Option<(&'a [K::Lhs], usize)>,
    /// Whether the kernel shifts what it reads in place.
    shift: bool,
    copies: Copies,
    /// The share's first row.
    first_row: usize,
    /// Where rows of A lie that are copied, if tiles ask for them.
    lies: Option<(*const u8, usize)>,
    /// A copied for the kernel.
    lhs: &'a mut [K::Lhs],
    /// The tile buffer.
    acc: &'a mut [K::Acc],
    /// Row terms: `u` is multiplied with the column sum, `v` of outer ones with the zero point of
    /// the column; others are added.
    u: &'a mut [i32],
    v: &'a mut [i32],
    /// A panel of B as the kernel unpacked it; empty where it does not.
    unpacked: &'a mut [u8],
}

impl<T: Tier, K: Microkernel> Nest<'_, T, K> {
    /// Copies rows of A to row `at` of the copy as the kernel reads them, from `k0` on for `depth`, as
    /// [`Copy`] does.
    #[inline(always)]
    fn copy_rows(&mut self, rows: Range<usize>, at: usize, k0: usize, depth: usize) {
        self.tier.enter(Copy::<K> {
            source: &self.operands.a,
            rows,
            k0,
            depth,
            stride: self.plan.lhs_stride,
            to: &mut self.lhs[at * self.plan.lhs_stride..],
            kernel: self.kernel,
        });
    }

    /// What `Z_b`, and a `Z_a` of each row, add to the sums.
    #[inline(always)]
    fn set_row_terms(&mut self, rows: Range<usize>) {
        let Operands { a, zp, .. } = self.operands;
        let factor = match self.row_terms {
            RowTerms::Outer => 1,
            _ => self.operands.b_zero(),
        };
        for (i, (u, v)) in rows.zip(self.u.iter_mut().zip(&mut *self.v)) {
            let za = zp.a.at(i);
            *u = match zp.a {
                // Already in what the sums start at.
                ZeroPoint::Tensor(_) => 0,
                ZeroPoint::Vector(_) => za.wrapping_neg(),
            };
            *v = match factor {
                0 => 0,
                // K was checked against i32 by the depth bound.
                _ => (self.plan.k as i32)
                    .wrapping_mul(za)
                    .wrapping_sub(a.sum(self.tier, i))
                    .wrapping_mul(factor),
            };
        }
    }

    /// A block of rows against all panels of the share.
    #[inline(always)]
    fn block(&mut self, rows: Range<usize>, panels: Range<usize>) {
        if self.row_terms != RowTerms::None {
            self.set_row_terms(rows.clone());
        }
        if self.copies == Copies::Block {
            self.copy_rows(rows.clone(), 0, 0, self.plan.depth);
        }
        for p in panels.clone() {
            let mut k0 = 0;
            loop {
                let depth = self.plan.block_depth.min(self.plan.depth - k0);
                let part = Part {
                    p,
                    index: p - panels.start,
                    k0,
                    depth,
                };
                if k0 == 0 && self.row_terms.in_memory::<K>() {
                    self.panel::<true>(rows.clone(), part);
                } else {
                    self.panel::<false>(rows.clone(), part);
                }
                k0 += depth;
                if k0 >= self.plan.depth {
                    break;
                }
            }
        }
    }

    /// A block of rows against a panel of B, over one block in K; `STARTED`: its sums start at
    /// numbers in memory.
    #[inline(always)]
    fn panel<const STARTED: bool>(&mut self, rows: Range<usize>, part: Part) {
        let Part {
            p,
            index,
            k0,
            depth,
        } = part;
        let panels = Panels::new::<K>(self.plan.n);
        let (cols, width) = (panels.cols(p), panels.width(p));
        let at = cols.start * self.plan.depth + k0 * width;
        let outliers = self.operands.b.outliers.map(|all| all.panel(p, width));
        let b = RhsPanel::new(&self.packed[at..][..depth * width], width)
            .with_outliers(outliers.as_ref());
        let unpacks = K::UNPACKED > 0 && !self.unpacked.is_empty();
        let resident = unpacks && self.plan.resident;
        let bytes = b.data().len() * K::UNPACKED;
        let before = if resident {
            index * K::NR * depth * K::UNPACKED
        } else {
            0
        };
        let unpacked = before..before + bytes;
        // Unpacked by the first tile, or before it, unless the first block did.
        let done = resident && rows.start > self.first_row;
        let mut fresh = unpacks && !done;
        if fresh && !(K::UNPACKS_MEANWHILE && rows.len() >= K::ROWS[width / K::UNIT - 1]) {
            self.kernel.unpack(b, &mut self.unpacked[unpacked.clone()]);
            fresh = false;
        }
        let columns = self.columns;
        let last = k0 + depth == self.plan.depth;
        let cut = self.plan.block_depth < self.plan.depth;
        // Sums that need nothing more can go to the output without the tile buffer.
        let whole = width == cols.len() || K::MASKS && !cut;
        let init_cols = columns.init(cols.start..cols.start + width);
        let height = K::ROWS[width / K::UNIT - 1];
        let sink = self.sink;
        let multiplied = K::PRODUCTS && self.row_terms == RowTerms::Products;
        // Beside products there is something to add only where B has a zero point.
        let added = multiplied && self.operands.b_zero() != 0 || self.row_terms == RowTerms::Add;
        let sums = self.operands.b.padded_col_sums();
        // The next panel lies behind this one: every tile asks for its part of it, if that will be read.
        let next = self.packed.get(at + depth * width..).unwrap_or_default();
        let size = size_of_val(self.packed);
        let asks = !done && !next.is_empty() && K::asks();
        let asks = asks && far_bytes(rows.len(), height).is_some_and(|least| size >= least);
        let mut ahead = asks.then(|| Ahead {
            at: next.as_ptr().cast(),
            step: width * K::KG * size_of::<K::Rhs>() / rows.len().div_ceil(height),
        });

        // Where sums need no buffer, one call multiplies several tiles.
        let copies = match self.copies {
            Copies::Tile if index > 0 || k0 > 0 => Copies::None,
            copies => copies,
        };
        let tile_by_tile = matches!(copies, Copies::Tile | Copies::OnePlace);
        let lies = self.lies.filter(|_| tile_by_tile);
        let stacks = K::STACKS && whole && !(STARTED || tile_by_tile);
        let row_scale = sink.store.row_scale;
        let stacks = stacks && sink.stacks(width == cols.len(), cut, row_scale);
        let far = size_of_val(b.data()) > L1_PANEL;
        let tall = tall_rows::<K>(rows.len(), cols.len(), size_of_val(b.data()), size);
        let (mut start, mut tile) = (rows.start, 0);
        while start < rows.end {
            let left = rows.end - start;
            let mut count = if stacks && !fresh {
                stacked_rows(left, height, far, tall)
            } else {
                left.min(height)
            };
            let first = start - rows.start;
            let stride = self.plan.acc_stride;
            // The tile buffer holds the rows of a block, or this tile and the next.
            let buffer = |tile: usize| tile * height * stride;
            let at = buffer(if cut { tile } else { tile % 2 });
            if STARTED {
                let cols = cols.start..cols.start + width;
                if tile == 0 {
                    self.start_sums(at, 0..count, cols.clone());
                }
                // One tile ahead: loads of what was just stored in narrower vectors would wait.
                let next = (first + height).min(rows.len())..(first + 2 * height).min(rows.len());
                let at = buffer(if cut { tile + 1 } else { (tile + 1) % 2 });
                if !next.is_empty() {
                    self.start_sums(at, next, cols);
                }
            }
            let a = match self.in_place {
                // The last group of a row may read on into what follows (B is zero there), but
                // not beyond the slice: such a tile is copied, alone.
                Some((a, stride)) => {
                    let a = &a[start * stride + k0..];
                    let fits = |rows| {
                        let span = LhsTile::<K::Lhs>::span(rows, stride, depth);
                        span.is_some_and(|n| n <= a.len())
                    };
                    if count > height && count.is_multiple_of(height) && !fits(count) {
                        count -= height;
                    }
                    if fits(count) {
                        LhsTile::new(a, count, stride, depth).with_shift(self.shift)
                    } else {
                        self.copy_rows(start..start + count, 0, k0, depth);
                        LhsTile::new(self.lhs, count, self.plan.lhs_stride, depth)
                    }
                }
                None if copies == Copies::OnePlace => {
                    self.copy_rows(start..start + count, 0, k0, depth);
                    LhsTile::copied::<K>(self.lhs, count, self.plan.lhs_stride, depth)
                }
                None => {
                    if copies == Copies::Tile {
                        self.copy_rows(start..start + count, first, 0, self.plan.depth);
                    }
                    let stride = self.plan.lhs_stride;
                    let a = &self.lhs[first * stride + k0 * K::LHS_ROWS..];
                    LhsTile::copied::<K>(a, count, stride, depth)
                }
            };
            let tile_rows = start..start + count;
            start += count;
            tile += 1;
            // Where rows lie may be anywhere: nothing is read there.
            if let Some((at, bytes)) = lies {
                let groups = (depth / K::KG).max(1);
                ahead = Some(Ahead {
                    at: at.wrapping_add(start.wrapping_mul(bytes)),
                    step: bytes.wrapping_mul(count.min(height)).div_ceil(groups),
                });
            }
            let b = b.with_ahead(ahead);
            if let (Some(ahead), None) = (&mut ahead, lies) {
                let tiles = count.div_ceil(height);
                ahead.at = ahead.at.wrapping_add(tiles * ahead.step * (depth / K::KG));
            }
            let b = if fresh {
                let all = Cell::from_mut(&mut *self.unpacked).as_slice_of_cells();
                b.with_unpacked(Unpacked::Meanwhile(&all[unpacked.clone()]))
            } else if unpacks {
                b.with_unpacked(Unpacked::Done(&self.unpacked[unpacked.clone()]))
            } else {
                b
            };
            fresh = false;
            let scaling = Scaling {
                scale: &columns.scale[cols.start..],
                bias: columns.bias.map(|b| &b[cols.start..]),
                rows: sink.store.row_scale.map(|rows| &rows[tile_rows.clone()]),
                small: columns.small,
            };
            let products = multiplied.then(|| Products {
                rows: bytemuck::cast_slice(&self.u[first..][..count]),
                columns: bytemuck::cast_slice(&sums[cols.start..][..width]),
                cut: columns
                    .cut
                    .map(|all| bytemuck::cast_slice(&all[cols.start..][..width])),
            });
            let alike = Init {
                start: init_cols,
                stride: 0,
                rows: added.then(|| bytemuck::cast_slice(&self.v[first..][..count])),
                products: products.as_ref(),
            };
            let init = (k0 == 0).then(|| match STARTED {
                false => alike,
                true => Init {
                    start: &self.acc[at..at + count * stride],
                    stride,
                    rows: None,
                    products: None,
                },
            });
            if whole && sink.straight((a, b), init, last, scaling, tile_rows.clone().into(), &cols)
            {
                continue;
            }
            let init = (k0 == 0 && !STARTED).then_some(alike);
            let acc = &mut self.acc[at..at + count * stride];
            self.kernel
                .accumulate(a, b, init, &mut TileMut::new(acc, stride, count, stride));
            if last {
                self.sink
                    .store(acc, stride, tile_rows.into(), &cols, scaling);
            }
        }
    }

    /// Writes what the sums of a tile start at where that is no sum of a row's and a column's:
    /// `rows` of the block, and columns of whole units.
    #[inline(always)]
    fn start_sums(&mut self, at: usize, rows: Range<usize>, cols: Range<usize>) {
        let init = self.columns.init(cols.clone());
        let sums = &self.operands.b.padded_col_sums()[cols.clone()];
        let zb = &self.columns.zb[cols];
        let outer = self.row_terms == RowTerms::Outer;
        let acc = self.acc[at..].chunks_exact_mut(self.plan.acc_stride);
        for (acc, r) in acc.zip(rows) {
            let (u, v) = (self.u[r], self.v[r]);
            let acc = acc.iter_mut().zip(init.iter().zip(sums));
            if outer {
                for ((acc, (init, sum)), zb) in acc.zip(zb) {
                    *acc = init.plus(sum.wrapping_mul(u).wrapping_add(zb.wrapping_mul(v)));
                }
            } else {
                for (acc, (init, sum)) in acc {
                    *acc = init.plus(sum.wrapping_mul(u).wrapping_add(v));
                }
            }
        }
    }
}

/// What multiplies tiles, and where they go.
#[derive(Clone, Copy)]
pub(crate) struct Sink<'a, T, K> {
    pub(crate) tier: T,
    pub(crate) kernel: K,
    pub(crate) store: &'a Store<'a>,
    pub(crate) out: Out<'a>,
}

impl<T: Tier, K: Microkernel> Sink<'_, T, K> {
    /// Whether [`straight`](Self::straight) multiplies tiles in stacks: of panels that the output
    /// fills or not, over K that is cut or not, with these scales of rows.
    pub(crate) fn stacks(&self, full: bool, cut: bool, rows: Option<&[f32]>) -> bool {
        match self.store.steps {
            Steps::Sums => true,
            Steps::Bf16 { .. } => false,
            _ => K::FINISHES && (full || K::MASKS) && !cut && self.store.by_steps(rows),
        }
    }

    /// Multiplies a tile, or a stack of them, straight into the output; `false`, and nothing done, where sums have to go
    /// through memory. `last`: no more of K follows.
    ///
    /// The tile belongs to the caller's share alone.
    #[inline(always)]
    pub(crate) fn straight(
        &self,
        (a, b): (LhsTile<'_, K::Lhs>, RhsPanel<'_, K::Rhs>),
        init: Option<Init<'_, K::Acc>>,
        last: bool,
        scaling: Scaling<'_>,
        rows: Rows,
        cols: &Range<usize>,
    ) -> bool {
        if matches!(self.store.steps, Steps::Sums) {
            // SAFETY: the tile belongs to this share, nothing else of it is borrowed, and outputs
            // that are sums are made of them: i32, or f32 of floats.
            let mut out = unsafe { self.out.sums(rows, cols.clone()) };
            self.kernel.accumulate(a, b, init, &mut out);
            return true;
        }
        let (Some(init), true, true) = (init, last, self.store.by_steps(scaling.rows)) else {
            return false;
        };
        // SAFETY: the tile belongs to this share, and nothing else of it is borrowed.
        let mut out = unsafe { self.out.tile(rows, cols.clone()) };
        let steps = &self.store.steps;
        self.kernel.finish(a, b, init, scaling, steps, &mut out)
    }

    /// The epilogue of sums in memory, rows `stride` apart.
    #[inline(always)]
    pub(crate) fn store(
        &self,
        acc: &[K::Acc],
        stride: usize,
        rows: Rows,
        cols: &Range<usize>,
        scaling: Scaling<'_>,
    ) {
        let tile = Tile {
            acc,
            stride,
            rows,
            col: cols.start,
            cols: cols.len(),
            scale: scaling.scale,
            bias: scaling.bias,
        };
        self.tier.enter(StoreTile {
            store: self.store,
            tile: &tile,
            out: &self.out,
        });
    }
}

/// Stores a tile that belongs to one share alone.
///
/// It enters the door by itself, so that it is compiled once a tier and not once a kernel.
struct StoreTile<'a, A> {
    store: &'a Store<'a>,
    tile: &'a Tile<'a, A>,
    out: &'a Out<'a>,
}

impl<A: Acc> Task for StoreTile<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) {
        let (out, rows, col) = (self.out, self.tile.rows, self.tile.col);
        store_tile(self.store, self.tile, |r, at, bytes| {
            // SAFETY: the tile's part of the output belongs to this share alone, and `store_tile`
            // is done with one part before it asks for the next.
            unsafe { out.part(rows.at(r), col + at, bytes) }
        });
    }
}
