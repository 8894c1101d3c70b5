//! Our side of a whole calibration, as a process of its own.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qformat::{DType, Granularity, Scheme};
use quaver::Method;
use quaver::calib::compat::onnxruntime;
use quaver::calib::{CalibError, Observer, Policy, Target, ValueRange, ranges};
use serde::{Deserialize, Serialize};

use super::child::Answer;
use super::examples::Reader;
use crate::BenchError;

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
            .and_then(|question: Question| {
                // The first time finds processors asleep and memory never touched; so the peer
                // does it twice, too.
                calibrate(&question)
                    .and_then(|_| calibrate(&question))
                    .map_err(|error| error.to_string())
            });
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

/// The observers of all tensors.
type Observers = Vec<Box<dyn Observer>>;

/// What a thread gives back: what it recorded, the last example that it took, and how long it read.
struct Share {
    recorded: Result<Observers, BenchError>,
    last: usize,
    reading: Duration,
    end: Instant,
}

/// Examples divided as a calibration on several threads divides them (`Observing::observe_on`):
/// the calling thread and those that it starts each make observers, and take the next example
/// until none is left; then observers are merged, and as many threads choose ranges, tensor by
/// tensor (`Calibrated::with_threads`). Each thread has one example in memory.
///
/// Timed is all of it, from before the first observer is made, but reading the examples, which
/// every thread does for itself: of the threads' times without their own reading, the longest
/// counts.
fn own(question: &Question) -> Result<(Duration, Vec<ValueRange>), BenchError> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let shares = on_threads(question.threads.min(question.examples), || {
        share(question, &next)
    })?;
    let (mut taken, mut all, mut failed) = (Duration::ZERO, Vec::new(), None);
    for share in shares {
        taken = taken.max((share.end - start).saturating_sub(share.reading));
        match share.recorded {
            Ok(observers) => all.push(observers),
            Err(e) if failed.as_ref().is_none_or(|(at, _)| share.last < *at) => {
                failed = Some((share.last, e));
            }
            Err(_) => {}
        }
    }
    if let Some((_, e)) = failed {
        return Err(e);
    }
    let start = Instant::now();
    let observers = merged(all)?;
    let estimator = question.method.method().estimator()?;
    let target = Target::new(DType::I8, Scheme::Symmetric).map_err(CalibError::from)?;
    let next = AtomicUsize::new(0);
    let chosen = on_threads(question.threads.min(observers.len()), || {
        let taken = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        taken
            .map_while(|at| Some((at, observers.get(at)?)))
            .map(|(at, observer)| Ok((at, ranges(&**observer, &*estimator, target)?[0])))
            .collect::<Result<Vec<_>, CalibError>>()
    })?;
    let chosen: Result<Vec<_>, CalibError> = chosen.into_iter().collect();
    let mut chosen = chosen?.concat();
    chosen.sort_unstable_by_key(|(at, _)| *at);
    let taken = taken + start.elapsed();
    Ok((taken, chosen.into_iter().map(|(_, range)| range).collect()))
}

/// What `work` returns on the calling thread and on others, as many in all.
fn on_threads<R: Send>(threads: usize, work: impl Fn() -> R + Sync) -> Result<Vec<R>, BenchError> {
    let work = &work;
    thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads)
            .map(|_| thread::Builder::new().spawn_scoped(scope, work))
            .collect();
        let own = work();
        let mut all = vec![own];
        for helper in helpers {
            let helper = helper.map_err(|source| BenchError::Spawn { threads, source })?;
            all.push(
                helper
                    .join()
                    .unwrap_or_else(|e| std::panic::resume_unwind(e)),
            );
        }
        Ok(all)
    })
}

/// Takes the next example until none is left or one fails. Whoever took those before it finishes
/// them, so the first failure is always among the threads'.
fn share(question: &Question, next: &AtomicUsize) -> Share {
    let (mut last, mut reading) = (0, Duration::ZERO);
    let recorded = observed(question, next, &mut last, &mut reading);
    if recorded.is_err() {
        next.fetch_max(question.examples, Ordering::Relaxed);
    }
    Share {
        recorded,
        last,
        reading,
        end: Instant::now(),
    }
}

fn observed(
    question: &Question,
    next: &AtomicUsize,
    last: &mut usize,
    reading: &mut Duration,
) -> Result<Observers, BenchError> {
    let method = question.method.method();
    let fresh = |_: &usize| method.observer(Granularity::PerTensor, Policy::Error);
    let made: Result<Observers, CalibError> = question.tensors.iter().map(fresh).collect();
    let mut observers = made?;
    let mut example = vec![Vec::new(); question.tensors.len()];
    let start = Instant::now();
    let mut reader = open(question)?;
    *reading += start.elapsed();
    let values: usize = question.tensors.iter().sum();
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= question.examples {
            return Ok(observers);
        }
        *last = at;
        let start = Instant::now();
        reader
            .seek(at * values)
            .map_err(|source| BenchError::File {
                path: question.file.clone(),
                source,
            })?;
        for (x, &len) in example.iter_mut().zip(&question.tensors) {
            read(question, &mut reader, len, x)?;
        }
        *reading += start.elapsed();
        for (observer, x) in observers.iter_mut().zip(&example) {
            observer.observe(at as u64, x, &[x.len()])?;
        }
    }
}

/// The observers of all threads as one.
fn merged(all: Vec<Observers>) -> Result<Observers, CalibError> {
    let mut all = all.into_iter();
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

    #[test]
    fn the_first_example_that_cannot_be_observed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("examples");
        let mut bytes = [0.5f32; 40].map(f32::to_le_bytes).concat();
        // Examples of four values: those from the fourth on are broken.
        for at in (3..10).map(|example| 4 * (4 * example + 1)) {
            bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        std::fs::write(&file, bytes).unwrap();
        for threads in [1, 2, 5] {
            let question = Question {
                method: Wanted::MinMax,
                repeat: false,
                at_once: false,
                file: file.clone(),
                examples: 10,
                tensors: vec![4],
                threads,
            };
            let next = AtomicUsize::new(2);
            let share = share(&question, &next);
            assert!(share.recorded.is_err() && share.last == 3);
            assert!(next.into_inner() >= 10);
            assert!(calibrate(&question).is_err(), "{threads}");
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
