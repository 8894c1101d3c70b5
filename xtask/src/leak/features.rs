//! What the features of a processor, as Linux spells them, mean in instructions.

use CpuidFeature as F;
use iced_x86::CpuidFeature;

/// Each feature with the instructions that it brings, first, and those of older features that it implies
/// (for the compiler too).
const FEATURES: &[(&str, &[F])] = &[
    ("avx", &[F::AVX, F::SSE4_2, F::SSE4_1, F::SSSE3, F::SSE3]),
    ("f16c", &[F::F16C]),
    ("fma", &[F::FMA]),
    (
        "avx2",
        &[F::AVX2, F::AVX, F::SSE4_2, F::SSE4_1, F::SSSE3, F::SSE3],
    ),
    ("avx_vnni", &[F::AVX_VNNI]),
    ("avx512f", &[F::AVX512F]),
    ("avx512bw", &[F::AVX512BW]),
    ("avx512dq", &[F::AVX512DQ]),
    ("avx512vl", &[F::AVX512VL]),
    ("avx512_vnni", &[F::AVX512_VNNI]),
    ("avx512_bf16", &[F::AVX512_BF16]),
];

/// The instructions of every x86-64 processor, as compilers use them.
const BASELINE: &[F] = &[
    F::INTEL8086,
    F::INTEL186,
    F::INTEL286,
    F::INTEL386,
    F::INTEL486,
    F::X64,
    F::CMOV,
    F::CPUID,
    F::CX8,
    F::FPU,
    F::FPU287,
    F::FPU387,
    F::FXSR,
    F::MULTIBYTENOP,
    // `pause` and `endbr64` are no-operations where they are not known.
    F::PAUSE,
    F::CET_IBT,
    F::SSE,
    F::SSE2,
    F::TSC,
];

pub(super) fn known(flag: &str) -> bool {
    FEATURES.iter().any(|(name, _)| *name == flag)
}

/// The instructions of a feature; none if it is not known.
pub(super) fn of(flag: &str) -> &'static [CpuidFeature] {
    FEATURES
        .iter()
        .find(|(name, _)| *name == flag)
        .map_or(&[], |(_, features)| features)
}

pub(super) fn is_baseline(feature: CpuidFeature) -> bool {
    BASELINE.contains(&feature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::TIERS;

    #[test]
    fn every_feature_of_an_x86_tier_is_known() {
        for tier in TIERS.iter().filter(|tier| tier.name.starts_with("avx")) {
            for flag in tier.needs {
                assert!(known(flag), "{flag}");
                assert!(of(flag).iter().all(|&feature| !is_baseline(feature)));
            }
        }
        assert!(!known("asimd"));
    }
}
