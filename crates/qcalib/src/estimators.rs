//! The estimators, one file each.

mod counts;
mod min_max;
mod moving_average;
mod percentile;

pub use min_max::MinMax;
pub use moving_average::MovingAverage;
pub use percentile::Percentile;
