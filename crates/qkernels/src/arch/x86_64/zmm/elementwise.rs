//! Elementwise operations with AVX-512 F, BW, DQ and VL.
//!
//! A block is eight vectors of floats, two of bytes. Integers are narrowed by the saturating packs,
//! which work in lanes of 128 bits, so that one `vpermd` (bytes) or `vpermq` (16 bits) puts the
//! result in order: 1 operation a vector of floats, where `vpmovsdb` takes 2.
//!
//! Quantizing to bytes is bound by the vector pipes on Zen 4, 5.75 operations a vector with zero
//! point and restricted range, 5 without: so what a target does not need is left out. Noticing
//! overflow behind the packs instead of limiting every x was tried: no faster.

use core::arch::x86_64::*;

use qformat::QuantElement;

use crate::arch::x86_64::avx512bw::Avx512Bw;
use crate::dot::DOT_LANES;
use crate::elementwise::{STREAM_FROM, for_blocks, lowest, map_or_stream};
use crate::portable;
use crate::quantize::{Divisor, Method, Target};
use crate::{Lhs, Operand};

/// The proof that AVX-512 F, BW, DQ and VL run.
#[derive(Clone, Copy)]
pub(crate) struct Elementwise(());

impl Elementwise {
    /// # Safety
    ///
    /// AVX-512 F, BW, DQ and VL run.
    #[inline(always)]
    pub(crate) const unsafe fn new() -> Elementwise {
        Elementwise(())
    }
}

impl crate::elementwise::Elementwise for Elementwise {
    type Home = Avx512Bw;

    #[cfg(feature = "std")]
    #[inline(always)]
    fn dot_lanes<F: Operand>(self, a: &[F], b: &[F]) -> [f32; DOT_LANES] {
        // The door has the instruction.
        portable::dot_lanes(a, b, f32::mul_add)
    }

    #[inline(always)]
    fn dot<A: Lhs>(self, a: &[A], b: &[i8]) -> i32 {
        // SAFETY: `self` proves the instructions.
        unsafe { dot(bytemuck::cast_slice(a), b, A::DTYPE.is_signed()) }
    }

    #[inline(always)]
    fn sum<A: Lhs>(self, a: &[A]) -> i32 {
        // SAFETY: `self` proves the instructions.
        unsafe { sum(bytemuck::cast_slice(a), A::DTYPE.is_signed()) }
    }

    #[inline(always)]
    fn quantize<E: QuantElement>(self, x: &[f32], by: &Divisor, to: &Target, out: &mut [E]) {
        // SAFETY: `self` proves the instructions.
        unsafe { quantize(x, by, to, out) }
    }

    #[inline(always)]
    fn dequantize<E: QuantElement>(self, q: &[E], scale: f32, zero_point: i32, out: &mut [f32]) {
        // SAFETY: `self` proves the instructions.
        unsafe { dequantize(q, scale, zero_point, out) }
    }

    #[inline(always)]
    fn requantize<E: QuantElement>(self, acc: &[i32], multiplier: f32, to: &Target, out: &mut [E]) {
        // SAFETY: `self` proves the instructions.
        unsafe { requantize(acc, multiplier, to, out) }
    }

    #[inline(always)]
    fn f32_to_f16(self, x: &[f32], out: &mut [u16]) {
        // SAFETY: `self` proves the instructions.
        unsafe { f32_to_f16(x, out) }
    }

    #[inline(always)]
    fn f16_to_f32(self, x: &[u16], out: &mut [f32]) {
        // SAFETY: `self` proves the instructions.
        unsafe { f16_to_f32(x, out) }
    }

    #[inline(always)]
    fn f32_to_bf16(self, x: &[f32], out: &mut [u16]) {
        // SAFETY: `self` proves the instructions.
        unsafe { f32_to_bf16(x, out) }
    }

    #[inline(always)]
    fn bf16_to_f32(self, x: &[u16], out: &mut [f32]) {
        // SAFETY: `self` proves the instructions.
        unsafe { bf16_to_f32(x, out) }
    }

    #[inline(always)]
    fn finite_range(self, x: &[f32]) -> Option<(f32, f32)> {
        // SAFETY: `self` proves the instructions.
        unsafe { finite_range(x) }
    }

    #[inline(always)]
    fn magnitude(self, x: &[f32]) -> u32 {
        // SAFETY: `self` proves the instructions.
        unsafe { magnitude(x) }
    }
}

/// Elements of a block.
const BLOCK: usize = 128;

/// Vectors of a block.
type Vectors<V> = [V; VECTORS];

/// How many: their chains of dependent instructions hide each other's latency.
const VECTORS: usize = 8;

/// Calls `step` with every block of `x` and its place in `out`.
#[inline]
#[target_feature(enable = "avx512f")]
fn map<A, B>(x: &[A], out: &mut [B], step: impl FnMut(&[A; BLOCK], &mut [B; BLOCK]))
where
    A: Copy + Default,
    B: Copy + Default,
{
    /// Bytes of a vector.
    const WIDTH: usize = 64;
    let streamed = map_or_stream(x, out, STREAM_FROM, step, |from, to| {
        let (from, to) = (from.as_ptr().cast::<u8>(), to.as_mut_ptr().cast::<u8>());
        for i in 0..BLOCK * size_of::<B>() / WIDTH {
            // SAFETY: vector `i` of blocks of `B`, both aligned to 64 bytes.
            unsafe {
                let v = _mm512_load_si512(from.add(WIDTH * i).cast());
                _mm512_stream_si512(to.add(WIDTH * i).cast(), v);
            }
        }
    });
    if streamed {
        // Streaming stores are not ordered with others.
        _mm_sfence();
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &[f32; BLOCK]) -> Vectors<__m512> {
    // SAFETY: vector `i` of a block.
    core::array::from_fn(|i| unsafe { _mm512_loadu_ps(x.as_ptr().add(16 * i)) })
}

/// `saturate(n + Z)` of a block of integers; lanes of the lowest i32 give the lowest value.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store<E: QuantElement, const ADD: bool, const FLOOR: bool>(
    n: Vectors<__m512i>,
    to: &Target,
    out: &mut [E; BLOCK],
) {
    let out = out.as_mut_ptr();
    let signed = const { E::DTYPE.is_signed() };
    if const { size_of::<E>() == 1 } {
        for (i, n) in n.as_chunks::<4>().0.iter().enumerate() {
            let mut low = _mm512_packs_epi32(n[0], n[1]);
            let mut high = _mm512_packs_epi32(n[2], n[3]);
            if ADD {
                // |Z| ≤ 255: what saturates 16 bits is far outside bytes, before and after Z.
                let z = _mm512_set1_epi16(to.zero_point() as i16);
                (low, high) = (_mm512_adds_epi16(low, z), _mm512_adds_epi16(high, z));
            }
            let mut bytes = if signed {
                _mm512_packs_epi16(low, high)
            } else {
                _mm512_packus_epi16(low, high)
            };
            if FLOOR {
                let min = _mm512_set1_epi8(to.min() as i8);
                bytes = if signed {
                    _mm512_max_epi8(bytes, min)
                } else {
                    _mm512_max_epu8(bytes, min)
                };
            }
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let bytes = _mm512_permutexvar_epi32(order, bytes);
            // SAFETY: vector `i` of a quarter as many bytes as floats.
            unsafe { _mm512_storeu_si512(out.add(64 * i).cast(), bytes) };
        }
    } else {
        assert!(const { size_of::<E>() == 2 });
        // A signed result is made as an unsigned one and shifted: with a zero point that is not
        // negative the lowest i32 cannot wrap.
        let flip = if signed { i16::MIN } else { 0 };
        let z = _mm512_set1_epi32(to.zero_point() - i32::from(flip));
        for (i, &[a, b]) in n.as_chunks::<2>().0.iter().enumerate() {
            let mut words = if ADD {
                let words = _mm512_packus_epi32(_mm512_add_epi32(a, z), _mm512_add_epi32(b, z));
                _mm512_xor_si512(words, _mm512_set1_epi16(flip))
            } else if signed {
                _mm512_packs_epi32(a, b)
            } else {
                _mm512_packus_epi32(a, b)
            };
            if FLOOR {
                let min = _mm512_set1_epi16(to.min() as i16);
                words = if signed {
                    _mm512_max_epi16(words, min)
                } else {
                    _mm512_max_epu16(words, min)
                };
            }
            let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
            let words = _mm512_permutexvar_epi64(order, words);
            // SAFETY: vector `i` of half as many bytes as floats.
            unsafe { _mm512_storeu_si512(out.add(32 * i).cast(), words) };
        }
    }
}

/// Rounds a block of `x` by `round` and stores it, with no more steps than the target needs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn map_rounded<A: Copy + Default, E: QuantElement>(
    x: &[A],
    to: &Target,
    out: &mut [E],
    round: impl Fn(&[A; BLOCK]) -> Vectors<__m512i>,
) {
    let floor = Some(to.min()) != const { lowest::<E>() };
    match (to.zero_point() != 0, floor) {
        (false, false) => map(x, out, |x, out| store::<E, false, false>(round(x), to, out)),
        (false, true) => map(x, out, |x, out| store::<E, false, true>(round(x), to, out)),
        (true, false) => map(x, out, |x, out| store::<E, true, false>(round(x), to, out)),
        (true, true) => map(x, out, |x, out| store::<E, true, true>(round(x), to, out)),
    }
}

/// As [`map_rounded`] with all steps, which are right for every target: less code where parameters
/// are rare.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn map_rarely<A: Copy + Default, E: QuantElement>(
    x: &[A],
    to: &Target,
    out: &mut [E],
    round: impl Fn(&[A; BLOCK]) -> Vectors<__m512i>,
) {
    map(x, out, |x, out| store::<E, true, true>(round(x), to, out));
}

#[target_feature(enable = "avx512f,avx512bw")]
fn quantize<E: QuantElement>(x: &[f32], by: &Divisor, to: &Target, out: &mut [E]) {
    let scale = _mm512_set1_ps(by.scale());
    let (high, low) = (
        _mm512_set1_ps(by.inverse().0),
        _mm512_set1_ps(by.inverse().1),
    );
    // In this order of arguments NaN stays.
    let top = _mm512_set1_ps(to.top() * by.scale());
    let product = |x| {
        let x = _mm512_min_ps(top, x);
        (x, _mm512_fmadd_ps(x, high, _mm512_mul_ps(x, low)))
    };
    match by.method() {
        Method::Product => map_rounded(x, to, out, |x| {
            load(x).map(|x| _mm512_cvtps_epi32(product(x).1))
        }),
        Method::Corrected => map_rarely(x, to, out, |x| {
            load(x).map(|x| {
                let (x, t) = product(x);
                let rest = _mm512_fnmadd_ps(t, scale, x);
                _mm512_cvtps_epi32(_mm512_fmadd_ps(rest, high, t))
            })
        }),
        Method::Division => {
            let top = _mm512_set1_ps(to.top());
            map_rarely(x, to, out, |x| {
                load(x).map(|x| _mm512_cvtps_epi32(_mm512_min_ps(top, _mm512_div_ps(x, scale))))
            });
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn requantize<E: QuantElement>(acc: &[i32], multiplier: f32, to: &Target, out: &mut [E]) {
    let by = _mm512_set1_ps(multiplier);
    let scaled = |acc: &[i32; BLOCK]| -> Vectors<__m512> {
        core::array::from_fn(|i| {
            // SAFETY: vector `i` of a block.
            let acc = unsafe { _mm512_loadu_si512(acc.as_ptr().add(16 * i).cast()) };
            _mm512_mul_ps(_mm512_cvtepi32_ps(acc), by)
        })
    };
    if multiplier.abs() <= 0.5 {
        // At most 2^30: it does not become the lowest i32, and adding Z does not wrap.
        map_rounded(acc, to, out, |acc| {
            scaled(acc).map(|v| _mm512_cvtps_epi32(v))
        });
    } else {
        // In this order of arguments NaN stays (and becomes the lowest i32).
        let top = _mm512_set1_ps(to.top());
        map_rarely(acc, to, out, |acc| {
            scaled(acc).map(|v| _mm512_cvtps_epi32(_mm512_min_ps(top, v)))
        });
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn dequantize<E: QuantElement>(q: &[E], scale: f32, zero_point: i32, out: &mut [f32]) {
    let scale = _mm512_set1_ps(scale);
    let z = _mm512_set1_epi32(zero_point);
    map(q, out, |q: &[E; BLOCK], out: &mut [f32; BLOCK]| {
        for i in 0..VECTORS {
            // SAFETY: 16 elements, of one or two bytes, in 16 elements of blocks, from `16 · i`.
            unsafe {
                let q = q.as_ptr().add(16 * i);
                let n = match const { (size_of::<E>(), E::DTYPE.is_signed()) } {
                    (1, true) => _mm512_cvtepi8_epi32(_mm_loadu_si128(q.cast())),
                    (1, false) => _mm512_cvtepu8_epi32(_mm_loadu_si128(q.cast())),
                    (2, true) => _mm512_cvtepi16_epi32(_mm256_loadu_si256(q.cast())),
                    (2, false) => _mm512_cvtepu16_epi32(_mm256_loadu_si256(q.cast())),
                    _ => unreachable!("elements have 8 or 16 bits"),
                };
                let v = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(n, z)), scale);
                _mm512_storeu_ps(out.as_mut_ptr().add(16 * i), v);
            }
        }
    });
}

/// `vcvtps2ph` keeps subnormals whatever the mode.
#[target_feature(enable = "avx512f")]
fn f32_to_f16(x: &[f32], out: &mut [u16]) {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    map(x, out, |x, out: &mut [u16; BLOCK]| {
        for (i, x) in load(x).into_iter().enumerate() {
            let half = _mm512_cvtps_ph::<NEAREST>(x);
            // SAFETY: 16 elements of a block, from `16 · i`.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(16 * i).cast(), half) };
        }
    });
}

#[target_feature(enable = "avx512f")]
fn f16_to_f32(x: &[u16], out: &mut [f32]) {
    map(x, out, |x: &[u16; BLOCK], out: &mut [f32; BLOCK]| {
        for i in 0..VECTORS {
            // SAFETY: 16 elements of blocks, from `16 · i`.
            unsafe {
                let half = _mm256_loadu_si256(x.as_ptr().add(16 * i).cast());
                _mm512_storeu_ps(out.as_mut_ptr().add(16 * i), _mm512_cvtph_ps(half));
            }
        }
    });
}

/// The upper halves of f32; NaN becomes quiet.
#[target_feature(enable = "avx512f,avx512bw")]
fn bf16_to_f32(x: &[u16], out: &mut [f32]) {
    let quiet = _mm512_set1_epi32(0x0040_0000);
    map(x, out, |x: &[u16; BLOCK], out: &mut [f32; BLOCK]| {
        for i in 0..VECTORS {
            // SAFETY: 16 elements of blocks, from `16 · i`.
            unsafe {
                let x = _mm256_loadu_si256(x.as_ptr().add(16 * i).cast());
                let v = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x));
                let f = _mm512_castsi512_ps(v);
                let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(f, f);
                let v = _mm512_mask_or_epi32(v, nan, v, quiet);
                _mm512_storeu_si512(out.as_mut_ptr().add(16 * i).cast(), v);
            }
        }
    });
}

/// The upper halves, after adding what rounds to nearest even. A block with a NaN, which this
/// would carry into ∞ or zero, takes the plain form.
#[target_feature(enable = "avx512f,avx512bw")]
fn f32_to_bf16(x: &[f32], out: &mut [u16]) {
    let half = _mm512_set1_epi32(0x7fff);
    let one = _mm512_set1_epi32(1);
    // The odd words of two vectors.
    let upper = {
        let words: [i16; 32] = core::array::from_fn(|i| 2 * i as i16 + 1);
        // SAFETY: an array of 64 bytes.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    };
    let round = |x| {
        let bits = _mm512_castps_si512(x);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), one);
        _mm512_add_epi32(_mm512_add_epi32(bits, half), odd)
    };
    map(x, out, |x, out: &mut [u16; BLOCK]| {
        let v = load(x);
        let pairs = v.as_chunks::<2>().0;
        let nan = pairs.iter().fold(0, |nan, &[a, b]| {
            nan | _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b)
        });
        if nan != 0 {
            return portable::f32_to_bf16(x, out);
        }
        for (i, &[a, b]) in pairs.iter().enumerate() {
            let words = _mm512_permutex2var_epi16(round(a), upper, round(b));
            // SAFETY: vector `i` of half as many bytes as floats.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(32 * i).cast(), words) };
        }
    });
}

/// Accumulators of a reduction.
const SUMS: usize = 4;

/// Lowest and highest value; ∞ and NaN times zero are NaN and stay in a sum.
#[target_feature(enable = "avx512f")]
fn finite_range(x: &[f32]) -> Option<(f32, f32)> {
    let mut lo = [_mm512_set1_ps(f32::INFINITY); SUMS];
    let mut hi = [_mm512_set1_ps(f32::NEG_INFINITY); SUMS];
    let zero = _mm512_setzero_ps();
    let mut not_finite = [_mm512_setzero_ps(); SUMS];
    for_blocks(x, |x| {
        for (i, v) in load(x).into_iter().enumerate() {
            lo[i % SUMS] = _mm512_min_ps(v, lo[i % SUMS]);
            hi[i % SUMS] = _mm512_max_ps(v, hi[i % SUMS]);
            not_finite[i % SUMS] = _mm512_fmadd_ps(v, zero, not_finite[i % SUMS]);
        }
    });
    let not_finite = join(not_finite, |a, b| _mm512_add_ps(a, b));
    if _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(not_finite, not_finite) != 0 {
        return None;
    }
    let lo = join(lo, |a, b| _mm512_min_ps(a, b));
    let hi = join(hi, |a, b| _mm512_max_ps(a, b));
    Some((_mm512_reduce_min_ps(lo), _mm512_reduce_max_ps(hi)))
}

/// Joins vectors lane by lane: a loop over all lanes waits for each.
#[inline(always)]
fn join<V: Copy>(v: [V; SUMS], f: impl Fn(V, V) -> V) -> V {
    v[1..].iter().fold(v[0], |a, &b| f(a, b))
}

#[target_feature(enable = "avx512f")]
fn magnitude(x: &[f32]) -> u32 {
    let mask = _mm512_set1_epi32(i32::MAX);
    let mut most = [_mm512_setzero_si512(); SUMS];
    for_blocks(x, |x| {
        for (i, x) in load(x).into_iter().enumerate() {
            most[i % SUMS] = _mm512_max_epu32(
                _mm512_and_si512(_mm512_castps_si512(x), mask),
                most[i % SUMS],
            );
        }
    });
    _mm512_reduce_max_epu32(join(most, |a, b| _mm512_max_epu32(a, b)))
}

/// `Σ a[i] · b[i]` of equally long slices; `signed` says that A's bytes are i8.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn dot(a: &[u8], b: &[i8], signed: bool) -> i32 {
    debug_assert_eq!(a.len(), b.len());
    /// Vectors a step, and sums that are added up apart, to hide the latency.
    const LANES: usize = 4;
    let mut acc = [_mm512_setzero_si512(); LANES];
    let mut step = |lane: usize, a: __m256i, b: __m256i| {
        let a = if signed {
            _mm512_cvtepi8_epi16(a)
        } else {
            _mm512_cvtepu8_epi16(a)
        };
        let products = _mm512_madd_epi16(a, _mm512_cvtepi8_epi16(b));
        acc[lane] = _mm512_add_epi32(acc[lane], products);
    };
    let (a_steps, a_rest) = a.as_chunks::<{ 32 * LANES }>();
    let (b_steps, b_rest) = b.as_chunks::<{ 32 * LANES }>();
    for (a, b) in a_steps.iter().zip(b_steps) {
        for lane in 0..LANES {
            // SAFETY: vector `lane < LANES` of arrays of `32 · LANES` bytes.
            unsafe {
                let a = _mm256_loadu_si256(a.as_ptr().add(32 * lane).cast());
                let b = _mm256_loadu_si256(b.as_ptr().add(32 * lane).cast());
                step(lane, a, b);
            }
        }
    }
    for (a, b) in a_rest.chunks(32).zip(b_rest.chunks(32)) {
        let mask = u32::MAX >> (32 - a.len());
        // SAFETY: the mask keeps to the bytes of the chunks, of which both have equally many.
        unsafe {
            let a = _mm256_maskz_loadu_epi8(mask, a.as_ptr().cast());
            let b = _mm256_maskz_loadu_epi8(mask, b.as_ptr());
            step(0, a, b);
        }
    }
    let [a, b, c, d] = acc;
    _mm512_reduce_add_epi32(_mm512_add_epi32(
        _mm512_add_epi32(a, b),
        _mm512_add_epi32(c, d),
    ))
}

/// `Σ a[i]` modulo 2^32 (`vpsadbw` adds eight bytes at once); `signed` says that the bytes are i8.
#[target_feature(enable = "avx512f,avx512bw")]
fn sum(a: &[u8], signed: bool) -> i32 {
    let flip = if signed { 0x80 } else { 0 };
    let flips = _mm512_set1_epi8(if signed { i8::MIN } else { 0 });
    let mut acc = _mm512_setzero_si512();
    for a in a.chunks(64) {
        let mask = u64::MAX >> (64 - a.len());
        // SAFETY: the mask keeps to the bytes of the chunk.
        let a = unsafe { _mm512_maskz_loadu_epi8(mask, a.as_ptr().cast()) };
        // The bytes beyond the mask stay zero.
        let a = _mm512_xor_si512(a, _mm512_maskz_mov_epi8(mask, flips));
        acc = _mm512_add_epi64(acc, _mm512_sad_epu8(a, _mm512_setzero_si512()));
    }
    let total = _mm512_reduce_add_epi64(acc) - i64::from(flip) * a.len() as i64;
    // Modulo 2^32, as promised.
    total as i32
}
