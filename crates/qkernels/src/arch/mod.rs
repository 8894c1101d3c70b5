//! Tiers: one folder an architecture, one file a tier.

#[cfg(all(
    target_arch = "aarch64",
    target_endian = "little",
    any(feature = "neon", feature = "dotprod", feature = "i8mm")
))]
pub(crate) mod aarch64;
pub(crate) mod plain;
pub(crate) mod scalar;
#[cfg(any(
    all(
        target_arch = "x86_64",
        any(feature = "avx2", feature = "avxvnni", feature = "avx512")
    ),
    all(
        target_arch = "aarch64",
        target_endian = "little",
        any(feature = "neon", feature = "dotprod", feature = "i8mm")
    )
))]
pub(crate) mod tile;
#[cfg(all(
    target_arch = "x86_64",
    any(feature = "avx2", feature = "avxvnni", feature = "avx512")
))]
pub(crate) mod x86_64;
