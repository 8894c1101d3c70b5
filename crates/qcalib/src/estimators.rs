//! The estimators, one file each.

mod min_max;
mod moving_average;

pub use min_max::MinMax;
pub use moving_average::MovingAverage;
