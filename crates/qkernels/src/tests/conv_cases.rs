//! Random convolutions, and the plain scalar code that they must equal.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use proptest::prelude::*;

use super::data::Rng;
use crate::{
    ConvShape, Epilogue, Lhs, MatMut, MatRef, OutMut, OutParams, Scale, ZeroPoint, ZeroPoints,
};

/// Which inputs a convolution has. Channels are those of each group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) shape: ConvShape,
    pub(super) groups: usize,
    pub(super) channels: usize,
    pub(super) outputs: usize,
    /// Unused elements between pixels.
    pub(super) gap: usize,
    pub(super) x_zero: bool,
    /// 0: none, 1: per tensor, 2: vector.
    pub(super) w_zero: u8,
    pub(super) scale: u8,
    pub(super) bias: bool,
    pub(super) bias_f32: bool,
    pub(super) clamp: bool,
    pub(super) table: bool,
    /// i32, f32, u8, i8.
    pub(super) output: u8,
    pub(super) seed: u64,
}

/// Shapes that a window fits, small enough for scalar code.
pub(super) fn any_shape() -> impl Strategy<Value = ConvShape> {
    let axis = || {
        (
            1usize..=5,
            1usize..=3,
            1usize..=3,
            0usize..=3,
            0usize..=3,
            0usize..=24,
        )
    };
    (1usize..=2, axis(), axis()).prop_map(|(n, y, x)| {
        let input = |(k, _, d, p, q, more): (usize, usize, usize, usize, usize, usize)| {
            ((k - 1) * d + 1).saturating_sub(p + q) + more
        };
        ConvShape {
            input: [n, input(y), input(x)],
            kernel: [y.0, x.0],
            strides: [y.1, x.1],
            dilations: [y.2, x.2],
            pads: [y.3, x.3, y.4, x.4],
        }
    })
}

pub(super) fn any_case() -> impl Strategy<Value = Case> {
    (
        any_shape(),
        (
            1usize..=3,
            // Whole groups are read in place.
            prop_oneof![1usize..=9, (1usize..=5).prop_map(|groups| 4 * groups)],
            1usize..=20,
            0usize..3,
            any::<u64>(),
        ),
        (any::<[bool; 5]>(), 0u8..3, 0u8..3, 0u8..4),
    )
        .prop_map(
            |(shape, (groups, channels, outputs, gap, seed), (flags, w_zero, scale, output))| {
                Case {
                    shape,
                    groups,
                    channels,
                    outputs,
                    gap,
                    x_zero: flags[0],
                    w_zero,
                    scale,
                    bias: flags[1],
                    bias_f32: flags[2],
                    clamp: flags[3],
                    table: flags[4],
                    output,
                    seed,
                }
            },
        )
}

/// The operands of a case.
pub(super) struct Inputs<A> {
    pub(super) case: Case,
    /// Pixels with `groups · channels` channels, and their distance.
    pub(super) x: Vec<A>,
    pub(super) x_stride: usize,
    /// `groups · outputs` rows of taps, each of `channels` (that is OHWI).
    pub(super) w: Vec<i8>,
    x_zero: i32,
    w_zero: Vec<i32>,
    bias: Vec<i32>,
    scale: Vec<f32>,
    bias_f32: Vec<f32>,
    table: [u8; 256],
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Int(i32),
    Bits(u32),
}

impl<A: Lhs + Debug> Inputs<A> {
    pub(super) fn new(case: Case, from_byte: fn(u8) -> A) -> Self {
        let mut rng = Rng(case.seed);
        let [n, h, w] = case.shape.input;
        let (all, outputs) = (case.groups * case.channels, case.groups * case.outputs);
        let x_stride = all + case.gap;
        let x = rng.bytes(n * h * w * x_stride).into_iter().map(from_byte);
        let x = x.collect();
        let taps = case.shape.kernel[0] * case.shape.kernel[1];
        let count = outputs * taps * case.channels;
        let weights = match rng.below(2) {
            0 => rng.bytes(count),
            _ => rng.weights(count).into_iter().map(|w| w as u8).collect(),
        };
        let mut float = |spread: f32| (rng.next() as i32 as f32) / 2f32.powi(31) * spread;
        let scale = (0..outputs).map(|_| float(0.02)).collect();
        let bias_f32 = (0..outputs).map(|_| float(100.0)).collect();
        Inputs {
            case,
            x,
            x_stride,
            w: weights.into_iter().map(|b| b as i8).collect(),
            x_zero: if case.x_zero {
                from_byte(rng.next() as u8).to_i32()
            } else {
                0
            },
            w_zero: (0..outputs).map(|_| rng.below(512) as i32 - 256).collect(),
            bias: (0..outputs).map(|_| rng.next() as i32 >> 12).collect(),
            scale,
            bias_f32,
            table: core::array::from_fn(|i| (i * 7 + 3) as u8),
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.case.groups * self.case.outputs
    }

    pub(super) fn x(&self) -> MatRef<'_, A> {
        let [n, h, w] = self.case.shape.input;
        let cols = self.case.groups * self.case.channels;
        MatRef::with_stride(&self.x, n * h * w, cols, self.x_stride).unwrap()
    }

    pub(super) fn zero_points(&self) -> ZeroPoints<'_> {
        ZeroPoints {
            a: ZeroPoint::Tensor(self.x_zero),
            b: match self.case.w_zero {
                0 => ZeroPoint::Tensor(0),
                1 => ZeroPoint::Tensor(self.w_zero[0]),
                _ => ZeroPoint::Vector(&self.w_zero),
            },
        }
    }

    pub(super) fn epilogue(&self) -> Epilogue<'_> {
        let floats = self.case.output != 0;
        Epilogue {
            bias: self.case.bias.then_some(&self.bias),
            scale: match self.case.scale {
                1 if floats => Scale::Tensor(self.scale[0]),
                2 if floats => Scale::Channel(&self.scale),
                _ => Scale::None,
            },
            bias_f32: (self.case.bias_f32 && floats).then_some(&self.bias_f32),
            clamp: (self.case.clamp && self.case.output == 1).then_some((-3.0, 250.5)),
            // Takes sums through memory.
            table: (self.case.table && self.case.output >= 2).then_some(&self.table),
            ..Epilogue::default()
        }
    }

    fn params(&self) -> OutParams {
        let clamp = self.case.clamp;
        if self.case.output == 2 {
            OutParams {
                zero_point: 7,
                min: if clamp { 7 } else { 0 },
                max: 255,
            }
        } else {
            OutParams {
                zero_point: -5,
                min: if clamp { 3 } else { -128 },
                max: if clamp { 90 } else { 127 },
            }
        }
    }

    /// The exact sum of an output element, bias included.
    fn sum(&self, [image, oy, ox]: [usize; 3], column: usize) -> i32 {
        let Case {
            shape,
            channels,
            outputs,
            ..
        } = self.case;
        let [_, height, width] = shape.input;
        let zb = self.zero_points().b.at(column);
        let mut sum = if self.case.bias {
            i64::from(self.bias[column])
        } else {
            0
        };
        for ky in 0..shape.kernel[0] {
            for kx in 0..shape.kernel[1] {
                let y =
                    (oy * shape.strides[0] + ky * shape.dilations[0]).checked_sub(shape.pads[0]);
                let x =
                    (ox * shape.strides[1] + kx * shape.dilations[1]).checked_sub(shape.pads[1]);
                let (Some(y), Some(x)) = (y, x) else { continue };
                if y >= height || x >= width {
                    continue;
                }
                let pixel = (image * height + y) * width + x;
                let first = column / outputs * channels;
                let tap = (column * shape.kernel[0] + ky) * shape.kernel[1] + kx;
                for c in 0..channels {
                    let a = i64::from(self.x[pixel * self.x_stride + first + c].to_i32());
                    let w = i64::from(self.w[tap * channels + c]);
                    sum += (a - i64::from(self.x_zero)) * (w - i64::from(zb));
                }
            }
        }
        i32::try_from(sum).unwrap()
    }

    fn expected(&self, at: [usize; 3], column: usize) -> Value {
        let acc = self.sum(at, column);
        if self.case.output == 0 {
            return Value::Int(acc);
        }
        let epilogue = self.epilogue();
        let scale = match epilogue.scale {
            Scale::None => 1.0,
            Scale::Tensor(s) => s,
            Scale::Channel(s) => s[column],
        };
        let mut v = acc as f32 * scale;
        if let Some(b) = epilogue.bias_f32 {
            v += b[column];
        }
        if self.case.output == 1 {
            if let Some((lo, hi)) = epilogue.clamp {
                v = if v > lo { v } else { lo };
                v = if v < hi { v } else { hi };
            }
            return Value::Bits(v.to_bits());
        }
        let p = self.params();
        let q = (qformat::rne(v) as i64).saturating_add(p.zero_point.into());
        let q = q.clamp(p.min.into(), p.max.into()) as i32;
        let Some(table) = epilogue.table else {
            return Value::Int(q);
        };
        let byte = table[usize::from(q as u8)];
        Value::Int(if self.case.output == 2 {
            byte.into()
        } else {
            (byte as i8).into()
        })
    }

    /// Runs the convolution and compares every element, and every gap, with scalar code.
    pub(super) fn check(&self, name: &str, run: impl FnOnce(OutMut<'_>)) {
        let [images, height, width] = self.case.shape.output().unwrap();
        let (rows, cols) = (images * height * width, self.columns());
        let stride = cols + self.case.gap;
        let params = self.params();
        macro_rules! compare {
            ($elem:ty, $mark:expr, $out:expr, $value:expr) => {{
                let mark: $elem = $mark;
                let mut data = vec![mark; rows * stride + 5];
                run($out(
                    MatMut::with_stride(&mut data, rows, cols, stride).unwrap(),
                ));
                for (i, &v) in data.iter().enumerate() {
                    let (row, column) = (i / stride, i % stride);
                    if row < rows && column < cols {
                        let at = [row / (height * width), row / width % height, row % width];
                        let expected = self.expected(at, column);
                        assert_eq!(
                            $value(v),
                            expected,
                            "{name}, {at:?} {column}: {:?}",
                            self.case
                        );
                    } else {
                        assert_eq!(v, mark, "{name} wrote to a gap: {:?}", self.case);
                    }
                }
            }};
        }
        match self.case.output {
            0 => compare!(i32, 0x5a5a_5a5a, OutMut::I32, Value::Int),
            1 => compare!(f32, 1.5e30, OutMut::F32, |v: f32| Value::Bits(v.to_bits())),
            2 => compare!(u8, 0x5a, |c| OutMut::U8(c, params), |v: u8| Value::Int(
                v.into()
            )),
            _ => compare!(i8, 0x5a, |c| OutMut::I8(c, params), |v: i8| Value::Int(
                v.into()
            )),
        }
    }
}
