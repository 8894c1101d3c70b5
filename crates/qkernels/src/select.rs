//! The choice of a microkernel: a tier and an arithmetic.

use crate::isa::{Tier, Visit};
use crate::kernel::Microkernel;
use crate::pack::PackedRef;
use crate::{Arithmetic, Isa};

/// Work that is told its tier and kernel.
pub(crate) trait VisitKernel {
    /// What the work gives back.
    type Output;
    /// Is told.
    fn visit<T: Tier, K: Microkernel + From<T>>(self, tier: T) -> Self::Output;
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

/// Rows from which split weights pay: they are unpacked for every call.
const SPLIT_ROWS: usize = 16;

/// Runs `visitor` with the kernel for products of so many rows with `b`.
pub(crate) fn with_kernel_for<V: VisitKernel>(
    b: &PackedRef<'_>,
    rows: usize,
    visitor: V,
) -> V::Output {
    if b.outliers.is_some() {
        with_split_kernel(b.isa(), rows, visitor)
    } else {
        with_kernel(b.isa(), b.arithmetic(), visitor)
    }
}

/// The same for bytes that are split.
pub(crate) fn with_split_kernel<V: VisitKernel>(isa: Isa, rows: usize, visitor: V) -> V::Output {
    struct Split<V>(V);
    impl<V: VisitKernel> Visit for Split<V> {
        type Output = V::Output;
        fn visit<T: Tier>(self, tier: T) -> V::Output {
            tier.split_kernel(self.0)
        }
    }
    if rows < SPLIT_ROWS {
        return with_kernel(isa, Arithmetic::Int8, visitor);
    }
    isa.dispatch(Split(visitor))
}

/// Runs `visitor` with the kernel of `tier`.
pub(crate) fn kernel_of<T: Tier, V: VisitKernel>(
    tier: T,
    arithmetic: Arithmetic,
    visitor: V,
) -> V::Output {
    match arithmetic {
        Arithmetic::Int8 => visitor.visit::<T, T::Int8>(tier),
        Arithmetic::Int16 => visitor.visit::<T, T::Int16>(tier),
        Arithmetic::F16 => visitor.visit::<T, T::F16>(tier),
        Arithmetic::F16Sums => visitor.visit::<T, T::F16Sums>(tier),
        Arithmetic::Bf16 => visitor.visit::<T, T::Bf16>(tier),
        Arithmetic::Bf16Hardware => visitor.visit::<T, T::Bf16Hardware>(tier),
    }
}
