//! Depthwise convolutions in vectors, whatever their width.
//!
//! Rows are interleaved by `vpunpck`, which works in lanes of 128 bits; `vpack` of the finished
//! bytes undoes its order, so bytes need no other shuffle. Exact: `vpdpbusd` and, on words of two
//! 16-bit values, `vpmaddwd` (at most 2 · 255 · 128) do not saturate.

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
        pub(in crate::arch::x86_64) unsafe fn $name<const BYTES: bool>(
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
pub(super) use interleave;
