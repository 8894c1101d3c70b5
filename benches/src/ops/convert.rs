//! f16 and bf16 to f32 and back.

use qformat::{bf16, f16};
use qkernels::convert::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

use super::Job;
use super::elementwise::{Alike, Line, Writes, jobs as lines};
use crate::data::Source;
use crate::peer::MapOp;
use crate::sizes::Size;

/// A job for each conversion and size.
#[must_use]
pub fn jobs(sizes: &[Size]) -> Vec<Job> {
    let (op, writes) = ("convert", Writes::Each);
    let floats = |len| Source::new(1).f32s(len);
    let f16s = |len| {
        Source::new(2)
            .f32s(len)
            .into_iter()
            .map(f16::from_f32)
            .collect()
    };
    let bf16s = |len| {
        Source::new(3)
            .f32s(len)
            .into_iter()
            .map(bf16::from_f32)
            .collect()
    };
    [
        lines(
            Line {
                op,
                types: "f32→f16",
                input: floats,
                writes,
                kernel: f32_to_f16,
                alike: Alike::new(MapOp::Convert),
            },
            sizes,
        ),
        lines(
            Line {
                op,
                types: "f16→f32",
                input: f16s,
                writes,
                kernel: f16_to_f32,
                alike: Alike::new(MapOp::Convert),
            },
            sizes,
        ),
        lines(
            Line {
                op,
                types: "f32→bf16",
                input: floats,
                writes,
                kernel: f32_to_bf16,
                alike: Alike::new(MapOp::Convert),
            },
            sizes,
        ),
        lines(
            Line {
                op,
                types: "bf16→f32",
                input: bf16s,
                writes,
                kernel: bf16_to_f32,
                alike: Alike::new(MapOp::Convert),
            },
            sizes,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_conversion_runs_and_is_right() {
        let sizes = [64, 9001].map(|bytes| Size {
            name: bytes.to_string(),
            bytes,
        });
        let jobs = jobs(&sizes);
        assert_eq!(jobs.len(), 8);
        crate::ops::tests::run_all(jobs);
    }
}
