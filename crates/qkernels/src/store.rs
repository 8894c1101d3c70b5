//! The epilogue's arithmetic: a chunk of exact sums to a chunk of output.
//!
//! Plain loops over arrays of fixed length, vectorised by the compiler inside each tier's door;
//! the tail of a row goes through a chunk on the stack, so there is no scalar remainder.

use core::ops::Range;

use crate::OutParams;
use crate::kernel::{AccTile, TileMut};
use crate::plan::CHUNK;
use crate::quantize::ROUND;

/// What is done to scaled sums, for kernels that do it in registers.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "read by kernels that finish tiles themselves")]
pub(crate) enum Steps {
    /// The sums are stored, unscaled.
    Sums,
    /// Clamp, store as f32.
    Floats { clamp: Option<(f32, f32)> },
    /// Clamp, round, add the zero point, store the low byte.
    Bytes { lo: f32, hi: f32, zero_point: i32 },
}

/// Turns sums into output elements.
pub(crate) trait Store: Copy + Send + Sync {
    /// Element type of the output.
    type Elem: Copy + Default + Send + 'static;

    /// Whether sums are stored as they are, so that scales are not needed.
    const SUMS: bool = false;

    /// The same as data. A kernel that goes by it must give the bits that `chunk` gives.
    #[allow(dead_code, reason = "read by kernels that finish tiles themselves")]
    fn steps(&self) -> Steps;

    /// The output as a place for sums, if they are stored as they are.
    #[inline(always)]
    fn as_sums<'t, 'a>(_out: &'t mut TileMut<'a, Self::Elem>) -> Option<&'t mut AccTile<'a>> {
        None
    }

    /// One chunk.
    fn chunk(
        &self,
        acc: &[i32; CHUNK],
        scale: &[f32; CHUNK],
        bias: Option<&[f32; CHUNK]>,
        out: &mut [Self::Elem; CHUNK],
    );
}

/// Stores the sums.
#[derive(Clone, Copy)]
pub(crate) struct Sums;

impl Store for Sums {
    type Elem = i32;

    const SUMS: bool = true;

    #[inline(always)]
    fn steps(&self) -> Steps {
        Steps::Sums
    }

    #[inline(always)]
    fn as_sums<'t, 'a>(out: &'t mut TileMut<'a, i32>) -> Option<&'t mut AccTile<'a>> {
        Some(out)
    }

    #[inline(always)]
    fn chunk(
        &self,
        acc: &[i32; CHUNK],
        _scale: &[f32; CHUNK],
        _bias: Option<&[f32; CHUNK]>,
        out: &mut [i32; CHUNK],
    ) {
        *out = *acc;
    }
}

/// `f32(acc) · scale (+ bias)`, each step rounded.
#[inline(always)]
fn scaled(acc: &[i32; CHUNK], scale: &[f32; CHUNK], bias: Option<&[f32; CHUNK]>) -> [f32; CHUNK] {
    let mut v = [0f32; CHUNK];
    for j in 0..CHUNK {
        v[j] = acc[j] as f32 * scale[j];
    }
    if let Some(bias) = bias {
        for j in 0..CHUNK {
            v[j] += bias[j];
        }
    }
    v
}

/// Stores f32, clamped if limits are given.
#[derive(Clone, Copy)]
pub(crate) struct Floats {
    pub(crate) clamp: Option<(f32, f32)>,
}

impl Store for Floats {
    type Elem = f32;

    #[inline(always)]
    fn steps(&self) -> Steps {
        Steps::Floats { clamp: self.clamp }
    }

    #[inline(always)]
    fn chunk(
        &self,
        acc: &[i32; CHUNK],
        scale: &[f32; CHUNK],
        bias: Option<&[f32; CHUNK]>,
        out: &mut [f32; CHUNK],
    ) {
        let mut v = scaled(acc, scale, bias);
        if let Some((lo, hi)) = self.clamp {
            for v in &mut v {
                let w = if *v > lo { *v } else { lo };
                *v = if w < hi { w } else { hi };
            }
        }
        *out = v;
    }
}

/// A byte that quantized values are stored in.
pub(crate) trait Byte: Copy + Default + Send + Sync + 'static {
    /// The low eight bits.
    fn low(v: i32) -> Self;
}

impl Byte for u8 {
    #[inline(always)]
    fn low(v: i32) -> u8 {
        v as u8
    }
}

impl Byte for i8 {
    #[inline(always)]
    fn low(v: i32) -> i8 {
        v as i8
    }
}

/// Stores u8 or i8.
#[derive(Clone, Copy)]
pub(crate) struct Quantized<E> {
    lo: f32,
    hi: f32,
    zero_point: i32,
    elem: core::marker::PhantomData<E>,
}

impl<E> Quantized<E> {
    /// From parameters that were checked against the type: the limits are small integers, so they
    /// are exact in f32, and what is clamped to them rounds to a value of the type.
    pub(crate) fn new(p: OutParams) -> Self {
        let (lo, hi) = ((p.min - p.zero_point) as f32, (p.max - p.zero_point) as f32);
        Quantized {
            lo,
            hi,
            zero_point: p.zero_point,
            elem: core::marker::PhantomData,
        }
    }
}

impl<E: Byte> Store for Quantized<E> {
    type Elem = E;

    #[inline(always)]
    fn steps(&self) -> Steps {
        Steps::Bytes {
            lo: self.lo,
            hi: self.hi,
            zero_point: self.zero_point,
        }
    }

    #[inline(always)]
    fn chunk(
        &self,
        acc: &[i32; CHUNK],
        scale: &[f32; CHUNK],
        bias: Option<&[f32; CHUNK]>,
        out: &mut [E; CHUNK],
    ) {
        let v = scaled(acc, scale, bias);
        for j in 0..CHUNK {
            // As `round_clamped`: NaN takes `lo`. The result is a value of the type, so its low
            // byte is all of it, and the constant that rounds has none.
            let v = if v[j] > self.lo { v[j] } else { self.lo };
            let v = if v < self.hi { v } else { self.hi };
            out[j] = E::low(((v + ROUND).to_bits() as i32).wrapping_add(self.zero_point));
        }
    }
}

/// Stores a tile, chunk of columns by chunk, so that what belongs to a column is loaded once.
///
/// `acc` holds rows `stride` apart, and `scale` and `bias` cover `cols` in whole chunks. `out`
/// gives the part of every output row that the tile covers.
#[inline(always)]
pub(crate) fn store_tile<'o, S, I>(
    store: &S,
    acc: &[i32],
    stride: usize,
    cols: usize,
    scale: &[f32],
    bias: Option<&[f32]>,
    out: impl Fn(Range<usize>) -> I,
) where
    S: Store + 'o,
    I: Iterator<Item = &'o mut [S::Elem]>,
{
    for at in (0..cols).step_by(CHUNK) {
        let count = CHUNK.min(cols - at);
        let scale = chunk_at(scale, at);
        let bias = bias.map(|b| chunk_at(b, at));
        let mut acc = &acc[at..];
        for out in out(at..at + count) {
            let Some(sums) = acc.first_chunk() else { break };
            // The last row may end before the next would start.
            acc = acc.get(stride..).unwrap_or_default();
            if let Some(out) = out.first_chunk_mut() {
                store.chunk(sums, scale, bias, out);
                continue;
            }
            let mut last = [S::Elem::default(); CHUNK];
            store.chunk(sums, scale, bias, &mut last);
            // Bounded, so that it does not become a call of memcpy for a few bytes.
            for (out, last) in out.iter_mut().zip(last).take(CHUNK - 1) {
                *out = last;
            }
        }
    }
}

/// The chunk that starts at `at`.
#[inline(always)]
fn chunk_at<T>(data: &[T], at: usize) -> &[T; CHUNK] {
    match data[at..].first_chunk() {
        Some(chunk) => chunk,
        // The plan pads every array to whole chunks.
        None => unreachable!(),
    }
}
