//! One product, and a runner of it with its own memory.

use std::sync::Arc;

use qkernels::{KernelError, MatRef, Operand, PackedB, Threads, Workspace, gemm};

use super::Spec;
use crate::data::Source;
use crate::ops::contest::Call;
use crate::ops::finish::{FROM_MIDDLE, Finishing, Out};
use crate::shapes::Shape;
use crate::values::Values;

/// One product: everything but the packed weights.
pub(super) struct Problem<A> {
    pub(super) a: Vec<A>,
    shape: Shape,
    pub(super) finishing: Finishing,
}

impl<A: Operand> Problem<A> {
    pub(super) fn new(
        spec: Spec,
        a: Vec<A>,
        (zero_a, zero_b): (i32, i32),
        source: &mut Source,
    ) -> Self {
        let Shape { k, n, .. } = spec.shape;
        let float = !A::ARITHMETIC.integer();
        Self {
            a,
            shape: spec.shape,
            // The zero points of bytes are near their middles.
            finishing: Finishing::new(
                spec.output,
                (k, n),
                [zero_a, zero_b, 128],
                FROM_MIDDLE,
                float,
                source,
            ),
        }
    }

    /// The same product with some of A's rows only.
    pub(super) fn rows(&self, rows: &[usize]) -> Self {
        let k = self.shape.k;
        Self {
            a: rows
                .iter()
                .flat_map(|row| &self.a[row * k..(row + 1) * k])
                .copied()
                .collect(),
            shape: Shape {
                m: rows.len(),
                ..self.shape
            },
            finishing: self.finishing.clone(),
        }
    }

    /// The whole result.
    pub(super) fn answer(&self, b: &PackedB) -> Result<Out, KernelError> {
        let Shape { m, n, .. } = self.shape;
        let mut out = self.finishing.out(m * n);
        self.run(b, &mut out, &mut Workspace::new(), Threads::Single)?;
        Ok(out)
    }

    fn run(
        &self,
        b: &PackedB,
        out: &mut Out,
        ws: &mut Workspace,
        threads: Threads<'static>,
    ) -> Result<(), KernelError> {
        let Shape { m, k, n } = self.shape;
        let a = MatRef::new(&self.a, m, k)?;
        let (zero_points, epilogue) = self.finishing.ours();
        gemm(a, b, zero_points, &epilogue, out.as_mut(m, n)?, ws, threads)
    }
}

/// One contender's own output and scratch memory.
pub(super) struct Runner<A> {
    problem: Arc<Problem<A>>,
    packs: Arc<Vec<PackedB>>,
    next: usize,
    out: Out,
    workspace: Workspace,
    threads: Threads<'static>,
}

impl<A: Operand> Runner<A> {
    pub(super) fn new(
        problem: &Arc<Problem<A>>,
        packs: &Arc<Vec<PackedB>>,
        threads: Threads<'static>,
    ) -> Self {
        Self {
            problem: Arc::clone(problem),
            packs: Arc::clone(packs),
            next: 0,
            out: problem.finishing.out(problem.shape.m * problem.shape.n),
            workspace: Workspace::new(),
            threads,
        }
    }
}

impl<A: Operand> Call for Runner<A> {
    fn run(&mut self) -> Result<(), KernelError> {
        let pack = &self.packs[self.next];
        self.next = if self.next + 1 == self.packs.len() {
            0
        } else {
            self.next + 1
        };
        self.problem
            .run(pack, &mut self.out, &mut self.workspace, self.threads)
    }

    fn answer(&self) -> Values<'_> {
        self.out.values()
    }
}
