//! The epilogue's arithmetic: a chunk of exact sums to a chunk of output.
//!
//! Plain loops over arrays of fixed length, vectorised by the compiler inside each tier's door;
//! the tail of a row goes through a chunk on the stack, so there is no scalar remainder.

use qformat::QuantElement;

use crate::OutParams;
use crate::plan::CHUNK;
use crate::quantize::round_clamped;

/// Turns sums into output elements.
pub(crate) trait Store: Copy + Send + Sync {
    /// Element type of the output.
    type Elem: Copy + Default + Send;

    /// Whether sums are stored as they are, so that a kernel can write to the output itself.
    const SUMS: bool = false;

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
    /// are exact in f32 and [`round_clamped`] is exact within them.
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

impl<E: QuantElement> Store for Quantized<E> {
    type Elem = E;

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
            out[j] = E::saturate(round_clamped(v[j], self.lo, self.hi) + self.zero_point);
        }
    }
}

/// Stores one row: `out` is what is inside the matrix; the other slices cover it in whole chunks.
#[inline(always)]
pub(crate) fn store_row<S: Store>(
    store: &S,
    acc: &[i32],
    scale: &[f32],
    bias: Option<&[f32]>,
    out: &mut [S::Elem],
) {
    let acc = acc.as_chunks::<CHUNK>().0;
    let scale = scale.as_chunks::<CHUNK>().0;
    let bias = bias.map(|b| b.as_chunks::<CHUNK>().0);
    let (chunks, rest) = out.as_chunks_mut::<CHUNK>();
    let full = chunks.len();
    for (c, out) in chunks.iter_mut().enumerate() {
        store.chunk(&acc[c], &scale[c], bias.map(|b| &b[c]), out);
    }
    if !rest.is_empty() {
        let mut last = [S::Elem::default(); CHUNK];
        store.chunk(&acc[full], &scale[full], bias.map(|b| &b[full]), &mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
