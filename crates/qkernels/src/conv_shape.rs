//! The geometry of two-dimensional convolutions, checked once.

use core::ops::Range;

use crate::KernelError;

/// Where the windows of a two-dimensional convolution lie in its image.
///
/// The image is channels-last: pixel `(n, y, x)` is row `(n · height + y) · width + x` of a matrix
/// with one column a channel. Output pixel `(n, oy, ox)` sums over the taps `(ky, kx)` of the
/// kernel at input pixel `(n, oy · stride + ky · dilation − pad, …)`; outside the image the
/// zero point is read. The names and orders are those of ONNX `Conv`.
///
/// ```
/// use qkernels::ConvShape;
/// let shape = ConvShape { strides: [2, 2], pads: [3; 4], ..ConvShape::new([1, 224, 224], [7, 7]) };
/// assert_eq!(shape.output()?, [1, 112, 112]);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Images, height and width of the input, in pixels.
    pub input: [usize; 3],
    /// Height and width of the kernel, in taps.
    pub kernel: [usize; 2],
    /// Input pixels from one output pixel to the next, down and across.
    pub strides: [usize; 2],
    /// Input pixels from one tap to the next, down and across.
    pub dilations: [usize; 2],
    /// Pixels added at the top, the left, the bottom and the right.
    pub pads: [usize; 4],
}

impl ConvShape {
    /// A shape without padding, strides and dilations 1.
    #[must_use]
    pub const fn new(input: [usize; 3], kernel: [usize; 2]) -> ConvShape {
        ConvShape {
            input,
            kernel,
            strides: [1, 1],
            dilations: [1, 1],
            pads: [0; 4],
        }
    }

    /// Images, height and width of the output, in pixels.
    ///
    /// # Errors
    ///
    /// [`KernelError::Window`] for a kernel, stride or dilation of 0, and for a kernel that spans
    /// more than the padded image; also where a size does not fit the address space.
    pub fn output(&self) -> Result<[usize; 3], KernelError> {
        Ok([self.input[0], self.axis(0)?.output, self.axis(1)?.output])
    }

    /// Checks one axis: 0 is the height, 1 the width.
    pub(crate) fn axis(&self, i: usize) -> Result<Axis, KernelError> {
        let axis = ["height", "width"][i];
        let refuse = |what, given, allowed| {
            Err(KernelError::Window {
                axis,
                what,
                given,
                allowed,
            })
        };
        let (kernel, stride, dilation) = (self.kernel[i], self.strides[i], self.dilations[i]);
        for (what, given) in [
            ("kernel", kernel),
            ("stride", stride),
            ("dilation", dilation),
        ] {
            // Positions are computed in i64 as well.
            if given == 0 || i32::try_from(given).is_err() {
                return refuse(what, given, (1, i32::MAX as usize));
            }
        }
        let input = self.input[1 + i];
        let (before, after) = (self.pads[i], self.pads[2 + i]);
        let padded = input
            .checked_add(before)
            .and_then(|n| n.checked_add(after))
            .filter(|&n| i64::try_from(n).is_ok_and(|n| n <= i64::MAX / 4));
        let Some(padded) = padded else {
            return refuse("padding", before.max(after), (0, usize::MAX / 8));
        };
        let span = (kernel - 1)
            .checked_mul(dilation)
            .and_then(|n| n.checked_add(1))
            .unwrap_or(usize::MAX);
        if span > padded {
            return refuse("span of the kernel", span, (1, padded));
        }
        Ok(Axis {
            input,
            kernel,
            stride,
            dilation,
            before,
            output: (padded - span) / stride + 1,
        })
    }
}

/// One axis of a convolution, checked: `output · stride` and `kernel · dilation` fit, and so does
/// every sum of both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    /// Padding before the first pixel.
    pub(crate) before: usize,
    pub(crate) output: usize,
}

/// Outputs side by side for which the same places of the kernel lie inside the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) outputs: Range<usize>,
    pub(crate) taps: Range<usize>,
}

impl Axis {
    /// The places of the kernel that lie inside the input for output `o`.
    #[inline(always)]
    pub(crate) fn taps(&self, o: usize) -> Range<usize> {
        let at = o * self.stride;
        // How many places lie before so many elements of the padded input.
        let before = |end: usize| {
            let end = end.saturating_sub(at).div_ceil(self.dilation);
            end.min(self.kernel)
        };
        before(self.before)..before(self.before + self.input)
    }

    /// Cuts `outputs` where the places inside change.
    pub(crate) fn runs(&self, outputs: Range<usize>) -> impl Iterator<Item = Run> + '_ {
        let mut next = outputs.start;
        core::iter::from_fn(move || {
            let start = next;
            if start >= outputs.end {
                return None;
            }
            let taps = self.taps(start);
            next += 1;
            if taps == (0..self.kernel) {
                // All outputs whose last place is inside; in one step, as these are most.
                let last = (self.kernel - 1) * self.dilation;
                let most = (self.before + self.input - 1 - last) / self.stride;
                next = outputs.end.min(most + 1);
            }
            while next < outputs.end && self.taps(next) == taps {
                next += 1;
            }
            let outputs = start..next;
            Some(Run { outputs, taps })
        })
    }

    /// Where the first place inside is in the input, for the first output of a run.
    #[inline(always)]
    pub(crate) fn first(&self, run: &Run) -> usize {
        // The place is inside: no difference is negative.
        run.outputs.start * self.stride + run.taps.start * self.dilation - self.before
    }
    /// The input position at `at` of the padded image, or `None` in the padding.
    #[inline(always)]
    pub(crate) fn inside(&self, at: usize) -> Option<usize> {
        at.checked_sub(self.before).filter(|&p| p < self.input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_those_of_the_formula() {
        let shape = ConvShape {
            strides: [2, 3],
            dilations: [1, 2],
            pads: [1, 0, 0, 2],
            ..ConvShape::new([2, 10, 11], [3, 3])
        };
        // (10 + 1 − 3) / 2 + 1, (11 + 2 − 5) / 3 + 1.
        assert_eq!(shape.output(), Ok([2, 5, 3]));
    }

    #[test]
    fn runs_cover_each_output_with_the_places_inside() {
        for (input, kernel, stride, dilation, before, after) in [
            (7, 3, 1, 1, 1, 1),
            (8, 3, 2, 1, 1, 1),
            (9, 7, 2, 1, 3, 3),
            (5, 3, 1, 3, 4, 5),
            (1, 4, 1, 2, 9, 9),
            (2, 1, 3, 1, 5, 5),
        ] {
            let shape = ConvShape {
                strides: [1, stride],
                dilations: [1, dilation],
                pads: [0, before, 0, after],
                ..ConvShape::new([1, 1, input], [1, kernel])
            };
            let axis = shape.axis(1).unwrap();
            let mut next = 0;
            for run in axis.runs(0..axis.output) {
                assert_eq!(run.outputs.start, next);
                next = run.outputs.end;
                for o in run.outputs.clone() {
                    for k in 0..kernel {
                        let inside = axis.inside(o * stride + k * dilation).is_some();
                        assert_eq!(run.taps.contains(&k), inside, "{axis:?} {o} {k}");
                    }
                }
                if !run.taps.is_empty() {
                    let place = run.outputs.start * stride + run.taps.start * dilation;
                    assert_eq!(axis.inside(place), Some(axis.first(&run)));
                }
            }
            assert_eq!(next, axis.output);
        }
    }

    #[test]
    fn impossible_windows_are_refused_with_their_names() {
        let good = ConvShape::new([1, 5, 5], [3, 3]);
        let refused = |shape: ConvShape, axis: &str, what: &str| match shape.output() {
            Err(KernelError::Window {
                axis: a, what: w, ..
            }) => assert_eq!((a, w), (axis, what)),
            other => panic!("{other:?}"),
        };
        refused(
            ConvShape {
                kernel: [0, 3],
                ..good
            },
            "height",
            "kernel",
        );
        refused(
            ConvShape {
                strides: [1, 0],
                ..good
            },
            "width",
            "stride",
        );
        refused(
            ConvShape {
                dilations: [0, 1],
                ..good
            },
            "height",
            "dilation",
        );
        refused(
            ConvShape {
                dilations: [3, 1],
                ..good
            },
            "height",
            "span of the kernel",
        );
        refused(
            ConvShape {
                kernel: [1, 6],
                ..good
            },
            "width",
            "span of the kernel",
        );
        refused(
            ConvShape {
                strides: [usize::MAX, 1],
                ..good
            },
            "height",
            "stride",
        );
        refused(
            ConvShape {
                pads: [0, usize::MAX, 0, 1],
                ..good
            },
            "width",
            "padding",
        );
        refused(
            ConvShape {
                pads: [0, 0, usize::MAX, 0],
                ..good
            },
            "height",
            "padding",
        );
    }
}
