//! What the demo's report must hold.

use std::collections::BTreeSet;

use serde_json::Value;

/// The most that the best quantized row may lose against float, as a share of 1.
const MAX_LOSS: f64 = 0.003;

/// Five methods, two granularities of weights and two schemes of activations, and the dynamic row.
const MIN_ROWS: usize = 21;

/// Reads the report that `quaver demo --json` wrote; says what it shows, or what it misses.
pub(super) fn check(text: &str) -> Result<String, String> {
    let report: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let float = number(&report["float"], "accuracy", "float").and_then(share)?;
    let rows = report["rows"].as_array().ok_or("`rows` is no list")?;
    let mut kinds = BTreeSet::new();
    for (index, row) in rows.iter().enumerate() {
        let place = format!("rows[{index}]");
        plausible(row, &place)?;
        let kind = ["mode", "method", "weights", "activations"].map(|key| row[key].to_string());
        if !kinds.insert(kind) {
            return Err(format!("{place} repeats an earlier row"));
        }
    }
    if rows.len() < MIN_ROWS {
        return Err(format!(
            "{} rows, but {MIN_ROWS} ways to quantize",
            rows.len()
        ));
    }
    let best = best(&report["best"], rows)?;
    let accuracy = number(best, "accuracy", "best")?;
    // Accuracies are shares of at most a few thousand samples: half a sample is no difference.
    if float - accuracy > MAX_LOSS + 1e-9 {
        return Err(format!(
            "the best row has accuracy {accuracy}, float {float}: more than {MAX_LOSS} lost"
        ));
    }
    let ratio = |batch| {
        let own = number(&best["latency_us"], batch, "best.latency_us")?;
        Ok::<_, String>(own / number(&best["float_latency_us"], batch, "best.float_latency_us")?)
    };
    let (one, many) = (ratio("1")?, ratio("32")?);
    Ok(format!(
        "{} rows; best accuracy {accuracy}, float {float}; \
         {one:.2} of float's time at batch 1, {many:.2} at batch 32",
        rows.len()
    ))
}

/// The best row, given as such or by its index.
fn best<'a>(best: &'a Value, rows: &'a [Value]) -> Result<&'a Value, String> {
    match best {
        Value::Object(_) => Ok(best),
        Value::Number(index) => index
            .as_u64()
            .and_then(|index| rows.get(usize::try_from(index).ok()?))
            .ok_or_else(|| format!("`best` is {index}, which is no row")),
        _ => Err(format!(
            "`best` is {best}, neither a row nor the index of one"
        )),
    }
}

fn plausible(row: &Value, place: &str) -> Result<(), String> {
    number(row, "accuracy", place).and_then(share)?;
    number(row, "agreement", place).and_then(share)?;
    let sqnr = number(row, "sqnr_db", place)?;
    if !(1.0..150.0).contains(&sqnr) {
        return Err(format!(
            "{place}: {sqnr} dB is no plausible signal to noise"
        ));
    }
    positive(row, "bytes", place)?;
    for latencies in ["latency_us", "float_latency_us"] {
        for batch in ["1", "32"] {
            positive(&row[latencies], batch, &format!("{place}.{latencies}"))?;
        }
    }
    Ok(())
}

fn number(object: &Value, key: &str, place: &str) -> Result<f64, String> {
    match object[key].as_f64() {
        Some(number) if number.is_finite() => Ok(number),
        _ => Err(format!(
            "{place}.{key} is {}, but should be a number",
            object[key]
        )),
    }
}

fn positive(object: &Value, key: &str, place: &str) -> Result<f64, String> {
    let number = number(object, key, place)?;
    if number > 0.0 {
        Ok(number)
    } else {
        Err(format!("{place}.{key} is {number}"))
    }
}

fn share(number: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{number} is no share of 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(index: usize) -> Value {
        json!({
            "mode": "static", "method": index, "weights": "per-channel", "activations": "affine",
            "accuracy": 0.995, "agreement": 0.999, "sqnr_db": 30.5, "bytes": 100_000,
            "latency_us": {"1": 50.0, "32": 900.0}, "float_latency_us": {"1": 60.0, "32": 2000.0},
        })
    }

    fn report() -> Value {
        json!({
            "float": {"accuracy": 0.996},
            "rows": (0..MIN_ROWS).map(row).collect::<Vec<_>>(),
            "best": row(0),
        })
    }

    #[test]
    fn a_good_report_passes() {
        let summary = check(&report().to_string()).unwrap();
        assert!(summary.contains("21 rows"), "{summary}");
        let mut by_index = report();
        by_index["best"] = json!(20);
        check(&by_index.to_string()).unwrap();
    }

    #[test]
    fn each_promise_is_checked() {
        type Spoil = fn(&mut Value) -> (&mut Value, Value);
        let spoils: [(&str, Spoil); 9] = [
            ("lost", |r| (&mut r["best"]["accuracy"], json!(0.9929))),
            ("rows[3].bytes", |r| (&mut r["rows"][3]["bytes"], json!(0))),
            ("rows[2].agreement", |r| {
                (&mut r["rows"][2]["agreement"], json!(null))
            }),
            ("share", |r| (&mut r["rows"][2]["accuracy"], json!(99.5))),
            ("signal", |r| (&mut r["rows"][2]["sqnr_db"], json!(-3.0))),
            ("repeats", |r| (&mut r["rows"][2], row(1))),
            ("ways", |r| (&mut r["rows"], json!([row(0)]))),
            ("no row", |r| (&mut r["best"], json!(21))),
            ("neither", |r| (&mut r["best"], json!("x"))),
        ];
        for (word, spoil) in spoils {
            let mut bad = report();
            let (place, value) = spoil(&mut bad);
            *place = value;
            let missed = check(&bad.to_string()).unwrap_err();
            assert!(missed.contains(word), "{word}: {missed}");
        }
        assert!(check("{").is_err());
    }

    #[test]
    fn a_loss_of_just_the_limit_passes() {
        let mut report = report();
        report["best"]["accuracy"] = json!(0.993);
        check(&report.to_string()).unwrap();
    }
}
