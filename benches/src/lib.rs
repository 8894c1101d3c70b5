//! What is timed, how, and against which limit.
//!
//! | module | answers |
//! |---|---|
//! | [`shapes`] | which matrix products, by name |
//! | [`sizes`] | which amounts of data, by the cache level that holds them |
//! | [`data`] | the numbers that go in |
//! | [`ops`] | what runs: one file an operation, each checks its answers before it is timed |
//! | [`measure`] | how it is timed: interleaved rounds, medians, spread |
//! | [`limit`] | what the machine could do at best, measured in the same rounds |
//! | [`record`] | a result as a line of JSON |
//! | [`table`] | results as a table to read |
//! | [`baseline`] | which results became slower |
//! | [`machine`] | which processor, which caches, which threads |
//!
//! The program of this package is `cargo xtask bench`; the criterion benches (`cargo bench -p
//! quaver-benches`) use the same shapes and data during development.
//!
//! # How a row comes about
//!
//! An operation turns each shape into a [`Cell`](measure::Cell): the amount of work, the
//! contenders (ours on each tier and number of threads) and, for each contender, the demands that
//! it makes on the machine (so many multiply-adds, so many bytes read). Every contender and every
//! limit of the cell then runs in turn, round after round, so that a slow spell of the machine
//! meets all of them alike. The limit of a row is the time of its slowest demand.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod data;
pub mod error;
pub mod limit;
pub mod machine;
pub mod measure;
pub mod ops;
pub mod record;
pub mod shapes;
pub mod sizes;
pub mod table;

pub use error::BenchError;
