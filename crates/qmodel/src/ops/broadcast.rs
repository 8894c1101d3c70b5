//! `NumPy` broadcasting (the ONNX standard's "Multidirectional Broadcasting"), and the arithmetic
//! operators on top of it.

use std::marker::PhantomData;

use super::{Facts, Inputs, Operator, RunContext, Spec};
use crate::{Dim, ElementType, ModelError, Tensor, TensorElement, TensorType};

/// Dimensions of the result of broadcasting.
pub(crate) fn output_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, ModelError> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], i: usize| match (i + dims.len()).checked_sub(rank) {
        Some(j) => dims[j].clone(),
        None => Dim::Known(1),
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (Dim::Known(1), d) | (d, Dim::Known(1)) => Ok(d),
            (Dim::Known(x), Dim::Known(y)) if x != y => Err(ModelError::operand(
                "inputs",
                format!(
                    "{} and {}",
                    crate::graph::show_dims(a),
                    crate::graph::show_dims(b)
                ),
                "shapes that broadcast: equal dimensions, or 1",
            )),
            // A number above 1 can only meet itself (or a 1 in the unknown place).
            (Dim::Known(x), _) | (_, Dim::Known(x)) => Ok(Dim::Known(x)),
            (x, y) if x == y => Ok(x),
            _ => Ok(Dim::Unknown),
        })
        .collect()
}

/// A run of neighbouring output elements, and where its operands start. The operands advance by
/// their step, 0 or 1, for each element.
pub(crate) struct Run {
    pub(crate) out: usize,
    pub(crate) a: usize,
    pub(crate) b: usize,
}

/// How to walk through two operands that broadcast to `out`: dimensions that both operands
/// traverse alike are merged, so that runs are as long as they can be.
pub(crate) struct Walk {
    /// Outer dimensions, outermost first: size, step of a, step of b.
    outer: Vec<(usize, usize, usize)>,
    /// Length of a run.
    pub(crate) len: usize,
    /// Whether a advances along a run; otherwise it is one element.
    pub(crate) a_moves: bool,
    /// The same for b.
    pub(crate) b_moves: bool,
}

impl Walk {
    /// The shapes must broadcast to `out`.
    pub(crate) fn new(a: &[usize], b: &[usize], out: &[usize]) -> Walk {
        let steps = |shape: &[usize]| {
            let mut steps = vec![0; out.len()];
            let mut step = 1;
            for i in (0..shape.len()).rev() {
                let at = i + out.len() - shape.len();
                if shape[i] != 1 {
                    steps[at] = step;
                }
                step *= shape[i];
            }
            steps
        };
        let (sa, sb) = (steps(a), steps(b));
        let mut dims: Vec<(usize, usize, usize)> = Vec::new();
        for (i, &n) in out.iter().enumerate().filter(|(_, n)| **n != 1) {
            match dims.last_mut() {
                // The outer dimension steps over exactly one round of this one, in both.
                Some((m, pa, pb)) if *pa == sa[i] * n && *pb == sb[i] * n => {
                    (*m, *pa, *pb) = (*m * n, sa[i], sb[i]);
                }
                _ => dims.push((n, sa[i], sb[i])),
            }
        }
        // The innermost steps are 0 or 1, because nothing but ones lies further in.
        let (len, a_step, b_step) = dims.pop().unwrap_or((1, 0, 0));
        Walk {
            outer: dims,
            len,
            a_moves: a_step != 0,
            b_moves: b_step != 0,
        }
    }

    /// Calls `f` on every run, in output order. Nothing is called for an empty output.
    pub(crate) fn for_each(&self, mut f: impl FnMut(Run)) {
        let count: usize = self.outer.iter().map(|d| d.0).product();
        if self.len == 0 {
            return;
        }
        let mut at = vec![0usize; self.outer.len()];
        let (mut a, mut b) = (0usize, 0usize);
        for i in 0..count {
            f(Run {
                out: i * self.len,
                a,
                b,
            });
            for (d, &(n, sa, sb)) in self.outer.iter().enumerate().rev() {
                at[d] += 1;
                a += sa;
                b += sb;
                if at[d] < n {
                    break;
                }
                a -= n * sa;
                b -= n * sb;
                at[d] = 0;
            }
        }
    }
}

/// `out[i] = f(a[i], b[i])` with broadcasting.
pub(crate) fn zip<A: Copy, B: Copy, O>(
    (a, a_shape): (&[A], &[usize]),
    (b, b_shape): (&[B], &[usize]),
    out_shape: &[usize],
    out: &mut [O],
    f: impl Fn(A, B) -> O,
) {
    let walk = Walk::new(a_shape, b_shape, out_shape);
    let n = walk.len;
    walk.for_each(|run| {
        let out = &mut out[run.out..run.out + n];
        match (walk.a_moves, walk.b_moves) {
            (true, true) => {
                let (a, b) = (&a[run.a..run.a + n], &b[run.b..run.b + n]);
                for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
                    *o = f(x, y);
                }
            }
            (true, false) => {
                let y = b[run.b];
                for (o, &x) in out.iter_mut().zip(&a[run.a..run.a + n]) {
                    *o = f(x, y);
                }
            }
            (false, true) => {
                let x = a[run.a];
                for (o, &y) in out.iter_mut().zip(&b[run.b..run.b + n]) {
                    *o = f(x, y);
                }
            }
            (false, false) => {
                for o in out {
                    *o = f(a[run.a], b[run.b]);
                }
            }
        }
    });
}

/// Element types that arithmetic is defined on. Integers wrap, as in ONNX Runtime; division of
/// integers by zero gives zero.
pub(crate) trait Number: TensorElement {
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
}

macro_rules! floats {
    ($($ty:ty)*) => {$(
        impl Number for $ty {
            #[inline] fn add(self, b: $ty) -> $ty { self + b }
            #[inline] fn sub(self, b: $ty) -> $ty { self - b }
            #[inline] fn mul(self, b: $ty) -> $ty { self * b }
            #[inline] fn div(self, b: $ty) -> $ty { self / b }
        }
    )*};
}
floats!(f32 f64);

macro_rules! integers {
    ($($ty:ty)*) => {$(
        impl Number for $ty {
            #[inline] fn add(self, b: $ty) -> $ty { self.wrapping_add(b) }
            #[inline] fn sub(self, b: $ty) -> $ty { self.wrapping_sub(b) }
            #[inline] fn mul(self, b: $ty) -> $ty { self.wrapping_mul(b) }
            #[inline] fn div(self, b: $ty) -> $ty { if b == 0 { 0 } else { self.wrapping_div(b) } }
        }
    )*};
}
integers!(i8 u8 i16 u16 i32 i64);

/// What one of the four operators does to two numbers.
pub(crate) trait Rule: Send + Sync + 'static {
    fn apply<T: Number>(a: T, b: T) -> T;
}

/// Add, Sub, Mul and Div, by their [`Rule`].
pub(crate) struct Arithmetic<R>(PhantomData<R>);

impl<R: Rule> Arithmetic<R> {
    pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
        spec.check(2..=2, 1..=1, &[])?;
        Ok(Box::new(Arithmetic::<R>(PhantomData)))
    }

    fn run_as<T: Number>(
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shape: &[usize],
    ) -> Result<Tensor, ModelError> {
        // In place on the first operand where it is no longer needed and has the output's shape.
        if inputs.get(0)?.shape() == shape {
            let mut out = inputs.take_or_copy::<T>(0, cx.pool)?;
            let b = inputs.get(1)?;
            let b_data = super::slice_of::<T>(b, 1)?;
            let walk = Walk::new(shape, b.shape(), shape);
            let n = walk.len;
            walk.for_each(|run| {
                let out = &mut out[run.out..run.out + n];
                if walk.b_moves {
                    for (o, &y) in out.iter_mut().zip(&b_data[run.b..run.b + n]) {
                        *o = R::apply(*o, y);
                    }
                } else {
                    let y = b_data[run.b];
                    for o in out {
                        *o = R::apply(*o, y);
                    }
                }
            });
            return cx.tensor(shape, out);
        }
        let mut out = cx.scratch::<T>(shape)?;
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        zip(
            (super::slice_of::<T>(a, 0)?, a.shape()),
            (super::slice_of::<T>(b, 1)?, b.shape()),
            shape,
            &mut out,
            R::apply,
        );
        cx.tensor(shape, out)
    }
}

impl<R: Rule> Operator for Arithmetic<R> {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        inputs.same_element(1)?;
        let element = inputs.get(0)?.ty.element;
        if matches!(
            element,
            ElementType::Bool | ElementType::F16 | ElementType::Bf16
        ) {
            return Err(ModelError::operand_type(
                "input 0",
                element,
                "f32, f64 or an integer",
            ));
        }
        let shape = match (inputs.dims(0)?, inputs.dims(1)?) {
            (Some(a), Some(b)) => Some(output_dims(a, b)?),
            _ => None,
        };
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        fn go<R: Rule, T: Number>(
            cx: &mut RunContext<'_>,
            inputs: &mut Inputs<'_>,
            shape: &[usize],
        ) -> Result<Tensor, ModelError> {
            Arithmetic::<R>::run_as::<T>(cx, inputs, shape)
        }
        let element = inputs.get(0)?.element_type();
        let shape = &shapes[0];
        let out = match element {
            ElementType::F32 => go::<R, f32>(cx, inputs, shape),
            ElementType::F64 => go::<R, f64>(cx, inputs, shape),
            ElementType::I8 => go::<R, i8>(cx, inputs, shape),
            ElementType::U8 => go::<R, u8>(cx, inputs, shape),
            ElementType::I16 => go::<R, i16>(cx, inputs, shape),
            ElementType::U16 => go::<R, u16>(cx, inputs, shape),
            ElementType::I32 => go::<R, i32>(cx, inputs, shape),
            ElementType::I64 => go::<R, i64>(cx, inputs, shape),
            other => Err(ModelError::operand_type(
                "input 0",
                other,
                "f32, f64 or an integer",
            )),
        };
        Ok(vec![out?])
    }
}
