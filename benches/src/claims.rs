//! What the kernels claim, and whether the results of a run bear it out.
//!
//! Each [`Claim`] picks the results that it speaks of and says what each is worth; it holds if all
//! of them are worth enough. A claim that no result speaks to is open, never held.

use std::fmt;

use crate::calib::{estimators, observers, whole};
use crate::ops::OURS;
use crate::record::{Key, Record};
use crate::shapes::{self, Shape};

/// How far below a claim repeated runs may fall on either side of it.
const EVEN: f64 = 0.98;

/// What a claim's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// So many times as fast as something else.
    Times,
    /// A share of the limit that was measured in the same rounds.
    Share,
}

/// One claim about the kernels.
pub struct Claim {
    /// What it speaks of.
    pub about: &'static str,
    /// The least that every result must be worth.
    pub least: f64,
    /// In which unit.
    pub unit: Unit,
    /// The results that it speaks of, each with what it is worth.
    cases: fn(&Records<'_>) -> Vec<Case>,
}

/// A result and what it is worth.
#[derive(Debug, Clone)]
pub struct Case {
    /// Which result.
    pub label: String,
    /// What it is worth, in the claim's unit.
    pub worth: f64,
}

/// How a claim fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Every result is worth enough.
    Held,
    /// Some results are short of it, but by no more than repeated runs differ.
    Even,
    /// So many results are short of it.
    Short(usize),
    /// No result speaks to it.
    Open,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Held => f.write_str("held"),
            Standing::Even => f.write_str("even"),
            Standing::Short(count) => write!(f, "{count} short"),
            Standing::Open => f.write_str("not measured"),
        }
    }
}

/// A claim beside what was measured.
pub struct Judged {
    /// The claim.
    pub claim: &'static Claim,
    /// What it speaks of, the worst first.
    pub cases: Vec<Case>,
    /// How it fared.
    pub standing: Standing,
}

/// The results of a run.
struct Records<'a>(&'a [Record]);

/// Sets every claim beside the results.
#[must_use]
pub fn judge(records: &[Record]) -> Vec<Judged> {
    CLAIMS
        .iter()
        .map(|claim| {
            let mut cases = (claim.cases)(&Records(records));
            cases.sort_by(|a, b| a.worth.total_cmp(&b.worth));
            let below = |least: f64| cases.iter().filter(|case| case.worth < least).count();
            let standing = if cases.is_empty() {
                Standing::Open
            } else if below(claim.least) == 0 {
                Standing::Held
            } else {
                match below(claim.least * EVEN) {
                    0 => Standing::Even,
                    short => Standing::Short(short),
                }
            };
            Judged {
                claim,
                cases,
                standing,
            }
        })
        .collect()
}

/// Every claim.
pub const CLAIMS: &[Claim] = &[
    Claim {
        about: "u8·i8 and i8·i8, shapes of `table`, against the best peer",
        least: 1.0,
        unit: Unit::Times,
        cases: |records| {
            records.worth(
                |record| is_sums(record) && is_best(record) && listed(record, "table"),
                best_peer,
            )
        },
    },
    Claim {
        about: "u8·i8 and i8·i8 from 512³ on and of BERT, of the multiply limit",
        least: 0.97,
        unit: Unit::Share,
        cases: |records| {
            records.worth(
                |record| {
                    is_sums(record)
                        && is_best(record)
                        && (is_large(record) || listed(record, "bert-base"))
                },
                Record::share,
            )
        },
    },
    Claim {
        about: "shapes of `odd` and `small`, against the best peer",
        least: 1.2,
        unit: Unit::Times,
        cases: |records| {
            records.worth(
                |record| {
                    is_sums(record)
                        && is_best(record)
                        && (listed(record, "odd") || listed(record, "small"))
                },
                best_peer,
            )
        },
    },
    Claim {
        about: "1, 2, 4 and 8 rows, weights in cache and in memory, of the nearer limit",
        least: 0.95,
        unit: Unit::Share,
        cases: |records| {
            records.worth(
                |record| is_sums(record) && is_best(record) && is_decode(record),
                Record::share,
            )
        },
    },
    Claim {
        about: "1, 2, 4 and 8 rows, against the best peer",
        least: 1.0,
        unit: Unit::Times,
        cases: |records| {
            records.worth(
                |record| is_sums(record) && is_best(record) && is_decode(record),
                best_peer,
            )
        },
    },
    Claim {
        about: "2 threads against 1 from 512³ on",
        least: 1.95,
        unit: Unit::Times,
        cases: |records| {
            records.beside(
                |record| {
                    is_sums(record)
                        && is_best(record)
                        && is_large(record)
                        && record.key.threads == 2
                },
                |key| key.threads = 1,
            )
        },
    },
    Claim {
        about: "capped at AVX2, from 512³ on, of the exact route's limit",
        least: 0.97,
        unit: Unit::Share,
        cases: |records| {
            records.worth(
                |record| is_sums(record) && record.key.isa == "avx2" && is_large(record),
                Record::share,
            )
        },
    },
    Claim {
        about: "capped at AVX2, bell-shaped weights, against oneDNN capped alike",
        least: 1.0,
        unit: Unit::Times,
        cases: |records| {
            records.worth(
                |record| {
                    is_product(record)
                        && record.key.isa == "avx2"
                        && record.key.data.ends_with("bell")
                        && !is_best(record)
                },
                |record| record.ratios.get("onednn").copied(),
            )
        },
    },
    Claim {
        about: "BERT, zero points, bias and scales to u8 or f32, against plain sums",
        least: 1.0 / 1.03,
        unit: Unit::Times,
        cases: |records| {
            records.beside(
                |record| {
                    record.key.op == "gemm"
                        && is_best(record)
                        && listed(record, "bert-base")
                        && ["u8·i8→u8", "u8·i8→f32", "i8·i8→u8", "i8·i8→f32"]
                            .contains(&record.key.types.as_str())
                },
                |key| {
                    let operands = key.types.split('→').next().unwrap_or_default();
                    key.types = format!("{operands}→i32");
                },
            )
        },
    },
    Claim {
        about: "BERT, quantizing f32 activations in the call, against plain sums",
        least: 1.0 / 1.05,
        unit: Unit::Times,
        cases: |records| {
            records.beside(
                |record| {
                    record.key.op == "gemm_dynamic"
                        && is_best(record)
                        && listed(record, "bert-base")
                },
                |key| {
                    key.op = "gemm".to_owned();
                    key.types = "u8·i8→i32".to_owned();
                },
            )
        },
    },
    Claim {
        about: "bf16 and f16 products, against the gemm crate's f32",
        least: 1.0,
        unit: Unit::Times,
        cases: |records| {
            records.worth(
                |record| is_half(record) && is_best(record) && record.key.data != "hardware",
                |record| record.ratios.get("gemm").copied(),
            )
        },
    },
    Claim {
        about: "bf16 products in hardware, against the gemm crate's f32",
        least: 1.8,
        unit: Unit::Times,
        cases: |records| {
            records.worth(
                |record| is_half(record) && is_best(record) && record.key.data == "hardware",
                |record| record.ratios.get("gemm").copied(),
            )
        },
    },
    Claim {
        about: "conversions, quantize, dequantize and ranges, of memcpy or reading",
        least: 0.9,
        unit: Unit::Share,
        cases: |records| {
            records.worth(
                |record| is_elementwise(record) && is_best(record),
                Record::share,
            )
        },
    },
    Claim {
        about: "histograms filled from memory, of reading",
        least: 0.3,
        unit: Unit::Share,
        cases: |records| {
            records.worth(
                |record| {
                    record.key.op == "histogram" && record.key.data == "mem" && is_best(record)
                },
                Record::share,
            )
        },
    },
    Claim {
        about: "conversions, quantize and dequantize, against the best peer",
        least: 1.0,
        unit: Unit::Times,
        cases: |records| {
            records.worth(
                |record| is_elementwise(record) && is_best(record),
                best_peer,
            )
        },
    },
    Claim {
        about: "convolutions summed in i32, against oneDNN's",
        least: 1.0,
        unit: Unit::Times,
        cases: |records| {
            records.worth(
                |record| {
                    record.key.op == "conv" && record.key.types == "u8·i8→i32" && is_best(record)
                },
                |record| record.ratios.get("onednn").copied(),
            )
        },
    },
    Claim {
        about: "min-max observed from memory, of reading",
        least: 0.9,
        unit: Unit::Share,
        cases: |records| records.worth(|record| is_observed(record, "minmax"), Record::share),
    },
    Claim {
        about: "histograms observed from memory, of reading",
        least: 0.3,
        unit: Unit::Share,
        cases: |records| records.worth(|record| is_observed(record, "histogram"), Record::share),
    },
    Claim {
        about: "entropy and squared error over 2,048 bins, against 1 ms",
        least: 1.0,
        unit: Unit::Times,
        cases: |records| {
            records.worth(
                |record| {
                    record.key.op == estimators::OP
                        && ["entropy", "mse"].contains(&record.key.types.as_str())
                },
                |record| Some(1e6 / record.time_ns()),
            )
        },
    },
    Claim {
        about: "whole calibrations in total, on all threads given, against ONNX Runtime's",
        least: 50.0,
        unit: Unit::Times,
        cases: |records| {
            let total = |record: &Record| record.key.types == whole::TOTAL;
            records.worth(
                |record| total(record) && records.on_most_threads(record),
                |record| record.ratios.get(whole::ONNXRUNTIME).copied(),
            )
        },
    },
    Claim {
        about: "ONNX Runtime's ranges repeated, bit for bit",
        least: 1.0,
        unit: Unit::Share,
        cases: |records| {
            let repeated = |record: &&Record| record.key.op == whole::OP && !record.is_ours();
            records
                .0
                .iter()
                .filter(repeated)
                .filter_map(|record| {
                    Some(Case {
                        label: label(&record.key),
                        worth: record.agreement?,
                    })
                })
                .collect()
        },
    },
];

impl Records<'_> {
    /// Whether it is a whole calibration on as many threads as any of the run.
    fn on_most_threads(&self, record: &Record) -> bool {
        let whole = |record: &&Record| record.key.op == whole::OP;
        let most = self.0.iter().filter(whole).map(|r| r.key.threads).max();
        whole(&record) && Some(record.key.threads) == most
    }

    /// Our results that `speaks` of, each worth what `worth` says, if it says anything.
    fn worth(
        &self,
        speaks: impl Fn(&Record) -> bool,
        worth: impl Fn(&Record) -> Option<f64>,
    ) -> Vec<Case> {
        self.0
            .iter()
            .filter(|record| record.is_ours() && speaks(record))
            .filter_map(|record| {
                Some(Case {
                    label: label(&record.key),
                    worth: worth(record)?,
                })
            })
            .collect()
    }

    /// Our results that `speaks` of, each as many times as fast as the one whose key `other` makes.
    fn beside(&self, speaks: impl Fn(&Record) -> bool, other: impl Fn(&mut Key)) -> Vec<Case> {
        self.worth(speaks, |record| {
            let mut key = record.key.clone();
            other(&mut key);
            let other = self.0.iter().find(|record| record.key == key)?;
            Some(other.time_ns() / record.time_ns())
        })
    }
}

fn label(key: &Key) -> String {
    let Key {
        op,
        types,
        m,
        k,
        n,
        data,
        isa,
        threads,
        ..
    } = key;
    let size = if *m == 1 && *k == 1 {
        n.to_string()
    } else {
        format!("{m}x{k}x{n}")
    };
    let plural = if *threads == 1 { "" } else { "s" };
    format!("{op} {types} {size} {data} {isa} {threads} thread{plural}")
}

/// Against the fastest peer of the same rounds.
fn best_peer(record: &Record) -> Option<f64> {
    record.ratios.values().copied().reduce(f64::min)
}

fn is_product(record: &Record) -> bool {
    record.key.op == "gemm" && record.key.library == OURS
}

/// Products of full-range bytes whose sums are stored as they are.
fn is_sums(record: &Record) -> bool {
    is_product(record)
        && ["u8·i8→i32", "i8·i8→i32"].contains(&record.key.types.as_str())
        && !["bell", "reduced"]
            .iter()
            .any(|drawn| record.key.data.ends_with(drawn))
}

/// Whether it ran on the best tier of this machine.
fn is_best(record: &Record) -> bool {
    qkernels::Isa::available()
        .last()
        .is_some_and(|isa| isa.name() == record.key.isa)
}

fn listed(record: &Record, list: &str) -> bool {
    let Key { m, k, n, .. } = record.key;
    let list = shapes::LISTS.iter().find(|named| named.name == list);
    list.is_some_and(|list| list.items.contains(&Shape { m, k, n }))
}

fn is_large(record: &Record) -> bool {
    record.key.m.min(record.key.k).min(record.key.n) >= 512
}

/// Few rows, and weights that the first two levels of cache do not hold.
fn is_decode(record: &Record) -> bool {
    let Key { m, k, n, .. } = record.key;
    [1, 2, 4, 8].contains(&m) && k * n >= 4 << 20
}

fn is_half(record: &Record) -> bool {
    is_product(record) && ["bf16·bf16→f32", "f16·f16→f32"].contains(&record.key.types.as_str())
}

fn is_elementwise(record: &Record) -> bool {
    ["convert", "quantize", "dequantize", "min_max", "abs_max"].contains(&record.key.op.as_str())
        && ["l2", "mem"].contains(&record.key.data.as_str())
}

/// Per tensor, from memory.
fn is_observed(record: &Record, observer: &str) -> bool {
    let Key {
        op, types, data, ..
    } = &record.key;
    op == observers::OP && data == "mem" && *types == format!("{observer}, tensor")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn product(shape: (usize, usize, usize), threads: usize, gops: f64) -> Record {
        let best = qkernels::Isa::available().last().unwrap();
        let mut record = record(best.name(), gops);
        (record.key.m, record.key.k, record.key.n) = shape;
        record.key.threads = threads;
        record
    }

    fn standing(records: &[Record], about: &str) -> Standing {
        let judged = judge(records);
        let found: Vec<_> = judged
            .iter()
            .filter(|judged| judged.claim.about.contains(about))
            .collect();
        assert_eq!(found.len(), 1, "{about}");
        found[0].standing
    }

    #[test]
    fn a_claim_holds_only_if_every_result_does() {
        let shape = (1024, 1024, 1024);
        let mut one = product(shape, 1, 99.0);
        let about = "of `table`";
        assert_eq!(standing(&[one.clone()], about), Standing::Open);
        one.ratios.insert("a".to_owned(), 1.2);
        one.ratios.insert("b".to_owned(), 1.0);
        assert_eq!(standing(&[one.clone()], about), Standing::Held);
        one.ratios.insert("c".to_owned(), 0.985);
        assert_eq!(standing(&[one.clone()], about), Standing::Even);
        one.ratios.insert("d".to_owned(), 0.9);
        assert_eq!(standing(&[one], about), Standing::Short(1));
    }

    #[test]
    fn threads_are_set_beside_one() {
        let shape = (1024, 1024, 1024);
        let (one, two) = (product(shape, 1, 10.0), product(shape, 2, 19.8));
        let about = "2 threads";
        assert_eq!(standing(&[one.clone(), two], about), Standing::Held);
        let slow = product(shape, 2, 15.0);
        assert_eq!(standing(&[one, slow.clone()], about), Standing::Short(1));
        assert_eq!(standing(&[slow], about), Standing::Open);
    }

    #[test]
    fn a_share_is_of_the_limit() {
        // The limit of a test record is 100.
        let about = "of the multiply limit";
        let fast = product((128, 768, 3072), 1, 97.5);
        assert_eq!(standing(std::slice::from_ref(&fast), about), Standing::Held);
        let slow = product((128, 768, 768), 1, 80.0);
        assert_eq!(standing(&[fast, slow], about), Standing::Short(1));
    }

    /// A calibration of ours and one of the peer's, with the claims that speak of them.
    #[test]
    fn calibrations_are_judged_by_their_ratio_and_their_ranges() {
        let mut ours = record("own", 1.0);
        ours.key.op = whole::OP.to_owned();
        ours.key.types = whole::TOTAL.to_owned();
        ours.key.threads = 2;
        ours.ratios.insert(whole::ONNXRUNTIME.to_owned(), 51.0);
        let mut fewer = ours.clone();
        fewer.key.threads = 1;
        fewer.ratios.insert(whole::ONNXRUNTIME.to_owned(), 30.0);
        let mut theirs = ours.clone();
        theirs.key.library = whole::ONNXRUNTIME.to_owned();
        theirs.agreement = Some(1.0);
        // A method by itself, and repeating what the peer does, may take as long as they take.
        let mut one = ours.clone();
        one.key.types = "entropy".to_owned();
        let mut repeated = ours.clone();
        repeated.key.types = format!("entropy {}", whole::REPEATED);
        for other in [&mut one, &mut repeated] {
            other.ratios.insert(whole::ONNXRUNTIME.to_owned(), 2.0);
        }
        let all = [ours.clone(), fewer, one, repeated, theirs.clone()];
        assert_eq!(standing(&all, "whole calibrations"), Standing::Held);
        assert_eq!(standing(&all, "ranges repeated"), Standing::Held);
        theirs.agreement = Some(0.9);
        ours.ratios.insert(whole::ONNXRUNTIME.to_owned(), 40.0);
        let all = [ours, theirs];
        assert_eq!(standing(&all, "whole calibrations"), Standing::Short(1));
        assert_eq!(standing(&all, "ranges repeated"), Standing::Short(1));
    }

    #[test]
    fn estimators_are_judged_by_their_time() {
        let mut one = record("own", 1.0);
        one.key.op = estimators::OP.to_owned();
        one.key.types = "mse".to_owned();
        one.median_ns = 0.9e6;
        let about = "against 1 ms";
        assert_eq!(standing(std::slice::from_ref(&one), about), Standing::Held);
        one.median_ns = 1.1e6;
        assert_eq!(standing(&[one], about), Standing::Short(1));
    }

    #[test]
    fn convolutions_are_judged_by_their_sums() {
        let about = "convolutions";
        let mut sums = product((3136, 9, 128), 1, 50.0);
        sums.key.op = "conv".to_owned();
        sums.ratios.insert("onednn".to_owned(), 1.1);
        let mut bytes = sums.clone();
        bytes.key.types = "u8·i8→u8".to_owned();
        bytes.ratios.insert("onednn".to_owned(), 0.5);
        let bytes_alone = std::slice::from_ref(&bytes);
        assert_eq!(standing(bytes_alone, about), Standing::Open);
        assert_eq!(standing(&[sums, bytes], about), Standing::Held);
    }

    #[test]
    fn results_go_beside_those_of_other_outputs() {
        let shape = (128, 768, 768);
        let sums = product(shape, 1, 50.0);
        let mut bytes = product(shape, 1, 49.5);
        bytes.key.types = "u8·i8→u8".to_owned();
        assert_eq!(standing(&[sums, bytes], "to u8 or f32"), Standing::Held);
    }
}
