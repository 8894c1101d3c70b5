//! The estimators, one file each; a folder has the parts of a large one.

mod aciq;
mod counts;
mod entropy;
mod log;
mod lsq_init;
mod mean_std;
mod min_max;
mod moving_average;
mod mse;
mod percentile;

pub use aciq::{Aciq, Density};
pub(crate) use counts::Counts;
pub use entropy::Entropy;
pub use lsq_init::LsqInit;
pub use mean_std::MeanStd;
pub use min_max::MinMax;
pub use moving_average::MovingAverage;
pub use mse::Mse;
pub use percentile::{Percentile, Tails};
