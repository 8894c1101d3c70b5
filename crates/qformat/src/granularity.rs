//! Which elements of a tensor share one scale and zero point.

use core::fmt;
use core::ops::Range;

use crate::FormatError;

/// Which elements of a tensor share one scale and zero point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Granularity {
    /// All elements share one pair.
    PerTensor,
    /// One pair for every index along `axis`.
    PerChannel {
        /// The axis that is told apart.
        axis: usize,
    },
    /// Along `axis`, `block` neighbours share a pair; every position of the other axes has its
    /// own. The last block may be shorter. This is ONNX's blocked quantization (opset 21).
    PerBlock {
        /// The axis that is cut into blocks.
        axis: usize,
        /// Elements in a block.
        block: usize,
    },
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Granularity::PerTensor => f.pad("per-tensor"),
            Granularity::PerChannel { axis } => write!(f, "per-channel(axis {axis})"),
            Granularity::PerBlock { axis, block } => {
                write!(f, "per-block(axis {axis}, {block})")
            }
        }
    }
}

/// A shape seen from one axis: `outer × dim × inner` elements in row-major order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AxisView {
    outer: usize,
    dim: usize,
    inner: usize,
}

/// Number of elements of a shape.
///
/// # Errors
///
/// [`FormatError::ShapeOverflow`] when the product does not fit `usize`.
pub fn element_count(shape: &[usize]) -> Result<usize, FormatError> {
    // A zero anywhere makes the product zero, however large the rest is.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or(FormatError::ShapeOverflow)
}

impl Granularity {
    fn view(self, shape: &[usize]) -> Result<AxisView, FormatError> {
        let total = element_count(shape)?;
        let axis = match self {
            Granularity::PerTensor => {
                return Ok(AxisView {
                    outer: 1,
                    dim: 1,
                    inner: total,
                });
            }
            Granularity::PerBlock { block: 0, .. } => return Err(FormatError::Block),
            Granularity::PerChannel { axis } | Granularity::PerBlock { axis, .. } => axis,
        };
        let dim = *shape.get(axis).ok_or(FormatError::Axis {
            axis,
            rank: shape.len(),
        })?;
        Ok(AxisView {
            outer: element_count(&shape[..axis])?,
            dim,
            inner: element_count(&shape[axis + 1..])?,
        })
    }

    /// How many pairs of scale and zero point a tensor of this shape has.
    ///
    /// # Errors
    ///
    /// When the axis is outside the shape, the block is empty, or the shape overflows.
    ///
    /// ```
    /// use qformat::Granularity;
    /// assert_eq!(Granularity::PerChannel { axis: 1 }.groups(&[2, 3, 4])?, 3);
    /// assert_eq!(Granularity::PerBlock { axis: 1, block: 2 }.groups(&[2, 3, 4])?, 2 * 2 * 4);
    /// # Ok::<(), qformat::FormatError>(())
    /// ```
    pub fn groups(self, shape: &[usize]) -> Result<usize, FormatError> {
        let v = self.view(shape)?;
        match self {
            Granularity::PerTensor => Ok(1),
            Granularity::PerChannel { .. } => Ok(v.dim),
            Granularity::PerBlock { block, .. } => {
                element_count(&[v.outer, v.dim.div_ceil(block), v.inner])
            }
        }
    }

    /// The tensor as runs of neighbouring elements that share a pair, in memory order: each item
    /// is the index of the pair and the range of elements.
    ///
    /// # Errors
    ///
    /// As [`groups`](Self::groups).
    pub fn runs(
        self,
        shape: &[usize],
    ) -> Result<impl Iterator<Item = (usize, Range<usize>)> + use<>, FormatError> {
        let v = self.view(shape)?;
        let total = element_count(&[v.outer, v.dim, v.inner])?;
        // Length of a run, and how runs are numbered.
        let (run, blocks) = match self {
            Granularity::PerTensor | Granularity::PerChannel { .. } => (v.inner, 0),
            // Along the axis neighbours are `inner` apart, so only the innermost axis has runs.
            Granularity::PerBlock { block, .. } if v.inner == 1 => (block, v.dim.div_ceil(block)),
            Granularity::PerBlock { block, .. } => (1, v.dim.div_ceil(block)),
        };
        let mut start = 0;
        Ok(core::iter::from_fn(move || {
            if start >= total {
                return None;
            }
            let inner_at = start % v.inner;
            let dim_at = start / v.inner % v.dim;
            let outer_at = start / v.inner / v.dim;
            let (group, len) = match self {
                Granularity::PerTensor => (0, run),
                Granularity::PerChannel { .. } => (dim_at, run),
                Granularity::PerBlock { block, .. } => (
                    (outer_at * blocks + dim_at / block) * v.inner + inner_at,
                    if v.inner == 1 {
                        run.min(v.dim - dim_at)
                    } else {
                        1
                    },
                ),
            };
            let range = start..start + len;
            start = range.end;
            Some((group, range))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn groups_by_element(g: Granularity, shape: &[usize]) -> Vec<usize> {
        let mut out = Vec::new();
        for (group, range) in g.runs(shape).unwrap() {
            assert_eq!(range.start, out.len());
            assert!(!range.is_empty());
            out.extend(range.map(|_| group));
        }
        assert_eq!(out.len(), element_count(shape).unwrap());
        let groups = g.groups(shape).unwrap();
        assert!(out.iter().all(|&i| i < groups));
        out
    }

    #[test]
    fn runs_cover_every_element_once_with_its_group() {
        assert_eq!(
            groups_by_element(Granularity::PerTensor, &[2, 3]),
            vec![0; 6]
        );
        assert_eq!(
            groups_by_element(Granularity::PerChannel { axis: 0 }, &[2, 3]),
            [0, 0, 0, 1, 1, 1]
        );
        assert_eq!(
            groups_by_element(Granularity::PerChannel { axis: 1 }, &[2, 3]),
            [0, 1, 2, 0, 1, 2]
        );
        assert_eq!(
            groups_by_element(Granularity::PerBlock { axis: 1, block: 2 }, &[2, 3]),
            [0, 0, 1, 2, 2, 3]
        );
        assert_eq!(
            groups_by_element(Granularity::PerBlock { axis: 0, block: 2 }, &[3, 2]),
            [0, 1, 0, 1, 2, 3]
        );
    }

    #[test]
    fn empty_tensors_have_no_runs() {
        for g in [
            Granularity::PerTensor,
            Granularity::PerChannel { axis: 0 },
            Granularity::PerBlock { axis: 1, block: 4 },
        ] {
            assert_eq!(g.runs(&[0, 3]).unwrap().count(), 0);
        }
    }

    #[test]
    fn bad_axes_blocks_and_shapes_are_errors() {
        assert_eq!(
            Granularity::PerChannel { axis: 2 }.groups(&[2, 3]),
            Err(FormatError::Axis { axis: 2, rank: 2 })
        );
        assert_eq!(
            Granularity::PerBlock { axis: 0, block: 0 }.groups(&[2]),
            Err(FormatError::Block)
        );
        assert_eq!(
            Granularity::PerTensor.groups(&[usize::MAX, 2]),
            Err(FormatError::ShapeOverflow)
        );
    }
}
