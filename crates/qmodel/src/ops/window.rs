//! The geometry of sliding windows, which convolutions and poolings share.

use super::Spec;
use crate::{Dim, ModelError};

/// How padding is given.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Padding {
    /// Before and after each spatial axis.
    Explicit(Vec<(usize, usize)>),
    /// As much as makes the output `ceil(input / stride)`; the odd one goes to the end, or to the
    /// beginning.
    Same { odd_first: bool },
}

/// The attributes of a sliding window. Spatial axes are one or two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// Empty where the attribute is absent and the weights tell.
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    padding: Padding,
    ceil: bool,
    /// Whether what is padded may not reach the kernel's size (pooling).
    pad_below_kernel: bool,
}

/// One spatial axis of a window on an input of known size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    /// Padding before the first element.
    pub(crate) before: usize,
    /// Padding after the last element.
    pub(crate) after: usize,
}

impl Axis {
    /// An axis of size 1 that the window does not move along.
    pub(crate) const POINT: Axis = Axis {
        input: 1,
        output: 1,
        kernel: 1,
        stride: 1,
        dilation: 1,
        before: 0,
        after: 0,
    };

    /// The kernel positions `k` for which `out·stride + k·dilation − before` is inside the input,
    /// and the input index of the first.
    pub(crate) fn inside(&self, out: usize) -> (std::ops::Range<usize>, usize) {
        let start = out * self.stride;
        let first = self
            .before
            .saturating_sub(start)
            .div_ceil(self.dilation)
            .min(self.kernel);
        let end = (self.input + self.before)
            .saturating_sub(start)
            .div_ceil(self.dilation)
            .min(self.kernel)
            .max(first);
        (
            first..end,
            (start + first * self.dilation).saturating_sub(self.before),
        )
    }
}

/// Sizes beyond this are absurd, and below it no sum or product of two of them overflows.
const MOST: usize = i32::MAX as usize;

impl Window {
    /// Reads the attributes that convolutions and poolings have in common.
    pub(crate) fn read(spec: &Spec<'_>, pooling: bool) -> Result<Window, ModelError> {
        let sizes = |name: &str, least: i64| -> Result<Option<Vec<usize>>, ModelError> {
            let Some(v) = spec.ints(name)? else {
                return Ok(None);
            };
            v.iter()
                .map(|&x| usize::try_from(x).ok().filter(|&u| x >= least && u < MOST))
                .collect::<Option<Vec<_>>>()
                .map(Some)
                .ok_or_else(|| spec.refuse(name, format!("each must be {least} to {MOST}")))
        };
        let kernel = sizes("kernel_shape", 1)?.unwrap_or_default();
        let strides = sizes("strides", 1)?.unwrap_or_default();
        let dilations = sizes("dilations", 1)?.unwrap_or_default();
        let pads = sizes("pads", 0)?.unwrap_or_default();
        if pooling && kernel.is_empty() {
            return Err(spec.refuse("kernel_shape", "it must be given"));
        }
        for (name, list, per_axis) in [
            ("strides", &strides, 1),
            ("dilations", &dilations, 1),
            ("pads", &pads, 2),
        ] {
            if !list.is_empty() && !kernel.is_empty() && list.len() != per_axis * kernel.len() {
                return Err(spec.refuse(name, format!("{per_axis} numbers for each spatial axis")));
            }
        }
        let explicit = || {
            let half = pads.len() / 2;
            (0..half)
                .map(|i| (pads[i], pads[half + i]))
                .collect::<Vec<_>>()
        };
        if pads.len() % 2 != 0 {
            return Err(spec.refuse("pads", "2 numbers for each spatial axis"));
        }
        let padding = match spec.string("auto_pad")?.unwrap_or("NOTSET") {
            "NOTSET" | "" => Padding::Explicit(explicit()),
            "VALID" => Padding::Explicit(Vec::new()),
            "SAME_UPPER" => Padding::Same { odd_first: false },
            "SAME_LOWER" => Padding::Same { odd_first: true },
            _ => {
                return Err(spec.refuse("auto_pad", "NOTSET, VALID, SAME_UPPER or SAME_LOWER"));
            }
        };
        let ceil = pooling && spec.flag("ceil_mode")?;
        Ok(Window {
            kernel,
            strides,
            dilations,
            padding,
            ceil,
            pad_below_kernel: pooling,
        })
    }

    /// The kernel size as the attribute gives it; empty where it is absent.
    pub(crate) fn kernel(&self) -> &[usize] {
        &self.kernel
    }

    /// Whether a kernel of this size sees every element of any input once, on its own.
    pub(crate) fn is_pointwise(&self, kernel: &[usize]) -> bool {
        let ones = |list: &[usize]| list.iter().all(|&n| n == 1);
        let unpadded = match &self.padding {
            Padding::Explicit(p) => p.iter().all(|&p| p == (0, 0)),
            // A kernel of 1 needs none at a stride of 1.
            Padding::Same { .. } => true,
        };
        ones(kernel) && ones(&self.strides) && unpadded
    }

    /// From the first to the last of `taps` along spatial axis `i`, both counted.
    pub(crate) fn extent(&self, i: usize, taps: usize) -> Option<usize> {
        let dilation = self.dilations.get(i).copied().unwrap_or(1);
        taps.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)
    }

    /// Every axis for an input of these spatial sizes; `kernel` is what the weights have, and must
    /// be what the attribute says, where both are there.
    pub(crate) fn axes(&self, input: &[usize], kernel: &[usize]) -> Result<Vec<Axis>, ModelError> {
        if !self.kernel.is_empty() && self.kernel != kernel {
            return Err(ModelError::operand(
                "kernel_shape",
                format!("{:?}", self.kernel),
                format!("{kernel:?}, as the weights have it"),
            ));
        }
        if input.len() != kernel.len() || !(1..=2).contains(&input.len()) {
            return Err(ModelError::operand(
                "input 0",
                format!("{} spatial dimensions", input.len()),
                format!("{}, and 1 or 2 at all", kernel.len()),
            ));
        }
        for (name, list) in [("strides", &self.strides), ("dilations", &self.dilations)] {
            if !list.is_empty() && list.len() != input.len() {
                return Err(ModelError::operand(
                    name,
                    format!("{list:?}"),
                    "one number for each spatial axis",
                ));
            }
        }
        if let Padding::Explicit(p) = &self.padding
            && !p.is_empty()
            && p.len() != input.len()
        {
            return Err(ModelError::operand(
                "pads",
                format!("{p:?}"),
                "two numbers for each spatial axis",
            ));
        }
        (0..input.len())
            .map(|i| self.axis(i, input[i], kernel[i]))
            .collect()
    }

    fn axis(&self, i: usize, input: usize, kernel: usize) -> Result<Axis, ModelError> {
        let stride = self.strides.get(i).copied().unwrap_or(1);
        let dilation = self.dilations.get(i).copied().unwrap_or(1);
        let refuse =
            |given: String, allowed: &str| Err(ModelError::operand("window", given, allowed));
        if input >= MOST || kernel >= MOST || kernel == 0 {
            return refuse(
                format!("input {input}, kernel {kernel}"),
                "sizes from 1 to 2^31 - 2",
            );
        }
        // Distance from the first to the last tap, and one more.
        let Some(extent) = (kernel - 1)
            .checked_mul(dilation)
            .map(|e| e + 1)
            .filter(|&e| e < MOST)
        else {
            return refuse(
                format!("kernel {kernel} · dilation {dilation}"),
                "less than 2^31",
            );
        };
        let (before, after) = match &self.padding {
            Padding::Explicit(p) => p.get(i).copied().unwrap_or((0, 0)),
            Padding::Same { odd_first } => {
                let output = input.div_ceil(stride);
                let total = (output.saturating_sub(1) * stride + extent).saturating_sub(input);
                let half = total / 2;
                if *odd_first {
                    (total - half, half)
                } else {
                    (half, total - half)
                }
            }
        };
        if self.pad_below_kernel && (before >= extent || after >= extent) {
            return refuse(
                format!("padding {before} and {after}, kernel extent {extent}"),
                "padding of a pooling must be smaller than its kernel",
            );
        }
        let padded = input + before + after;
        if input == 0 || padded < extent {
            return refuse(
                format!("input {input}, padding {before} and {after}, kernel extent {extent}"),
                "the padded input must not be smaller than the kernel",
            );
        }
        let room = padded - extent;
        let mut output = room / stride + 1;
        // Rounding up adds a window that hangs over the end, unless it would start in the padding.
        if self.ceil && !room.is_multiple_of(stride) && output * stride < input + before {
            output += 1;
        }
        Ok(Axis {
            input,
            output,
            kernel,
            stride,
            dilation,
            before,
            after,
        })
    }

    /// Spatial output dimensions, as far as they are known.
    pub(crate) fn output_dims(
        &self,
        input: &[Dim],
        kernel: &[usize],
    ) -> Result<Vec<Dim>, ModelError> {
        if let Some(known) = super::known_shape(input) {
            return Ok(self
                .axes(&known, kernel)?
                .iter()
                .map(|a| a.output.into())
                .collect());
        }
        // Each axis on its own: those that are not known stay so.
        let stand_in: Vec<usize> = input.iter().map(|d| d.known().unwrap_or(1)).collect();
        if stand_in.len() != kernel.len() {
            return self.axes(&stand_in, kernel).map(|_| Vec::new());
        }
        input
            .iter()
            .enumerate()
            .map(|(i, d)| match d.known() {
                Some(n) => self.axis(i, n, kernel[i]).map(|a| a.output.into()),
                None => Ok(Dim::Unknown),
            })
            .collect()
    }

    /// The two axes (rows, columns) for an input of shape `[N, C, spatial…]`; one spatial axis
    /// becomes the columns.
    pub(crate) fn two_axes(
        &self,
        spatial: &[usize],
        kernel: &[usize],
    ) -> Result<[Axis; 2], ModelError> {
        match self.axes(spatial, kernel)?[..] {
            [x] => Ok([Axis::POINT, x]),
            [y, x] => Ok([y, x]),
            _ => Err(ModelError::operand(
                "input 0",
                "another rank",
                "1 or 2 spatial axes",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: usize, stride: usize, pads: (usize, usize), ceil: bool) -> Window {
        Window {
            kernel: vec![kernel],
            strides: vec![stride],
            dilations: vec![],
            padding: Padding::Explicit(vec![pads]),
            ceil,
            pad_below_kernel: true,
        }
    }

    fn output(w: &Window, input: usize) -> usize {
        w.axes(&[input], &w.kernel).unwrap()[0].output
    }

    #[test]
    fn sizes_are_those_of_the_standard() {
        assert_eq!(output(&window(3, 1, (1, 1), false), 28), 28);
        assert_eq!(output(&window(3, 2, (0, 0), false), 4), 1);
        assert_eq!(output(&window(3, 2, (0, 0), true), 4), 2);
        // The last window would start in the padding: it is left out.
        assert_eq!(output(&window(1, 2, (0, 0), true), 2), 1);
        assert!(window(3, 1, (0, 0), false).axes(&[2], &[3]).is_err());
        assert!(window(3, 1, (3, 0), false).axes(&[9], &[3]).is_err());
    }

    #[test]
    fn inside_is_what_a_loop_finds() {
        for input in 1..6usize {
            for kernel in 1..4usize {
                for dilation in 1..4usize {
                    for stride in 1..4usize {
                        for before in 0..4usize {
                            let a = Axis {
                                input,
                                output: 5,
                                kernel,
                                stride,
                                dilation,
                                before,
                                after: 9,
                            };
                            for out in 0..5usize {
                                let at =
                                    |k: usize| (out * stride + k * dilation).wrapping_sub(before);
                                let taps: Vec<usize> =
                                    (0..kernel).filter(|&k| at(k) < input).collect();
                                let (range, first) = a.inside(out);
                                assert_eq!(range.clone().collect::<Vec<_>>(), taps);
                                if let Some(&k) = taps.first() {
                                    assert_eq!(first, at(k));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
