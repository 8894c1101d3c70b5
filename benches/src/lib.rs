//! What is timed, how, and against which limit.
//!
//! | module | answers |
//! |---|---|
//! | [`shapes`] | which matrix products, by name |
//! | [`convs`] | which convolutions, by name |
//! | [`sizes`] | which amounts of data, by the cache level that holds them |
//! | [`data`] | the numbers that go in |
//! | [`calib`] | calibration: observers, estimators, and whole calibrations beside ONNX Runtime's |
//! | [`ops`] | what runs: one file an operation, each checks its answers before it is timed |
//! | [`peer`] | who does the same work: one file and one line a library, each behind a feature |
//! | [`values`] | slices of whichever type, for peers and for comparing answers |
//! | [`measure`] | how it is timed: interleaved rounds, medians, spread |
//! | [`limit`] | what the machine could do at best, measured in the same rounds |
//! | [`record`] | a result as a line of JSON |
//! | [`table`] | results as a table to read |
//! | [`plot`] | results as pictures: a roofline and bars |
//! | [`claims`] | what the kernels claim, and whether a run bears it out |
//! | [`baseline`] | which results became slower |
//! | [`memory`] | where the memory of all of them starts |
//! | [`environment`] | what libraries must find in the environment before they are loaded |
//! | [`machine`] | which processor, which caches, which threads |
//!
//! The program of this package is `cargo xtask bench`; the criterion benches (`cargo bench -p
//! quaver-benches`) use the same shapes and data during development.
//!
//! # How a row comes about
//!
//! An operation turns each shape into a [`Cell`](measure::Cell): the amount of work, the
//! contenders (ours on each tier and number of threads, and each peer) and, for each contender, the demands that
//! it makes on the machine (so many multiply-adds, so many bytes read). Every contender and every
//! limit of the cell then runs in turn, round after round, so that a slow spell of the machine
//! meets all of them alike. The limit of a row is the time of its slowest demand.
#![deny(unsafe_code)]

pub mod baseline;
pub mod calib;
pub mod claims;
pub mod convs;
pub mod crew;
pub mod data;
pub mod environment;
pub mod error;
pub mod limit;
pub mod lists;
pub mod machine;
pub mod measure;
pub mod memory;
pub mod ops;
pub mod peer;
pub mod plot;
pub mod record;
pub mod shapes;
pub mod sizes;
pub mod table;
pub mod values;

pub use error::BenchError;
