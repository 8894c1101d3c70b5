//! What tools answered.

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
