//! Elementwise operations with AVX2, FMA and F16C.
//!
//! A block is eight vectors of floats, two of bytes. Integers are narrowed by the saturating packs,
//! which work in lanes of 128 bits, so that one `vpermd` (bytes) or `vpermq` (16 bits) puts the
//! result in order. Eight vectors at once are 5 % faster than four on Zen 4: their chains hide each
//! other's latency.

use core::arch::x86_64::*;

use qformat::QuantElement;

use crate::arch::x86_64::avx2::Avx2;
use crate::dot::DOT_LANES;
use crate::elementwise::{STREAM_FROM, for_blocks, lowest, map_or_stream};
use crate::portable;
use crate::quantize::{Divisor, Method, Target};
use crate::{Lhs, Operand};

/// The proof that AVX2, FMA and F16C run.
#[derive(Clone, Copy)]
pub(crate) struct Elementwise(());

impl Elementwise {
    /// # Safety
    ///
    /// AVX2, FMA and F16C run.
    #[inline(always)]
    pub(crate) const unsafe fn new() -> Elementwise {
        Elementwise(())
    }
}

impl crate::elementwise::Elementwise for Elementwise {
    type Home = Avx2;

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
const BLOCK: usize = 64;

/// Vectors of a block.
type Vectors<V> = [V; VECTORS];

/// How many: their chains of dependent instructions hide each other's latency.
const VECTORS: usize = 8;

/// Calls `step` with every block of `x` and its place in `out`.
#[inline]
#[target_feature(enable = "avx2")]
fn map<A, B>(x: &[A], out: &mut [B], step: impl FnMut(&[A; BLOCK], &mut [B; BLOCK]))
where
    A: Copy + Default,
    B: Copy + Default,
{
    /// Bytes of a vector.
    const WIDTH: usize = 32;
    let streamed = map_or_stream(x, out, STREAM_FROM, step, |from, to| {
        let (from, to) = (from.as_ptr().cast::<u8>(), to.as_mut_ptr().cast::<u8>());
        for i in 0..BLOCK * size_of::<B>() / WIDTH {
            // SAFETY: vector `i` of blocks of `B`, both aligned to 64 bytes.
            unsafe {
                let v = _mm256_load_si256(from.add(WIDTH * i).cast());
                _mm256_stream_si256(to.add(WIDTH * i).cast(), v);
            }
        }
    });
    if streamed {
        // Streaming stores are not ordered with others.
        _mm_sfence();
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(x: &[f32; BLOCK]) -> Vectors<__m256> {
    // SAFETY: vector `i` of a block.
    core::array::from_fn(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) })
}

/// `saturate(n + Z)` of a block of integers; lanes of the lowest i32 give the lowest value.
#[inline]
#[target_feature(enable = "avx2")]
fn store<E: QuantElement, const ADD: bool, const FLOOR: bool>(
    n: Vectors<__m256i>,
    to: &Target,
    out: &mut [E; BLOCK],
) {
    let out = out.as_mut_ptr();
    let signed = const { E::DTYPE.is_signed() };
    if const { size_of::<E>() == 1 } {
        for (i, n) in n.as_chunks::<4>().0.iter().enumerate() {
            let mut low = _mm256_packs_epi32(n[0], n[1]);
            let mut high = _mm256_packs_epi32(n[2], n[3]);
            if ADD {
                // |Z| ≤ 255: what saturates 16 bits is far outside bytes, before and after Z.
                let z = _mm256_set1_epi16(to.zero_point() as i16);
                (low, high) = (_mm256_adds_epi16(low, z), _mm256_adds_epi16(high, z));
            }
            let mut bytes = if signed {
                _mm256_packs_epi16(low, high)
            } else {
                _mm256_packus_epi16(low, high)
            };
            if FLOOR {
                let min = _mm256_set1_epi8(to.min() as i8);
                bytes = if signed {
                    _mm256_max_epi8(bytes, min)
                } else {
                    _mm256_max_epu8(bytes, min)
                };
            }
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let bytes = _mm256_permutevar8x32_epi32(bytes, order);
            // SAFETY: vector `i` of a quarter as many bytes as floats.
            unsafe { _mm256_storeu_si256(out.add(32 * i).cast(), bytes) };
        }
    } else {
        assert!(const { size_of::<E>() == 2 });
        // A signed result is made as an unsigned one and shifted: with a zero point that is not
        // negative the lowest i32 cannot wrap.
        let flip = if signed { i16::MIN } else { 0 };
        let z = _mm256_set1_epi32(to.zero_point() - i32::from(flip));
        for (i, &[a, b]) in n.as_chunks::<2>().0.iter().enumerate() {
            let mut words = if ADD {
                let words = _mm256_packus_epi32(_mm256_add_epi32(a, z), _mm256_add_epi32(b, z));
                _mm256_xor_si256(words, _mm256_set1_epi16(flip))
            } else if signed {
                _mm256_packs_epi32(a, b)
            } else {
                _mm256_packus_epi32(a, b)
            };
            if FLOOR {
                let min = _mm256_set1_epi16(to.min() as i16);
                words = if signed {
                    _mm256_max_epi16(words, min)
                } else {
                    _mm256_max_epu16(words, min)
                };
            }
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            // SAFETY: vector `i` of half as many bytes as floats.
            unsafe { _mm256_storeu_si256(out.add(16 * i).cast(), words) };
        }
    }
}

/// Rounds a block of `x` by `round` and stores it, with no more steps than the target needs.
#[inline]
#[target_feature(enable = "avx2")]
fn map_rounded<A: Copy + Default, E: QuantElement>(
    x: &[A],
    to: &Target,
    out: &mut [E],
    round: impl Fn(&[A; BLOCK]) -> Vectors<__m256i>,
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
#[target_feature(enable = "avx2")]
fn map_rarely<A: Copy + Default, E: QuantElement>(
    x: &[A],
    to: &Target,
    out: &mut [E],
    round: impl Fn(&[A; BLOCK]) -> Vectors<__m256i>,
) {
    map(x, out, |x, out| store::<E, true, true>(round(x), to, out));
}

#[target_feature(enable = "avx2,fma")]
fn quantize<E: QuantElement>(x: &[f32], by: &Divisor, to: &Target, out: &mut [E]) {
    let scale = _mm256_set1_ps(by.scale());
    let (high, low) = (
        _mm256_set1_ps(by.inverse().0),
        _mm256_set1_ps(by.inverse().1),
    );
    // In this order of arguments NaN stays.
    let top = _mm256_set1_ps(to.top() * by.scale());
    let product = |x| {
        let x = _mm256_min_ps(top, x);
        (x, _mm256_fmadd_ps(x, high, _mm256_mul_ps(x, low)))
    };
    match by.method() {
        Method::Product => map_rounded(x, to, out, |x| {
            load(x).map(|x| _mm256_cvtps_epi32(product(x).1))
        }),
        Method::Corrected => map_rarely(x, to, out, |x| {
            load(x).map(|x| {
                let (x, t) = product(x);
                let rest = _mm256_fnmadd_ps(t, scale, x);
                _mm256_cvtps_epi32(_mm256_fmadd_ps(rest, high, t))
            })
        }),
        Method::Division => {
            let top = _mm256_set1_ps(to.top());
            map_rarely(x, to, out, |x| {
                load(x).map(|x| _mm256_cvtps_epi32(_mm256_min_ps(top, _mm256_div_ps(x, scale))))
            });
        }
    }
}

#[target_feature(enable = "avx2")]
fn requantize<E: QuantElement>(acc: &[i32], multiplier: f32, to: &Target, out: &mut [E]) {
    let by = _mm256_set1_ps(multiplier);
    let scaled = |acc: &[i32; BLOCK]| -> Vectors<__m256> {
        core::array::from_fn(|i| {
            // SAFETY: vector `i` of a block.
            let acc = unsafe { _mm256_loadu_si256(acc.as_ptr().add(8 * i).cast()) };
            _mm256_mul_ps(_mm256_cvtepi32_ps(acc), by)
        })
    };
    if multiplier.abs() <= 0.5 {
        // At most 2^30: it does not become the lowest i32, and adding Z does not wrap.
        map_rounded(acc, to, out, |acc| {
            scaled(acc).map(|v| _mm256_cvtps_epi32(v))
        });
    } else {
        // In this order of arguments NaN stays (and becomes the lowest i32).
        let top = _mm256_set1_ps(to.top());
        map_rarely(acc, to, out, |acc| {
            scaled(acc).map(|v| _mm256_cvtps_epi32(_mm256_min_ps(top, v)))
        });
    }
}

#[target_feature(enable = "avx2")]
fn dequantize<E: QuantElement>(q: &[E], scale: f32, zero_point: i32, out: &mut [f32]) {
    let scale = _mm256_set1_ps(scale);
    let z = _mm256_set1_epi32(zero_point);
    map(q, out, |q: &[E; BLOCK], out: &mut [f32; BLOCK]| {
        for i in 0..VECTORS {
            // SAFETY: 8 elements, of one or two bytes, in 8 elements of blocks, from `8 · i`.
            unsafe {
                let q = q.as_ptr().add(8 * i);
                let n = match const { (size_of::<E>(), E::DTYPE.is_signed()) } {
                    (1, true) => _mm256_cvtepi8_epi32(_mm_loadl_epi64(q.cast())),
                    (1, false) => _mm256_cvtepu8_epi32(_mm_loadl_epi64(q.cast())),
                    (2, true) => _mm256_cvtepi16_epi32(_mm_loadu_si128(q.cast())),
                    (2, false) => _mm256_cvtepu16_epi32(_mm_loadu_si128(q.cast())),
                    _ => unreachable!("elements have 8 or 16 bits"),
                };
                let v = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(n, z)), scale);
                _mm256_storeu_ps(out.as_mut_ptr().add(8 * i), v);
            }
        }
    });
}

/// `vcvtps2ph` keeps subnormals whatever the mode.
#[target_feature(enable = "avx2,f16c")]
fn f32_to_f16(x: &[f32], out: &mut [u16]) {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
    map(x, out, |x, out: &mut [u16; BLOCK]| {
        for (i, &[a, b]) in load(x).as_chunks::<2>().0.iter().enumerate() {
            let (a, b) = (_mm256_cvtps_ph::<NEAREST>(a), _mm256_cvtps_ph::<NEAREST>(b));
            let words = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
            // SAFETY: vector `i` of half as many bytes as floats.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(16 * i).cast(), words) };
        }
    });
}

#[target_feature(enable = "avx2,f16c")]
fn f16_to_f32(x: &[u16], out: &mut [f32]) {
    map(x, out, |x: &[u16; BLOCK], out: &mut [f32; BLOCK]| {
        for i in 0..VECTORS {
            // SAFETY: 8 elements of blocks, from `8 · i`.
            unsafe {
                let half = _mm_loadu_si128(x.as_ptr().add(8 * i).cast());
                _mm256_storeu_ps(out.as_mut_ptr().add(8 * i), _mm256_cvtph_ps(half));
            }
        }
    });
}

/// The upper halves, after adding what rounds to nearest even. A block with a NaN, which this
/// would carry into ∞ or zero, takes the plain form.
#[target_feature(enable = "avx2")]
fn f32_to_bf16(x: &[f32], out: &mut [u16]) {
    let down = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fff));
    let up = _mm256_castsi256_ps(_mm256_set1_epi32(0x8000));
    let round = |x| {
        let bits = _mm256_castps_si256(x);
        // The lowest bit that stays, as a sign, by which `vblendvps` selects.
        let odd = _mm256_castsi256_ps(_mm256_slli_epi32::<15>(bits));
        let add = _mm256_castps_si256(_mm256_blendv_ps(down, up, odd));
        _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, add))
    };
    map(x, out, |x, out: &mut [u16; BLOCK]| {
        let v = load(x);
        let pairs = v.as_chunks::<2>().0;
        let nan = pairs.iter().fold(_mm256_setzero_ps(), |nan, &[a, b]| {
            _mm256_or_ps(nan, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b))
        });
        if _mm256_movemask_ps(nan) != 0 {
            return portable::f32_to_bf16(x, out);
        }
        for (i, &[a, b]) in pairs.iter().enumerate() {
            let words = _mm256_packus_epi32(round(a), round(b));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            // SAFETY: vector `i` of half as many bytes as floats.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(16 * i).cast(), words) };
        }
    });
}

/// Behind zeros the words are floats: `vpunpck` with zero widens and shifts at once.
#[target_feature(enable = "avx2")]
fn bf16_to_f32(x: &[u16], out: &mut [f32]) {
    let magnitude = _mm256_set1_epi16(0x7fff);
    let infinity = _mm256_set1_epi16(0x7f80);
    let quiet = _mm256_set1_epi16(0x40);
    let zero = _mm256_setzero_si256();
    map(x, out, |x: &[u16; BLOCK], out: &mut [f32; BLOCK]| {
        for i in 0..VECTORS / 2 {
            // SAFETY: 16 elements of blocks, from `16 · i`.
            unsafe {
                let x = _mm256_loadu_si256(x.as_ptr().add(16 * i).cast());
                let nan = _mm256_cmpgt_epi16(_mm256_and_si256(x, magnitude), infinity);
                let x = _mm256_or_si256(x, _mm256_and_si256(nan, quiet));
                // Lanes of 128 bits: the first is to hold words 0 to 3 and 8 to 11.
                let x = _mm256_permute4x64_epi64::<0b11_01_10_00>(x);
                let out = out.as_mut_ptr().add(16 * i);
                _mm256_storeu_si256(out.cast(), _mm256_unpacklo_epi16(zero, x));
                _mm256_storeu_si256(out.add(8).cast(), _mm256_unpackhi_epi16(zero, x));
            }
        }
    });
}

/// Accumulators of a reduction.
const SUMS: usize = 4;

/// Lowest and highest value; ∞ and NaN times zero are NaN and stay in a sum.
#[target_feature(enable = "avx2,fma")]
fn finite_range(x: &[f32]) -> Option<(f32, f32)> {
    let mut lo = [_mm256_set1_ps(f32::INFINITY); SUMS];
    let mut hi = [_mm256_set1_ps(f32::NEG_INFINITY); SUMS];
    let zero = _mm256_setzero_ps();
    let mut not_finite = [_mm256_setzero_ps(); SUMS];
    for_blocks(x, |x| {
        for (i, v) in load(x).into_iter().enumerate() {
            lo[i % SUMS] = _mm256_min_ps(v, lo[i % SUMS]);
            hi[i % SUMS] = _mm256_max_ps(v, hi[i % SUMS]);
            not_finite[i % SUMS] = _mm256_fmadd_ps(v, zero, not_finite[i % SUMS]);
        }
    });
    let not_finite = join(not_finite, |a, b| _mm256_add_ps(a, b));
    let unordered = _mm256_cmp_ps::<_CMP_UNORD_Q>(not_finite, not_finite);
    if _mm256_movemask_ps(unordered) != 0 {
        return None;
    }
    let lanes = |v: __m256| -> [f32; 8] {
        let mut lanes = [0f32; 8];
        // SAFETY: an array of eight.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), v) };
        lanes
    };
    let lo = lanes(join(lo, |a, b| _mm256_min_ps(a, b)));
    let hi = lanes(join(hi, |a, b| _mm256_max_ps(a, b)));
    Some((
        lo.into_iter().fold(f32::INFINITY, f32::min),
        hi.into_iter().fold(f32::NEG_INFINITY, f32::max),
    ))
}

/// Joins vectors lane by lane: a loop over all lanes waits for each.
#[inline(always)]
fn join<V: Copy>(v: [V; SUMS], f: impl Fn(V, V) -> V) -> V {
    v[1..].iter().fold(v[0], |a, &b| f(a, b))
}

#[target_feature(enable = "avx2")]
fn magnitude(x: &[f32]) -> u32 {
    let mask = _mm256_set1_epi32(i32::MAX);
    let mut most = [_mm256_setzero_si256(); SUMS];
    for_blocks(x, |x| {
        for (i, x) in load(x).into_iter().enumerate() {
            most[i % SUMS] = _mm256_max_epu32(
                _mm256_and_si256(_mm256_castps_si256(x), mask),
                most[i % SUMS],
            );
        }
    });
    let mut lanes = [0u32; 8];
    let most = join(most, |a, b| _mm256_max_epu32(a, b));
    // SAFETY: an array of eight.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), most) };
    lanes.into_iter().fold(0, u32::max)
}

/// `Σ a[i] · b[i]` of equally long slices; `signed` says that A's bytes are i8.
#[target_feature(enable = "avx2")]
fn dot(a: &[u8], b: &[i8], signed: bool) -> i32 {
    debug_assert_eq!(a.len(), b.len());
    /// Vectors a step, and sums that are added up apart, to hide the latency.
    const LANES: usize = 4;
    let mut acc = [_mm256_setzero_si256(); LANES];
    let (a_steps, a_rest) = a.as_chunks::<{ 16 * LANES }>();
    let (b_steps, b_rest) = b.as_chunks::<{ 16 * LANES }>();
    for (a, b) in a_steps.iter().zip(b_steps) {
        for (lane, acc) in acc.iter_mut().enumerate() {
            // SAFETY: vector `lane < LANES` of arrays of `16 · LANES` bytes.
            let (a, b) = unsafe {
                let a = _mm_loadu_si128(a.as_ptr().add(16 * lane).cast());
                (a, _mm_loadu_si128(b.as_ptr().add(16 * lane).cast()))
            };
            let a = if signed {
                _mm256_cvtepi8_epi16(a)
            } else {
                _mm256_cvtepu8_epi16(a)
            };
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(a, _mm256_cvtepi8_epi16(b)));
        }
    }
    let sum = _mm256_add_epi32(
        _mm256_add_epi32(acc[0], acc[1]),
        _mm256_add_epi32(acc[2], acc[3]),
    );
    let mut lanes = [0i32; 8];
    // SAFETY: an array of eight i32.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
    let rest = if signed {
        crate::portable::dot::<i8>(bytemuck::cast_slice(a_rest), b_rest)
    } else {
        crate::portable::dot(a_rest, b_rest)
    };
    lanes.iter().fold(rest, |sum, &v| sum.wrapping_add(v))
}

/// `Σ a[i]` (`vpsadbw` adds eight bytes at once); `signed` says that the bytes are i8.
#[target_feature(enable = "avx2")]
fn sum(a: &[u8], signed: bool) -> i32 {
    let flip = if signed { 0x80 } else { 0 };
    let flips = _mm256_set1_epi8(if signed { i8::MIN } else { 0 });
    let mut acc = _mm256_setzero_si256();
    let (steps, rest) = a.as_chunks::<32>();
    for a in steps {
        // SAFETY: an array of 32 bytes.
        let a = unsafe { _mm256_loadu_si256(a.as_ptr().cast()) };
        let a = _mm256_xor_si256(a, flips);
        acc = _mm256_add_epi64(acc, _mm256_sad_epu8(a, _mm256_setzero_si256()));
    }
    let mut lanes = [0i64; 4];
    // SAFETY: an array of four i64.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), acc) };
    let rest: i64 = rest.iter().map(|&a| i64::from(a ^ flip)).sum();
    let total = lanes.iter().sum::<i64>() + rest - i64::from(flip) * a.len() as i64;
    // Modulo 2^32, as promised.
    total as i32
}
