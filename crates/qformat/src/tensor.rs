//! Whole tensors: parameters at any granularity, and the reference loops over them.

use alloc::vec::Vec;

use crate::granularity::element_count;
use crate::{DType, FormatError, Granularity, QParams, QuantElement, Scheme};

/// What a user asks for, before any range is known: type, scheme and granularity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QuantSpec {
    /// Element type of the integers.
    pub dtype: DType,
    /// Affine or symmetric.
    pub scheme: Scheme,
    /// Which elements share a scale.
    pub granularity: Granularity,
}

/// The parameters of a tensor: one [`QParams`] for every group of its [`Granularity`], all of one
/// type and scheme.
///
/// Fitting a shape is checked where a shape meets them.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorQParams {
    granularity: Granularity,
    params: Vec<QParams>,
}

impl TensorQParams {
    /// Parameters of a tensor from those of its groups, in the order of
    /// [`Granularity::runs`]' group indices.
    ///
    /// # Errors
    ///
    /// [`FormatError::Count`] for none, or other than one when `granularity` is per tensor;
    /// [`FormatError::Mixed`] when types or schemes differ.
    pub fn new(granularity: Granularity, params: Vec<QParams>) -> Result<Self, FormatError> {
        let expected = match granularity {
            Granularity::PerTensor => 1,
            _ => params.len().max(1),
        };
        if params.len() != expected {
            return Err(FormatError::Count {
                what: "quantization parameters",
                given: params.len(),
                expected,
            });
        }
        let first = params[0];
        match params
            .iter()
            .find(|p| (p.dtype(), p.scheme()) != (first.dtype(), first.scheme()))
        {
            Some(p) => Err(FormatError::Mixed {
                given: p.dtype(),
                expected: first.dtype(),
            }),
            None => Ok(TensorQParams {
                granularity,
                params,
            }),
        }
    }

    /// One pair for the whole tensor.
    #[must_use]
    pub fn per_tensor(params: QParams) -> Self {
        TensorQParams {
            granularity: Granularity::PerTensor,
            params: alloc::vec![params],
        }
    }

    /// Parameters that cover the exact minimum and maximum of every group of `x`.
    ///
    /// # Errors
    ///
    /// [`FormatError::Count`] when `x` does not fill `shape`, [`FormatError::Range`] for
    /// non-finite elements, and the errors of [`Granularity::groups`].
    pub fn from_data(x: &[f32], shape: &[usize], spec: QuantSpec) -> Result<Self, FormatError> {
        check_len("elements", x.len(), shape)?;
        // A group without elements keeps the degenerate range [0, 0].
        let mut ranges = alloc::vec![(0f32, 0f32); spec.granularity.groups(shape)?];
        for (group, run) in spec.granularity.runs(shape)? {
            for &v in &x[run] {
                if !v.is_finite() {
                    return Err(FormatError::Range { min: v, max: v });
                }
                let (lo, hi) = &mut ranges[group];
                *lo = lo.min(v);
                *hi = hi.max(v);
            }
        }
        let params = ranges
            .into_iter()
            .map(|(lo, hi)| QParams::from_range(lo, hi, spec.dtype, spec.scheme))
            .collect::<Result<Vec<_>, _>>()?;
        TensorQParams::new(spec.granularity, params)
    }

    /// Which elements share a pair.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The pairs, in the order of the groups.
    #[must_use]
    pub fn params(&self) -> &[QParams] {
        &self.params
    }

    /// Element type of the integers.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.params[0].dtype()
    }

    /// Scheme of all pairs.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.params[0].scheme()
    }

    /// The scales alone.
    pub fn scales(&self) -> impl Iterator<Item = f32> + '_ {
        self.params.iter().map(QParams::scale)
    }

    /// The zero points alone.
    pub fn zero_points(&self) -> impl Iterator<Item = i32> + '_ {
        self.params.iter().map(QParams::zero_point)
    }

    fn check(&self, what: &'static str, len: usize, shape: &[usize]) -> Result<(), FormatError> {
        check_len(what, len, shape)?;
        let expected = self.granularity.groups(shape)?;
        if expected == self.params.len() {
            Ok(())
        } else {
            Err(FormatError::Count {
                what: "quantization parameters",
                given: self.params.len(),
                expected,
            })
        }
    }

    fn check_type<T: QuantElement>(&self) -> Result<(), FormatError> {
        if T::DTYPE == self.dtype() {
            Ok(())
        } else {
            Err(FormatError::Mixed {
                given: T::DTYPE,
                expected: self.dtype(),
            })
        }
    }

    /// Quantizes a row-major tensor, value by value.
    ///
    /// # Errors
    ///
    /// When `x` does not fill `shape`, the parameters do not fit it, or `T` is not their type.
    pub fn quantize<T: QuantElement>(
        &self,
        x: &[f32],
        shape: &[usize],
    ) -> Result<Vec<T>, FormatError> {
        self.check("elements", x.len(), shape)?;
        self.check_type::<T>()?;
        let mut out = Vec::with_capacity(x.len());
        for (group, run) in self.granularity.runs(shape)? {
            let p = &self.params[group];
            out.extend(x[run].iter().map(|&v| T::saturate(p.quantize(v))));
        }
        Ok(out)
    }

    /// Dequantizes a row-major tensor, value by value.
    ///
    /// # Errors
    ///
    /// As [`quantize`](Self::quantize).
    pub fn dequantize<T: QuantElement>(
        &self,
        q: &[T],
        shape: &[usize],
    ) -> Result<Vec<f32>, FormatError> {
        self.check("elements", q.len(), shape)?;
        self.check_type::<T>()?;
        let mut out = Vec::with_capacity(q.len());
        for (group, run) in self.granularity.runs(shape)? {
            let p = &self.params[group];
            out.extend(q[run].iter().map(|&v| p.dequantize(v.to_i32())));
        }
        Ok(out)
    }
}

fn check_len(what: &'static str, given: usize, shape: &[usize]) -> Result<(), FormatError> {
    let expected = element_count(shape)?;
    if given == expected {
        Ok(())
    } else {
        Err(FormatError::Count {
            what,
            given,
            expected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn per_channel_uses_each_channels_own_scale() {
        let spec = QuantSpec {
            dtype: DType::I8,
            scheme: Scheme::Symmetric,
            granularity: Granularity::PerChannel { axis: 0 },
        };
        let x = [1.0, -0.5, 100.0, -50.0];
        let p = TensorQParams::from_data(&x, &[2, 2], spec).unwrap();
        assert_eq!(p.quantize::<i8>(&x, &[2, 2]).unwrap(), [127, -64, 127, -64]);
        assert!(p.quantize::<u8>(&x, &[2, 2]).is_err());
        assert!(p.quantize::<i8>(&x, &[4, 1]).is_err());
        assert!(p.quantize::<i8>(&x[..3], &[2, 2]).is_err());
    }

    #[test]
    fn parameters_must_agree() {
        let a = QParams::new(1.0, 0, DType::I8, Scheme::Affine).unwrap();
        let b = QParams::new(1.0, 0, DType::U8, Scheme::Affine).unwrap();
        let per_channel = Granularity::PerChannel { axis: 0 };
        assert!(TensorQParams::new(per_channel, vec![a, b]).is_err());
        assert!(TensorQParams::new(per_channel, vec![]).is_err());
        assert!(TensorQParams::new(Granularity::PerTensor, vec![a, a]).is_err());
    }

    proptest! {
        #[test]
        fn a_round_trip_errs_by_half_a_step(
            shape in prop::collection::vec(0usize..5, 1..4),
            axis in 0usize..3,
            block in 1usize..4,
            kind in 0..3,
            seed in any::<u64>(),
        ) {
            let axis = axis % shape.len();
            let granularity = match kind {
                0 => Granularity::PerTensor,
                1 => Granularity::PerChannel { axis },
                _ => Granularity::PerBlock { axis, block },
            };
            prop_assume!(granularity.groups(&shape).unwrap() > 0);
            let spec = QuantSpec { dtype: DType::U8, scheme: Scheme::Affine, granularity };
            let n = element_count(&shape).unwrap();
            let mut s = seed;
            let x: Vec<f32> = (0..n).map(|_| {
                s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((s >> 40) as f32 / 8_388_608.0 - 1.0) * 7.0
            }).collect();
            let p = TensorQParams::from_data(&x, &shape, spec).unwrap();
            let q = p.quantize::<u8>(&x, &shape).unwrap();
            let y = p.dequantize(&q, &shape).unwrap();
            let widest = p.scales().fold(0f32, f32::max);
            // A zero point is rounded, so an end of the range may clip by half a step more.
            for (a, b) in x.iter().zip(&y) {
                prop_assert!((a - b).abs() <= 1.01 * widest);
            }
        }
    }
}
