//! Every peer of a build gives our answers, in every operation that is compared with peers.

use std::collections::BTreeMap;
use std::io::Write as _;

use clap::ValueEnum;
use qkernels::Isa;

use super::{PEERS, Peer, Work, open};
use crate::BenchError;
use crate::ops::batch::{self, Attention, Batch};
use crate::ops::finish::Output;
use crate::ops::gemm::{self, Distribution, Types, Wanted, Weights};
use crate::ops::{Field, Job, OURS, conv, convert, quantize};
use crate::shapes::Shape;
use crate::sizes::Size;
use crate::values::{Data, Values};

/// Every product that is handed to peers, on shapes of one element, of less than any tile, and of more
/// than one with remainders.
fn products(distribution: Distribution) -> Vec<Job> {
    let shapes = crate::shapes::parse("1x1x1,3x7x5,40x33x17").unwrap();
    let convs = "5x6x3-3x3s2-7,7x7x20-3x3s1-dw,9x4x16-1x1s1-5,8x8x33-5x5s2-dw";
    let convs = crate::convs::parse(convs).unwrap();
    let batches: Vec<Batch> = [Attention::ScoresOfColumns, Attention::Values]
        .into_iter()
        .flat_map(|kind| {
            let batch = move |(count, &shape)| Batch { count, shape, kind };
            (1..).zip(&shapes).map(batch)
        })
        .collect();
    let mut jobs = batch::jobs(&batches, &[distribution]);
    jobs.extend(conv::jobs(
        &convs,
        &[distribution],
        Output::value_variants(),
    ));
    jobs.extend(gemm::jobs(&Wanted {
        shapes,
        types: Types::value_variants().to_vec(),
        outputs: Output::value_variants().to_vec(),
        weights: vec![Weights::Hot],
        distributions: vec![distribution],
    }));
    jobs
}

/// Every operation on single values that is handed to peers.
fn maps() -> Vec<Job> {
    // The values that are compared are the same for all sizes.
    let sizes = [Size {
        name: "test".to_owned(),
        bytes: 9001,
    }];
    let mut jobs = convert::jobs(&sizes);
    jobs.extend(quantize::jobs(&sizes));
    jobs
}

/// The share of answers that must be ours. A byte may come out a step beside ours where its scaled
/// sum lies halfway between two, as close as f32 rounds: for about one in 10,000.
fn least(op: &str, types: &str) -> f64 {
    if op == "gemm" && types.ends_with("→u8") {
        0.99
    } else {
        1.0
    }
}

/// What peers did.
#[derive(Default)]
struct Report {
    /// How many answers they gave, by peer and operation, and the least share of one that is ours.
    given: BTreeMap<(&'static str, String), (usize, f64)>,
    /// Which answers are not ours, and what was not answered at all.
    wrong: Vec<String>,
}

/// Gives the jobs to the field's peers.
fn compare(field: &Field, jobs: Vec<Job>) -> Report {
    let mut report = Report::default();
    for job in jobs {
        let label = job.label;
        let mut cell = match (job.build)(field) {
            Ok(cell) => cell,
            Err(error) => {
                report.wrong.push(format!("{label}: {error}"));
                continue;
            }
        };
        // A peer may work on other types than were asked for.
        let types = cell.contenders[0].types.clone();
        let operation = format!("{} {types}", cell.op);
        for contender in &mut cell.contenders {
            let Some(agreement) = contender.agreement else {
                assert_eq!(contender.library, OURS, "{label}");
                continue;
            };
            let (peer, threads) = (contender.library, contender.team.threads());
            if agreement < least(cell.op, &types) {
                let share = (1.0 - agreement) * 100.0;
                report.wrong.push(format!(
                    "{label}: {peer} with {threads} threads (≠ {share:.4} %), {operation}"
                ));
            }
            let given = report.given.entry((peer, operation.clone()));
            let (count, worst) = given.or_insert((0, 1.0));
            *count += 1;
            *worst = worst.min(agreement);
            contender.team.run(&mut contender.call);
        }
    }
    report
}

/// Says something although a test that passes is not asked for what it printed.
fn say(what: &str) {
    writeln!(std::io::stderr(), "{what}").unwrap();
}

/// The peers of this build that are on this machine; the others are named.
fn present() -> Vec<Box<dyn Peer>> {
    let mut peers = Vec::new();
    for known in PEERS.iter().filter(|known| known.open.is_some()) {
        match open(known.name, None) {
            Ok(peer) => peers.push(peer),
            Err(error @ BenchError::PeerNotFound { .. }) => say(&format!("NOT CHECKED: {error}")),
            Err(error) => panic!("{error}"),
        }
    }
    peers
}

#[test]
fn peers_give_our_answers() {
    let peers = present();
    if peers.is_empty() {
        println!("NOT CHECKED: no peer is in this build (Cargo features `peer-NAME`)");
        return;
    }
    let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
    let field = Field::new(vec![Isa::detect()], &[1, 2], peers).unwrap();
    let mut jobs = products(Distribution::Reduced);
    // Without it sums of some peers saturate, where weights have all eight bits.
    if Isa::from_name("avx512_vnni").is_ok() {
        jobs.extend(products(Distribution::Uniform));
    } else {
        say("NOT CHECKED: peers with weights of eight bits: this processor has no AVX-512-VNNI");
    }
    jobs.extend(maps());
    let report = compare(&field, jobs);
    for ((peer, operation), (count, worst)) in &report.given {
        let share = worst * 100.0;
        println!("{peer}: {operation}: {count} answers, at least {share:.3} % ours");
    }
    for name in names {
        let worked = report.given.keys().any(|(peer, _)| *peer == name);
        assert!(worked, "{name} can do nothing that is compared");
    }
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
}

/// Answers zeros, whatever is asked.
struct Zeros;

impl Peer for Zeros {
    fn name(&self) -> &'static str {
        "zeros"
    }

    fn prepare(
        &self,
        task: &super::Task<'_>,
        _threads: usize,
    ) -> Result<Option<Box<dyn Work>>, BenchError> {
        use super::Task;
        let (dtype, len) = match task {
            Task::MatMul(task) => {
                let Shape { m, n, .. } = task.shape;
                (task.finish.dtype(), task.batch * m * n)
            }
            Task::Conv(task) => {
                let (m, _, n) = task.geometry.product();
                (task.finish.dtype(), m * n)
            }
            Task::Map(task) => (task.output, task.input.len()),
        };
        Ok(Data::zeros(dtype, len).map(|zeros| Box::new(zeros) as Box<dyn Work>))
    }
}

impl Work for Data {
    fn run(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    fn answer(&self) -> Values<'_> {
        self.values()
    }
}

#[test]
fn wrong_answers_are_named_in_every_operation() {
    let field = Field::new(vec![Isa::detect()], &[1], vec![Box::new(Zeros)]).unwrap();
    let mut jobs = products(Distribution::Reduced);
    jobs.extend(maps());
    let report = compare(&field, jobs);
    assert!(report.given.len() > 20, "{:?}", report.given);
    for (_, operation) in report.given.keys() {
        let named = report.wrong.iter().any(|wrong| wrong.contains(operation));
        assert!(named, "zeros pass as answers of {operation}");
    }
}
