//! Where quantization ranges come from.
//!
//! To store a float in eight bits one needs to know which floats will come. Weights are there to
//! be looked at; activations are not, so a network is run on a few hundred samples and what it
//! produces is watched. This crate does the watching and the choosing, and keeps them apart:
//!
//! * an [`Observer`] **records** what passes by, batch after batch, in memory that does not grow
//!   with the number of values;
//! * an [`Estimator`] **chooses** a range from a record, for one quantizer ([`Target`]);
//! * a [`Method`] is a pair of the two under a name that people type.
//!
//! | method | needs | the range it chooses |
//! |---|---|---|
//! | `minmax` | [`MinMax`](ObserverKind::MinMax) | covers every value seen |
//! | `moving-average` | [`MovingAverage`](ObserverKind::MovingAverage) | averages the ends of the batches |
//! | `entropy`, `entropy-all` | [`Histogram`](ObserverKind::Histogram) | least Kullback-Leibler divergence |
//! | `mse` | [`Histogram`](ObserverKind::Histogram) | least mean squared error |
//! | `percentile` | [`Histogram`](ObserverKind::Histogram) | all values but a small share |
//! | `aciq-laplace`, `aciq-gauss` | [`Moments`](ObserverKind::Moments) | best clipping of a density |
//! | `mean-std` | [`Moments`](ObserverKind::Moments) | so many standard deviations |
//! | `lsq` | [`Moments`](ObserverKind::Moments) | where training the step starts |
//!
//! One histogram serves all that look at the distribution; [`Method::observers_for`] tells which
//! observers a set of methods needs, so that the network runs once.
//!
//! ```
//! use qcalib::{Method, Policy, fake_quantize, params};
//! use qformat::{DType, Granularity, QuantSpec, Scheme};
//!
//! // Two processes watch a share of the batches each.
//! let fresh = Method::Mse.observer(Granularity::PerTensor, Policy::Error)?;
//! let (mut a, mut b) = (fresh.clone(), fresh);
//! a.observe(0, &[0.1, -0.4, 0.9, 0.2], &[2, 2])?;
//! b.observe(1, &[0.3, 0.7], &[1, 2])?; // any shape
//!
//! // What they saw is joined exactly, and a range is chosen.
//! a.merge(&*b)?;
//! let spec = QuantSpec {
//!     dtype: DType::U8,
//!     scheme: Scheme::Affine,
//!     granularity: Granularity::PerTensor,
//! };
//! let p = params(&*a, Method::Mse, spec)?;
//!
//! // What quantization would do to the values.
//! let mut y = [0.0; 2];
//! fake_quantize(&[0.25, 5.0], &[2], &p, &mut y)?;
//! assert!((y[0] - 0.25).abs() < 0.005 && y[1] < 1.0); // rounded, and clipped
//! # Ok::<(), qcalib::CalibError>(())
//! ```
//!
//! # Exact, whatever the order
//!
//! Calibration is worth spreading over machines, and then its result must not depend on how the
//! samples were dealt out. So every record is a function of the multiset of values and nothing
//! else: extremes, integer counts, sums in integers wide enough for any of them, and ends of batches
//! under the batches' indices. The histogram
//! is where this takes care: its bins have a width of `2^k`, are anchored at zero, and `k` follows
//! from the largest magnitude seen, so bins only ever join in pairs. Merging is commutative and
//! associative, and the bytes of an [`ObserverState`] are those of one pass over all data.
//!
//! # What is not finite
//!
//! NaN and ±∞ are counted and treated by a [`Policy`]; they never reach a scale. The default is
//! to refuse the batch and to name the first of them. Tensors that hurt elsewhere (all zero,
//! constant, subnormal, ±3.4 · 10³⁸) give finite parameters; one without a finite value gives
//! [`CalibError::NoData`].
//!
//! # Sharded and stored
//!
//! An [`Archive`] holds the observers of a whole model and the batches they saw: the file that
//! shards of a calibration are exchanged and merged in. [`assess`] says what any parameters do to
//! what was recorded: shares clipped, noise, integers in use.
//!
//! # Beyond choosing a range
//!
//! [`compat`] repeats other tools' choices bit for bit, [`train`] has the gradients and the
//! schedule of quantization-aware training, [`correct`] mends weights and biases.
//!
//! # Weights
//!
//! Weights are all there at once and are best covered wholly:
//! [`TensorQParams::from_data`](qformat::TensorQParams::from_data) takes their ranges directly,
//! at any granularity. The estimators work on them as well, by observing them as one batch.
//!
//! # Adding one
//!
//! An observer is one file in `observers/`: what it accumulates beside the ends and counts that
//! all of them have, how two accumulations merge, and how they are stored; then a line in the
//! table of [`ObserverKind`] and one in that of stored records. An estimator is one file in
//! `estimators/` and a line in the table of [`Method`]; other crates implement [`Estimator`] and
//! call [`params_with`].
//!
//! # Features
//!
//! `std` (default) only switches the dependencies; the crate is `no_std` with `alloc`.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod archive;
mod assess;
mod batches;
pub mod compat;
pub mod correct;
mod error;
mod estimator;
pub mod estimators;
mod extent;
mod fake;
mod fixed;
mod grouped;
mod layout;
mod method;
mod observer;
pub mod observers;
mod policy;
mod room;
mod state;
pub mod train;
mod view;

pub use archive::Archive;
pub use assess::{Assessment, assess};
pub use error::CalibError;
pub use estimator::{Estimator, Target, ValueRange, params, params_with, ranges};
pub use extent::Extent;
pub use fake::fake_quantize;
pub use method::Method;
pub use observer::{Observer, ObserverKind, Record};
pub use policy::{NonFinite, Policy};
pub use state::{ObserverState, UncheckedState};
pub use view::{TensorView, Values};
