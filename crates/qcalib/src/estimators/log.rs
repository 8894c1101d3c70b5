//! A natural logarithm that is fast and the same everywhere.

/// `ln(x)` of a positive normal number, to an absolute error of 10⁻¹⁰.
///
/// Only basic arithmetic, so every machine gives the same bits, and several times as fast as a
/// correctly rounded one: `x = m · 2^e` with `m` in `[√½, √2)`, and the series of
/// `ln m = 2 · artanh(s)`, `s = (m − 1) / (m + 1)`, up to `s¹¹`.
#[inline]
pub(crate) fn ln(x: f64) -> f64 {
    const FRACTION: u64 = (1 << 52) - 1;
    let bits = x.to_bits();
    // Counted from the bits of √½ instead of those of 1, the binade starts at √½.
    let shifted = bits.wrapping_add(0x3ff0_0000_0000_0000 - SQRT_HALF);
    let m = f64::from_bits((shifted & FRACTION) + SQRT_HALF);
    // The biased exponent has 11 bits.
    let e = f64::from((shifted >> 52) as i32 - 1023);
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let series = 1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q / 11.0)));
    e * core::f64::consts::LN_2 + 2.0 * s * (1.0 + q * series)
}

/// The bits of √½.
const SQRT_HALF: u64 = core::f64::consts::FRAC_1_SQRT_2.to_bits();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_close_to_the_correctly_rounded_one() {
        let mut x = 1e-300;
        while x < 1e300 {
            assert!((ln(x) - libm::log(x)).abs() < 1e-10, "{x}");
            x *= 1.000_37;
        }
        for x in [
            1.0,
            2.0,
            0.5,
            core::f64::consts::SQRT_2,
            core::f64::consts::FRAC_1_SQRT_2,
        ] {
            for x in [x, x.next_up(), x.next_down()] {
                assert!((ln(x) - libm::log(x)).abs() < 1e-10, "{x}");
            }
        }
        assert_eq!(ln(1.0), 0.0);
    }
}
