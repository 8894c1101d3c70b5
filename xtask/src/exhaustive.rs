//! `cargo xtask exhaustive`: operations on every input that there is.

mod merge;

use std::process::Command;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::process;
use crate::test_programs::{self, TestProgram};
use crate::tiers::{self, TIERS};

/// Switches the tests on that take all 2^32 floats.
const SWITCH: &str = "QUAVER_EXHAUSTIVE";

/// Names the one tier that they are to run on.
const ONLY: &str = "QUAVER_EXHAUSTIVE_ISA";

/// How tests are called that try every input: `quantize_equals_…_for_all_inputs`.
const MARK: &str = "_for_all_inputs";

/// Compare operations with their reference on every input, on every tier.
///
/// All 2^32 floats to f16 and bf16, all 65,536 values of these to f32, and quantization of all
/// 2^32 floats at scales of every kind. The tests are those of the kernels whose names say
/// `for_all_inputs`, built in release; they use all processors, and take minutes.
///
/// The merge of observers has too many inputs for that: data, and ways to split and merge them, are
/// drawn 100,000 times, and the bytes of each must be those of one pass.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask exhaustive                   every operation on every tier of this processor
  cargo xtask exhaustive --list            the operations
  cargo xtask exhaustive --op quantize     one of them
  cargo xtask exhaustive --isa avx2        one tier
  cargo xtask exhaustive --op merge        100,000 draws of shards that are merged
  cargo xtask exhaustive --op merge --trials 1000000")]
pub(crate) struct Args {
    /// The operation, by the first word of its test (`--list` shows them); all if none is named.
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
    /// The tier; every one that this processor has if none is named.
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,
    /// How often the operation `merge` is drawn.
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    trials: u32,
    /// List the operations and run none.
    #[arg(long)]
    list: bool,
}

/// Runs what is picked: the kernels' operations, then the merge of observers.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let op = args.op.as_deref();
    if op != Some(merge::OP) {
        kernels(args)?;
    }
    if op.is_none_or(|op| op == merge::OP) {
        let isa = args.isa.as_deref();
        picked_tiers(isa)?;
        merge::run(args.trials, isa, args.list)?;
    }
    Ok(())
}

/// Builds the tests in release and runs those that are picked, one after the other.
fn kernels(args: &Args) -> Result<(), Error> {
    let tiers = picked_tiers(args.isa.as_deref())?;
    let mut cargo = process::cargo(["test", "--quiet", "--release", "--package", "qkernels"]);
    cargo.args(["--lib", "--test", "tiers"]);
    let programs = test_programs::build(&mut cargo)?;
    let (library, presence): (Vec<_>, Vec<_>) = programs
        .iter()
        .partition(|program| program.name == "qkernels");
    let mut tests = Vec::new();
    for program in library {
        for name in names(program)? {
            tests.push((program, name));
        }
    }
    let tests = pick(tests, args.op.as_deref())?;
    if args.list {
        for (_, name) in &tests {
            println!("{:<12} {name}", operation(name));
        }
        return Ok(());
    }
    // That these tiers run, before what may take long.
    for program in presence {
        let mut command = program.command(&[]);
        command.env("QUAVER_EXPECT_ISA", tiers.join(","));
        test_programs::run(&mut command, &program.name, Duration::from_secs(60))?;
    }
    println!("on {}", tiers.join(", "));
    for (index, (program, name)) in tests.iter().enumerate() {
        println!("[{}/{}] {}", index + 1, tests.len(), name);
        let start = Instant::now();
        let mut command = program.command(&[]);
        command
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(SWITCH, "1");
        if let Some(isa) = &args.isa {
            command.env(ONLY, isa);
        }
        let printed = process::echoed(&mut command)?;
        if let Some(isa) = &args.isa
            && !printed.contains(&format!("{ONLY}={isa}"))
        {
            return Err(Error::Missed(format!(
                "{name} should say that it keeps to {ONLY}={isa}, but does not; \
                 without --isa it runs on every tier"
            )));
        }
        println!("    passed in {:.0} s", start.elapsed().as_secs_f64());
    }
    for name in tiers::table()? {
        if !tiers.contains(&name.as_str()) {
            let needs = TIERS.iter().find(|tier| tier.name == name);
            let needs = needs.map_or_else(String::new, |tier| tier.needs.join(", "));
            println!("NOT RUN: tier {name} (it needs {needs})");
        }
    }
    Ok(())
}

/// The tiers to run on.
fn picked_tiers(isa: Option<&str>) -> Result<Vec<&'static str>, Error> {
    let here = tiers::expected_here()?;
    let Some(isa) = isa else {
        return Ok(here);
    };
    match here.iter().find(|name| **name == isa) {
        Some(name) => Ok(vec![name]),
        None => Err(Error::Unknown {
            kind: "tier of this processor",
            given: isa.to_owned(),
            known: here.join(", "),
        }),
    }
}

/// The tests of a program that try every input.
fn names(program: &TestProgram) -> Result<Vec<String>, Error> {
    let mut command: Command = program.command(&[]);
    let printed = process::output(command.args(["--list", "--format=terse"]))?;
    Ok(parse(&printed))
}

/// Lines of the form `module::test: test`.
fn parse(listed: &str) -> Vec<String> {
    listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|name| name.contains(MARK))
        .map(str::to_owned)
        .collect()
}

/// The first word of a test's own name.
fn operation(name: &str) -> &str {
    let own = name.rsplit("::").next().unwrap_or(name);
    own.split('_').next().unwrap_or(own)
}

fn pick<P>(tests: Vec<(P, String)>, op: Option<&str>) -> Result<Vec<(P, String)>, Error> {
    let mut known: Vec<String> = tests
        .iter()
        .map(|(_, name)| operation(name).to_owned())
        .collect();
    known.push(merge::OP.to_owned());
    known.sort_unstable();
    known.dedup();
    let picked: Vec<_> = tests
        .into_iter()
        .filter(|(_, name)| op.is_none_or(|op| operation(name) == op))
        .collect();
    if picked.is_empty() {
        return Err(Error::Unknown {
            kind: "operation that is tried on all inputs",
            given: op.unwrap_or_default().to_owned(),
            known: known.join(", "),
        });
    }
    Ok(picked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_all_inputs_are_found_by_their_names() {
        let listed = "tests::a::quantize_equals_the_contract_for_all_inputs: test\n\
                      tests::a::quantize_equals_the_reference: test\n\
                      tests::b::widening_equals_half_for_all_inputs: test\n";
        let names = parse(listed);
        assert_eq!(names.len(), 2);
        assert_eq!(operation(&names[0]), "quantize");
        let tests = || {
            names
                .iter()
                .map(|name| ((), name.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(pick(tests(), None).unwrap().len(), 2);
        assert_eq!(pick(tests(), Some("widening")).unwrap()[0].1, names[1]);
        let error = pick(tests(), Some("dot")).unwrap_err().to_string();
        assert!(
            error.contains("`dot`") && error.contains("merge, quantize, widening"),
            "{error}"
        );
    }

    #[test]
    fn a_tier_must_be_here() {
        assert_eq!(picked_tiers(Some("scalar")).unwrap(), ["scalar"]);
        assert!(picked_tiers(Some("mmx")).is_err());
    }
}
