//! Depthwise convolutions in vectors of 256 bits.

use core::arch::x86_64::*;

use crate::arch::x86_64::avx2::Avx2;
use crate::arch::x86_64::depthwise::interleave;
use crate::depthwise::lanes::{DepthwiseLanes, Finish, Kind, Limits};

/// Vectors of 256 bits and `vpmaddwd`: proves that AVX2 runs.
#[derive(Clone, Copy)]
pub(crate) struct Ymm(());

impl Ymm {
    /// # Safety
    ///
    /// AVX2 runs.
    #[inline(always)]
    pub(in crate::arch::x86_64) const unsafe fn new() -> Self {
        Ymm(())
    }
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

impl DepthwiseLanes for Ymm {
    type Home = Avx2;
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

    const STREAMS: bool = true;

    #[inline(always)]
    unsafe fn words(self, rows: [*const u8; 4], flip: u8) -> [__m256i; 4] {
        // SAFETY: as promised by the caller; `self` proves the instructions.
        unsafe { words32::<false>(rows, flip) }
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
        limits: &Limits,
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
    limits: &Limits,
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
            Kind::Bytes => {
                // NaN passes the limit and becomes the lowest i32, and that the lowest value.
                let hi = _mm256_set1_ps(limits.hi);
                let q: [__m256i; 4] =
                    core::array::from_fn(|j| _mm256_cvtps_epi32(_mm256_min_ps(hi, scaled(j))));
                // Limits are differences of bytes, and the zero point is one: 16 bits hold all.
                let zp = _mm256_set1_epi32(limits.zero_point);
                let min = _mm256_set1_epi32(limits.min);
                let low = _mm256_adds_epi16(_mm256_packs_epi32(q[0], q[1]), zp);
                let high = _mm256_adds_epi16(_mm256_packs_epi32(q[2], q[3]), zp);
                let bytes = _mm256_max_epu8(_mm256_packus_epi16(low, high), min);
                let flip = _mm256_set1_epi32(limits.flip);
                _mm256_storeu_si256(out.cast(), _mm256_xor_si256(bytes, flip));
            }
            // Stored as they are.
            Kind::Sums => {}
        }
    }
}
