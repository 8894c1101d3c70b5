//! What the demo's report must hold.

use std::collections::BTreeSet;

use serde_json::Value;

/// The most that the best quantized row may lose against float, as a share of 1.
const MAX_LOSS: f64 = 0.003;

/// The methods of calibration whose rows must be there. The tests of `quaver-cli` hold the demo to
/// the list in `qcalib`; chores depend on no crate here, so this is a list of its own.
const METHODS: [&str; 10] = [
    "minmax",
    "moving-average",
    "entropy",
    "entropy-all",
    "mse",
    "percentile",
    "aciq-laplace",
    "aciq-gauss",
    "mean-std",
    "lsq",
];

/// Rows of a method: two granularities of weights times two schemes of activations.
const ROWS_EACH: usize = 4;

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
    for method in METHODS {
        let own = rows.iter().filter(|row| name(row) == Some(method)).count();
        if own < ROWS_EACH {
            return Err(format!(
                "{own} rows of method `{method}`, but {ROWS_EACH} ways to quantize by it"
            ));
        }
    }
    if !rows.iter().any(|row| row["mode"] == "dynamic") {
        return Err("no dynamic row".to_owned());
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

/// A row's method without its setting: `percentile` of `percentile=99.999`.
fn name(row: &Value) -> Option<&str> {
    row["method"].as_str()?.split('=').next()
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

    /// Rows of the report: each method's, and two dynamic ones.
    const ROWS: usize = METHODS.len() * ROWS_EACH + 2;

    fn row(index: usize) -> Value {
        let method = METHODS.get(index / ROWS_EACH).map(|name| {
            // As methods with settings are written.
            format!("{name}={index}").replace("minmax=0", "minmax")
        });
        json!({
            "mode": if method.is_some() { "static" } else { "dynamic" },
            "method": method,
            "weights": (["per-channel", "per-tensor"][index % 2]),
            "activations": "affine",
            "accuracy": 0.995, "agreement": 0.999, "sqnr_db": 30.5, "bytes": 100_000,
            "latency_us": {"1": 50.0, "32": 900.0}, "float_latency_us": {"1": 60.0, "32": 2000.0},
        })
    }

    fn report() -> Value {
        json!({
            "float": {"accuracy": 0.996},
            "rows": (0..ROWS).map(row).collect::<Vec<_>>(),
            "best": row(0),
        })
    }

    #[test]
    fn a_good_report_passes() {
        let summary = check(&report().to_string()).unwrap();
        assert!(summary.contains("42 rows"), "{summary}");
        let mut by_index = report();
        by_index["best"] = json!(20);
        check(&by_index.to_string()).unwrap();
    }

    #[test]
    fn each_promise_is_checked() {
        type Spoil = fn(&mut Value) -> (&mut Value, Value);
        let spoils: [(&str, Spoil); 10] = [
            ("lost", |r| (&mut r["best"]["accuracy"], json!(0.9929))),
            ("rows[3].bytes", |r| (&mut r["rows"][3]["bytes"], json!(0))),
            ("rows[2].agreement", |r| {
                (&mut r["rows"][2]["agreement"], json!(null))
            }),
            ("share", |r| (&mut r["rows"][2]["accuracy"], json!(99.5))),
            ("signal", |r| (&mut r["rows"][2]["sqnr_db"], json!(-3.0))),
            ("repeats", |r| (&mut r["rows"][2], row(1))),
            ("3 rows of method `mse`", |r| {
                (&mut r["rows"][17]["method"], json!("mss"))
            }),
            ("no dynamic", |r| {
                let rows = (0..ROWS - 2).map(row).collect::<Vec<_>>();
                (&mut r["rows"], json!(rows))
            }),
            ("no row", |r| (&mut r["best"], json!(42))),
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
