//! A row-major tensor as pieces that belong to one group each.

use alloc::vec::Vec;
use qformat::granularity::element_count;
use qformat::{FormatError, Granularity};

use crate::CalibError;

/// Values that stay in a core's cache between the pass that finds their ends and the one that
/// counts them.
const PIECE: usize = 1 << 16;

/// Runs shorter than this are gathered before they are handed on: what is done once a piece then
/// weighs little.
const SHORT: usize = 256;

/// Values of which all channels are gathered before the next rows are touched, so that every
/// cache line is fetched from memory once.
const BLOCK: usize = 1 << 18;

/// A shape seen from its channel axis: `outer × dim × inner` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    outer: usize,
    dim: usize,
    inner: usize,
}

/// Checks that `granularity` is one that observers record.
pub(crate) fn check_granularity(granularity: Granularity) -> Result<(), CalibError> {
    match granularity {
        Granularity::PerTensor | Granularity::PerChannel { .. } => Ok(()),
        Granularity::PerBlock { .. } => Err(CalibError::Granularity { given: granularity }),
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
    pub(crate) fn new(
        granularity: Granularity,
        x: &[f32],
        shape: &[usize],
    ) -> Result<Self, CalibError> {
        check_len("x", x.len(), shape)?;
        match granularity {
            Granularity::PerTensor => Ok(Layout {
                outer: 1,
                dim: 1,
                inner: x.len(),
            }),
            Granularity::PerChannel { axis } => {
                let dim = *shape.get(axis).ok_or(FormatError::Axis {
                    axis,
                    rank: shape.len(),
                })?;
                Ok(Layout {
                    outer: element_count(&shape[..axis])?,
                    dim,
                    inner: element_count(&shape[axis + 1..])?,
                })
            }
            Granularity::PerBlock { .. } => Err(CalibError::Granularity { given: granularity }),
        }
    }

    /// Number of groups: 1 per tensor, the channels per channel.
    pub(crate) fn groups(self) -> usize {
        self.dim
    }

    /// Calls `f` with every piece of `x` and its group; each value is in one piece. `gathered` is
    /// room to gather in.
    pub(crate) fn for_each_piece(
        self,
        x: &[f32],
        gathered: &mut Vec<f32>,
        mut f: impl FnMut(usize, &[f32]),
    ) {
        let Layout { outer, dim, inner } = self;
        let row = dim * inner;
        if row == 0 {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

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
            &[2, 70_000],
            &[3, 0, 2],
            &[2, 3, 4, 5],
        ];
        for shape in shapes {
            let n = element_count(shape).unwrap();
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let granularities = (0..shape.len())
                .map(|axis| Granularity::PerChannel { axis })
                .chain([Granularity::PerTensor]);
            for g in granularities {
                let layout = Layout::new(g, &x, shape).unwrap();
                let mut found = vec![usize::MAX; n];
                layout.for_each_piece(&x, &mut Vec::new(), |group, piece| {
                    for &v in piece {
                        assert_eq!(found[v as usize], usize::MAX, "{shape:?} {g}");
                        found[v as usize] = group;
                    }
                });
                for (group, run) in g.runs(shape).unwrap() {
                    assert!(found[run].iter().all(|&f| f == group), "{shape:?} {g}");
                }
            }
        }
    }

    #[test]
    fn lengths_axes_and_blocks_are_checked() {
        let per_channel = Granularity::PerChannel { axis: 1 };
        assert!(matches!(
            Layout::new(per_channel, &[0.0; 3], &[2, 2]),
            Err(CalibError::Length {
                given: 3,
                expected: 4,
                ..
            })
        ));
        assert!(matches!(
            Layout::new(per_channel, &[0.0; 3], &[3]),
            Err(CalibError::Format(FormatError::Axis { axis: 1, rank: 1 }))
        ));
        let block = Granularity::PerBlock { axis: 0, block: 1 };
        assert!(matches!(
            Layout::new(block, &[], &[0]),
            Err(CalibError::Granularity { .. })
        ));
    }
}
