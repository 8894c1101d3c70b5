//! Instruction set tiers: one table, detection, the cap, and the one door into each tier.
//!
//! A tier is a token type in `arch` that only its own detection can make, so a value of it is the
//! proof that its instructions run. [`Isa`] wraps one of them. Everything that must know all tiers
//! expands [`tiers!`]; a new tier is one file in `arch` and one line here.

use core::fmt;

use crate::KernelError;
use crate::arch::scalar::Scalar;
use crate::depthwise::lanes::DepthwiseLanes;
use crate::elementwise::Elementwise;
use crate::kernel::Microkernel;
use crate::outliers::Outliers;
use crate::select::VisitKernel;
use crate::{Lhs, portable};

/// Work that runs inside a tier's door: compiled once for every tier, with its instructions.
///
/// Implementations are `#[inline(always)]`, and so is everything hot that they call, because a
/// function that is not inlined into the door does not get the door's instructions.
pub(crate) trait Task {
    /// What the work gives back.
    type Output;
    /// Runs on a tier.
    fn run<T: Tier>(self, tier: T) -> Self::Output;
}

/// Work that is told the tier but runs outside its door: it enters when it needs to.
pub(crate) trait Visit {
    /// What the work gives back.
    type Output;
    /// Is told the tier.
    fn visit<T: Tier>(self, tier: T) -> Self::Output;
}

/// A token type: its values prove that the tier's instructions run.
pub(crate) trait Tier: Copy + Send + Sync + 'static {
    /// The microkernel of products of bytes.
    type Int8: Microkernel<Acc = i32, Home: From<Self>>;
    /// Of products of i16.
    type Int16: Microkernel<Acc = i32, Home: From<Self>>;
    /// Of products of f16, summed in f32.
    type F16: Microkernel<Acc = f32, Home: From<Self>>;
    /// Of products of f16, summed in f16.
    type F16Sums: Microkernel<Acc = f32, Home: From<Self>>;
    /// Of products of bf16, summed in f32 with one rounding a step.
    type Bf16: Microkernel<Acc = f32, Home: From<Self>>;
    /// Of products of bf16 as the processor's own instruction does it, if it has one.
    type Bf16Hardware: Microkernel<Acc = f32, Home: From<Self>>;
    /// Elementwise operations with the tier's instructions.
    type Elementwise: Elementwise<Home: From<Self>>;
    /// The vectors of depthwise convolutions.
    type Depthwise: DepthwiseLanes<Home: From<Self>>;

    /// A token, if this processor (or, without `std`, the compile target) has the instructions.
    fn detect() -> Option<Self>;

    /// Elementwise operations with the tier's instructions, to be called inside the door.
    fn elementwise(self) -> Self::Elementwise;
    /// The vectors of depthwise convolutions.
    fn depthwise(self) -> Self::Depthwise;

    /// The one `target_feature` door: runs `task` compiled with the tier's instructions.
    fn enter<K: Task>(self, task: K) -> K::Output;

    /// The outliers of `k × n` bytes that are packed for this tier, if it splits such weights.
    fn outliers(self, _packed: &[i8], _k: usize, _n: usize) -> Option<Outliers> {
        None
    }

    /// Runs `visitor` with the kernel of this processor for bf16, summed in f32.
    fn bf16_kernel<V: VisitKernel>(self, visitor: V) -> V::Output {
        visitor.visit::<Self::Bf16>(self.into())
    }

    /// Runs `visitor` with the kernel of this processor for bf16 by its own instruction, if that gains.
    fn bf16_hardware_kernel<V: VisitKernel>(self, visitor: V) -> V::Output {
        visitor.visit::<Self::Bf16Hardware>(self.into())
    }

    /// Runs `visitor` with the kernel for split weights; where there is none, with that of bytes.
    fn split_kernel<V: VisitKernel>(self, visitor: V) -> V::Output {
        visitor.visit::<Self::Int8>(self.into())
    }

    // What follows is that of the elementwise operations, or plain; a tier overrides it where it
    // has a better instruction. All run inside the door.

    /// `Σ a[i] · b[i]` modulo 2^32, over the shorter length.
    #[inline(always)]
    fn dot<A: Lhs>(self, a: &[A], b: &[i8]) -> i32 {
        let n = a.len().min(b.len());
        self.elementwise().dot(&a[..n], &b[..n])
    }

    /// `Σ a[i]` modulo 2^32.
    #[inline(always)]
    fn sum<A: Lhs>(self, a: &[A]) -> i32 {
        self.elementwise().sum(a)
    }

    /// Repeats the multiply-accumulate of the integer kernel on registers only; gives the number
    /// of operations done.
    #[inline(always)]
    fn int8_limit(self, iterations: u64) -> u64 {
        portable::int8_limit(iterations)
    }
}

/// Expands the table of tiers. Lines are ordered: a later tier is preferred over an earlier one.
macro_rules! tiers {
    ($(
        $(#[cfg($gate:meta)])?
        $variant:ident($token:ty) = $name:literal, $absent:literal;
    )*) => {
        #[derive(Clone, Copy)]
        enum Token { $( $(#[cfg($gate)])? $variant($token), )* }

        const NAMES: &[&str] = &[$($name),*];
        const NAME_LIST: &str = tiers!(@list $($name)*);

        /// Detects the tier at `index` of the table; otherwise the reason why it cannot run.
        fn detect_at(index: usize) -> Result<Isa, &'static str> {
            $(
                if NAMES[index] == $name {
                    $(#[cfg($gate)])?
                    if let Some(token) = <$token as Tier>::detect() {
                        return Ok(Isa(Token::$variant(token)));
                    }
                    #[allow(unreachable_code, reason = "the scalar tier is always there")]
                    return Err($absent);
                }
            )*
            Err("no such tier")
        }

        impl Isa {
            /// Runs a task inside the tier's door.
            #[inline]
            pub(crate) fn enter<K: Task>(self, task: K) -> K::Output {
                match self.0 { $( $(#[cfg($gate)])? Token::$variant(token) => token.enter(task), )* }
            }

            /// Runs a task that needs no more than elementwise operations, inside the door of the
            /// lowest tier that has the same ones.
            #[inline]
            pub(crate) fn enter_shared<K: Task>(self, task: K) -> K::Output {
                match self.0 { $(
                    $(#[cfg($gate)])?
                    Token::$variant(token) => {
                        type Operations = <$token as Tier>::Elementwise;
                        <Operations as Elementwise>::Home::from(token).enter(task)
                    }
                )* }
            }

            /// Chooses the code for the tier, once, without entering its door.
            #[inline]
            pub(crate) fn dispatch<V: Visit>(self, visitor: V) -> V::Output {
                match self.0 { $( $(#[cfg($gate)])? Token::$variant(token) => visitor.visit(token), )* }
            }

            /// The tier's name, as [`Isa::from_name`] reads it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 { $( $(#[cfg($gate)])? Token::$variant(_) => $name, )* }
            }
        }
    };
    (@list $first:literal $($rest:literal)*) => { concat!($first $(, ", ", $rest)*) };
}

tiers! {
    Scalar(Scalar) = "scalar", "the scalar tier runs everywhere";
    #[cfg(all(target_arch = "x86_64", feature = "avx2"))]
    Avx2(crate::arch::x86_64::avx2::Avx2) = "avx2",
        "it needs an x86-64 processor with avx2, fma and f16c, and the feature `avx2`";
    #[cfg(all(target_arch = "x86_64", feature = "avxvnni"))]
    AvxVnni(crate::arch::x86_64::avxvnni::AvxVnni) = "avx_vnni",
        "it needs an x86-64 processor with avx_vnni, avx2, fma and f16c, and the feature `avxvnni`";
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    Avx512Bw(crate::arch::x86_64::avx512bw::Avx512Bw) = "avx512bw",
        "it needs an x86-64 processor with avx512 f, bw, dq and vl, and the feature `avx512`";
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    Avx512Vnni(crate::arch::x86_64::avx512vnni::Avx512Vnni) = "avx512_vnni",
        "it needs an x86-64 processor with avx512 f, bw, dq, vl and vnni, and the feature `avx512`";
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    Avx512Bf16(crate::arch::x86_64::avx512bf16::Avx512Bf16) = "avx512_bf16",
        "it needs what avx512_vnni needs, and avx512_bf16";
    #[cfg(all(target_arch = "aarch64", target_endian = "little", feature = "neon"))]
    Neon(crate::arch::aarch64::neon::Neon) = "neon",
        "it needs a little-endian aarch64 processor with neon, and the feature `neon`";
    #[cfg(all(target_arch = "aarch64", target_endian = "little", feature = "dotprod"))]
    Dotprod(crate::arch::aarch64::dotprod::Dotprod) = "neon_dotprod",
        "it needs a little-endian aarch64 processor with dotprod, and the feature `dotprod`";
    #[cfg(all(target_arch = "aarch64", target_endian = "little", feature = "i8mm"))]
    I8mm(crate::arch::aarch64::i8mm::I8mm) = "neon_i8mm",
        "it needs a little-endian aarch64 processor with dotprod and i8mm, and the feature `i8mm`";
}

/// An instruction set tier that runs on this machine.
///
/// There is no way to make a value of a tier that does not run, so functions that take one are
/// safe. All tiers give the same bits; they differ in speed.
///
/// ```
/// use qkernels::Isa;
/// let isa = Isa::detect();
/// assert!(Isa::available().any(|tier| tier == isa));
/// println!("running on {isa}");
/// ```
#[derive(Clone, Copy)]
pub struct Isa(Token);

impl Isa {
    /// Plain Rust, on every machine.
    pub const SCALAR: Isa = Isa(Token::Scalar(Scalar::NEW));

    /// The best tier to use: the best that runs here, capped by the environment variable
    /// `QUAVER_ISA`.
    ///
    /// A value of the variable that names no tier of the table cannot be honoured; then this is
    /// [`Isa::SCALAR`], which no cap can forbid and which gives the same bits. Programs that can
    /// report an error call [`from_env`](Self::from_env) instead. The environment is read once a
    /// process; without the `std` feature it is not read at all.
    #[must_use]
    pub fn detect() -> Isa {
        #[cfg(feature = "std")]
        {
            static CHOICE: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
            *CHOICE.get_or_init(|| Isa::from_env().unwrap_or(Isa::SCALAR))
        }
        #[cfg(not(feature = "std"))]
        {
            Isa::best_up_to(NAMES.len())
        }
    }

    /// The best tier that runs here and is not above the one that `QUAVER_ISA` names; without the
    /// variable (or with an empty one) the best that runs here.
    ///
    /// The cap is always intersected with the processor: `QUAVER_ISA=avx512_vnni` on a machine
    /// without that tier gives the best lower one.
    ///
    /// # Errors
    ///
    /// [`KernelError::UnknownIsa`] when the variable names no tier of the table.
    #[cfg(feature = "std")]
    pub fn from_env() -> Result<Isa, KernelError> {
        match std::env::var_os("QUAVER_ISA") {
            Some(cap) if !cap.is_empty() => Isa::capped(&cap.to_string_lossy()),
            _ => Ok(Isa::best_up_to(NAMES.len())),
        }
    }

    /// The best tier that runs here and stands at or below `cap` in the table.
    ///
    /// # Errors
    ///
    /// [`KernelError::UnknownIsa`] when `cap` names no tier of the table.
    pub fn capped(cap: &str) -> Result<Isa, KernelError> {
        index_of(cap).map(|i| Isa::best_up_to(i + 1))
    }

    /// The tier of this name.
    ///
    /// # Errors
    ///
    /// [`KernelError::UnknownIsa`] for a name that is not in the table,
    /// [`KernelError::IsaNotRunnable`] for a tier that this machine or build cannot run.
    ///
    /// ```
    /// use qkernels::{Isa, KernelError};
    /// assert_eq!(Isa::from_name("scalar")?, Isa::SCALAR);
    /// assert!(matches!(Isa::from_name("mmx"), Err(KernelError::UnknownIsa { .. })));
    /// # Ok::<(), KernelError>(())
    /// ```
    pub fn from_name(name: &str) -> Result<Isa, KernelError> {
        let index = index_of(name)?;
        detect_at(index).map_err(|reason| KernelError::IsaNotRunnable {
            name: NAMES[index],
            reason,
        })
    }

    /// Every tier that runs here, the best last. The environment does not matter.
    pub fn available() -> impl DoubleEndedIterator<Item = Isa> {
        (0..NAMES.len()).filter_map(|i| detect_at(i).ok())
    }

    /// The names of the whole table, runnable here or not, lowest tier first.
    #[must_use]
    pub const fn known() -> &'static [&'static str] {
        NAMES
    }

    fn best_up_to(count: usize) -> Isa {
        (0..count)
            .rev()
            .find_map(|i| detect_at(i).ok())
            .unwrap_or(Isa::SCALAR)
    }
}

fn index_of(name: &str) -> Result<usize, KernelError> {
    NAMES
        .iter()
        .position(|known| *known == name)
        .ok_or_else(|| KernelError::UnknownIsa {
            given: name.into(),
            known: NAME_LIST,
        })
}

impl PartialEq for Isa {
    fn eq(&self, other: &Isa) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Isa {}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Isa({})", self.name())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn scalar_is_always_there_and_first() {
        assert_eq!(Isa::available().next(), Some(Isa::SCALAR));
        assert_eq!(Isa::known()[0], "scalar");
    }

    #[test]
    fn names_are_unique_and_lead_back() {
        for (i, name) in Isa::known().iter().enumerate() {
            assert_eq!(index_of(name), Ok(i));
            match Isa::from_name(name) {
                Ok(isa) => assert_eq!(isa.name(), *name),
                Err(e) => assert!(matches!(e, KernelError::IsaNotRunnable { .. }), "{e}"),
            }
        }
    }

    #[test]
    fn a_cap_never_exceeds_the_processor_or_itself() {
        let available: Vec<Isa> = Isa::available().collect();
        for (i, name) in Isa::known().iter().enumerate() {
            let isa = Isa::capped(name).unwrap();
            assert!(available.contains(&isa));
            assert!(index_of(isa.name()).unwrap() <= i);
        }
        assert!(Isa::capped("avx9").is_err());
        assert_eq!(Isa::capped("scalar"), Ok(Isa::SCALAR));
    }
}
