//! Inputs that can be drawn again elsewhere.

use serde_json::Value;

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
