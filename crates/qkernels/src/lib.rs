//! How quantized numbers are computed fast: conversions, quantization, integer dot products and
//! matrix products, on one table of instruction sets.
//!
//! | operation | what it computes |
//! |---|---|
//! | [`gemm()`] | `(A − Z_a) · (B − Z_b)` of bytes or i16 in exact i32, `A · B` of f16 or bf16 in f32; then bias, scale, residual, clamp, a table, any output type |
//! | [`gemm_batch`] | many such products, B packed inside the call (attention) |
//! | [`gemm_dynamic`] | the same with A in f32, quantized while it is packed |
//! | [`gemm_i64`] | i16 by i16 where i32 might not hold the sums |
//! | [`conv2d`] | convolutions as products, without the matrix of patches |
//! | [`depthwise()`] | convolutions of every channel with a kernel of its own |
//! | [`dot()`], [`dot_i64`], [`dot_f32`] | one sum: of bytes, of i16, of f16 or bf16 |
//! | [`quantize()`], [`dequantize`], [`requantize()`] | f32 to integers, back, and i32 sums to integers |
//! | [`min_max`], [`abs_max`] | the finite range of a tensor, and what is not finite |
//! | [`histogram()`] | counts of values in bins of equal width |
//! | [`power_sums()`] | exact sums of values, magnitudes and squares |
//! | [`row_sums`], [`col_sums`] | sums of the rows and columns of a byte matrix |
//! | [`convert`] | f16 and bf16 to f32 and back |
//! | [`limit`] | what the machine can do at best, to measure kernels against |
//!
//! Weights are packed once ([`PackedB`], [`PackedConv`], [`PackedDepthwise`]); [`PackedB`] goes to
//! bytes and back, in place where they lie aligned. [`Arithmetic`] says how a product multiplies and
//! adds, [`Epilogue`] what happens to its sums, [`Threads`] who does the work, [`Workspace`] with
//! which memory.
//!
//! # The same bits everywhere
//!
//! Every operation gives the bits of the scalar reference (`qformat` holds it) on every tier, for
//! every shape, alignment and thread count. [`Isa`] chooses the tier: [`Isa::detect`] takes the
//! best that runs here, `QUAVER_ISA=avx2` caps it.
//!
//! # Features
//!
//! `std` (default): detection at run time and the environment variable; without it only what the
//! compile target guarantees is used. `rayon` (default): [`Threads::Rayon`]. `avx2`, `avxvnni`,
//! `avx512`, `neon`, `dotprod`, `i8mm` (default): the tiers of these names. Features change speed,
//! never results.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;
#[cfg(all(test, not(feature = "std")))]
extern crate std;

mod arch;
mod batch;
mod columns;
mod conv;
mod conv_shape;
pub mod convert;
mod depthwise;
mod direct;
mod dot;
mod driver;
mod dynamic;
mod elementwise;
mod epilogue;
mod error;
mod gemm;
mod histogram;
mod isa;
mod kernel;
pub mod limit;
mod operand;
mod out;
mod outliers;
mod pack;
mod pages;
mod parallel;
mod patches;
mod plan;
mod portable;
mod power_sums;
mod quantize;
mod reduce;
mod requantize;
mod select;
mod source;
mod store;
mod stored;
mod sums;
#[cfg(test)]
mod tests;
mod view;
mod wide;
mod workspace;
mod zero_point;

pub use batch::{BatchMut, BatchOut, BatchRef, gemm_batch};
pub use conv::{FilterLayout, PackedConv, conv2d};
pub use conv_shape::ConvShape;
pub use depthwise::{PackedDepthwise, depthwise};
pub use dot::{HalfFloat, dot, dot_f32, dot_i64};
pub use dynamic::{Dynamic, dynamic_params, gemm_dynamic};
pub use epilogue::{Epilogue, OutMut, OutParams, Residual, Scale};
pub use error::KernelError;
pub use gemm::gemm;
pub use histogram::{HistogramMut, Unbinned, histogram};
pub use isa::Isa;
pub use operand::{Arithmetic, Lhs, Operand};
pub use pack::{Layout, PackedB, PackedRef};
pub use parallel::{ParallelFor, Threads};
pub use patches::Image;
pub use power_sums::{PowerSums, PowerWindow, power_sums};
pub use quantize::{dequantize, quantize};
pub use reduce::{AbsMax, MinMax, abs_max, min_max};
pub use requantize::requantize;
pub use sums::{col_sums, row_sums};
pub use view::{MatMut, MatRef};
pub use wide::gemm_i64;
pub use workspace::Workspace;
pub use zero_point::{ZeroPoint, ZeroPoints};
