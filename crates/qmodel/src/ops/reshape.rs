//! `Reshape`: the same elements in another shape, in which 0 copies a dimension (unless
//! `allowzero`) and one −1 is what remains.

use super::{Facts, Inputs, Operator, RunContext, Spec, known_count};
use crate::tensor::element_count;
use crate::{Dim, ElementType, ModelError, Tensor, TensorData, TensorType};

struct Reshape {
    allow_zero: bool,
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    spec.check(
        2..=2,
        1..=1,
        if spec.version < 14 {
            &[]
        } else {
            &["allowzero"]
        },
    )?;
    Ok(Box::new(Reshape {
        allow_zero: spec.flag("allowzero")?,
    }))
}

/// Gives the elements of input 0 another shape, moving them only if they are needed elsewhere.
pub(super) fn move_data(
    cx: &mut RunContext<'_>,
    inputs: &mut Inputs<'_>,
    shape: &[usize],
) -> Result<Tensor, ModelError> {
    match inputs.take(0) {
        Some(t) => t.reshaped(shape),
        None => cx.pool.copy(inputs.get(0)?).reshaped(shape),
    }
}

impl Reshape {
    fn target(&self, input: Option<&[Dim]>, wanted: &[i64]) -> Result<Vec<Dim>, ModelError> {
        let refuse = |allowed: &str| {
            Err(ModelError::operand(
                "input 1",
                format!("{:?}", &wanted[..wanted.len().min(16)]),
                allowed.to_owned(),
            ))
        };
        let mut out = Vec::with_capacity(wanted.len());
        let mut rest = None;
        for (i, &w) in wanted.iter().enumerate() {
            out.push(match w {
                -1 if rest.is_some() => return refuse("at most one -1"),
                -1 => {
                    rest = Some(i);
                    Dim::Unknown
                }
                0 if !self.allow_zero => match input.map(|d| d.get(i)) {
                    Some(Some(d)) => d.clone(),
                    Some(None) => return refuse("0 only where the input has a dimension"),
                    None => Dim::Unknown,
                },
                w => match usize::try_from(w) {
                    Ok(n) => Dim::Known(n),
                    Err(_) => return refuse("numbers from -1 on"),
                },
            });
        }
        let Some(input) = input else { return Ok(out) };
        match (known_count(input), rest) {
            (Some(total), None) => {
                if let Some(n) = super::known_shape(&out)
                    && element_count(&n) != Some(total)
                {
                    return refuse(&format!("a shape of {total} elements"));
                }
            }
            (Some(total), Some(at)) => {
                let others: Option<Vec<usize>> = out
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| *i != at)
                    .map(|(_, d)| d.known())
                    .collect();
                match others.and_then(|o| element_count(&o)) {
                    Some(n) if n > 0 && total % n == 0 => out[at] = Dim::Known(total / n),
                    // Zero elements on both sides: the rest could be anything; zero is taken.
                    Some(0) if total == 0 => out[at] = Dim::Known(0),
                    _ => return refuse(&format!("a shape into which {total} elements divide")),
                }
            }
            // With a symbolic input, -1 is that symbol where everything else cancels.
            (None, Some(at)) => {
                let mut left: Vec<&Dim> = input.iter().filter(|d| d.known().is_none()).collect();
                for (i, d) in out.iter().enumerate() {
                    if i != at
                        && d.known().is_none()
                        && let Some(j) = left.iter().position(|l| *l == d && **l != Dim::Unknown)
                    {
                        left.remove(j);
                    }
                }
                let known = |dims: &mut dyn Iterator<Item = &Dim>| {
                    element_count(&dims.filter_map(Dim::known).collect::<Vec<_>>())
                };
                let before = known(&mut input.iter());
                let others = out
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| *i != at)
                    .map(|(_, d)| d);
                let after = known(&mut others.clone());
                let unknown = others.filter(|d| d.known().is_none()).count();
                let symbols = input.iter().filter(|d| d.known().is_none()).count();
                if let (Some(b), Some(a)) = (before, after)
                    && a > 0
                    && b % a == 0
                    && symbols - left.len() == unknown
                {
                    match left[..] {
                        [] => out[at] = Dim::Known(b / a),
                        [d] if b == a => out[at] = d.clone(),
                        _ => {}
                    }
                }
            }
            (None, None) => {}
        }
        Ok(out)
    }
}

impl Operator for Reshape {
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<TensorType>, ModelError> {
        let element = inputs.get(0)?.ty.element;
        let wanted = inputs.get(1)?;
        if wanted.ty.element != ElementType::I64 {
            return Err(ModelError::operand_type(
                "input 1",
                wanted.ty.element,
                "i64",
            ));
        }
        let shape = match wanted.value.as_deref().map(Tensor::data) {
            Some(TensorData::I64(w)) => Some(self.target(inputs.dims(0)?, w)?),
            // The rank at least is the length of the shape.
            _ => match wanted.ty.shape.as_deref() {
                Some([Dim::Known(rank)]) if *rank <= 64 => Some(vec![Dim::Unknown; *rank]),
                _ => None,
            },
        };
        Ok(vec![TensorType { element, shape }])
    }

    fn run(
        &self,
        cx: &mut RunContext<'_>,
        inputs: &mut Inputs<'_>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>, ModelError> {
        Ok(vec![move_data(cx, inputs, &shapes[0])?])
    }
}
