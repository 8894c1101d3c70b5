//! Data to calibrate with and to evaluate on: named arrays whose rows are the samples.

use std::ops::Range;

use qmodel::{Tensor, TensorData};

use crate::QuantizeError;

/// The inputs of one run of a model: names and tensors.
pub type Batch = Vec<(String, Tensor)>;

/// Samples for every input of a model, and labels where there are any.
///
/// The first axis of every array counts the samples.
#[derive(Debug, Clone)]
pub struct Dataset {
    inputs: Batch,
    labels: Option<Vec<i64>>,
    len: usize,
}

impl Dataset {
    /// A data set from its arrays.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::EmptyData`] without arrays or samples, [`QuantizeError::Rows`] when an
    /// array has another number of samples than the first, or no axis to count them on.
    pub fn new(inputs: Batch, labels: Option<Vec<i64>>) -> Result<Dataset, QuantizeError> {
        let rows = |t: &Tensor| t.shape().first().copied();
        let len = inputs.first().and_then(|(_, t)| rows(t)).unwrap_or(0);
        for (name, t) in &inputs {
            if rows(t) != Some(len) {
                return Err(QuantizeError::Rows {
                    name: name.clone(),
                    given: t.shape().to_vec(),
                    expected: len,
                });
            }
        }
        if let Some(l) = &labels
            && l.len() != len
        {
            return Err(QuantizeError::Rows {
                name: "labels".to_owned(),
                given: vec![l.len()],
                expected: len,
            });
        }
        if len == 0 {
            return Err(QuantizeError::EmptyData);
        }
        Ok(Dataset {
            inputs,
            labels,
            len,
        })
    }

    /// Number of samples; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a data set is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The labels, one a sample.
    #[must_use]
    pub fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    /// The arrays, whole.
    #[must_use]
    pub fn inputs(&self) -> &[(String, Tensor)] {
        &self.inputs
    }

    /// Samples `rows` of every array; the range is cut to the samples there are.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Batch {
        self.inputs
            .iter()
            .map(|(name, t)| (name.clone(), take_rows(t, rows.clone())))
            .collect()
    }

    /// All samples in order, `size` at a time; the last batch may be smaller. A size of 0 is
    /// taken as 1.
    pub fn batches(&self, size: usize) -> impl Iterator<Item = Batch> + '_ {
        let size = size.max(1);
        (0..self.len)
            .step_by(size)
            .map(move |start| self.rows(start..start + size))
    }

    /// The first `n` samples.
    #[must_use]
    pub fn truncated(&self, n: usize) -> Dataset {
        let len = n.clamp(1, self.len);
        Dataset {
            inputs: self.rows(0..len),
            labels: self.labels.as_ref().map(|l| l[..len].to_vec()),
            len,
        }
    }
}

/// A batch as a session takes it.
pub(crate) fn refs(batch: &[(String, Tensor)]) -> Vec<(&str, &Tensor)> {
    batch.iter().map(|(name, t)| (name.as_str(), t)).collect()
}

/// The outputs of consecutive runs as one, rows of the same output one after the other; each run
/// with the number of its samples.
///
/// # Errors
///
/// [`QuantizeError::Output`] for an output whose first axis does not count the samples of every
/// run, or whose rows differ in shape or type between runs.
pub fn join_rows(runs: Vec<(usize, Batch)>) -> Result<Batch, QuantizeError> {
    let several = runs.len() > 1;
    let mut joined = Batch::new();
    for (rows, run) in runs {
        for (i, (name, part)) in run.into_iter().enumerate() {
            if several && part.shape().first() != Some(&rows) {
                return Err(QuantizeError::Output {
                    output: name,
                    problem: format!(
                        "has shape {:?}, no row for each of {rows} samples, so batches cannot be \
                         joined: run all samples in one batch",
                        part.shape()
                    ),
                });
            }
            match joined.get_mut(i) {
                Some((_, all)) => *all = concatenated(&name, all, &part)?,
                None => joined.push((name, part)),
            }
        }
    }
    Ok(joined)
}

/// Two tensors along the first axis.
fn concatenated(name: &str, a: &Tensor, b: &Tensor) -> Result<Tensor, QuantizeError> {
    let differ = || QuantizeError::Output {
        output: name.to_owned(),
        problem: format!(
            "is {}{:?} in one batch and {}{:?} in another: rows must be alike",
            a.element_type(),
            a.shape(),
            b.element_type(),
            b.shape()
        ),
    };
    let (&[rows, ref rest @ ..], &[more, ref other @ ..]) = (a.shape(), b.shape()) else {
        return Err(differ());
    };
    if rest != other {
        return Err(differ());
    }
    let mut shape = vec![rows + more];
    shape.extend(rest);
    macro_rules! join {
        ($($variant:ident)*) => {
            match (a.data(), b.data()) {
                $((TensorData::$variant(x), TensorData::$variant(y)) => {
                    Ok(Tensor::new(&shape, [x.as_slice(), y.as_slice()].concat())?)
                })*
                _ => Err(differ()),
            }
        };
    }
    join!(F32 U8 I8 U16 I16 I32 I64 Bool F16 F64 Bf16)
}

/// Rows of a tensor of rank at least 1.
fn take_rows(t: &Tensor, rows: Range<usize>) -> Tensor {
    let count = t.shape().first().copied().unwrap_or(0);
    let (start, end) = (rows.start.min(count), rows.end.min(count));
    let mut shape = t.shape().to_vec();
    let row = t.len().checked_div(count).unwrap_or(0);
    if let Some(first) = shape.first_mut() {
        *first = end.saturating_sub(start);
    }
    let range = start * row..end.max(start) * row;
    macro_rules! cut {
        ($($variant:ident)*) => {
            match t.data() {
                $(TensorData::$variant(v) => Tensor::new(&shape, v[range].to_vec()),)*
                _ => Ok(t.clone()),
            }
        };
    }
    // The cut fills its shape by construction; the whole tensor stands in for a type that this
    // crate does not know yet.
    cut!(F32 U8 I8 U16 I16 I32 I64 Bool F16 F64 Bf16).unwrap_or_else(|_| t.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(n: usize) -> Result<Dataset, QuantizeError> {
        let x: Vec<f32> = (0..2 * n).map(|i| i as f32).collect();
        let inputs = vec![("x".to_owned(), Tensor::new(&[n, 2], x).unwrap())];
        Dataset::new(inputs, Some((0..n as i64).collect()))
    }

    #[test]
    fn batches_cover_all_rows_in_order() {
        let d = data(5).unwrap();
        let batches: Vec<Batch> = d.batches(2).collect();
        let sizes: Vec<usize> = batches.iter().map(|b| b[0].1.shape()[0]).collect();
        assert_eq!(sizes, [2, 2, 1]);
        let all: Vec<f32> = batches
            .iter()
            .flat_map(|b| b[0].1.as_slice::<f32>().unwrap())
            .copied()
            .collect();
        assert_eq!(all, (0..10).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(d.truncated(3).labels(), Some(&[0, 1, 2][..]));
        assert!(d.rows(7..9)[0].1.is_empty());
    }

    #[test]
    fn runs_are_joined_by_rows_and_nothing_else() {
        let run = |rows: usize, shape: &[usize]| {
            let n = shape.iter().product();
            (
                rows,
                vec![("y".to_owned(), Tensor::new(shape, vec![1f32; n]).unwrap())],
            )
        };
        let joined = join_rows(vec![run(2, &[2, 3]), run(1, &[1, 3])]).unwrap();
        assert_eq!(joined[0].1.shape(), [3, 3]);
        // One run may return what it likes; several must count their samples first.
        assert!(join_rows(vec![run(2, &[3, 2])]).is_ok());
        assert!(join_rows(vec![run(2, &[3, 2]), run(2, &[3, 2])]).is_err());
        assert!(join_rows(vec![run(2, &[2, 3]), run(2, &[2, 4])]).is_err());
    }

    #[test]
    fn arrays_must_agree_and_hold_something() {
        assert!(matches!(data(0), Err(QuantizeError::EmptyData)));
        let x = Tensor::new(&[2, 1], vec![0f32; 2]).unwrap();
        let y = Tensor::new(&[3, 1], vec![0f32; 3]).unwrap();
        let scalar = Tensor::scalar(1f32);
        let two = |a: &Tensor, b: &Tensor| vec![("a".into(), a.clone()), ("b".into(), b.clone())];
        assert!(matches!(
            Dataset::new(two(&x, &y), None),
            Err(QuantizeError::Rows { .. })
        ));
        assert!(matches!(
            Dataset::new(two(&x, &scalar), None),
            Err(QuantizeError::Rows { .. })
        ));
        assert!(Dataset::new(two(&x, &x), Some(vec![1])).is_err());
    }
}
