//! Shapes of convolutions, by name.

use std::fmt;
use std::str::FromStr;

use crate::BenchError;
use crate::lists::{self, Named};

/// One convolution over an image of height × width × inputs, padded so that stride 1 keeps the
/// size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Channels are split in so many groups that do not meet: as many as inputs for depthwise.
    pub groups: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Pixels from one position of the kernel to the next.
    pub stride: usize,
}

impl Geometry {
    const fn square(
        side: usize,
        inputs: usize,
        kernel: usize,
        stride: usize,
        outputs: usize,
    ) -> Self {
        Self {
            height: side,
            width: side,
            inputs,
            outputs,
            groups: 1,
            kernel,
            stride,
        }
    }

    const fn depthwise(side: usize, channels: usize, kernel: usize, stride: usize) -> Self {
        Self {
            groups: channels,
            ..Self::square(side, channels, kernel, stride, channels)
        }
    }

    /// Zero pixels on each side.
    #[must_use]
    pub fn padding(&self) -> usize {
        self.kernel / 2
    }

    /// Height and width of the result.
    #[must_use]
    pub fn result(&self) -> (usize, usize) {
        let side = |size: usize| (size + 2 * self.padding() - self.kernel) / self.stride + 1;
        (side(self.height), side(self.width))
    }

    /// Weights in one output channel.
    #[must_use]
    pub fn patch(&self) -> usize {
        self.kernel * self.kernel * self.inputs / self.groups
    }

    /// The matrix product that it is: output pixels × patch × output channels.
    #[must_use]
    pub fn product(&self) -> (usize, usize, usize) {
        let (height, width) = self.result();
        (height * width, self.patch(), self.outputs)
    }

    /// Multiplications and additions together.
    #[must_use]
    pub fn ops(&self) -> f64 {
        let (m, k, n) = self.product();
        2.0 * m as f64 * k as f64 * n as f64
    }
}

/// `56x56x64-3x3s1-128`, or `112x112x32-3x3s2-dw` for a depthwise one.
impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            height,
            width,
            inputs,
            outputs,
            groups,
            kernel,
            stride,
        } = self;
        let outputs = if *groups == 1 {
            outputs.to_string()
        } else {
            "dw".to_owned()
        };
        f.pad(&format!(
            "{height}x{width}x{inputs}-{kernel}x{kernel}s{stride}-{outputs}"
        ))
    }
}

impl FromStr for Geometry {
    type Err = BenchError;

    fn from_str(text: &str) -> Result<Self, BenchError> {
        parse_one(text).ok_or_else(|| BenchError::Argument {
            argument: "--convs",
            given: text.to_owned(),
            allowed: format!(
                "HxWxINPUTS-KxKsSTRIDE-OUTPUTS with whole numbers from 1 (OUTPUTS `dw` for \
                 depthwise), or one of {}",
                lists::names(LISTS)
            ),
        })
    }
}

fn parse_one(text: &str) -> Option<Geometry> {
    let positive = |text: &str| text.parse::<usize>().ok().filter(|&side| side > 0);
    let mut parts = text.split('-');
    let (image, window, outputs) = (parts.next()?, parts.next()?, parts.next()?);
    let mut sides = image.split('x').map(positive);
    let (height, width, inputs) = (sides.next()??, sides.next()??, sides.next()??);
    let (window, stride) = window.split_once('s')?;
    let (kernel, other) = window.split_once('x')?;
    let (kernel, stride) = (positive(kernel)?, positive(stride)?);
    let (outputs, groups) = match outputs {
        "dw" => (inputs, inputs),
        outputs => (positive(outputs)?, 1),
    };
    let fits = positive(other)? == kernel
        && parts.next().is_none()
        && sides.next().is_none()
        && height.min(width) + 2 * (kernel / 2) >= kernel;
    fits.then_some(Geometry {
        height,
        width,
        inputs,
        outputs,
        groups,
        kernel,
        stride,
    })
}

/// Every list that has a name.
pub const LISTS: &[Named<Geometry>] = &[
    Named {
        name: "resnet50",
        about: "the 7×7 and 3×3 convolutions of ResNet-50 (v1.5), one image",
        items: &[
            Geometry::square(224, 3, 7, 2, 64),
            Geometry::square(56, 64, 3, 1, 64),
            Geometry::square(56, 128, 3, 2, 128),
            Geometry::square(28, 128, 3, 1, 128),
            Geometry::square(28, 256, 3, 2, 256),
            Geometry::square(14, 256, 3, 1, 256),
            Geometry::square(14, 512, 3, 2, 512),
            Geometry::square(7, 512, 3, 1, 512),
        ],
    },
    Named {
        name: "mobilenet",
        about: "the first and the depthwise convolutions of MobileNet (v1), one image",
        items: &[
            Geometry::square(224, 3, 3, 2, 32),
            Geometry::depthwise(112, 32, 3, 1),
            Geometry::depthwise(112, 64, 3, 2),
            Geometry::depthwise(56, 128, 3, 1),
            Geometry::depthwise(56, 128, 3, 2),
            Geometry::depthwise(28, 256, 3, 1),
            Geometry::depthwise(28, 256, 3, 2),
            Geometry::depthwise(14, 512, 3, 1),
            Geometry::depthwise(14, 512, 3, 2),
            Geometry::depthwise(7, 1024, 3, 1),
        ],
    },
    Named {
        name: "digits",
        about: "the convolutions of models/digits, one image",
        items: &[
            Geometry::square(28, 1, 3, 1, 16),
            Geometry::square(28, 16, 3, 1, 32),
            Geometry::square(14, 32, 3, 1, 64),
            Geometry::square(7, 64, 3, 1, 64),
        ],
    },
];

/// Reads a comma-separated list of names and convolutions; one that comes twice is kept once.
///
/// # Errors
///
/// [`BenchError::Argument`] for a part that is neither.
///
/// ```
/// let convs = quaver_benches::convs::parse("digits,112x112x32-3x3s2-dw")?;
/// assert_eq!(convs.last().map(|conv| conv.result()), Some((56, 56)));
/// # Ok::<(), quaver_benches::BenchError>(())
/// ```
pub fn parse(text: &str) -> Result<Vec<Geometry>, BenchError> {
    lists::parse(text, LISTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_convolution_reads_back() {
        for list in LISTS {
            assert!(!list.items.is_empty(), "{}", list.name);
            for conv in list.items {
                assert_eq!(conv.to_string().parse::<Geometry>().unwrap(), *conv);
            }
        }
    }

    #[test]
    fn sizes_follow_stride_and_padding() {
        let stem = Geometry::square(224, 3, 7, 2, 64);
        assert_eq!(stem.product(), (12544, 147, 64));
        let depthwise = Geometry::depthwise(112, 32, 3, 1);
        assert_eq!(depthwise.product(), (12544, 9, 32));
    }

    #[test]
    fn what_is_no_convolution_is_refused() {
        for text in [
            "",
            "1x1x1",
            "0x1x1-1x1s1-1",
            "4x4x4-3x2s1-4",
            "4x4x4-3x3s0-4",
            "4x4-3x3s1-4",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("mobilenet"), "{text}: {error}");
        }
    }
}
