//! A tensor as pieces that belong to one group each.

use alloc::vec::Vec;
use qformat::granularity::element_count;
use qformat::{FormatError, Granularity};

use crate::CalibError;
use crate::view::TensorView;

/// Values that stay in a core's cache between the pass that finds their ends and the one that
/// counts them.
const PIECE: usize = 1 << 16;

/// Runs shorter than this are gathered before they are handed on: what is done once a piece then
/// weighs little.
const SHORT: usize = 256;

/// Values of which all channels are gathered before the next rows are touched, so that every
/// cache line is fetched from memory once.
const BLOCK: usize = 1 << 18;

/// The most values that are copied at a time.
pub(crate) const COPIED: usize = BLOCK;

/// A shape seen from its axis: `outer × dim × inner` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    outer: usize,
    dim: usize,
    inner: usize,
    /// Neighbours along the axis that share a group, where every position of the other axes has
    /// groups of its own.
    block: Option<usize>,
}

/// Room to copy in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room {
    pub(crate) slab: Vec<f32>,
    gathered: Vec<f32>,
}

/// Checks that a granularity has groups at all.
pub(crate) fn check_granularity(granularity: Granularity) -> Result<(), CalibError> {
    match granularity {
        Granularity::PerBlock { block: 0, .. } => Err(FormatError::Block.into()),
        _ => Ok(()),
    }
}

/// Checks that `argument` has as many values as its shape.
pub(crate) fn check_len(
    argument: &'static str,
    given: usize,
    shape: &[usize],
) -> Result<(), CalibError> {
    let expected = element_count(shape)?;
    if given == expected {
        Ok(())
    } else {
        Err(CalibError::Length {
            argument,
            given,
            expected,
            shape: shape.to_vec(),
        })
    }
}

impl Layout {
    pub(crate) fn new(granularity: Granularity, shape: &[usize]) -> Result<Self, CalibError> {
        check_granularity(granularity)?;
        let (axis, block) = match granularity {
            Granularity::PerTensor => {
                return Ok(Layout {
                    outer: 1,
                    dim: 1,
                    inner: element_count(shape)?,
                    block: None,
                });
            }
            Granularity::PerChannel { axis } => (axis, None),
            Granularity::PerBlock { axis, block } => (axis, Some(block)),
        };
        let rank = shape.len();
        let dim = *shape.get(axis).ok_or(FormatError::Axis { axis, rank })?;
        Ok(Layout {
            outer: element_count(&shape[..axis])?,
            dim,
            inner: element_count(&shape[axis + 1..])?,
            block,
        })
    }

    /// Number of groups: 1 per tensor, the channels per channel, the blocks at all positions of
    /// the other axes per block.
    pub(crate) fn groups(self) -> Result<usize, CalibError> {
        Ok(match self.block {
            None => self.dim,
            Some(block) => element_count(&[self.outer, self.dim.div_ceil(block), self.inner])?,
        })
    }

    /// The largest number of values that one group gets.
    pub(crate) fn share(self) -> usize {
        match self.block {
            // A product of dimensions whose own product fits.
            None => self.outer * self.inner,
            Some(block) => block.min(self.dim),
        }
    }

    /// The values as they lie in memory, where they are a single piece of a single group.
    pub(crate) fn only_piece<'a>(self, x: &TensorView<'a>) -> Option<&'a [f32]> {
        let one = self.block.is_none() && self.dim == 1;
        x.in_place().filter(|x| one && x.len() <= PIECE)
    }

    /// Calls `f` with every piece of a tensor of this layout and its group; each value is in one
    /// piece.
    pub(crate) fn for_each_piece(
        self,
        x: &TensorView<'_>,
        room: &mut Room,
        mut f: impl FnMut(usize, &[f32]),
    ) -> Result<(), CalibError> {
        let Room { slab, gathered } = room;
        if x.is_empty() {
            return Ok(());
        }
        if let Some(x) = x.in_place() {
            self.pieces(0, x, gathered, &mut f);
            return Ok(());
        }
        let row = self.dim * self.inner;
        if self.outer > 1 && row <= BLOCK {
            let rows = BLOCK / row;
            for first in (0..self.outer).step_by(rows) {
                let outer = rows.min(self.outer - first);
                x.copy(first * row, outer * row, slab)?;
                Layout { outer, ..self }.pieces(first, slab, gathered, &mut f);
            }
            return Ok(());
        }
        // Rows too long to copy whole are taken apart along the axis, and runs along themselves.
        let unit = self.block.unwrap_or(1);
        for outer in 0..self.outer {
            for first in (0..self.dim).step_by(unit) {
                let dim = unit.min(self.dim - first);
                let (start, len) = ((outer * self.dim + first) * self.inner, dim * self.inner);
                match self.block {
                    None => {
                        for at in (0..len).step_by(BLOCK) {
                            let n = BLOCK.min(len - at);
                            x.copy(start + at, n, slab)?;
                            slab.chunks(PIECE).for_each(|piece| f(first, piece));
                        }
                    }
                    Some(block) => {
                        x.copy(start, len, slab)?;
                        let number = outer * self.dim.div_ceil(block) + first / block;
                        self.block_pieces(number, dim, slab, gathered, &mut f);
                    }
                }
            }
        }
        Ok(())
    }

    /// The same for the row-major rows from `first` of the outer dimension on.
    fn pieces(
        self,
        first: usize,
        x: &[f32],
        gathered: &mut Vec<f32>,
        f: &mut impl FnMut(usize, &[f32]),
    ) {
        let Layout {
            outer, dim, inner, ..
        } = self;
        let row = dim * inner;
        if row == 0 {
            return;
        }
        if let Some(block) = self.block {
            let blocks = dim.div_ceil(block);
            for (at, row) in x.chunks_exact(row).enumerate() {
                // A block may be longer than the axis, by any factor.
                for (b, block) in row.chunks(block.min(dim) * inner).enumerate() {
                    let number = (first + at) * blocks + b;
                    self.block_pieces(number, block.len() / inner, block, gathered, f);
                }
            }
            return;
        }
        // Rows that are gathered together; one needs no gathering.
        let rows = (BLOCK / row).clamp(1, outer.max(1));
        if dim == 1 {
            x.chunks(PIECE).for_each(|piece| f(0, piece));
        } else if inner >= SHORT || rows == 1 {
            for row in x.chunks_exact(row) {
                for (channel, run) in row.chunks_exact(inner).enumerate() {
                    run.chunks(PIECE).for_each(|piece| f(channel, piece));
                }
            }
        } else {
            for block in x.chunks(rows * row) {
                for channel in 0..dim {
                    gathered.clear();
                    if inner == 1 {
                        gathered.extend(block[channel..].iter().step_by(row));
                    } else {
                        for row in block.chunks_exact(row) {
                            gathered.extend_from_slice(&row[channel * inner..][..inner]);
                        }
                    }
                    f(channel, gathered);
                }
            }
        }
    }

    /// The pieces of the `number`-th block of all, `dim × inner` values.
    fn block_pieces(
        self,
        number: usize,
        dim: usize,
        block: &[f32],
        gathered: &mut Vec<f32>,
        f: &mut impl FnMut(usize, &[f32]),
    ) {
        if self.inner == 1 {
            block.chunks(PIECE).for_each(|piece| f(number, piece));
            return;
        }
        for column in 0..self.inner {
            gathered.clear();
            gathered.extend(block[column..].iter().step_by(self.inner).take(dim));
            f(number * self.inner + column, gathered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn granularities(rank: usize) -> impl Iterator<Item = Granularity> {
        (0..rank)
            .flat_map(|axis| {
                let blocks = [1, 2, 3, 100, usize::MAX / 2 + 1, usize::MAX]
                    .map(|block| Granularity::PerBlock { axis, block });
                [Granularity::PerChannel { axis }].into_iter().chain(blocks)
            })
            .chain([Granularity::PerTensor])
    }

    /// The group of every value, which lies at its own index.
    fn groups(g: Granularity, x: &TensorView<'_>) -> Vec<usize> {
        let mut found = vec![usize::MAX; x.len()];
        let layout = Layout::new(g, x.shape()).unwrap();
        let mut most = vec![0; layout.groups().unwrap()];
        layout
            .for_each_piece(x, &mut Room::default(), |group, piece| {
                most[group] += piece.len();
                for &v in piece {
                    assert_eq!(found[v as usize], usize::MAX, "{:?} {g}", x.shape());
                    found[v as usize] = group;
                }
            })
            .unwrap();
        assert_eq!(most.iter().max().copied().unwrap_or(0).min(x.len()), {
            if x.is_empty() { 0 } else { layout.share() }
        });
        found
    }

    /// Every value lands once, in the group that `qformat` puts it in.
    #[test]
    fn pieces_cover_every_value_once_in_its_group() {
        let shapes: [&[usize]; 9] = [
            &[],
            &[7],
            &[3, 5],
            &[100, 3],
            &[5, 3, 300],
            &[40_000, 2],
            &[2, 140_000],
            &[3, 0, 2],
            &[2, 3, 4, 5],
        ];
        for shape in shapes {
            let n = element_count(shape).unwrap();
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            // The same tensor stored with its axes reversed, and with gaps.
            let reversed: Vec<isize> = shape
                .iter()
                .scan(2, |stride, &d| {
                    let s = *stride;
                    *stride *= d as isize;
                    Some(s)
                })
                .collect();
            let mut other = vec![-1.0; 2 * n];
            let mut index = vec![0usize; shape.len()];
            for v in 0..n {
                let mut rest = v;
                for (i, &d) in index.iter_mut().zip(shape).rev() {
                    *i = rest % d;
                    rest /= d;
                }
                let at: usize = index
                    .iter()
                    .zip(&reversed)
                    .map(|(&i, &s)| i * s as usize)
                    .sum();
                other[at] = v as f32;
            }
            for g in granularities(shape.len()) {
                let mut expected = vec![usize::MAX; n];
                for (group, run) in g.runs(shape).unwrap() {
                    expected[run].fill(group);
                }
                assert_eq!(
                    groups(g, &TensorView::new(&x[..], shape).unwrap()),
                    expected
                );
                let strided = TensorView::with_strides(&other[..], 0, shape, &reversed).unwrap();
                assert_eq!(groups(g, &strided), expected, "{shape:?} {g}, strided");
            }
        }
    }

    #[test]
    fn axes_and_blocks_are_checked() {
        assert!(matches!(
            Layout::new(Granularity::PerChannel { axis: 1 }, &[3]),
            Err(CalibError::Format(FormatError::Axis { axis: 1, rank: 1 }))
        ));
        let block = Granularity::PerBlock { axis: 0, block: 0 };
        assert!(matches!(
            Layout::new(block, &[4]),
            Err(CalibError::Format(FormatError::Block))
        ));
    }
}
