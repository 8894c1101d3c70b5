//! Fixtures, and the inputs that they were made from.

use serde_json::Value;

/// A fixture file.
pub(crate) fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The rows of a table, of which there must be some.
pub(crate) fn rows(fixture: &Value, table: &str) -> Vec<Value> {
    let rows = fixture[table].as_array().unwrap().clone();
    assert!(!rows.is_empty(), "{table}");
    rows
}

/// One number or a list of them, as the bits of f32.
pub(crate) fn bits(v: &Value) -> Vec<u32> {
    let one = |v: &Value| u32::try_from(v.as_u64().unwrap()).unwrap();
    v.as_array()
        .map_or_else(|| vec![one(v)], |all| all.iter().map(one).collect())
}

/// The values of `[kind, seed, count, scale]`, every operation one f32 rounding.
pub(crate) fn draw(spec: &Value) -> Vec<f32> {
    let kind = spec[0].as_str().unwrap();
    let (mut state, count) = (spec[1].as_u64().unwrap(), spec[2].as_u64().unwrap());
    let scale = spec[3].as_f64().unwrap() as f32;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 - 8_388_608.0) / 8_388_608.0
    };
    (0..count)
        .map(|_| {
            let x = match kind {
                "uniform" => uniform(),
                "skewed" => uniform() * uniform() + 0.25,
                "relu" => (uniform() * uniform() * uniform()).max(0.0),
                "heavy" => uniform() * uniform() * uniform(),
                _ => panic!("{kind}"),
            };
            x * scale
        })
        .collect()
}
