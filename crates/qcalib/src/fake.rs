//! Fake quantization: the values that quantization would leave, still as f32.

use alloc::string::ToString;
use qformat::{DType, QParams, QuantElement, TensorQParams};
use qkernels::{Isa, dequantize, quantize};

use crate::CalibError;
use crate::layout::check_len;

/// `out = dequantize(quantize(x))`, bit for bit, at any granularity.
///
/// `x` and `out` are row-major with shape `shape`; the unit is that of `x`. Per value:
/// `S · (saturate(rne(x / S) + Z) − Z)`; ±∞ saturates and NaN becomes the lowest value, as
/// [`QParams::quantize`](qformat::QParams::quantize) defines.
///
/// # Errors
///
/// [`CalibError::Length`] when `x` or `out` does not fill `shape`, [`CalibError::Mismatch`] when
/// the parameters are not as many as the shape has groups, [`CalibError::Format`] for an axis
/// that the shape lacks. `out` is untouched after an error.
///
/// ```
/// use qformat::{DType, QParams, Scheme, TensorQParams};
/// let p = TensorQParams::per_tensor(QParams::new(0.5, 0, DType::I8, Scheme::Symmetric)?);
/// let mut out = [0.0; 3];
/// qcalib::fake_quantize(&[0.7, 1.25, 1000.0], &[3], &p, &mut out)?;
/// assert_eq!(out, [0.5, 1.0, 63.5]);
/// # Ok::<(), qcalib::CalibError>(())
/// ```
pub fn fake_quantize(
    x: &[f32],
    shape: &[usize],
    params: &TensorQParams,
    out: &mut [f32],
) -> Result<(), CalibError> {
    fake_quantize_on(Isa::detect(), x, shape, params, out)
}

/// The same on one tier of instruction sets; none of them changes a bit.
fn fake_quantize_on(
    isa: Isa,
    x: &[f32],
    shape: &[usize],
    params: &TensorQParams,
    out: &mut [f32],
) -> Result<(), CalibError> {
    check_len("x", x.len(), shape)?;
    check_len("out", out.len(), shape)?;
    let granularity = params.granularity();
    let (given, expected) = (params.params().len(), granularity.groups(shape)?);
    if given != expected {
        return Err(CalibError::Mismatch {
            what: "number of quantization parameters",
            given: given.to_string(),
            expected: expected.to_string(),
        });
    }
    for (group, run) in granularity.runs(shape)? {
        let p = &params.params()[group];
        let (x, out) = (&x[run.clone()], &mut out[run]);
        match p.dtype() {
            DType::I8 => through::<i8>(isa, x, p, out)?,
            DType::U8 => through::<u8>(isa, x, p, out)?,
            DType::I16 => through::<i16>(isa, x, p, out)?,
            DType::U16 => through::<u16>(isa, x, p, out)?,
            DType::I32 => through::<i32>(isa, x, p, out)?,
            // No Rust type holds one 4-bit value.
            _ => one_by_one(x, p, out),
        }
    }
    Ok(())
}

/// Values that pass through integers at a time.
const CHUNK: usize = 1024;

/// Runs shorter than this are not worth a call.
const SHORT: usize = 16;

fn one_by_one(x: &[f32], p: &QParams, out: &mut [f32]) {
    for (y, &v) in out.iter_mut().zip(x) {
        *y = p.fake_quantize(v);
    }
}

/// Quantizes to real integers and back, with the kernels.
fn through<T: QuantElement>(
    isa: Isa,
    x: &[f32],
    p: &QParams,
    out: &mut [f32],
) -> Result<(), CalibError> {
    if x.len() < SHORT {
        one_by_one(x, p, out);
        return Ok(());
    }
    let mut q = [T::default(); CHUNK];
    for (x, out) in x.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
        let q = &mut q[..x.len()];
        quantize(isa, x, p, q)?;
        dequantize(isa, q, p, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Levels, Quantizer};
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use qformat::{Granularity, Scheme};

    const SHAPE: [usize; 3] = [2, 3, 133];
    const LEN: usize = 2 * 3 * 133;

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            6 => -60f32..60.0,
            1 => any::<f32>(),
            1 => Just(f32::NAN),
            1 => Just(f32::NEG_INFINITY),
            1 => Just(-0.0),
            3 => (-500i32..500).prop_map(|i| i as f32 / 4.0),
        ]
    }

    fn granularity() -> impl Strategy<Value = Granularity> {
        prop_oneof![
            Just(Granularity::PerTensor),
            (0usize..3).prop_map(|axis| Granularity::PerChannel { axis }),
            (0usize..3, 1usize..150)
                .prop_map(|(axis, block)| Granularity::PerBlock { axis, block }),
        ]
    }

    /// Values to integers of any width that `T` holds, and back, on one tier.
    fn through_integers<T>(isa: Isa, x: &[f32], p: &QParams, l: Levels) -> Vec<f32>
    where
        T: QuantElement + TryFrom<i32>,
        i32: From<T>,
    {
        let mut q = vec![T::default(); x.len()];
        quantize(isa, x, p, &mut q).unwrap();
        for q in &mut q {
            let clamped = i32::from(*q).clamp(l.min(), l.max());
            *q = T::try_from(clamped).unwrap_or(*q);
        }
        let mut y = vec![f32::NAN; x.len()];
        dequantize(isa, &q, p, &mut y).unwrap();
        y
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|v| v.to_bits()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn every_tier_gives_the_bits_of_the_definition(
            granularity in granularity(),
            dtype in prop::sample::select(
                &[DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16, DType::I32][..]),
            symmetric in any::<bool>(),
            x in prop::collection::vec(value(), LEN),
            ends in prop::collection::vec((-50f32..0.0, 0f32..50.0), LEN),
        ) {
            let scheme = if symmetric { Scheme::Symmetric } else { Scheme::Affine };
            let groups = granularity.groups(&SHAPE).unwrap();
            let params: Vec<QParams> = ends[..groups]
                .iter()
                .map(|&(a, b)| QParams::from_range(a, b, dtype, scheme).unwrap())
                .collect();
            let p = TensorQParams::new(granularity, params).unwrap();
            let mut expected = vec![f32::NAN; LEN];
            for (group, run) in granularity.runs(&SHAPE).unwrap() {
                for i in run {
                    let p = &p.params()[group];
                    expected[i] = p.dequantize(p.quantize(x[i]));
                }
            }
            for isa in Isa::available() {
                let mut y = vec![f32::NAN; LEN];
                fake_quantize_on(isa, &x, &SHAPE, &p, &mut y).unwrap();
                prop_assert_eq!(bits(&y), bits(&expected), "{}", isa);
            }
        }

        /// What is trained, at 2 to 16 bits, is what integers give on every tier.
        #[test]
        fn the_forward_of_training_is_that_of_integers_on_every_tier(
            granularity in granularity(), width in 2u32..=16, signed in any::<bool>(),
            symmetric in any::<bool>(),
            x in prop::collection::vec(value(), LEN),
            scales in prop::collection::vec(prop_oneof![Just(0.25f32), 1e-3f32..3.0], LEN),
            zeros in prop::collection::vec(-40_000f32..70_000.0, LEN),
        ) {
            let scheme = if symmetric { Scheme::Symmetric } else { Scheme::Affine };
            let levels = Levels::new(width, signed, scheme).unwrap();
            let groups = granularity.groups(&SHAPE).unwrap();
            let (low, high) = (levels.min() as f32, levels.max() as f32);
            let zeros: Vec<f32> = zeros[..groups]
                .iter()
                .map(|z| libm::rintf(z.clamp(low, high)))
                .collect();
            let q = Quantizer::new(granularity, levels, scales[..groups].to_vec(), zeros.clone()).unwrap();
            let mut y = vec![f32::NAN; LEN];
            q.forward(&x, &SHAPE, &mut y).unwrap();
            let dtype = match (width <= 8, signed) {
                (true, true) => DType::I8,
                (true, false) => DType::U8,
                (false, true) => DType::I16,
                (false, false) => DType::U16,
            };
            for (group, run) in granularity.runs(&SHAPE).unwrap() {
                let zero = zeros[group] as i32;
                let p = QParams::new(scales[group], zero, dtype, Scheme::Affine).unwrap();
                for isa in Isa::available() {
                    let x = &x[run.clone()];
                    let expected = match dtype {
                        DType::I8 => through_integers::<i8>(isa, x, &p, levels),
                        DType::U8 => through_integers::<u8>(isa, x, &p, levels),
                        DType::I16 => through_integers::<i16>(isa, x, &p, levels),
                        _ => through_integers::<u16>(isa, x, &p, levels),
                    };
                    prop_assert_eq!(bits(&y[run.clone()]), bits(&expected), "{}", isa);
                }
            }
        }
    }
}
