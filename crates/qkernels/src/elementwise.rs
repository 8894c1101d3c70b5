//! What elementwise operations ask of a tier, and the loop that they share.
//!
//! A set of instructions implements [`Elementwise`] once; tiers that have these instructions share
//! it. Everything here runs inside a tier's door.

use qformat::QuantElement;

use crate::arch::prefetch;
use crate::dot::DOT_LANES;
use crate::isa::Tier;
use crate::portable;
use crate::quantize::{Divisor, Target};
use crate::{Lhs, Operand};

/// Elementwise operations and reductions. Each has a plain form that every tier can run; a set of
/// instructions overrides it where the compiler does not find them by itself. The results are the
/// same bits. Slices of one call have equal lengths; element types have 8 or 16 bits.
pub(crate) trait Elementwise: Copy {
    /// The lowest tier that has these.
    type Home: Tier;

    /// `Σ a[i] · b[i]` modulo 2^32.
    #[inline(always)]
    fn dot<A: Lhs>(self, a: &[A], b: &[i8]) -> i32 {
        portable::dot(a, b)
    }

    /// `Σ a[i]` modulo 2^32.
    #[inline(always)]
    fn sum<A: Lhs>(self, a: &[A]) -> i32 {
        a.iter().fold(0i32, |sum, &a| sum.wrapping_add(a.to_i32()))
    }

    /// Sums of products of floats, element `i` added to lane `i mod 64` by a fused step.
    #[inline(always)]
    fn dot_lanes<F: Operand>(self, a: &[F], b: &[F]) -> [f32; DOT_LANES] {
        portable::dot_lanes(a, b, portable::fused)
    }

    /// `out = saturate(rne(x / S) + Z)`.
    #[inline(always)]
    fn quantize<E: QuantElement>(self, x: &[f32], by: &Divisor, to: &Target, out: &mut [E]) {
        portable::quantize(x, by, to, out);
    }

    /// `out = S · (q − Z)`.
    #[inline(always)]
    fn dequantize<E: QuantElement>(self, q: &[E], scale: f32, zero_point: i32, out: &mut [f32]) {
        portable::dequantize(q, scale, zero_point, out);
    }

    /// `out = saturate(rne(f32(acc) · multiplier) + Z)`.
    #[inline(always)]
    fn requantize<E: QuantElement>(self, acc: &[i32], multiplier: f32, to: &Target, out: &mut [E]) {
        portable::requantize(acc, multiplier, to, out);
    }

    /// Rounds f32 to the bits of f16.
    #[inline(always)]
    fn f32_to_f16(self, x: &[f32], out: &mut [u16]) {
        portable::f32_to_f16(x, out);
    }

    /// Widens the bits of f16 to f32.
    #[inline(always)]
    fn f16_to_f32(self, x: &[u16], out: &mut [f32]) {
        portable::f16_to_f32(x, out);
    }

    /// Rounds f32 to the bits of bf16.
    #[inline(always)]
    fn f32_to_bf16(self, x: &[f32], out: &mut [u16]) {
        portable::f32_to_bf16(x, out);
    }

    /// Widens the bits of bf16 to f32.
    #[inline(always)]
    fn bf16_to_f32(self, x: &[u16], out: &mut [f32]) {
        portable::bf16_to_f32(x, out);
    }

    /// Lowest and highest value (which zero, is open), or `None` when an element may not be
    /// finite: always when one is not. Of an empty slice `(∞, −∞)`.
    #[inline(always)]
    fn finite_range(self, x: &[f32]) -> Option<(f32, f32)> {
        portable::finite_range(x)
    }

    /// The largest magnitude in its bits, NaN above ∞ above all else; 0 of an empty slice.
    #[inline(always)]
    fn magnitude(self, x: &[f32]) -> u32 {
        portable::magnitude(x)
    }
}

/// The lowest value of an integer type.
#[allow(dead_code, reason = "only the vector tiers ask")]
pub(crate) const fn lowest<E: QuantElement>() -> Option<i32> {
    match E::DTYPE.int_range() {
        Some((min, _)) => Some(min),
        None => None,
    }
}

/// Where blocks of `N` of `n ≥ N` elements start, so that every element is in one. A few elements
/// are in two: behind the first block of a long slice so many are skipped that the rest is aligned,
/// and the last block ends where the slice ends. For work that gives the same when it is done
/// again.
struct Starts<const N: usize> {
    next: usize,
    last: usize,
    /// Length of the first step.
    step: usize,
}

impl<const N: usize> Starts<N> {
    /// Below so many blocks aligning costs more than it saves.
    const LONG: usize = 4;

    /// `misaligned` elements are missing to the next multiple of 64 bytes, or 0.
    #[inline(always)]
    fn new(n: usize, misaligned: usize) -> Self {
        let align = n >= Self::LONG * N && misaligned > 0 && misaligned < N;
        Starts {
            next: 0,
            last: n - N,
            step: if align { misaligned } else { N },
        }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let at = self.next;
        if at > self.last {
            return None;
        }
        self.next = if at == self.last {
            usize::MAX
        } else {
            (at + self.step).min(self.last)
        };
        self.step = N;
        Some(at)
    }
}

/// Elements to the next multiple of 64 bytes: the widest vector and the cache line.
#[inline(always)]
fn misaligned<T>(x: &[T]) -> usize {
    (x.as_ptr().addr().wrapping_neg() % 64) / size_of::<T>().max(1)
}

/// Outputs of at least so many bytes go past the caches: those of a core hold less, so that nobody
/// finds such an output there, and a store that first reads the line costs as much again. Measured
/// on Zen 4 at 256 MiB: dequantizing and narrowing are 1.6 times faster.
#[allow(dead_code, reason = "only the vector tiers stream")]
pub(crate) const STREAM_FROM: usize = 32 << 20;

/// Calls `step` with blocks of `N` elements and their places in `out`, over the shorter length:
/// every element at least once, and the wider side aligned where that pays. Fewer than `N` elements
/// are padded with defaults.
#[inline(always)]
#[allow(dead_code, reason = "only the vector tiers work in blocks")]
pub(crate) fn map_blocks<const N: usize, A, B>(
    x: &[A],
    out: &mut [B],
    step: impl FnMut(&[A; N], &mut [B; N]),
) where
    A: Copy + Default,
    B: Copy + Default,
{
    map_or_stream(x, out, usize::MAX, step, |_, _| {});
}

/// How far ahead of a block memory is asked for the input, in bytes.
const AHEAD: usize = 4096;

/// A block at the start of a cache line.
#[repr(align(64))]
struct Line<T>(T);

/// As [`map_blocks`]; an output of at least `from` bytes is written by `stream` instead, which
/// copies a block from a buffer to its place, both aligned to 64 bytes. Says whether it was called.
#[inline(always)]
pub(crate) fn map_or_stream<const N: usize, A, B>(
    x: &[A],
    out: &mut [B],
    from: usize,
    mut step: impl FnMut(&[A; N], &mut [B; N]),
    stream: impl Fn(&[B; N], &mut [B; N]),
) -> bool
where
    A: Copy + Default,
    B: Copy + Default,
{
    let n = x.len().min(out.len());
    // A short block and its result, and a block on its way past the caches.
    let (mut padded, mut result) = ([A::default(); N], [B::default(); N]);
    let mut buffer = Line([B::default(); N]);
    let short = n < N;
    let (xs, outs) = if short {
        padded[..n].copy_from_slice(&x[..n]);
        (&padded[..], &mut result[..])
    } else {
        (&x[..n], &mut out[..n])
    };
    let streams = !short && size_of_val(outs) >= from;
    let far = size_of_val(xs) >= from;
    let skip = if streams || size_of::<A>() < size_of::<B>() {
        misaligned(outs)
    } else {
        misaligned(xs)
    };
    let mut starts = Starts::<N>::new(xs.len(), skip);
    // `step` is large and must be inlined: it is called in this one place.
    while let Some(at) = starts.next() {
        let (Some(x), Some(out)) = (xs[at..].first_chunk(), outs[at..].first_chunk_mut()) else {
            break;
        };
        if far {
            prefetch(x.as_ptr().wrapping_byte_add(AHEAD), size_of_val(x));
        }
        // The first and the last block may not be aligned.
        let buffered = streams && misaligned(out) == 0;
        step(x, if buffered { &mut buffer.0 } else { &mut *out });
        if buffered {
            stream(&buffer.0, out);
        }
    }
    if short {
        out[..n].copy_from_slice(&result[..n]);
    }
    streams
}

/// Bytes from which on both halves are read in turns: memory answers two streams sooner than one
/// (on Zen 4 by a tenth, from 256 MiB). Less is in a second-level cache.
const TWO_STREAMS: usize = 2 << 20;

/// Calls `step` with blocks of `N` elements, in any order, every element at least once. Fewer than
/// `N` elements are padded with the first one; of none there is no block.
#[inline(always)]
#[allow(dead_code, reason = "only the vector tiers work in blocks")]
pub(crate) fn for_blocks<const N: usize, A: Copy>(x: &[A], mut step: impl FnMut(&[A; N])) {
    let Some(&first) = x.first() else {
        return;
    };
    let mut padded = [first; N];
    let xs = if x.len() < N {
        padded[..x.len()].copy_from_slice(x);
        &padded[..]
    } else {
        x
    };
    let half = if size_of_val(xs) < TWO_STREAMS {
        0
    } else {
        xs.len() / 2 / N * N
    };
    let (first, second) = xs.split_at(half);
    let mut starts = Starts::<N>::new(second.len(), misaligned(second));
    // Both are as far from a cache line; the second is no shorter.
    let mut at_first = 0;
    while let Some(at) = starts.next() {
        if let Some(x) = second[at..].first_chunk::<N>() {
            step(x);
        }
        if let Some(x) = first.get(at_first..).and_then(|x| x.first_chunk::<N>()) {
            step(x);
            at_first += N;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// Lengths below, at and above one block and the length from which slices are aligned.
    #[test]
    fn blocks_cover_every_element_and_nothing_else() {
        for n in 0..300usize {
            for offset in 0..20 {
                let x: Vec<u32> = (0..(offset + n) as u32).collect();
                let mut out = vec![u16::MAX; n + 7];
                map_blocks::<16, u32, u16>(&x[offset..], &mut out, |x, out| {
                    for (o, &x) in out.iter_mut().zip(x) {
                        *o = x as u16;
                    }
                });
                for (i, &o) in out.iter().enumerate() {
                    let expected = if i < n { (offset + i) as u16 } else { u16::MAX };
                    assert_eq!(o, expected, "{n} {offset} {i}");
                }
                let mut streamed = vec![u16::MAX; n + 7];
                let streams = map_or_stream::<32, u32, u16>(
                    &x[offset..],
                    &mut streamed,
                    256,
                    |x, out| {
                        for (o, &x) in out.iter_mut().zip(x) {
                            *o = x as u16;
                        }
                    },
                    |from, to| {
                        assert_eq!(from.as_ptr().addr() % 64, 0);
                        assert_eq!(to.as_ptr().addr() % 64, 0);
                        to.copy_from_slice(from);
                    },
                );
                assert_eq!(streams, n >= 128);
                assert_eq!(streamed, out, "{n} {offset}");
                let mut seen = vec![false; offset + n];
                for_blocks::<16, u32>(&x[offset..], |x| {
                    x.iter().for_each(|&i| seen[i as usize] = true);
                });
                assert!(
                    seen.iter()
                        .enumerate()
                        .all(|(i, &seen)| seen == (i >= offset))
                );
            }
        }
    }

    #[test]
    fn two_streams_cover_every_element() {
        let long = TWO_STREAMS / size_of::<u32>();
        let x: Vec<u32> = (0..long as u32 + 200).collect();
        for (offset, n) in [
            (0, long - 1),
            (0, long),
            (3, long),
            (7, long + 17),
            (16, long + 130),
        ] {
            let mut seen = vec![false; x.len()];
            for_blocks::<128, u32>(&x[offset..offset + n], |x| {
                x.iter().for_each(|&i| seen[i as usize] = true);
            });
            let inside = offset..offset + n;
            assert!(
                seen.iter()
                    .enumerate()
                    .all(|(i, &seen)| seen == inside.contains(&i))
            );
        }
    }
}
