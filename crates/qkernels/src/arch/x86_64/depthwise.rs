//! Depthwise convolutions in vectors of 256 and 512 bits, with and without VNNI.
//!
//! Rows are interleaved by `vpunpck`, which works in lanes of 128 bits; `vpack` of the finished
//! bytes undoes its order, so bytes need no other shuffle. Exact: `vpdpbusd` and, on words of two
//! 16-bit values, `vpmaddwd` (at most 2 · 255 · 128) do not saturate.

use core::arch::x86_64::*;

use crate::depthwise::lanes::{DepthwiseLanes, Finish, Kind, Limits};

/// Vectors of 256 bits and `vpmaddwd`: proves that AVX2 runs.
#[derive(Clone, Copy)]
pub(crate) struct Ymm(());

impl Ymm {
    /// # Safety
    ///
    /// AVX2 runs.
    #[inline(always)]
    pub(super) const unsafe fn new() -> Self {
        Ymm(())
    }
}

/// Vectors of 512 bits: proves that AVX-512 F, BW and VL run, and, if so, VNNI.
#[cfg(feature = "avx512")]
#[derive(Clone, Copy)]
pub(crate) struct Zmm<const VNNI: bool>(());

#[cfg(feature = "avx512")]
impl<const VNNI: bool> Zmm<VNNI> {
    /// # Safety
    ///
    /// AVX-512 F, BW and VL run, and, if so, VNNI.
    #[inline(always)]
    pub(super) const unsafe fn new() -> Self {
        Zmm(())
    }
}

/// The low and high halves of lanes of rows, interleaved: a function that gives words, and one that
/// stores them.
macro_rules! interleave {
    ($name:ident, $words:ident, $feature:literal, $vector:ty, $load:ident, $store:ident, $set:ident,
     $xor:ident, $lo8:ident, $hi8:ident, $lo16:ident, $hi16:ident) => {
        /// The words of four rows as bytes, or of two as 16-bit values.
        ///
        /// # Safety
        ///
        /// As [`DepthwiseLanes::words`] for the width of the vector.
        #[inline]
        #[target_feature(enable = $feature)]
        unsafe fn $words<const BYTES: bool>(rows: [*const u8; 4], flip: u8) -> [$vector; 4] {
            let flip = $set(flip as i8);
            // SAFETY: rows of a vector's width, as promised by the caller.
            let load = |r: usize| unsafe { $xor($load(rows[r].cast::<$vector>()), flip) };
            let (a, b) = (load(0), load(1));
            let low = $lo8(a, b);
            let high = $hi8(a, b);
            if BYTES {
                let (c, d) = (load(2), load(3));
                let (more_low, more_high) = ($lo8(c, d), $hi8(c, d));
                [
                    $lo16(low, more_low),
                    $hi16(low, more_low),
                    $lo16(high, more_high),
                    $hi16(high, more_high),
                ]
            } else {
                // Pairs of bytes, each widened with a zero.
                [
                    $lo8(low, $set(0)),
                    $hi8(low, $set(0)),
                    $lo8(high, $set(0)),
                    $hi8(high, $set(0)),
                ]
            }
        }

        /// # Safety
        ///
        /// As [`DepthwiseLanes::interleave`] for the width of the vector.
        #[inline]
        #[target_feature(enable = $feature)]
        unsafe fn $name<const BYTES: bool>(
            rows: [*const u8; 4],
            flip: u8,
            out: *mut i32,
            run: usize,
        ) {
            // SAFETY: as promised by the caller.
            let words = unsafe { $words::<BYTES>(rows, flip) };
            for (j, words) in words.into_iter().enumerate() {
                // SAFETY: four runs, as promised by the caller.
                unsafe { $store(out.add(j * run).cast::<$vector>(), words) };
            }
        }
    };
}
interleave!(
    interleave16,
    words16,
    "avx2",
    __m128i,
    _mm_loadu_si128,
    _mm_storeu_si128,
    _mm_set1_epi8,
    _mm_xor_si128,
    _mm_unpacklo_epi8,
    _mm_unpackhi_epi8,
    _mm_unpacklo_epi16,
    _mm_unpackhi_epi16
);
interleave!(
    interleave32,
    words32,
    "avx2",
    __m256i,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_set1_epi8,
    _mm256_xor_si256,
    _mm256_unpacklo_epi8,
    _mm256_unpackhi_epi8,
    _mm256_unpacklo_epi16,
    _mm256_unpackhi_epi16
);
#[cfg(feature = "avx512")]
interleave!(
    interleave64,
    words64,
    "avx512f,avx512bw",
    __m512i,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_set1_epi8,
    _mm512_xor_si512,
    _mm512_unpacklo_epi8,
    _mm512_unpackhi_epi8,
    _mm512_unpacklo_epi16,
    _mm512_unpackhi_epi16
);

impl DepthwiseLanes for Ymm {
    const ID: &'static str = "ymm/dw/2x8";
    const GROUP: usize = 2;
    const WORDS: usize = 8;
    const MANY_REGISTERS: bool = false;
    type Vector = __m256i;

    #[inline(always)]
    unsafe fn load(self, p: *const i32) -> __m256i {
        // SAFETY: as promised by the caller; `self` proves the instructions.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    fn splat(self, v: i32) -> __m256i {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm256_set1_epi32(v) }
    }

    #[inline(always)]
    fn dot(self, acc: __m256i, a: __m256i, w: __m256i) -> __m256i {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(a, w)) }
    }

    #[inline(always)]
    fn multiply_add(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm256_add_epi32(acc, _mm256_mullo_epi32(a, b)) }
    }

    #[inline(always)]
    unsafe fn interleave<const W: usize>(
        self,
        rows: [*const u8; 4],
        flip: u8,
        out: *mut i32,
        run: usize,
    ) {
        // SAFETY: as promised by the caller; `self` proves the instructions.
        unsafe {
            if W == 32 {
                interleave32::<false>(rows, flip, out, run);
            } else {
                interleave16::<false>(rows, flip, out, run);
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, sums: [__m256i; 4], out: *mut i32) {
        // SAFETY: as promised by the caller; `self` proves the instructions.
        unsafe { store_ymm(sums, out) };
    }

    const FINISHES: bool = true;

    #[inline(always)]
    unsafe fn finish<F: Finish>(
        self,
        limits: Limits,
        sums: [__m256i; 4],
        scale: *const f32,
        bias: Option<*const f32>,
        out: *mut u8,
    ) {
        // SAFETY: as promised by the caller; `self` proves the instructions.
        unsafe { finish_ymm::<F>(limits, sums, scale, bias, out) };
    }
}

/// Stores four vectors of 8 sums, their lanes in the order of the channels.
///
/// # Safety
///
/// `out` is valid for writes of 32 elements.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store_ymm(v: [__m256i; 4], out: *mut i32) {
    let in_order = {
        [
            _mm256_permute2x128_si256::<0x20>(v[0], v[1]),
            _mm256_permute2x128_si256::<0x20>(v[2], v[3]),
            _mm256_permute2x128_si256::<0x31>(v[0], v[1]),
            _mm256_permute2x128_si256::<0x31>(v[2], v[3]),
        ]
    };
    for (j, v) in in_order.into_iter().enumerate() {
        // SAFETY: vector `j < 4`, as promised by the caller.
        unsafe { _mm256_storeu_si256(out.add(8 * j).cast(), v) };
    }
}

/// The epilogue of four vectors of 8 sums: the bits of [`store_tile`](crate::store::store_tile).
///
/// # Safety
///
/// As [`DepthwiseLanes::finish`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn finish_ymm<F: Finish>(
    limits: Limits,
    sums: [__m256i; 4],
    scale: *const f32,
    bias: Option<*const f32>,
    out: *mut u8,
) {
    let scaled = |j: usize| {
        // SAFETY: vector `j < 4`, as promised by the caller.
        unsafe {
            let v = _mm256_mul_ps(
                _mm256_cvtepi32_ps(sums[j]),
                _mm256_loadu_ps(scale.add(8 * j)),
            );
            match bias {
                Some(bias) => _mm256_add_ps(v, _mm256_loadu_ps(bias.add(8 * j))),
                None => v,
            }
        }
    };
    // SAFETY: 32 elements at `out`, as promised by the caller.
    unsafe {
        match F::KIND {
            Kind::Floats => {
                let v = core::array::from_fn(|j| {
                    let mut v = scaled(j);
                    if limits.clamp {
                        // They give the second operand where one is NaN.
                        v = _mm256_max_ps(v, _mm256_set1_ps(limits.lo));
                        v = _mm256_min_ps(v, _mm256_set1_ps(limits.hi));
                    } else {
                        // NaN as it is stored, whatever the processor made.
                        let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(v, v);
                        v = _mm256_blendv_ps(v, _mm256_set1_ps(f32::NAN), nan);
                    }
                    _mm256_castps_si256(v)
                });
                store_ymm(v, out.cast());
            }
            Kind::U8 | Kind::I8 => {
                // NaN passes the limit and becomes the lowest i32, and that the lowest value.
                let hi = _mm256_set1_ps(limits.hi);
                let q: [__m256i; 4] =
                    core::array::from_fn(|j| _mm256_cvtps_epi32(_mm256_min_ps(hi, scaled(j))));
                // Limits are differences of bytes, and the zero point is a byte: 16 bits hold all.
                let zp = _mm256_set1_epi16(limits.zero_point as i16);
                let min = _mm256_set1_epi8((limits.lo as i32 + limits.zero_point) as i8);
                let low = _mm256_adds_epi16(_mm256_packs_epi32(q[0], q[1]), zp);
                let high = _mm256_adds_epi16(_mm256_packs_epi32(q[2], q[3]), zp);
                let bytes = if F::KIND == Kind::I8 {
                    _mm256_max_epi8(_mm256_packs_epi16(low, high), min)
                } else {
                    _mm256_max_epu8(_mm256_packus_epi16(low, high), min)
                };
                _mm256_storeu_si256(out.cast(), bytes);
            }
            // Stored as they are.
            Kind::Sums => {}
        }
    }
}

#[cfg(feature = "avx512")]
impl<const VNNI: bool> DepthwiseLanes for Zmm<VNNI> {
    const ID: &'static str = if VNNI { "zmm/dw/4x16" } else { "zmm/dw/2x16" };
    const GROUP: usize = if VNNI { 4 } else { 2 };
    const WORDS: usize = 16;
    const MANY_REGISTERS: bool = true;
    type Vector = __m512i;

    #[inline(always)]
    unsafe fn load(self, p: *const i32) -> __m512i {
        // SAFETY: as promised by the caller; `self` proves the instructions.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    fn splat(self, v: i32) -> __m512i {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_set1_epi32(v) }
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, a: __m512i, w: __m512i) -> __m512i {
        // SAFETY: `self` proves the instructions.
        unsafe {
            if VNNI {
                _mm512_dpbusd_epi32(acc, a, w)
            } else {
                _mm512_add_epi32(acc, _mm512_madd_epi16(a, w))
            }
        }
    }

    #[inline(always)]
    fn multiply_add(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_add_epi32(acc, _mm512_mullo_epi32(a, b)) }
    }

    #[inline(always)]
    unsafe fn interleave<const W: usize>(
        self,
        rows: [*const u8; 4],
        flip: u8,
        out: *mut i32,
        run: usize,
    ) {
        // SAFETY: as promised by the caller; `self` proves the instructions.
        unsafe {
            match W {
                64 => interleave64::<VNNI>(rows, flip, out, run),
                32 => interleave32::<VNNI>(rows, flip, out, run),
                _ => interleave16::<VNNI>(rows, flip, out, run),
            }
        }
    }

    const STREAMS: bool = VNNI;

    #[inline(always)]
    unsafe fn words(self, rows: [*const u8; 4], flip: u8) -> [__m512i; 4] {
        // SAFETY: as promised by the caller; `self` proves the instructions.
        unsafe { words64::<VNNI>(rows, flip) }
    }

    #[inline(always)]
    unsafe fn store(self, sums: [__m512i; 4], out: *mut i32) {
        // SAFETY: as promised by the caller; `self` proves the instructions.
        unsafe { store_zmm(sums, out) };
    }

    const FINISHES: bool = true;

    #[inline(always)]
    unsafe fn finish<F: Finish>(
        self,
        limits: Limits,
        sums: [__m512i; 4],
        scale: *const f32,
        bias: Option<*const f32>,
        out: *mut u8,
    ) {
        // SAFETY: as promised by the caller; `self` proves the instructions.
        unsafe { finish_zmm::<F>(limits, sums, scale, bias, out) };
    }
}

/// Stores four vectors of 16 sums, their lanes in the order of the channels.
///
/// # Safety
///
/// `out` is valid for writes of 64 elements.
#[cfg(feature = "avx512")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn store_zmm(v: [__m512i; 4], out: *mut i32) {
    let in_order = {
        let a = _mm512_shuffle_i32x4::<0x44>(v[0], v[1]);
        let b = _mm512_shuffle_i32x4::<0x44>(v[2], v[3]);
        let c = _mm512_shuffle_i32x4::<0xee>(v[0], v[1]);
        let d = _mm512_shuffle_i32x4::<0xee>(v[2], v[3]);
        [
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0xdd>(a, b),
            _mm512_shuffle_i32x4::<0x88>(c, d),
            _mm512_shuffle_i32x4::<0xdd>(c, d),
        ]
    };
    for (j, v) in in_order.into_iter().enumerate() {
        // SAFETY: vector `j < 4`, as promised by the caller.
        unsafe { _mm512_storeu_si512(out.add(16 * j).cast(), v) };
    }
}

/// The epilogue of four vectors of 16 sums: the bits of [`store_tile`](crate::store::store_tile).
///
/// # Safety
///
/// As [`DepthwiseLanes::finish`].
#[cfg(feature = "avx512")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn finish_zmm<F: Finish>(
    limits: Limits,
    sums: [__m512i; 4],
    scale: *const f32,
    bias: Option<*const f32>,
    out: *mut u8,
) {
    let scaled = |j: usize| {
        // SAFETY: vector `j < 4`, as promised by the caller.
        unsafe {
            let v = _mm512_mul_ps(
                _mm512_cvtepi32_ps(sums[j]),
                _mm512_loadu_ps(scale.add(16 * j)),
            );
            match bias {
                Some(bias) => _mm512_add_ps(v, _mm512_loadu_ps(bias.add(16 * j))),
                None => v,
            }
        }
    };
    // SAFETY: 64 elements at `out`, as promised by the caller.
    unsafe {
        match F::KIND {
            Kind::Floats => {
                let v = core::array::from_fn(|j| {
                    let mut v = scaled(j);
                    if limits.clamp {
                        // They give the second operand where one is NaN.
                        v = _mm512_max_ps(v, _mm512_set1_ps(limits.lo));
                        v = _mm512_min_ps(v, _mm512_set1_ps(limits.hi));
                    } else {
                        // NaN as it is stored, whatever the processor made.
                        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
                        v = _mm512_mask_mov_ps(v, nan, _mm512_set1_ps(f32::NAN));
                    }
                    _mm512_castps_si512(v)
                });
                store_zmm(v, out.cast());
            }
            Kind::U8 | Kind::I8 => {
                // NaN passes the limit and becomes the lowest i32, and that the lowest value.
                let hi = _mm512_set1_ps(limits.hi);
                let q: [__m512i; 4] =
                    core::array::from_fn(|j| _mm512_cvtps_epi32(_mm512_min_ps(hi, scaled(j))));
                // Limits are differences of bytes, and the zero point is a byte: 16 bits hold all.
                let zp = _mm512_set1_epi16(limits.zero_point as i16);
                let min = _mm512_set1_epi8((limits.lo as i32 + limits.zero_point) as i8);
                let low = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), zp);
                let high = _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), zp);
                let bytes = if F::KIND == Kind::I8 {
                    _mm512_max_epi8(_mm512_packs_epi16(low, high), min)
                } else {
                    _mm512_max_epu8(_mm512_packus_epi16(low, high), min)
                };
                _mm512_storeu_si512(out.cast(), bytes);
            }
            // Stored as they are.
            Kind::Sums => {}
        }
    }
}
