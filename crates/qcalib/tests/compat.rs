//! The compatibility modes against what the tools themselves answered; the fixtures were made by
//! `scripts/make_calib_fixtures.py` and `scripts/make_gemmlowp_fixture.cc`.

use qcalib::compat::{ToolParams, onnxruntime, tflite, torch};
use qcalib::{CalibError, ValueRange};
use qformat::{DType, Granularity};
use serde_json::Value;

mod answers;
mod drawn;
use answers::{bits, fixture, rows};
use drawn::draw;

fn range_bits(r: ValueRange) -> Vec<u32> {
    vec![r.min.to_bits(), r.max.to_bits()]
}

fn range_of(v: &Value) -> ValueRange {
    let b = bits(v);
    ValueRange {
        min: f32::from_bits(b[0]),
        max: f32::from_bits(b[1]),
    }
}

/// The batches of a stream.
fn stream(v: &Value) -> Vec<Vec<f32>> {
    v.as_array().unwrap().iter().map(draw).collect()
}

#[test]
fn onnxruntime_entropy() {
    for row in rows(&fixture("onnxruntime.json"), "entropy") {
        let mut c = onnxruntime::Entropy::new(onnxruntime::EntropySettings {
            num_bins: row["bins"].as_u64().unwrap() as usize,
            num_quantized_bins: row["levels"].as_u64().unwrap() as usize,
        })
        .unwrap();
        for x in stream(&row["in"]) {
            c.collect(&[&x]).unwrap();
        }
        let found = c.range().unwrap();
        assert_eq!(range_bits(found), bits(&row["out"]), "{row}: {found:?}");
    }
}

#[test]
fn onnxruntime_percentile() {
    for row in rows(&fixture("onnxruntime.json"), "percentile") {
        let mut c = onnxruntime::Percentile::new(onnxruntime::PercentileSettings {
            num_bins: row["bins"].as_u64().unwrap() as usize,
            percentile: row["percent"].as_f64().unwrap(),
            symmetric: row["symmetric"].as_bool().unwrap(),
        })
        .unwrap();
        for x in stream(&row["in"]) {
            c.collect(&[&x]).unwrap();
        }
        let found = c.range().unwrap();
        assert_eq!(range_bits(found), bits(&row["out"]), "{row}: {found:?}");
    }
}

#[test]
fn onnxruntime_min_max_and_its_moving_average() {
    for row in rows(&fixture("onnxruntime.json"), "min_max") {
        let mut c = onnxruntime::MinMax::new(onnxruntime::MinMaxSettings {
            symmetric: row["symmetric"].as_bool().unwrap(),
            moving_average: row["moving_average"].as_bool().unwrap(),
            averaging_constant: row["constant"].as_f64().unwrap() as f32,
        });
        for call in row["in"].as_array().unwrap() {
            let batches = stream(call);
            let batches: Vec<&[f32]> = batches.iter().map(Vec::as_slice).collect();
            c.collect(&batches).unwrap();
        }
        let found = c.range().unwrap();
        let expected = range_of(&row["out"]);
        // The sign of a zero depends on the runtime's own reduction.
        assert_eq!(
            (found.min, found.max),
            (expected.min, expected.max),
            "{row}"
        );
    }
}

#[test]
fn onnxruntime_parameters() {
    let f = fixture("onnxruntime.json");
    for row in rows(&f, "params") {
        let dtype: DType = row["type"].as_str().unwrap().parse().unwrap();
        let flag = |name: &str| row[name].as_bool().unwrap();
        let (symmetric, reduced) = (flag("symmetric"), flag("reduced"));
        let found = onnxruntime::scale_and_zero_point(
            range_of(&row["in"]),
            dtype,
            symmetric,
            reduced,
            None,
        )
        .unwrap();
        check(&row, found, bits(&row["scale"])[0]);
        let range: Vec<i64> = row["range"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_i64().unwrap())
            .collect();
        assert_eq!(range, [i64::from(found.min), i64::from(found.max)]);
    }
    for row in rows(&f, "dynamic") {
        let x = draw(&row["in"]);
        let min = x.iter().copied().fold(f32::INFINITY, f32::min);
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let found = onnxruntime::dynamic_quantize_linear(ValueRange { min, max }).unwrap();
        check(&row, found, bits(&row["scale"])[0]);
    }
}

fn check(row: &Value, found: ToolParams, scale: u32) {
    assert_eq!(found.scale.to_bits(), scale, "{row}: {found:?}");
    assert_eq!(
        i64::from(found.zero_point),
        row["zero"].as_i64().unwrap(),
        "{row}: {found:?}"
    );
}

fn quantizer(row: &Value) -> torch::TorchQuantizer {
    let range = row["range"].as_array().map(|r| {
        let end = |i: usize| r[i].as_i64().unwrap() as i32;
        (end(0), end(1))
    });
    torch::TorchQuantizer {
        dtype: match row["dtype"].as_str().unwrap() {
            "qint8" => torch::TorchType::QInt8,
            _ => torch::TorchType::QUInt8,
        },
        symmetric: row["symmetric"].as_bool().unwrap(),
        reduce_range: row["reduce_range"].as_bool().unwrap(),
        range,
        ..torch::TorchQuantizer::default()
    }
}

fn check_all(row: &Value, found: &[ToolParams]) {
    let scales: Vec<u32> = found.iter().map(|p| p.scale.to_bits()).collect();
    let zeros: Vec<i64> = found.iter().map(|p| p.zero_point.into()).collect();
    let expected: Vec<i64> = row["zero"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_i64().unwrap())
        .collect();
    assert_eq!(scales, bits(&row["scale"]), "{row}: {found:?}");
    assert_eq!(zeros, expected, "{row}: {found:?}");
}

#[test]
fn torch_min_max_and_moving_average() {
    let f = fixture("torch_observers.json");
    for row in rows(&f, "tensors") {
        let (q, g) = (quantizer(&row), Granularity::PerTensor);
        let mut min_max = torch::MinMax::new(q, g);
        let constant = if row["kind"] == "moving_average" {
            0.01
        } else {
            0.3
        };
        let mut average = torch::MovingAverage::new(q, g, constant);
        for x in stream(&row["in"]) {
            min_max.observe(&x, &[x.len()]).unwrap();
            average.observe(&x, &[x.len()]).unwrap();
        }
        let found = if row["kind"] == "min_max" {
            min_max.params()
        } else {
            average.params()
        };
        check_all(&row, &found.unwrap());
    }
    for row in rows(&f, "channels") {
        let axis = row["axis"].as_u64().unwrap() as usize;
        let (q, g) = (quantizer(&row), Granularity::PerChannel { axis });
        let mut min_max = torch::MinMax::new(q, g);
        let mut average = torch::MovingAverage::new(q, g, 0.01);
        for x in stream(&row["in"]) {
            min_max.observe(&x, &[3, 4, 5]).unwrap();
            average.observe(&x, &[3, 4, 5]).unwrap();
        }
        let found = if row["kind"] == "per_channel" {
            min_max.params()
        } else {
            average.params()
        };
        check_all(&row, &found.unwrap());
    }
}

#[test]
fn torch_histogram() {
    for row in rows(&fixture("torch_observers.json"), "histograms") {
        let bins = row["bins"].as_u64().unwrap() as usize;
        let mut o = torch::Histogram::new(quantizer(&row), bins).unwrap();
        for x in stream(&row["in"]) {
            o.observe(&x).unwrap();
        }
        assert_eq!(range_bits(o.seen().unwrap()), bits(&row["seen"]), "{row}");
        let sum = o
            .histogram()
            .iter()
            .zip(1u32..)
            .fold(0, |sum, (n, i)| sum ^ n.to_bits().wrapping_mul(i));
        assert_eq!(u64::from(sum), row["histogram"].as_u64().unwrap(), "{row}");
        let found = o.range().unwrap();
        assert_eq!(range_bits(found), bits(&row["out"]), "{row}: {found:?}");
        check_all(&row, &[o.params().unwrap()]);
    }
}

#[test]
fn what_the_tools_cannot_do_is_an_error() {
    let mut c = onnxruntime::Percentile::new(onnxruntime::PercentileSettings::default()).unwrap();
    assert!(c.range().is_err());
    assert!(c.collect(&[]).is_err() && c.collect(&[&[f32::NAN]]).is_err());
    for symmetric in [false, true] {
        let settings = onnxruntime::PercentileSettings {
            symmetric,
            ..Default::default()
        };
        let mut c = onnxruntime::Percentile::new(settings).unwrap();
        c.collect(&[&[1e-20, 2e-20]]).unwrap();
        // A histogram of 10^30 bins.
        assert!(c.collect(&[&[1e10]]).is_err());
        assert!(c.range().is_ok());
    }
    let settings = onnxruntime::EntropySettings {
        num_bins: 8,
        num_quantized_bins: 9,
    };
    assert!(onnxruntime::Entropy::new(settings).is_err());
    assert!(onnxruntime::integers(DType::F32, false, false).is_err());
    assert!(onnxruntime::integers(DType::I16, false, true).is_err());
    let mut h = torch::Histogram::new(torch::TorchQuantizer::default(), 2048).unwrap();
    h.observe(&[]).unwrap();
    assert_eq!(h.params().unwrap().scale, 1.0);
    h.observe(&[0.0, 1e-20]).unwrap();
    assert!(h.observe(&[1e10]).is_err());
    assert!(torch::Histogram::new(torch::TorchQuantizer::default(), 0).is_err());
    let range = Some((1, 9));
    let q = torch::TorchQuantizer {
        range,
        ..Default::default()
    };
    assert!(q.integers().is_err());
}

#[test]
fn gemmlowp_parameters() {
    for row in rows(&fixture("gemmlowp.json"), "params") {
        let b = bits(&row);
        let (min, max) = (f32::from_bits(b[0]), f32::from_bits(b[1]));
        let found = tflite::gemmlowp(ValueRange { min, max }).unwrap();
        assert_eq!(found.scale.to_bits(), b[2], "{row}: {found:?}");
        assert_eq!(found.zero_point, b[3] as i32, "{row}: {found:?}");
        // TensorFlow Lite's form differs by roundings only.
        let other = tflite::nudged(ValueRange { min, max }, 0, 255).unwrap();
        assert!((other.scale / found.scale - 1.0).abs() < 1e-6);
        assert!(found.zero_point.abs_diff(other.zero_point) <= 1);
    }
}

fn setting<T: std::fmt::Debug>(result: Result<T, CalibError>) {
    assert!(
        matches!(result, Err(CalibError::Setting { .. })),
        "{result:?}"
    );
}

/// Where the tools under- or overflow they give 0, infinity or NaN; here that is an error.
#[test]
fn what_overflows_in_a_tool_is_an_error() {
    let tiny = f32::from_bits(1);
    let range = |min, max| ValueRange { min, max };
    let widest = range(-3.4e38, 3.4e38);
    setting(tflite::nudged_range(range(0.0, tiny), 0, 255));
    setting(tflite::nudged_range(widest, 0, 255));
    setting(tflite::nudged(widest, 0, 1));
    setting(tflite::run_time(widest));
    setting(tflite::gemmlowp(range(0.0, tiny)));
    setting(tflite::gemmlowp(widest));
    setting(tflite::converted(range(0.0, tiny), -128, 127));
    setting(tflite::converted(widest, -128, 127));
    setting(tflite::converted(range(0.0, 1.0), 3, 3));
    assert!(tflite::nudged(widest, 0, 255).unwrap().scale.is_finite());

    let affine = torch::TorchQuantizer::default();
    setting(affine.params(Some(widest)));
    let symmetric = torch::TorchQuantizer {
        symmetric: true,
        ..affine
    };
    assert!(symmetric.params(Some(widest)).unwrap().scale.is_finite());
    let one_integer = torch::TorchQuantizer {
        range: Some((0, 1)),
        reduce_range: true,
        ..affine
    };
    setting(one_integer.integers());
    setting(one_integer.params(Some(range(0.0, 1.0))));
    for eps in [f32::INFINITY, 0.0, f32::NAN] {
        setting(torch::TorchQuantizer { eps, ..affine }.params(Some(range(0.0, 0.0))));
    }

    for least in [f32::INFINITY, f32::NAN, -1.0] {
        let r = range(0.0, 1.0);
        setting(onnxruntime::scale_and_zero_point(
            r,
            DType::U8,
            false,
            false,
            Some(least),
        ));
    }
    setting(onnxruntime::dynamic_quantize_linear(widest));
    setting(onnxruntime::dynamic_quantize_linear(range(0.0, tiny)));

    for bins in [1, 2, 128] {
        let mut c = onnxruntime::Percentile::new(onnxruntime::PercentileSettings {
            num_bins: bins,
            symmetric: false,
            ..Default::default()
        })
        .unwrap();
        setting(c.collect(&[&[-3e38, 3e38]]));
        c.collect(&[&[-1.0, 1.0]]).unwrap();
        let r = c.range().unwrap();
        assert!(r.min.is_finite() && r.max.is_finite());
    }
}

#[test]
fn averages_stay_finite_or_are_refused() {
    for averaging_constant in [f32::NAN, -0.1, 1.5, f32::INFINITY] {
        let mut c = onnxruntime::MinMax::new(onnxruntime::MinMaxSettings {
            moving_average: true,
            averaging_constant,
            ..Default::default()
        });
        setting(c.collect(&[&[1.0]]));
        let mut o = torch::MovingAverage::new(
            torch::TorchQuantizer::default(),
            Granularity::PerTensor,
            averaging_constant,
        );
        setting(o.observe(&[1.0], &[1]));
    }
    let mut c = onnxruntime::MinMax::new(onnxruntime::MinMaxSettings {
        moving_average: true,
        ..Default::default()
    });
    setting(c.collect(&[&[3e38], &[3e38]]));
    assert!(c.range().is_err());
    c.collect(&[&[3e38]]).unwrap();
    setting(c.collect(&[&[-3e38]]));
    assert_eq!(c.range().unwrap().max, 3e38);
    let q = torch::TorchQuantizer::default();
    let mut o = torch::MovingAverage::new(q, Granularity::PerTensor, 0.5);
    o.observe(&[3e38], &[1]).unwrap();
    setting(o.observe(&[-3e38], &[1]));
    assert_eq!(o.ranges()[0].max, 3e38);

    let mut h = torch::Histogram::new(q, 100).unwrap();
    setting(h.observe(&[-3e38, 3e38]));
    assert!(h.range().is_none());
    h.observe(&[-4e37, 4e37]).unwrap();
    let r = h.range().unwrap();
    assert!(r.min.is_finite() && r.max.is_finite() && r.min < r.max);
}

/// The bound on bins holds for all of them, not for those that one call adds.
#[test]
fn a_histogram_that_grows_step_by_step_is_bounded() {
    let mut c = onnxruntime::Percentile::new(onnxruntime::PercentileSettings {
        num_bins: 1,
        ..Default::default()
    })
    .unwrap();
    c.collect(&[&[0.0, 1.0]]).unwrap();
    let most = (1 << 22) as f32;
    c.collect(&[&[most - 1.0]]).unwrap();
    setting(c.collect(&[&[most + 3.0]]));
    c.collect(&[&[2.0]]).unwrap();
}

#[test]
fn tensorflow_nudged_ranges() {
    for row in rows(&fixture("tensorflow.json"), "nudged") {
        let end = |i: usize| row["range"][i].as_i64().unwrap() as i32;
        let found = tflite::nudged_range(range_of(&row["in"]), end(0), end(1)).unwrap();
        let expected = range_of(&row["out"]);
        assert_eq!(
            (found.min, found.max),
            (expected.min, expected.max),
            "{row}"
        );
    }
}

/// What `ChooseQuantizationParams` of TensorFlow Lite answers for integers of 8 and 16 bits, signed
/// or not, narrow or not.
#[test]
fn tensorflow_lite_chosen_parameters() {
    for row in rows(&fixture("tflite.json"), "params") {
        let number = |i: usize| row[i].as_i64().unwrap();
        let end = |i: usize| f32::from_bits(number(i) as u32);
        let (min, max) = (end(2), end(3));
        let (low, high) = (number(0) as i32, number(1) as i32);
        let found = tflite::nudged(ValueRange { min, max }, low, high).unwrap();
        assert_eq!(found.scale.to_bits(), number(4) as u32, "{row}: {found:?}");
        assert_eq!(i64::from(found.zero_point), number(5), "{row}: {found:?}");
    }
}

/// What the interpreter of TensorFlow Lite gives a row of activations that it quantizes itself.
#[test]
fn tensorflow_lite_parameters_at_run_time() {
    let mut off = 0;
    for row in rows(&fixture("tensorflow.json"), "run_time") {
        let range = range_of(&row["in"]);
        let found = tflite::run_time(range).unwrap();
        check(&row, found, bits(&row["scale"])[0]);
        // The form of the library differs by the rounding of the difference.
        let other = tflite::nudged(range, -128, 127).unwrap();
        assert_eq!(other.zero_point, found.zero_point, "{row}");
        let apart = other.scale.to_bits().abs_diff(found.scale.to_bits());
        assert!(apart <= 1, "{row}: {apart}");
        off += apart;
    }
    assert!(off > 0, "no row tells the two forms apart");
}

/// What the converter to TensorFlow Lite gives an int8 tensor for the ends that it saw.
#[test]
fn tensorflow_lite_parameters() {
    for row in rows(&fixture("tensorflow.json"), "converted") {
        let range = range_of(&row["in"]);
        let found = tflite::converted(range, -128, 127).unwrap();
        check(&row, found, bits(&row["scale"])[0]);
        // The form of the run time differs by roundings only.
        let other = tflite::nudged(range, -128, 127).unwrap();
        assert!((other.scale / found.scale - 1.0).abs() < 1e-6);
        assert!(found.zero_point.abs_diff(other.zero_point) <= 1);
    }
}
