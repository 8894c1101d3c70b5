//! Tiers of aarch64, little-endian: lanes and bytes are counted the same way there.
//!
//! All three kernels of bytes multiply signed by signed ones: an unsigned A is shifted by −128 when
//! it is copied, and the driver takes −128 · colsum(B) off. What the tiers share lies beside them:
//! the kernels of wider elements ([`lanes`]), how sums of bytes are finished ([`tile`]), elementwise
//! operations ([`elementwise`]), sums over one row ([`reduce`]), f16 ([`f16`]).

#[cfg(any(feature = "dotprod", feature = "i8mm"))]
pub(crate) mod dotprod;
mod elementwise;
mod f16;
#[cfg(feature = "i8mm")]
pub(crate) mod i8mm;
mod lanes;
pub(crate) mod neon;
mod reduce;
mod tile;

/// Whether the processor and the operating system support all the features; without `std` whether
/// the compile target guarantees them.
macro_rules! has_features {
    ($($feature:tt),*) => {{
        #[cfg(feature = "std")]
        { $(std::arch::is_aarch64_feature_detected!($feature))&&* }
        #[cfg(not(feature = "std"))]
        { $(cfg!(target_feature = $feature))&&* }
    }};
}
use has_features;

/// Defines a tier: its token, which is its kernel of bytes too, the features that its door is
/// compiled with, those that detection asks for (of a tier on top of another one, whose kernels it can
/// run, beside that one's), the tier whose sums over one row it uses, and what else it overrides.
macro_rules! tier {
    (
        $(#[$doc:meta])*
        $name:ident $(($below:ty))?, $enable:literal, [$($feature:tt),*], sums of $bytes:ty;
        $($overrides:tt)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name($crate::arch::aarch64::tier!(@held $($below)?));

        impl $crate::isa::Tier for $name {
            type Int8 = $name;
            type Int16 = $crate::arch::aarch64::lanes::Words;
            type F16 = $crate::arch::aarch64::lanes::F16;
            type F16Sums = $crate::arch::aarch64::lanes::F16Sums;
            type Bf16 = $crate::arch::aarch64::lanes::Bf16;
            type Bf16Hardware = $crate::arch::aarch64::lanes::Bf16;
            type Elementwise = $crate::arch::aarch64::elementwise::Elementwise<$bytes>;
            type Depthwise = $crate::depthwise::lanes::PlainLanes;

            fn detect() -> Option<Self> {
                let below = $crate::arch::aarch64::tier!(@detect $($below)?);
                $crate::arch::aarch64::has_features!($($feature),*).then_some($name(below))
            }

            #[inline(always)]
            fn elementwise(self) -> Self::Elementwise {
                // SAFETY: `self` proves a superset of the instructions.
                unsafe { Self::Elementwise::new() }
            }

            #[inline(always)]
            fn depthwise(self) -> Self::Depthwise {
                $crate::depthwise::lanes::PlainLanes
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

        impl From<$name> for $crate::arch::scalar::Scalar {
            fn from(_: $name) -> Self {
                Self::NEW
            }
        }
    };
    (@held) => { () };
    (@held $below:ty) => { $below };
    (@detect) => { () };
    (@detect $below:ty) => { <$below as $crate::isa::Tier>::detect()? };
}
use tier;
