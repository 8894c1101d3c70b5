//! A result as a line of JSON, for machines and for later comparison.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::BenchError;
use crate::machine::Machine;
use crate::measure::{Cell, Contender, Outcome, Statistic, Work};
use crate::ops::OURS;

/// One result. Two results with the same [`Key`] measure the same thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was measured.
    #[serde(flatten)]
    pub key: Key,
    /// Multiplications and additions, in 10^9 a second; none for other work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gops: Option<f64>,
    /// Bytes read and written, in 10^9 a second; none for other work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gbps: Option<f64>,
    /// The machine's limit for this work in the same unit, measured in the same rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// What the limit is set by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
    /// The median time of a call, in nanoseconds.
    pub median_ns: f64,
    /// The shortest time of a call, in nanoseconds, where rates and ratios are of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_ns: Option<f64>,
    /// The interquartile range as a share of the median; none for a single sample.
    pub spread: Option<f64>,
    /// For a peer: the share of its answers that equal ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// For a peer: the kernel that it chose, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The most memory that the process had in use, in bytes, where it does nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// For ours: how many times as fast as each peer in the same rounds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ratios: BTreeMap<String, f64>,
    /// The processor.
    pub cpu: String,
    /// The commit that was measured, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// What a result is a result of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The operation.
    pub op: String,
    /// The element types, in and out, or the form of a model.
    pub types: String,
    /// Rows of A; 1 for elementwise work.
    pub m: usize,
    /// The summed dimension; 1 for elementwise work.
    pub k: usize,
    /// Columns of B, or the number of elements.
    pub n: usize,
    /// Products in one call.
    pub batch: usize,
    /// Where the data lies (`hot` or `cold` weights, a level of memory), or which model it is.
    pub data: String,
    /// The tier of instructions.
    pub isa: String,
    /// The number of threads.
    pub threads: usize,
    /// Whose code it is.
    pub library: String,
}

/// The records of a cell, ours beside the peers of as many threads.
#[must_use]
pub fn of_cell(
    cell: &Cell,
    outcomes: &[Outcome],
    machine: &Machine,
    commit: Option<&str>,
) -> Vec<Record> {
    let mut records: Vec<Record> = cell
        .contenders
        .iter()
        .zip(outcomes)
        .map(|(contender, outcome)| Record::new(cell, contender, outcome, machine, commit))
        .collect();
    relate(&mut records);
    records
}

/// Notes in ours how many times as fast they are as each peer among these results of the same work.
pub fn relate(records: &mut [Record]) {
    let peers: Vec<_> = records
        .iter()
        .filter(|record| !record.is_ours())
        .map(|record| {
            (
                record.key.library.clone(),
                record.key.threads,
                record.time_ns(),
            )
        })
        .collect();
    for record in records.iter_mut().filter(|record| record.is_ours()) {
        record.ratios = peers
            .iter()
            .filter(|(_, threads, _)| *threads == record.key.threads)
            .map(|(library, _, time)| (library.clone(), time / record.time_ns()))
            .collect();
    }
}

impl Record {
    fn new(
        cell: &Cell,
        contender: &Contender,
        outcome: &Outcome,
        machine: &Machine,
        commit: Option<&str>,
    ) -> Self {
        let (m, k, n) = cell.shape;
        let rate = |seconds: f64| cell.work.amount() / seconds / 1e9;
        let best = (outcome.statistic == Statistic::Best).then_some(outcome.timing.best);
        let own = rate(best.unwrap_or(outcome.timing.median));
        let (gops, gbps) = match cell.work {
            Work::Ops(_) => (Some(own), None),
            Work::Bytes(_) => (None, Some(own)),
            Work::Calls => (None, None),
        };
        Self {
            key: Key {
                op: cell.op.to_owned(),
                types: contender.types.clone(),
                m,
                k,
                n,
                batch: cell.batch,
                data: cell.data.clone(),
                isa: contender.isa.to_owned(),
                threads: contender.team.threads(),
                library: contender.library.to_owned(),
            },
            gops,
            gbps,
            limit: outcome.limit.as_ref().map(|(seconds, _)| rate(*seconds)),
            limited_by: outcome.limit.as_ref().map(|(_, kind)| kind.clone()),
            median_ns: outcome.timing.median * 1e9,
            best_ns: best.map(|seconds| seconds * 1e9),
            spread: outcome.timing.spread,
            agreement: contender.agreement,
            detail: contender.detail.clone(),
            peak_bytes: None,
            ratios: BTreeMap::new(),
            cpu: machine.cpu.clone(),
            commit: commit.map(str::to_owned),
        }
    }

    /// Whether it is a result of this workspace's code, not a peer's.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.key.library == OURS
    }

    /// The time of a call that rates and ratios are of, in nanoseconds.
    #[must_use]
    pub fn time_ns(&self) -> f64 {
        self.best_ns.unwrap_or(self.median_ns)
    }

    /// The rate, in GOP/s or GB/s; 0 where only the time is known.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.gops.or(self.gbps).unwrap_or(0.0)
    }

    /// The rate as a share of the limit.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        self.limit.map(|limit| self.rate() / limit)
    }
}

/// Writes records as a JSON list, whole or not at all.
///
/// # Errors
///
/// [`BenchError::File`] when the file or its folder cannot be written.
pub fn write(path: &Path, records: &[Record]) -> Result<(), BenchError> {
    let failed = |source| BenchError::File {
        path: path.to_path_buf(),
        source,
    };
    let text = serde_json::to_string_pretty(records).map_err(|source| BenchError::Records {
        path: path.to_path_buf(),
        source,
    })?;
    // Beside the file first, then in its place: a run that is stopped leaves an old file whole.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, text + "\n").map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
///
/// [`BenchError::File`] when the file cannot be read, [`BenchError::Records`] when it holds
/// something else.
pub fn read(path: &Path) -> Result<Vec<Record>, BenchError> {
    let text = std::fs::read_to_string(path).map_err(|source| BenchError::File {
        path: path.to_path_buf(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| BenchError::Records {
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(isa: &str, gops: f64) -> Record {
        Record {
            key: Key {
                op: "gemm".to_owned(),
                types: "u8·i8→i32".to_owned(),
                m: 1,
                k: 2,
                n: 3,
                batch: 1,
                data: "hot".to_owned(),
                isa: isa.to_owned(),
                threads: 1,
                library: "quaver".to_owned(),
            },
            gops: Some(gops),
            gbps: None,
            limit: Some(100.0),
            limited_by: Some("read".to_owned()),
            median_ns: 12.0 / gops,
            best_ns: None,
            spread: Some(0.01),
            agreement: None,
            detail: None,
            peak_bytes: None,
            ratios: BTreeMap::new(),
            cpu: "test".to_owned(),
            commit: None,
        }
    }

    #[test]
    fn records_read_back() {
        let folder = std::env::temp_dir().join(format!("quaver-records-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.json");
        let records = [record("scalar", 2.0), record("avx2", 50.0)];
        write(&path, &records).unwrap();
        assert_eq!(read(&path).unwrap(), records);
        std::fs::write(&path, "[{\"op\": 3}]").unwrap();
        assert!(matches!(read(&path), Err(BenchError::Records { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(read(&path), Err(BenchError::File { .. })));
        assert!(matches!(
            write(&path, &records),
            Err(BenchError::File { .. })
        ));
    }

    #[test]
    fn a_record_is_flat() {
        let value = serde_json::to_value(record("avx2", 50.0)).unwrap();
        for field in [
            "op", "types", "m", "k", "n", "batch", "isa", "threads", "library", "gops",
        ] {
            assert!(value.get(field).is_some(), "{field}");
        }
        assert!(value.get("gbps").is_none());
    }
}
