//! Weights split so that saturating products of bytes are exact: `W = W' + E`, E sparse.
//!
//! AVX2's multiplication of unsigned by signed bytes adds two products in 16 bits, where two large
//! weights saturate. Four products of one column, two such sums, fit if the positive weights among
//! the four sum to at most 128 and the negative ones to at least −128: `255 · 128 < 2^15`. Where
//! they do not, what is too much of a weight is its outlier, and goes to E. Bell-shaped weights
//! have few, and which steps of K share a sum is free, so steps are paired such that there are
//! fewer: 1.2 % of weights whose deviation is 37 are split. (The idea of outliers is FBGEMM's:
//! Khudia et al. 2021, arXiv:2101.05615.)
//!
//! All of it is found from the packed weights themselves and is never stored with them, so bytes
//! from elsewhere cannot claim what does not hold.

#![allow(dead_code, reason = "only tiers that split weights use it")]

use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::isa::{Task, Tier};
use crate::kernel::Microkernel;
use crate::pack::Panels;

/// Neighbours in K that an instruction eats in one column: two in each of two lanes.
pub(crate) const QUAD: usize = 4;

/// The deepest product: quads are counted in 16 bits, and a panel has to stay in L2.
pub(crate) const MAX_DEPTH: usize = 8192;

/// The most columns of a panel.
const MAX_WIDTH: usize = 16;

/// What weights of one sign that meet in a lane may sum to: 255 times this fits i16.
const MOST: i32 = 128;

/// Quads among which partners are looked for. Half of it splits a tenth more weights; the search takes
/// time in proportion.
pub(crate) const WINDOW: usize = 128;

/// If more weights of a hundred were split, all stay together: at 5 the products of outliers take about
/// a third of the time, at 8 as much as is won.
const MOST_SPLIT_PERCENT: usize = 5;

/// Two quads of E in one column; their products fit one sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Group {
    /// What the weights of the quads are too much.
    pub(crate) excess: [[i8; QUAD]; 2],
    /// Which quads in K.
    pub(crate) quads: [u16; 2],
    /// Column of the panel.
    pub(crate) column: u32,
}

/// Four weights of W' that differ from W.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patch {
    /// Where they lie in a panel of quads in their order.
    pub(crate) at: u32,
    pub(crate) weights: [i8; QUAD],
}

/// How all panels of packed weights are split.
#[derive(Debug, Clone)]
pub(crate) struct Outliers {
    quads: usize,
    width: usize,
    /// For each panel, all quads in the order in which neighbours share sums; of an odd number the
    /// last has none.
    order: Vec<u16>,
    patches: Vec<Patch>,
    groups: Vec<Group>,
    /// Where the patches and the groups of each panel end.
    ends: Vec<[usize; 2]>,
}

/// How one panel is split.
///
/// Quads of `order` and `groups` are below [`quads`](Self::quads), and columns are those of the
/// panel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PanelOutliers<'a> {
    order: &'a [u16],
    patches: &'a [Patch],
    groups: &'a [Group],
    width: usize,
}

impl<'a> PanelOutliers<'a> {
    /// Number of quads in K.
    pub(crate) fn quads(&self) -> usize {
        self.order.len()
    }

    /// Columns in whole units.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn order(&self) -> &'a [u16] {
        self.order
    }

    pub(crate) fn patches(&self) -> &'a [Patch] {
        self.patches
    }

    pub(crate) fn groups(&self) -> &'a [Group] {
        self.groups
    }
}

impl Outliers {
    /// Bytes that they take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.order.as_slice())
            + size_of_val(self.patches.as_slice())
            + size_of_val(self.groups.as_slice())
            + size_of_val(self.ends.as_slice())
    }

    /// Those of panel `p`, which is `width` wide.
    pub(crate) fn panel(&self, p: usize, width: usize) -> PanelOutliers<'_> {
        let [patches, groups] = p.checked_sub(1).map_or([0, 0], |before| self.ends[before]);
        let [patches_end, groups_end] = self.ends[p];
        // Only the last panel is narrower than the first.
        assert!(width == self.width || p + 1 == self.ends.len());
        PanelOutliers {
            order: &self.order[p * self.quads..][..self.quads],
            patches: &self.patches[patches..patches_end],
            groups: &self.groups[groups..groups_end],
            width,
        }
    }
}

/// Finds the outliers of bytes that are packed for a kernel as `k × n`; `None` where there are too
/// many, or the shape does not allow it.
pub(crate) struct Find<'a, K> {
    packed: &'a [i8],
    k: usize,
    n: usize,
    kernel: PhantomData<K>,
}

impl<'a, K> Find<'a, K> {
    pub(crate) fn new(packed: &'a [i8], k: usize, n: usize) -> Self {
        Find {
            packed,
            k,
            n,
            kernel: PhantomData,
        }
    }
}

impl<K: Microkernel> Task for Find<'_, K> {
    type Output = Option<Outliers>;

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) -> Option<Outliers> {
        const { assert!(K::NR <= MAX_WIDTH && QUAD.is_multiple_of(K::KG)) };
        let depth = self.k.next_multiple_of(K::K_UNIT);
        if depth == 0 || !depth.is_multiple_of(QUAD) || depth > MAX_DEPTH {
            return None;
        }
        let panels = Panels::new::<K>(self.n);
        let mut found = Outliers {
            quads: depth / QUAD,
            width: K::NR,
            order: Vec::new(),
            patches: Vec::new(),
            groups: Vec::new(),
            ends: Vec::new(),
        };
        let mut quads = Vec::new();
        for p in 0..panels.count() {
            let (cols, width) = (panels.cols(p), panels.width(p));
            let panel = &self.packed[cols.start * depth..][..width * depth];
            quads.clear();
            quads.extend((0..found.quads).map(|q| Quad::new::<K>(panel, width, q)));
            found.split_panel(&quads, cols.len(), width);
            // The first panels decide for nearly all matrices that stay together.
            let weights = (cols.start + width) * depth;
            if found.patches.len() * 100 > weights * MOST_SPLIT_PERCENT {
                return None;
            }
        }
        found.order.shrink_to_fit();
        found.patches.shrink_to_fit();
        found.groups.shrink_to_fit();
        Some(found)
    }
}

/// A quad of all columns of a panel, and what its lanes sum to: two a column.
#[derive(Clone, Copy)]
struct Quad {
    weights: [[i8; QUAD]; MAX_WIDTH],
    positive: [u8; 2 * MAX_WIDTH],
    negative: [u8; 2 * MAX_WIDTH],
}

impl Quad {
    #[inline(always)]
    fn new<K: Microkernel>(panel: &[i8], width: usize, q: usize) -> Quad {
        let mut weights = [[0; QUAD]; MAX_WIDTH];
        for (i, k) in (q * QUAD..(q + 1) * QUAD).enumerate() {
            let group = &panel[k / K::KG * K::KG * width..][..K::KG * width];
            for (to, from) in weights.iter_mut().zip(group.chunks_exact(K::KG)) {
                to[i] = from[k % K::KG];
            }
        }
        let (mut positive, mut negative) = ([0; 2 * MAX_WIDTH], [0; 2 * MAX_WIDTH]);
        for (lane, pair) in weights.as_flattened().as_chunks::<2>().0.iter().enumerate() {
            let sum =
                |sign: i32| -> i32 { pair.iter().map(|&w| (sign * i32::from(w)).max(0)).sum() };
            // Beyond what fits, how much does not matter.
            positive[lane] = sum(1).min(255) as u8;
            negative[lane] = sum(-1).min(255) as u8;
        }
        Quad {
            weights,
            positive,
            negative,
        }
    }

    /// Whether lane `i` does not fit if these two share sums: of the positive weights, of the
    /// negative ones.
    #[inline(always)]
    fn conflict_of_signs(&self, other: &Quad, i: usize) -> [bool; 2] {
        [
            self.positive[i].saturating_add(other.positive[i]) > MOST as u8,
            self.negative[i].saturating_add(other.negative[i]) > MOST as u8,
        ]
    }

    fn conflict(&self, other: &Quad, lane: usize) -> bool {
        self.conflict_of_signs(other, lane) != [false; 2]
    }

    /// Lanes that do not fit if these two share sums, counted for each sign; at most 64.
    #[inline(always)]
    fn conflicts(&self, other: &Quad) -> u8 {
        let mut count = 0;
        for i in 0..2 * MAX_WIDTH {
            let [positive, negative] = self.conflict_of_signs(other, i);
            count += u8::from(positive) + u8::from(negative);
        }
        count
    }
}

/// The most conflicts of two quads.
const CONFLICTS: usize = 4 * MAX_WIDTH;

impl Outliers {
    #[inline(always)]
    fn split_panel(&mut self, quads: &[Quad], columns: usize, width: usize) {
        let start = self.order.len();
        for (i, window) in quads.chunks(WINDOW).enumerate() {
            pair_up(window, i * WINDOW, &mut self.order);
        }
        let first = self.groups.len();
        let mut turns = Vec::new();
        for column in 0..columns {
            let before = self.groups.len();
            let mut open: Option<Group> = None;
            for (pair, both) in self.order[start..].chunks(2).enumerate() {
                if let &[a, b] = both {
                    let (a, b) = (&quads[usize::from(a)], &quads[usize::from(b)]);
                    if !(2 * column..2 * column + 2).any(|lane| a.conflict(b, lane)) {
                        continue;
                    }
                }
                let mut weights = [[0; QUAD]; 2];
                for (to, &q) in weights.iter_mut().zip(both) {
                    *to = quads[usize::from(q)].weights[column];
                }
                let (rest, excess) = split(weights);
                for (half, &quad) in both.iter().enumerate() {
                    if excess[half] == [0; QUAD] {
                        continue;
                    }
                    self.patches.push(Patch {
                        at: (((2 * pair + half) * width + column) * QUAD) as u32,
                        weights: rest[half],
                    });
                    for excess in alone(excess[half]).into_iter().flatten() {
                        open = match open {
                            Some(mut group) if fits(&[group.excess[0], excess]) => {
                                group.excess[1] = excess;
                                group.quads[1] = quad;
                                self.groups.push(group);
                                None
                            }
                            other => {
                                self.groups.extend(other);
                                Some(Group {
                                    excess: [excess, [0; QUAD]],
                                    quads: [quad; 2],
                                    column: column as u32,
                                })
                            }
                        };
                    }
                }
            }
            self.groups.extend(open);
            turns.extend(0..self.groups.len() - before);
        }
        // Columns take turns: the next group of one adds to what was just stored.
        let mut order: Vec<_> = turns.into_iter().zip(self.groups.drain(first..)).collect();
        order.sort_by_key(|&(turn, group)| (turn, group.column));
        self.groups
            .extend(order.into_iter().map(|(_, group)| group));
        self.ends.push([self.patches.len(), self.groups.len()]);
    }
}

/// Appends the quads of a window, the first of which is `first`, so that neighbours conflict little:
/// of all pairs, those with the fewest conflicts are taken first.
#[inline(always)]
fn pair_up(quads: &[Quad], first: usize, order: &mut Vec<u16>) {
    const PAIRS: usize = WINDOW * (WINDOW - 1) / 2;
    let mut pairs = [(0u8, 0u8, 0u8); PAIRS];
    let mut starts = [0usize; CONFLICTS + 2];
    let mut count = 0;
    for (i, a) in quads.iter().enumerate() {
        for (j, b) in quads[..i].iter().enumerate() {
            let conflicts = a.conflicts(b);
            pairs[count] = (conflicts, i as u8, j as u8);
            starts[usize::from(conflicts) + 1] += 1;
            count += 1;
        }
    }
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    let mut sorted = [(0u8, 0u8); PAIRS];
    for &(conflicts, i, j) in &pairs[..count] {
        let at = &mut starts[usize::from(conflicts)];
        sorted[*at] = (i, j);
        *at += 1;
    }
    let mut used = [false; WINDOW];
    // Fits: a quad's number is that of at most `MAX_DEPTH / QUAD`.
    let mut push = |i: u8| order.push((first + usize::from(i)) as u16);
    for &(i, j) in &sorted[..count] {
        if !used[usize::from(i)] && !used[usize::from(j)] {
            (used[usize::from(i)], used[usize::from(j)]) = (true, true);
            push(i);
            push(j);
        }
    }
    for (i, used) in used[..quads.len()].iter().enumerate() {
        if !used {
            push(i as u8);
        }
    }
}

/// The part of a weight that has this sign, without it.
fn part(weight: i8, sign: i32) -> i32 {
    (sign * i32::from(weight)).max(0)
}

/// What quads that share sums have of one sign in a lane.
fn in_lane(quads: &[[i8; QUAD]], lane: usize, sign: i32) -> i32 {
    let lanes = quads.iter().flat_map(|quad| &quad[2 * lane..2 * lane + 2]);
    lanes.map(|&weight| part(weight, sign)).sum()
}

/// Lanes and signs.
const CASES: [(usize, i32); 4] = [(0, 1), (0, -1), (1, 1), (1, -1)];

/// Whether quads fit the sums that they share.
fn fits(quads: &[[i8; QUAD]]) -> bool {
    CASES
        .iter()
        .all(|&(lane, sign)| in_lane(quads, lane, sign) <= MOST)
}

/// Two quads that share sums as what fits, and what is too much: from one of them if that is enough.
fn split(mut quads: [[i8; QUAD]; 2]) -> ([[i8; QUAD]; 2], [[i8; QUAD]; 2]) {
    let excess = |lane, sign| (in_lane(&quads, lane, sign) - MOST).max(0);
    let excesses = CASES.map(|(lane, sign)| (lane, sign, excess(lane, sign)));
    let enough = |half: usize| {
        let mut excesses = excesses.iter();
        excesses.all(|&(lane, sign, excess)| in_lane(&quads[half..=half], lane, sign) >= excess)
    };
    let halves = if enough(0) || !enough(1) {
        [0, 1]
    } else {
        [1, 0]
    };
    let mut taken = [[0; QUAD]; 2];
    for (lane, sign, mut excess) in excesses {
        for half in halves {
            let (one, other) = (2 * lane, 2 * lane + 1);
            let larger = part(quads[half][one], sign) >= part(quads[half][other], sign);
            for i in if larger { [one, other] } else { [other, one] } {
                let weight = &mut quads[half][i];
                let take = excess.min(part(*weight, sign));
                // Between 0 and the weight.
                *weight = (i32::from(*weight) - sign * take) as i8;
                taken[half][i] = (i32::from(taken[half][i]) + sign * take) as i8;
                excess -= take;
            }
        }
    }
    (quads, taken)
}

/// A quad of E as quads that fit alone: one, or two with one weight in each lane.
fn alone(quad: [i8; QUAD]) -> [Option<[i8; QUAD]>; 2] {
    if fits(&[quad]) {
        return [Some(quad), None];
    }
    let [a, b, c, d] = quad;
    [Some([a, 0, c, 0]), Some([0, b, 0, d])]
}
