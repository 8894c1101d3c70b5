//! Whole calibrations side by side: recording all examples and choosing the ranges of all tensors,
//! by us and by ONNX Runtime, each in a process of its own.
//!
//! What both read is the same file. Timed is what a calibrator does with activations once it has
//! them, not the inference that makes them, nor reading the file. ONNX Runtime's entropy and
//! percentile calibrators keep the activations of all examples until they make one histogram of
//! them (`at once`), so that its process does, too; one can also hand it the examples `one by one`,
//! in memory that does not grow, and its histograms get more bins whenever a range grows. Its
//! min-max calibrator reduces each example in a model. Ours always takes them one by one.

use std::path::{Path, PathBuf};
use std::process::Command;

use qkernels::Isa;

use super::child::Child;
use super::serve::{Done, Question, Wanted};
use super::{examples, script};
use crate::BenchError;
use crate::machine::Machine;
use crate::measure::Timing;
use crate::ops::OURS;
use crate::record::{self, Key, Record};

/// The name of the operation.
pub const OP: &str = "calibrate";

/// The peer.
pub const ONNXRUNTIME: &str = "onnxruntime";

/// What rows say in which ours repeats the peer's choices.
pub const REPEATED: &str = "as onnxruntime";

/// The option of this program under which it is our process.
pub const SERVE: &str = "--serve-calibration";

/// How much is calibrated, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Examples.
    pub examples: usize,
    /// Rounds; in each all take their turn.
    pub rounds: usize,
}

impl Plan {
    /// A result to quote.
    pub const FULL: Plan = Plan {
        examples: 200,
        rounds: 5,
    };
    /// Just enough to see that everything runs.
    pub const QUICK: Plan = Plan {
        examples: 4,
        rounds: 2,
    };
}

/// One process that calibrates whenever its turn comes.
struct Side {
    library: &'static str,
    types: String,
    isa: &'static str,
    child: Child,
    question: Question,
    seconds: Vec<f64>,
    last: Option<Done>,
}

/// The records of every method: ours, ours as the peer does it, and the peer where there is an
/// interpreter.
///
/// # Errors
///
/// [`BenchError::File`] when the examples cannot be written, [`BenchError::Peer`] when a process
/// fails.
pub fn side_by_side(
    plan: Plan,
    python: Option<&Path>,
    machine: &Machine,
    commit: Option<&str>,
) -> Result<Vec<Record>, BenchError> {
    let folder = tempfile::tempdir().map_err(|source| BenchError::File {
        path: std::env::temp_dir(),
        source,
    })?;
    let file = folder.path().join("examples.f32");
    examples::write(&file, plan.examples)?;
    let mut records = Vec::new();
    let ways = Wanted::ALL.into_iter().flat_map(|method| {
        // Two numbers an example are all that min-max keeps.
        let one_by_one = (method != Wanted::MinMax).then_some((method, false));
        [Some((method, true)), one_by_one].into_iter().flatten()
    });
    for (method, at_once) in ways {
        let mut sides = sides(method, at_once, plan, &file, python)?;
        for _ in 0..plan.rounds {
            for side in &mut sides {
                let done: Done = side.child.ask(&side.question)?;
                side.seconds.push(done.seconds);
                side.last = Some(done);
            }
        }
        let mut of_method = records_of(&sides, plan, machine, commit);
        record::relate(&mut of_method);
        records.extend(of_method);
    }
    Ok(records)
}

fn sides(
    method: Wanted,
    at_once: bool,
    plan: Plan,
    file: &Path,
    python: Option<&Path>,
) -> Result<Vec<Side>, BenchError> {
    let question = |repeat| Question {
        method,
        repeat,
        at_once,
        file: file.to_path_buf(),
        examples: plan.examples,
        tensors: examples::TENSORS.iter().map(|tensor| tensor.len).collect(),
    };
    let side = |library, types, isa, command: &mut Command, repeat| {
        Ok::<Side, BenchError>(Side {
            library,
            types,
            isa,
            child: Child::start(library, command)?,
            question: question(repeat),
            seconds: Vec::new(),
            last: None,
        })
    };
    let ours = || -> Result<Command, BenchError> {
        let mut command = Command::new(own_program()?);
        command.arg(SERVE);
        Ok(command)
    };
    let (name, isa) = (method.name(), Isa::detect().name());
    let mut sides = vec![
        side(OURS, name.to_owned(), isa, &mut ours()?, false)?,
        side(OURS, format!("{name} {REPEATED}"), isa, &mut ours()?, true)?,
    ];
    if let Some(python) = python {
        let command = &mut script(python);
        sides.push(side(ONNXRUNTIME, name.to_owned(), "own", command, true)?);
    }
    Ok(sides)
}

/// This program.
fn own_program() -> Result<PathBuf, BenchError> {
    std::env::current_exe().map_err(|source| BenchError::Restart { source })
}

fn records_of(sides: &[Side], plan: Plan, machine: &Machine, commit: Option<&str>) -> Vec<Record> {
    let values = examples::values();
    let bytes = (values * size_of::<f32>() * plan.examples) as f64;
    let repeated = sides
        .iter()
        .find(|side| side.library == OURS && side.types.ends_with(REPEATED))
        .and_then(|side| side.last.as_ref());
    sides
        .iter()
        .map(|side| {
            let timing = Timing::of(&side.seconds);
            let last = side.last.as_ref();
            let agreement = (side.library != OURS)
                .then(|| Some(share_equal(&last?.ranges, &repeated?.ranges)))
                .flatten();
            let rest = last.and_then(|done| done.rest_bytes);
            Record {
                key: Key {
                    op: OP.to_owned(),
                    types: side.types.clone(),
                    m: 1,
                    k: 1,
                    n: values,
                    batch: plan.examples,
                    data: if side.question.at_once {
                        "at once".to_owned()
                    } else {
                        "one by one".to_owned()
                    },
                    isa: side.isa.to_owned(),
                    threads: 1,
                    library: side.library.to_owned(),
                },
                gops: None,
                gbps: Some(bytes / timing.median / 1e9),
                limit: None,
                limited_by: None,
                median_ns: timing.median * 1e9,
                spread: timing.spread,
                agreement,
                detail: rest.map(|rest| format!("{} MiB before the first example", rest >> 20)),
                peak_bytes: last.and_then(|done| done.peak_bytes),
                ratios: Default::default(),
                cpu: machine.cpu.clone(),
                commit: commit.map(str::to_owned),
            }
        })
        .collect()
}

/// The share of ranges that are equal, end by end.
fn share_equal(found: &[(f32, f32)], expected: &[(f32, f32)]) -> f64 {
    let equal = found.iter().zip(expected).filter(|(a, b)| a == b).count();
    equal as f64 / found.len().max(expected.len()).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that always answers the same.
    fn side(library: &'static str, types: &str, seconds: f64, max: f32) -> Side {
        let done = Done {
            seconds,
            ranges: vec![(-1.0, max), (0.0, 2.0)],
            rest_bytes: Some(3 << 20),
            peak_bytes: Some(5 << 20),
        };
        Side {
            library,
            types: types.to_owned(),
            isa: "own",
            child: Child::start("cat", &mut Command::new("cat")).unwrap(),
            question: Question {
                method: Wanted::Entropy,
                repeat: false,
                at_once: false,
                file: PathBuf::new(),
                examples: 1,
                tensors: Vec::new(),
            },
            seconds: vec![seconds, seconds * 3.0, seconds],
            last: Some(done),
        }
    }

    #[test]
    fn ours_is_related_to_the_peer_and_the_peer_to_what_repeats_it() {
        let sides = [
            side(OURS, "entropy", 0.01, 1.0),
            side(OURS, "entropy as onnxruntime", 0.5, 1.5),
            side(ONNXRUNTIME, "entropy", 1.0, 2.5),
        ];
        let mut records = records_of(&sides, Plan::QUICK, &Machine::detect(), Some("abc"));
        record::relate(&mut records);
        assert!((records[0].ratios[ONNXRUNTIME] - 100.0).abs() < 1e-9);
        assert!((records[1].ratios[ONNXRUNTIME] - 2.0).abs() < 1e-9);
        assert_eq!(records[0].agreement, None);
        assert_eq!(records[2].agreement, Some(0.5));
        assert_eq!(records[2].peak_bytes, Some(5 << 20));
        assert!(records[2].detail.as_deref().unwrap().starts_with("3 MiB"));
    }

    #[test]
    fn missing_ranges_are_not_equal() {
        assert!((share_equal(&[(0.0, 1.0)], &[(0.0, 1.0), (0.0, 2.0)]) - 0.5).abs() < 1e-9);
        assert!(share_equal(&[], &[]).abs() < 1e-9);
    }
}
