//! Whole calibrations side by side: recording all examples and choosing the ranges of all tensors,
//! by us and by ONNX Runtime, each in a process of its own.
//!
//! What both read is the same file. Timed is what a calibrator does with activations once it has
//! them, not the inference that makes them, nor reading the file. ONNX Runtime's entropy and
//! percentile calibrators keep the activations of all examples until they make one histogram of
//! them (`at once`), so that its process does, too; one can also hand it the examples `one by one`,
//! in memory that does not grow, and its histograms get more bins whenever a range grows. Its
//! min-max calibrator reduces each example in a model. Ours has one example a thread in memory, and
//! is the same work either way.
//!
//! Ours runs on so many threads as are asked for, each with observers of its own that are merged in
//! the end, and chooses ranges on as many; starting the threads, making observers and merging them
//! is timed, too. Every thread reads its own examples, and of their times without this the longest
//! counts. ONNX Runtime's min-max gets as many for its session; its histograms are made by NumPy on
//! one thread, whatever is asked for, and stand beside ours of any number. Every process does all of
//! it twice, and the second time counts. The last rows are totals over all methods and ways, of each
//! library.

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
use crate::record::{Key, Record};

/// The name of the operation.
pub const OP: &str = "calibrate";

/// The peer.
pub const ONNXRUNTIME: &str = "onnxruntime";

/// What rows say in which ours repeats the peer's choices.
pub const REPEATED: &str = "as onnxruntime";

/// What rows say that are totals over all methods and ways.
pub const TOTAL: &str = "all methods";

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

/// A method, and whether ONNX Runtime collects all examples at once.
type Way = (Wanted, bool);

fn ways() -> impl Iterator<Item = Way> {
    Wanted::ALL.into_iter().flat_map(|method| {
        // Two numbers an example are all that min-max keeps.
        let one_by_one = (method != Wanted::MinMax).then_some((method, false));
        [Some((method, true)), one_by_one].into_iter().flatten()
    })
}

/// The records of every method: ours, ours as the peer does it, and the peer where there is an
/// interpreter; in the end their totals.
///
/// # Errors
///
/// [`BenchError::File`] when the examples cannot be written, [`BenchError::Peer`] when a process
/// fails.
pub fn side_by_side(
    plan: Plan,
    threads: &[usize],
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
    let labels = Labels {
        plan,
        machine,
        commit,
    };
    let mut records = Vec::new();
    let mut totals = Totals::new(threads, python.is_some());
    for way in ways() {
        let mut sides = sides(way, plan, threads, &file, python)?;
        for _ in 0..plan.rounds {
            for side in &mut sides {
                let done: Done = side.child.ask(&side.question)?;
                side.seconds.push(done.seconds);
                side.last = Some(done);
            }
        }
        let mut of_way = records_of(&sides, &labels);
        relate(&mut of_way);
        records.extend(of_way);
        totals.add(&sides);
    }
    let mut of_all = totals.records(&labels);
    relate(&mut of_all);
    records.extend(of_all);
    Ok(records)
}

/// Notes in ours how many times as fast they are as the peer on as many threads, or as the peer
/// that has one whatever it is given.
fn relate(records: &mut [Record]) {
    let peers: Vec<(usize, f64)> = records
        .iter()
        .filter(|record| !record.is_ours())
        .map(|record| (record.key.threads, record.time_ns()))
        .collect();
    for record in records.iter_mut().filter(|record| record.is_ours()) {
        let alike = peers.iter().find(|peer| peer.0 == record.key.threads);
        if let Some((_, median)) = alike.or(peers.first()) {
            let ratio = median / record.time_ns();
            record.ratios.insert(ONNXRUNTIME.to_owned(), ratio);
        }
    }
}

fn sides(
    (method, at_once): Way,
    plan: Plan,
    threads: &[usize],
    file: &Path,
    python: Option<&Path>,
) -> Result<Vec<Side>, BenchError> {
    let side = |library, types, isa, command: &mut Command, repeat, threads| {
        Ok::<Side, BenchError>(Side {
            library,
            types,
            isa,
            child: Child::start(library, command)?,
            question: Question {
                method,
                repeat,
                at_once,
                file: file.to_path_buf(),
                examples: plan.examples,
                tensors: examples::TENSORS.iter().map(|tensor| tensor.len).collect(),
                threads,
            },
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
    let mut sides = Vec::new();
    for &threads in threads {
        sides.push(side(
            OURS,
            name.to_owned(),
            isa,
            &mut ours()?,
            false,
            threads,
        )?);
    }
    let repeated = format!("{name} {REPEATED}");
    sides.push(side(OURS, repeated, isa, &mut ours()?, true, 1)?);
    if let Some(python) = python {
        let only = [1];
        let threads = if method == Wanted::MinMax {
            threads
        } else {
            &only
        };
        for &threads in threads {
            let command = &mut script(python);
            sides.push(side(
                ONNXRUNTIME,
                name.to_owned(),
                "own",
                command,
                true,
                threads,
            )?);
        }
    }
    Ok(sides)
}

/// What all records of a run have in common.
struct Labels<'a> {
    plan: Plan,
    machine: &'a Machine,
    commit: Option<&'a str>,
}

impl Labels<'_> {
    /// A record of calibrating all examples so many times in one round.
    fn record(&self, (library, threads): (&str, usize), seconds: &[f64], times: usize) -> Record {
        let timing = Timing::of(seconds);
        let values = examples::values();
        let bytes = (values * size_of::<f32>() * self.plan.examples * times) as f64;
        let isa = if library == OURS {
            Isa::detect().name()
        } else {
            "own"
        };
        Record {
            key: Key {
                op: OP.to_owned(),
                types: TOTAL.to_owned(),
                m: 1,
                k: 1,
                n: values,
                batch: self.plan.examples,
                data: format!("{times} in total"),
                isa: isa.to_owned(),
                threads,
                library: library.to_owned(),
            },
            gops: None,
            gbps: Some(bytes / timing.median / 1e9),
            limit: None,
            limited_by: None,
            median_ns: timing.median * 1e9,
            best_ns: None,
            spread: timing.spread,
            agreement: None,
            detail: None,
            peak_bytes: None,
            ratios: Default::default(),
            cpu: self.machine.cpu.clone(),
            commit: self.commit.map(str::to_owned),
        }
    }
}

/// Seconds of all ways together, round by round.
struct Totals(Vec<Total>);

struct Total {
    library: &'static str,
    threads: usize,
    ways: usize,
    seconds: Vec<f64>,
    peak_bytes: Option<u64>,
}

impl Totals {
    fn new(threads: &[usize], peer: bool) -> Self {
        let libraries = [Some(OURS), peer.then_some(ONNXRUNTIME)];
        let totals = libraries.into_iter().flatten().flat_map(|library| {
            threads.iter().map(move |&threads| Total {
                library,
                threads,
                ways: 0,
                seconds: Vec::new(),
                peak_bytes: None,
            })
        });
        Self(totals.collect())
    }

    /// Adds a way: ours as it is on its own, the peer on as many threads if it can use them.
    fn add(&mut self, sides: &[Side]) {
        for total in &mut self.0 {
            let mut own = sides
                .iter()
                .filter(|side| side.library == total.library && !side.types.ends_with(REPEATED));
            let first = own.clone().next();
            let alike = own.find(|side| side.question.threads == total.threads);
            let Some(side) = alike.or(first) else {
                continue;
            };
            total.ways += 1;
            total.seconds.resize(side.seconds.len(), 0.0);
            for (sum, seconds) in total.seconds.iter_mut().zip(&side.seconds) {
                *sum += seconds;
            }
            // Every way has a process of its own.
            let peak = side.last.as_ref().and_then(|done| done.peak_bytes);
            total.peak_bytes = total.peak_bytes.max(peak);
        }
    }

    fn records(&self, labels: &Labels<'_>) -> Vec<Record> {
        self.0
            .iter()
            .map(|total| Record {
                peak_bytes: total.peak_bytes,
                ..labels.record((total.library, total.threads), &total.seconds, total.ways)
            })
            .collect()
    }
}

/// This program.
fn own_program() -> Result<PathBuf, BenchError> {
    std::env::current_exe().map_err(|source| BenchError::Restart { source })
}

fn records_of(sides: &[Side], labels: &Labels<'_>) -> Vec<Record> {
    let repeated = sides
        .iter()
        .find(|side| side.library == OURS && side.types.ends_with(REPEATED))
        .and_then(|side| side.last.as_ref());
    sides
        .iter()
        .map(|side| {
            let last = side.last.as_ref();
            let agreement = (side.library != OURS)
                .then(|| Some(share_equal(&last?.ranges, &repeated?.ranges)))
                .flatten();
            let rest = last.and_then(|done| done.rest_bytes);
            let whose = (side.library, side.question.threads);
            let record = labels.record(whose, &side.seconds, 1);
            let way = if side.question.at_once {
                "at once"
            } else {
                "one by one"
            };
            Record {
                key: Key {
                    types: side.types.clone(),
                    data: way.to_owned(),
                    isa: side.isa.to_owned(),
                    ..record.key
                },
                agreement,
                detail: rest.map(|rest| format!("{} MiB before the first example", rest >> 20)),
                peak_bytes: last.and_then(|done| done.peak_bytes),
                ..record
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
    fn side(library: &'static str, types: &str, threads: usize, seconds: f64, max: f32) -> Side {
        let done = Done {
            seconds,
            ranges: vec![(-1.0, max), (0.0, 2.0)],
            rest_bytes: Some(3 << 20),
            peak_bytes: Some((4 + threads as u64) << 20),
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
                threads,
            },
            seconds: vec![seconds, seconds * 3.0, seconds],
            last: Some(done),
        }
    }

    fn labels(machine: &Machine) -> Labels<'_> {
        Labels {
            plan: Plan::QUICK,
            machine,
            commit: Some("abc"),
        }
    }

    #[test]
    fn ours_is_related_to_the_peer_and_the_peer_to_what_repeats_it() {
        let sides = [
            side(OURS, "entropy", 1, 0.01, 1.0),
            side(OURS, "entropy", 2, 0.005, 1.0),
            side(OURS, "entropy as onnxruntime", 1, 0.5, 1.5),
            side(ONNXRUNTIME, "entropy", 1, 1.0, 2.5),
        ];
        let machine = Machine::detect();
        let mut records = records_of(&sides, &labels(&machine));
        relate(&mut records);
        assert!((records[0].ratios[ONNXRUNTIME] - 100.0).abs() < 1e-9);
        // The peer has one thread whatever it is given.
        assert!((records[1].ratios[ONNXRUNTIME] - 200.0).abs() < 1e-9);
        assert_eq!(records[1].key.threads, 2);
        assert!((records[2].ratios[ONNXRUNTIME] - 2.0).abs() < 1e-9);
        assert_eq!(records[0].agreement, None);
        assert_eq!(records[3].agreement, Some(0.5));
        assert_eq!(records[3].peak_bytes, Some(5 << 20));
        assert!(records[3].detail.as_deref().unwrap().starts_with("3 MiB"));
    }

    #[test]
    fn totals_are_sums_over_all_ways_beside_the_peer_on_as_many_threads() {
        let mut totals = Totals::new(&[1, 2], true);
        let repeated = side(OURS, "minmax as onnxruntime", 1, 9.0, 1.0);
        totals.add(&[
            side(OURS, "minmax", 1, 0.02, 1.0),
            side(OURS, "minmax", 2, 0.01, 1.0),
            repeated,
            side(ONNXRUNTIME, "minmax", 1, 0.5, 1.0),
            side(ONNXRUNTIME, "minmax", 2, 0.3, 1.0),
        ]);
        totals.add(&[
            side(OURS, "entropy", 1, 0.03, 1.0),
            side(OURS, "entropy", 2, 0.02, 1.0),
            side(ONNXRUNTIME, "entropy", 1, 1.5, 1.0),
        ]);
        let machine = Machine::detect();
        let mut records = totals.records(&labels(&machine));
        relate(&mut records);
        let seen: Vec<_> = records
            .iter()
            .map(|r| {
                (
                    r.is_ours(),
                    r.key.threads,
                    (r.median_ns / 1e6).round() as u64,
                )
            })
            .collect();
        let expected = [
            (true, 1, 50),
            (true, 2, 30),
            (false, 1, 2000),
            (false, 2, 1800),
        ];
        assert_eq!(seen, expected);
        assert!((records[0].ratios[ONNXRUNTIME] - 40.0).abs() < 1e-9);
        assert!((records[1].ratios[ONNXRUNTIME] - 60.0).abs() < 1e-9);
        assert_eq!(records[1].peak_bytes, Some(6 << 20));
        assert!(records.iter().all(|r| r.key.data == "2 in total"));
    }

    #[test]
    fn missing_ranges_are_not_equal() {
        assert!((share_equal(&[(0.0, 1.0)], &[(0.0, 1.0), (0.0, 2.0)]) - 0.5).abs() < 1e-9);
        assert!(share_equal(&[], &[]).abs() < 1e-9);
    }
}
