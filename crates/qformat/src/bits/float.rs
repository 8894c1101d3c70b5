//! Floating point: sign, exponent and mantissa fields.

use super::mask;

/// A binary floating-point layout with an implicit leading bit, subnormals, ∞ and NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatFormat {
    name: &'static str,
    exponent_bits: u32,
    mantissa_bits: u32,
}

/// IEEE 754 binary16: 1 + 5 + 10 bits.
pub const F16: FloatFormat = FloatFormat {
    name: "f16",
    exponent_bits: 5,
    mantissa_bits: 10,
};
/// bfloat16: 1 + 8 + 7 bits, the upper half of a binary32.
pub const BF16: FloatFormat = FloatFormat {
    name: "bf16",
    exponent_bits: 8,
    mantissa_bits: 7,
};
/// IEEE 754 binary32: 1 + 8 + 23 bits.
pub const F32: FloatFormat = FloatFormat {
    name: "f32",
    exponent_bits: 8,
    mantissa_bits: 23,
};
/// IEEE 754 binary64: 1 + 11 + 52 bits.
pub const F64: FloatFormat = FloatFormat {
    name: "f64",
    exponent_bits: 11,
    mantissa_bits: 52,
};

/// What kind of number a pattern is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatClass {
    /// ±0.
    Zero,
    /// Exponent field zero: `0.m · 2^(1−bias)`.
    Subnormal,
    /// An implicit leading one: `1.m · 2^(e−bias)`.
    Normal,
    /// ±∞.
    Infinite,
    /// Not a number; quiet when the top mantissa bit is set.
    Nan,
}

/// The fields of a pattern, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatFields {
    /// Sign bit: 1 is negative.
    pub sign: u64,
    /// Exponent field with its bias still in it.
    pub exponent: u64,
    /// Mantissa field without the implicit bit.
    pub mantissa: u64,
    /// What the fields make together.
    pub class: FloatClass,
}

impl FloatFormat {
    /// Short name: `bf16`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Width in bits: one sign bit, the exponent and the mantissa.
    #[must_use]
    pub const fn width(&self) -> u32 {
        1 + self.exponent_bits + self.mantissa_bits
    }

    /// Width of the exponent field.
    #[must_use]
    pub const fn exponent_bits(&self) -> u32 {
        self.exponent_bits
    }

    /// Width of the mantissa field.
    #[must_use]
    pub const fn mantissa_bits(&self) -> u32 {
        self.mantissa_bits
    }

    /// What is taken off the exponent field: `2^(bits−1) − 1`.
    #[must_use]
    pub const fn bias(&self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    /// Takes a pattern apart; bits above the width are ignored.
    #[must_use]
    pub const fn fields(&self, bits: u64) -> FloatFields {
        let mantissa = bits & mask(self.mantissa_bits);
        let exponent = (bits >> self.mantissa_bits) & mask(self.exponent_bits);
        let sign = (bits >> (self.width() - 1)) & 1;
        let class = match (exponent, mantissa) {
            (0, 0) => FloatClass::Zero,
            (0, _) => FloatClass::Subnormal,
            (e, 0) if e == mask(self.exponent_bits) => FloatClass::Infinite,
            (e, _) if e == mask(self.exponent_bits) => FloatClass::Nan,
            _ => FloatClass::Normal,
        };
        FloatFields {
            sign,
            exponent,
            mantissa,
            class,
        }
    }

    /// Puts a pattern together; bits that do not fit their field are dropped.
    #[must_use]
    pub const fn assemble(&self, sign: u64, exponent: u64, mantissa: u64) -> u64 {
        (sign & 1) << (self.width() - 1)
            | (exponent & mask(self.exponent_bits)) << self.mantissa_bits
            | mantissa & mask(self.mantissa_bits)
    }

    /// The number that a pattern stands for; exact, as every layout here fits into f64.
    #[must_use]
    pub fn decode(&self, bits: u64) -> f64 {
        let f = self.fields(bits);
        let magnitude = match f.class {
            FloatClass::Zero => 0.0,
            FloatClass::Infinite => f64::INFINITY,
            FloatClass::Nan => f64::NAN,
            FloatClass::Subnormal => libm::ldexp(
                f.mantissa as f64,
                1 - self.bias() - self.mantissa_bits as i32,
            ),
            FloatClass::Normal => {
                let significand = f.mantissa | 1 << self.mantissa_bits;
                let exponent = f.exponent as i32 - self.bias() - self.mantissa_bits as i32;
                libm::ldexp(significand as f64, exponent)
            }
        };
        if f.sign == 1 { -magnitude } else { magnitude }
    }

    /// The pattern nearest to `value`: one rounding to nearest, ties to even (IEEE 754-2019
    /// §4.3.1); too large becomes ∞, NaN stays NaN (quiet, sign kept, top mantissa bits kept).
    #[must_use]
    pub fn encode(&self, value: f64) -> u64 {
        let f = F64.fields(value.to_bits());
        let drop = F64.mantissa_bits - self.mantissa_bits;
        let exponent_max = mask(self.exponent_bits);
        match f.class {
            FloatClass::Zero => return self.assemble(f.sign, 0, 0),
            FloatClass::Infinite => return self.assemble(f.sign, exponent_max, 0),
            FloatClass::Nan => {
                let quiet = 1 << (self.mantissa_bits - 1);
                return self.assemble(f.sign, exponent_max, f.mantissa >> drop | quiet);
            }
            FloatClass::Subnormal | FloatClass::Normal => {}
        }
        // Significand with its leading bit, and the power of two that its lowest bit weighs.
        let (significand, weight) = match f.class {
            FloatClass::Normal => (
                f.mantissa | 1 << F64.mantissa_bits,
                f.exponent as i32 - F64.bias() - F64.mantissa_bits as i32,
            ),
            _ => (f.mantissa, 1 - F64.bias() - F64.mantissa_bits as i32),
        };
        // The lowest bit that the target can hold for this magnitude.
        let top = 63 - significand.leading_zeros() as i32 + weight;
        let lowest = top.max(1 - self.bias()) - self.mantissa_bits as i32;
        let shift = lowest - weight;
        let rounded = if shift <= 0 {
            significand << -shift
        } else if shift > 63 {
            0 // below half of the smallest subnormal: significands have at most 53 bits
        } else {
            let kept = significand >> shift;
            let rest = significand & mask(shift as u32);
            let half = 1u64 << (shift - 1);
            kept + u64::from(rest > half || (rest == half && kept & 1 == 1))
        };
        // `rounded` counts units of 2^lowest. Its implicit bit, if there, adds one to the
        // exponent field, and so does a carry out of the rounding: the fields are one number.
        let base = (lowest + self.mantissa_bits as i32 + self.bias() - 1) as u64;
        let magnitude = (base << self.mantissa_bits) + rounded;
        let infinity = exponent_max << self.mantissa_bits;
        f.sign << (self.width() - 1) | magnitude.min(infinity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use proptest::prelude::*;

    #[test]
    fn all_16_bit_patterns_decode_and_encode_as_in_half() {
        for b in 0..=u16::MAX {
            let (x, y) = (f16::from_bits(b), bf16::from_bits(b));
            let (dx, dy) = (F16.decode(b.into()), BF16.decode(b.into()));
            assert!(dx == x.to_f64() || (dx.is_nan() && x.is_nan()), "{b:04x}");
            assert!(dy == y.to_f64() || (dy.is_nan() && y.is_nan()), "{b:04x}");
            if !dx.is_nan() {
                assert_eq!(F16.encode(dx), b.into());
            }
            if !dy.is_nan() {
                assert_eq!(BF16.encode(dy), b.into());
            }
        }
    }

    #[test]
    fn ties_between_neighbours_go_to_the_even_pattern() {
        for b in 0..0x7bff_u64 {
            let middle = f64::midpoint(F16.decode(b), F16.decode(b + 1));
            assert_eq!(F16.encode(middle), b + (b & 1));
            assert_eq!(F16.encode(middle.next_up()), b + 1);
            assert_eq!(F16.encode(middle.next_down()), b);
        }
        // Half a step above the largest finite value rounds to infinity, just below it does not.
        assert_eq!(F16.encode(65_520.0), 0x7c00);
        assert_eq!(F16.encode(65_519.99), 0x7bff);
    }

    #[test]
    fn fields_of_special_values() {
        assert_eq!(
            F32.fields(f32::INFINITY.to_bits().into()).class,
            FloatClass::Infinite
        );
        assert_eq!(F32.fields(f32::NAN.to_bits().into()).class, FloatClass::Nan);
        assert_eq!(F32.fields(1).class, FloatClass::Subnormal);
        assert_eq!(F64.fields((-0.0f64).to_bits()).class, FloatClass::Zero);
        assert_eq!(
            F64.decode((-0.0f64).to_bits()).to_bits(),
            (-0.0f64).to_bits()
        );
        assert!(F16.decode(F16.encode(f64::NAN)).is_nan());
    }

    proptest! {
        #[test]
        fn f32_and_f64_agree_with_the_hardware(bits in any::<u64>()) {
            let x = f64::from_bits(bits);
            prop_assume!(!x.is_nan());
            prop_assert_eq!(F64.encode(x), bits);
            prop_assert_eq!(F64.decode(bits).to_bits(), bits);
            prop_assert_eq!(F32.encode(x), u64::from((x as f32).to_bits()));
            let y = f32::from_bits(bits as u32);
            if !y.is_nan() {
                prop_assert_eq!(F32.decode(u64::from(bits as u32)), f64::from(y));
                // Around f32's own range the rounding is exercised, not only overflow.
                let z = f64::from(y) * (1.0 + (bits >> 32) as f64 * f64::EPSILON);
                prop_assert_eq!(F32.encode(z), u64::from((z as f32).to_bits()));
            }
        }

        #[test]
        fn any_f64_rounds_once_to_the_nearest(x in any::<f32>(), t in 0u64..1 << 29) {
            // Not through f32, which would round twice (as half's f16::from_f64 does where the
            // processor converts from f32 only).
            let x = f64::from_bits(f64::from(x).to_bits() | t);
            prop_assume!(!x.is_nan());
            for format in [F16, BF16] {
                let bits = format.encode(x);
                let here = (format.decode(bits) - x).abs();
                if !format.decode(bits).is_finite() {
                    continue; // overflow is tested above
                }
                for other in [bits.wrapping_sub(1), bits + 1] {
                    let y = format.decode(other);
                    if y.is_finite() && y.is_sign_negative() == x.is_sign_negative() {
                        // Differences of neighbours are exact in f64.
                        let there = (y - x).abs();
                        prop_assert!(here < there || (here == there && bits & 1 == 0), "{x:?}");
                    }
                }
            }
        }
    }
}
