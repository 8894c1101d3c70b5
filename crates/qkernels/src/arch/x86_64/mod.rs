//! Tiers of x86-64, and the vectors that they share: [`ymm`] of 256 bits, [`zmm`] of 512.

#![cfg_attr(
    not(all(feature = "avx2", feature = "avxvnni", feature = "avx512")),
    allow(
        dead_code,
        unused_imports,
        unused_macros,
        reason = "tiers share instructions, of which a subset of features needs only some"
    )
)]

pub(crate) mod avx2;
#[cfg(feature = "avx512")]
pub(crate) mod avx512bf16;
#[cfg(feature = "avx512")]
pub(crate) mod avx512bw;
#[cfg(all(test, feature = "avx512"))]
pub(crate) mod avx512vl;
#[cfg(feature = "avx512")]
pub(crate) mod avx512vnni;
#[cfg(feature = "avxvnni")]
pub(crate) mod avxvnni;
mod depthwise;
#[cfg(any(feature = "avxvnni", all(test, feature = "avx512")))]
mod vnni256;
mod ymm;
#[cfg(feature = "avx512")]
mod zmm;

use core::sync::atomic::{AtomicU8, Ordering};

/// Whether AMD made the processor (or Hygon, which builds the same cores).
pub(crate) fn is_amd() -> bool {
    /// 0: not asked yet, because asking takes long under a hypervisor. 1: no. 2: yes.
    static ANSWER: AtomicU8 = AtomicU8::new(0);
    let mut answer = ANSWER.load(Ordering::Relaxed);
    if answer == 0 {
        let id = core::arch::x86_64::__cpuid(0);
        let name = [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes);
        let made_by = |maker: &[u8; 12]| name.as_flattened() == maker;
        answer = 1 + u8::from(made_by(b"AuthenticAMD") || made_by(b"HygonGenuine"));
        ANSWER.store(answer, Ordering::Relaxed);
    }
    answer == 2
}

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

/// Defines a tier: its token, the features that its door is compiled with, those that detection
/// asks for (of a tier on top of another one, whose kernels it can run, beside that one's), its
/// kernels in the order of [`Tier`](crate::isa::Tier), its elementwise and depthwise operations, and
/// what else it overrides.
macro_rules! tier {
    (
        $(#[$doc:meta])*
        $name:ident $(($below:ty))?, $enable:literal, [$($feature:tt),*],
        $int8:ty, $int16:ty, $f16:ty, $f16_sums:ty, $bf16:ty, $bf16_hardware:ty,
        $elementwise:ty, $depthwise:ty;
        $($overrides:tt)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name($crate::arch::x86_64::tier!(@held $($below)?));

        impl $crate::isa::Tier for $name {
            type Int8 = $int8;
            type Int16 = $int16;
            type F16 = $f16;
            type F16Sums = $f16_sums;
            type Bf16 = $bf16;
            type Bf16Hardware = $bf16_hardware;
            type Elementwise = $elementwise;
            type Depthwise = $depthwise;

            fn detect() -> Option<Self> {
                let below = $crate::arch::x86_64::tier!(@detect $($below)?);
                $crate::arch::x86_64::has_features!($($feature),*).then_some($name(below))
            }

            #[inline(always)]
            fn elementwise(self) -> $elementwise {
                // SAFETY: `self` proves a superset of the instructions.
                unsafe { <$elementwise>::new() }
            }

            #[inline(always)]
            fn depthwise(self) -> $depthwise {
                // SAFETY: `self` proves a superset of the instructions.
                unsafe { <$depthwise>::new() }
            }

            #[inline]
            fn enter<K: $crate::isa::Task>(self, task: K) -> K::Output {
                #[target_feature(enable = $enable)]
                fn door<K: $crate::isa::Task>(tier: $name, task: K) -> K::Output {
                    task.run(tier)
                }
                // SAFETY: `self` is only made by `detect`, which saw all of these features.
                unsafe { door(self, task) }
            }

            $($overrides)*
        }

        $(impl From<$name> for $below {
            fn from(tier: $name) -> $below {
                tier.0
            }
        })?
    };
    (@held) => { () };
    (@held $below:ty) => { $below };
    (@detect) => { () };
    (@detect $below:ty) => { <$below as $crate::isa::Tier>::detect()? };
}
use tier;
