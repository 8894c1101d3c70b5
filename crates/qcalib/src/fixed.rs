//! Sums of floats as integers, which no order can change.

use alloc::vec::Vec;
use core::cmp::Ordering;

/// A non-negative number of `64 · N` bits; what its lowest bit stands for is the user's to say.
///
/// Every finite f32 is an integer multiple of 2⁻¹⁴⁹ below 2²⁷⁷ of them, and its square one of
/// 2⁻²⁹⁸, so that sums of up to 2⁶⁴ of them are exact in 341 and in 618 bits: what Kulisch (2013,
/// *Computer arithmetic and validity*) calls a complete register. Integer addition is associative,
/// so such a sum depends on the values alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fixed<const N: usize>([u64; N]);

impl<const N: usize> Default for Fixed<N> {
    fn default() -> Self {
        Fixed([0; N])
    }
}

impl<const N: usize> Fixed<N> {
    /// Adds `value · 2^shift`. The sum fits, because the caller has counted what it adds.
    pub(crate) fn add(&mut self, value: u64, shift: u32) {
        let wide = u128::from(value) << (shift % 64);
        let mut carry = wide as u64;
        let mut above = (wide >> 64) as u64;
        for limb in self.0.iter_mut().skip((shift / 64) as usize) {
            let (sum, over) = limb.overflowing_add(carry);
            *limb = sum;
            carry = above;
            above = 0;
            if over {
                // Both cannot be all ones: `above` is below 2^63.
                carry += 1;
            }
            if carry == 0 {
                break;
            }
        }
    }

    /// Adds `value · 2^shift` of twice as many bits.
    pub(crate) fn add_wide(&mut self, value: u128, shift: u32) {
        self.add(value as u64, shift);
        self.add((value >> 64) as u64, shift + 64);
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut carry = false;
        for (a, &b) in self.0.iter_mut().zip(&other.0) {
            let (sum, first) = a.overflowing_add(b);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *a = sum;
            carry = first || second;
        }
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|&l| l == 0)
    }

    /// `|self − other|`, and which of them is larger.
    pub(crate) fn difference(&self, other: &Self) -> (Self, Ordering) {
        let order = self.cmp(other);
        let (large, small) = match order {
            Ordering::Less => (other, self),
            _ => (self, other),
        };
        let mut out = Self::default();
        let mut borrow = false;
        for ((d, &a), &b) in out.0.iter_mut().zip(&large.0).zip(&small.0) {
            let (diff, first) = a.overflowing_sub(b);
            let (diff, second) = diff.overflowing_sub(u64::from(borrow));
            *d = diff;
            borrow = first || second;
        }
        (out, order)
    }

    /// The product with another number, in `M` limbs: enough of them hold it whole.
    pub(crate) fn times<const K: usize, const M: usize>(&self, other: &Fixed<K>) -> Fixed<M> {
        let mut out = Fixed::<M>::default();
        for (i, &a) in self.0.iter().enumerate() {
            let mut carry = 0u128;
            for (j, &b) in other.0.iter().enumerate() {
                if let Some(limb) = out.0.get_mut(i + j) {
                    // At most (2^64 − 1)² + 2 · (2^64 − 1) = 2^128 − 1.
                    let sum = u128::from(a) * u128::from(b) + u128::from(*limb) + carry;
                    *limb = sum as u64;
                    carry = sum >> 64;
                }
            }
            if let Some(limb) = out.0.get_mut(i + K) {
                *limb = carry as u64;
            }
        }
        out
    }

    /// The product with a count, in `M` limbs.
    pub(crate) fn times_count<const M: usize>(&self, n: u64) -> Fixed<M> {
        self.times(&Fixed([n]))
    }

    /// The nearest f64, ties to even, when the lowest bit stands for `2^exponent`.
    ///
    /// The result must be neither subnormal nor beyond the finite numbers.
    pub(crate) fn to_f64(&self, exponent: i32) -> f64 {
        let Some(top) = self.0.iter().rposition(|&l| l != 0) else {
            return 0.0;
        };
        let below = |i: usize| i.checked_sub(1).map_or(0, |i| self.0[i]);
        let zeros = self.0[top].leading_zeros();
        // The 64 highest bits, and whether anything lies below them.
        let pair = u128::from(self.0[top]) << 64 | u128::from(below(top));
        let high = ((pair << zeros) >> 64) as u64;
        let rest =
            (pair << zeros) as u64 != 0 || self.0[..top.saturating_sub(1)].iter().any(|&l| l != 0);
        // 53 bits stay; a bit that stands for the rest breaks ties.
        let sticky = high | u64::from(rest);
        // Limbs are few, so the exponent is small.
        let lowest = top as i32 * 64 - zeros as i32 + exponent;
        // u64 to f64 rounds to nearest, ties to even.
        libm::scalbn(sticky as f64, lowest)
    }

    /// The limbs from the lowest up, without zeros at the top.
    pub(crate) fn limbs(&self) -> Vec<u64> {
        let len = self.0.iter().rposition(|&l| l != 0).map_or(0, |i| i + 1);
        self.0[..len].to_vec()
    }

    /// The way back; `None` for more limbs than there are, or a zero at the top.
    pub(crate) fn from_limbs(limbs: &[u64]) -> Option<Self> {
        let mut out = Self::default();
        if limbs.last() == Some(&0) {
            return None;
        }
        out.0.get_mut(..limbs.len())?.copy_from_slice(limbs);
        Some(out)
    }
}

impl<const N: usize> Ord for Fixed<N> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

impl<const N: usize> PartialOrd for Fixed<N> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(x: u128) -> Fixed<3> {
        let mut f = Fixed::default();
        f.add_wide(x, 0);
        f
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_integers(
            a in 0u64.., b in 0u64.., shift in 0u32..64, c in 0u128..1 << 126, d in 0u128..1 << 126,
        ) {
            let mut f = of(c);
            f.add(a, shift);
            prop_assert_eq!(&f, &{
                let low = c.overflowing_add(u128::from(a) << shift);
                let mut f = of(low.0);
                f.add(u64::from(low.1), 128);
                f
            });
            let (difference, order) = of(c).difference(&of(d));
            prop_assert_eq!(difference, of(c.abs_diff(d)));
            prop_assert_eq!(order, c.cmp(&d));
            let mut sum = of(c);
            sum.merge(&of(d));
            prop_assert_eq!(sum, of(c + d));
            let product: Fixed<3> = Fixed([a]).times(&Fixed([b]));
            prop_assert_eq!(product, of(u128::from(a) * u128::from(b)));
        }

        #[test]
        fn conversion_rounds_to_nearest_even(x in any::<u128>(), cut in 0u32..128) {
            let x = x >> cut;
            // The compiler's own conversion of u128 rounds so.
            prop_assert_eq!(of(x).to_f64(0), x as f64);
            prop_assert_eq!(of(x).to_f64(-298), x as f64 * 2f64.powi(-298));
            let mut high = Fixed::<12>::default();
            high.add(x as u64, 600);
            prop_assert_eq!(high.to_f64(-600), (x as u64) as f64);
        }
    }

    #[test]
    fn a_bit_far_below_breaks_a_tie() {
        let tie = (1u64 << 53) + 1;
        let mut f = Fixed::<4>::default();
        f.add(tie, 130);
        assert_eq!(f.to_f64(-130), (1u64 << 53) as f64);
        f.add(1, 0);
        assert_eq!(f.to_f64(-130), ((1u64 << 53) + 2) as f64);
    }

    #[test]
    fn limbs_round_trip_and_are_checked() {
        let mut f = Fixed::<3>::default();
        assert_eq!(f.limbs(), [0u64; 0]);
        f.add(5, 70);
        assert_eq!(Fixed::from_limbs(&f.limbs()), Some(f));
        assert_eq!(Fixed::<3>::from_limbs(&[1, 0]), None);
        assert_eq!(Fixed::<3>::from_limbs(&[1, 2, 3, 4]), None);
    }
}
