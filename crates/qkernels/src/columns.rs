//! What belongs to columns: what their sums start at, scales, biases, zero points.

use core::marker::PhantomData;
use core::ops::Range;

use crate::driver::{Operands, RowTerms};
use crate::isa::{Task, Tier};
use crate::kernel::{Acc, Microkernel, zeros};
use crate::plan::{COLUMN_ARRAYS, Plan};
use crate::workspace::Line;
use crate::{Scale, ZeroPoint};

/// Per-column data, each array padded to whole chunks and one more.
pub(crate) struct Columns<'a, A> {
    /// What the sums start at, unless that is zero.
    init: Option<&'a [A]>,
    pub(crate) scale: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
    /// As [`Scaling::small`](crate::kernel::Scaling::small).
    pub(crate) small: bool,
    /// Zero points of B as it is packed, where columns have some.
    pub(crate) zb: &'a [i32],
    /// In the same place, sums of columns as [`Products::cut`](crate::kernel::Products::cut).
    pub(crate) cut: Option<&'a [i32]>,
}

impl<'a, A: Acc> Columns<'a, A> {
    /// What the sums of columns of one panel start at.
    #[inline(always)]
    pub(crate) fn init(&self, cols: Range<usize>) -> &'a [A] {
        match self.init {
            Some(init) => &init[cols],
            None => zeros(cols.len()),
        }
    }
}

/// Fills the per-column arrays.
pub(crate) struct SetColumns<'a, 'm, K> {
    /// Whether the output needs scales.
    pub(crate) scaled: bool,
    pub(crate) operands: &'a Operands<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) mem: &'m mut [Line],
    pub(crate) kernel: PhantomData<K>,
}

impl<'m, K: Microkernel> Task for SetColumns<'_, 'm, K> {
    type Output = Columns<'m, K::Acc>;

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) -> Columns<'m, K::Acc> {
        let Operands {
            b, zp, epilogue, ..
        } = self.operands;
        let n = self.plan.n;
        let words: &mut [i32] = bytemuck::cast_slice_mut(self.mem);
        debug_assert!(words.len() >= COLUMN_ARRAYS * self.plan.columns);
        let (init, words) = words.split_at_mut(self.plan.columns);
        let (zb, words) = words.split_at_mut(self.plan.columns);
        let (scale, words) = words.split_at_mut(self.plan.columns);
        let bias = &mut words[..self.plan.columns];

        let mut is_cut = false;
        let mut starts = false;
        let init: &mut [K::Acc] = bytemuck::cast_slice_mut(init);
        if K::Acc::INTEGER {
            // Everything is modulo 2^32: only the finished sums are known to fit.
            let tensor = match zp.a {
                ZeroPoint::Tensor(z) => z,
                ZeroPoint::Vector(_) => 0,
            };
            let shift = self.operands.a.shift::<K>();
            let factor = shift.wrapping_add(tensor).wrapping_neg();
            let sums = b.padded_col_sums();
            starts = factor != 0 || epilogue.bias.is_some();
            if starts {
                for (init, sum) in init.iter_mut().zip(sums) {
                    *init = K::Acc::from_i32(sum.wrapping_mul(factor));
                }
            }
            if let Some(bias) = epilogue.bias {
                for (init, bias) in init.iter_mut().zip(bias) {
                    *init = init.plus(*bias);
                }
            }
            if self.operands.row_terms() == RowTerms::Products && K::PRODUCTS {
                // The place is free: columns have no zero points of their own.
                is_cut = zb.iter_mut().zip(sums).fold(true, |all, (zb, &sum)| {
                    let cut = crate::kernel::cut(sum);
                    *zb = cut.unwrap_or(0);
                    all & cut.is_some()
                });
                if let ZeroPoint::Vector(rows) = zp.a {
                    is_cut &= rows.iter().all(|z| z.unsigned_abs() <= 255);
                }
            } else if let ZeroPoint::Vector(z) = zp.b {
                for (zb, z) in zb.iter_mut().zip(z) {
                    *zb = z.wrapping_add(b.shift());
                }
            }
        }
        let scale: &mut [f32] = bytemuck::cast_slice_mut(scale);
        match epilogue.scale {
            _ if !self.scaled => {}
            Scale::None => scale[..n].fill(1.0),
            Scale::Tensor(s) => scale[..n].fill(s),
            Scale::Channel(s) => scale[..n].copy_from_slice(s),
        }
        if let (Some(a_scale), true) = (self.operands.a_scale, self.scaled) {
            for scale in &mut scale[..n] {
                *scale *= a_scale;
            }
        }
        let alone = epilogue.bias_f32.is_none() && epilogue.row_scale.is_none();
        let small = self.scaled && alone && are_small(&scale[..n]);
        let bias: &mut [f32] = bytemuck::cast_slice_mut(bias);
        let bias = epilogue.bias_f32.map(|b| {
            bias[..n].copy_from_slice(b);
            &*bias
        });
        Columns {
            init: starts.then_some(init),
            scale,
            bias,
            small,
            zb,
            cut: is_cut.then_some(zb),
        }
    }
}

/// Whether all sums times these are at most 2^30 in magnitude.
///
/// A call: inlined, the compiler looks at them whether or not somebody asks.
#[inline(never)]
fn are_small(scales: &[f32]) -> bool {
    // By bits, which compare as magnitudes do, NaN above all.
    let bits = |scale: &f32| scale.abs().to_bits();
    scales.iter().map(bits).fold(0, u32::max) <= 0.5f32.to_bits()
}
