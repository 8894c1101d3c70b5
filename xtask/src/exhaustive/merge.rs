//! The merge of observers: too many inputs to try all, so a hundred thousand are drawn.

use std::time::Duration;

use crate::error::Error;
use crate::{process, test_programs};

/// How this operation is called beside those that are tried on all inputs.
pub(super) const OP: &str = "merge";

/// The property test of `qcalib` that every split and order of the data merges to the same bytes.
const TEST: &str = "any_split_and_order_gives_the_bytes_of_one_pass";

/// Tells the test how many cases to draw.
const TRIALS: &str = "QCALIB_MERGE_TRIALS";

/// More than it takes on any processor that is in use.
const LIMIT: Duration = Duration::from_secs(3600);

/// Draws so many observers, data and ways to split and merge them, in release.
pub(super) fn run(trials: u32, isa: Option<&str>, list: bool) -> Result<(), Error> {
    if list {
        println!("{OP:<12} {TEST} ({trials} draws)");
        return Ok(());
    }
    let mut cargo = process::cargo(["test", "--quiet", "--release", "--package", "qcalib"]);
    cargo.args(["--test", "merge"]);
    for program in test_programs::build(&mut cargo)? {
        println!("[merge] {TEST}, {trials} draws");
        let mut command = program.command(&[]);
        command
            .args([TEST, "--exact"])
            .env(TRIALS, trials.to_string());
        if let Some(isa) = isa {
            command.env("QUAVER_ISA", isa);
        }
        let passed = test_programs::run(&mut command, &program.name, LIMIT)?;
        if passed != 1 {
            return Err(Error::Missed(format!(
                "{passed} tests are called `{TEST}` in {}, but one should be",
                program.name
            )));
        }
    }
    Ok(())
}
