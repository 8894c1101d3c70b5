//! Our side of a whole calibration, as a process of its own.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use qformat::{DType, Granularity, Scheme};
use quaver::Method;
use quaver::calib::compat::onnxruntime;
use quaver::calib::{CalibError, Observer, Policy, Target, ValueRange, ranges};
use serde::{Deserialize, Serialize};

use super::child::Answer;
use super::examples::Reader;
use crate::BenchError;
use crate::machine::Team;

/// What a process is asked to calibrate, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename = "calibrate")]
pub(super) struct Question {
    /// The method.
    pub(super) method: Wanted,
    /// Whether ours is to repeat ONNX Runtime's choice instead of making its own.
    pub(super) repeat: bool,
    /// Whether ONNX Runtime collects all examples at once, or one by one.
    pub(super) at_once: bool,
    /// The examples.
    pub(super) file: PathBuf,
    /// How many there are.
    pub(super) examples: usize,
    /// Values of each tensor in an example.
    pub(super) tensors: Vec<usize>,
    /// Threads: of ours, and of the session behind the peer's min-max. Its histograms have one.
    pub(super) threads: usize,
}

/// The methods that both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wanted {
    MinMax,
    Entropy,
    Percentile,
}

impl Wanted {
    pub(super) const ALL: [Wanted; 3] = [Wanted::MinMax, Wanted::Entropy, Wanted::Percentile];

    pub(super) fn name(self) -> &'static str {
        self.method().name()
    }

    /// Ours of that name, with the defaults that ONNX Runtime's has.
    fn method(self) -> Method {
        match self {
            Wanted::MinMax => Method::MinMax,
            Wanted::Entropy => Method::Entropy,
            Wanted::Percentile => Method::Percentile(99.999),
        }
    }
}

/// What a process answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Done {
    /// Seconds of recording and choosing, without reading the examples.
    pub(super) seconds: f64,
    /// The range of each tensor.
    pub(super) ranges: Vec<(f32, f32)>,
    /// Memory in use before the first example was read, and at most since the process started.
    pub(super) rest_bytes: Option<u64>,
    pub(super) peak_bytes: Option<u64>,
}

/// Answers questions from stdin until it ends.
///
/// # Errors
///
/// [`BenchError::File`] when an answer cannot be written; what else goes wrong is answered.
pub fn serve() -> Result<(), BenchError> {
    let rest_bytes = memory("VmRSS:");
    let failed = |source| BenchError::File {
        path: PathBuf::from("stdout"),
        source,
    };
    for line in std::io::stdin().lock().lines() {
        let done = line
            .map_err(|error| error.to_string())
            .and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string()))
            .and_then(|question: Question| calibrate(&question).map_err(|error| error.to_string()));
        let answer = match done {
            Ok((taken, ranges)) => Answer::Done(Done {
                seconds: taken.as_secs_f64(),
                ranges: ranges.iter().map(|r| (r.min, r.max)).collect(),
                rest_bytes,
                peak_bytes: memory("VmHWM:"),
            }),
            Err(error) => Answer::Failed { error },
        };
        let text = serde_json::to_string(&answer).map_err(|error| failed(error.into()))?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").map_err(failed)?;
        out.flush().map_err(failed)?;
    }
    Ok(())
}

/// The time that recording and choosing take, and the ranges.
pub(super) fn calibrate(question: &Question) -> Result<(Duration, Vec<ValueRange>), BenchError> {
    if question.repeat {
        repeat(question)
    } else {
        own(question)
    }
}

fn open(question: &Question) -> Result<Reader, BenchError> {
    Reader::open(&question.file).map_err(|source| BenchError::File {
        path: question.file.clone(),
        source,
    })
}

fn read(
    question: &Question,
    reader: &mut Reader,
    len: usize,
    into: &mut Vec<f32>,
) -> Result<(), BenchError> {
    reader.next(len, into).map_err(|source| BenchError::File {
        path: question.file.clone(),
        source,
    })
}

/// Examples that a thread has in memory: so many that handing them out takes no time.
const TURN: usize = 4;

/// An example as its tensors.
type Example = Vec<Vec<f32>>;

/// The observers of all tensors.
type Observers = Vec<Box<dyn Observer>>;

/// A few examples at a time, forgotten when the next come. As in a calibration on several threads
/// (`Observing::observe_on`), each has observers of its own and takes the next example; then
/// observers are merged and ranges chosen. Timed is all of it, from the first thread's start to the
/// last one's end.
fn own(question: &Question) -> Result<(Duration, Vec<ValueRange>), BenchError> {
    let method = question.method.method();
    let team = Team::new(question.threads)?;
    let mut reader = open(question)?;
    let mut all: Vec<Mutex<Observers>> = Vec::new();
    for _ in 0..question.threads {
        let fresh = |_: &usize| method.observer(Granularity::PerTensor, Policy::Error);
        let made: Result<Observers, CalibError> = question.tensors.iter().map(fresh).collect();
        all.push(Mutex::new(made?));
    }
    let mut taken = Duration::ZERO;
    let mut examples: Vec<Example> = Vec::new();
    let together = TURN * question.threads;
    for first in (0..question.examples).step_by(together) {
        let count = together.min(question.examples - first);
        examples.resize(count, vec![Vec::new(); question.tensors.len()]);
        for example in &mut examples {
            for (x, &len) in example.iter_mut().zip(&question.tensors) {
                read(question, &mut reader, len, x)?;
            }
        }
        let start = Instant::now();
        observe(&team, &all, first, &examples)?;
        taken += start.elapsed();
    }
    let start = Instant::now();
    let observers = merged(all)?;
    let chosen = Target::new(DType::I8, Scheme::Symmetric)
        .map_err(CalibError::from)
        .and_then(|target| {
            let estimator = method.estimator()?;
            observers
                .iter()
                .map(|observer| Ok(ranges(&**observer, &*estimator, target)?[0]))
                .collect::<Result<Vec<_>, CalibError>>()
        })?;
    Ok((taken + start.elapsed(), chosen))
}

/// Every thread of the team takes the next example until none is left.
fn observe(
    team: &Team,
    all: &[Mutex<Observers>],
    first: usize,
    examples: &[Example],
) -> Result<(), CalibError> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    team.each(|thread| {
        let mut observers = all[thread].lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, example)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            examples.get(at).map(|example| (at, example))
        } {
            for (observer, x) in observers.iter_mut().zip(example) {
                if let Err(error) = observer.observe((first + at) as u64, x, &[x.len()]) {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

/// The observers of all threads as one.
fn merged(all: Vec<Mutex<Observers>>) -> Result<Observers, CalibError> {
    let mut all = all
        .into_iter()
        .map(|one| one.into_inner().unwrap_or_else(PoisonError::into_inner));
    let mut sum = all.next().unwrap_or_default();
    for other in all {
        for (ours, theirs) in sum.iter_mut().zip(&other) {
            ours.merge(&**theirs)?;
        }
    }
    Ok(sum)
}

/// A calibrator of ONNX Runtime's, repeated.
enum Tool {
    MinMax(onnxruntime::MinMax),
    Entropy(onnxruntime::Entropy),
    Percentile(onnxruntime::Percentile),
}

impl Tool {
    fn new(method: Wanted) -> Result<Self, CalibError> {
        Ok(match method {
            Wanted::MinMax => Tool::MinMax(onnxruntime::MinMax::new(Default::default())),
            Wanted::Entropy => Tool::Entropy(onnxruntime::Entropy::new(Default::default())?),
            Wanted::Percentile => {
                Tool::Percentile(onnxruntime::Percentile::new(Default::default())?)
            }
        })
    }

    fn collect(&mut self, batches: &[&[f32]]) -> Result<(), CalibError> {
        match self {
            Tool::MinMax(tool) => tool.collect(batches),
            Tool::Entropy(tool) => tool.collect(batches),
            Tool::Percentile(tool) => tool.collect(batches),
        }
    }

    fn range(&self) -> Result<ValueRange, CalibError> {
        match self {
            Tool::MinMax(tool) => tool.range(),
            Tool::Entropy(tool) => tool.range(),
            Tool::Percentile(tool) => tool.range(),
        }
    }
}

/// As ONNX Runtime does it, with as many examples in memory.
fn repeat(question: &Question) -> Result<(Duration, Vec<ValueRange>), BenchError> {
    let mut taken = Duration::ZERO;
    let mut reader = open(question)?;
    let mut tools = Vec::new();
    for _ in &question.tensors {
        tools.push(Tool::new(question.method)?);
    }
    let together = if question.at_once {
        question.examples.max(1)
    } else {
        1
    };
    for first in (0..question.examples).step_by(together) {
        let mut gathered = vec![Vec::new(); tools.len()];
        for _ in first..question.examples.min(first + together) {
            for (examples, &len) in gathered.iter_mut().zip(&question.tensors) {
                let mut x = Vec::with_capacity(len);
                read(question, &mut reader, len, &mut x)?;
                examples.push(x);
            }
        }
        let start = Instant::now();
        for (tool, examples) in tools.iter_mut().zip(&gathered) {
            let batches: Vec<&[f32]> = examples.iter().map(Vec::as_slice).collect();
            tool.collect(&batches)?;
        }
        taken += start.elapsed();
    }
    let start = Instant::now();
    let chosen = tools.iter().map(Tool::range).collect::<Result<_, _>>()?;
    Ok((taken + start.elapsed(), chosen))
}

/// A line of `/proc/self/status`, in bytes (Linux).
fn memory(line: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let rest = status.lines().find_map(|l| l.strip_prefix(line))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::examples;

    #[test]
    fn both_ways_find_every_tensor_and_min_max_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("examples");
        let count = 11;
        examples::write(&file, count).unwrap();
        for (method, at_once) in Wanted::ALL
            .into_iter()
            .flat_map(|m| [(m, true), (m, false)])
        {
            let [own, two, three, repeated] =
                [(false, 1), (false, 2), (false, 3), (true, 1)].map(|(repeat, threads)| {
                    let question = Question {
                        method,
                        repeat,
                        at_once,
                        file: file.clone(),
                        examples: count,
                        tensors: examples::TENSORS.iter().map(|t| t.len).collect(),
                        threads,
                    };
                    calibrate(&question).unwrap().1
                });
            assert_eq!(own.len(), examples::TENSORS.len());
            assert!(own == two && own == three, "{method:?}");
            assert_eq!(repeated.len(), examples::TENSORS.len());
            assert!(own.iter().chain(&repeated).all(|r| r.min < r.max));
            assert_eq!(own == repeated, method == Wanted::MinMax, "{method:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_known() {
        let (rest, peak) = (memory("VmRSS:").unwrap(), memory("VmHWM:").unwrap());
        assert!(rest > 0 && peak >= rest / 2, "{rest} {peak}");
        assert_eq!(memory("VmNothing:"), None);
    }
}
