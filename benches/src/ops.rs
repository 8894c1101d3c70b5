//! What runs: one file an operation.
//!
//! Each turns what was asked for into [`Job`]s, which build their cell only when its turn comes, so
//! that at most one cell's data is in memory. Answers are compared with the scalar tier's before a
//! contender is handed out: a wrong answer is an error, not a fast row.

pub mod batch;
mod contest;
pub mod conv;
pub mod convert;
pub mod dynamic;
mod elementwise;
pub mod finish;
pub mod gemm;
pub mod model;
pub mod quantize;
pub mod wide;

use std::hint::black_box;
use std::sync::Arc;

use qkernels::Isa;

use crate::BenchError;
use crate::limit::Demand;
use crate::machine::{Machine, Team};
use crate::measure::{Cell, Contender};
use crate::peer::{Peer, Task, Work};
use crate::values::Values;

/// The library of this workspace, as results name it.
pub const OURS: &str = "quaver";

/// Who runs: every operation is tried on each tier and each team, and by each peer.
pub struct Field {
    /// The tiers.
    pub isas: Vec<Isa>,
    /// The teams, one for each number of threads.
    pub teams: Vec<Arc<Team>>,
    /// Who else does the work.
    pub peers: Vec<Box<dyn Peer>>,
    /// Pools for the peers, of as many threads as the teams.
    pub pools: Vec<Arc<Team>>,
    /// The machine they run on.
    pub machine: Machine,
}

impl Field {
    /// A field of these tiers, numbers of threads and peers.
    ///
    /// # Errors
    ///
    /// [`BenchError::Threads`] when the system has no more threads to give.
    pub fn new(
        isas: Vec<Isa>,
        threads: &[usize],
        peers: Vec<Box<dyn Peer>>,
    ) -> Result<Self, BenchError> {
        let teams = |new: fn(usize) -> Result<Team, BenchError>| {
            threads
                .iter()
                .map(|&threads| new(threads).map(Arc::new))
                .collect::<Result<Vec<_>, _>>()
        };
        let pools = if peers.is_empty() {
            Vec::new()
        } else {
            teams(Team::pooled)?
        };
        Ok(Self {
            isas,
            teams: teams(Team::new)?,
            peers,
            pools,
            machine: Machine::detect(),
        })
    }

    /// The best of the tiers.
    fn best(&self) -> Isa {
        self.isas.last().copied().unwrap_or(Isa::SCALAR)
    }
}

/// Builds a cell for a field.
pub type Build = Box<dyn FnOnce(&Field) -> Result<Cell, BenchError>>;

/// A cell that is yet to be built.
pub struct Job {
    /// What it is, for the progress bar.
    pub label: String,
    /// Builds it, and checks the answers of its contenders.
    pub build: Build,
}

/// What all contenders of a cell are compared by.
struct Judge<'a> {
    /// The element types of the task.
    types: &'a str,
    /// What the task asks of the machine at the least.
    demands: &'a [Demand],
    /// Where answers are compared.
    places: &'a [usize],
    /// Our answers there.
    expected: Values<'a>,
    /// How far floats may lie from them.
    slack: f64,
}

/// Each peer that can do the task, on as many threads as the team at `index` has.
fn peers(
    field: &Field,
    index: usize,
    task: &Task<'_>,
    judge: &Judge<'_>,
) -> Result<Vec<Contender>, BenchError> {
    let mut contenders = Vec::new();
    for peer in &field.peers {
        let team = &field.pools[index];
        let prepared = team.run(|| -> Result<_, BenchError> {
            let Some(mut work) = peer.prepare(task, team.threads())? else {
                return Ok(None);
            };
            work.run()?;
            Ok(Some(work))
        })?;
        if let Some(work) = prepared {
            contenders.push(Contender {
                library: peer.name(),
                types: work.types().unwrap_or_else(|| judge.types.to_owned()),
                isa: peer.isa(),
                team: Arc::clone(team),
                demands: judge.demands.to_vec(),
                repeats: 1,
                agreement: Some(work.answer().agreement(
                    judge.places,
                    &judge.expected,
                    judge.slack,
                )),
                detail: work.detail(),
                call: repeated(work),
            });
        }
    }
    Ok(contenders)
}

/// A call that does the work once more.
fn repeated(mut work: Box<dyn Work>) -> Box<dyn FnMut() + Send> {
    Box::new(move || {
        let done = work.run();
        debug_assert!(done.is_ok(), "the same call has succeeded before");
        let _ = black_box(done);
    })
}

/// Compares a result with the scalar reference's, element by element.
fn check_answers<T: PartialEq + std::fmt::Debug>(
    op: &'static str,
    shape: &str,
    isa: Isa,
    found: &[T],
    expected: &[T],
) -> Result<(), BenchError> {
    match found
        .iter()
        .zip(expected)
        .position(|(found, expected)| found != expected)
    {
        None => Ok(()),
        Some(index) => Err(BenchError::WrongAnswer {
            op,
            shape: shape.to_owned(),
            isa: isa.name(),
            index,
            found: format!("{:?}", found[index]),
            expected: format!("{:?}", expected[index]),
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every tier here, on one and two threads.
    pub(crate) fn field() -> Field {
        Field::new(Isa::available().collect(), &[1, 2], Vec::new()).unwrap()
    }

    /// Builds each job's cell and runs each contender once.
    pub(crate) fn run_all(jobs: Vec<Job>) {
        assert!(!jobs.is_empty());
        let field = field();
        for job in jobs {
            let mut cell = (job.build)(&field).unwrap();
            assert!(!cell.contenders.is_empty(), "{}", job.label);
            assert!(cell.work.amount() > 0.0, "{}", job.label);
            for contender in &mut cell.contenders {
                let call = &mut contender.call;
                contender.team.run(|| {
                    call();
                    call();
                });
            }
        }
    }

    #[test]
    fn a_wrong_answer_is_named() {
        assert!(check_answers("gemm", "1x2x3", Isa::SCALAR, &[1, 2], &[1, 2]).is_ok());
        let error = check_answers("gemm", "1x2x3", Isa::SCALAR, &[1, 2], &[1, 3]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("element 1 is 2") && text.contains("1x2x3"),
            "{text}"
        );
    }
}
