//! What a quantized number is.
//!
//! This crate holds the types and the *reference arithmetic* of Quaver's numeric contract. It
//! computes one value at a time, plainly; the fast kernels of `qkernels` must give the same bits.
//!
//! | module | answers |
//! |---|---|
//! | [`dtype`] | which element types exist, what they accumulate in, how files name them |
//! | [`scheme`] | affine or symmetric, and the integer range that follows |
//! | [`granularity`] | which elements share one scale |
//! | [`qparams`] | scale and zero point, validated; quantize, dequantize, requantize |
//! | [`tensor`] | the same over a whole tensor at any granularity |
//! | [`metrics`] | signal-to-quantization-noise ratio, agreement |
//! | [`bits`] | the bits of integers, fixed point and floats, and a picture of them |
//!
//! # The contract in four lines
//!
//! * quantize: `q = saturate(rne(x / S) + Z)`, true division in f32, ties to even;
//! * dequantize: `x = S · (q − Z)`, the difference in i32, one f32 rounding;
//! * requantize: `q = saturate(rne(f32(acc) · M) + Z)`;
//! * ±∞ saturates and NaN gives the lowest value of the range.
//!
//! ```
//! use qformat::{DType, QParams, Scheme};
//!
//! let p = QParams::from_range(-1.0, 3.0, DType::U8, Scheme::Affine)?;
//! assert_eq!(p.zero_point(), 64);
//! assert_eq!(p.quantize(0.0), 64); // zero is always exact
//! assert_eq!(p.dequantize(64), 0.0);
//! # Ok::<(), qformat::FormatError>(())
//! ```
//!
//! # Features
//!
//! `std` (default) only switches the dependencies; the crate itself is `no_std` with `alloc`.
//! `serde` derives `Serialize` and `Deserialize` for the descriptive types; parameters are
//! validated again when they are read.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bits;
pub mod dtype;
mod error;
pub mod granularity;
pub mod metrics;
pub mod qparams;
pub mod scheme;
pub mod tensor;

pub use dtype::{DType, Element, QuantElement};
pub use error::FormatError;
pub use granularity::Granularity;
pub use half::{bf16, f16};
pub use qparams::{QParams, requantize, rne};
pub use scheme::{QRange, Scheme};
pub use tensor::{QuantSpec, TensorQParams};
