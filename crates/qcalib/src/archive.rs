//! What was observed of a whole model, as a file.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::batches::Batches;
use crate::{CalibError, Observer, ObserverState, Policy, TensorView, UncheckedState};

/// The observers of all tensors of a model, and which batches they have seen: what one process of
/// a sharded calibration hands on, and what a finished calibration is kept as.
///
/// Archives merge as observers do, exactly and in any order, and equal contents have equal bytes:
/// shards that were merged give the file that one process would have written. Shards that do not
/// belong together are refused, and so is a batch that is in both (it would count twice).
///
/// # File
///
/// ```text
/// "QARC" · version u32 · length of the body u64 · body · CRC-32 of all before it
/// ```
///
/// Numbers are little-endian. Magic, version, length and checksum are compared, in this order,
/// before the body is looked at and before anything is allocated; the body (postcard) holds
/// [`UncheckedState`]s, which are restored one by one, so that an error names the tensor, the
/// field, the group and the reason. The version is raised with [`ObserverState::VERSION`], too. A
/// file that was cut or of which any two bits (or any among 32 neighbours) were flipped is always
/// refused.
///
/// ```
/// use qcalib::{Archive, ObserverKind, Policy, TensorView};
/// use qformat::Granularity;
///
/// // Each of two processes makes the same observers and sees its own batches.
/// let mut whole = Archive::new("sha256 of the model");
/// whole.place("relu_1", ObserverKind::Histogram.observer(Granularity::PerTensor, Policy::Error)?)?;
/// let mut part = whole.clone();
/// whole.observe(0, "relu_1", TensorView::new(&[0.5f32, 2.0][..], &[2])?)?;
/// part.observe(1, "relu_1", TensorView::new(&[1.5f32][..], &[1])?)?;
///
/// let part = Archive::from_bytes(&part.to_bytes()?)?;
/// whole.merge(&part)?;
/// assert_eq!(whole.batches(), 2);
/// assert!(whole.merge(&part).is_err()); // batch 1 is in already
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Archive {
    model: String,
    batches: Batches,
    tensors: BTreeMap<String, Vec<Box<dyn Observer>>>,
}

const MAGIC: [u8; 4] = *b"QARC";

/// Magic, version and length.
const HEADER: usize = 16;

/// Bytes of the checksum.
const CHECKSUM: usize = 4;

impl Archive {
    /// The version that this build writes and reads.
    pub const VERSION: u32 = 1;

    /// An archive without tensors. `model` tells models apart, by a hash of the file for example;
    /// only archives of one model merge.
    #[must_use]
    pub fn new(model: impl Into<String>) -> Self {
        Archive {
            model: model.into(),
            batches: Batches::default(),
            tensors: BTreeMap::new(),
        }
    }

    /// What the model is known by.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Number of batches that were observed.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.count()
    }

    /// Adds an observer to a tensor.
    ///
    /// # Errors
    ///
    /// [`CalibError::Mismatch`] when the tensor has an observer of that kind already.
    pub fn place(&mut self, tensor: &str, observer: Box<dyn Observer>) -> Result<(), CalibError> {
        let list = self.tensors.entry(tensor.to_owned()).or_default();
        match list.binary_search_by_key(&observer.kind(), |o| o.kind()) {
            Err(place) => {
                list.insert(place, observer);
                Ok(())
            }
            Ok(_) => Err(CalibError::Mismatch {
                what: "kind of the tensor's next observer",
                given: observer.kind().to_string(),
                expected: "one that it does not have yet".to_owned(),
            }),
        }
    }

    /// The tensors in the order of their names, each with its observers by kind.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[Box<dyn Observer>])> {
        self.tensors.iter().map(|(n, o)| (n.as_str(), &o[..]))
    }

    /// The observers of a tensor, by kind, or `None` for one that is not in the archive.
    #[must_use]
    pub fn observers(&self, tensor: &str) -> Option<&[Box<dyn Observer>]> {
        self.tensors.get(tensor).map(Vec::as_slice)
    }

    /// Shows a tensor of a batch to its observers and notes the batch.
    ///
    /// `batch_index` numbers the batches of the whole data set, in whatever process they are
    /// observed; a batch may have any number of tensors, and none has to be there. After an error
    /// no observer has recorded anything of `x`.
    ///
    /// # Errors
    ///
    /// [`CalibError::Name`] for a tensor without observers, those of
    /// [`Observer::observe_view`] inside a [`CalibError::Tensor`].
    pub fn observe(
        &mut self,
        batch_index: u64,
        tensor: &str,
        x: TensorView<'_>,
    ) -> Result<(), CalibError> {
        let Some(list) = self.tensors.get_mut(tensor) else {
            return Err(CalibError::Name {
                what: "tensor",
                given: tensor.to_owned(),
                allowed: "those that observers were placed at",
            });
        };
        // All are asked before the first records, and those that may still refuse a value record
        // before the others: the first of them refuses it for all.
        list.iter_mut()
            .try_for_each(|o| o.check_view(&x))
            .map_err(|e| e.in_tensor(tensor))?;
        for strict in [true, false] {
            for o in &mut *list {
                if (o.policy() == Policy::Error) == strict {
                    o.observe_view(batch_index, x)
                        .map_err(|e| e.in_tensor(tensor))?;
                }
            }
        }
        self.batches.insert(batch_index);
        Ok(())
    }

    /// Adds another shard, exactly. After an error the archive is what it was.
    ///
    /// # Errors
    ///
    /// [`CalibError::Mismatch`] when models or sets of tensors differ, [`CalibError::Overlap`] for
    /// a batch that both have seen, and those of [`Observer::merge`] inside a
    /// [`CalibError::Tensor`].
    pub fn merge(&mut self, other: &Archive) -> Result<(), CalibError> {
        let differs = |what, given: &str, expected: &str| {
            Err(CalibError::Mismatch {
                what,
                given: given.to_owned(),
                expected: expected.to_owned(),
            })
        };
        if self.model != other.model {
            return differs("model", &other.model, &self.model);
        }
        let mut merged = self.clone();
        merged.batches.merge(&other.batches)?;
        for (ours, theirs) in self.tensors.keys().zip(other.tensors.keys()) {
            if ours != theirs {
                return differs("tensor", theirs, ours);
            }
        }
        let (given, expected) = (other.tensors.len(), self.tensors.len());
        if given != expected {
            return differs(
                "number of tensors",
                &given.to_string(),
                &expected.to_string(),
            );
        }
        for ((name, ours), theirs) in merged.tensors.iter_mut().zip(other.tensors.values()) {
            let (given, expected) = (theirs.len(), ours.len());
            if given != expected {
                return differs(
                    "number of observers",
                    &given.to_string(),
                    &expected.to_string(),
                )
                .map_err(|e: CalibError| e.in_tensor(name));
            }
            for (a, b) in ours.iter_mut().zip(theirs) {
                a.merge(&**b).map_err(|e| e.in_tensor(name))?;
            }
        }
        *self = merged;
        Ok(())
    }

    /// The bytes of the file: the same for the same contents.
    ///
    /// # Errors
    ///
    /// [`CalibError::Decode`] should the encoder fail.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CalibError> {
        let body = Body {
            model: self.model.clone(),
            batches: self.batches.clone().into(),
            tensors: self
                .tensors
                .iter()
                .map(|(name, list)| (name.clone(), list.iter().map(|o| o.state()).collect()))
                .collect(),
        };
        let body = postcard::to_allocvec(&body).map_err(decode)?;
        let mut out = Vec::with_capacity(HEADER + body.len() + CHECKSUM);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&Self::VERSION.to_le_bytes());
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(&body);
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        Ok(out)
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`CalibError::Mismatch`] for another magic, version, length or checksum,
    /// [`CalibError::Decode`] for a body that no archive writes, [`CalibError::State`] for batches
    /// or (in a [`CalibError::Tensor`]) an observer that cannot be.
    pub fn from_bytes(bytes: &[u8]) -> Result<Archive, CalibError> {
        let differs = |what, given: String, expected: String| {
            Err(CalibError::Mismatch {
                what,
                given,
                expected,
            })
        };
        let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
            let least = (HEADER + CHECKSUM).to_string();
            return differs("length of the file", bytes.len().to_string(), least);
        };
        if *magic != MAGIC {
            let show = |b: &[u8]| String::from_utf8_lossy(b).escape_default().to_string();
            return differs(
                "not an archive: the magic of the file",
                show(magic),
                show(&MAGIC),
            );
        }
        let (Some((version, rest)), true) = (
            rest.split_first_chunk::<4>(),
            bytes.len() >= HEADER + CHECKSUM,
        ) else {
            let least = (HEADER + CHECKSUM).to_string();
            return differs("length of the file", bytes.len().to_string(), least);
        };
        let version = u32::from_le_bytes(*version);
        if version != Self::VERSION {
            let expected = Self::VERSION.to_string();
            return differs("version of the file", version.to_string(), expected);
        }
        let Some((length, rest)) = rest.split_first_chunk::<8>() else {
            return differs(
                "length of the file",
                bytes.len().to_string(),
                HEADER.to_string(),
            );
        };
        let length = u64::from_le_bytes(*length);
        let Some((body, sum)) = rest.split_last_chunk::<CHECKSUM>() else {
            return differs(
                "length of the file",
                bytes.len().to_string(),
                HEADER.to_string(),
            );
        };
        if body.len() as u64 != length {
            return differs(
                "length of the body",
                body.len().to_string(),
                length.to_string(),
            );
        }
        let (given, expected) = (
            u32::from_le_bytes(*sum),
            crc32fast::hash(&bytes[..bytes.len() - CHECKSUM]),
        );
        if given != expected {
            let hex = |n: u32| alloc::format!("{n:08x}");
            return differs("checksum of the file", hex(given), hex(expected));
        }
        let (body, rest): (Body<UncheckedState>, _) =
            postcard::take_from_bytes(body).map_err(decode)?;
        if !rest.is_empty() {
            return Err(CalibError::Decode {
                reason: alloc::format!("{} bytes follow the last tensor", rest.len()),
            });
        }
        let mut archive = Archive {
            model: body.model,
            batches: body.batches.try_into()?,
            tensors: BTreeMap::new(),
        };
        for (name, states) in body.tensors {
            for state in states {
                ObserverState::try_from(state)
                    .and_then(|state| archive.place(&name, state.into_observer()))
                    .map_err(|e| e.in_tensor(&name))?;
            }
        }
        Ok(archive)
    }
}

fn decode(e: postcard::Error) -> CalibError {
    CalibError::Decode {
        reason: e.to_string(),
    }
}

/// What lies between the header and the checksum.
#[derive(Debug, Serialize, Deserialize)]
struct Body<State> {
    model: String,
    batches: Vec<(u64, u64)>,
    tensors: Vec<(String, Vec<State>)>,
}
