//! What runs: one file an operation.
//!
//! Each turns what was asked for into [`Job`]s, which build their cell only when its turn comes, so
//! that at most one cell's data is in memory. Answers are compared with the scalar tier's before a
//! contender is handed out: a wrong answer is an error, not a fast row.

pub mod convert;
mod elementwise;
pub mod gemm;
pub mod model;
pub mod quantize;

use std::sync::Arc;

use qkernels::Isa;

use crate::BenchError;
use crate::machine::{Machine, Team};
use crate::measure::Cell;

/// Who runs: every operation is tried on each tier and each team.
#[derive(Debug)]
pub struct Field {
    /// The tiers.
    pub isas: Vec<Isa>,
    /// The teams, one for each number of threads.
    pub teams: Vec<Arc<Team>>,
    /// The machine they run on.
    pub machine: Machine,
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
        Field {
            isas: Isa::available().collect(),
            teams: [1, 2]
                .map(|threads| Arc::new(Team::new(threads).unwrap()))
                .to_vec(),
            machine: Machine::detect(),
        }
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
