//! Sums of values, magnitudes and squares, exact in vectors.
//!
//! Values between `2^(t − 21)` and `2^(t + 1)` are multiples of `u = 2^(t − 44)` below `2^45 · u`: so
//! many of them as a lane meets between two collections, [`STEPS`], have a sum below `2^53 · u`, which
//! f64 holds whatever the order. A square has up to 90 such bits. It is added to a large number
//! whose last bit is `U = 2^46 · u²`; what that takes, a multiple of `U`, is exact, and so is what it
//! leaves, which a second sum takes: the splitting of Rump, Ogita and Oishi 2008 (*Accurate
//! floating-point summation, part I*, SIAM J. Sci. Comput. 31, §3).

use crate::isa::{Task, Tier};
use crate::{Isa, KernelError};

/// The magnitudes that [`power_sums`] adds up: 22 binades, from `2^(t − 21)` to below `2^(t + 1)`
/// for some `t` from −126 to 127; all below `2^(t + 1)` where that leaves no normal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerWindow {
    /// Bits of the smallest magnitude, and how many there are.
    low: u32,
    span: u32,
    /// `t`.
    top: i32,
}

/// Binades of a window.
const BINADES: i32 = 22;

/// Exponent of the smallest subnormal.
const LOWEST: i32 = -149;

impl PowerWindow {
    /// The window whose highest binade is that of `max`, whose sign does not matter. `None` for NaN
    /// and infinities.
    ///
    /// ```
    /// use qkernels::PowerWindow;
    /// let window = PowerWindow::below(1.5).unwrap();
    /// assert!(window.holds(-1.99) && window.holds(4.8e-7));
    /// assert!(!window.holds(2.0) && !window.holds(4.7e-7) && !window.holds(0.0));
    /// assert_eq!((window.end(), window.unit()), (2.0, -44));
    /// ```
    #[must_use]
    pub fn below(max: f32) -> Option<PowerWindow> {
        if !max.is_finite() {
            return None;
        }
        // Subnormals have the exponent of the smallest normal numbers.
        Some(Self::of_biased((max.to_bits() >> 23 & 0xff).max(1) as i32))
    }

    /// The window that begins where this one ends, `None` where it holds the smallest numbers.
    ///
    /// ```
    /// use qkernels::PowerWindow;
    /// let window = PowerWindow::below(1.0).unwrap();
    /// let lower = window.lower().unwrap();
    /// assert!(lower.holds(4.7e-7) && !lower.holds(4.8e-7));
    /// let lowest = PowerWindow::below(f32::MIN_POSITIVE).unwrap();
    /// assert!(lowest.holds(1e-45) && lowest.lower().is_none());
    /// ```
    #[must_use]
    pub fn lower(self) -> Option<PowerWindow> {
        (self.low > 1).then(|| Self::of_biased(self.top + 127 - BINADES))
    }

    /// `biased` is the highest exponent, 1 to 254, as f32 stores it.
    fn of_biased(biased: i32) -> PowerWindow {
        let lowest = biased - (BINADES - 1);
        // A window that reaches the smallest normal numbers takes all below them: everything is a
        // multiple of its unit.
        let low = if lowest > 1 { (lowest as u32) << 23 } else { 1 };
        PowerWindow {
            low,
            span: ((biased as u32 + 1) << 23) - low,
            top: biased - 127,
        }
    }

    /// Whether the magnitude of a value is in the window.
    #[inline(always)]
    #[must_use]
    pub fn holds(self, x: f32) -> bool {
        (x.to_bits() & 0x7fff_ffff).wrapping_sub(self.low) < self.span
    }

    /// The least magnitude above the window; ∞ where no number is.
    #[inline(always)]
    #[must_use]
    pub fn end(self) -> f32 {
        f32::from_bits(self.low + self.span)
    }

    /// `e`, where all values of the window are multiples of `2^e`.
    #[must_use]
    pub fn unit(self) -> i32 {
        (self.top - 44).max(LOWEST)
    }

    /// Exponent of the last bit of what the large sum of squares takes.
    fn large_unit(self) -> i32 {
        2 * self.top - 42
    }
}

/// What [`power_sums`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PowerSums {
    /// Values that are ±0.
    pub zeros: u64,
    /// Values in the window: those that the sums are of.
    pub held: u64,
    /// Sum of the positive values, in `2^e` with the [unit](PowerWindow::unit) `e`.
    pub positive: u128,
    /// Sum of the magnitudes of the negative values, in `2^e`.
    pub negative: u128,
    /// Sum of the squares, in `2^(2e)`.
    pub squares: u128,
}

/// The exact sums of those values of `x` that are in the window.
///
/// # Errors
///
/// [`KernelError::Terms`] for more than 2^38 values, whose squares could leave 128 bits.
///
/// ```
/// use qkernels::{Isa, PowerWindow, power_sums};
/// let window = PowerWindow::below(3.0).unwrap();
/// let sums = power_sums(Isa::detect(), &[1.0, -2.5, 0.0, 1e-30, f32::NAN], window)?;
/// assert_eq!((sums.zeros, sums.held), (1, 2));
/// let unit = 2f64.powi(window.unit());
/// assert_eq!(sums.positive as f64 * unit, 1.0);
/// assert_eq!(sums.negative as f64 * unit, 2.5);
/// assert_eq!(sums.squares as f64 * unit * unit, 7.25);
/// # Ok::<(), qkernels::KernelError>(())
/// ```
pub fn power_sums(isa: Isa, x: &[f32], window: PowerWindow) -> Result<PowerSums, KernelError> {
    check_terms(x.len())?;
    Ok(isa.enter_shared(Sums { x, window }))
}

fn check_terms(given: usize) -> Result<(), KernelError> {
    if given as u64 <= MAX_TERMS {
        return Ok(());
    }
    Err(KernelError::Terms {
        given,
        max: MAX_TERMS,
    })
}

/// Each square is below 2^90 units.
const MAX_TERMS: u64 = 1 << 38;

/// Values that are added side by side: two vectors of AVX2, one of AVX-512.
const LANES: usize = 8;

/// Values that a lane meets between two collections.
const STEPS: usize = 256;

struct Sums<'a> {
    x: &'a [f32],
    window: PowerWindow,
}

impl Task for Sums<'_> {
    type Output = PowerSums;

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) -> PowerSums {
        let mut found = PowerSums::default();
        for block in self.x.chunks(LANES * STEPS) {
            let mut lanes = Lanes::new(self.window);
            let (steps, rest) = block.as_chunks::<LANES>();
            for step in steps {
                lanes.add(step);
            }
            if !rest.is_empty() {
                let mut padded = [0.0; LANES];
                padded[..rest.len()].copy_from_slice(rest);
                lanes.add(&padded);
            }
            lanes.collect(&mut found);
        }
        // Those that fill up the last step do not count.
        found.zeros -= (self.x.len().next_multiple_of(LANES) - self.x.len()) as u64;
        found
    }
}

/// Sums side by side.
struct Lanes {
    window: PowerWindow,
    /// Where the large sums of squares start: 2^52 times what their last bit stands for.
    start: f64,
    zeros: [u32; LANES],
    held: [u32; LANES],
    values: [f64; LANES],
    magnitudes: [f64; LANES],
    large: [f64; LANES],
    small: [f64; LANES],
}

/// `2^e` of a normal f64.
fn pow2(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

impl Lanes {
    #[inline(always)]
    fn new(window: PowerWindow) -> Lanes {
        let start = pow2(window.large_unit() + 52);
        Lanes {
            window,
            start,
            zeros: [0; LANES],
            held: [0; LANES],
            values: [0.0; LANES],
            magnitudes: [0.0; LANES],
            large: [start; LANES],
            small: [0.0; LANES],
        }
    }

    #[inline(always)]
    fn add(&mut self, x: &[f32; LANES]) {
        let mut values = [0f64; LANES];
        for (j, (value, &x)) in values.iter_mut().zip(x).enumerate() {
            let holds = self.window.holds(x);
            self.zeros[j] += u32::from(x == 0.0);
            self.held[j] += u32::from(holds);
            *value = f64::from(if holds { x } else { 0.0 });
        }
        for (j, value) in values.into_iter().enumerate() {
            self.values[j] += value;
            self.magnitudes[j] += value.abs();
            // Two factors of 24 bits: exact.
            let square = value * value;
            let large = self.large[j] + square;
            self.small[j] += square - (large - self.large[j]);
            self.large[j] = large;
        }
    }

    /// Adds the sums of all lanes up.
    #[inline(always)]
    fn collect(&self, found: &mut PowerSums) {
        let unit = self.window.unit();
        let large_unit = self.window.large_unit();
        // Integers below 2^53, so that 2^10 lanes fit.
        let count = |sums: &[f64; LANES], unit: i32| {
            let per_unit = pow2(-unit);
            sums.iter().map(|s| (s * per_unit) as i64).sum::<i64>()
        };
        let values = count(&self.values, unit);
        let magnitudes = count(&self.magnitudes, unit);
        // Twice the sum of one side.
        found.positive += ((magnitudes + values) / 2) as u128;
        found.negative += ((magnitudes - values) / 2) as u128;
        let large = count(&self.large.map(|l| l - self.start), large_unit);
        let small = count(&self.small, 2 * unit);
        let squares = (i128::from(large) << (large_unit - 2 * unit)) + i128::from(small);
        found.squares += squares as u128; // of squares: not negative
        found.zeros += self.zeros.iter().map(|&z| u64::from(z)).sum::<u64>();
        found.held += self.held.iter().map(|&h| u64::from(h)).sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the highest window down, each begins where the one before ends.
    #[test]
    fn windows_follow_each_other_without_gaps() {
        for top in 0..255 {
            let mut window = PowerWindow::below(f32::from_bits(top << 23)).unwrap();
            assert_eq!(window.end().to_bits(), (top.max(1) + 1) << 23);
            while let Some(lower) = window.lower() {
                assert_eq!(lower.end().to_bits(), window.low, "{top}");
                assert!(lower.unit() < window.unit());
                window = lower;
            }
            assert!(window.holds(1e-45));
        }
    }

    #[test]
    fn sums_of_squares_fit_their_128_bits() {
        check_terms(1 << 38).unwrap();
        assert!(matches!(
            check_terms((1 << 38) + 1),
            Err(KernelError::Terms { .. })
        ));
        let largest = ((1u128 << 45) - 1).pow(2);
        assert!(largest.checked_mul(u128::from(MAX_TERMS)).is_some());
    }
}
