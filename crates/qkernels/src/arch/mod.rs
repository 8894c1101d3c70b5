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

/// Bytes of the second-level cache that a core has, where it can be asked; what most have elsewhere.
#[inline]
pub(crate) fn l2_bytes() -> usize {
    /// What is taken for one that does not say.
    const USUAL: usize = 1 << 20;
    #[cfg(target_arch = "x86_64")]
    {
        use core::sync::atomic::{AtomicUsize, Ordering};
        /// 0: not asked yet, because asking takes long under a hypervisor.
        static BYTES: AtomicUsize = AtomicUsize::new(0);
        let mut bytes = BYTES.load(Ordering::Relaxed);
        if bytes == 0 {
            // Intel and AMD both have KiB in the upper half of ECX there.
            const LEAF: u32 = 0x8000_0006;
            let known = core::arch::x86_64::__cpuid(0x8000_0000).eax >= LEAF;
            let kib = if known {
                core::arch::x86_64::__cpuid(LEAF).ecx >> 16
            } else {
                0
            };
            bytes = match kib as usize {
                // Smaller than any that has the instructions of a tier: a hypervisor's word.
                0..128 => USUAL,
                kib => kib << 10,
            };
            BYTES.store(bytes, Ordering::Relaxed);
        }
        bytes
    }
    #[cfg(not(target_arch = "x86_64"))]
    USUAL
}

/// Ways of the first-level data cache, where it can be asked; what most have elsewhere.
#[inline]
pub(crate) fn l1_ways() -> usize {
    /// What is taken for one that does not say.
    const USUAL: usize = 8;
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{__cpuid, __cpuid_count};
        use core::sync::atomic::{AtomicUsize, Ordering};
        /// 0: not asked yet, because asking takes long under a hypervisor.
        static WAYS: AtomicUsize = AtomicUsize::new(0);
        let mut ways = WAYS.load(Ordering::Relaxed);
        if ways == 0 {
            // Intel's leaf of caches, and AMD's: data caches have type 1 and their level beside it.
            let leaf = |base: u32, leaf: u32| (__cpuid(base).eax >= leaf).then_some(leaf);
            let leaves = [leaf(0, 4), leaf(0x8000_0000, 0x8000_001d)];
            let caches = leaves
                .into_iter()
                .flatten()
                .flat_map(|leaf| (0..4).map(move |cache| __cpuid_count(leaf, cache)));
            let mut first = caches.filter(|cache| cache.eax & 0xff == 1 << 5 | 1);
            ways = first
                .next()
                .map_or(USUAL, |cache| (cache.ebx >> 22) as usize + 1);
            WAYS.store(ways, Ordering::Relaxed);
        }
        ways
    }
    #[cfg(not(target_arch = "x86_64"))]
    USUAL
}

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
