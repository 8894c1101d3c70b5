//! Which tiers the tests must have run on, told by the system and not by the code under test.

use std::path::PathBuf;

use crate::error::Error;

/// Where Linux lists the processor's features.
const CPUINFO: &str = "/proc/cpuinfo";

/// Each tier with the features that it needs, as Linux spells them.
const TIERS: &[(&str, &[&str])] = &[
    ("scalar", &[]),
    ("avx2", &["avx2", "fma", "f16c"]),
    (
        "avx512_vnni",
        &["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"],
    ),
];

/// The tiers that run on this processor.
pub(super) fn expected_tiers() -> Result<Vec<&'static str>, Error> {
    let text = std::fs::read_to_string(CPUINFO).map_err(|source| Error::Io {
        path: PathBuf::from(CPUINFO),
        source,
    })?;
    Ok(tiers(&text))
}

fn tiers(cpuinfo: &str) -> Vec<&'static str> {
    // `flags` on x86, `Features` on aarch64; the processors of a machine are alike.
    let flags: Vec<&str> = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| matches!(key.trim(), "flags" | "Features"))
        .map(|(_, flags)| flags.split_whitespace().collect())
        .unwrap_or_default();
    TIERS
        .iter()
        .filter(|(_, needs)| needs.iter().all(|need| flags.contains(need)))
        .map(|(name, _)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_expected_where_all_it_needs_is_there() {
        assert_eq!(tiers(""), ["scalar"]);
        assert_eq!(
            tiers("model name\t: X\nflags\t\t: fpu avx2 fma f16c\n"),
            ["scalar", "avx2"]
        );
        assert_eq!(tiers("flags: avx2 fma"), ["scalar"]);
        assert_eq!(
            tiers("flags: avx2 fma f16c avx512f avx512bw avx512dq avx512vl avx512_vnni"),
            ["scalar", "avx2", "avx512_vnni"]
        );
        assert_eq!(
            tiers("flags: avx512_vnni_x avx512f avx512bw avx512dq avx512vl"),
            ["scalar"]
        );
        assert_eq!(tiers("Features : fp asimd"), ["scalar"]);
    }
}
