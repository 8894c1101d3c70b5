//! The activations of a calibration, in a file: example after example, tensor after tensor.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::BenchError;
use crate::data::Source;

/// A tensor that is calibrated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensor {
    /// Values in an example.
    pub(super) len: usize,
    /// Whether a `ReLU` made it: half of its values are 0.
    relu: bool,
}

const fn relu(len: usize) -> Tensor {
    Tensor { len, relu: true }
}

/// The activations of the digit classifier (`models/digits`), its logits last, and the output of a
/// residual block of `ResNet-50`, 256 × 56 × 56 reduced to its 64 inner channels.
pub(super) const TENSORS: &[Tensor] = &[
    relu(28 * 28),
    relu(16 * 28 * 28),
    relu(32 * 28 * 28),
    relu(32 * 14 * 14),
    relu(64 * 14 * 14),
    relu(64 * 7 * 7),
    relu(64 * 7 * 7),
    relu(64 * 3 * 3),
    relu(64),
    Tensor {
        len: 10,
        relu: false,
    },
    relu(64 * 56 * 56),
];

/// Values of all tensors in an example.
pub(super) fn values() -> usize {
    TENSORS.iter().map(|tensor| tensor.len).sum()
}

/// One in so many values is an outlier.
const OUTLIER: usize = 1009;

/// Writes so many examples, bell-shaped with outliers and as wide as the example happens to be.
pub(super) fn write(path: &Path, examples: usize) -> Result<(), BenchError> {
    let failed = |source| BenchError::File {
        path: path.to_path_buf(),
        source,
    };
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    for example in 0..examples {
        for (index, tensor) in TENSORS.iter().enumerate() {
            let mut source = Source::new((example * TENSORS.len() + index) as u64);
            let width = 0.5 + (example % 7) as f32 / 7.0;
            for (at, x) in source.f32s(tensor.len).into_iter().enumerate() {
                let outlier = if at % OUTLIER == example % OUTLIER {
                    3.0
                } else {
                    1.0
                };
                let x = x * width * outlier;
                let x = if tensor.relu { x.max(0.0) } else { x };
                file.write_all(&x.to_le_bytes()).map_err(failed)?;
            }
        }
    }
    file.flush().map_err(failed)
}

/// Reads tensors in the order in which they were written.
pub(super) struct Reader {
    file: BufReader<File>,
    bytes: Vec<u8>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            file: BufReader::new(File::open(path)?),
            bytes: Vec::new(),
        })
    }

    /// Goes on after so many values of the file.
    pub(super) fn seek(&mut self, values: usize) -> std::io::Result<()> {
        let at = values as u64 * size_of::<f32>() as u64;
        self.file.seek(SeekFrom::Start(at)).map(|_| ())
    }

    /// The next `len` values into `into`.
    pub(super) fn next(&mut self, len: usize, into: &mut Vec<f32>) -> std::io::Result<()> {
        self.bytes.resize(len * size_of::<f32>(), 0);
        self.file.read_exact(&mut self.bytes)?;
        let (words, _) = self.bytes.as_chunks();
        into.clear();
        into.extend(words.iter().map(|&word| f32::from_le_bytes(word)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("examples");
        write(&path, 2).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let mut x = Vec::new();
        for _ in 0..2 {
            for tensor in TENSORS {
                reader.next(tensor.len, &mut x).unwrap();
                assert_eq!(x.len(), tensor.len);
                assert_eq!(x.iter().all(|&v| v >= 0.0), tensor.relu);
                assert!(x.iter().any(|&v| v > 0.0) && x.iter().all(|v| v.is_finite()));
            }
        }
        assert!(reader.next(1, &mut x).is_err());
        let (mut first, at) = (Vec::new(), values());
        reader.seek(at).unwrap();
        reader.next(TENSORS[0].len, &mut x).unwrap();
        reader.seek(0).unwrap();
        reader.next(TENSORS[0].len, &mut first).unwrap();
        let expected = Source::new(TENSORS.len() as u64).f32s(TENSORS[0].len);
        assert_ne!(x, first);
        assert!(
            x.iter()
                .zip(&expected)
                .all(|(x, e)| (*x > 0.0) == (*e > 0.0))
        );
    }
}
