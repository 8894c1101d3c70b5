//! `cargo xtask leak`: no instruction stands where a processor that lacks it could meet it.

mod features;
mod functions;
mod origin;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use iced_x86::CpuidFeature;

use crate::error::Error;
use crate::tiers::{self, TIERS};
use crate::{process, test_programs, workspace};
use functions::Function;
use origin::Origin;

/// Disassemble the kernels and prove that each function keeps to the instructions of its tier.
///
/// Reads the release build of the kernels' tests, in which every operation is instantiated for
/// every tier. A function of a tier's file may contain the instructions whose features the tier
/// detects, and no other; a function outside of `arch` only those of every x86-64 processor. Nor
/// may a tier call into one that needs more. A tier none of whose own instructions are found fails,
/// for then nothing was proven about it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask leak                  build the kernels in release and read them
  cargo xtask leak --list           and list every function that needs more than SSE2
  cargo xtask leak --program FILE   read another x86-64 ELF program that contains the kernels

FILE must have its symbols, in Rust's v0 form: RUSTFLAGS=-Csymbol-mangling-version=v0.
`cargo xtask cross x86_64` proves the same from the other side: it runs the tests on processors that
lack the higher tiers.")]
pub(crate) struct Args {
    /// A program to read; otherwise the kernels' tests are built in release.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// List each function that needs more than every x86-64 processor has.
    #[arg(long)]
    list: bool,
}

/// What a tier's functions came to.
#[derive(Default)]
struct Count {
    functions: u64,
    instructions: u64,
    features: BTreeSet<String>,
}

/// Reads the program, prints a line a tier, and each leak.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => build()?,
    };
    let functions = functions::read(&program)?;
    let by_address: BTreeMap<u64, &Function> = functions
        .iter()
        .map(|function| (function.start, function))
        .collect();
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    let mut leaks = Vec::new();
    for function in &functions {
        let allowed = allowed(&function.origin)?;
        let count = counts.entry(label(&function.origin)).or_default();
        count.functions += 1;
        count.instructions += function.instructions;
        for (feature, first) in &function.features {
            count.features.insert(format!("{feature:?}"));
            if !allowed.contains(feature) {
                leaks.push(format!(
                    "{}: {feature:?} (`{first}`), but it is {}",
                    function.name,
                    may_use(&function.origin)
                ));
            }
        }
        leaks.extend(calls_up(function, &by_address)?);
        if args.list && !function.features.is_empty() {
            let names: Vec<String> = function.features.keys().map(|f| format!("{f:?}")).collect();
            println!("{}: {}", function.name, names.join(" "));
        }
    }
    for (label, count) in &counts {
        println!(
            "{label:<12} {:>5} functions, {:>7} instructions: {}",
            count.functions,
            count.instructions,
            if count.features.is_empty() {
                "those of every x86-64 processor".to_owned()
            } else {
                count.features.iter().cloned().collect::<Vec<_>>().join(" ")
            }
        );
    }
    for leak in &leaks {
        println!("leak: {leak}");
    }
    if !leaks.is_empty() {
        return Err(Error::Missed(format!(
            "{} leak(s) of instructions, listed above",
            leaks.len()
        )));
    }
    proven(&tiers::table()?, &counts, &program)
}

/// Whether the instructions by which each tier of the table is known were found in its functions.
fn proven(table: &[String], counts: &BTreeMap<&str, Count>, program: &Path) -> Result<(), Error> {
    let mut found = 0;
    for tier in TIERS
        .iter()
        .filter(|tier| table.iter().any(|name| name == tier.name))
    {
        let Some(last) = tier.needs.last().filter(|flag| features::known(flag)) else {
            // Scalar, or a tier of another family of processors.
            continue;
        };
        let seen = counts.get(tier.name).is_some_and(|count| {
            // Its own instructions, not those of what it implies.
            features::of(last)
                .first()
                .is_some_and(|feature| count.features.contains(&format!("{feature:?}")))
        });
        if !seen {
            return Err(Error::Missed(format!(
                "tier {}: no function of it in {} has an instruction of {last}, \
                 so nothing is proven about it",
                tier.name,
                program.display()
            )));
        }
        found += 1;
    }
    if found == 0 || !counts.contains_key(OUTSIDE) {
        return Err(Error::Missed(format!(
            "{} has no function of the kernels whose tier can be told",
            program.display()
        )));
    }
    println!("leak: none in {found} tiers and what lies outside of them");
    Ok(())
}

/// Builds the kernels' tests in release with names that tell a function's module.
fn build() -> Result<PathBuf, Error> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(Error::Absent {
            what: "the search for leaked instructions".to_owned(),
            missing: "an x86-64 processor or a program for one".to_owned(),
            remedy: "name a program with --program".to_owned(),
        });
    }
    let mut cargo = process::cargo(["test", "--quiet", "--release", "--package", "qkernels"]);
    cargo.args(["--lib", "--target-dir"]);
    cargo.arg(workspace::target().join("leak"));
    cargo.env("RUSTFLAGS", "-Csymbol-mangling-version=v0");
    println!("$ {}", process::shown(&cargo));
    let mut programs = test_programs::build(&mut cargo)?;
    programs
        .pop()
        .map(|program| program.path)
        .ok_or_else(|| Error::Form {
            origin: process::shown(&cargo),
            expected: "it should build a test program".to_owned(),
        })
}

/// What code outside of the tiers' files is called here.
const OUTSIDE: &str = "outside";

fn label(origin: &Origin) -> &'static str {
    match origin {
        Origin::Outside => OUTSIDE,
        Origin::Tier(tier) => tier.name,
        Origin::Shared { module, .. } => module,
    }
}

/// The features whose instructions a function may contain.
fn allowed(origin: &Origin) -> Result<BTreeSet<CpuidFeature>, Error> {
    let mut allowed = BTreeSet::new();
    for flag in flags(origin) {
        if !features::known(flag) {
            return Err(Error::Form {
                origin: "xtask/src/leak/features.rs".to_owned(),
                expected: format!("it should say which instructions `{flag}` stands for"),
            });
        }
        allowed.extend(features::of(flag));
    }
    Ok(allowed)
}

fn flags(origin: &Origin) -> &'static [&'static str] {
    match origin {
        Origin::Outside => &[],
        Origin::Tier(tier) => tier.needs,
        Origin::Shared { needs, .. } => needs,
    }
}

fn may_use(origin: &Origin) -> String {
    match origin {
        Origin::Outside => {
            "outside of the tiers' files, where only SSE2 is certain (a module that \
                            tiers share has its line in `SHARED` of xtask/src/leak/origin.rs)"
                .to_owned()
        }
        Origin::Tier(tier) => format!(
            "of tier {}, which detects {}",
            tier.name,
            tier.needs.join(", ")
        ),
        Origin::Shared { module, needs } => {
            format!("of `{module}`, which is for {}", needs.join(", "))
        }
    }
}

/// The calls from a tier's function to one that needs more.
fn calls_up(
    function: &Function,
    by_address: &BTreeMap<u64, &Function>,
) -> Result<Vec<String>, Error> {
    if flags(&function.origin).is_empty() {
        // Code outside holds a token for what it calls.
        return Ok(Vec::new());
    }
    let may = allowed(&function.origin)?;
    let mut found = Vec::new();
    for target in &function.calls {
        if let Some(callee) = by_address.get(target)
            && !allowed(&callee.origin)?.is_subset(&may)
        {
            found.push(format!(
                "{} is {}, but calls {}",
                function.name,
                may_use(&function.origin),
                callee.name
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_that_was_not_seen_is_not_proven() {
        let table = ["scalar".to_owned(), "avx2".to_owned(), "neon".to_owned()];
        let path = Path::new("p");
        let seen = |feature: &str| Count {
            features: BTreeSet::from([feature.to_owned()]),
            ..Count::default()
        };
        let mut counts = BTreeMap::from([(OUTSIDE, Count::default())]);
        counts.insert("avx2", seen("AVX"));
        assert!(proven(&table, &counts, path).is_err());
        counts.insert("avx2", seen("AVX2"));
        assert!(proven(&table, &counts, path).is_ok());
        assert!(proven(&table[..1], &counts, path).is_err());
        counts.remove(OUTSIDE);
        assert!(proven(&table, &counts, path).is_err());
    }

    #[test]
    fn a_call_into_a_higher_tier_is_found() {
        let function = |name: &str, start, calls: &[u64]| Function {
            name: name.to_owned(),
            origin: origin::of(name).unwrap(),
            start,
            instructions: 1,
            features: BTreeMap::new(),
            calls: calls.to_vec(),
        };
        let low = function("qkernels::arch::x86_64::avx2::tile", 1, &[2]);
        let high = function("qkernels::arch::x86_64::avx512vnni::tile", 2, &[1]);
        let outside = function("qkernels::driver::run", 3, &[1, 2]);
        let by_address = BTreeMap::from([(1, &low), (2, &high), (3, &outside)]);
        assert_eq!(calls_up(&low, &by_address).unwrap().len(), 1);
        assert_eq!(calls_up(&high, &by_address).unwrap().len(), 0);
        assert_eq!(calls_up(&outside, &by_address).unwrap().len(), 0);
    }
}
