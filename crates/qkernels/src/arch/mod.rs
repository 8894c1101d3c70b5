//! Microkernels, one file a tier, and nothing else.

pub(crate) mod scalar;
