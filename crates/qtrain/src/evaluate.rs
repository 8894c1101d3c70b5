//! What a network predicts, and how that compares.

use qformat::metrics::{argmax, sqnr_db};

use crate::TrainError;
use crate::data::Samples;
use crate::graph::{Graph, Operands};

/// Images that go through a network at a time where nothing is trained.
pub(crate) const BATCH: usize = 100;

/// How well a network does on labelled samples, beside the float network.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Score {
    /// Share of samples whose largest output is the label's.
    pub accuracy: f64,
    /// Signal to quantization noise of the outputs, in dB, the float network's outputs the signal;
    /// `None` where there is no noise.
    pub sqnr_db: Option<f64>,
    /// Share of samples whose largest output is the float network's.
    pub agreement: f64,
}

/// The outputs for all samples, row by row.
///
/// # Errors
///
/// Those of [`Graph::logits`].
pub fn logits(
    graph: &Graph<'_>,
    samples: &Samples,
    operands: &mut dyn Operands,
) -> Result<Vec<f32>, TrainError> {
    let mut all = Vec::new();
    for images in samples.images.chunks(BATCH * samples.pixels.max(1)) {
        let images = graph.images(images.to_vec())?;
        let outputs = graph.logits(&images, operands)?;
        all.extend(outputs.detach().flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(all)
}

/// The largest output of each row; a row of NaNs has none.
#[must_use]
pub fn predictions(logits: &[f32], classes: usize) -> Vec<Option<usize>> {
    logits.chunks(classes.max(1)).map(argmax).collect()
}

/// Rates outputs against labels and the float network's outputs.
///
/// # Errors
///
/// [`TrainError::Count`] when there are not as many rows as labels, [`TrainError::Format`] when
/// the outputs are not equally many.
///
/// ```
/// let score = qtrain::evaluate::score(&[1.0, 0.0, 0.0, 2.0], &[2.0, 0.0, 3.0, 1.0], &[0, 1])?;
/// assert_eq!((score.accuracy, score.agreement), (1.0, 0.5));
/// # Ok::<(), qtrain::TrainError>(())
/// ```
pub fn score(logits: &[f32], float: &[f32], labels: &[u32]) -> Result<Score, TrainError> {
    let rows = labels.len();
    let classes = logits.len().checked_div(rows).unwrap_or(0);
    if classes == 0 || classes * rows != logits.len() {
        return Err(TrainError::Count {
            what: "outputs",
            given: logits.len(),
            expected: classes.max(1) * rows,
        });
    }
    let sqnr = sqnr_db(float, logits)?;
    let predicted = predictions(logits, classes);
    let share = |hits: usize| hits as f64 / rows as f64;
    let right = predicted.iter().zip(labels);
    let right = right.filter(|(p, l)| **p == usize::try_from(**l).ok());
    let same = predicted.iter().zip(predictions(float, classes));
    Ok(Score {
        accuracy: share(right.count()),
        sqnr_db: sqnr.is_finite().then_some(sqnr),
        agreement: share(same.filter(|(p, f)| **p == *f).count()),
    })
}
