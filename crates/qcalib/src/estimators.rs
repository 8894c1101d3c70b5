//! The estimators, one file each.

mod counts;
mod entropy;
mod log;
mod min_max;
mod moving_average;
mod mse;
mod percentile;

pub use entropy::Entropy;
pub use min_max::MinMax;
pub use moving_average::MovingAverage;
pub use mse::Mse;
pub use percentile::Percentile;
