//! `numkong`: packed dot products of i8·i8 to i32 and of u8·u8 to u32, on one thread.

use numkong::{Dots, PackedMatrix, StorageElement, Tensor, TensorError};
use qkernels::Isa;

use super::task::{Finish, Task, Weights};
use super::{Peer, Work};
use crate::BenchError;
use crate::shapes::Shape;
use crate::values::Values;

struct NumKong;

#[expect(clippy::unnecessary_wraps, reason = "every peer is opened alike")]
pub(super) fn open(_cap: Option<Isa>) -> Result<Box<dyn Peer>, BenchError> {
    Ok(Box::new(NumKong))
}

impl Peer for NumKong {
    fn name(&self) -> &'static str {
        "numkong"
    }

    fn prepare(
        &self,
        task: &Task<'_>,
        threads: usize,
    ) -> Result<Option<Box<dyn Work>>, BenchError> {
        let Task::MatMul(task) = task else {
            return Ok(None);
        };
        let (Finish::Sums, 1, 1, Weights::Packed(copies)) =
            (task.finish, task.batch, threads, task.weights)
        else {
            return Ok(None);
        };
        match (task.a, task.b) {
            (Values::I8(a), Values::I8(b)) => {
                NumKongWork::boxed(task.shape, a, b, copies).map(Some)
            }
            (Values::U8(a), Values::U8(b)) => {
                NumKongWork::boxed(task.shape, a, b, copies).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// A type whose sums are 32-bit integers.
trait Operand: Dots<Accumulator = Self::Sum> + Default + Copy + Send + 'static {
    /// The sums' type.
    type Sum: StorageElement + Default + Copy + Send + 'static;

    fn sums(sums: &[Self::Sum]) -> Values<'_>;
}

impl Operand for i8 {
    type Sum = i32;

    fn sums(sums: &[i32]) -> Values<'_> {
        Values::I32(sums)
    }
}

impl Operand for u8 {
    type Sum = u32;

    fn sums(sums: &[u32]) -> Values<'_> {
        Values::I32(bytemuck::cast_slice(sums))
    }
}

struct NumKongWork<T: Operand> {
    a: Tensor<T>,
    packed: Vec<PackedMatrix<T>>,
    next: usize,
    c: Tensor<T::Sum>,
}

impl<T: Operand> NumKongWork<T> {
    fn boxed(shape: Shape, a: &[T], b: &[T], copies: usize) -> Result<Box<dyn Work>, BenchError> {
        let Shape { m, k, n } = shape;
        let make = || -> Result<Self, TensorError> {
            let b = Tensor::<T>::try_from_slice(b, &[k, n])?;
            Ok(Self {
                a: Tensor::try_from_slice(a, &[m, k])?,
                packed: (0..copies)
                    .map(|_| PackedMatrix::try_pack_transposed(&b))
                    .collect::<Result<_, _>>()?,
                next: 0,
                c: Tensor::try_from_slice(&vec![T::Sum::default(); m * n], &[m, n])?,
            })
        };
        Ok(Box::new(make().map_err(failed)?))
    }
}

impl<T: Operand> Work for NumKongWork<T> {
    fn run(&mut self) -> Result<(), BenchError> {
        let packed = &self.packed[self.next];
        self.next = (self.next + 1) % self.packed.len();
        self.a
            .try_dots_packed_into(packed, &mut self.c)
            .map_err(failed)
    }

    fn answer(&self) -> Values<'_> {
        T::sums(self.c.as_slice())
    }
}

fn failed(error: TensorError) -> BenchError {
    BenchError::Peer {
        peer: "numkong",
        reason: format!("{error:?}"),
    }
}
