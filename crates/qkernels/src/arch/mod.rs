//! Microkernels, one file a tier, and nothing else.

pub(crate) mod scalar;
#[cfg(all(target_arch = "x86_64", any(feature = "avx2", feature = "avx512")))]
pub(crate) mod x86_64;
