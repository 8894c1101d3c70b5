//! What elementwise operations have in common: data in, data out, memory as the limit.

use std::fmt::Debug;
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};

use qkernels::{Isa, KernelError};

use super::{Field, Job, OURS, check_answers};
use crate::BenchError;
use crate::limit::{Demand, Kind};
use crate::machine::Team;
use crate::measure::{Cell, Contender, Work};
use crate::peer::{Map, MapOp, Task};
use crate::sizes::Size;
use crate::values::{Element, Values};

/// A kernel on a tier, from a slice of `T` to a slice of `U`.
type Kernel<T, U> = fn(Isa, &[T], &mut [U]) -> Result<(), KernelError>;

/// An operation from a slice of `T` to a slice of `U`.
pub(super) struct Line<T, U> {
    /// The operation.
    pub(super) op: &'static str,
    /// The element types, in and out.
    pub(super) types: &'static str,
    /// What it reads: so many elements.
    pub(super) input: fn(usize) -> Vec<T>,
    /// What it writes.
    pub(super) writes: Writes,
    /// The kernel.
    pub(super) kernel: Kernel<T, U>,
    /// The same in the peers' words; none if it is ours alone.
    pub(super) alike: Option<Alike<U>>,
}

/// The operation in the peers' words.
pub(super) struct Alike<U> {
    op: MapOp,
    /// Our results in words that can be compared.
    values: fn(&[U]) -> Values<'_>,
}

impl<U: Element> Alike<U> {
    /// An operation of peers that gives the same elements.
    pub(super) fn new(op: MapOp) -> Option<Self> {
        Some(Self {
            op,
            values: U::values,
        })
    }
}

/// How much an operation writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// An element for each that it reads.
    Each,
    /// One value for all.
    One,
}

impl Writes {
    fn count(self, read: usize) -> usize {
        match self {
            Writes::Each => read,
            Writes::One => 1,
        }
    }
}

/// Elements as they are timed that are compared with the scalar tier's: no multiple of any vector's
/// length, and many enough to meet every part of a loop.
const CHECKED: usize = 100_003;

/// The least that several threads move from one start to the next.
const LEAST_BYTES_A_START: usize = 8 << 20;

/// A job for each size.
pub(super) fn jobs<T, U>(line: Line<T, U>, sizes: &[Size]) -> Vec<Job>
where
    T: Element,
    U: Clone + Default + PartialEq + Debug + Send + 'static,
{
    let line = Arc::new(line);
    sizes
        .iter()
        .map(|size| {
            let (line, size) = (Arc::clone(&line), size.clone());
            Job {
                label: format!("{} {} {}", line.op, line.types, size.name),
                build: Box::new(move |field| cell(&line, &size, field)),
            }
        })
        .collect()
}

fn cell<T, U>(line: &Line<T, U>, size: &Size, field: &Field) -> Result<Cell, BenchError>
where
    T: Element,
    U: Clone + Default + PartialEq + Debug + Send + 'static,
{
    let (op, kernel, writes) = (line.op, line.kernel, line.writes);
    let (bytes_each, kind): (usize, fn(usize) -> Kind) = match writes {
        Writes::Each => (size_of::<T>() + size_of::<U>(), Kind::Copy),
        Writes::One => (size_of::<T>(), Kind::Read),
    };
    let len = size.bytes / bytes_each;
    let input = (line.input)(len.max(CHECKED));
    let mut checked = input[..CHECKED].to_vec();
    // Not timed: some processors take longer for numbers that are not normal.
    if line.alike.is_some() {
        checked.extend(T::extremes());
    }
    let answer = |isa: Isa| {
        let mut out = vec![U::default(); writes.count(checked.len())];
        match kernel(isa, &checked, &mut out) {
            Ok(()) => Ok(out),
            Err(source) => Err(BenchError::Kernel {
                op,
                shape: size.name.clone(),
                isa: isa.name(),
                source,
            }),
        }
    };
    let expected = answer(Isa::SCALAR)?;
    let places: Vec<usize> = (0..expected.len()).collect();
    for &isa in &field.isas {
        let found = answer(isa)?;
        match &line.alike {
            // By their bits, since a NaN does not equal itself.
            Some(alike) => {
                let bits = |out: &[U]| (alike.values)(out).bits(&places);
                check_answers(op, &size.name, isa, &bits(&found), &bits(&expected))?;
            }
            None => check_answers(op, &size.name, isa, &found, &expected)?,
        }
    }
    let mut contenders = Vec::new();
    for team in &field.teams {
        // The kernels leave splitting to the caller: here each thread has a share of its own.
        let share = len.div_ceil(team.threads());
        let bytes = (share * team.threads() * bytes_each).max(1);
        // A pool takes microseconds to start its threads, as long as small work itself.
        let repeats = if team.threads() == 1 {
            1
        } else {
            LEAST_BYTES_A_START.div_ceil(bytes)
        };
        let contender = |library, isa, call| Contender {
            library,
            types: line.types.to_owned(),
            isa,
            team: Arc::clone(team),
            demands: vec![Demand {
                kind: kind(bytes),
                amount: bytes as f64,
            }],
            repeats,
            agreement: None,
            detail: None,
            call,
        };
        for &isa in &field.isas {
            let shares = (0..team.threads())
                .map(|_| {
                    let input = input[..share].to_vec();
                    (input, vec![U::default(); writes.count(share)])
                })
                .collect();
            let call = shared(team, repeats, shares, move |(input, out)| {
                let done = kernel(isa, black_box(input), out);
                debug_assert!(done.is_ok(), "the same call has succeeded before");
                let _ = black_box(done);
                black_box(&mut *out);
            });
            contenders.push(contender(OURS, isa.name(), call));
        }
        let Some(alike) = &line.alike else { continue };
        let expected = (alike.values)(&expected);
        for peer in &field.peers {
            let task = |input| {
                Task::Map(Map {
                    op: alike.op,
                    input: T::values(input),
                    output: expected.dtype(),
                })
            };
            let whole = task(&checked);
            let Some(mut tried) = peer.prepare(&whole, 1)? else {
                continue;
            };
            tried.run()?;
            let agreement = tried.answer().agreement(&places, &expected, whole.slack());
            let mut works = Vec::new();
            for _ in 0..team.threads() {
                works.extend(peer.prepare(&task(&input[..share]), 1)?);
            }
            let call = shared(team, repeats, works, |work| {
                let done = work.run();
                debug_assert!(done.is_ok(), "the same call has succeeded before");
                let _ = black_box(done);
            });
            contenders.push(Contender {
                agreement: Some(agreement),
                detail: tried.detail(),
                ..contender(peer.name(), peer.isa(), call)
            });
        }
    }
    Ok(Cell {
        op,
        shape: (1, 1, len),
        batch: 1,
        data: size.name.clone(),
        work: Work::Bytes((len * bytes_each) as f64),
        contenders,
    })
}

/// A call in which each thread of the team runs its own share so often.
fn shared<S: Send + 'static>(
    team: &Arc<Team>,
    repeats: usize,
    shares: Vec<S>,
    run: impl Fn(&mut S) + Send + Sync + 'static,
) -> Box<dyn FnMut() + Send> {
    let team = Arc::clone(team);
    let shares: Vec<Mutex<S>> = shares.into_iter().map(Mutex::new).collect();
    Box::new(move || {
        team.each(|index| {
            let mut share = shares[index].lock().unwrap_or_else(PoisonError::into_inner);
            for _ in 0..repeats {
                run(&mut share);
            }
        });
    })
}
