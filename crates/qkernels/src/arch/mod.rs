//! Tiers: one folder an architecture, one file a tier.

pub(crate) mod plain;
pub(crate) mod scalar;
#[cfg(all(
    target_arch = "x86_64",
    any(feature = "avx2", feature = "avxvnni", feature = "avx512")
))]
pub(crate) mod tile;
#[cfg(all(
    target_arch = "x86_64",
    any(feature = "avx2", feature = "avxvnni", feature = "avx512")
))]
pub(crate) mod x86_64;
