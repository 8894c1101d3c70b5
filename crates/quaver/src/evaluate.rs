//! Step 5: a model on data, compared with another one.

use std::time::{Duration, Instant};

use qformat::metrics::{argmax, sqnr_db};
use qmodel::{Model, Session, SessionOptions, Tensor, TensorData};
use serde::Serialize;

use crate::data::refs;
use crate::{Batch, Dataset, QuantizeError};

/// What latency is measured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyOptions {
    /// Numbers of samples in a run.
    pub batches: Vec<usize>,
    /// Time spent on each of them, on both models together.
    pub budget: Duration,
}

/// Median times of both models at one batch size, from runs that took turns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Samples in a run.
    pub batch: usize,
    /// Microseconds a run of the model takes.
    pub latency_us: f64,
    /// Microseconds a run of the reference takes.
    pub float_latency_us: f64,
}

/// How a model does on a data set, compared with a reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Number of samples.
    pub samples: usize,
    /// Share of samples whose largest output is the label's; absent without labels.
    pub accuracy: Option<f64>,
    /// Share of samples whose largest output is the reference's.
    pub agreement: f64,
    /// Signal-to-quantization-noise ratio of the outputs in dB; absent where there is no noise,
    /// −∞ where the reference returns nothing but zeros.
    pub sqnr_db: Option<f64>,
    /// Times, one entry a batch size.
    pub latency: Vec<Latency>,
}

/// The outputs of a model over a data set: one row a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// Name of the output.
    pub name: String,
    /// The rows, one after the other.
    pub values: Vec<f32>,
    /// Elements of a row.
    pub width: usize,
}

impl Outputs {
    /// The first output of a model over a data set, `batch` samples at a time.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::Model`] when the model does not run, [`QuantizeError::Output`] when the
    /// output is not float32 with one row a sample.
    pub fn of(
        session: &mut Session,
        data: &Dataset,
        batch: usize,
    ) -> Result<Outputs, QuantizeError> {
        let mut all = Outputs {
            name: String::new(),
            values: Vec::new(),
            width: 0,
        };
        for inputs in data.batches(batch) {
            let rows = inputs.first().map_or(0, |(_, t)| t.shape()[0]);
            let Some((name, tensor)) = session.run(&refs(&inputs))?.into_iter().next() else {
                return Err(QuantizeError::Output {
                    output: String::new(),
                    problem: "is missing: the model returns nothing".to_owned(),
                });
            };
            all.push(name, tensor, rows)?;
        }
        Ok(all)
    }

    fn push(&mut self, name: String, tensor: Tensor, rows: usize) -> Result<(), QuantizeError> {
        let shape = tensor.shape().to_vec();
        let width = tensor.len().checked_div(rows).unwrap_or(0);
        let TensorData::F32(values) = tensor.into_data() else {
            return Err(QuantizeError::Output {
                output: name,
                problem: "is not float32, so it cannot be compared".to_owned(),
            });
        };
        if shape.first() != Some(&rows) || (!self.values.is_empty() && width != self.width) {
            return Err(QuantizeError::Output {
                output: name,
                problem: format!(
                    "has shape {shape:?}: one row for each of {rows} samples is needed"
                ),
            });
        }
        if let Some(at) = values.iter().position(|v| v.is_nan()) {
            return Err(QuantizeError::Output {
                output: name,
                problem: format!("is NaN for sample {}", at / width.max(1)),
            });
        }
        self.name = name;
        self.width = width;
        self.values.extend(values);
        Ok(())
    }

    /// The index of the largest element of every row.
    pub fn top1(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        self.values.chunks(self.width.max(1)).map(argmax)
    }

    /// Share of rows whose largest element is at the label.
    #[must_use]
    pub fn accuracy(&self, labels: &[i64]) -> f64 {
        share(
            self.top1()
                .zip(labels)
                .map(|(t, &l)| t.and_then(|t| i64::try_from(t).ok()) == Some(l)),
        )
    }

    /// Share of rows whose largest element is where the other's is.
    #[must_use]
    pub fn agreement(&self, other: &Outputs) -> f64 {
        share(self.top1().zip(other.top1()).map(|(a, b)| a == b))
    }
}

/// Share of `true`; 0 for none.
fn share(hits: impl Iterator<Item = bool>) -> f64 {
    let (mut n, mut yes) = (0u32, 0u32);
    for hit in hits {
        n += 1;
        yes += u32::from(hit);
    }
    if n == 0 {
        0.0
    } else {
        f64::from(yes) / f64::from(n)
    }
}

/// A model that others are compared with, and the data to do it on. Its outputs are computed
/// once.
#[derive(Debug)]
pub struct Baseline<'d> {
    data: &'d Dataset,
    session: Session,
    outputs: Outputs,
    batch: usize,
}

impl<'d> Baseline<'d> {
    /// Runs the reference over the data, `batch` samples at a time.
    ///
    /// # Errors
    ///
    /// Those of [`Outputs::of`].
    pub fn new(model: &Model, data: &'d Dataset, batch: usize) -> Result<Self, QuantizeError> {
        let mut session = Session::new(model, SessionOptions::default())?;
        let outputs = Outputs::of(&mut session, data, batch)?;
        Ok(Baseline {
            data,
            session,
            outputs,
            batch,
        })
    }

    /// What the reference returned.
    #[must_use]
    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// The reference's own accuracy; `None` without labels.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        self.data.labels().map(|l| self.outputs.accuracy(l))
    }

    /// Compares a model with the reference.
    ///
    /// # Errors
    ///
    /// Those of [`Outputs::of`], and [`QuantizeError::Output`] when the two models' outputs have
    /// different shapes.
    pub fn evaluate(
        &mut self,
        model: &Model,
        latency: Option<&LatencyOptions>,
    ) -> Result<Evaluation, QuantizeError> {
        let mut session = Session::new(model, SessionOptions::default())?;
        let outputs = Outputs::of(&mut session, self.data, self.batch)?;
        let sqnr =
            sqnr_db(&self.outputs.values, &outputs.values).map_err(|_| QuantizeError::Output {
                output: outputs.name.clone(),
                problem: format!(
                    "has {} elements a sample, the reference's \"{}\" has {}",
                    outputs.width, self.outputs.name, self.outputs.width
                ),
            })?;
        let mut times = Vec::new();
        for &batch in latency.map_or(&[][..], |l| &l.batches) {
            let inputs = self.data.rows(0..batch);
            let budget = latency.map_or(Duration::ZERO, |l| l.budget);
            let (ours, reference) = medians(&mut session, &mut self.session, &inputs, budget)?;
            times.push(Latency {
                batch,
                latency_us: ours,
                float_latency_us: reference,
            });
        }
        Ok(Evaluation {
            samples: self.data.len(),
            accuracy: self.data.labels().map(|l| outputs.accuracy(l)),
            agreement: outputs.agreement(&self.outputs),
            sqnr_db: (sqnr != f64::INFINITY).then_some(sqnr),
            latency: times,
        })
    }
}

/// Median times in microseconds of two sessions that take turns, so that a change in the
/// machine's speed meets both.
fn medians(
    a: &mut Session,
    b: &mut Session,
    inputs: &[(String, Tensor)],
    budget: Duration,
) -> Result<(f64, f64), QuantizeError> {
    // The first run of each is not counted: it fills caches and sizes workspaces.
    let inputs = refs(inputs);
    a.run(&inputs)?;
    b.run(&inputs)?;
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while of_a.len() < 3 || start.elapsed() < budget {
        for (session, times) in [(&mut *a, &mut of_a), (&mut *b, &mut of_b)] {
            let t = Instant::now();
            let outputs = session.run(&inputs)?;
            times.push(t.elapsed().as_secs_f64() * 1e6);
            session.recycle(outputs.into_iter().map(|(_, t)| t));
        }
    }
    Ok((median(of_a), median(of_b)))
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Zeros for every required input, with 1 for the dimensions that a model leaves open.
pub(crate) fn zeros(model: &Model) -> Result<Batch, QuantizeError> {
    let mut batch = Vec::new();
    for input in model.graph.required_inputs() {
        let unusable = |problem: &str| QuantizeError::Output {
            output: input.name.clone(),
            problem: format!("{problem}, so the model cannot be tried: give calibration data"),
        };
        let ty = input
            .tensor_type()
            .ok_or_else(|| unusable("is no tensor"))?;
        let dims = ty
            .shape
            .as_ref()
            .ok_or_else(|| unusable("has an unknown rank"))?;
        let shape: Vec<usize> = dims.iter().map(|d| d.known().unwrap_or(1)).collect();
        let count = qformat::granularity::element_count(&shape)
            .map_err(|_| unusable("has too many elements"))?;
        let data = TensorData::zeros(ty.element, count);
        batch.push((input.name.clone(), Tensor::new(&shape, data)?));
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(values: &[f32], width: usize) -> Outputs {
        Outputs {
            name: "y".to_owned(),
            values: values.to_vec(),
            width,
        }
    }

    #[test]
    fn scores_count_rows() {
        let a = outputs(&[0.0, 1.0, 2.0, 1.0, f32::NAN, 0.5], 2);
        assert_eq!(a.top1().collect::<Vec<_>>(), [Some(1), Some(0), Some(1)]);
        assert!((a.accuracy(&[1, 1, 1]) - 2.0 / 3.0).abs() < 1e-12);
        let b = outputs(&[1.0, 0.0, 2.0, 1.0, 0.0, 0.5], 2);
        assert!((a.agreement(&b) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn medians_ignore_outliers() {
        assert_eq!(median(vec![3.0, 1.0, 1000.0]), 3.0);
    }
}
