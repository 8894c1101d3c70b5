//! The processor, its caches, and threads to run on.

use std::path::Path;

use crate::BenchError;
use crate::crew::Crew;

/// What a result depends on beside the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The processor's name, with family and model where the name alone says too little.
    pub cpu: String,
    /// First-level data cache of one core, in bytes.
    pub l1d: usize,
    /// Second-level cache of one core, in bytes.
    pub l2: usize,
    /// Third-level cache, shared, in bytes.
    pub l3: usize,
}

impl Machine {
    /// Asks the system (Linux); what it does not tell gets a usual value.
    #[must_use]
    pub fn detect() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cache =
            |level, kind| cache_size(Path::new("/sys/devices/system/cpu/cpu0/cache"), level, kind);
        let l2 = cache(2, "Unified").unwrap_or(1 << 20);
        Self {
            cpu: cpu_name(&cpuinfo),
            l1d: cache(1, "Data").unwrap_or(32 << 10),
            l2,
            l3: cache(3, "Unified").unwrap_or(l2.max(8 << 20)),
        }
    }
}

fn cpu_name(cpuinfo: &str) -> String {
    let field = |name: &str| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let name = field("model name").unwrap_or(std::env::consts::ARCH);
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name.to_owned(),
    }
}

fn cache_size(folder: &Path, level: u32, kind: &str) -> Option<usize> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
        let matches = read("level").is_some_and(|text| text.trim() == level.to_string())
            && read("type").is_some_and(|text| text.trim() == kind);
        if matches {
            let size = read("size")?;
            let size = size.trim();
            return match size.strip_suffix('K') {
                Some(kib) => Some(kib.parse::<usize>().ok()? << 10),
                None => size.parse().ok(),
            };
        }
    }
    None
}

/// So many threads, started once, as an engine would hand them to the kernels: ours stay awake for a
/// while, as `OpenMP`'s do that oneDNN takes; `gemm` and `rten` take a pool of rayon's.
#[derive(Debug)]
pub struct Team {
    threads: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The thread that calls.
    Caller,
    /// The thread that calls and those beside it, which live as long as the program.
    Crew(&'static Crew),
    /// A pool in which all work runs.
    Pool(rayon::ThreadPool),
}

impl Team {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// [`BenchError::Spawn`] when the system has no more threads to give.
    pub fn new(threads: usize) -> Result<Self, BenchError> {
        let kind = if threads > 1 {
            Kind::Crew(Box::leak(Box::new(Crew::new(threads)?)))
        } else {
            Kind::Caller
        };
        Ok(Self { threads, kind })
    }

    /// Starts a pool, even if it has only one thread: for libraries that take as many threads as
    /// the pool has that they are called in.
    ///
    /// # Errors
    ///
    /// [`BenchError::Threads`] when the system has no more threads to give.
    pub fn pooled(threads: usize) -> Result<Self, BenchError> {
        let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = built.map_err(|source| BenchError::Threads { threads, source })?;
        Ok(Self {
            threads,
            kind: Kind::Pool(pool),
        })
    }

    /// How many threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What the kernels are told: which threads they may use.
    #[must_use]
    pub fn policy(&self) -> qkernels::Threads<'static> {
        match &self.kind {
            Kind::Caller => qkernels::Threads::Single,
            Kind::Crew(crew) => qkernels::Threads::Custom(*crew),
            Kind::Pool(_) => qkernels::Threads::Rayon,
        }
    }

    /// Runs `work` where the team's threads are at hand.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.kind {
            Kind::Pool(pool) => pool.install(work),
            _ => work(),
        }
    }

    /// Runs `work` on every thread of the team at once, with the thread's index.
    pub fn each(&self, work: impl Fn(usize) + Sync) {
        match &self.kind {
            Kind::Caller => work(0),
            Kind::Crew(crew) => crew.each(work),
            Kind::Pool(pool) => {
                pool.broadcast(|context| work(context.index()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_processor_is_named() {
        let text = "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: Some CPU\n";
        assert_eq!(cpu_name(text), "Some CPU (family 25, model 17)");
        assert_eq!(cpu_name(""), std::env::consts::ARCH);
        let machine = Machine::detect();
        assert!(
            machine.l1d <= machine.l2 && machine.l2 <= machine.l3,
            "{machine:?}"
        );
    }

    #[test]
    fn every_thread_of_a_team_works() {
        for threads in [1, 2, 3] {
            let team = Team::new(threads).unwrap();
            let sum = AtomicUsize::new(0);
            team.each(|index| {
                sum.fetch_add(index + 1, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), threads * (threads + 1) / 2);
            assert_eq!(team.run(|| 7), 7);
        }
    }
}
