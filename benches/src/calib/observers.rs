//! Observers on one tensor, per tensor and per channel, beside reading it and beside `NumPy`.

use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qformat::Granularity;
use qkernels::Isa;
use quaver::calib::{Observer, ObserverKind, Policy, Record};
use serde::{Deserialize, Serialize};

use super::child::Child;
use crate::BenchError;
use crate::data::Source;
use crate::limit::{Demand, Kind};
use crate::machine::Team;
use crate::measure::{Cell, Contender, Work};
use crate::ops::{Field, Job, OURS};
use crate::sizes::Size;

/// The name of the operation.
pub const OP: &str = "observe";

/// The peer.
const NUMPY: &str = "numpy";

/// Bins of the peer's histogram: as many as ours has on a side.
const BINS: usize = 2048;

/// How long the peer should work on one question: against it asking is nothing.
const LEAST_WORK: Duration = Duration::from_millis(5);

/// The most that it goes over the array for one question.
const MOST_REPEATS: usize = 1000;

/// The axis of the channels in `images × channels × positions`.
const AXIS: usize = 1;

/// A job for each size, granularity and observer.
#[must_use]
pub fn jobs(sizes: &[Size], python: Option<&Path>) -> Vec<Job> {
    let mut jobs = Vec::new();
    for size in sizes {
        for granularity in [
            Granularity::PerTensor,
            Granularity::PerChannel { axis: AXIS },
        ] {
            for kind in ObserverKind::ALL {
                let spec = Spec {
                    kind,
                    granularity,
                    size: size.clone(),
                    python: python.map(Path::to_path_buf),
                };
                jobs.push(Job {
                    label: format!("{OP} {} {}", spec.types(), size.name),
                    build: Box::new(move |field| cell(&spec, field)),
                });
            }
        }
    }
    jobs
}

/// One cell.
struct Spec {
    kind: ObserverKind,
    granularity: Granularity,
    size: Size,
    python: Option<PathBuf>,
}

impl Spec {
    /// As in `minmax, tensor`.
    fn types(&self) -> String {
        let granularity = match self.granularity {
            Granularity::PerTensor => "tensor",
            _ => "channel",
        };
        format!("{}, {granularity}", self.kind)
    }

    /// What the peer calls it, where it has the like.
    fn alike(&self) -> Option<&'static str> {
        match self.kind {
            ObserverKind::MinMax | ObserverKind::MovingAverage => Some("minmax"),
            ObserverKind::Histogram => Some("histogram"),
            _ => None,
        }
    }
}

fn cell(spec: &Spec, field: &Field) -> Result<Cell, BenchError> {
    let shape = shape(spec.size.bytes / size_of::<f32>());
    let x = Arc::new(Source::new(0xca1).f32s(shape.iter().product()));
    let bytes = size_of_val(&x[..]);
    let team = Arc::new(Team::new(1)?);
    let contender = |library, isa, repeats, call| Contender {
        library,
        types: spec.types(),
        isa,
        team: Arc::clone(&team),
        demands: vec![Demand {
            kind: Kind::Read(bytes),
            amount: bytes as f64,
        }],
        repeats,
        agreement: None,
        detail: None,
        call,
    };
    let mut observer = fresh(spec)?;
    observer.observe(0, &x, &shape)?;
    let ends = check(spec, &*observer, &x, shape)?;
    let isa = Isa::detect().name();
    let values = Arc::clone(&x);
    let call = Box::new(move || {
        // Under the same index, so that the moving average keeps one batch.
        let done = observer.observe(0, black_box(&values), &shape);
        debug_assert!(done.is_ok(), "the same call has succeeded before");
        let _ = black_box(done);
    });
    let mut contenders = vec![contender(OURS, isa, 1, call)];
    if let (Some(python), Some(alike)) = (&spec.python, spec.alike()) {
        let peer = numpy(spec, python, alike, (&x, shape), &ends)?;
        contenders.push(Contender {
            agreement: Some(peer.agreement),
            ..contender(NUMPY, "own", peer.repeats, peer.call)
        });
    }
    debug_assert!(!field.isas.is_empty(), "a field has a tier");
    Ok(Cell {
        op: OP,
        shape: (1, 1, x.len()),
        batch: 1,
        data: spec.size.name.clone(),
        work: Work::Bytes(bytes as f64),
        contenders,
    })
}

/// Images of 64 channels of 28 × 28, or as much of one as there is.
fn shape(len: usize) -> [usize; 3] {
    let channels = len.clamp(1, 64);
    let positions = (len / channels).clamp(1, 28 * 28);
    [(len / (channels * positions)).max(1), channels, positions]
}

fn fresh(spec: &Spec) -> Result<Box<dyn Observer>, BenchError> {
    Ok(spec.kind.observer(spec.granularity, Policy::Error)?)
}

/// Compares what was recorded with a plain loop's ends and counts, and gives the ends.
fn check(
    spec: &Spec,
    observer: &dyn Observer,
    x: &[f32],
    [images, channels, positions]: [usize; 3],
) -> Result<Vec<(f32, f32)>, BenchError> {
    let groups = if spec.granularity == Granularity::PerTensor {
        1
    } else {
        channels
    };
    let mut expected = vec![(f32::INFINITY, f32::NEG_INFINITY); groups];
    for (row, values) in x.chunks_exact(positions).enumerate() {
        let (low, high) = &mut expected[row % channels % groups];
        for &v in values {
            (*low, *high) = (low.min(v), high.max(v));
        }
    }
    let count = (images * channels * positions / groups) as u64;
    for (index, expected) in expected.iter().enumerate() {
        let found = observer.record(index).map(|record| {
            let range = record.extent.range();
            (range.map(|r| (r.min, r.max)), counted(&record))
        });
        let expected = Some((Some(*expected), count));
        if found != expected {
            return Err(BenchError::WrongAnswer {
                op: OP,
                shape: spec.size.name.clone(),
                isa: Isa::detect().name(),
                index,
                found: format!("{found:?}"),
                expected: format!("{expected:?}"),
            });
        }
    }
    Ok(expected)
}

/// How many values a record holds: of its histogram where it has one.
fn counted(record: &Record<'_>) -> u64 {
    record.histogram.map_or(record.extent.finite(), |h| {
        let sides = h.positive().iter().chain(h.negative());
        h.zeros() + sides.sum::<u64>()
    })
}

/// What the peer is asked.
#[derive(Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Question<'a> {
    /// To read the array.
    Load { file: &'a Path, shape: [usize; 3] },
    /// To go over it so often.
    Observe {
        what: &'a str,
        channels: bool,
        bins: usize,
        repeats: usize,
    },
}

/// What it found: the ends of every group, and all values that it counted.
#[derive(Deserialize)]
struct Found {
    ends: Vec<(f32, f32)>,
    count: u64,
}

/// The peer on the same array.
struct Numpy {
    /// The share of its answers that are right.
    agreement: f64,
    /// How often a call goes over the array.
    repeats: usize,
    /// What it does when its turn comes.
    call: Box<dyn FnMut() + Send>,
}

/// Hands the array to the peer, and looks at its answer and at the time that it takes.
fn numpy(
    spec: &Spec,
    python: &Path,
    what: &'static str,
    (x, shape): (&[f32], [usize; 3]),
    ends: &[(f32, f32)],
) -> Result<Numpy, BenchError> {
    let mut child = Child::start(NUMPY, &mut super::script(python))?;
    load(&mut child, x, shape)?;
    let channels = spec.granularity != Granularity::PerTensor;
    let question = move |repeats| Question::Observe {
        what,
        channels,
        bins: BINS,
        repeats,
    };
    child.ask::<Found>(&question(1))?;
    let start = Instant::now();
    let found: Found = child.ask(&question(1))?;
    let once = start.elapsed().as_secs_f64().max(1e-9);
    let repeats = ((LEAST_WORK.as_secs_f64() / once).ceil() as usize).clamp(1, MOST_REPEATS);
    let equal = found
        .ends
        .iter()
        .zip(ends)
        .filter(|&(found, ends)| found == ends)
        .count();
    let whole = found.ends.len() == ends.len() && found.count == x.len() as u64;
    let agreement = if whole {
        equal as f64 / ends.len() as f64
    } else {
        0.0
    };
    let call = move || {
        let done = child.ask::<Found>(&question(repeats));
        debug_assert!(done.is_ok(), "the same question has been answered before");
        let _ = black_box(done.map(|found| found.count));
    };
    Ok(Numpy {
        agreement,
        repeats,
        call: Box::new(call),
    })
}

/// Hands the array over in a file.
fn load(child: &mut Child, x: &[f32], shape: [usize; 3]) -> Result<(), BenchError> {
    let mut file = tempfile::NamedTempFile::new().map_err(|source| BenchError::File {
        path: std::env::temp_dir(),
        source,
    })?;
    let mut bytes = Vec::new();
    for part in x.chunks(1 << 16) {
        bytes.clear();
        bytes.extend(part.iter().flat_map(|v| v.to_le_bytes()));
        file.write_all(&bytes).map_err(|source| BenchError::File {
            path: file.path().to_path_buf(),
            source,
        })?;
    }
    child.ask::<Found>(&Question::Load {
        file: file.path(),
        shape,
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_observer_runs_and_is_right() {
        let sizes = [64, 9001, 1 << 20].map(|bytes| Size {
            name: bytes.to_string(),
            bytes,
        });
        let python = crate::calib::python();
        let jobs = jobs(&sizes, python.as_deref());
        assert_eq!(jobs.len(), 24);
        crate::ops::tests::run_all(jobs);
    }

    #[test]
    fn shapes_hold_about_so_many_values() {
        for len in [1, 16, 63, 64, 2250, 1 << 17] {
            let product = shape(len).iter().product::<usize>();
            assert!(product <= len && 2 * product >= len, "{len}: {product}");
        }
    }

    /// A wrong state is found, by its ends and by its counts.
    #[test]
    fn what_is_recorded_is_checked() {
        let spec = Spec {
            kind: ObserverKind::Histogram,
            granularity: Granularity::PerTensor,
            size: Size {
                name: "test".to_owned(),
                bytes: 12,
            },
            python: None,
        };
        let x = [1.0, -2.0, 0.5];
        let mut observer = fresh(&spec).unwrap();
        observer.observe(0, &x, &[1, 1, 3]).unwrap();
        assert_eq!(
            check(&spec, &*observer, &x, [1, 1, 3]).unwrap(),
            [(-2.0, 1.0)]
        );
        assert!(check(&spec, &*observer, &[1.0, -3.0, 0.5], [1, 1, 3]).is_err());
        observer.observe(0, &x, &[1, 1, 3]).unwrap();
        assert!(check(&spec, &*observer, &x, [1, 1, 3]).is_err());
    }
}
