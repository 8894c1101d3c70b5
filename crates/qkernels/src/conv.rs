//! Convolution as a product without the matrix of patches: the image is read in place, or a block of
//! its lines from a copy with their padding (`direct.rs`); where a kernel cannot do that, rows of A
//! are gathered from it when they are needed.

use alloc::vec::Vec;

use crate::conv_shape::Axis;
use crate::direct::{self, Direct, DirectPlan, Places};
use crate::driver::Operands;
use crate::error::check_shape;
use crate::gemm::{Call, Run, Target};
use crate::kernel::Microkernel;
use crate::outliers::QUAD;
use crate::patches::{Image, Patches};
use crate::select::{VisitKernel, with_byte_kernel, with_byte_kernel_for};
use crate::source::{Source, source};
use crate::workspace::Line;
use crate::zero_point::check_depth;
use crate::{
    Arithmetic, ConvShape, Epilogue, Isa, KernelError, Layout, Lhs, MatRef, OutMut, PackedB,
    Residual, Scale, Threads, Workspace, ZeroPoint, ZeroPoints,
};

/// The deepest sums for which rows of places are padded: with padding and all, they stay far below
/// what i32 holds.
const MAX_PADDED: usize = 8192;

/// In which order the weights of a convolution lie in memory, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterLayout {
    /// Outputs, channels of a group, height, width: ONNX and PyTorch.
    Oihw,
    /// Outputs, height, width, channels of a group: `TFLite`.
    Ohwi,
}

/// The weights of a convolution, packed once for a tier.
#[derive(Debug, Clone)]
pub struct PackedConv {
    kernel: [usize; 2],
    channels: usize,
    /// Elements of a row of places as they are packed: where kernels convolve directly, whole
    /// groups, the rest of them zeros.
    taps_row: usize,
    /// One a group.
    groups: Vec<PackedB>,
    /// `Σ w` over the channels: for each group and place of the kernel, one for each output.
    tap_sums: Vec<i32>,
}

impl PackedConv {
    /// Packs weights for a tier: `shape` counts outputs, channels of a group, and the height and
    /// width of the kernel; outputs are cut into `groups` of equal size.
    ///
    /// # Errors
    ///
    /// [`KernelError::Groups`] when outputs cannot be cut so, [`KernelError::Length`] when the
    /// weights do not have the shape, [`KernelError::Depth`] and [`KernelError::TooLarge`] as
    /// [`PackedB::pack`].
    ///
    /// ```
    /// use qkernels::{FilterLayout, Isa, PackedConv};
    /// let weights = [1i8; 4 * 3 * 2 * 2];
    /// let packed = PackedConv::pack(Isa::detect(), &weights, [4, 3, 2, 2], FilterLayout::Oihw, 1)?;
    /// assert_eq!((packed.channels(), packed.outputs()), (3, 4));
    /// # Ok::<(), qkernels::KernelError>(())
    /// ```
    pub fn pack(
        isa: Isa,
        weights: &[i8],
        shape: [usize; 4],
        layout: FilterLayout,
        groups: usize,
    ) -> Result<PackedConv, KernelError> {
        let [outputs, channels, height, width] = shape;
        // Zero outputs are a multiple of any number, without a weight there is any number of outputs, and
        // memory is asked for each group.
        let most = if weights.is_empty() { 1 } else { outputs };
        if groups == 0 || groups > most || !outputs.is_multiple_of(groups) {
            return Err(KernelError::Groups { groups, outputs });
        }
        let count = |dims: &[usize]| dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let depth = count(&[channels, height, width]);
        // A length that overflows is one that no slice has.
        let (depth, expected) = match (depth, count(&shape)) {
            (Some(depth), Some(expected)) => (depth, expected),
            _ => (usize::MAX, usize::MAX),
        };
        crate::error::check_len("weights", weights.len(), expected)?;
        let (taps, row) = (height.saturating_mul(width), width.saturating_mul(channels));
        let taps_row = if height > 1 && depth <= MAX_PADDED {
            row.next_multiple_of(with_byte_kernel(isa, direct::Group))
        } else {
            row
        };
        let too_large = KernelError::TooLarge {
            rows: outputs,
            row_stride: depth,
        };
        let ordered = match layout {
            FilterLayout::Ohwi => None,
            FilterLayout::Oihw => {
                let ordered = crate::pack::zeroed::<i8>(expected);
                let mut ordered = ordered.ok_or(too_large.clone())?;
                let filters = weights.chunks_exact(depth.max(1));
                for (to, from) in ordered.chunks_exact_mut(depth.max(1)).zip(filters) {
                    for (i, to) in to.iter_mut().enumerate() {
                        *to = from[i % channels * taps + i / channels];
                    }
                }
                Some(ordered)
            }
        };
        let weights = ordered.as_deref().unwrap_or(weights);
        let each = outputs / groups;
        let tap_sums = sum_taps(weights, [groups, each, taps, channels])?;
        let padded = if taps_row == row {
            None
        } else {
            // At most KG times as much as the weights: a row has an element.
            let size = outputs.checked_mul(height * taps_row);
            let padded = size.and_then(crate::pack::zeroed::<i8>);
            let mut padded = padded.ok_or(too_large)?;
            let rows = weights.chunks_exact(row);
            for (to, from) in padded.chunks_exact_mut(taps_row).zip(rows) {
                to[..row].copy_from_slice(from);
            }
            Some(padded)
        };
        let weights = padded.as_deref().unwrap_or(weights);
        let depth = if padded.is_some() {
            height * taps_row
        } else {
            depth
        };
        let packed = (0..groups).map(|g| {
            let filters = &weights[g * each * depth..][..each * depth];
            let filters = MatRef::new(filters, each, depth)?;
            PackedB::pack(isa, filters, Layout::Transposed)
        });
        let groups = packed.collect::<Result<_, _>>()?;
        Ok(PackedConv {
            kernel: [height, width],
            channels,
            taps_row,
            groups,
            tap_sums,
        })
    }

    /// Height and width of the kernel, in taps.
    #[must_use]
    pub const fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    /// Input channels, of all groups.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels * self.groups.len()
    }

    /// Output channels, of all groups.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.each() * self.groups.len()
    }

    /// Groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The tier that it is packed for, and that [`conv2d`] runs on.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.groups.first().map_or(Isa::SCALAR, PackedB::isa)
    }

    /// What is needed to convolve group `g` directly, where its image was not taken as a matrix.
    fn direct<'a>(&'a self, call: &Call<'a>, g: usize) -> Option<Direct<'a>> {
        let Source::Gather(gather) = call.operands.a else {
            return None;
        };
        if self.channels == 0 {
            return None;
        }
        let size = self.kernel[0] * self.kernel[1] * self.each();
        Some(Direct {
            image: gather.patches()?,
            tap_sums: &self.tap_sums[g * size..][..size],
        })
    }

    /// Output channels of a group.
    fn each(&self) -> usize {
        self.groups.first().map_or(0, PackedB::n)
    }

    /// Products of a sum.
    fn depth(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.channels
    }
}

/// `out[n, oy, ox, o] = epilogue(Σ (x[n, iy, ix, c] − Z_x) · (w[o, ky, kx, c] − Z_w[o]))` over the
/// taps `(ky, kx)` of [`ConvShape`] and the channels of the group; what lies in the padding adds
/// nothing.
///
/// `out` has a row a pixel and a column an output channel. `zp.a` is the zero point of `x`, one for
/// all; `zp.b` those of the weights, one or one an output channel. Sums are exact in i32 on every
/// tier and for every thread count; [`Epilogue`] says what happens to them. It runs on the tier
/// that the weights were packed for. The matrix of patches is never made: the image is read in
/// place, or what a tile of the product needs is copied block by block. Nothing is allocated once the workspace is as large as
/// [`Workspace::required_conv2d`] says.
///
/// # Errors
///
/// [`KernelError::Window`] for a shape that no window fits, [`KernelError::Shape`] and
/// [`KernelError::Length`] when the operands do not have it, [`KernelError::ZeroPoint`] for a zero
/// point of `x` that its type cannot hold, and what [`gemm`](crate::gemm()) returns.
///
/// ```
/// use qkernels::{conv2d, ConvShape, Epilogue, FilterLayout, Image, Isa, MatMut, MatRef, OutMut};
/// use qkernels::{PackedConv, Threads, Workspace, ZeroPoint, ZeroPoints};
///
/// // One image of 2×2 pixels with one channel, zero point 1; a kernel of 2×2 ones.
/// let weights = PackedConv::pack(Isa::detect(), &[1i8; 4], [1, 1, 2, 2], FilterLayout::Oihw, 1)?;
/// let x = [1u8, 2, 3, 4];
/// let mut out = [0i32; 4];
/// conv2d(
///     Image::ChannelsLast(MatRef::new(&x, 4, 1)?),
///     &ConvShape { pads: [1, 1, 0, 0], ..ConvShape::new([1, 2, 2], [2, 2]) },
///     &weights,
///     ZeroPoints { a: ZeroPoint::Tensor(1), ..ZeroPoints::default() },
///     &Epilogue::default(),
///     OutMut::I32(MatMut::new(&mut out, 4, 1)?),
///     &mut Workspace::new(),
///     Threads::Single,
/// )?;
/// assert_eq!(out, [0, 1, 2, 6]);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
#[allow(clippy::too_many_arguments, reason = "as gemm, and the shape")]
pub fn conv2d<A: Lhs>(
    x: Image<'_, A>,
    shape: &ConvShape,
    weights: &PackedConv,
    zp: ZeroPoints<'_>,
    epilogue: &Epilogue<'_>,
    out: OutMut<'_>,
    ws: &mut Workspace,
    threads: Threads<'_>,
) -> Result<(), KernelError> {
    let axes = (shape.axis(0)?, shape.axis(1)?);
    let target = Target::new(out, epilogue);
    let zero_point = zp.a.of_tensor::<A>("zero points of x")?;
    let rows = check(&x, shape, weights, &zp, epilogue, &target)?;
    if weights.groups.len() > 1 {
        // For the greediest group, before the first one is written.
        ws.reserve(Workspace::required_conv2d(shape, weights, threads)?)?;
    }
    for (g, b) in weights.groups.iter().enumerate() {
        let cols = g * weights.each()..(g + 1) * weights.each();
        let patches;
        let a = match in_place(&x, weights, shape) {
            Some(x) => source(x),
            None => {
                let first = g * weights.channels;
                let channels = first..first + weights.channels;
                let row = weights.taps_row;
                patches = Patches::new(x, axes.0, axes.1, rows, channels, row, zero_point);
                Source::Gather(&patches)
            }
        };
        let zp = ZeroPoints {
            a: ZeroPoint::Tensor(zero_point),
            b: match zp.b {
                ZeroPoint::Tensor(z) => ZeroPoint::Tensor(z),
                ZeroPoint::Vector(z) => ZeroPoint::Vector(&z[cols.clone()]),
            },
        };
        let epilogue = of_columns(epilogue, cols.clone());
        let target = Target {
            out: target.out.columns(cols),
            ..target
        };
        // Zero points and biases were checked for all groups, against the depth without padding.
        let b_ref = b.as_ref();
        let call = Call::new(a, b_ref, zp, &epilogue, target, threads);
        call.check_shapes()?;
        run(weights.direct(&call, g), &call, ws)?;
    }
    Ok(())
}

/// Runs one group, directly where its kernel can.
fn run(direct: Option<Direct<'_>>, call: &Call<'_>, ws: &mut Workspace) -> Result<(), KernelError> {
    let Operands { a, b, .. } = &call.operands;
    // Patches for split weights are interleaved in fours where pixels lie. Gathered byte by byte, they
    // take longer than splitting gains.
    let splits = direct.is_none_or(|direct| direct.image.has_groups_of(QUAD));
    let run = RunConv {
        direct,
        run: Run { call, ws },
    };
    if splits {
        with_byte_kernel_for(b, a.rows(), run)
    } else {
        with_byte_kernel(b.isa(), run)
    }
}

/// Checks everything that concerns all groups, so that no group is written when another cannot
/// be; gives the number of output pixels.
fn check<A: Lhs>(
    x: &Image<'_, A>,
    shape: &ConvShape,
    weights: &PackedConv,
    zp: &ZeroPoints<'_>,
    epilogue: &Epilogue<'_>,
    target: &Target<'_>,
) -> Result<usize, KernelError> {
    let pair = |[height, width]: [usize; 2]| (height, width);
    let kernel = pair(weights.kernel);
    check_shape(
        "the kernel of the packed weights",
        kernel,
        pair(shape.kernel),
    )?;
    // Sizes that overflow are more than any matrix has, so they do not match.
    let [images, height, width] = shape.input;
    let pixels = height.saturating_mul(width);
    let (x, expected) = match x {
        Image::ChannelsLast(m) => (m, (images.saturating_mul(pixels), weights.channels())),
        Image::ChannelsFirst(m) => (m, (images.saturating_mul(weights.channels()), pixels)),
    };
    check_shape("x", (x.rows(), x.cols()), expected)?;
    x.check_row_major("elements between the columns of x")?;
    let [images, height, width] = shape.output()?;
    let out = images.saturating_mul(height).saturating_mul(width);
    let expected = (out, weights.outputs());
    check_shape("out", target.out.shape(), expected)?;
    zp.b.check("zero points of the weights", weights.outputs())?;
    epilogue.check(target.dtype, expected, target.params, Arithmetic::Int8)?;
    let a_range = A::DTYPE.int_range().unwrap_or((i32::MIN, i32::MAX));
    epilogue.check_bias(check_depth(weights.depth(), zp, a_range, (-128, 127))?)?;
    Ok(out)
}

/// Pixels as they are, where a kernel of 1×1 sees each of them once.
fn in_place<'a, A: Lhs>(
    x: &Image<'a, A>,
    weights: &PackedConv,
    shape: &ConvShape,
) -> Option<MatRef<'a, A>> {
    let plain = weights.groups.len() == 1
        && shape.kernel == [1, 1]
        && shape.strides == [1, 1]
        && shape.pads == [0; 4];
    match x {
        Image::ChannelsLast(x) if plain => Some(*x),
        _ => None,
    }
}

/// The epilogue of some columns.
fn of_columns<'a>(epilogue: &Epilogue<'a>, cols: core::ops::Range<usize>) -> Epilogue<'a> {
    Epilogue {
        bias: epilogue.bias.map(|b| &b[cols.clone()]),
        scale: match epilogue.scale {
            Scale::Channel(s) => Scale::Channel(&s[cols.clone()]),
            other => other,
        },
        bias_f32: epilogue.bias_f32.map(|b| &b[cols.clone()]),
        residual: epilogue.residual.map(|r| match r {
            Residual::F32(m) => Residual::F32(m.columns(cols)),
            Residual::U8 {
                q,
                zero_point,
                multiplier,
            } => Residual::U8 {
                q: q.columns(cols),
                zero_point,
                multiplier,
            },
            Residual::I8 {
                q,
                zero_point,
                multiplier,
            } => Residual::I8 {
                q: q.columns(cols),
                zero_point,
                multiplier,
            },
        }),
        ..*epilogue
    }
}

/// `Σ w` over channels, by groups, places and outputs: weights in the order of groups, outputs,
/// places, channels. Without channels there are none.
fn sum_taps(weights: &[i8], shape: [usize; 4]) -> Result<Vec<i32>, KernelError> {
    let [groups, each, taps, channels] = shape;
    if channels == 0 {
        return Ok(Vec::new());
    }
    // No more than there are weights, so the product does not overflow.
    let size = taps * each;
    let too_large = KernelError::TooLarge {
        rows: groups * taps,
        row_stride: each,
    };
    let mut sums = crate::pack::zeroed::<i32>(groups * size).ok_or(too_large)?;
    let places = weights.chunks_exact(channels).map(|channels| {
        channels
            .iter()
            .fold(0i32, |sum, &w| sum.wrapping_add(w.into()))
    });
    for (i, sum) in places.enumerate() {
        let (filter, tap) = (i / taps, i % taps);
        sums[filter / each * size + tap * each + filter % each] = sum;
    }
    Ok(sums)
}

impl Workspace {
    /// Bytes that [`conv2d`] needs for a shape and packed weights. On a pool the number of its
    /// threads counts: call this inside the pool.
    ///
    /// # Errors
    ///
    /// [`KernelError::Window`] for a shape that no window fits.
    pub fn required_conv2d(
        shape: &ConvShape,
        weights: &PackedConv,
        threads: Threads<'_>,
    ) -> Result<usize, KernelError> {
        let [images, height, width] = shape.output()?;
        let rows = images.saturating_mul(height).saturating_mul(width);
        let depth = weights.groups.first().map_or(0, PackedB::k);
        let isa = weights.isa();
        let direct = Required {
            images,
            axes: [shape.axis(0)?, shape.axis(1)?],
            weights,
            threads: threads.count(),
        };
        let direct = with_byte_kernel(isa, direct);
        Ok(Workspace::required(isa, rows, weights.each(), depth, threads).max(direct))
    }
}

/// A group and how it may be run.
struct RunConv<'c, 'w> {
    direct: Option<Direct<'c>>,
    run: Run<'c, 'w>,
}

impl VisitKernel for RunConv<'_, '_> {
    type Output = Result<(), KernelError>;

    fn visit<K: Microkernel>(self, tier: K::Home) -> Self::Output {
        let Run { call, ws } = self.run;
        if !K::SEGMENTS {
            return Run { call, ws }.visit::<K>(tier);
        }
        let plan = self
            .direct
            .and_then(|direct| Some((direct, direct.plan::<K>(&call.operands, call.threads())?)));
        let Some((direct, plan)) = plan else {
            return Run { call, ws }.visit::<K>(tier);
        };
        let mem = ws.lines(plan.total_lines())?;
        call.convolve::<K>(tier, direct, &plan, mem)
    }
}

/// The most bytes that a direct convolution needs, in place or not; 0 where the kernel has none.
struct Required<'a> {
    images: usize,
    axes: [Axis; 2],
    weights: &'a PackedConv,
    threads: usize,
}

impl VisitKernel for Required<'_> {
    type Output = usize;

    fn visit<K: Microkernel>(self, _tier: K::Home) -> usize {
        let [y, x] = self.axes;
        let lines = self.images.saturating_mul(y.output);
        let PackedConv {
            channels, taps_row, ..
        } = *self.weights;
        let n = self.weights.each();
        let plans = [true, false].into_iter().filter_map(|in_place| {
            let places = Places {
                y,
                x,
                channels,
                taps_row,
                in_place,
            };
            DirectPlan::new::<K>(&places, lines, n, self.threads)
        });
        let most = plans.map(|plan| plan.total_lines()).max();
        most.unwrap_or(0).saturating_mul(size_of::<Line>())
    }
}
