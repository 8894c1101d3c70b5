//! Zero points of both operands, and how deep a sum may be with them.

use qformat::QuantElement;

use crate::{KernelError, error::check_len};

/// The integer that stands for 0.0: one, or one for every row of A or column of B.
#[derive(Debug, Clone, Copy)]
pub enum ZeroPoint<'a> {
    /// One for the whole operand.
    Tensor(i32),
    /// A: one a row. B: one a column.
    Vector(&'a [i32]),
}

impl Default for ZeroPoint<'_> {
    fn default() -> Self {
        ZeroPoint::Tensor(0)
    }
}

/// Zero points of both operands; the default is 0 for both.
///
/// ```
/// use qkernels::{ZeroPoint, ZeroPoints};
/// let zp = ZeroPoints { a: ZeroPoint::Tensor(128), ..ZeroPoints::default() };
/// assert!(matches!(zp.b, ZeroPoint::Tensor(0)));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ZeroPoints<'a> {
    /// Of A: one, or one a row.
    pub a: ZeroPoint<'a>,
    /// Of B: one, or one a column.
    pub b: ZeroPoint<'a>,
}

impl ZeroPoints<'_> {
    /// Whether all are 0.
    pub(crate) fn is_zero(&self) -> bool {
        [self.a, self.b].iter().all(|z| match z {
            ZeroPoint::Tensor(z) => *z == 0,
            ZeroPoint::Vector(z) => z.iter().all(|&z| z == 0),
        })
    }
}

impl ZeroPoint<'_> {
    /// Zero point of index `i`.
    #[inline]
    pub(crate) fn at(&self, i: usize) -> i32 {
        match self {
            ZeroPoint::Tensor(z) => *z,
            ZeroPoint::Vector(z) => z[i],
        }
    }

    pub(crate) fn check(&self, what: &'static str, expected: usize) -> Result<(), KernelError> {
        match self {
            ZeroPoint::Tensor(_) => Ok(()),
            ZeroPoint::Vector(z) => check_len(what, z.len(), expected),
        }
    }

    /// The one zero point of a whole operand of type `T`, which must be a value of the type: what
    /// stands for it in memory is read as padding.
    pub(crate) fn of_tensor<T: QuantElement>(
        &self,
        what: &'static str,
    ) -> Result<i32, KernelError> {
        let given = match *self {
            ZeroPoint::Tensor(z) => z,
            ZeroPoint::Vector(z) => {
                check_len(what, z.len(), 1)?;
                z[0]
            }
        };
        match T::DTYPE.int_range() {
            Some((min, max)) if (min..=max).contains(&given) => Ok(given),
            _ => Err(KernelError::ZeroPoint {
                what,
                given,
                dtype: T::DTYPE,
            }),
        }
    }

    /// Largest `|q − Z|` over the values `[min, max]` of the type and all zero points.
    fn magnitude(&self, (min, max): (i32, i32)) -> u64 {
        let one = |z: i32| u64::from(z.abs_diff(min).max(z.abs_diff(max)));
        match self {
            ZeroPoint::Tensor(z) => one(*z),
            // The magnitude is convex in Z, so its ends decide.
            ZeroPoint::Vector(z) => {
                let lo = z.iter().copied().min().unwrap_or(0);
                let hi = z.iter().copied().max().unwrap_or(0);
                one(lo).max(one(hi))
            }
        }
    }
}

/// Largest magnitude that a sum of `k` products can have; an error when it can leave i32.
///
/// `a` and `b` are the value ranges of the operands' types. The bound holds for every prefix of
/// the sum as well, but need not: partial sums may wrap, because addition modulo 2^32 gives the
/// right end result whenever that one fits.
pub(crate) fn check_depth(
    k: usize,
    zp: &ZeroPoints<'_>,
    a: (i32, i32),
    b: (i32, i32),
) -> Result<i32, KernelError> {
    // Each magnitude is below 2^33, so the product of both can exceed u64: saturate.
    let product = zp.a.magnitude(a).saturating_mul(zp.b.magnitude(b));
    let limit = i32::MAX.unsigned_abs();
    let bound = (k as u64).saturating_mul(product);
    if let Ok(bound) = i32::try_from(bound) {
        return Ok(bound);
    }
    // No magnitude is 0: a type has two values and one of them is not Z.
    let max = usize::try_from(u64::from(limit) / product).unwrap_or(usize::MAX);
    if k > max {
        return Err(KernelError::Depth {
            depth: k,
            product,
            max,
        });
    }
    // k · product <= limit, so this is exact and fits.
    Ok((k as u64 * product) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const U8: (i32, i32) = (0, 255);
    const I8: (i32, i32) = (-128, 127);

    #[test]
    fn depths_are_those_of_the_contract() {
        let none = ZeroPoints::default();
        for (a, b, max) in [(U8, I8, 65_793), (I8, I8, 131_071), (U8, U8, 33_025)] {
            assert!(check_depth(max, &none, a, b).is_ok());
            let e = check_depth(max + 1, &none, a, b).unwrap_err();
            assert!(
                matches!(e, KernelError::Depth { max: m, .. } if m == max),
                "{e}"
            );
        }
    }

    #[test]
    fn zero_points_move_the_bound() {
        let centred = ZeroPoints {
            a: ZeroPoint::Tensor(128),
            ..ZeroPoints::default()
        };
        assert!(check_depth(131_071, &centred, U8, I8).is_ok());
        let far = ZeroPoints {
            a: ZeroPoint::Vector(&[0, i32::MIN]),
            ..ZeroPoints::default()
        };
        assert!(check_depth(1, &far, U8, I8).is_err());
        assert_eq!(check_depth(0, &far, U8, I8), Ok(0));
        let both = ZeroPoints {
            a: ZeroPoint::Tensor(i32::MIN),
            b: ZeroPoint::Vector(&[i32::MIN, i32::MAX]),
        };
        assert!(check_depth(1, &both, U8, I8).is_err());
    }
}
