//! Which tier a function belongs to, by its name.

use crate::tiers::{TIERS, Tier};

/// Where the tiers of x86-64 have their files.
const ARCH: &str = "qkernels::arch::x86_64::";

/// Crates whose functions are checked. What other crates choose at run time is theirs to prove.
const CHECKED: &[&str] = &["qkernels::", "qformat::", "core::", "alloc::"];

/// How features are detected: behind a check of their own, which is not one of tiers.
const DETECTION: &str = "core::core_arch::x86::xsave::";

/// Modules below `arch::x86_64` that several tiers share, with what their functions may need.
const SHARED: &[(&str, &[&str])] = &[
    ("ymm", &["avx2", "fma", "f16c"]),
    ("vnni256", &["avx2", "fma", "f16c"]),
    (
        // A tier of tests alone: the 256-bit form that lets AVX-512 machines prove AVX-VNNI.
        "avx512vl",
        &["avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512_vnni"],
    ),
    (
        "zmm",
        &[
            "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl",
        ],
    ),
];

/// Where a function comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// A tier's file.
    Tier(&'static Tier),
    /// A module that tiers share.
    Shared {
        /// Its name.
        module: &'static str,
        /// The features of a processor that its functions may need.
        needs: &'static [&'static str],
    },
    /// Anywhere else in the crates that are checked.
    Outside,
}

/// The origin of a function of this (demangled) name; none if it is not checked.
///
/// The path at the front decides: the function's own module, or for a method the module of the type
/// that has it. A tier's token among the type parameters of a function elsewhere gives no right to
/// its instructions.
pub(super) fn of(name: &str) -> Option<Origin> {
    let path = name.trim_start_matches(['<', '&', '(', '[', '*']);
    let path = path.strip_prefix("mut ").unwrap_or(path);
    if let Some(below) = path.strip_prefix(ARCH) {
        let module = below.split("::").next().unwrap_or_default();
        let tier = TIERS
            .iter()
            .find(|tier| tier.name.replace('_', "") == module);
        let shared = SHARED.iter().find(|(name, _)| *name == module);
        return Some(match (tier, shared) {
            (Some(tier), _) => Origin::Tier(tier),
            (None, Some(&(module, needs))) => Origin::Shared { module, needs },
            (None, None) => Origin::Outside,
        });
    }
    let checked = CHECKED.iter().any(|krate| path.starts_with(krate));
    (checked && !path.starts_with(DETECTION)).then_some(Origin::Outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str) -> String {
        match of(name) {
            None => "unchecked".to_owned(),
            Some(Origin::Tier(tier)) => tier.name.to_owned(),
            Some(Origin::Shared { module, .. }) => format!("shared {module}"),
            Some(Origin::Outside) => "outside".to_owned(),
        }
    }

    #[test]
    fn the_module_at_the_front_decides() {
        for (name, expected) in [
            ("qkernels::arch::x86_64::avx2::tile::<6, 2>", "avx2"),
            (
                "<qkernels::arch::x86_64::avx512vnni::Avx512Vnni as qkernels::isa::Tier>::enter::door::<qkernels::convert::NarrowF16>",
                "avx512_vnni",
            ),
            (
                "qkernels::arch::x86_64::avx512vnni::tile::bytes::{closure#0}",
                "avx512_vnni",
            ),
            (
                "qkernels::arch::x86_64::ymm::elementwise::sum",
                "shared ymm",
            ),
            ("qkernels::arch::x86_64::unheard_of::f", "outside"),
            (
                "qkernels::driver::run::<qkernels::arch::x86_64::avx2::Avx2>",
                "outside",
            ),
            ("<&mut core::fmt::Formatter>::pad", "outside"),
            ("std_detect::detect::os::detect_features", "unchecked"),
            ("core::core_arch::x86::xsave::_xgetbv", "unchecked"),
            ("main", "unchecked"),
        ] {
            assert_eq!(label(name), expected, "{name}");
        }
    }
}
