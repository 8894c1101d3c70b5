//! Depthwise convolutions in vectors of 512 bits, with and without VNNI.

use core::arch::x86_64::*;

use crate::arch::x86_64::avx512bw::Avx512Bw;
use crate::arch::x86_64::avx512vnni::Avx512Vnni;
use crate::arch::x86_64::depthwise::interleave;
use crate::arch::x86_64::ymm::depthwise::{interleave16, interleave32};
use crate::depthwise::lanes::{DepthwiseLanes, Finish, Kind, Limits};
use crate::isa::Tier;

/// Vectors of 512 bits: proves that AVX-512 F, BW and VL run, and, if so, VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Zmm<const VNNI: bool>(());

impl<const VNNI: bool> Zmm<VNNI> {
    /// # Safety
    ///
    /// AVX-512 F, BW and VL run, and, if so, VNNI.
    #[inline(always)]
    pub(in crate::arch::x86_64) const unsafe fn new() -> Self {
        Zmm(())
    }
}

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

/// The lowest tier that has them.
pub(crate) trait Homed: Sized {
    type Home: Tier<Depthwise = Self>;
}

impl Homed for Zmm<false> {
    type Home = Avx512Bw;
}

impl Homed for Zmm<true> {
    type Home = Avx512Vnni;
}

impl<const VNNI: bool> DepthwiseLanes for Zmm<VNNI>
where
    Zmm<VNNI>: Homed,
{
    type Home = <Self as Homed>::Home;
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
        limits: &Limits,
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
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn finish_zmm<F: Finish>(
    limits: &Limits,
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
            Kind::Bytes => {
                // NaN passes the limit and becomes the lowest i32, and that the lowest value.
                let hi = _mm512_set1_ps(limits.hi);
                let q: [__m512i; 4] =
                    core::array::from_fn(|j| _mm512_cvtps_epi32(_mm512_min_ps(hi, scaled(j))));
                // Limits are differences of bytes, and the zero point is one: 16 bits hold all.
                let zp = _mm512_set1_epi32(limits.zero_point);
                let min = _mm512_set1_epi32(limits.min);
                let low = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), zp);
                let high = _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), zp);
                let bytes = _mm512_max_epu8(_mm512_packus_epi16(low, high), min);
                let flip = _mm512_set1_epi32(limits.flip);
                _mm512_storeu_si512(out.cast(), _mm512_xor_si512(bytes, flip));
            }
            // Stored as they are.
            Kind::Sums => {}
        }
    }
}
