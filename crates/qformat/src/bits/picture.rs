//! Text pictures of bit patterns: the fields, their names under them, and the value.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use super::{FixedFormat, FloatClass, FloatFormat, IntFormat, mask};

/// One field of a picture.
struct Field {
    bits: String,
    name: &'static str,
}

fn field(bits: u64, width: u32, name: &'static str) -> Option<Field> {
    (width > 0).then(|| Field {
        bits: format!("{:0width$b}", bits & mask(width), width = width as usize),
        name,
    })
}

/// Two lines: the names of the fields, and their bits below, in columns.
fn draw(fields: impl IntoIterator<Item = Option<Field>>) -> String {
    let (mut top, mut bottom) = (String::new(), String::new());
    for f in fields.into_iter().flatten() {
        let width = f.bits.len().max(f.name.len());
        // Writing to a String cannot fail.
        let _ = write!(top, "{:<width$}  ", f.name);
        let _ = write!(bottom, "{:<width$}  ", f.bits);
    }
    format!("{}\n{}\n", top.trim_end(), bottom.trim_end())
}

impl IntFormat {
    /// The bits with the sign set apart, and the value as a sum of weights.
    ///
    /// ```
    /// use qformat::bits::IntFormat;
    /// let i8 = IntFormat::new(8, true)?;
    /// assert_eq!(
    ///     i8.picture(0b1111_1101),
    ///     "sign  low bits\n1     1111101\nhex 0xfd = -2^7 + 125 = -3\n"
    /// );
    /// # Ok::<(), qformat::FormatError>(())
    /// ```
    #[must_use]
    pub fn picture(&self, bits: u64) -> String {
        let (width, bits) = (self.width(), bits & mask(self.width()));
        let digits = width.div_ceil(4) as usize;
        let value = self.decode(bits);
        if !self.is_signed() {
            let body = draw([field(bits, width, "value")]);
            return format!("{body}hex {bits:#0w$x} = {value}\n", w = digits + 2);
        }
        let low = bits & mask(width - 1);
        let body = draw([
            field(bits >> (width - 1), 1, "sign"),
            field(low, width - 1, "low bits"),
        ]);
        let sum = if bits >> (width - 1) == 1 {
            format!("-2^{} + {low} = {value}", width - 1)
        } else {
            format!("{value}")
        };
        format!("{body}hex {bits:#0w$x} = {sum}\n", w = digits + 2)
    }
}

impl FixedFormat {
    /// The bits with sign, integer and fraction set apart, and the value.
    #[must_use]
    pub fn picture(&self, bits: u64) -> String {
        let (m, n) = (self.integer_bits(), self.fraction_bits());
        let body = draw([
            field(bits >> (m + n), 1, "sign"),
            field(bits.checked_shr(n).unwrap_or(0), m, "integer"),
            field(bits, n, "fraction"),
        ]);
        let raw = self.raw().decode(bits);
        format!("{body}{raw} * 2^-{n} = {}\n", self.decode(bits))
    }
}

impl FloatFormat {
    /// The bits with sign, exponent and mantissa set apart, and how the value follows from them.
    ///
    /// ```
    /// use qformat::bits::F16;
    /// assert_eq!(
    ///     F16.picture(F16.encode(-0.15625)),
    ///     "sign  exponent  mantissa\n1     01100     0100000000\n\
    ///      (-1)^1 * 2^(12 - 15) * 1.25 = -0.15625\n"
    /// );
    /// ```
    #[must_use]
    pub fn picture(&self, bits: u64) -> String {
        let f = self.fields(bits);
        let body = draw([
            field(f.sign, 1, "sign"),
            field(f.exponent, self.exponent_bits(), "exponent"),
            field(f.mantissa, self.mantissa_bits(), "mantissa"),
        ]);
        let fraction = f.mantissa as f64 / (1u64 << self.mantissa_bits()) as f64;
        let (s, bias, value) = (f.sign, self.bias(), self.decode(bits));
        let meaning = match f.class {
            FloatClass::Normal => {
                format!(
                    "(-1)^{s} * 2^({} - {bias}) * {} = {value:?}",
                    f.exponent,
                    1.0 + fraction
                )
            }
            FloatClass::Subnormal => {
                format!("(-1)^{s} * 2^(1 - {bias}) * {fraction} = {value:?} (subnormal)")
            }
            FloatClass::Zero => format!("(-1)^{s} * 0 = {value:?}"),
            FloatClass::Infinite => format!("(-1)^{s} * infinity"),
            FloatClass::Nan => {
                let quiet = f.mantissa >> (self.mantissa_bits() - 1) == 1;
                format!("NaN ({})", if quiet { "quiet" } else { "signalling" })
            }
        };
        format!("{body}{meaning}\n")
    }
}
