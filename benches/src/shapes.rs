//! Shapes of matrix products, by name: M×K×N, where K is the summed dimension.

use std::fmt;
use std::str::FromStr;

use crate::BenchError;
use crate::lists::{self, Named};

/// One matrix product: M×K by K×N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows of A and of the result: samples, tokens or output pixels.
    pub m: usize,
    /// Columns of A and rows of B, the summed dimension.
    pub k: usize,
    /// Columns of B and of the result: output channels.
    pub n: usize,
}

impl Shape {
    const fn new(m: usize, k: usize, n: usize) -> Self {
        Self { m, k, n }
    }

    /// Multiplications and additions together: 2·M·K·N.
    #[must_use]
    pub fn ops(self) -> f64 {
        2.0 * self.m as f64 * self.k as f64 * self.n as f64
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}x{}x{}", self.m, self.k, self.n))
    }
}

impl FromStr for Shape {
    type Err = BenchError;

    fn from_str(text: &str) -> Result<Self, BenchError> {
        let refused = || BenchError::Argument {
            argument: "--shapes",
            given: text.to_owned(),
            allowed: format!(
                "MxKxN with whole numbers from 1, or one of {}",
                lists::names(LISTS)
            ),
        };
        let mut sides = text.split(['x', '×']).map(str::parse::<usize>);
        match (sides.next(), sides.next(), sides.next(), sides.next()) {
            (Some(Ok(m)), Some(Ok(k)), Some(Ok(n)), None) if m > 0 && k > 0 && n > 0 => {
                Ok(Self { m, k, n })
            }
            _ => Err(refused()),
        }
    }
}

/// Every list that has a name.
pub const LISTS: &[Named<Shape>] = &[
    Named {
        name: "table",
        about: "squares, BERT, decode and ResNet-50 in brief",
        items: TABLE,
    },
    Named {
        name: "bert-base",
        about: "BERT-base at 128 and 384 tokens",
        items: BERT_BASE,
    },
    Named {
        name: "resnet50",
        about: "ResNet-50 (v1.5) at 224×224, one image",
        items: RESNET50,
    },
    Named {
        name: "mobilenet",
        about: "the 1×1 convolutions of MobileNet (v1) at 224×224, one image",
        items: MOBILENET,
    },
    Named {
        name: "llama-7b-decode",
        about: "LLaMA 7B, 1, 2, 4 and 8 tokens at once",
        items: LLAMA_7B_DECODE,
    },
    Named {
        name: "llama-7b-prefill",
        about: "LLaMA 7B, 512 tokens",
        items: LLAMA_7B_PREFILL,
    },
    Named {
        name: "dlrm",
        about: "the dense layers of DLRM (MLPerf), 128 samples",
        items: DLRM,
    },
    Named {
        name: "digits",
        about: "models/digits at batch 1 and 32",
        items: DIGITS,
    },
    Named {
        name: "odd",
        about: "primes and ones: nothing fits a tile",
        items: ODD,
    },
    Named {
        name: "small",
        about: "8³ to 64³, where the call itself counts",
        items: SMALL,
    },
];

const TABLE: &[Shape] = &[
    Shape::new(256, 256, 256),
    Shape::new(1024, 1024, 1024),
    Shape::new(2048, 2048, 2048),
    Shape::new(128, 768, 3072),
    Shape::new(128, 3072, 768),
    Shape::new(1, 4096, 4096),
    Shape::new(1, 4096, 11008),
    Shape::new(4, 4096, 4096),
    Shape::new(16, 4096, 4096),
    Shape::new(3136, 576, 64),
    Shape::new(784, 1152, 128),
    Shape::new(196, 2304, 256),
    Shape::new(49, 4608, 512),
    Shape::new(97, 131, 203),
];

/// Projections, then the two layers of the feed-forward block.
const BERT_BASE: &[Shape] = &[
    Shape::new(128, 768, 768),
    Shape::new(128, 768, 3072),
    Shape::new(128, 3072, 768),
    Shape::new(384, 768, 768),
    Shape::new(384, 768, 3072),
    Shape::new(384, 3072, 768),
];

/// Each distinct convolution as output pixels × patch × output channels, then the classifier.
const RESNET50: &[Shape] = &[
    Shape::new(12544, 147, 64),
    Shape::new(3136, 64, 64),
    Shape::new(3136, 576, 64),
    Shape::new(3136, 64, 256),
    Shape::new(3136, 256, 64),
    Shape::new(3136, 256, 128),
    Shape::new(784, 1152, 128),
    Shape::new(784, 128, 512),
    Shape::new(784, 256, 512),
    Shape::new(784, 512, 128),
    Shape::new(784, 512, 256),
    Shape::new(196, 2304, 256),
    Shape::new(196, 256, 1024),
    Shape::new(196, 512, 1024),
    Shape::new(196, 1024, 256),
    Shape::new(196, 1024, 512),
    Shape::new(49, 4608, 512),
    Shape::new(49, 512, 2048),
    Shape::new(49, 1024, 2048),
    Shape::new(49, 2048, 512),
    Shape::new(1, 2048, 1000),
];

/// Each distinct 1×1 convolution as output pixels × inputs × outputs, then the classifier.
const MOBILENET: &[Shape] = &[
    Shape::new(12544, 32, 64),
    Shape::new(3136, 64, 128),
    Shape::new(3136, 128, 128),
    Shape::new(784, 128, 256),
    Shape::new(784, 256, 256),
    Shape::new(196, 256, 512),
    Shape::new(196, 512, 512),
    Shape::new(49, 512, 1024),
    Shape::new(49, 1024, 1024),
    Shape::new(1, 1024, 1000),
];

/// Attention projections, then the feed-forward block up and down, for each number of tokens; then
/// the vocabulary for one.
const LLAMA_7B_DECODE: &[Shape] = &[
    Shape::new(1, 4096, 4096),
    Shape::new(1, 4096, 11008),
    Shape::new(1, 11008, 4096),
    Shape::new(2, 4096, 4096),
    Shape::new(2, 4096, 11008),
    Shape::new(2, 11008, 4096),
    Shape::new(4, 4096, 4096),
    Shape::new(4, 4096, 11008),
    Shape::new(4, 11008, 4096),
    Shape::new(8, 4096, 4096),
    Shape::new(8, 4096, 11008),
    Shape::new(8, 11008, 4096),
    Shape::new(1, 4096, 32000),
];

const LLAMA_7B_PREFILL: &[Shape] = &[
    Shape::new(512, 4096, 4096),
    Shape::new(512, 4096, 11008),
    Shape::new(512, 11008, 4096),
];

/// The bottom layers for the dense features, then the top layers over the interactions.
const DLRM: &[Shape] = &[
    Shape::new(128, 13, 512),
    Shape::new(128, 512, 256),
    Shape::new(128, 256, 128),
    Shape::new(128, 479, 1024),
    Shape::new(128, 1024, 1024),
    Shape::new(128, 1024, 512),
    Shape::new(128, 256, 1),
];

/// The four convolutions and two dense layers, one digit and then 32.
const DIGITS: &[Shape] = &[
    Shape::new(784, 9, 16),
    Shape::new(784, 144, 32),
    Shape::new(196, 288, 64),
    Shape::new(49, 576, 64),
    Shape::new(1, 576, 64),
    Shape::new(1, 64, 10),
    Shape::new(32 * 784, 9, 16),
    Shape::new(32 * 784, 144, 32),
    Shape::new(32 * 196, 288, 64),
    Shape::new(32 * 49, 576, 64),
    Shape::new(32, 576, 64),
    Shape::new(32, 64, 10),
];

const ODD: &[Shape] = &[
    Shape::new(1, 1, 1),
    Shape::new(3, 7, 5),
    Shape::new(7, 13, 17),
    Shape::new(31, 127, 61),
    Shape::new(61, 67, 71),
    Shape::new(97, 131, 203),
    Shape::new(127, 509, 251),
    Shape::new(509, 1021, 257),
    Shape::new(1, 4093, 1021),
];

const SMALL: &[Shape] = &[
    Shape::new(8, 8, 8),
    Shape::new(16, 16, 16),
    Shape::new(24, 24, 24),
    Shape::new(32, 32, 32),
    Shape::new(48, 48, 48),
    Shape::new(64, 64, 64),
];

/// Reads a comma-separated list of names and shapes; a shape that comes twice is kept once.
///
/// # Errors
///
/// [`BenchError::Argument`] for a part that is neither a name nor `MxKxN` with sides from 1.
///
/// ```
/// let shapes = quaver_benches::shapes::parse("odd,1024x1024x1024")?;
/// assert_eq!(shapes.last().map(ToString::to_string).as_deref(), Some("1024x1024x1024"));
/// # Ok::<(), quaver_benches::BenchError>(())
/// ```
pub fn parse(text: &str) -> Result<Vec<Shape>, BenchError> {
    lists::parse(text, LISTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sides_are_read() {
        assert_eq!(parse("table").unwrap().len(), 14);
        assert_eq!(
            parse("1x2x3, 4×5×6").unwrap(),
            [Shape::new(1, 2, 3), Shape::new(4, 5, 6)]
        );
        // The last shape of `table` is in `odd` too.
        let both = parse("table,odd").unwrap();
        assert_eq!(both.len(), TABLE.len() + ODD.len() - 1);
    }

    #[test]
    fn what_is_no_shape_is_refused_with_the_names() {
        for text in [
            "",
            "tabel",
            "1x2",
            "1x2x3x4",
            "0x1x1",
            "1x-2x3",
            "table,,odd",
            "axbxc",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("bert-base"), "{text}: {error}");
        }
    }

    #[test]
    fn a_shape_reads_back() {
        for list in LISTS {
            assert!(!list.items.is_empty(), "{}", list.name);
            for shape in list.items {
                assert_eq!(shape.to_string().parse::<Shape>().unwrap(), *shape);
            }
        }
    }

    #[test]
    fn work_counts_multiplications_and_additions() {
        assert!((Shape::new(2, 3, 4).ops() - 48.0).abs() < f64::EPSILON);
    }
}
