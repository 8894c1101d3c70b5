//! Damaged models on the whole way through the steps: errors, never a panic.

mod common;

use common::{convnet, dataset, digits, relu, samples};
use quaver::calib::Policy;
use quaver::model::{Model, Session, SessionOptions};
use quaver::{Batch, ConvertOptions, Method, Operators, QuantizeError, WeightGranularity};

/// Bytes → model → both ways to quantize → one run. No tensor may grow beyond a few million
/// elements, so that a flipped dimension is refused rather than computed.
fn whole_way(bytes: &[u8], batch: &Batch) -> Result<(), QuantizeError> {
    let model = Model::from_bytes(bytes)?;
    let inputs: Vec<_> = batch.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let options = SessionOptions {
        max_elements: 1 << 22,
        ..SessionOptions::default()
    };
    Session::new(&model, options)?.run(&inputs)?;
    let chosen = Operators::new().choose(&model)?;
    let dynamic = chosen.clone().dynamic(WeightGranularity::PerChannel)?;
    Session::new(dynamic.model(), options)?.run(&inputs)?;
    let mut observing = chosen.observe(&[Method::MinMax], Policy::Ignore)?;
    observing.observe(batch)?;
    let converted = observing.finish()?.convert(&ConvertOptions::default())?;
    Session::new(converted.model(), options)?.run(&inputs)?;
    Ok(())
}

/// Cuts and flips spread over the bytes.
fn damaged(bytes: &[u8], count: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..count).map(move |i| {
        // Steps of a large odd number visit places all over the file.
        let place = i.wrapping_mul(2_654_435_761) % bytes.len();
        let mut copy = bytes.to_vec();
        match i % 4 {
            0 => copy.truncate(place),
            1 => copy[place] = 0xff,
            _ => copy[place] ^= 1 << (i / 4 % 8),
        }
        copy
    })
}

#[test]
fn a_small_model_survives_every_bit_flip_and_cut() {
    let bytes = convnet(relu()).to_bytes();
    let batch = dataset(2, &[2, 6, 6], 1).rows(0..2);
    whole_way(&bytes, &batch).unwrap();
    let mut errors = 0;
    for cut in 0..bytes.len() {
        errors += usize::from(whole_way(&bytes[..cut], &batch).is_err());
    }
    // What is left of a file that lost its last field may still be a model.
    assert!(errors > bytes.len() / 2, "{errors} of {}", bytes.len());
    let weights = 4 * (72 + 180);
    let (mut errors, mut flips) = (0, 0);
    for bit in 0..bytes.len() * 8 {
        // All of the structure, and a sample of the bytes that are only weights.
        if bytes.len() > weights && bit % 3 != 0 {
            continue;
        }
        flips += 1;
        let mut copy = bytes.clone();
        copy[bit / 8] ^= 1 << (bit % 8);
        errors += usize::from(whole_way(&copy, &batch).is_err());
    }
    assert!(flips > 2_000 && errors > 0, "{errors} of {flips}");
}

#[test]
fn the_digits_models_survive_damage() {
    let batch = samples("image", 1, &[1, 28, 28], 1);
    for (name, count) in [
        ("digits.onnx", 200),
        ("ort/ort_static_qoperator.onnx", 200),
        ("ort/ort_static_qdq.onnx", 200),
        ("ort/ort_dynamic.onnx", 200),
    ] {
        let bytes = std::fs::read(digits(name)).unwrap();
        let inputs: Vec<_> = batch.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let options = SessionOptions {
            max_elements: 1 << 22,
            ..SessionOptions::default()
        };
        let mut errors = 0;
        for copy in damaged(&bytes, count) {
            let run = || Session::new(&Model::from_bytes(&copy)?, options)?.run(&inputs);
            errors += usize::from(run().is_err());
        }
        assert!(errors >= count / 4, "{name}: {errors} of {count}");
    }
}
