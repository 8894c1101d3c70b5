//! Unsigned and two's-complement integers.

use core::fmt;

use super::mask;
use crate::FormatError;

/// An integer of 1 to 64 bits, unsigned or two's complement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntFormat {
    width: u32,
    signed: bool,
}

impl IntFormat {
    /// An integer layout.
    ///
    /// # Errors
    ///
    /// [`FormatError::Width`] unless `width` is 1 to 64.
    pub fn new(width: u32, signed: bool) -> Result<Self, FormatError> {
        if (1..=64).contains(&width) {
            Ok(IntFormat { width, signed })
        } else {
            Err(FormatError::Width {
                what: "integer width",
                given: width,
                min: 1,
                max: 64,
            })
        }
    }

    /// Width in bits.
    #[must_use]
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Whether the top bit weighs `−2^(width−1)`.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        self.signed
    }

    /// Lowest value.
    #[must_use]
    pub const fn min(&self) -> i128 {
        if self.signed {
            -(1 << (self.width - 1))
        } else {
            0
        }
    }

    /// Highest value.
    #[must_use]
    pub const fn max(&self) -> i128 {
        (1 << (self.width - self.signed as u32)) - 1
    }

    /// The bits of `value`, or `None` when it is out of range.
    ///
    /// ```
    /// use qformat::bits::IntFormat;
    /// let i8 = IntFormat::new(8, true)?;
    /// assert_eq!(i8.encode(-3), Some(0b1111_1101));
    /// assert_eq!(i8.encode(128), None);
    /// # Ok::<(), qformat::FormatError>(())
    /// ```
    #[must_use]
    pub const fn encode(&self, value: i128) -> Option<u64> {
        if self.min() <= value && value <= self.max() {
            // Truncation to the low bits is two's complement.
            Some(value as u64 & mask(self.width))
        } else {
            None
        }
    }

    /// The bits of the integer nearest to `value`, ties to even, saturated; NaN gives 0.
    #[must_use]
    pub fn encode_nearest(&self, value: f64) -> u64 {
        // Casts of floats saturate, and NaN becomes 0.
        let rounded = libm::rint(value) as i128;
        rounded.clamp(self.min(), self.max()) as u64 & mask(self.width)
    }

    /// The integer that the low `width` bits stand for; higher bits are ignored.
    #[must_use]
    pub const fn decode(&self, bits: u64) -> i128 {
        let bits = bits & mask(self.width);
        let sign = self.signed && bits >> (self.width - 1) == 1;
        bits as i128 - if sign { 1 << self.width } else { 0 }
    }
}

impl fmt::Display for IntFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.signed { 'i' } else { 'u' }, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_8_bit_pattern_is_rusts() {
        let (signed, unsigned) = (
            IntFormat::new(8, true).unwrap(),
            IntFormat::new(8, false).unwrap(),
        );
        for b in 0..=255u8 {
            assert_eq!(signed.decode(b.into()), i128::from(b as i8));
            assert_eq!(unsigned.decode(b.into()), i128::from(b));
            assert_eq!(signed.encode(i128::from(b as i8)), Some(b.into()));
            assert_eq!(unsigned.encode(b.into()), Some(b.into()));
        }
    }

    #[test]
    fn widest_and_narrowest_layouts_hold_their_ends() {
        let i64 = IntFormat::new(64, true).unwrap();
        assert_eq!(i64.decode(1 << 63), i128::from(i64::MIN));
        assert_eq!(i64.encode_nearest(f64::INFINITY), i64::MAX as u64);
        let u64 = IntFormat::new(64, false).unwrap();
        assert_eq!(u64.encode(i128::from(u64::MAX)), Some(u64::MAX));
        assert_eq!(u64.encode(-1), None);
        let i1 = IntFormat::new(1, true).unwrap();
        assert_eq!((i1.min(), i1.max(), i1.decode(1)), (-1, 0, -1));
        assert_eq!(i1.encode_nearest(f64::NAN), 0);
    }
}
