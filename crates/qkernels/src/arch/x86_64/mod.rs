//! Tiers of x86-64.

#[cfg(feature = "avx2")]
pub(crate) mod avx2;
pub(crate) mod avx512;
#[cfg(feature = "avx512")]
pub(crate) mod avx512bf16;
#[cfg(feature = "avx512")]
pub(crate) mod avx512vnni;
#[cfg(feature = "avx2")]
mod ymm;
#[cfg(feature = "avx512")]
mod zmm;

/// Whether the processor and the operating system support all the features; without `std` whether
/// the compile target guarantees them.
macro_rules! has_features {
    ($($feature:tt),*) => {{
        #[cfg(feature = "std")]
        { $(std::arch::is_x86_feature_detected!($feature))&&* }
        #[cfg(not(feature = "std"))]
        { $(cfg!(target_feature = $feature))&&* }
    }};
}
use has_features;
