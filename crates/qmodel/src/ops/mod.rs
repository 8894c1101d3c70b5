//! Operators: one file each, with its attributes, shape inference and execution, and one line
//! each in the [registry].
//!
//! An operator is built once from its node ([`Spec`]), tells the types of its outputs from what
//! is known of its inputs ([`Operator::infer`]), and runs on tensors ([`Operator::run`]). Before
//! a run, `infer` is called with the actual shapes, so every check on shapes is written once.

pub(crate) mod registry;

mod spec;

pub(crate) mod broadcast;
pub(crate) mod window;

pub(crate) mod microsoft;

mod add;
pub(crate) mod averagepool;
mod batchnormalization;
mod cast;
pub(crate) mod clip;
pub(crate) mod concat;
mod constant;
pub(crate) mod conv;
mod convinteger;
pub(crate) mod dequantizelinear;
mod div;
mod dynamicquantizelinear;
mod flatten;
pub(crate) mod gemm;
pub(crate) mod globalaveragepool;
mod identity;
pub(crate) mod matmul;
pub(crate) mod matmulinteger;
pub(crate) mod maxpool;
mod mul;
pub(crate) mod qlinearconv;
pub(crate) mod qlinearmatmul;
pub(crate) mod quantizelinear;
mod relu;
mod reshape;
pub(crate) mod sigmoid;
mod softmax;
mod squeeze;
mod sub;
pub(crate) mod transpose;
mod unsqueeze;

use std::sync::Arc;

use qkernels::{Isa, Threads, Workspace};

pub(crate) use self::spec::Spec;
use crate::session::{FusedConv, Pool};
use crate::{Dim, ElementType, ModelError, Tensor, TensorElement, TensorType};

/// What is known of a value.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) ty: TensorType,
    /// The value itself: constants, and at run time small integer tensors (shapes, axes).
    pub(crate) value: Option<Arc<Tensor>>,
}

impl Fact {
    pub(crate) fn constant(t: &Arc<Tensor>) -> Fact {
        Fact {
            ty: TensorType::known(t.element_type(), t.shape()),
            value: Some(Arc::clone(t)),
        }
    }

    /// The value as integers, where it is known.
    pub(crate) fn integers(&self) -> Option<Vec<i64>> {
        let value = self.value.as_ref()?;
        value.as_slice::<i64>().map(<[i64]>::to_vec).or_else(|| {
            Some(
                value
                    .as_slice::<i32>()?
                    .iter()
                    .map(|&v| i64::from(v))
                    .collect(),
            )
        })
    }
}

/// An operator, ready to run.
pub(crate) trait Operator: Send + Sync {
    /// The types of the outputs; also checks the inputs as far as they are known.
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError>;

    /// Runs. `shapes` are those that [`infer`](Self::infer) gave for these inputs; every one is
    /// within the limit on elements.
    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError>;

    /// Whether every output element depends on the input element of the same place alone, for
    /// steps that fusion has made.
    fn is_elementwise(&self) -> bool {
        false
    }

    /// The step as a fused convolution, which can be told where its channels are.
    fn as_fused_conv(&mut self) -> Option<&mut FusedConv> {
        None
    }
}

/// What is known of the inputs of a node.
pub(crate) struct Facts<'a>(pub(crate) &'a [Option<Fact>]);

impl Facts<'_> {
    /// Input `i`, which the arity check of [`Spec`] has found to be given.
    pub(crate) fn get(&self, i: usize) -> Result<&Fact, ModelError> {
        self.optional(i).ok_or_else(|| missing(i))
    }

    pub(crate) fn optional(&self, i: usize) -> Option<&Fact> {
        self.0.get(i).and_then(Option::as_ref)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Element type of input `i`, which must be one of `allowed`.
    pub(crate) fn element(
        &self,
        i: usize,
        allowed: &[ElementType],
    ) -> Result<ElementType, ModelError> {
        let given = self.get(i)?.ty.element;
        if allowed.contains(&given) {
            Ok(given)
        } else {
            let names: Vec<&str> = allowed.iter().map(|t| t.name()).collect();
            Err(ModelError::operand_type(
                operand_name(i),
                given,
                names.join(", "),
            ))
        }
    }

    /// Demands that input `i`, where given, has the same element type as input 0.
    pub(crate) fn same_element(&self, i: usize) -> Result<(), ModelError> {
        match self.optional(i) {
            Some(f) if f.ty.element != self.get(0)?.ty.element => Err(ModelError::operand_type(
                operand_name(i),
                f.ty.element,
                format!("{} (as {})", self.get(0)?.ty.element, operand_name(0)),
            )),
            _ => Ok(()),
        }
    }

    /// Dimensions of input `i`, where its rank is known.
    pub(crate) fn dims(&self, i: usize) -> Result<Option<&[Dim]>, ModelError> {
        Ok(self.get(i)?.ty.shape.as_deref())
    }

    /// Dimensions of input `i`, where its rank is known; then the rank must be in `ranks`.
    pub(crate) fn dims_of_rank(
        &self,
        i: usize,
        ranks: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<&[Dim]>, ModelError> {
        let dims = self.dims(i)?;
        match dims {
            Some(d) if !ranks.contains(&d.len()) => Err(ModelError::operand(
                operand_name(i),
                crate::graph::show_dims(d),
                format!("rank {} to {}", ranks.start(), ranks.end()),
            )),
            _ => Ok(dims),
        }
    }

    /// Demands that input `i`, where given and known, has exactly `count` elements (any rank).
    pub(crate) fn length(&self, i: usize, count: &Dim) -> Result<(), ModelError> {
        let (Some(f), Some(count)) = (self.optional(i), count.known()) else {
            return Ok(());
        };
        let Some(n) = f.ty.shape.as_deref().and_then(known_count) else {
            return Ok(());
        };
        if n == count {
            Ok(())
        } else {
            Err(ModelError::operand(
                operand_name(i),
                f.ty.to_string(),
                format!("{count} elements"),
            ))
        }
    }
}

fn missing(i: usize) -> ModelError {
    ModelError::operand(operand_name(i), "nothing", "it must be given")
}

pub(crate) fn operand_name(i: usize) -> String {
    format!("input {i}")
}

/// The numbers of dimensions that are all known.
pub(crate) fn known_shape(dims: &[Dim]) -> Option<Vec<usize>> {
    dims.iter().map(Dim::known).collect()
}

/// Number of elements of known dimensions.
pub(crate) fn known_count(dims: &[Dim]) -> Option<usize> {
    crate::tensor::element_count(&known_shape(dims)?)
}

/// An axis in `-rank..rank` (`end` lets `rank` itself pass) as one in `0..rank`.
pub(crate) fn resolve_axis(axis: i64, rank: usize) -> Result<usize, ModelError> {
    let r = i64::try_from(rank).unwrap_or(i64::MAX);
    let at = if axis < 0 {
        axis.saturating_add(r)
    } else {
        axis
    };
    match usize::try_from(at) {
        Ok(a) if a < rank => Ok(a),
        _ => Err(ModelError::operand(
            "axis",
            axis.to_string(),
            format!("-{rank} to {rank} - 1"),
        )),
    }
}

/// An operand at run time: borrowed, or given away because nobody needs it later.
#[derive(Debug)]
pub(crate) enum Arg<'a> {
    Borrowed(&'a Tensor),
    Owned(Tensor),
}

/// The operands of a run.
#[derive(Debug)]
pub(crate) struct Inputs<'a>(pub(crate) Vec<Option<Arg<'a>>>);

impl Inputs<'_> {
    pub(crate) fn optional(&self, i: usize) -> Option<&Tensor> {
        match self.0.get(i)? {
            Some(Arg::Borrowed(t)) => Some(t),
            Some(Arg::Owned(t)) => Some(t),
            None => None,
        }
    }

    pub(crate) fn get(&self, i: usize) -> Result<&Tensor, ModelError> {
        self.optional(i).ok_or_else(|| missing(i))
    }

    /// The elements of input `i`.
    pub(crate) fn slice<T: TensorElement>(&self, i: usize) -> Result<&[T], ModelError> {
        slice_of(self.get(i)?, i)
    }

    /// The elements of input `i`, where it is given.
    pub(crate) fn optional_slice<T: TensorElement>(
        &self,
        i: usize,
    ) -> Result<Option<&[T]>, ModelError> {
        self.optional(i).map(|t| slice_of(t, i)).transpose()
    }

    /// The one element of input `i`, where it is given.
    pub(crate) fn optional_scalar<T: TensorElement>(
        &self,
        i: usize,
    ) -> Result<Option<T>, ModelError> {
        match self.optional_slice::<T>(i)? {
            Some([v]) => Ok(Some(*v)),
            Some(v) => Err(ModelError::operand(
                operand_name(i),
                format!("{} elements", v.len()),
                "one element",
            )),
            None => Ok(None),
        }
    }

    /// Input `i` by value, if it was given away.
    pub(crate) fn take(&mut self, i: usize) -> Option<Tensor> {
        let slot = self.0.get_mut(i)?;
        match slot.take() {
            Some(Arg::Owned(t)) => Some(t),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// The elements of input `i` to be overwritten with the result: its own buffer if it was
    /// given away, else a copy.
    pub(crate) fn take_or_copy<T: TensorElement>(
        &mut self,
        i: usize,
        pool: &mut Pool,
    ) -> Result<Vec<T>, ModelError> {
        self.slice::<T>(i)?;
        if let Some(v) = self.take(i).and_then(|t| T::into_vec(t.into_data())) {
            return Ok(v);
        }
        let from = self.slice::<T>(i)?;
        let mut v = pool.take::<T>(from.len());
        v.copy_from_slice(from);
        Ok(v)
    }
}

/// The elements of a tensor that is operand `i`.
pub(crate) fn slice_of<T: TensorElement>(t: &Tensor, i: usize) -> Result<&[T], ModelError> {
    t.as_slice::<T>()
        .ok_or_else(|| ModelError::operand_type(operand_name(i), t.element_type(), T::TYPE.name()))
}

/// What operators share during a run.
pub(crate) struct RunContext<'a> {
    pub(crate) pool: &'a mut Pool,
    pub(crate) workspace: &'a mut Workspace,
    pub(crate) isa: Isa,
    pub(crate) threads: Threads<'static>,
    pub(crate) max_elements: usize,
}

impl RunContext<'_> {
    /// A tensor around a buffer that the operator has filled.
    pub(crate) fn tensor<T: TensorElement>(
        &self,
        shape: &[usize],
        data: Vec<T>,
    ) -> Result<Tensor, ModelError> {
        Tensor::new(shape, T::wrap(data))
    }

    /// A scratch buffer, refused where it exceeds the limit on elements. Its contents are
    /// whatever they are.
    pub(crate) fn scratch<T: TensorElement>(
        &mut self,
        shape: &[usize],
    ) -> Result<Vec<T>, ModelError> {
        match (
            crate::tensor::extent(shape),
            crate::tensor::element_count(shape),
        ) {
            (Some(most), Some(n)) if most <= self.max_elements => Ok(self.pool.take(n)),
            _ => Err(ModelError::TooLarge {
                value: String::new(),
                shape: shape.to_vec(),
                max: self.max_elements,
            }),
        }
    }
}

/// Calls a generic function with the Rust type of an [`ElementType`]; the list names the types
/// that the operator takes.
macro_rules! for_element {
    ($element:expr, [$($variant:ident $ty:ty),* $(,)?], $f:ident :: <T> $args:tt) => {
        match $element {
            $($crate::ElementType::$variant => $crate::ops::call!($f, $ty, $args),)*
            #[allow(unreachable_patterns, reason = "an operator may take every type")]
            other => Err($crate::ModelError::operand_type(
                $crate::ops::operand_name(0),
                other,
                concat!($(stringify!($ty), " "),*),
            )),
        }
    };
}
/// `f::<T>(args)`, for `for_element`.
macro_rules! call {
    ($f:ident, $ty:ty, ($($arg:expr),* $(,)?)) => { $f::<$ty>($($arg),*) };
}
pub(crate) use {call, for_element};
