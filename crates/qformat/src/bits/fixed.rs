//! Fixed point `Qm.n`.

use core::fmt;

use super::IntFormat;
use crate::FormatError;

/// Fixed point `Qm.n`: a two's-complement integer of `1 + m + n` bits times `2^−n`.
///
/// The count of integer bits leaves out the sign (the convention of Texas Instruments'
/// `IQmath` documentation): `Q0.7` has 8 bits and spans [−1, 1 − 2^−7].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedFormat {
    integer_bits: u32,
    fraction_bits: u32,
    raw: IntFormat,
}

impl FixedFormat {
    /// A fixed-point layout.
    ///
    /// # Errors
    ///
    /// [`FormatError::Width`] when `1 + integer_bits + fraction_bits` exceeds 64.
    pub fn new(integer_bits: u32, fraction_bits: u32) -> Result<Self, FormatError> {
        let width = integer_bits.saturating_add(fraction_bits).saturating_add(1);
        let raw = IntFormat::new(width, true)?;
        Ok(FixedFormat {
            integer_bits,
            fraction_bits,
            raw,
        })
    }

    /// Width in bits, the sign included.
    #[must_use]
    pub const fn width(&self) -> u32 {
        self.raw.width()
    }

    /// Bits left of the binary point, the sign not counted.
    #[must_use]
    pub const fn integer_bits(&self) -> u32 {
        self.integer_bits
    }

    /// Bits right of the binary point.
    #[must_use]
    pub const fn fraction_bits(&self) -> u32 {
        self.fraction_bits
    }

    /// The two's-complement integer under the binary point.
    #[must_use]
    pub const fn raw(&self) -> IntFormat {
        self.raw
    }

    /// Distance of neighbouring values: `2^−n`.
    #[must_use]
    pub fn resolution(&self) -> f64 {
        libm::ldexp(1.0, -(self.fraction_bits as i32))
    }

    /// The bits of the value nearest to `value`: `saturate(rne(value · 2^n))`; NaN gives 0.
    ///
    /// ```
    /// use qformat::bits::FixedFormat;
    /// let q = FixedFormat::new(4, 3)?;
    /// assert_eq!(q.encode(2.75), 0b0_0010_110);
    /// assert_eq!(q.decode(q.encode(100.0)), 15.875); // saturated
    /// # Ok::<(), qformat::FormatError>(())
    /// ```
    #[must_use]
    pub fn encode(&self, value: f64) -> u64 {
        // Scaling by a power of two is exact (or overflows to ∞, which saturates).
        self.raw
            .encode_nearest(libm::ldexp(value, self.fraction_bits as i32))
    }

    /// The number that the bits stand for; beyond 53 significant bits rounded to the nearest f64.
    #[must_use]
    pub fn decode(&self, bits: u64) -> f64 {
        self.raw.decode(bits) as f64 * self.resolution()
    }
}

impl fmt::Display for FixedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "q{}.{}", self.integer_bits, self.fraction_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_8_bit_pattern_round_trips_in_every_split() {
        for n in 0..=7 {
            let q = FixedFormat::new(7 - n, n).unwrap();
            for b in 0..=255u64 {
                assert_eq!(q.encode(q.decode(b)), b, "{q} {b:08b}");
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_ends_saturate() {
        let q = FixedFormat::new(3, 4).unwrap();
        let half = q.resolution() / 2.0;
        assert_eq!(q.encode(half), 0);
        assert_eq!(q.encode(3.0 * half), 2);
        assert_eq!(q.decode(q.encode(f64::NEG_INFINITY)), -8.0);
        assert_eq!(q.decode(q.encode(f64::MAX)), 8.0 - 0.0625);
        assert_eq!(q.encode(f64::NAN), 0);
        assert!(FixedFormat::new(40, 24).is_err());
        assert_eq!(FixedFormat::new(0, 63).unwrap().encode(-1.0), 1 << 63);
    }
}
