//! Quantize, dequantize, requantize, and what calibration reads of a tensor: range, largest
//! magnitude, histogram.

use qformat::{DType, QParams, QuantElement, Scheme};
use qkernels::{
    AbsMax, HistogramMut, Isa, KernelError, MinMax, abs_max, dequantize, histogram, min_max,
    quantize, requantize,
};

use super::Job;
use super::elementwise::{Alike, Line, Writes, jobs as lines};
use crate::data::Source;
use crate::peer::MapOp;
use crate::sizes::Size;

/// A job for each operation and size.
#[must_use]
pub fn jobs(sizes: &[Size]) -> Vec<Job> {
    let writes = Writes::Each;
    let floats = |len| Source::new(4).f32s(len);
    let sums = |len| Source::new(5).sums(len);
    let u8s = |len| Source::new(6).u8s(len);
    let i8s = |len| Source::new(7).i8s(len);
    let u16s = |len| {
        let pairs = Source::new(9).u8s(2 * len);
        let (pairs, _) = pairs.as_chunks();
        pairs.iter().map(|&pair| u16::from_le_bytes(pair)).collect()
    };
    let i16s = |len| {
        let pairs = Source::new(10).u8s(2 * len);
        let (pairs, _) = pairs.as_chunks();
        pairs.iter().map(|&pair| i16::from_le_bytes(pair)).collect()
    };
    let op = "quantize";
    let mut jobs = Vec::new();
    jobs.extend(lines(
        Line {
            op,
            types: "f32→u8",
            input: floats,
            writes,
            kernel: to::<u8>,
            alike: Alike::new(MapOp::Quantize(params::<u8>())),
        },
        sizes,
    ));
    jobs.extend(lines(
        Line {
            op,
            types: "f32→i8",
            input: floats,
            writes,
            kernel: to::<i8>,
            alike: Alike::new(MapOp::Quantize(params::<i8>())),
        },
        sizes,
    ));
    jobs.extend(lines(
        Line {
            op,
            types: "f32→u16",
            input: floats,
            writes,
            kernel: to::<u16>,
            alike: Alike::new(MapOp::Quantize(params::<u16>())),
        },
        sizes,
    ));
    jobs.extend(lines(
        Line {
            op,
            types: "f32→i16",
            input: floats,
            writes,
            kernel: to::<i16>,
            alike: Alike::new(MapOp::Quantize(params::<i16>())),
        },
        sizes,
    ));
    let op = "dequantize";
    jobs.extend(lines(
        Line {
            op,
            types: "u8→f32",
            input: u8s,
            writes,
            kernel: from::<u8>,
            alike: Alike::new(MapOp::Dequantize(params::<u8>())),
        },
        sizes,
    ));
    jobs.extend(lines(
        Line {
            op,
            types: "i8→f32",
            input: i8s,
            writes,
            kernel: from::<i8>,
            alike: Alike::new(MapOp::Dequantize(params::<i8>())),
        },
        sizes,
    ));
    jobs.extend(lines(
        Line {
            op,
            types: "u16→f32",
            input: u16s,
            writes,
            kernel: from::<u16>,
            alike: Alike::new(MapOp::Dequantize(params::<u16>())),
        },
        sizes,
    ));
    jobs.extend(lines(
        Line {
            op,
            types: "i16→f32",
            input: i16s,
            writes,
            kernel: from::<i16>,
            alike: Alike::new(MapOp::Dequantize(params::<i16>())),
        },
        sizes,
    ));
    let op = "requantize";
    jobs.extend(lines(
        Line {
            op,
            types: "i32→u8",
            input: sums,
            writes,
            kernel: again::<u8>,
            alike: None,
        },
        sizes,
    ));
    jobs.extend(lines(
        Line {
            op,
            types: "i32→i8",
            input: sums,
            writes,
            kernel: again::<i8>,
            alike: None,
        },
        sizes,
    ));
    let (op, writes) = ("min_max", Writes::One);
    jobs.extend(lines(
        Line {
            op,
            types: "f32",
            input: floats,
            writes,
            kernel: range,
            alike: None,
        },
        sizes,
    ));
    let op = "abs_max";
    jobs.extend(lines(
        Line {
            op,
            types: "f32",
            input: floats,
            writes,
            kernel: magnitude,
            alike: None,
        },
        sizes,
    ));
    let op = "histogram";
    jobs.extend(lines(
        Line {
            op,
            types: "f32",
            input: floats,
            writes,
            kernel: fill,
            alike: None,
        },
        sizes,
    ));
    jobs
}

/// A scale that is no power of two, so that rounding happens, and a zero point off the middle.
fn params<T: QuantElement>() -> QParams {
    let (scale, zero_point) = match T::DTYPE {
        DType::U8 => (0.031, 121),
        DType::U16 => (1.1e-4, 32_761),
        DType::I16 => (1.1e-4, -7),
        _ => (0.031, -7),
    };
    QParams::new(scale, zero_point, T::DTYPE, Scheme::Affine)
        .expect("a positive scale and a zero point inside each type")
}

fn to<T: QuantElement>(isa: Isa, x: &[f32], out: &mut [T]) -> Result<(), KernelError> {
    quantize(isa, x, &params::<T>(), out)
}

fn from<T: QuantElement>(isa: Isa, q: &[T], out: &mut [f32]) -> Result<(), KernelError> {
    dequantize(isa, q, &params::<T>(), out)
}

fn again<T: QuantElement>(isa: Isa, acc: &[i32], out: &mut [T]) -> Result<(), KernelError> {
    // Sums reach about ±2^20: most of them stay inside the type's range.
    requantize(isa, acc, 1.1e-4, &params::<T>(), out)
}

fn range(isa: Isa, x: &[f32], out: &mut [MinMax]) -> Result<(), KernelError> {
    out.fill(min_max(isa, x));
    Ok(())
}

fn magnitude(isa: Isa, x: &[f32], out: &mut [AbsMax]) -> Result<(), KernelError> {
    out.fill(abs_max(isa, x));
    Ok(())
}

/// Bins on each side of zero, as the histogram observer has them.
const BINS: usize = 2048;

/// Bins are so wide that all bell-shaped values, none beyond 3.5, fall into them: `2048 · 2^−9`.
const EXPONENT: i32 = -9;

/// Counts, and the room that counting takes.
#[derive(Clone, Default, PartialEq, Debug)]
struct Bins {
    positive: Vec<u64>,
    negative: Vec<u64>,
    scratch: Vec<u16>,
}

/// Adds to the counts: each call once more.
fn fill(isa: Isa, x: &[f32], out: &mut [Bins]) -> Result<(), KernelError> {
    for bins in out {
        bins.positive.resize(BINS, 0);
        bins.negative.resize(BINS, 0);
        let into = HistogramMut {
            exponent: EXPONENT,
            positive: &mut bins.positive,
            negative: &mut bins.negative,
        };
        histogram(isa, x, into, &mut bins.scratch)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_runs_and_is_right() {
        let sizes = [64, 9001].map(|bytes| Size {
            name: bytes.to_string(),
            bytes,
        });
        let jobs = jobs(&sizes);
        assert_eq!(jobs.len(), 26);
        crate::ops::tests::run_all(jobs);
    }

    #[test]
    fn most_values_are_inside_the_range() {
        let x = Source::new(4).f32s(10_000);
        let mut q = vec![0_u8; x.len()];
        let at_an_end = |q: &[u8]| q.iter().filter(|&&q| q == 0 || q == 255).count();
        to(Isa::SCALAR, &x, &mut q).unwrap();
        assert!(at_an_end(&q) < 100);
        again(Isa::SCALAR, &Source::new(5).sums(10_000), &mut q).unwrap();
        assert!(at_an_end(&q) < 1_000);
    }

    #[test]
    fn every_value_falls_into_a_bin() {
        let x = Source::new(4).f32s(10_000);
        let mut out = [Bins::default()];
        fill(Isa::SCALAR, &x, &mut out).unwrap();
        let counted: u64 = out[0].positive.iter().chain(&out[0].negative).sum();
        let zeros = x.iter().filter(|&&x| x == 0.0).count() as u64;
        assert_eq!(counted + zeros, 10_000);
    }
}
