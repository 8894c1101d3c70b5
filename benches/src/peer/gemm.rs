//! The `gemm` crate: f32 products of the same shape, whatever type is asked for.
//!
//! It takes its threads from the rayon pool that it is called in, and packs both sides in each
//! call.
#![allow(unsafe_code, reason = "the gemm crate takes pointers")]

use gemm::Parallelism;
use qkernels::Isa;

use super::task::{Finish, Task, Weights};
use super::{Peer, Work};
use crate::BenchError;
use crate::shapes::Shape;
use crate::values::Values;

struct Gemm;

#[expect(clippy::unnecessary_wraps, reason = "every peer is opened alike")]
pub(super) fn open(_cap: Option<Isa>) -> Result<Box<dyn Peer>, BenchError> {
    Ok(Box::new(Gemm))
}

impl Peer for Gemm {
    fn name(&self) -> &'static str {
        "gemm"
    }

    fn prepare(
        &self,
        task: &Task<'_>,
        threads: usize,
    ) -> Result<Option<Box<dyn Work>>, BenchError> {
        let Task::MatMul(task) = task else {
            return Ok(None);
        };
        let (Finish::Sums, 1) = (task.finish, task.batch) else {
            return Ok(None);
        };
        let Shape { m, n, .. } = task.shape;
        let copies = match task.weights {
            Weights::Packed(copies) => copies,
            Weights::Plain => 1,
        };
        Ok(Some(Box::new(GemmWork {
            shape: task.shape,
            a: task.a.to_f32s(),
            b: vec![task.b.to_f32s(); copies],
            next: 0,
            c: vec![0.0; m * n],
            parallelism: match threads {
                1 => Parallelism::None,
                threads => Parallelism::Rayon(threads),
            },
        })))
    }
}

struct GemmWork {
    shape: Shape,
    a: Vec<f32>,
    b: Vec<Vec<f32>>,
    next: usize,
    c: Vec<f32>,
    parallelism: Parallelism,
}

impl Work for GemmWork {
    fn run(&mut self) -> Result<(), BenchError> {
        let Shape { m, k, n } = self.shape;
        let b = &self.b[self.next];
        self.next = (self.next + 1) % self.b.len();
        let (k_stride, n_stride) = (k as isize, n as isize);
        // SAFETY: A has m·k, B k·n and C m·n elements, each row by row as the strides say, and C is
        // borrowed mutably.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                self.c.as_mut_ptr(),
                1,
                n_stride,
                false,
                self.a.as_ptr(),
                1,
                k_stride,
                b.as_ptr(),
                1,
                n_stride,
                0.0,
                1.0,
                false,
                false,
                false,
                self.parallelism,
            );
        }
        Ok(())
    }

    fn answer(&self) -> Values<'_> {
        Values::F32(&self.c)
    }

    fn types(&self) -> Option<String> {
        Some("f32·f32→f32".to_owned())
    }
}
