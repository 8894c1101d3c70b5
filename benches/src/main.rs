//! `cargo xtask bench`: the kernels beside the machine's measured limits, as a table and as JSON.
#![forbid(unsafe_code)]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use qkernels::Isa;
use quaver_benches::machine::Machine;
use quaver_benches::measure::{self, Plan};
use quaver_benches::memory::Lines;
use quaver_benches::ops::finish::Output;
use quaver_benches::ops::gemm::{Distribution, Types, Wanted, Weights};
use quaver_benches::ops::{self, Field, Job};
use quaver_benches::peer::{self, Peer};
use quaver_benches::record::Record;
use quaver_benches::{
    BenchError, baseline, calib, claims, convs, environment, lists, plot, record, shapes, sizes,
    table,
};

#[global_allocator]
static MEMORY: Lines = Lines;

/// Times kernels and models beside the machine's limits, measured in the same run.
///
/// Everything in a cell (each tier of instructions, each number of threads, each limit) takes its
/// turn in every round; the table shows medians, and the interquartile range as spread. Answers are
/// compared with the scalar tier's before anything is timed.
///
/// Weights are packed ahead, as an engine does when it loads a model. GOP/s count multiplications
/// and additions, GB/s bytes read and written.
#[derive(Parser)]
#[command(
    name = "bench",
    bin_name = "cargo xtask bench",
    version,
    after_help = after_help()
)]
struct Args {
    /// What to time; all if none is named.
    #[arg(value_enum)]
    ops: Vec<Op>,
    /// Tiers of instructions: `all` that run here, or names with commas between. Default: the best
    /// here, capped by `QUAVER_ISA`.
    #[arg(long, value_name = "all|NAME,…")]
    isa: Option<String>,
    /// Numbers of threads.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1")]
    threads: Vec<usize>,
    /// Shapes of matrix products: names of lists, or `MxKxN`. Default: table.
    #[arg(long, value_name = "NAME|MxKxN,…")]
    shapes: Option<String>,
    /// Convolutions: names of lists, or `HxWxINPUTS-KxKsSTRIDE-OUTPUTS` (OUTPUTS `dw` for depthwise).
    /// Default: resnet50,mobilenet.
    #[arg(long, value_name = "NAME|CONV,…")]
    convs: Option<String>,
    /// Types of matrix products, left by right.
    #[arg(
        long,
        value_enum,
        value_name = "TYPES,…",
        value_delimiter = ',',
        default_value = "u8i8,i8i8"
    )]
    types: Vec<Types>,
    /// What becomes of the sums of gemm and conv: kept, or zero points (0 in conv), bias and scales
    /// applied and stored as u8 or f32.
    #[arg(
        long,
        value_enum,
        value_name = "TYPE,…",
        value_delimiter = ',',
        default_value = "i32"
    )]
    out: Vec<Output>,
    /// Where the weights are: in cache if they fit, or rotated through more memory than the caches.
    #[arg(
        long,
        value_enum,
        value_name = "WHERE,…",
        value_delimiter = ',',
        default_value = "hot"
    )]
    weights: Vec<Weights>,
    /// How the weights of gemm and conv and the right operands of batch are distributed: full-range
    /// bytes, bell-shaped as trained weights are, or seven bits, with which no peer saturates.
    #[arg(
        long,
        value_enum,
        value_name = "HOW,…",
        value_delimiter = ',',
        default_value = "uniform"
    )]
    values: Vec<Distribution>,
    /// Amounts of data for elementwise work, read and written together: levels of memory, or bytes.
    #[arg(long, value_name = "LEVEL|BYTES,…", default_value = "l2,mem")]
    sizes: String,
    /// Batch sizes of the model.
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "1,32"
    )]
    batch: Vec<NonZeroUsize>,
    /// Libraries to measure beside ours, in the same rounds; repeatable. Each is behind a Cargo
    /// feature `peer-NAME`, which `cargo xtask bench` switches on.
    #[arg(long = "peer", value_name = "NAME", value_delimiter = ',')]
    peers: Vec<String>,
    /// Write the records as JSON to FILE.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw a roofline and bars as SVG: FILE.svg and FILE-roofline.svg, or into a folder.
    #[arg(long, value_name = "FILE.svg|FOLDER")]
    plot: Option<PathBuf>,
    /// Keep this run as a baseline in FILE.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Name what became slower than in the baseline FILE; exit with 3 if anything did.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Set every claim about the kernels beside the results of this run: held, even, or how far
    /// short. Name operations, shapes and peers that the claims speak of; others stay open.
    #[arg(long)]
    check: bool,
    /// A few short rounds: shows that everything runs, not how fast.
    #[arg(long)]
    quick: bool,
    /// Judge by the best of many short rounds instead of the median of some long ones: what the
    /// code does while no other program shares the processor.
    #[arg(long, conflicts_with = "quick")]
    best: bool,
    /// Be our process of whole calibrations: answer questions from stdin.
    #[arg(long, hide = true)]
    serve_calibration: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Op {
    /// Matrix products with weights packed ahead.
    Gemm,
    /// Products of f32 activations that are quantized in the call.
    Dynamic,
    /// Convolutions of one image, depthwise ones among them.
    Conv,
    /// f16 and bf16 to f32 and back.
    Convert,
    /// Quantize, dequantize, requantize; the range, largest magnitude and histogram of a tensor.
    Quantize,
    /// The digit classifier, in float32 and quantized.
    Model,
    /// Products of many pairs of matrices, packed in the call: attention.
    Batch,
    /// Products of i16 summed in i64.
    Wide,
    /// Observers, estimators, and whole calibrations beside ONNX Runtime's (`QUAVER_PYTHON` names the
    /// interpreter that has it).
    Calib,
}

fn after_help() -> String {
    let list = |items: &[(&str, &str)]| {
        items
            .iter()
            .map(|(name, about)| format!("  {name:<10} {about}\n"))
            .collect::<String>()
    };
    format!(
        "\
Lists of shapes:
{shapes}
Lists of convolutions:
{convs}
Levels of memory:
{levels}
Peers (--peer NAME, as often as you like):
{peers}
Tiers of instructions: {tiers} (here: {here})

Examples:
  cargo xtask bench gemm                                     the usual shapes on the best tier
  cargo xtask bench gemm --isa all --threads 1,2             every tier, one thread and two
  cargo xtask bench gemm --shapes bert-base --out i32,u8     what requantizing costs
  cargo xtask bench gemm --shapes 1x4096x4096 --weights hot,cold
  cargo xtask bench conv --convs mobilenet --peer onednn     convolutions beside another library
  cargo xtask bench convert quantize --sizes 64KiB,mem
  cargo xtask bench model --threads 1,2                      float32 beside int8
  QUAVER_PYTHON=python3 cargo xtask bench calib --threads 1,2 --check    beside ONNX Runtime's
  cargo xtask bench gemm --peer onednn --peer rten           beside other libraries
  cargo xtask bench gemm --best --peer onednn                on a machine that others share
  cargo xtask bench --save before.json                       keep a baseline …
  cargo xtask bench --compare before.json                    … and name what became slower",
        shapes = list(&lists::about(shapes::LISTS)),
        convs = list(&lists::about(convs::LISTS)),
        levels = list(sizes::LEVELS),
        peers = peer::PEERS
            .iter()
            .map(|peer| format!("  {:<12} {}; needs {}\n", peer.name, peer.about, peer.needs))
            .collect::<String>(),
        tiers = Isa::known().join(", "),
        here = Isa::available()
            .map(Isa::name)
            .collect::<Vec<_>>()
            .join(", "),
    )
}

/// The exit status when something became slower than the baseline.
const SLOWER: u8 = 3;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, BenchError> {
    if args.serve_calibration {
        return calib::serve::serve().map(|()| ExitCode::SUCCESS);
    }
    if !args.peers.is_empty() {
        environment::settle()?;
    }
    let machine = Machine::detect();
    // Whatever cannot be read is said before an hour of measuring, not after it.
    let before = args.compare.as_deref().map(record::read).transpose()?;
    let jobs = jobs(args, &machine)?;
    let isas = isas(args)?;
    let peers = peers(args, &isas)?;
    let field = Field::new(isas, threads(args)?, peers)?;
    println!("{}", field.machine.cpu);
    println!(
        "tiers here: {}",
        Isa::available()
            .map(Isa::name)
            .collect::<Vec<_>>()
            .join(", ")
    );
    for missing in Isa::known() {
        if let Err(reason) = Isa::from_name(missing) {
            println!("not measured: {reason}");
        }
    }

    let plan = match (args.quick, args.best) {
        (true, _) => Plan::QUICK,
        (_, true) => Plan::BEST,
        _ => Plan::FULL,
    };
    let mut records = measure_all(jobs, &field, plan)?;
    let calibrates = args.ops.is_empty() || args.ops.contains(&Op::Calib);
    if calibrates {
        records.extend(whole_calibrations(args, &field.machine)?);
    }
    println!("{}", table::of_records(&records));
    if calibrates && calib::python().is_none() {
        println!("{}", calib::not_run());
    }
    if args.check {
        println!("{}", table::of_claims(&claims::judge(&records)));
    }
    for path in args.json.iter().chain(&args.save) {
        record::write(path, &records)?;
    }
    if let Some(path) = &args.plot {
        for path in plot::write(path, &records)? {
            println!("drawn: {}", path.display());
        }
    }
    let Some(before) = before else {
        return Ok(ExitCode::SUCCESS);
    };
    let comparison = baseline::compare(&before, &records);
    let slower = comparison.slower();
    if comparison
        .changes
        .iter()
        .any(|change| change.verdict != baseline::Verdict::Even)
    {
        println!("{}", table::of_changes(&comparison.changes));
    }
    println!(
        "{slower} of {} rows became slower; {} are not in the baseline",
        comparison.changes.len(),
        comparison.new
    );
    if comparison.by_share > 0 {
        println!("the baseline is of another processor: shares of the limit were compared");
    }
    Ok(if slower > 0 {
        ExitCode::from(SLOWER)
    } else {
        ExitCode::SUCCESS
    })
}

/// The commit that is measured, where it is known.
fn commit() -> Option<String> {
    std::env::var("QUAVER_COMMIT").ok()
}

fn whole_calibrations(args: &Args, machine: &Machine) -> Result<Vec<Record>, BenchError> {
    let plan = if args.quick {
        calib::whole::Plan::QUICK
    } else {
        calib::whole::Plan::FULL
    };
    let (python, commit) = (calib::python(), commit());
    let threads = threads(args)?;
    calib::whole::side_by_side(plan, threads, python.as_deref(), machine, commit.as_deref())
}

fn measure_all(jobs: Vec<Job>, field: &Field, plan: Plan) -> Result<Vec<Record>, BenchError> {
    // On stderr, and only where that is a terminal.
    let bar = ProgressBar::new(jobs.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    let commit = commit();
    let mut records = Vec::new();
    for job in jobs {
        bar.set_message(job.label.clone());
        let mut cell = (job.build)(field)?;
        let outcomes = measure::measure(&mut cell, plan);
        records.extend(record::of_cell(
            &cell,
            &outcomes,
            &field.machine,
            commit.as_deref(),
        ));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if records.is_empty() {
        return Err(BenchError::NothingMeasured {
            reason: "no shape or size was asked for".into(),
        });
    }
    Ok(records)
}

fn jobs(args: &Args, machine: &Machine) -> Result<Vec<Job>, BenchError> {
    let wants = |op| args.ops.is_empty() || args.ops.contains(&op);
    let shapes = args.shapes.as_deref().unwrap_or("table");
    let mut jobs = Vec::new();
    if wants(Op::Gemm) {
        jobs.extend(ops::gemm::jobs(&Wanted {
            shapes: shapes::parse(shapes)?,
            types: args.types.clone(),
            outputs: args.out.clone(),
            weights: args.weights.clone(),
            distributions: args.values.clone(),
        }));
    }
    if wants(Op::Dynamic) {
        jobs.extend(ops::dynamic::jobs(&shapes::parse(shapes)?));
    }
    if wants(Op::Wide) {
        jobs.extend(ops::wide::jobs(&shapes::parse(shapes)?));
    }
    let shaped = wants(Op::Gemm) || wants(Op::Dynamic) || wants(Op::Wide);
    if let (Some(shapes), false) = (&args.shapes, shaped) {
        return Err(BenchError::Argument {
            argument: "--shapes",
            given: shapes.clone(),
            allowed: "only gemm, dynamic and wide have shapes; elementwise work has --sizes"
                .to_owned(),
        });
    }
    if wants(Op::Conv) {
        let convs = args.convs.as_deref().unwrap_or("resnet50,mobilenet");
        let convs = convs::parse(convs)?;
        jobs.extend(ops::conv::jobs(&convs, &args.values, &args.out));
    } else if let Some(convs) = &args.convs {
        return Err(BenchError::Argument {
            argument: "--convs",
            given: convs.clone(),
            allowed: "only conv has convolutions".to_owned(),
        });
    }
    let sizes = sizes::parse(&args.sizes, machine)?;
    if wants(Op::Convert) {
        jobs.extend(ops::convert::jobs(&sizes));
    }
    if wants(Op::Quantize) {
        jobs.extend(ops::quantize::jobs(&sizes));
    }
    if wants(Op::Batch) {
        jobs.extend(ops::batch::jobs(ops::batch::ATTENTION, &args.values));
    }
    if wants(Op::Calib) {
        jobs.extend(calib::jobs(&sizes, calib::python().as_deref()));
    }
    if wants(Op::Model) {
        let batches: Vec<usize> = args.batch.iter().map(|batch| batch.get()).collect();
        jobs.extend(ops::model::jobs(&batches));
    }
    Ok(jobs)
}

fn isas(args: &Args) -> Result<Vec<Isa>, BenchError> {
    match args.isa.as_deref() {
        None => Ok(vec![Isa::detect()]),
        Some("all") => Ok(Isa::available().collect()),
        Some(names) => names
            .split(',')
            .map(|name| {
                Isa::from_name(name.trim()).map_err(|error| BenchError::Argument {
                    argument: "--isa",
                    given: name.to_owned(),
                    allowed: error.to_string(),
                })
            })
            .collect(),
    }
}

fn threads(args: &Args) -> Result<&[usize], BenchError> {
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    match args
        .threads
        .iter()
        .find(|threads| !(1..=most).contains(*threads))
    {
        None => Ok(&args.threads),
        Some(threads) => Err(BenchError::Argument {
            argument: "--threads",
            given: threads.to_string(),
            allowed: format!("from 1 to {most}, the processors here"),
        }),
    }
}

/// Opens the peers, capped at the best of our tiers where that is not the best there is.
fn peers(args: &Args, isas: &[Isa]) -> Result<Vec<Box<dyn Peer>>, BenchError> {
    let best = isas.last().copied();
    let cap = best.filter(|&best| Isa::available().last() != Some(best));
    let mut peers = Vec::new();
    for (index, name) in args.peers.iter().enumerate() {
        // A peer that is named twice is meant once.
        if !args.peers[..index].contains(name) {
            peers.push(peer::open(name, cap)?);
        }
    }
    Ok(peers)
}
