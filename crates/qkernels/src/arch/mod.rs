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

/// Asks for `bytes` of memory from `at` on, which may be anywhere, where the instruction is known.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for byte in (0..bytes).step_by(64) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch accesses nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>().wrapping_add(byte)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, bytes);
}
