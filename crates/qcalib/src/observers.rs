//! The observers, one file each.

mod histogram;
mod min_max;
mod moments;
mod moving_average;

pub(crate) use histogram::HistogramAccumulator;
pub use histogram::{Histogram, HistogramObserver};
pub(crate) use min_max::MinMaxAccumulator;
pub use min_max::MinMaxObserver;
pub(crate) use moments::MomentsAccumulator;
pub use moments::{Moments, MomentsObserver, Statistics};
pub(crate) use moving_average::BatchesAccumulator;
pub use moving_average::{Batches, MovingAverageObserver};
