//! The bits of integers, fixed point and floats, decoded, encoded and drawn.
//!
//! Three layouts, each a small value that describes itself:
//!
//! * [`IntFormat`]: unsigned and two's-complement integers of 1 to 64 bits. The top bit of a
//!   signed one weighs `−2^(n−1)`, all others `+2^i`.
//! * [`FixedFormat`]: fixed point `Qm.n`, a two's-complement integer with an implied factor
//!   `2^−n`; `m` integer bits (the sign not among them) and `n` fraction bits make `1 + m + n`.
//! * [`FloatFormat`]: sign, exponent and mantissa fields as IEEE 754-2019 §3.4 lays them out:
//!   `(−1)^s · 2^(e−bias) · 1.m`, subnormals `(−1)^s · 2^(1−bias) · 0.m`, and the all-ones
//!   exponent for ∞ and NaN. [`F16`], [`BF16`], [`F32`] and [`F64`] are of this form.
//!
//! ```
//! use qformat::bits::{BF16, FloatClass};
//!
//! let bits = BF16.encode(3.14);
//! let fields = BF16.fields(bits);
//! assert_eq!((fields.sign, fields.exponent, fields.mantissa), (0, 128, 0b1001001));
//! assert_eq!(fields.class, FloatClass::Normal);
//! assert_eq!(BF16.decode(bits), 3.140625);
//! println!("{}", BF16.picture(bits));
//! ```

mod fixed;
mod float;
mod int;
mod picture;

pub use fixed::FixedFormat;
pub use float::{BF16, F16, F32, F64, FloatClass, FloatFields, FloatFormat};
pub use int::IntFormat;

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use crate::FormatError;

/// Any of the layouts, as `quaver inspect bits VALUE --as NAME` names them: `i8`, `u16`, `q4.3`,
/// `bf16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitFormat {
    /// An integer.
    Int(IntFormat),
    /// A fixed-point number.
    Fixed(FixedFormat),
    /// A floating-point number.
    Float(FloatFormat),
}

impl BitFormat {
    /// The bits of the representable number nearest to `value` (ties to even; integers and fixed
    /// point saturate and turn NaN into 0; floats overflow to ∞).
    #[must_use]
    pub fn encode(&self, value: f64) -> u64 {
        match self {
            BitFormat::Int(f) => f.encode_nearest(value),
            BitFormat::Fixed(f) => f.encode(value),
            BitFormat::Float(f) => f.encode(value),
        }
    }

    /// The number that `bits` stand for. Integers beyond 2^53 round to the nearest f64.
    #[must_use]
    pub fn decode(&self, bits: u64) -> f64 {
        match self {
            BitFormat::Int(f) => f.decode(bits) as f64,
            BitFormat::Fixed(f) => f.decode(bits),
            BitFormat::Float(f) => f.decode(bits),
        }
    }

    /// Width in bits.
    #[must_use]
    pub fn width(&self) -> u32 {
        match self {
            BitFormat::Int(f) => f.width(),
            BitFormat::Fixed(f) => f.width(),
            BitFormat::Float(f) => f.width(),
        }
    }

    /// A text picture of the fields of `bits` and what they mean.
    #[must_use]
    pub fn picture(&self, bits: u64) -> String {
        match self {
            BitFormat::Int(f) => f.picture(bits),
            BitFormat::Fixed(f) => f.picture(bits),
            BitFormat::Float(f) => f.picture(bits),
        }
    }
}

impl fmt::Display for BitFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BitFormat::Int(i) => i.fmt(f),
            BitFormat::Fixed(q) => q.fmt(f),
            BitFormat::Float(x) => f.pad(x.name()),
        }
    }
}

impl FromStr for BitFormat {
    type Err = FormatError;

    fn from_str(s: &str) -> Result<Self, FormatError> {
        let unknown = || FormatError::Name {
            what: "bit format",
            given: s.to_string(),
            allowed: "i1..i64, u1..u64, qM.N (q4.3: 4 integer and 3 fraction bits), f16, bf16, f32, f64",
        };
        if let Some(f) = [F16, BF16, F32, F64].into_iter().find(|f| f.name() == s) {
            return Ok(BitFormat::Float(f));
        }
        if let Some((m, n)) = s.strip_prefix(['q', 'Q']).and_then(|r| r.split_once('.')) {
            let m = m.parse().map_err(|_| unknown())?;
            let n = n.parse().map_err(|_| unknown())?;
            return FixedFormat::new(m, n).map(BitFormat::Fixed);
        }
        let (signed, width) = match (s.strip_prefix('i'), s.strip_prefix('u')) {
            (Some(w), _) => (true, w),
            (_, Some(w)) => (false, w),
            _ => return Err(unknown()),
        };
        IntFormat::new(width.parse().map_err(|_| unknown())?, signed).map(BitFormat::Int)
    }
}

/// The lowest `width` bits set.
const fn mask(width: u32) -> u64 {
    if width >= 64 {
        u64::MAX
    } else {
        (1 << width) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_printed() {
        for name in [
            "i8", "u16", "i1", "u64", "q4.3", "q0.15", "f16", "bf16", "f32", "f64",
        ] {
            assert_eq!(name.parse::<BitFormat>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "i",
            "i0",
            "u65",
            "q",
            "q1",
            "q60.9",
            "qa.b",
            "f8",
            "i-8",
            "q4294967295.4294967295",
        ] {
            assert!(name.parse::<BitFormat>().is_err(), "{name}");
        }
    }

    #[test]
    fn pictures_show_fields_and_value() {
        let bf16: BitFormat = "bf16".parse().unwrap();
        let picture = bf16.picture(bf16.encode(0.15625));
        assert!(picture.contains("\n0     01111100  0100000\n"), "{picture}");
        assert!(picture.contains("= 0.15625"), "{picture}");
        let i8: BitFormat = "i8".parse().unwrap();
        let picture = i8.picture(i8.encode(-3.0));
        assert!(picture.contains("\n1     1111101\n"), "{picture}");
        let q: BitFormat = "q4.3".parse().unwrap();
        let picture = q.picture(q.encode(2.75));
        assert!(picture.contains("\n0     0010     110\n"), "{picture}");
    }
}
