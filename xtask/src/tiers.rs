//! The tiers of instructions as the system sees them, not the code under test: what each needs of
//! a processor, so that a tier that did not run where it could have is a failure.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::error::Error;
use crate::workspace;

/// Where Linux lists the processor's features.
const CPUINFO: &str = "/proc/cpuinfo";

/// The table of tiers, which the kernels are dispatched by.
const TABLE: &str = "crates/qkernels/src/isa.rs";

/// The tier that is everywhere; tests of what no tier changes run where it is gone through.
pub(crate) const SCALAR: &str = "scalar";

/// A tier and what it needs.
pub(crate) struct Tier {
    /// Its name, as `QUAVER_ISA` takes it.
    pub(crate) name: &'static str,
    /// The Cargo feature of `qkernels` that switches it on; scalar needs none.
    pub(crate) feature: Option<&'static str>,
    /// The features of a processor that it needs, as Linux spells them; the one that it is known by
    /// comes last.
    pub(crate) needs: &'static [&'static str],
}

/// Every tier that is, or is going to be, in the table.
pub(crate) const TIERS: &[Tier] = &[
    Tier {
        name: SCALAR,
        feature: None,
        needs: &[],
    },
    Tier {
        name: "avx2",
        feature: Some("avx2"),
        needs: &["fma", "f16c", "avx2"],
    },
    Tier {
        name: "avx_vnni",
        feature: Some("avxvnni"),
        needs: &["avx2", "fma", "f16c", "avx_vnni"],
    },
    Tier {
        name: "avx512bw",
        feature: Some("avx512"),
        needs: &[
            "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl",
        ],
    },
    Tier {
        name: "avx512_vnni",
        feature: Some("avx512"),
        needs: &[
            "avx2",
            "fma",
            "f16c",
            "avx512f",
            "avx512bw",
            "avx512dq",
            "avx512vl",
            "avx512_vnni",
        ],
    },
    Tier {
        name: "avx512_bf16",
        feature: Some("avx512"),
        needs: &[
            "avx2",
            "fma",
            "f16c",
            "avx512f",
            "avx512bw",
            "avx512dq",
            "avx512vl",
            "avx512_vnni",
            "avx512_bf16",
        ],
    },
    Tier {
        name: "neon",
        feature: Some("neon"),
        needs: &["asimd"],
    },
    Tier {
        name: "neon_dotprod",
        feature: Some("dotprod"),
        needs: &["asimd", "asimddp"],
    },
    Tier {
        name: "neon_i8mm",
        feature: Some("i8mm"),
        needs: &["asimd", "asimddp", "i8mm"],
    },
];

/// The tiers that must run on this processor.
pub(crate) fn expected_here() -> Result<Vec<&'static str>, Error> {
    let text = std::fs::read_to_string(CPUINFO).map_err(|source| Error::Io {
        path: PathBuf::from(CPUINFO),
        source,
    })?;
    expected_with(&flags(&text))
}

/// The tiers of the table that must run on a processor with these features.
pub(crate) fn expected_with(flags: &[&str]) -> Result<Vec<&'static str>, Error> {
    let table = table()?;
    Ok(runnable(flags)
        .filter(|name| table.iter().any(|known| known == name))
        .collect())
}

fn runnable<'a>(flags: &'a [&str]) -> impl Iterator<Item = &'static str> + 'a {
    TIERS
        .iter()
        .filter(|tier| tier.needs.iter().all(|need| flags.contains(need)))
        .map(|tier| tier.name)
}

/// Those of some tiers that are compiled with these Cargo features of `qkernels`.
pub(crate) fn compiled_with(
    names: &[&'static str],
    features: &BTreeSet<String>,
) -> Vec<&'static str> {
    let compiled = |name: &&&str| {
        TIERS.iter().filter(|tier| tier.name == **name).all(|tier| {
            tier.feature
                .is_none_or(|feature| features.contains(feature))
        })
    };
    names
        .iter()
        .filter(|name| compiled(name))
        .copied()
        .collect()
}

/// Parts tiers into those to go through and those that need not be gone through again, since they
/// are among the `tested` ones. Where none is left all are gone through: something else is new then.
pub(crate) fn untested(
    tiers: &[&'static str],
    tested: &BTreeSet<&'static str>,
) -> (Vec<&'static str>, Vec<&'static str>) {
    let (again, new): (Vec<_>, Vec<_>) = tiers.iter().partition(|tier| tested.contains(*tier));
    if new.is_empty() {
        (again, new)
    } else {
        (new, again)
    }
}

/// Tiers that tests do not go through, with what else is left out thereby.
pub(crate) fn shown(tiers: &[&str]) -> String {
    let more = if tiers.contains(&SCALAR) {
        " and what no tier changes"
    } else {
        ""
    };
    format!("{}{more}", tiers.join(", "))
}

/// `flags` on x86, `Features` on aarch64; the processors of a machine are alike.
fn flags(cpuinfo: &str) -> Vec<&str> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| matches!(key.trim(), "flags" | "Features"))
        .map(|(_, flags)| flags.split_whitespace().collect())
        .unwrap_or_default()
}

/// The names in the kernels' table, lowest tier first.
///
/// # Errors
///
/// When the table cannot be found, or holds a tier that [`TIERS`] says nothing about: then nobody
/// would notice that it did not run.
pub(crate) fn table() -> Result<Vec<String>, Error> {
    let path = workspace::root().join(TABLE);
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { path, source })?;
    let names = names(&text);
    let wrong = |expected: String| Error::Form {
        origin: TABLE.to_owned(),
        expected,
    };
    if names.is_empty() {
        return Err(wrong(
            "it should have the table of tiers, `tiers! { … }`".to_owned(),
        ));
    }
    for name in &names {
        if !TIERS.iter().any(|tier| tier.name == name) {
            return Err(wrong(format!(
                "tier `{name}` should have a line in `TIERS` of xtask/src/tiers.rs, \
                 with the processor features that it needs"
            )));
        }
    }
    Ok(names)
}

/// The names in the lines `Variant(path) = "name", …` of the table.
fn names(source: &str) -> Vec<String> {
    source
        .lines()
        .skip_while(|line| *line != "tiers! {")
        .take_while(|line| *line != "}")
        .filter_map(|line| line.split_once(") = \""))
        .filter_map(|(_, rest)| rest.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(cpuinfo: &str) -> Vec<&'static str> {
        runnable(&flags(cpuinfo)).collect()
    }

    #[test]
    fn a_tier_is_expected_where_all_it_needs_is_there() {
        assert_eq!(tiers(""), ["scalar"]);
        assert_eq!(
            tiers("model name\t: X\nflags\t\t: fpu avx2 fma f16c\n"),
            ["scalar", "avx2"]
        );
        assert_eq!(tiers("flags: avx2 fma"), ["scalar"]);
        assert_eq!(
            tiers("Features\t: fp asimd asimddp\n"),
            ["scalar", "neon", "neon_dotprod"]
        );
    }

    #[test]
    fn the_table_is_read() {
        let source = "macro_rules! tiers {\n    ($a) = \"no\"\n}\ntiers! {\n    \
                      Scalar(Scalar) = \"scalar\", \"runs everywhere\";\n    #[cfg(x = \"y\")]\n    \
                      Avx2(crate::Avx2) = \"avx2\",\n        \"it needs (a) = \\\"b\\\"\";\n}\n";
        assert_eq!(names(source), ["scalar", "avx2"]);
        assert_eq!(table().unwrap()[0], "scalar");
    }

    #[test]
    fn a_tier_is_compiled_with_its_feature() {
        let features = BTreeSet::from(["avx512".to_owned(), "std".to_owned()]);
        assert_eq!(
            compiled_with(&["scalar", "avx2", "avx512_vnni"], &features),
            ["scalar", "avx512_vnni"]
        );
    }

    #[test]
    fn what_was_tested_is_left_out_unless_nothing_is_left() {
        let tested = BTreeSet::from(["scalar", "avx2"]);
        let none = Vec::new();
        assert_eq!(
            untested(&["scalar", "avx512bw"], &tested),
            (vec!["avx512bw"], vec!["scalar"])
        );
        assert_eq!(untested(&["neon"], &tested), (vec!["neon"], none.clone()));
        assert_eq!(untested(&["scalar"], &tested), (vec!["scalar"], none));
    }

    #[test]
    fn what_is_left_out_with_a_tier_is_said() {
        assert_eq!(shown(&["avx2", "avx512bw"]), "avx2, avx512bw");
        assert_eq!(
            shown(&["scalar", "avx2"]),
            "scalar, avx2 and what no tier changes"
        );
    }

    #[test]
    fn names_are_unique() {
        for (index, tier) in TIERS.iter().enumerate() {
            assert!(TIERS[..index].iter().all(|other| other.name != tier.name));
        }
    }
}
