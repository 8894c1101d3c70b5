//! Integer products with constant weights, from QDQ form and from `QLinear…` operators.

use qformat::QParams;

use super::super::fused::{conv::FusedConv, product::FusedProduct};
use super::Change;
use super::view::{Dequantized, Tail, View};
use crate::integer::conv::Filters;
use crate::integer::product::pack_matrix;
use crate::integer::{Factor, Finish, Output};
use crate::ops::conv::ConvAttributes;
use crate::ops::gemm::GemmAttributes;
use crate::ops::{microsoft::qgemm, qlinearconv, qlinearmatmul};
use crate::{ElementType, ModelError, Tensor};

/// Deeper sums might leave 32 bits with bytes of any type and zero point.
const MOST_DEPTH: usize = 33_025;

/// Largest product of two bytes with zero points taken off.
const MOST_PRODUCT: usize = 255 * 255;

/// Fuses step `i` with what surrounds it, where it is one of the operators.
pub(super) fn rewrite(view: &View<'_>, i: usize) -> Result<Option<Change>, ModelError> {
    let Some(node) = view.node(i) else {
        return Ok(None);
    };
    if node.is("Conv") {
        return qdq_conv(view, i);
    }
    if node.is("Gemm") || node.is("MatMul") {
        return qdq_product(view, i);
    }
    if node.is("QLinearConv") || node.is("QLinearMatMul") {
        return qlinear(view, i);
    }
    if node.domain == "com.microsoft" && node.op_type == "QGemm" {
        return qlinear(view, i);
    }
    Ok(None)
}

/// The quantized operands of a product in QDQ form.
struct Operands<'a> {
    x: Dequantized,
    x_params: QParams,
    w: Dequantized,
    weights: &'a Tensor,
}

/// Operands 0 and 1 of step `i`, where they are a dequantized value and dequantized constants, the
/// latter as a whole or along `axis`.
fn operands<'a>(view: &View<'a>, i: usize, axis: usize) -> Option<Operands<'a>> {
    let x = view
        .dequantized(view.input(i, 0)?)
        .filter(Dequantized::is_bytes)?;
    let w = view
        .dequantized(view.input(i, 1)?)
        .filter(Dequantized::is_bytes)?;
    let weights: &Tensor = view.constant(w.quantized)?;
    let along = crate::ops::resolve_axis(w.axis, weights.rank()).ok();
    let x_params = x.params()?;
    (w.scales.len() == 1 || along == Some(axis)).then_some(Operands {
        x,
        x_params,
        w,
        weights,
    })
}

/// A bias as it goes into the sums or behind them.
enum Bias {
    None,
    Sums(Vec<i32>),
    Real(Vec<f32>),
}

/// The bias of operand 2: dequantized constants in units of the sums, or any constants.
fn bias(view: &View<'_>, i: usize, units: &[f32], n: usize, depth: usize) -> Option<Bias> {
    let Some(slot) = view.input(i, 2) else {
        return Some(Bias::None);
    };
    if let Some(t) = view.constant(slot) {
        // One for each column, not for each row.
        let along = t.len() == n && t.shape().last() == Some(&n);
        return t
            .as_slice::<f32>()
            .filter(|_| along)
            .map(|v| Bias::Real(v.to_vec()));
    }
    let d = view.dequantized(slot)?;
    let values = view.constant(d.quantized)?;
    let q = values
        .as_slice::<i32>()
        .filter(|q| q.len() == n && values.rank() == 1)?;
    let at = |list: &[f32], c: usize| list[if list.len() == 1 { 0 } else { c }];
    if !(d.scales.len() == 1 || d.scales.len() == n) {
        return None;
    }
    // Writers compute the product of scales in their own precision: allow for its rounding.
    let same = (0..n).all(|c| {
        let (s, unit) = (at(&d.scales, c), at(units, c));
        (s - unit).abs() <= 4.0 * f32::EPSILON * unit
    });
    let most = i32::MAX as usize - depth * MOST_PRODUCT;
    let small = q.iter().all(|b| b.unsigned_abs() as usize <= most);
    if same && small && d.zeros.iter().all(|&z| z == 0) {
        return Some(Bias::Sums(q.to_vec()));
    }
    let dtype = d.element.dtype()?;
    (0..n)
        .map(|c| {
            let zero = d.zeros[if d.zeros.len() == 1 { 0 } else { c }];
            let scale = at(&d.scales, c);
            let p = QParams::new(scale, zero, dtype, qformat::Scheme::Affine).ok()?;
            Some(p.dequantize(q[c]))
        })
        .collect::<Option<Vec<f32>>>()
        .map(Bias::Real)
}

/// What becomes of sums in units of `units`, unless the factors leave the range of f32, which the
/// single steps need not do.
fn finish(units: Vec<f32>, bias: Bias, tail: &Tail) -> Result<Option<Finish>, ModelError> {
    let factor: Vec<f32> = match &tail.quantized {
        Some(y) => units.iter().map(|u| u / y.scale()).collect(),
        None => units,
    };
    if !factor.iter().all(|f| *f > 0.0 && f.is_finite()) {
        return Ok(None);
    }
    let (bias, bias_f32) = match (bias, &tail.quantized) {
        (Bias::None, _) => (None, None),
        (Bias::Sums(b), _) => (Some(b), None),
        (Bias::Real(b), Some(y)) => (None, Some(b.iter().map(|b| b / y.scale()).collect())),
        (Bias::Real(b), None) => (None, Some(b)),
    };
    Ok(Some(Finish {
        bias,
        factor: Factor::of(factor),
        bias_f32,
        clamp: tail.clamp.filter(|_| tail.quantized.is_none()),
        output: match &tail.quantized {
            Some(y) => Output::quantized(y, tail.clamp)?,
            None => Output::F32,
        },
    }))
}

fn qdq_conv(view: &View<'_>, i: usize) -> Result<Option<Change>, ModelError> {
    let Some(spec) = view.spec(i)? else {
        return Ok(None);
    };
    let attributes = ConvAttributes::read(&spec)?;
    let Some(o) = operands(view, i, 0) else {
        return Ok(None);
    };
    let [filters, per_group @ ..] = o.weights.shape() else {
        return Ok(None);
    };
    let depth: usize = per_group.iter().product();
    if depth > MOST_DEPTH || !filters.is_multiple_of(attributes.group) {
        return Ok(None);
    }
    let units: Vec<f32> = o.w.scales.iter().map(|w| o.x_params.scale() * w).collect();
    let (Some(bias), Some(tail)) = (bias(view, i, &units, *filters, depth), view.tail(i, true))
    else {
        return Ok(None);
    };
    let Some(finish) = finish(units, bias, &tail)? else {
        return Ok(None);
    };
    let filters = Filters::pack(view.options.isa, o.weights, &attributes, &o.w.zeros)?;
    let op = FusedConv::new(attributes, filters, o.x_params.zero_point(), finish);
    let inputs = vec![Some(o.x.quantized)];
    let step = view.step(Box::new(op), &tail.steps, inputs, tail.output);
    Ok(Some(Change {
        step,
        replaced: tail.steps,
    }))
}

fn qdq_product(view: &View<'_>, i: usize) -> Result<Option<Change>, ModelError> {
    let Some(spec) = view.spec(i)? else {
        return Ok(None);
    };
    let plain = GemmAttributes {
        alpha: 1.0,
        beta: 1.0,
        trans_a: false,
        trans_b: false,
    };
    let at = if spec.node.is("Gemm") {
        GemmAttributes::read(&spec)?
    } else {
        plain
    };
    if (GemmAttributes {
        trans_b: false,
        ..at
    }) != plain
    {
        return Ok(None);
    }
    let Some(o) = operands(view, i, usize::from(!at.trans_b)) else {
        return Ok(None);
    };
    let [rows, cols] = *o.weights.shape() else {
        return Ok(None);
    };
    let (k, n) = if at.trans_b {
        (cols, rows)
    } else {
        (rows, cols)
    };
    // A vector on the left is a product of another rank.
    let rank = view.plan.values[o.x.quantized]
        .ty
        .shape
        .as_ref()
        .map(Vec::len);
    if k > MOST_DEPTH || rank.is_none_or(|r| r < 2) {
        return Ok(None);
    }
    let units: Vec<f32> = o.w.scales.iter().map(|w| o.x_params.scale() * w).collect();
    let (Some(bias), Some(tail)) = (bias(view, i, &units, n, k), view.tail(i, true)) else {
        return Ok(None);
    };
    let Some(finish) = finish(units, bias, &tail)? else {
        return Ok(None);
    };
    let weights = pack_matrix(view.options.isa, o.weights, at.trans_b, &o.w.zeros)?;
    let op = FusedProduct::new(weights, o.x_params.zero_point(), finish);
    let inputs = vec![Some(o.x.quantized)];
    let step = view.step(Box::new(op), &tail.steps, inputs, tail.output);
    Ok(Some(Change {
        step,
        replaced: tail.steps,
    }))
}

/// Operators that are fused by definition: their parameters are computed and their weights packed
/// once, where all are constants.
fn qlinear(view: &View<'_>, i: usize) -> Result<Option<Change>, ModelError> {
    let Some(spec) = view.spec(i)? else {
        return Ok(None);
    };
    let step = &view.plan.steps[i];
    let all = (1..step.inputs.len())
        .all(|operand| step.inputs[operand].is_none_or(|s| view.constant(s).is_some()));
    let (Some(x), Some(output), true) = (view.input(i, 0), view.output(i), all) else {
        return Ok(None);
    };
    if !matches!(
        view.plan.values[x].ty.element,
        ElementType::U8 | ElementType::I8
    ) {
        return Ok(None);
    }
    let get = |operand: usize| view.constant_input(i, operand).map(AsRef::as_ref);
    let isa = view.options.isa;
    let named = |e: ModelError| e.at(&step.label);
    let op: Box<dyn crate::ops::Operator> = if spec.node.is("QLinearConv") {
        let attributes = qlinearconv::attributes(&spec)?;
        let p = qlinearconv::parameters(isa, &attributes, &get).map_err(named)?;
        Box::new(FusedConv::new(attributes, p.filters, p.x_zero, p.finish))
    } else if spec.node.is("QLinearMatMul") {
        let b = get(3).filter(|b| b.rank() == 2);
        let rank = view.plan.values[x].ty.shape.as_ref().map(Vec::len);
        let (Some(b), true) = (b, rank.is_some_and(|r| r >= 2)) else {
            return Ok(None);
        };
        let p = qlinearmatmul::parameters(&get).map_err(named)?;
        let weights = pack_matrix(isa, b, false, &p.b_zero).map_err(named)?;
        Box::new(FusedProduct::new(weights, p.a_zero, p.finish))
    } else {
        let at = qgemm::attributes(&spec)?;
        if at.trans_a {
            return Ok(None);
        }
        let p = qgemm::parameters(isa, at, &get).map_err(named)?;
        Box::new(FusedProduct::new(p.weights, p.a_zero, p.finish))
    };
    let step = view.step(op, &[i], vec![Some(x)], output);
    Ok(Some(Change {
        step,
        replaced: vec![i],
    }))
}
