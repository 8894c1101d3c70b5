//! Fake quantization equals quantization and dequantization, bit for bit.

use proptest::prelude::*;
use qcalib::{CalibError, fake_quantize};
use qformat::{
    DType, Granularity, QParams, QuantElement, Scheme, TensorQParams, granularity::element_count,
};

fn round_trip<T: QuantElement>(p: &TensorQParams, x: &[f32], shape: &[usize]) -> Vec<f32> {
    p.dequantize(&p.quantize::<T>(x, shape).unwrap(), shape)
        .unwrap()
}

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        5 => -300f32..300.0,
        2 => any::<f32>(),
        1 => Just(f32::NAN),
        1 => Just(f32::INFINITY),
        1 => Just(f32::NEG_INFINITY),
        // Ties.
        3 => (-1000i32..1000).prop_map(|i| i as f32 / 2.0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn equal_to_the_reference(
        shape in prop::collection::vec(0usize..7, 1..4),
        axis in any::<prop::sample::Index>(),
        block in 1usize..4,
        kind in 0..3,
        dtype in prop::sample::select(&[
            DType::I8, DType::U8, DType::I16, DType::U16, DType::I32, DType::I4, DType::U4][..]),
        symmetric in any::<bool>(),
        values in prop::collection::vec(value(), 343),
        ends in prop::collection::vec((-100f32..0.0, 0f32..100.0), 343),
    ) {
        let axis = axis.index(shape.len());
        let granularity = match kind {
            0 => Granularity::PerTensor,
            1 => Granularity::PerChannel { axis },
            _ => Granularity::PerBlock { axis, block },
        };
        let scheme = if symmetric { Scheme::Symmetric } else { Scheme::Affine };
        let groups = granularity.groups(&shape).unwrap();
        prop_assume!(groups > 0);
        let params = ends[..groups]
            .iter()
            .map(|&(a, b)| QParams::from_range(a, b, dtype, scheme).unwrap())
            .collect();
        let p = TensorQParams::new(granularity, params).unwrap();
        let x = &values[..element_count(&shape).unwrap()];
        let mut out = vec![f32::NAN; x.len()];
        fake_quantize(x, &shape, &p, &mut out).unwrap();
        let expected = match dtype {
            DType::I8 => round_trip::<i8>(&p, x, &shape),
            DType::U8 => round_trip::<u8>(&p, x, &shape),
            DType::I16 => round_trip::<i16>(&p, x, &shape),
            DType::U16 => round_trip::<u16>(&p, x, &shape),
            DType::I32 => round_trip::<i32>(&p, x, &shape),
            _ => {
                let mut y = vec![0.0; x.len()];
                for (group, run) in granularity.runs(&shape).unwrap() {
                    for i in run {
                        let p = p.params()[group];
                        y[i] = p.dequantize(p.quantize(x[i]));
                    }
                }
                y
            }
        };
        for (a, b) in out.iter().zip(&expected) {
            prop_assert_eq!(a.to_bits(), b.to_bits());
        }
    }
}

#[test]
fn long_runs_pass_through_the_kernels_unchanged() {
    let x: Vec<f32> = (0..5000).map(|i| (i as f32 - 2500.0) * 0.037).collect();
    let p = TensorQParams::per_tensor(
        QParams::from_range(-50.0, 60.0, DType::U8, Scheme::Affine).unwrap(),
    );
    let mut out = vec![0.0; x.len()];
    fake_quantize(&x, &[5000], &p, &mut out).unwrap();
    assert_eq!(out, round_trip::<u8>(&p, &x, &[5000]));
}

#[test]
fn arguments_are_checked_and_the_output_is_left_alone() {
    let one = QParams::from_range(-1.0, 1.0, DType::I8, Scheme::Symmetric).unwrap();
    let p = TensorQParams::new(Granularity::PerChannel { axis: 0 }, vec![one; 2]).unwrap();
    let mut out = [9.0; 4];
    let x = [0.0; 4];
    assert!(matches!(
        fake_quantize(&x[..3], &[2, 2], &p, &mut out),
        Err(CalibError::Length {
            argument: "x",
            given: 3,
            expected: 4,
            ..
        })
    ));
    assert!(matches!(
        fake_quantize(&x, &[2, 2], &p, &mut out[..3]),
        Err(CalibError::Length {
            argument: "out",
            given: 3,
            expected: 4,
            ..
        })
    ));
    assert!(matches!(
        fake_quantize(&x, &[4, 1], &p, &mut out),
        Err(CalibError::Mismatch {
            what: "number of quantization parameters",
            ..
        })
    ));
    assert!(matches!(
        fake_quantize(&x[..1], &[], &p, &mut out[..1]),
        Err(CalibError::Format(_))
    ));
    assert_eq!(out, [9.0; 4]);
}
