//! Where quantization ranges come from: observers, range estimators and fake quantization.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
mod estimator;
pub mod estimators;
mod extent;
mod fake;
mod grouped;
mod layout;
mod method;
mod observer;
pub mod observers;
mod policy;
mod state;
mod summary;

pub use error::CalibError;
pub use estimator::{Estimator, Target, ValueRange, params, params_with, ranges};
pub use extent::Extent;
pub use fake::fake_quantize;
pub use method::Method;
pub use observer::{Observer, ObserverKind, Record};
pub use policy::{NonFinite, Policy};
pub use state::ObserverState;
