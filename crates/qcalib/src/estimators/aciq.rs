//! The clipping that is best for a distribution of a known form.

use crate::observers::Statistics;
use crate::{CalibError, Estimator, Record, Target, ValueRange};
use qformat::Scheme;

/// The form of a distribution whose scale is taken from the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Density {
    /// `exp(−|x − μ| / b) / 2b`: a sharp peak and heavy tails, as activations often have.
    Laplace,
    /// `exp(−(x − μ)² / 2σ²) / √(2π)σ`: a bell, as weights often have.
    Gauss,
}

/// Analytical clipping for integer quantization: the threshold with the least expected squared
/// error if the values follow a Laplace or a normal density.
///
/// With `L` levels over `[−α, α]` clipping and rounding cost together (Banner, Nahshan & Soudry
/// 2019, *Post training 4-bit quantization of convolutional networks for rapid deployment*, arXiv
/// 1810.05723, §3)
///
/// ```text
/// Laplace: 2b² · exp(−α / b) + α² / 3L²
/// Gauss:   (σ² + α²) · erfc(α / √2σ) − √(2 / π) · α·σ · exp(−α² / 2σ²) + α² / 3L²
/// ```
///
/// and `α` is where the derivative of that vanishes, found to f64's precision for any `L` instead
/// of read from the paper's table for 2 to 8 bits (`α / b` = 2.83, 3.89, 5.03, …, 9.89;
/// `α / σ` = 1.71, 2.15, 2.55, …). How the
/// model meets the data:
///
/// * **symmetric** scheme: the density is centred at zero, so its scale is that of the magnitudes:
///   `b = E|x|`, `σ² = E[x²]`; the range is `[−α, α]`.
/// * **affine**, values on both sides: `μ` is the mean, `σ²` the variance and `b² = σ² / 2`; the
///   range is `[μ − α, μ + α]`.
/// * **affine**, values on one side only (after a rectifier): half of a density centred at zero,
///   `L` levels over `[0, α]`, which is what `2L` over `[−α, α]` are to the whole one.
///
/// Exact zeros cost nothing under any quantizer and are left out of both scales where the centre
/// is zero (a rectifier's zeros are no part of the tail). The result is brought inside the
/// observed range; all in the unit of the values. Reads the record of a
/// [`MomentsObserver`](crate::observers::MomentsObserver).
///
/// ```
/// use qcalib::estimators::{Aciq, Density};
/// assert_eq!((Aciq::new(Density::Laplace).threshold(16) * 100.0).round(), 503.0);
/// assert_eq!((Aciq::new(Density::Gauss).threshold(16) * 100.0).round(), 256.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aciq {
    density: Density,
}

impl Aciq {
    /// Clipping for values of this density.
    #[must_use]
    pub const fn new(density: Density) -> Self {
        Aciq { density }
    }

    /// The best `α`, in `b` (Laplace) or `σ` (Gauss), for `levels` levels over `[−α, α]`.
    #[must_use]
    pub fn threshold(self, levels: u64) -> f64 {
        let levels = levels.max(2) as f64;
        // The derivative is negative at 0 and grows where it matters: one root, which bisection
        // finds to the last bit. Both tails fall below any rounding noise long before 64.
        let slope = |a: f64| {
            let rounding = 2.0 * a / (3.0 * levels * levels);
            let clipping = match self.density {
                Density::Laplace => 2.0 * libm::exp(-a),
                Density::Gauss => {
                    const ROOT: f64 = 0.797_884_560_802_865_4; // √(2 / π)
                    2.0 * (ROOT * libm::exp(-a * a / 2.0)
                        - a * libm::erfc(a * core::f64::consts::FRAC_1_SQRT_2))
                }
            };
            rounding - clipping
        };
        let (mut low, mut high) = (0.0, 64.0);
        loop {
            let middle = (low + high) / 2.0;
            if middle <= low || middle >= high {
                return high;
            }
            if slope(middle) < 0.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
    }

    /// The scale of a density centred at zero, from values that are not zero.
    fn scale_at_zero(self, s: &Statistics) -> f64 {
        let n = s.count as f64;
        let nonzero = (s.count - s.zeros) as f64;
        match self.density {
            _ if s.count == s.zeros => 0.0,
            Density::Laplace => s.mean_abs * (n / nonzero),
            Density::Gauss => libm::sqrt(s.mean_square * (n / nonzero)),
        }
    }
}

impl Estimator for Aciq {
    fn name(&self) -> &'static str {
        match self.density {
            Density::Laplace => "aciq-laplace",
            Density::Gauss => "aciq-gauss",
        }
    }

    fn range(&self, record: &Record<'_>, target: Target) -> Result<ValueRange, CalibError> {
        let seen = record.range()?;
        let s = record.statistics_for(self.name())?;
        let levels = u64::from(target.range().steps()) + 1;
        let one_sided = seen.min >= 0.0 || seen.max <= 0.0;
        Ok(match target.scheme() {
            Scheme::Symmetric => seen.around(0.0, self.threshold(levels) * self.scale_at_zero(&s)),
            Scheme::Affine if one_sided => {
                seen.around(0.0, self.threshold(2 * levels) * self.scale_at_zero(&s))
            }
            Scheme::Affine => {
                let scale = match self.density {
                    Density::Laplace => s.std() * core::f64::consts::FRAC_1_SQRT_2,
                    Density::Gauss => s.std(),
                };
                seen.around(s.mean, self.threshold(levels) * scale)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(density: Density, a: f64, levels: f64) -> f64 {
        let clipping = match density {
            Density::Laplace => 2.0 * libm::exp(-a),
            Density::Gauss => {
                (1.0 + a * a) * libm::erfc(a / 2f64.sqrt())
                    - (2.0 / core::f64::consts::PI).sqrt() * a * libm::exp(-a * a / 2.0)
            }
        };
        clipping + a * a / (3.0 * levels * levels)
    }

    /// Banner et al. 2019, §3: the optimal thresholds they give, cut or rounded to two places.
    #[test]
    fn thresholds_are_those_of_the_paper() {
        for (bits, laplace, gauss) in [(2, 2.83, 1.71), (3, 3.89, 2.15), (4, 5.03, 2.55)] {
            for (density, alpha) in [(Density::Laplace, laplace), (Density::Gauss, gauss)] {
                let found = Aciq::new(density).threshold(1 << bits);
                assert!((found - alpha).abs() < 0.01, "{density:?} {bits}: {found}");
            }
        }
    }

    #[test]
    fn thresholds_are_minima_of_the_cost() {
        for density in [Density::Laplace, Density::Gauss] {
            let mut last = 0.0;
            for bits in 1..=33 {
                let levels = 1u64 << bits;
                let a = Aciq::new(density).threshold(levels);
                assert!(a > last, "{density:?} {bits}: {a}");
                last = a;
                if bits <= 12 {
                    for other in [a * 0.98, a * 1.02, a * 0.5, a * 2.0] {
                        let l = levels as f64;
                        assert!(
                            cost(density, a, l) < cost(density, other, l),
                            "{density:?} {bits}"
                        );
                    }
                }
            }
        }
        assert!(Aciq::new(Density::Laplace).threshold(0).is_finite());
        assert!(Aciq::new(Density::Gauss).threshold(u64::MAX).is_finite());
    }
}
