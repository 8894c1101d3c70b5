//! What the tiers with AVX-512 share.

mod elementwise;

pub(crate) use elementwise::Elementwise;
