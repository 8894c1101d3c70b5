//! The choice of a microkernel: a tier and an arithmetic.

use crate::isa::{Tier, Visit};
use crate::kernel::Microkernel;
use crate::pack::PackedRef;
use crate::{Arithmetic, Isa};

/// Work that is told its kernel, and the tier in whose door that is compiled.
pub(crate) trait VisitKernel {
    /// What the work gives back.
    type Output;
    /// Is told.
    fn visit<K: Microkernel>(self, tier: K::Home) -> Self::Output;
}

/// Runs `visitor` with the kernel of a tier for an arithmetic.
pub(crate) fn with_kernel<V: VisitKernel>(
    isa: Isa,
    arithmetic: Arithmetic,
    visitor: V,
) -> V::Output {
    struct Select<V>(Arithmetic, V);
    impl<V: VisitKernel> Visit for Select<V> {
        type Output = V::Output;
        fn visit<T: Tier>(self, tier: T) -> V::Output {
            kernel_of(tier, self.0, self.1)
        }
    }
    isa.dispatch(Select(arithmetic, visitor))
}

/// Defines a function that runs `visitor` with one kernel of a tier: no other one is compiled for it.
macro_rules! with_one {
    ($(#[$doc:meta])* $name:ident, $kernel:ident) => {
        $(#[$doc])*
        pub(crate) fn $name<V: VisitKernel>(isa: Isa, visitor: V) -> V::Output {
            struct Only<V>(V);
            impl<V: VisitKernel> Visit for Only<V> {
                type Output = V::Output;
                fn visit<T: Tier>(self, tier: T) -> V::Output {
                    self.0.visit::<T::$kernel>(tier.into())
                }
            }
            isa.dispatch(Only(visitor))
        }
    };
}
with_one! {
    /// Runs `visitor` with the kernel of a tier for bytes.
    with_byte_kernel, Int8
}
with_one! {
    /// Runs `visitor` with the kernel of a tier for i16.
    with_int16_kernel, Int16
}

/// Whether split weights pay for `m` rows: they are unpacked for every call, which 16 rows
/// outweigh where weights lie in a cache. From memory there is more to read, and 24 rows do.
const fn split_pays(m: usize, n: usize, k: usize) -> bool {
    const CACHED: usize = 8 << 20;
    m >= 24 || m >= 16 && n.saturating_mul(k) <= CACHED
}

/// Runs `visitor` with the kernel for products of `m` rows with `b`.
pub(crate) fn with_kernel_for<V: VisitKernel>(
    b: &PackedRef<'_>,
    m: usize,
    visitor: V,
) -> V::Output {
    match b.arithmetic() {
        Arithmetic::Int8 => with_byte_kernel_for(b, m, visitor),
        other => with_kernel(b.isa(), other, visitor),
    }
}

/// The same where B is bytes.
pub(crate) fn with_byte_kernel_for<V: VisitKernel>(
    b: &PackedRef<'_>,
    m: usize,
    visitor: V,
) -> V::Output {
    if b.outliers.is_some() {
        with_split_kernel(b.isa(), (m, b.n(), b.k()), visitor)
    } else {
        with_byte_kernel(b.isa(), visitor)
    }
}

/// The same for weights that are split, in a product of `m × k` by `k × n` bytes.
pub(crate) fn with_split_kernel<V: VisitKernel>(
    isa: Isa,
    (m, n, k): (usize, usize, usize),
    visitor: V,
) -> V::Output {
    struct Split<V>(V);
    impl<V: VisitKernel> Visit for Split<V> {
        type Output = V::Output;
        fn visit<T: Tier>(self, tier: T) -> V::Output {
            tier.split_kernel(self.0)
        }
    }
    if split_pays(m, n, k) {
        isa.dispatch(Split(visitor))
    } else {
        with_byte_kernel(isa, visitor)
    }
}

/// Runs `visitor` with the kernel of `tier`.
pub(crate) fn kernel_of<T: Tier, V: VisitKernel>(
    tier: T,
    arithmetic: Arithmetic,
    visitor: V,
) -> V::Output {
    match arithmetic {
        Arithmetic::Int8 => visitor.visit::<T::Int8>(tier.into()),
        Arithmetic::Int16 => visitor.visit::<T::Int16>(tier.into()),
        Arithmetic::F16 => visitor.visit::<T::F16>(tier.into()),
        Arithmetic::F16Sums => visitor.visit::<T::F16Sums>(tier.into()),
        Arithmetic::Bf16 => tier.bf16_kernel(visitor),
        Arithmetic::Bf16Hardware => tier.bf16_hardware_kernel(visitor),
    }
}
