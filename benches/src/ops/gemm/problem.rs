//! One product, and a runner of it with its own memory.

use std::sync::Arc;

use qkernels::{
    Epilogue, KernelError, MatMut, MatRef, Operand, OutMut, OutParams, PackedB, Scale, Threads,
    Workspace, ZeroPoint, ZeroPoints, gemm,
};

use super::{Output, Spec};
use crate::data::Source;
use crate::ops::contest::Call;
use crate::peer::{Finish, Requantize, Scaled};
use crate::shapes::Shape;
use crate::values::Values;

/// The zero point of u8 results.
const OUTPUT_ZERO_POINT: i32 = 128;

/// One product: everything but the packed weights.
pub(super) struct Problem<A> {
    pub(super) a: Vec<A>,
    shape: Shape,
    /// Those of A and of B, where they are used.
    zero_points: (i32, i32),
    /// Whether sums are f32, not integers.
    float: bool,
    output: Output,
    scales: Vec<f32>,
    bias: Vec<i32>,
}

impl<A: Operand> Problem<A> {
    pub(super) fn new(spec: Spec, a: Vec<A>, zero_points: (i32, i32), source: &mut Source) -> Self {
        let Shape { k, n, .. } = spec.shape;
        // Full-range bytes deviate by 74 from their middle, so a sum of k products by 74²·√k. This
        // brings the deviation to between 32 and 64 output steps: few outputs saturate.
        let deviation = 74.0 * 74.0 * (k as f32).sqrt();
        let scales = (0..n)
            .map(|j| 32.0 * (1.0 + j as f32 / n as f32) / deviation)
            .collect();
        let bias = source.sums(n).into_iter().map(|sum| sum >> 8).collect();
        Self {
            a,
            shape: spec.shape,
            zero_points,
            float: !A::ARITHMETIC.integer(),
            output: spec.output,
            scales,
            bias,
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
            zero_points: self.zero_points,
            float: self.float,
            output: self.output,
            scales: self.scales.clone(),
            bias: self.bias.clone(),
        }
    }

    /// The whole result.
    pub(super) fn answer(&self, b: &PackedB) -> Result<Out, KernelError> {
        let Shape { m, n, .. } = self.shape;
        let mut out = self.out(m * n);
        self.run(b, &mut out, &mut Workspace::new(), Threads::Single)?;
        Ok(out)
    }

    /// What becomes of the sums, in the peers' words.
    pub(super) fn finish(&self) -> Finish<'_> {
        let output = match self.output {
            Output::Sums => return Finish::Sums,
            Output::U8 => Requantize::U8(OUTPUT_ZERO_POINT),
            Output::F32 => Requantize::Relu,
        };
        Finish::Scaled(Scaled {
            zero_point_a: self.zero_points.0,
            zero_point_b: self.zero_points.1,
            bias: &self.bias,
            scales: &self.scales,
            output,
        })
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
        let zero_points = ZeroPoints {
            a: ZeroPoint::Tensor(self.zero_points.0),
            b: ZeroPoint::Tensor(self.zero_points.1),
        };
        let scaled = Epilogue {
            bias: Some(&self.bias),
            scale: Scale::Channel(&self.scales),
            ..Epilogue::default()
        };
        let (zero_points, epilogue) = match self.output {
            Output::Sums => (ZeroPoints::default(), Epilogue::default()),
            Output::U8 => (zero_points, scaled),
            Output::F32 => {
                let clamp = Some((0.0, f32::INFINITY));
                (zero_points, Epilogue { clamp, ..scaled })
            }
        };
        let out = match out {
            Out::I32(out) => OutMut::I32(MatMut::new(out, m, n)?),
            Out::F32(out) => OutMut::F32(MatMut::new(out, m, n)?),
            Out::U8(out) => {
                let params = OutParams {
                    zero_point: OUTPUT_ZERO_POINT,
                    min: 0,
                    max: 255,
                };
                OutMut::U8(MatMut::new(out, m, n)?, params)
            }
        };
        gemm(a, b, zero_points, &epilogue, out, ws, threads)
    }

    fn out(&self, len: usize) -> Out {
        match (self.output, self.float) {
            (Output::Sums, false) => Out::I32(vec![0; len]),
            (Output::U8, _) => Out::U8(vec![0; len]),
            (Output::F32, _) | (Output::Sums, true) => Out::F32(vec![0.0; len]),
        }
    }
}

/// The result, in whichever type was asked for.
#[derive(Debug, Clone)]
pub(super) enum Out {
    I32(Vec<i32>),
    U8(Vec<u8>),
    F32(Vec<f32>),
}

impl Out {
    pub(super) fn values(&self) -> Values<'_> {
        match self {
            Out::I32(out) => Values::I32(out),
            Out::U8(out) => Values::U8(out),
            Out::F32(out) => Values::F32(out),
        }
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
            out: problem.out(problem.shape.m * problem.shape.n),
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
