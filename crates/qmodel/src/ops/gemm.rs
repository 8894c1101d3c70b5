//! `Gemm`: `alpha · A' · B' + beta · C`.

use super::broadcast::zip;
use super::{Facts, Inputs, Operator, RunContext, Spec, operand_name};
use crate::product::{Operand, multiply};
use crate::{Dim, ElementType, ModelError, Tensor, TensorType};

/// What `Gemm` and `QGemm` read from their attributes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GemmAttributes {
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
    pub(crate) trans_a: bool,
    pub(crate) trans_b: bool,
}

impl GemmAttributes {
    pub(crate) fn read(spec: &Spec<'_>) -> Result<GemmAttributes, ModelError> {
        let flag = |name: &str| Ok::<_, ModelError>(spec.int_or(name, 0)? != 0);
        Ok(GemmAttributes {
            alpha: spec.float_or("alpha", 1.0)?,
            beta: spec.float_or("beta", 1.0)?,
            trans_a: flag("transA")?,
            trans_b: flag("transB")?,
        })
    }

    /// Dimensions of the product of operands `a` (input `ai`) and `b` (input `bi`).
    pub(crate) fn output_dims(
        &self,
        a: Option<&[Dim]>,
        b: Option<&[Dim]>,
        (ai, bi): (usize, usize),
    ) -> Result<Option<Vec<Dim>>, ModelError> {
        let (Some(a), Some(b)) = (a, b) else {
            return Ok(None);
        };
        let show = crate::graph::show_dims;
        let refuse = |allowed: &str| {
            Err(ModelError::operand(
                format!("{} and {}", operand_name(ai), operand_name(bi)),
                format!("{} and {}", show(a), show(b)),
                allowed,
            ))
        };
        let (2, 2) = (a.len(), b.len()) else {
            return refuse("both of rank 2");
        };
        let (m, ka) = if self.trans_a {
            (&a[1], &a[0])
        } else {
            (&a[0], &a[1])
        };
        let (kb, n) = if self.trans_b {
            (&b[1], &b[0])
        } else {
            (&b[0], &b[1])
        };
        match (ka.known(), kb.known()) {
            (Some(x), Some(y)) if x != y => {
                refuse("as many columns in the first as rows in the second")
            }
            _ => Ok(Some(vec![m.clone(), n.clone()])),
        }
    }

    /// `m, k, n` of concrete operands.
    pub(crate) fn sizes(&self, a: &[usize], b: &[usize]) -> (usize, usize, usize) {
        let (m, k) = if self.trans_a {
            (a[1], a[0])
        } else {
            (a[0], a[1])
        };
        (m, k, if self.trans_b { b[0] } else { b[1] })
    }
}

/// Demands that input `i`, where given, broadcasts one way to these dimensions.
pub(crate) fn broadcasts_to(inputs: &Facts<'_>, i: usize, dims: &[Dim]) -> Result<(), ModelError> {
    let Some(c) = inputs.optional(i).and_then(|f| f.ty.shape.as_deref()) else {
        return Ok(());
    };
    let refuse = || {
        ModelError::operand(
            operand_name(i),
            crate::graph::show_dims(c),
            format!(
                "a shape that broadcasts to {}",
                crate::graph::show_dims(dims)
            ),
        )
    };
    if c.len() > dims.len() {
        return Err(refuse());
    }
    for (c, d) in c.iter().rev().zip(dims.iter().rev()) {
        match (c.known(), d.known()) {
            (Some(c), Some(d)) if c != 1 && c != d => return Err(refuse()),
            _ => {}
        }
    }
    Ok(())
}

/// A float product of matrices.
pub(crate) struct Gemm {
    attributes: GemmAttributes,
    /// Applied to the result: a fused Relu or Clip.
    clamp: Option<(f32, f32)>,
}

impl Gemm {
    /// Reads a node; `clamp` is an activation that follows.
    pub(crate) fn new(spec: &Spec<'_>, clamp: Option<(f32, f32)>) -> Result<Gemm, ModelError> {
        let inputs = if spec.version < 11 { 3..=3 } else { 2..=3 };
        spec.check(inputs, 1..=1, &["alpha", "beta", "transA", "transB"])?;
        Ok(Gemm {
            attributes: GemmAttributes::read(spec)?,
            clamp,
        })
    }
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Ok(Box::new(Gemm::new(spec, None)?))
}

impl Operator for Gemm {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.element(0, &[ElementType::F32])?;
        inputs.same_element(1)?;
        inputs.same_element(2)?;
        let shape = self
            .attributes
            .output_dims(inputs.dims(0)?, inputs.dims(1)?, (0, 1))?;
        if let Some(dims) = &shape {
            broadcasts_to(inputs, 2, dims)?;
        }
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        let at = self.attributes;
        let shape = &shapes[0];
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let (m, k, n) = at.sizes(a.shape(), b.shape());
        let left = inputs.slice::<f32>(0)?;
        let right = inputs.slice::<f32>(1)?;
        let mut out = cx.scratch::<f32>(shape)?;
        let c = inputs.optional(2).filter(|_| at.beta != 0.0);
        if let Some(c) = c {
            // Start from beta · C.
            let beta = (&[at.beta][..], &[1usize][..]);
            let c = (inputs.slice::<f32>(2)?, c.shape());
            zip(c, beta, shape, &mut out, |c, beta| c * beta);
        }
        multiply(
            (m, k, n),
            at.alpha,
            if at.trans_a {
                Operand::columns(left, m)
            } else {
                Operand::rows(left, k)
            },
            if at.trans_b {
                Operand::columns(right, k)
            } else {
                Operand::rows(right, n)
            },
            &mut out,
            n,
            c.is_some(),
            cx.threads,
        );
        if let Some((low, high)) = self.clamp {
            for v in &mut out {
                *v = super::conv::clamp_keeping_nan(*v, low, high);
            }
        }
        Ok(vec![cx.tensor(shape, out)?])
    }
}
