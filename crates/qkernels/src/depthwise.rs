//! Depthwise convolution: every channel with a kernel of its own.

mod driver;
pub(crate) mod lanes;
mod pack;
mod pass;
mod plan;

pub use pack::PackedDepthwise;

use crate::conv_shape::Axis;
use crate::error::check_shape;
use crate::gemm::Target;
use crate::isa::{Tier, Visit};
use crate::zero_point::check_depth;
use crate::{
    Arithmetic, ConvShape, Epilogue, Isa, KernelError, Lhs, MatRef, OutMut, Threads, Workspace,
    ZeroPoint, ZeroPoints,
};

/// `out[n, oy, ox, c] = epilogue(Σ (x[n, iy, ix, c] − Z_x) · (w[ky, kx, c] − Z_w[c]))` over the taps
/// `(ky, kx)` of [`ConvShape`]; what lies in the padding adds nothing.
///
/// `x` has a row a pixel and a column a channel (channels-last; a row stride picks some of more
/// channels), and so has `out`. `zp.a` is the zero point of `x`, one for all; `zp.b` those of the
/// weights, one or one a channel. Sums are exact in i32 on every tier and for every thread count;
/// [`Epilogue`] says what happens to them, its columns being the channels. It runs on the tier
/// that the weights were packed for. Nothing is allocated once the workspace is as large as
/// [`Workspace::required_depthwise`] says.
///
/// # Errors
///
/// [`KernelError::Window`] for a shape that no window fits, [`KernelError::Shape`] and
/// [`KernelError::Length`] when the operands do not have it, [`KernelError::ZeroPoint`] for a zero
/// point of `x` that its type cannot hold, [`KernelError::Memory`] when there is no memory for
/// a row of the padded image, [`KernelError::Depth`], [`KernelError::Bias`],
/// [`KernelError::OutParams`], [`KernelError::Clamp`] and [`KernelError::Epilogue`] as
/// [`gemm`](crate::gemm()) has them.
///
/// ```
/// use qkernels::{depthwise, ConvShape, Epilogue, Isa, Layout, MatMut, MatRef, OutMut};
/// use qkernels::{PackedDepthwise, Threads, Workspace, ZeroPoint, ZeroPoints};
///
/// // A row of three pixels with two channels; kernels [1, 2, 1] and [−1, 0, 1].
/// let w = MatRef::new(&[1i8, 2, 1, -1, 0, 1], 2, 3)?;
/// let w = PackedDepthwise::pack(Isa::detect(), [1, 3], w, Layout::Transposed)?;
/// let x = [10u8, 10, 11, 20, 12, 30]; // zero point 10
/// let mut out = [0i32; 6];
/// depthwise(
///     MatRef::new(&x, 3, 2)?,
///     &ConvShape { pads: [0, 1, 0, 1], ..ConvShape::new([1, 1, 3], [1, 3]) },
///     &w,
///     ZeroPoints { a: ZeroPoint::Tensor(10), ..ZeroPoints::default() },
///     &Epilogue::default(),
///     OutMut::I32(MatMut::new(&mut out, 3, 2)?),
///     &mut Workspace::new(),
///     Threads::Single,
/// )?;
/// assert_eq!(out, [1, 10, 4, 20, 5, -10]);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
#[allow(clippy::too_many_arguments, reason = "as gemm, and the shape")]
pub fn depthwise<A: Lhs>(
    x: MatRef<'_, A>,
    shape: &ConvShape,
    weights: &PackedDepthwise,
    zp: ZeroPoints<'_>,
    epilogue: &Epilogue<'_>,
    out: OutMut<'_>,
    ws: &mut Workspace,
    threads: Threads<'_>,
) -> Result<(), KernelError> {
    let target = Target::new(out, epilogue);
    let operands = Operands::new(x, shape, weights, zp, epilogue, &target)?;
    run(Call {
        operands,
        target,
        ws,
        threads,
    })
}

/// Not generic: kernels are compiled here.
fn run(call: Call<'_, '_>) -> Result<(), KernelError> {
    call.operands.weights.isa().dispatch(call)
}

/// The operands of a call, all shapes checked against each other.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// The bits of bytes of either kind.
    x: MatRef<'a, u8>,
    /// What flips them to unsigned ones, as lanes read them.
    flip: u8,
    weights: &'a PackedDepthwise,
    geometry: Geometry,
    /// A value of the type of `x`.
    zero_point: i32,
    weight_zero_points: ZeroPoint<'a>,
    epilogue: Epilogue<'a>,
}

/// Images and both axes.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    images: usize,
    y: Axis,
    x: Axis,
}

impl Geometry {
    fn new(shape: &ConvShape) -> Result<Geometry, KernelError> {
        Ok(Geometry {
            images: shape.input[0],
            y: shape.axis(0)?,
            x: shape.axis(1)?,
        })
    }
}

impl<'a> Operands<'a> {
    pub(crate) fn new<A: Lhs>(
        x: MatRef<'a, A>,
        shape: &ConvShape,
        weights: &'a PackedDepthwise,
        zp: ZeroPoints<'a>,
        epilogue: &Epilogue<'a>,
        target: &Target<'_>,
    ) -> Result<Self, KernelError> {
        let geometry = Geometry::new(shape)?;
        let channels = weights.channels();
        let pair = |[height, width]: [usize; 2]| (height, width);
        let kernel = pair(weights.kernel());
        check_shape(
            "the kernel of the packed weights",
            kernel,
            pair(shape.kernel),
        )?;
        // Sizes that overflow are more than any matrix has, so they do not match.
        let pixels = |[n, h, w]: [usize; 3]| n.saturating_mul(h).saturating_mul(w);
        let (inputs, outputs) = (pixels(shape.input), pixels(shape.output()?));
        check_shape("x", (x.rows(), x.cols()), (inputs, channels))?;
        check_shape("out", target.out.shape(), (outputs, channels))?;
        x.check_row_major("elements between the channels of x")?;
        let zero_point = zp.a.of_tensor::<A>("zero points of x")?;
        zp.b.check("zero points of the weights", channels)?;
        let shape_of_out = (outputs, channels);
        epilogue.check(target.dtype, shape_of_out, target.params, Arithmetic::Int8)?;
        let a_range = A::DTYPE.int_range().unwrap_or((i32::MIN, i32::MAX));
        let depth = shape.kernel[0].saturating_mul(shape.kernel[1]);
        epilogue.check_bias(check_depth(depth, &zp, a_range, (-128, 127))?)?;
        Ok(Operands {
            x: x.cast(),
            flip: if A::DTYPE.is_signed() { 128 } else { 0 },
            weights,
            geometry,
            zero_point,
            weight_zero_points: zp.b,
            epilogue: *epilogue,
        })
    }
}

/// A call whose arguments fit each other.
pub(crate) struct Call<'c, 'w> {
    pub(crate) operands: Operands<'c>,
    pub(crate) target: Target<'c>,
    pub(crate) ws: &'w mut Workspace,
    pub(crate) threads: Threads<'c>,
}

impl Visit for Call<'_, '_> {
    type Output = Result<(), KernelError>;

    fn visit<T: Tier>(self, tier: T) -> Self::Output {
        driver::run::<T::Depthwise>(tier.into(), self)
    }
}

impl Workspace {
    /// Bytes that [`depthwise()`] needs for a shape and weights of so many channels packed for
    /// `isa`. On a rayon pool the number of its threads counts: call this inside the pool.
    ///
    /// # Errors
    ///
    /// [`KernelError::Window`] for a shape that no window fits.
    pub fn required_depthwise(
        isa: Isa,
        shape: &ConvShape,
        channels: usize,
        threads: Threads<'_>,
    ) -> Result<usize, KernelError> {
        struct Required(Geometry, usize, usize);
        impl Visit for Required {
            type Output = usize;
            fn visit<T: Tier>(self, _tier: T) -> usize {
                plan::Plan::new::<T::Depthwise>(&self.0, self.1, self.2).bytes()
            }
        }
        Ok(isa.dispatch(Required(Geometry::new(shape)?, channels, threads.count())))
    }
}
