//! Scale and zero point, validated, with the reference arithmetic of the contract.

use crate::{DType, FormatError, QRange, Scheme};

/// Rounds to the nearest integer, ties to even.
///
/// IEEE 754-2019 §4.3.1 `roundTiesToEven`, which is what ONNX's `QuantizeLinear` asks for.
/// (`f32::round` rounds ties away from zero and is never used here.)
///
/// ```
/// assert_eq!(qformat::rne(2.5), 2.0);
/// assert_eq!(qformat::rne(-3.5), -4.0);
/// ```
#[must_use]
#[inline]
pub fn rne(x: f32) -> f32 {
    libm::rintf(x)
}

/// `saturate(rne(v) + zero_point)`; NaN gives the lowest value.
#[inline]
fn round_to_range(v: f32, zero_point: i32, range: QRange) -> i32 {
    if v.is_nan() {
        return range.min();
    }
    // The cast saturates at the ends of i64; |zero_point| < 2^32, so the sum cannot overflow
    // once the rounded value is inside ±2^62.
    let rounded = (rne(v) as i64).clamp(-(1 << 62), 1 << 62);
    range.saturate(rounded + i64::from(zero_point))
}

/// Maps an accumulator to a quantized value: `saturate(rne(f32(acc) · multiplier) + Z)`.
///
/// The accumulator is rounded to f32 first (exact below 2^24), then multiplied with one rounding:
/// the order of XNNPACK's float requantization and of ours on every instruction set.
#[must_use]
#[inline]
pub fn requantize(acc: i32, multiplier: f32, zero_point: i32, range: QRange) -> i32 {
    round_to_range(acc as f32 * multiplier, zero_point, range)
}

/// One scale and zero point, with the type and scheme they are valid for.
///
/// A value of this type is always valid: the scale is positive and finite and the zero point is
/// one of the integers of the range, so that 0.0 is exactly representable.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked", into = "Unchecked"))]
pub struct QParams {
    scale: f32,
    zero_point: i32,
    dtype: DType,
    scheme: Scheme,
    range: QRange,
}

impl QParams {
    /// Parameters from their parts.
    ///
    /// # Errors
    ///
    /// [`FormatError::Scale`] unless the scale is positive and finite, [`FormatError::ZeroPoint`]
    /// unless the zero point is in the range of type and scheme (for [`Scheme::Symmetric`]: its
    /// middle), [`FormatError::NotAnInteger`] for floating-point types.
    #[inline]
    pub fn new(
        scale: f32,
        zero_point: i32,
        dtype: DType,
        scheme: Scheme,
    ) -> Result<QParams, FormatError> {
        let range = QRange::new(dtype, scheme)?;
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(FormatError::Scale { given: scale });
        }
        let (min, max) = match scheme {
            Scheme::Affine => (range.min(), range.max()),
            Scheme::Symmetric => (range.middle(), range.middle()),
        };
        if !(min..=max).contains(&zero_point) {
            return Err(FormatError::ZeroPoint {
                given: zero_point,
                min,
                max,
                dtype,
                scheme,
            });
        }
        Ok(QParams {
            scale,
            zero_point,
            dtype,
            scheme,
            range,
        })
    }

    /// Parameters that cover the real range `[min, max]`.
    ///
    /// The range is widened to hold 0. In f64, with `[qmin, qmax]` the integers of the scheme:
    ///
    /// * affine: `S = (max − min) / (qmax − qmin)`, `Z = saturate(rne(qmin − min / S))` with the
    ///   unrounded `S` (Jacob et al. 2018, arXiv 1712.05877, §2.1; rounding as ONNX Runtime);
    /// * symmetric: `S = max(|min|, |max|) / (qmax − Z)`, `Z` the middle of the range.
    ///
    /// `S` is then stored as f32. A range of zero width and one whose scale would be subnormal
    /// give `S = 1` and the `Z` of the symmetric scheme (affine: 0, or the nearest value to it),
    /// because every value of such a tensor rounds to zero.
    ///
    /// # Errors
    ///
    /// [`FormatError::Range`] when an end is not finite or `min > max`,
    /// [`FormatError::NotAnInteger`] for floating-point types.
    #[inline]
    pub fn from_range(
        min: f32,
        max: f32,
        dtype: DType,
        scheme: Scheme,
    ) -> Result<QParams, FormatError> {
        let range = QRange::new(dtype, scheme)?;
        if !(min.is_finite() && max.is_finite() && min <= max) {
            return Err(FormatError::Range { min, max });
        }
        let (a, b) = (f64::from(min.min(0.0)), f64::from(max.max(0.0)));
        let exact = match scheme {
            Scheme::Affine => (b - a) / f64::from(range.steps()),
            Scheme::Symmetric => {
                let half = i64::from(range.max()) - i64::from(range.middle());
                (-a).max(b) / half as f64
            }
        };
        let scale = exact as f32;
        if scale < f32::MIN_POSITIVE {
            let zero_point = match scheme {
                Scheme::Affine => range.saturate(0),
                Scheme::Symmetric => range.middle(),
            };
            return Ok(QParams {
                scale: 1.0,
                zero_point,
                dtype,
                scheme,
                range,
            });
        }
        let zero_point = match scheme {
            Scheme::Affine => range.saturate(libm::rint(f64::from(range.min()) - a / exact) as i64),
            Scheme::Symmetric => range.middle(),
        };
        let mut p = QParams {
            scale,
            zero_point,
            dtype,
            scheme,
            range,
        };
        // Rounding of the scale or the zero point can put the ends of the very largest ranges
        // beyond the finite numbers: the largest scale that does not is then the nearest one.
        let side = |q: i32| (i64::from(q) - i64::from(zero_point)).unsigned_abs() as f32;
        let longest = side(range.min()).max(side(range.max()));
        if !(p.scale * longest).is_finite() {
            p.scale = f32::MAX / longest;
            while !(p.scale * longest).is_finite() {
                p.scale = p.scale.next_down(); // the division rounded up: one step does
            }
        }
        Ok(p)
    }

    /// Step between neighbouring values, in the unit of the real numbers.
    #[must_use]
    #[inline]
    pub const fn scale(&self) -> f32 {
        self.scale
    }

    /// The integer that stands for 0.0.
    #[must_use]
    #[inline]
    pub const fn zero_point(&self) -> i32 {
        self.zero_point
    }

    /// Element type of the integers.
    #[must_use]
    #[inline]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Scheme that the parameters belong to.
    #[must_use]
    #[inline]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The integers in use.
    #[must_use]
    #[inline]
    pub const fn range(&self) -> QRange {
        self.range
    }

    /// `saturate(rne(x / S) + Z)`, ONNX `QuantizeLinear`'s order; ±∞ saturates, NaN gives the
    /// lowest value.
    ///
    /// ```
    /// use qformat::{DType, QParams, Scheme};
    /// let p = QParams::new(0.5, 0, DType::I8, Scheme::Symmetric)?;
    /// assert_eq!(p.quantize(1.25), 2); // 2.5 rounds to even
    /// assert_eq!(p.quantize(f32::NEG_INFINITY), -127);
    /// assert_eq!(p.quantize(f32::NAN), -127);
    /// # Ok::<(), qformat::FormatError>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn quantize(&self, x: f32) -> i32 {
        round_to_range(x / self.scale, self.zero_point, self.range)
    }

    /// `S · (q − Z)`: the difference in i32 (i64 where i32 could not hold it), one f32 rounding
    /// of the difference where it exceeds 2^24 and one of the product.
    #[must_use]
    #[inline]
    pub fn dequantize(&self, q: i32) -> f32 {
        (i64::from(q) - i64::from(self.zero_point)) as f32 * self.scale
    }

    /// `dequantize(quantize(x))`: the value that `x` becomes.
    #[must_use]
    #[inline]
    pub fn fake_quantize(&self, x: f32) -> f32 {
        self.dequantize(self.quantize(x))
    }

    /// The lowest and the highest real number that is representable: outside, values clip.
    #[must_use]
    #[inline]
    pub fn clip_bounds(&self) -> (f32, f32) {
        (
            self.dequantize(self.range.min()),
            self.dequantize(self.range.max()),
        )
    }

    /// What quantization adds to a finite `x`: `fake_quantize(x) − x`, in f64. Inside the clip
    /// bounds its magnitude is at most `S / 2` (plus the rounding of the f32 division).
    #[must_use]
    #[inline]
    pub fn error(&self, x: f32) -> f64 {
        f64::from(self.fake_quantize(x)) - f64::from(x)
    }
}

/// The parts of [`QParams`] as files carry them, before validation.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Unchecked {
    scale: f32,
    zero_point: i32,
    dtype: DType,
    scheme: Scheme,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for QParams {
    type Error = FormatError;

    fn try_from(u: Unchecked) -> Result<QParams, FormatError> {
        QParams::new(u.scale, u.zero_point, u.dtype, u.scheme)
    }
}

#[cfg(feature = "serde")]
impl From<QParams> for Unchecked {
    fn from(p: QParams) -> Unchecked {
        Unchecked {
            scale: p.scale,
            zero_point: p.zero_point,
            dtype: p.dtype,
            scheme: p.scheme,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTS: [DType; 7] = [
        DType::I4,
        DType::U4,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
    ];

    fn any_params() -> impl Strategy<Value = QParams> {
        (
            prop_oneof![
                any::<f32>(),
                -10f32..10.0,
                Just(0.0),
                Just(f32::MIN),
                Just(1e-42)
            ],
            prop_oneof![
                any::<f32>(),
                -10f32..10.0,
                Just(0.0),
                Just(f32::MAX),
                Just(1e-42)
            ],
            prop::sample::select(&INTS[..]),
            prop_oneof![Just(Scheme::Affine), Just(Scheme::Symmetric)],
        )
            .prop_filter_map("finite range", |(a, b, dtype, scheme)| {
                let (min, max) = if a <= b { (a, b) } else { (b, a) };
                QParams::from_range(min, max, dtype, scheme).ok()
            })
    }

    #[test]
    fn rne_is_round_half_to_even_for_every_half_and_its_neighbours() {
        for i in -1_000i32..1_000 {
            let tie = i as f32 + 0.5;
            let even = if i % 2 == 0 { i } else { i + 1 } as f32;
            assert_eq!(rne(tie), even, "{tie}");
            assert_eq!(rne(tie.next_up()), (i + 1) as f32);
            assert_eq!(rne(tie.next_down()), i as f32);
        }
        assert_eq!(rne(8_388_609.0), 8_388_609.0);
        assert!(rne(f32::NAN).is_nan());
    }

    #[test]
    fn construction_rejects_what_the_contract_forbids() {
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, -0.0] {
            let e = QParams::new(scale, 0, DType::I8, Scheme::Affine).unwrap_err();
            assert!(matches!(e, FormatError::Scale { .. }), "{scale}");
        }
        assert!(QParams::new(1.0, 256, DType::U8, Scheme::Affine).is_err());
        assert!(QParams::new(1.0, -1, DType::U8, Scheme::Affine).is_err());
        assert!(QParams::new(1.0, 1, DType::I8, Scheme::Symmetric).is_err());
        assert!(QParams::new(1.0, 128, DType::U8, Scheme::Symmetric).is_ok());
        assert!(QParams::new(1.0, 0, DType::F16, Scheme::Affine).is_err());
        for (min, max) in [(f32::NAN, 1.0), (0.0, f32::INFINITY), (1.0, -1.0)] {
            assert!(QParams::from_range(min, max, DType::I8, Scheme::Affine).is_err());
        }
    }

    #[test]
    fn degenerate_ranges_have_unit_scale() {
        for (a, b) in [(0.0, 0.0), (1e-45, 1e-44), (-1e-40, 0.0)] {
            for dtype in INTS {
                let p = QParams::from_range(a, b, dtype, Scheme::Affine).unwrap();
                assert_eq!((p.scale(), p.zero_point()), (1.0, 0));
                let p = QParams::from_range(a, b, dtype, Scheme::Symmetric).unwrap();
                assert_eq!((p.scale(), p.zero_point()), (1.0, p.range().middle()));
            }
        }
    }

    #[test]
    fn the_largest_ranges_keep_finite_ends() {
        for dtype in INTS {
            for (a, b) in [
                (f32::MIN, f32::MAX),
                (0.0, f32::MAX),
                (f32::MIN, 0.0),
                (-1.0, f32::MAX),
            ] {
                for scheme in [Scheme::Affine, Scheme::Symmetric] {
                    let p = QParams::from_range(a, b, dtype, scheme).unwrap();
                    let (lo, hi) = p.clip_bounds();
                    // An affine range from end to end spans twice what f32 holds on one side
                    // only where its zero point is in the middle.
                    assert!(
                        lo.is_finite() && hi.is_finite(),
                        "{dtype} {scheme} {a} {b}: {lo} {hi}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_order_is_round_add_saturate() {
        let p = QParams::new(1.0, 1, DType::U8, Scheme::Affine).unwrap();
        assert_eq!(p.quantize(0.5), 1); // rne(0.5) = 0, then + 1
        assert_eq!(p.quantize(1.5), 3);
        assert_eq!(p.quantize(-1.0), 0);
        assert_eq!(p.quantize(-2.0), 0);
        assert_eq!(p.quantize(254.0), 255);
        assert_eq!(p.quantize(f32::INFINITY), 255);
    }

    #[test]
    fn requantize_rounds_ties_to_even_and_saturates() {
        let r = QRange::new(DType::I8, Scheme::Affine).unwrap();
        assert_eq!(requantize(5, 0.5, 0, r), 2);
        assert_eq!(requantize(7, 0.5, 0, r), 4);
        assert_eq!(requantize(i32::MAX, 1.0, -128, r), 127);
        assert_eq!(requantize(i32::MIN, 1.0, 127, r), -128);
        assert_eq!(requantize(i32::MIN, f32::MAX, i32::MAX, r), -128);
    }

    proptest! {
        #[test]
        fn zero_is_exact_and_order_is_kept(p in any_params(), x in any::<f32>(), y in any::<f32>()) {
            prop_assert_eq!(p.quantize(0.0), p.zero_point());
            prop_assert_eq!(p.dequantize(p.zero_point()), 0.0);
            prop_assert!(p.range().contains(p.quantize(x)));
            if x <= y {
                prop_assert!(p.quantize(x) <= p.quantize(y));
            }
        }

        #[test]
        fn error_inside_the_clip_bounds_is_half_a_step(p in any_params(), t in 0f64..1.0) {
            // Types wider than f32's significand round twice, so the bound is for the narrow ones.
            prop_assume!(p.dtype().bits() <= 16);
            let (lo, hi) = p.clip_bounds();
            prop_assume!(lo.is_finite() && hi.is_finite());
            let x = (f64::from(lo) + t * (f64::from(hi) - f64::from(lo))) as f32;
            let step = f64::from(p.scale());
            prop_assert!(p.error(x).abs() <= 0.5 * step * (1.0 + 1e-2) + f64::from(f32::MIN_POSITIVE),
                "{p:?} {x} {}", p.error(x));
        }

        #[test]
        fn every_value_of_the_type_survives_a_round_trip(p in any_params(), q in any::<i32>()) {
            prop_assume!(p.dtype().bits() <= 16);
            let q = p.range().saturate(i64::from(q));
            prop_assume!(p.dequantize(q).is_finite());
            prop_assert_eq!(p.quantize(p.dequantize(q)), q);
        }

        #[test]
        fn the_range_given_is_covered_to_half_a_step(
            a in -100f32..100.0, b in -100f32..100.0,
            scheme in prop_oneof![Just(Scheme::Affine), Just(Scheme::Symmetric)],
        ) {
            let (min, max) = if a <= b { (a, b) } else { (b, a) };
            let p = QParams::from_range(min, max, DType::U8, scheme).unwrap();
            let (lo, hi) = p.clip_bounds();
            let slack = 0.51 * p.scale();
            prop_assert!(lo - slack <= min && max <= hi + slack);
        }
    }
}
