//! `cargo xtask ci`: what must hold before a change is merged, one line a step.

mod demo;
mod interop;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::error::Error;
use crate::{process, python, sanitize, tiers, workspace};

/// Run every check that must hold before a change is merged; stop at the first that fails.
///
/// Needs a Python with numpy, onnx and onnxruntime: the one that `QUAVER_PYTHON` names, or one in
/// a virtual environment below the target folder, made on first use.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask ci                 every step, in order
  cargo xtask ci --list          the steps with what each is for
  cargo xtask ci clippy test     these steps only
  cargo xtask ci --from tidy     this step and all after it
  cargo xtask ci --skip s390x    all but this step (which is said at the end)")]
pub(crate) struct Args {
    /// The steps to run; all if none is named.
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
    /// The first step to run; those before it are left out.
    #[arg(long, value_name = "STEP", conflicts_with = "steps")]
    from: Option<String>,
    /// A step to leave out, where what it needs cannot be had. Repeatable.
    #[arg(long, value_name = "STEP")]
    skip: Vec<String>,
    /// List the steps and run none.
    #[arg(long)]
    list: bool,
}

/// One step: what it is called, what it is for, and what it does.
struct Step {
    name: &'static str,
    purpose: &'static str,
    tasks: fn() -> Result<Vec<Task>, Error>,
}

/// One part of a step.
enum Task {
    /// A program that must succeed.
    Run(Command),
    /// A file whose contents must hold what is promised.
    Verify {
        /// The file.
        file: PathBuf,
        /// The promises, in words.
        promise: &'static str,
        /// What reads the file's text and finds the promise broken.
        check: fn(&str) -> Result<String, String>,
    },
}

/// Every step, the quick ones first, and those that share a build beside each other.
const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        purpose: "one layout for all code",
        tasks: fmt,
    },
    Step {
        name: "tidy",
        purpose: "the architecture's invariants",
        tasks: tidy,
    },
    Step {
        name: "clippy",
        purpose: "no warning in any target",
        tasks: clippy,
    },
    Step {
        name: "doc",
        purpose: "documentation without warnings",
        tasks: doc,
    },
    Step {
        name: "test",
        purpose: "all tests, on every tier that this processor has, with the ONNX standard's own",
        tasks: test,
    },
    Step {
        name: "features",
        purpose: "every subset of features builds and works",
        tasks: features,
    },
    Step {
        name: "leak",
        purpose: "no instruction stands outside of its tier",
        tasks: leak,
    },
    Step {
        name: "x86_64",
        purpose: "the tests on older processors, under qemu",
        tasks: x86_64,
    },
    Step {
        name: "aarch64",
        purpose: "the tests on three levels of ARM, under qemu",
        tasks: aarch64,
    },
    Step {
        name: "s390x",
        purpose: "the tests on a big-endian processor, under qemu",
        tasks: s390x,
    },
    Step {
        name: "sanitize",
        purpose: "the kernels' tests with every access to memory checked",
        tasks: sanitize,
    },
    Step {
        name: "build",
        purpose: "the programs",
        tasks: build,
    },
    Step {
        name: "bench",
        purpose: "the bench runs and its answers are right",
        tasks: bench,
    },
    Step {
        name: "interop",
        purpose: "our files in ONNX Runtime and its files in ours: the same top-1",
        tasks: interop::interop,
    },
    Step {
        name: "demo",
        purpose: "all six steps on a real model, as accurate as float",
        tasks: interop::demo,
    },
];

/// Runs the steps that `args` picks.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let picked = pick(args)?;
    if args.list {
        for step in picked {
            println!("{:<10} {}", step.name, step.purpose);
        }
        return Ok(());
    }
    let start = Instant::now();
    let mut times = Vec::with_capacity(picked.len());
    for step in picked {
        let begun = Instant::now();
        println!("\n=== {}: {}", step.name, step.purpose);
        let outcome = (step.tasks)().and_then(|tasks| tasks.into_iter().try_for_each(perform));
        let seconds = begun.elapsed().as_secs_f64();
        outcome.map_err(|source| Error::Step {
            step: step.name,
            seconds,
            source: Box::new(source),
            again: format!("cargo xtask ci {}", step.name),
        })?;
        println!("=== {} passed in {seconds:.0} s", step.name);
        times.push((step.name, seconds));
    }
    println!(
        "\nci: {} steps passed in {:.0} s",
        times.len(),
        start.elapsed().as_secs_f64()
    );
    for (name, seconds) in times {
        println!("    {name:<10} {seconds:>5.0} s");
    }
    for name in &args.skip {
        println!("NOT RUN: {name}");
    }
    Ok(())
}

fn pick(args: &Args) -> Result<Vec<&'static Step>, Error> {
    for given in args.steps.iter().chain(&args.from).chain(&args.skip) {
        if !STEPS.iter().any(|step| step.name == given) {
            return Err(Error::Unknown {
                kind: "step",
                given: given.clone(),
                known: STEPS
                    .iter()
                    .map(|step| step.name)
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
    }
    let first = args
        .from
        .as_ref()
        .and_then(|from| STEPS.iter().position(|step| step.name == from))
        .unwrap_or(0);
    let wanted = |step: &&Step| {
        let named = |names: &[String]| names.iter().any(|given| given == step.name);
        (args.steps.is_empty() || named(&args.steps)) && !named(&args.skip)
    };
    Ok(STEPS[first..].iter().filter(wanted).collect())
}

fn perform(task: Task) -> Result<(), Error> {
    match task {
        Task::Run(mut command) => {
            println!("$ {}", process::shown(&command));
            process::run(&mut command)
        }
        Task::Verify {
            file,
            promise,
            check,
        } => {
            println!("? {}: {promise}", file.display());
            let text = std::fs::read_to_string(&file).map_err(|source| Error::Io {
                path: file.clone(),
                source,
            })?;
            let summary = check(&text)
                .map_err(|missed| Error::Missed(format!("{}: {missed}", file.display())))?;
            println!("{summary}");
            Ok(())
        }
    }
}

fn cargo(args: &[&str]) -> Task {
    Task::Run(process::cargo(args))
}

fn fmt() -> Result<Vec<Task>, Error> {
    Ok(vec![cargo(&["fmt", "--all", "--check"])])
}

fn tidy() -> Result<Vec<Task>, Error> {
    Ok(vec![cargo(&["xtask", "tidy"])])
}

fn clippy() -> Result<Vec<Task>, Error> {
    Ok(vec![cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ])])
}

fn doc() -> Result<Vec<Task>, Error> {
    let mut command = process::cargo(["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    Ok(vec![Task::Run(command)])
}

fn test() -> Result<Vec<Task>, Error> {
    let python = python::interpreter()?;
    let mut command = process::cargo(["test", "--workspace"]);
    command
        .env("QUAVER_EXPECT_ISA", tiers::expected_here()?.join(","))
        .env_remove("QUAVER_TEST_ISA")
        .env(python::NODE_TESTS, python::onnx_node_tests(&python)?);
    Ok(vec![Task::Run(command)])
}

fn features() -> Result<Vec<Task>, Error> {
    Ok(vec![cargo(&["xtask", "features"])])
}

fn leak() -> Result<Vec<Task>, Error> {
    Ok(vec![cargo(&["xtask", "leak"])])
}

fn x86_64() -> Result<Vec<Task>, Error> {
    Ok(vec![cargo(&["xtask", "cross", "x86_64"])])
}

fn aarch64() -> Result<Vec<Task>, Error> {
    Ok(vec![cargo(&["xtask", "cross", "aarch64"])])
}

fn s390x() -> Result<Vec<Task>, Error> {
    Ok(vec![cargo(&["xtask", "cross", "s390x"])])
}

fn sanitize() -> Result<Vec<Task>, Error> {
    if sanitize::available() {
        return Ok(vec![cargo(&["xtask", "sanitize"])]);
    }
    // Nothing else here needs a second toolchain.
    println!("NOT RUN: there is no nightly toolchain (`cargo xtask sanitize --help`)");
    Ok(Vec::new())
}

fn build() -> Result<Vec<Task>, Error> {
    // In one call, so that both programs share every dependency; what is only asked whether it works,
    // as the tests leave it: any other choice of crates would compile the kernels anew.
    Ok(vec![
        cargo(&[
            "build",
            "--release",
            "--package",
            "quaver-cli",
            "--package",
            "quaver-benches",
        ]),
        cargo(&["test", "--workspace", "--no-run"]),
    ])
}

fn bench() -> Result<Vec<Task>, Error> {
    let mut tasks = Vec::new();
    for args in [
        &[
            "gemm",
            "--isa",
            "all",
            "--threads",
            "1,2",
            "--shapes",
            "8x8x8,97x131x203",
        ][..],
        &["convert", "--isa", "all", "--sizes", "l2"],
        &["quantize", "--isa", "all", "--sizes", "l2"],
        &["model", "--isa", "all"],
        &["calib", "--sizes", "l2"],
    ] {
        let mut command = Command::new(program("release", "quaver-benches"));
        command.args(args).arg("--quick");
        tasks.push(Task::Run(command));
    }
    Ok(tasks)
}

/// A program of this workspace as `build` left it, for a profile.
fn program(profile: &str, name: &str) -> PathBuf {
    workspace::target().join(profile).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(steps: &[&str], from: Option<&str>) -> Args {
        Args {
            steps: steps.iter().map(|&step| step.to_owned()).collect(),
            from: from.map(str::to_owned),
            skip: Vec::new(),
            list: false,
        }
    }

    fn names(args: &Args) -> Vec<&'static str> {
        pick(args).unwrap().iter().map(|step| step.name).collect()
    }

    #[test]
    fn all_steps_run_unless_some_are_named() {
        assert_eq!(names(&args(&[], None)).len(), STEPS.len());
        assert_eq!(names(&args(&["doc", "fmt"], None)), ["fmt", "doc"]);
        assert_eq!(names(&args(&[], Some("test")))[0], "test");
        let mut skipping = args(&["doc", "fmt"], None);
        skipping.skip = vec!["fmt".to_owned()];
        assert_eq!(names(&skipping), ["doc"]);
    }

    #[test]
    fn an_unknown_step_is_an_error_that_names_the_known_ones() {
        let error = pick(&args(&["tests"], None))
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`tests`") && error.contains("clippy"),
            "{error}"
        );
        assert!(pick(&args(&[], Some("x"))).is_err());
    }

    #[test]
    fn names_are_unique() {
        for (index, step) in STEPS.iter().enumerate() {
            assert!(
                STEPS[..index].iter().all(|other| other.name != step.name),
                "{}",
                step.name
            );
        }
    }

    #[test]
    fn a_broken_promise_fails_the_step() {
        let task = |check| Task::Verify {
            file: workspace::root().join("Cargo.toml"),
            promise: "it is a workspace",
            check,
        };
        assert!(perform(task(|_| Ok("so it is".to_owned()))).is_ok());
        let error = perform(task(|_| Err("it is not".to_owned())))
            .unwrap_err()
            .to_string();
        assert!(error.contains("it is not"), "{error}");
    }
}
