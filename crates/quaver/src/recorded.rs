//! What calibration recorded, as a value that travels: shards write it, merge it and read it.

use indexmap::IndexMap;
use qcalib::{Observer, ObserverState, UncheckedState};
use qformat::Granularity;
use qmodel::Model;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::batches::{BatchPlan, BatchSet};
use crate::steps::{Calibrated, Chosen, Observing, in_value};
use crate::{Batch, QuantizeError};

/// The observers of every value, the cheapest kind first.
pub(crate) type Observers = IndexMap<String, Vec<Box<dyn Observer>>>;

/// What files start with.
const MAGIC: [u8; 4] = *b"QCAL";

/// Magic, version, length of the content, checksum.
const HEADER: usize = 4 + 4 + 8 + 4;

/// What calibration recorded of a model on some batches of a data set.
///
/// Records of disjoint batches merge, in any order and grouping, to the bytes of one pass over
/// all of them: calibration can run on as many machines as there are batches.
///
/// ```no_run
/// use quaver::calib::Policy;
/// use quaver::{BatchPlan, ConvertOptions, Dataset, Method, Operators, Recorded};
/// # fn load() -> (quaver::model::Model, Dataset) { unreachable!() }
/// let (model, data) = load();
/// let plan = BatchPlan { samples: data.len() as u64, batch: 10 };
/// let chosen = Operators::new().choose(&model)?;
/// let mut parts = Vec::new();
/// for shard in 1..=3 { // each of them on a machine of its own
///     let mut observing = chosen.clone().observe(&Method::ALL, Policy::Error)?;
///     for batch in plan.shard(shard, 3) {
///         let rows = plan.rows(batch);
///         observing.observe_at(batch, &data.rows(rows.start as usize..rows.end as usize))?;
///     }
///     parts.push(observing.record(plan)?.to_bytes()?);
/// }
/// let mut all = Recorded::from_bytes(&parts[2])?;
/// for part in &parts[..2] {
///     all.merge(&Recorded::from_bytes(part)?)?;
/// }
/// let converted = chosen.restore(&all)?.convert(&ConvertOptions::default())?;
/// # Ok::<(), quaver::QuantizeError>(())
/// ```
///
/// # The file
///
/// `QCAL`, the version (u32), the length of the content in bytes (u64), the CRC-32 of the
/// content and of the twelve bytes before it (u32), all little-endian; then the content, in
/// postcard's encoding of serde.
#[derive(Debug, Clone)]
pub struct Recorded {
    model: [u8; 32],
    plan: BatchPlan,
    batches: BatchSet,
    observers: Observers,
}

/// What a file holds. States are read unchecked, for postcard would lose the reason why one is
/// refused.
#[derive(Serialize, Deserialize)]
struct Content<State> {
    /// SHA-256 of the float model's file, as it was observed.
    model: [u8; 32],
    plan: BatchPlan,
    batches: BatchSet,
    values: Vec<(String, Vec<State>)>,
}

impl Recorded {
    /// The version that this build writes and reads.
    pub const VERSION: u32 = 1;

    /// How the data set was cut.
    #[must_use]
    pub fn plan(&self) -> BatchPlan {
        self.plan
    }

    /// Number of batches that were observed.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.len()
    }

    /// Names of the values that were observed, in the order in which they are computed.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.observers.keys().map(String::as_str)
    }

    /// Adds what another shard recorded.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::StateMismatch`] for a record of another model, of a data set that was cut
    /// otherwise, or with other observers, [`QuantizeError::Overlap`] when a batch is in both,
    /// [`QuantizeError::Calibration`] when counts overflow. After an error the record is what it
    /// was.
    pub fn merge(&mut self, other: &Recorded) -> Result<(), QuantizeError> {
        let differs = |what, given: String, expected: String| {
            Err(QuantizeError::StateMismatch {
                what,
                given,
                expected,
            })
        };
        if self.model != other.model {
            return differs("model", short(&other.model), short(&self.model));
        }
        if self.plan != other.plan {
            let show = |p: BatchPlan| format!("{} samples in batches of {}", p.samples, p.batch);
            return differs("data set", show(other.plan), show(self.plan));
        }
        if !self.observers.keys().eq(other.observers.keys()) {
            let show = |o: &Observers| o.keys().cloned().collect::<Vec<_>>().join(", ");
            return differs(
                "list of observed values",
                show(&other.observers),
                show(&self.observers),
            );
        }
        let mut batches = self.batches.clone();
        batches.join(&other.batches)?;
        let mut observers = self.observers.clone();
        for ((value, ours), theirs) in observers.iter_mut().zip(other.observers.values()) {
            if !kinds(ours).eq(kinds(theirs)) {
                let show = |o: &[Box<dyn Observer>]| {
                    kinds(o)
                        .map(|k| k.to_string())
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                return differs("list of observers", show(theirs), show(ours));
            }
            for (a, b) in ours.iter_mut().zip(theirs) {
                a.merge(&**b).map_err(|e| in_value(value, e))?;
            }
        }
        self.batches = batches;
        self.observers = observers;
        Ok(())
    }

    /// The bytes of a file; the same for the same batches, however they were split and merged.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::StateContent`] when memory is short.
    pub fn to_bytes(&self) -> Result<Vec<u8>, QuantizeError> {
        let states = |o: &[Box<dyn Observer>]| o.iter().map(|o| o.state()).collect();
        let content = Content {
            model: self.model,
            plan: self.plan,
            batches: self.batches.clone(),
            values: self
                .observers
                .iter()
                .map(|(value, o)| (value.clone(), states(o)))
                .collect(),
        };
        let content = postcard::to_allocvec(&content).map_err(|e| broken(e.to_string()))?;
        let mut bytes = Vec::with_capacity(HEADER + content.len());
        bytes.extend(MAGIC);
        bytes.extend(Self::VERSION.to_le_bytes());
        bytes.extend((content.len() as u64).to_le_bytes());
        bytes.extend(checksum(&bytes[4..16], &content).to_le_bytes());
        bytes.extend(content);
        Ok(bytes)
    }

    /// Reads the bytes of a file. They may be hostile: everything is checked, and nothing is
    /// allocated from a length that they only claim.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::StateMagic`], [`QuantizeError::StateVersion`],
    /// [`QuantizeError::StateLength`] for truncated files, [`QuantizeError::StateChecksum`] for
    /// damaged ones, [`QuantizeError::StateContent`] for those that no calibration writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Recorded, QuantizeError> {
        if bytes.get(..4) != Some(&MAGIC[..]) {
            return Err(QuantizeError::StateMagic);
        }
        let Some((header, content)) = bytes.split_at_checked(HEADER) else {
            return Err(QuantizeError::StateLength {
                given: bytes.len() as u64,
                expected: HEADER as u64,
            });
        };
        let version = u32::from_le_bytes(field(header, 4));
        if version != Self::VERSION {
            return Err(QuantizeError::StateVersion {
                given: version,
                expected: Self::VERSION,
            });
        }
        let expected = u64::from_le_bytes(field(header, 8));
        if content.len() as u64 != expected {
            return Err(QuantizeError::StateLength {
                given: bytes.len() as u64,
                expected: expected.saturating_add(HEADER as u64),
            });
        }
        let expected = u32::from_le_bytes(field(header, 16));
        let given = checksum(&header[4..16], content);
        if given != expected {
            return Err(QuantizeError::StateChecksum { given, expected });
        }
        let (content, rest): (Content<UncheckedState>, _) =
            postcard::take_from_bytes(content).map_err(|e| broken(e.to_string()))?;
        if !rest.is_empty() {
            return Err(broken(format!("{} bytes are left over", rest.len())));
        }
        Recorded::check(content)
    }

    /// Restores a record from what a file holds.
    fn check(content: Content<UncheckedState>) -> Result<Recorded, QuantizeError> {
        if !content.batches.is_valid(content.plan.batches()) {
            return Err(broken(
                "the batches are no set of those there are".to_owned(),
            ));
        }
        let mut observers = Observers::new();
        for (value, states) in content.values {
            let list = states
                .into_iter()
                .map(|state| Ok(ObserverState::try_from(state)?.into_observer()))
                .collect::<Result<Vec<_>, qcalib::CalibError>>()
                .map_err(|e| broken(format!("value \"{value}\": {e}")))?;
            if list
                .iter()
                .any(|o| o.granularity() != Granularity::PerTensor)
            {
                return Err(broken(format!("\"{value}\" was not observed per tensor")));
            }
            if observers.insert(value.clone(), list).is_some() {
                return Err(broken(format!("\"{value}\" is there twice")));
            }
        }
        Ok(Recorded {
            model: content.model,
            plan: content.plan,
            batches: content.batches,
            observers,
        })
    }
}

impl Observing {
    /// Ends a shard of calibration: what it recorded, even if it had no batch at all.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::StateMismatch`] when a batch was observed that `plan` does not have.
    pub fn record(self, plan: BatchPlan) -> Result<Recorded, QuantizeError> {
        let (chosen, observers, batches) = self.into_parts();
        if batches.end() > plan.batches() {
            return Err(QuantizeError::StateMismatch {
                what: "number of batches",
                given: batches.end().to_string(),
                expected: format!("{} or fewer", plan.batches()),
            });
        }
        Ok(Recorded {
            model: fingerprint(&chosen.model),
            plan,
            batches,
            observers,
        })
    }
}

impl Chosen {
    /// Steps 2 and 3 from what was recorded elsewhere: the result is that of calibrating here, on
    /// all the batches, to the bit.
    ///
    /// More values may have been observed than these operators need; so one record serves every
    /// choice of operators that was a part of what was observed.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::StateMismatch`] for a record of another model,
    /// [`QuantizeError::Incomplete`] when batches are missing, [`QuantizeError::NoBatches`] when
    /// there are none, [`QuantizeError::NotRecorded`] for a value that was not observed.
    pub fn restore(self, recorded: &Recorded) -> Result<Calibrated, QuantizeError> {
        let model = fingerprint(&self.model);
        if model != recorded.model {
            return Err(QuantizeError::StateMismatch {
                what: "model",
                given: short(&recorded.model),
                expected: short(&model),
            });
        }
        let total = recorded.plan.batches();
        if let Some(missing) = recorded.batches.missing(total) {
            return Err(QuantizeError::Incomplete {
                first: missing.start,
                last: missing.end - 1,
                total,
            });
        }
        if total == 0 {
            return Err(QuantizeError::NoBatches);
        }
        let mut observers = Observers::new();
        for value in self.placement.observed(&self.model.graph) {
            let Some(list) = recorded.observers.get(&value) else {
                return Err(QuantizeError::NotRecorded { value });
            };
            observers.insert(value, list.clone());
        }
        Ok(Calibrated::from_parts(
            self,
            observers,
            total,
            None::<Batch>,
        ))
    }
}

fn kinds(list: &[Box<dyn Observer>]) -> impl Iterator<Item = qcalib::ObserverKind> + '_ {
    list.iter().map(|o| o.kind())
}

/// What tells models apart: everything that is in the file, and nothing else.
fn fingerprint(model: &Model) -> [u8; 32] {
    Sha256::digest(model.to_bytes()).into()
}

/// The start of a fingerprint, for people.
fn short(fingerprint: &[u8; 32]) -> String {
    let hex: String = fingerprint[..6]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("{hex}…")
}

fn broken(problem: String) -> QuantizeError {
    QuantizeError::StateContent { problem }
}

/// Bytes of a header whose length was checked.
fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(part) = header.get(at..at + N) {
        out.copy_from_slice(part);
    }
    out
}

fn checksum(header: &[u8], content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(content);
    crc.finalize()
}
