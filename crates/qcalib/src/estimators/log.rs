//! A natural logarithm that is fast and the same everywhere.

/// `ln(x)` of a positive normal number, to an absolute error of 10⁻¹² and exact at 1.
///
/// Only basic arithmetic, so every machine gives the same bits, and no division, so it costs a
/// fraction of a correctly rounded one: `x = 2^e · c · (1 + r)` with `c` the nearest of 129 points
/// in `[1, 2]`, whose logarithms and reciprocals are in a table, and four terms of the series of
/// `ln(1 + r)`, `|r| ≤ 2⁻⁸` (Tang 1990, *Table-driven implementation of the logarithm function*).
#[inline]
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    // A positive number's biased exponent has 11 bits.
    let e = f64::from((bits >> 52) as i32 - 1023);
    let m = f64::from_bits((bits & FRACTION) | ONE);
    let (reciprocal, log) = TABLE[((((bits & FRACTION) >> (51 - STEPS)) + 1) >> 1) as usize];
    let r = m * reciprocal - 1.0;
    let series = r - r * r * (1.0 / 2.0 - r * (1.0 / 3.0 - r * (1.0 / 4.0)));
    e * core::f64::consts::LN_2 + (log + series)
}

const FRACTION: u64 = (1 << 52) - 1;

/// The bits of 1.
const ONE: u64 = 1023 << 52;

/// `log2` of the number of steps of the table.
const STEPS: u32 = 7;

/// `1 / c` and `ln c` of `c = 1 + i / 2^7`.
static TABLE: [(f64, f64); (1 << STEPS) + 1] = {
    let mut table = [(0.0, 0.0); (1 << STEPS) + 1];
    let mut i = 0;
    while i < table.len() {
        let c = 1.0 + i as f64 / (1 << STEPS) as f64;
        table[i] = (1.0 / c, series(c));
        i += 1;
    }
    table
};

/// `ln c = 2 · artanh(s)`, `s = (c − 1) / (c + 1) ≤ 1 / 3`, by its series.
const fn series(c: f64) -> f64 {
    let s = (c - 1.0) / (c + 1.0);
    let (mut sum, mut k) = (0.0, 35);
    while k >= 1 {
        sum = 1.0 / k as f64 + s * s * sum;
        k -= 2;
    }
    2.0 * s * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_close_to_the_correctly_rounded_one() {
        let close = |x: f64| {
            let (fast, exact) = (ln(x), libm::log(x));
            // An absolute error, and the rounding of large results.
            assert!(
                (fast - exact).abs() < 1e-12 + 4e-16 * exact.abs(),
                "{x}: {fast} {exact}"
            );
        };
        let mut x = 1e-300;
        while x < 1e300 {
            close(x);
            x *= 1.000_37;
        }
        // Around every point of the table, the halves between them, and powers of two.
        for i in 0..=512 {
            let x = 1.0 + f64::from(i) / 256.0;
            for x in [x, x.next_up(), x.next_down()] {
                close(x);
            }
        }
        assert_eq!(ln(1.0), 0.0);
    }
}
