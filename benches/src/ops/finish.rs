//! What becomes of the sums of a product, in our words and in the peers'.

use clap::ValueEnum;
use qkernels::{Epilogue, KernelError, MatMut, OutMut, OutParams, Scale, ZeroPoint, ZeroPoints};

use crate::data::Source;
use crate::peer::{Finish, Requantize, Scaled};
use crate::values::Values;

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Stored as they are: i32 for integers, f32 for floats.
    #[value(name = "i32", alias = "sums")]
    Sums,
    /// Zero points of both sides, bias, a scale for each channel, requantized.
    U8,
    /// Zero points of both sides, bias, a scale for each channel, `ReLU`.
    F32,
}

impl Output {
    /// The name of its element type, where sums are of type `sums`.
    pub(super) fn name(self, sums: &'static str) -> &'static str {
        match self {
            Output::Sums => sums,
            Output::U8 => "u8",
            Output::F32 => "f32",
        }
    }
}

/// How far full-range bytes deviate from their middle.
pub(super) const FROM_MIDDLE: f32 = 74.0;

/// How far u8 deviate from 0.
pub(super) const FROM_ZERO: f32 = 147.0;

/// What is done to the sums of one product, and the numbers for it.
#[derive(Debug, Clone)]
pub(super) struct Finishing {
    output: Output,
    /// Those of A, of B and of u8 results, where they are used.
    zero_points: [i32; 3],
    /// Whether sums are f32, not integers.
    float: bool,
    scales: Vec<f32>,
    bias: Vec<i32>,
}

impl Finishing {
    /// For sums of `k` products in each of `n` channels, of an A that deviates by `deviation` from
    /// its zero point.
    pub(super) fn new(
        output: Output,
        (k, n): (usize, usize),
        zero_points: [i32; 3],
        deviation: f32,
        float: bool,
        source: &mut Source,
    ) -> Self {
        // Weights are full-range bytes around their zero point at the most. This brings the deviation
        // of the sums to between 32 and 64 output steps: few outputs saturate.
        let deviation = deviation * FROM_MIDDLE * (k as f32).sqrt();
        let scales = (0..n)
            .map(|j| 32.0 * (1.0 + j as f32 / n as f32) / deviation)
            .collect();
        let bias = source.sums(n).into_iter().map(|sum| sum >> 8).collect();
        Self {
            output,
            zero_points,
            float,
            scales,
            bias,
        }
    }

    /// In the peers' words.
    pub(super) fn of_peers(&self) -> Finish<'_> {
        let output = match self.output {
            Output::Sums => return Finish::Sums,
            Output::U8 => Requantize::U8(self.zero_points[2]),
            Output::F32 => Requantize::Relu,
        };
        Finish::Scaled(Scaled {
            zero_point_a: self.zero_points[0],
            zero_point_b: self.zero_points[1],
            bias: &self.bias,
            scales: &self.scales,
            output,
        })
    }

    /// In our words.
    pub(super) fn ours(&self) -> (ZeroPoints<'_>, Epilogue<'_>) {
        let zero_points = ZeroPoints {
            a: ZeroPoint::Tensor(self.zero_points[0]),
            b: ZeroPoint::Tensor(self.zero_points[1]),
        };
        let scaled = Epilogue {
            bias: Some(&self.bias),
            scale: Scale::Channel(&self.scales),
            ..Epilogue::default()
        };
        match self.output {
            Output::Sums => (ZeroPoints::default(), Epilogue::default()),
            Output::U8 => (zero_points, scaled),
            Output::F32 => {
                let clamp = Some((0.0, f32::INFINITY));
                (zero_points, Epilogue { clamp, ..scaled })
            }
        }
    }

    /// Memory for so many outputs.
    pub(super) fn out(&self, len: usize) -> Out {
        match (self.output, self.float) {
            (Output::Sums, false) => Out::I32(vec![0; len]),
            (Output::U8, _) => Out::U8(vec![0; len], self.zero_points[2]),
            (Output::F32, _) | (Output::Sums, true) => Out::F32(vec![0.0; len]),
        }
    }
}

/// The result, in whichever type was asked for.
#[derive(Debug, Clone)]
pub(super) enum Out {
    I32(Vec<i32>),
    /// Around this zero point.
    U8(Vec<u8>, i32),
    F32(Vec<f32>),
}

impl Out {
    /// The memory as a kernel takes it: `m` rows of `n`.
    pub(super) fn as_mut(&mut self, m: usize, n: usize) -> Result<OutMut<'_>, KernelError> {
        Ok(match self {
            Out::I32(out) => OutMut::I32(MatMut::new(out, m, n)?),
            Out::F32(out) => OutMut::F32(MatMut::new(out, m, n)?),
            Out::U8(out, zero_point) => {
                let params = OutParams {
                    zero_point: *zero_point,
                    min: 0,
                    max: 255,
                };
                OutMut::U8(MatMut::new(out, m, n)?, params)
            }
        })
    }

    pub(super) fn values(&self) -> Values<'_> {
        match self {
            Out::I32(out) => Values::I32(out),
            Out::U8(out, _) => Values::U8(out),
            Out::F32(out) => Values::F32(out),
        }
    }

    /// A copy of the elements at `places`.
    pub(super) fn at(&self, places: &[usize]) -> Self {
        fn picked<T: Copy>(out: &[T], places: &[usize]) -> Vec<T> {
            places.iter().map(|&at| out[at]).collect()
        }
        match self {
            Out::I32(out) => Out::I32(picked(out, places)),
            Out::U8(out, zero_point) => Out::U8(picked(out, places), *zero_point),
            Out::F32(out) => Out::F32(picked(out, places)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A requantization that always saturates would be another thing to time. Around 0, half of the
    /// results are what a `ReLU` cuts off.
    pub(in crate::ops) fn assert_spread(out: &Out) {
        let Out::U8(out, zero_point) = out else {
            panic!("{out:?} is not of bytes");
        };
        let clamped = out.iter().filter(|&&q| q == 0 || q == 255).count();
        let most = if *zero_point == 0 {
            out.len() * 7 / 10
        } else {
            out.len() / 5
        };
        assert!(clamped < most, "{clamped} of {} are at an end", out.len());
        assert!(out.iter().any(|&q| q.abs_diff(out[0]) > 16));
    }

    #[test]
    fn bytes_deviate_as_far_as_scales_take_them_to() {
        let deviation = |from: f64| {
            let squares = (0..256).map(|byte| (f64::from(byte) - from).powi(2));
            (squares.sum::<f64>() / 256.0).sqrt()
        };
        assert!((deviation(127.5) - f64::from(FROM_MIDDLE)).abs() < 0.5);
        assert!((deviation(0.0) - f64::from(FROM_ZERO)).abs() < 0.5);
    }
}
