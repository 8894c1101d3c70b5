//! What becomes of the sums of a tile: stored as they are, or through the epilogue.

use core::arch::x86_64::*;

use crate::arch::x86_64::zmm::one_nan;
use crate::kernel::Scaling;
use crate::plan::CHUNK;
use crate::quantize::ROUND;
use crate::store::Steps;

/// The columns of a panel's last unit that an output of `cols` columns has.
#[inline(always)]
pub(super) fn last_mask(cols: usize, width: usize) -> __mmask16 {
    u16::MAX >> width.saturating_sub(cols).min(15)
}

/// What becomes of a row of finished sums.
pub(super) trait Finish: Copy {
    type Elem;

    /// Bytes of an element of the output, of which `Elem` may be a part.
    fn size(self) -> usize;

    /// Stores `V` vectors of sums of row `r`.
    ///
    /// # Safety
    ///
    /// The instructions of the tier run, `out` is valid for reads and writes of `16 · V` elements
    /// (of the last sixteen, those that the value stores) and borrowed exclusively, and what the
    /// value holds of rows and columns covers them.
    unsafe fn row<const V: usize>(self, r: usize, sums: [__m512i; V], out: *mut Self::Elem);
}

/// Stores the sums.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// Which of the last vector.
    pub(super) last: __mmask16,
}

impl Finish for Sums {
    type Elem = i32;

    #[inline(always)]
    fn size(self) -> usize {
        size_of::<i32>()
    }

    #[inline(always)]
    unsafe fn row<const V: usize>(self, _r: usize, sums: [__m512i; V], out: *mut i32) {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: vector `v < V` of what the caller promised.
            unsafe {
                let out = out.add(16 * v);
                // A masked store is slower, so only where it is needed.
                if v + 1 < V || self.last == u16::MAX {
                    _mm512_storeu_si512(out.cast(), sum);
                } else {
                    _mm512_mask_storeu_epi32(out, self.last, sum);
                }
            }
        }
    }
}

/// Runs the epilogue on the sums in registers; with `PART`, of the last vector for some columns.
///
/// Written in intrinsics: plain loops over arrays that are never in memory fall apart into scalar
/// shuffles.
#[derive(Clone, Copy)]
pub(super) struct Scaled<'a, const PART: bool> {
    steps: &'a Steps<'a>,
    scale: &'a [[f32; CHUNK]],
    bias: Option<&'a [[f32; CHUNK]]>,
    rows: Option<&'a [f32]>,
    small: bool,
    /// Which of the last vector.
    last: __mmask16,
}

impl<'a, const PART: bool> Scaled<'a, PART> {
    #[inline(always)]
    pub(super) fn new(
        scaling: Scaling<'a>,
        steps: &'a Steps<'a>,
        rows: usize,
        width: usize,
        cols: usize,
    ) -> Self {
        Scaled {
            steps,
            scale: scaling.scale[..width].as_chunks().0,
            bias: scaling.bias.map(|bias| bias[..width].as_chunks().0),
            rows: scaling.rows.map(|of_rows| &of_rows[..rows]),
            small: scaling.small,
            last: last_mask(cols, width),
        }
    }

    /// What columns have from this vector of the tile on.
    #[inline(always)]
    pub(super) fn from(self, vector: usize) -> Self {
        Scaled {
            scale: &self.scale[vector..],
            bias: self.bias.map(|bias| &bias[vector..]),
            ..self
        }
    }
}

impl<const PART: bool> Finish for Scaled<'_, PART> {
    type Elem = u8;

    #[inline(always)]
    fn size(self) -> usize {
        self.steps.size()
    }

    #[inline(always)]
    unsafe fn row<const V: usize>(self, r: usize, sums: [__m512i; V], out: *mut u8) {
        // SAFETY: a row of what the caller promised, and its `V` chunks of scales and biases.
        unsafe {
            let row = self.rows.map(|rows| *rows.get_unchecked(r));
            let scale = &*self.scale.as_ptr().cast();
            let bias = self.bias.map(|b| &*b.as_ptr().cast());
            let scaled = scaled(&sums, (row, scale), bias);
            put::<V, PART>(self.steps, &sums, (scaled, self.small), out, self.last);
        }
    }
}

/// `sums · row · scale + bias`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn scaled<const V: usize>(
    sums: &[__m512i; V],
    (row, scale): (Option<f32>, &[[f32; CHUNK]; V]),
    bias: Option<&[[f32; CHUNK]; V]>,
) -> [__m512; V] {
    // SAFETY: a chunk is a vector.
    let load = |chunk: [f32; CHUNK]| unsafe { _mm512_loadu_ps(chunk.as_ptr()) };
    let scale = scale.map(load);
    let scale = match row {
        Some(row) => scale.map(|scale| _mm512_mul_ps(_mm512_set1_ps(row), scale)),
        None => scale,
    };
    let product = |v: usize| _mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), scale[v]);
    match bias {
        Some(bias) => core::array::from_fn(|v| _mm512_add_ps(product(v), load(bias[v]))),
        None => core::array::from_fn(product),
    }
}

/// The rest of the epilogue of `16 · V` sums: the bits of [`store_tile`](crate::store::store_tile).
/// With `PART` only the elements in `mask` are stored of the last vector.
///
/// The choices are made once for all vectors. `small` is that of [`Scaling`].
///
/// # Safety
///
/// `out` is valid for writes of `16 · V` elements of the type that the steps store; of the last sixteen,
/// of those in `mask`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn put<const V: usize, const PART: bool>(
    steps: &Steps<'_>,
    sums: &[__m512i; V],
    (scaled, small): ([__m512; V], bool),
    out: *mut u8,
    mask: __mmask16,
) {
    let part = |v: usize| PART && v + 1 == V;
    let set = |v| _mm512_set1_ps(v);
    // `vmaxps` and `vminps` give the second operand where one is NaN, so after the first none is.
    let clamped = |v, lo, hi| _mm512_min_ps(_mm512_max_ps(v, set(lo)), set(hi));
    let floats = |limits: Option<(f32, f32)>| match limits {
        Some((lo, f32::INFINITY)) => scaled.map(|v| _mm512_max_ps(v, set(lo))),
        Some((lo, hi)) => scaled.map(|v| clamped(v, lo, hi)),
        None => scaled.map(|v| one_nan(v)),
    };
    // SAFETY: vector `v < V` of what the caller promised.
    unsafe {
        match *steps {
            Steps::Sums => {
                for (v, &sums) in sums.iter().enumerate() {
                    let out = out.add(4 * CHUNK * v).cast();
                    if part(v) {
                        _mm512_mask_storeu_epi32(out, mask, sums);
                    } else {
                        _mm512_storeu_si512(out.cast(), sums);
                    }
                }
            }
            Steps::Floats { clamp } => {
                for (v, floats) in floats(clamp).into_iter().enumerate() {
                    let out = out.add(4 * CHUNK * v).cast();
                    if part(v) {
                        _mm512_mask_storeu_ps(out, mask, floats);
                    } else {
                        _mm512_storeu_ps(out, floats);
                    }
                }
            }
            Steps::F16 { clamp } => {
                for (v, floats) in floats(clamp).into_iter().enumerate() {
                    let half = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(floats);
                    let out = out.add(2 * CHUNK * v);
                    if part(v) {
                        _mm256_mask_storeu_epi16(out.cast(), mask, half);
                    } else {
                        _mm256_storeu_si256(out.cast(), half);
                    }
                }
            }
            // Rounded in the loop nest: the instruction for it flushes subnormals.
            Steps::Bf16 { .. } => unreachable!(),
            Steps::Bytes {
                lo, hi, zero_point, ..
            } => {
                if let Some(&scaled) = scaled.first_chunk::<4>() {
                    let bytes = bytes(scaled, small, (lo, hi), zero_point);
                    if PART {
                        let mask = u64::from(mask) << 48 | u64::MAX >> 16;
                        return _mm512_mask_storeu_epi8(out.cast(), mask, bytes);
                    }
                    return _mm512_storeu_si512(out.cast(), bytes);
                }
                for (v, scaled) in scaled.into_iter().enumerate() {
                    let rounded = _mm512_add_ps(clamped(scaled, lo, hi), set(ROUND));
                    let q = _mm512_castps_si512(rounded);
                    let q =
                        _mm512_cvtepi32_epi8(_mm512_add_epi32(q, _mm512_set1_epi32(zero_point)));
                    let out = out.add(CHUNK * v);
                    if part(v) {
                        _mm_mask_storeu_epi8(out.cast(), mask, q);
                    } else {
                        _mm_storeu_si128(out.cast(), q);
                    }
                }
            }
        }
    }
}

/// `rne(v)` limited to `[lo, hi]`, plus the zero point, of 64 values: five operations a vector with
/// the saturating packs, of which one is to limit values that are not `small`, where eight would do it
/// vector by vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn bytes(v: [__m512; 4], small: bool, (lo, hi): (f32, f32), zero_point: i32) -> __m512i {
    // In this order of arguments NaN stays, which as −∞ becomes the lowest i32.
    let limited = match small {
        true => v,
        false => v.map(|v| _mm512_min_ps(_mm512_set1_ps(hi), v)),
    };
    let n = limited.map(|v| _mm512_cvtps_epi32(v));
    // |Z| ≤ 255: what saturates 16 bits is outside of bytes before and after it is added.
    let z = _mm512_set1_epi16(zero_point as i16);
    let low = _mm512_adds_epi16(_mm512_packs_epi32(n[0], n[1]), z);
    let high = _mm512_adds_epi16(_mm512_packs_epi32(n[2], n[3]), z);
    // The limits are integers, and with the zero point those of one type or the other.
    let (lo, hi) = (lo as i32 + zero_point, hi as i32 + zero_point);
    let (min, max) = (_mm512_set1_epi8(lo as i8), _mm512_set1_epi8(hi as i8));
    let packed = match (lo, hi) {
        (-128, 127) => _mm512_packs_epi16(low, high),
        (0, 255) => _mm512_packus_epi16(low, high),
        (..0, _) => _mm512_min_epi8(_mm512_max_epi8(_mm512_packs_epi16(low, high), min), max),
        _ => _mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(low, high), min), max),
    };
    // The packs work in lanes of 128 bits.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_permutexvar_epi32(order, packed)
}

/// A row of sums in memory.
///
/// # Safety
///
/// As [`Finish::row`], and there are `16 · V` sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn finish_row<const V: usize>(
    finish: Scaled<'_, true>,
    r: usize,
    sums: &[i32],
    out: *mut u8,
) {
    // SAFETY: as promised by the caller.
    unsafe { finish.row(r, super::tile::vectors::<V>(sums.as_ptr().cast()), out) }
}
