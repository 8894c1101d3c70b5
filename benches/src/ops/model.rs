//! A whole model: the digit classifier in float32 and quantized, an inference at a time.

use std::hint::black_box;
use std::sync::Arc;

use qkernels::{Isa, Threads};
use quaver::calib::Policy;
use quaver::model::{Model, Session, SessionOptions, Tensor};
use quaver::{ConvertOptions, Method, Operators, QuantizeError, WeightGranularity};

use super::{Field, Job, OURS, check_answers};
use crate::BenchError;
use crate::data::Source;
use crate::measure::{Cell, Contender, Work};

/// The digit classifier of `models/digits`.
const MODEL: &[u8] = include_bytes!("../../../models/digits/digits.onnx");

/// Its input, without the batch.
const INPUT: [usize; 3] = [1, 28, 28];

/// Its classes.
const CLASSES: usize = 10;

/// Multiplications and additions of one inference: the products of its six layers.
const OPS: f64 = 2.0
    * (784 * 9 * 16 + 784 * 144 * 32 + 196 * 288 * 64 + 49 * 576 * 64 + 576 * 64 + 64 * CLASSES)
        as f64;

/// Images that ranges are taken from.
const CALIBRATION: usize = 16;

/// The name of the operation.
const OP: &str = "model";

/// A job for each batch size.
#[must_use]
pub fn jobs(batches: &[usize]) -> Vec<Job> {
    batches
        .iter()
        .map(|&batch| Job {
            label: format!("{OP} digits, batch {batch}"),
            build: Box::new(move |field| cell(batch, field)),
        })
        .collect()
}

/// The model in each form, all in one cell: what counts is how they compare.
fn cell(batch: usize, field: &Field) -> Result<Cell, BenchError> {
    let images = images(batch)?;
    let mut contenders = Vec::new();
    for (form, exact, model) in forms()? {
        let expected = answer(&model, Isa::SCALAR, Threads::Single, &images)?;
        for &isa in &field.isas {
            for team in &field.teams {
                let found = team.run(|| answer(&model, isa, team.policy(), &images))?;
                // Float sums may be taken in another order on another tier; integer ones may not.
                if exact {
                    check_answers(OP, form, isa, &found, &expected)?;
                }
                let mut session = session(&model, isa, team.policy())?;
                let images = images.clone();
                contenders.push(Contender {
                    library: OURS,
                    types: form.to_owned(),
                    isa: isa.name(),
                    team: Arc::clone(team),
                    demands: Vec::new(),
                    repeats: 1,
                    agreement: None,
                    detail: None,
                    call: Box::new(move || {
                        let outputs = session.run(&[("image", &images)]);
                        debug_assert!(outputs.is_ok(), "the same call has succeeded before");
                        if let Ok(outputs) = black_box(outputs) {
                            session.recycle(outputs.into_iter().map(|(_, tensor)| tensor));
                        }
                    }),
                });
            }
        }
    }
    Ok(Cell {
        op: OP,
        shape: (1, INPUT.iter().product(), CLASSES),
        batch,
        data: "digits".to_owned(),
        work: Work::Ops(OPS * batch as f64),
        contenders,
    })
}

/// Each form with its name, and whether its answers are the same bits on every tier.
fn forms() -> Result<[(&'static str, bool, Model); 3], BenchError> {
    let float = Model::from_bytes(MODEL).map_err(QuantizeError::from)?;
    let chosen = Operators::new().choose(&float)?;
    let dynamic = chosen.clone().dynamic(WeightGranularity::PerChannel)?;
    let batch = vec![("image".to_owned(), images(CALIBRATION)?)];
    let calibrated = chosen
        .observe(&[Method::MinMax], Policy::Error)?
        .calibrate([batch])?;
    let fixed = calibrated.convert(&ConvertOptions::default())?;
    Ok([
        ("f32", false, float),
        ("int8 static", true, fixed.model().clone()),
        ("int8 dynamic", true, dynamic.model().clone()),
    ])
}

/// Images of noise: time does not depend on what is on them.
fn images(batch: usize) -> Result<Tensor, BenchError> {
    let pixels = Source::new(8)
        .u8s(batch * INPUT.iter().product::<usize>())
        .into_iter()
        .map(|byte| f32::from(byte) / 255.0)
        .collect::<Vec<f32>>();
    let [channels, height, width] = INPUT;
    Ok(Tensor::new(&[batch, channels, height, width], pixels).map_err(QuantizeError::from)?)
}

fn session(model: &Model, isa: Isa, threads: Threads<'static>) -> Result<Session, BenchError> {
    let options = SessionOptions {
        isa,
        threads,
        ..SessionOptions::default()
    };
    Ok(Session::new(model, options).map_err(QuantizeError::from)?)
}

/// The bits of the logits.
fn answer(
    model: &Model,
    isa: Isa,
    threads: Threads<'static>,
    images: &Tensor,
) -> Result<Vec<u32>, BenchError> {
    let outputs = session(model, isa, threads)?
        .run(&[("image", images)])
        .map_err(QuantizeError::from)?;
    Ok(outputs
        .iter()
        .filter_map(|(_, tensor)| tensor.as_slice::<f32>())
        .flatten()
        .map(|logit| logit.to_bits())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_runs_and_is_right() {
        crate::ops::tests::run_all(jobs(&[1, 3]));
    }

    #[test]
    fn an_answer_is_ten_logits_an_image() {
        for (form, _, model) in forms().unwrap() {
            let logits = answer(&model, Isa::SCALAR, Threads::Single, &images(2).unwrap()).unwrap();
            assert_eq!(logits.len(), 2 * CLASSES, "{form}");
        }
    }
}
