//! `rten-gemm`: u8·i8 to i32 with weights packed ahead.
//!
//! It takes its threads from the rayon pool that it is called in.

use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::Matrix;

use super::task::{Finish, Task, Weights};
use super::{Peer, Work};
use crate::BenchError;
use crate::shapes::Shape;
use crate::values::Values;

thread_local! {
    /// Bound to its thread, since it holds its kernel in a box that is not `Send`.
    static EXECUTOR: GemmExecutor<u8, i8, i32> = GemmExecutor::default();
}

struct Rten;

#[expect(clippy::unnecessary_wraps, reason = "every peer is opened alike")]
pub(super) fn open(_cap: Option<qkernels::Isa>) -> Result<Box<dyn Peer>, BenchError> {
    Ok(Box::new(Rten))
}

impl Peer for Rten {
    fn name(&self) -> &'static str {
        "rten"
    }

    fn prepare(
        &self,
        task: &Task<'_>,
        _threads: usize,
    ) -> Result<Option<Box<dyn Work>>, BenchError> {
        let Task::MatMul(task) = task else {
            return Ok(None);
        };
        let (Values::U8(a), Values::I8(b), Finish::Sums, 1, Weights::Packed(copies)) =
            (task.a, task.b, task.finish, task.batch, task.weights)
        else {
            return Ok(None);
        };
        let Shape { m, k, n } = task.shape;
        let packed = EXECUTOR.with(|executor| executor.prepack_b(Matrix::from_data([k, n], b)));
        Ok(Some(Box::new(RtenWork {
            shape: task.shape,
            a: a.to_vec(),
            packed: vec![packed; copies],
            next: 0,
            c: vec![0; m * n],
        })))
    }
}

struct RtenWork {
    shape: Shape,
    a: Vec<u8>,
    packed: Vec<PackedBMatrix<i8>>,
    next: usize,
    c: Vec<i32>,
}

impl Work for RtenWork {
    fn run(&mut self) -> Result<(), BenchError> {
        let Shape { m, k, .. } = self.shape;
        let b = &self.packed[self.next];
        self.next = (self.next + 1) % self.packed.len();
        EXECUTOR
            .with(|executor| {
                executor.gemm(
                    &mut self.c,
                    GemmInputA::Unpacked(Matrix::from_data([m, k], &self.a[..])),
                    GemmInputB::Packed(b),
                    GemmOptions::default(),
                )
            })
            .map_err(|error| BenchError::Peer {
                peer: "rten",
                reason: error.to_string(),
            })
    }

    fn answer(&self) -> Values<'_> {
        Values::I32(&self.c)
    }

    fn detail(&self) -> Option<String> {
        Some(EXECUTOR.with(|executor| executor.kernel_name().to_owned()))
    }
}
