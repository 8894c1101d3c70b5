//! Tiers: one folder an architecture, one file a tier.

pub(crate) mod plain;
pub(crate) mod scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tile;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;
