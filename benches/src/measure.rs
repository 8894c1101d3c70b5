//! How things are timed: everything in a cell takes its turn, round after round.
//!
//! A machine has slow spells (other tenants, clock changes, page faults). Timing one thing to its
//! end and then the next lets a spell fall on one of them; taking turns spreads it over all. The
//! median of the rounds is reported, and the interquartile range beside it says how far to trust it.
//! Where spells outlast a run, the best of many short rounds is what the code does when it is alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limit::{self, Demand};
use crate::machine::Team;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rounds at most.
    pub rounds: usize,
    /// The time that one sample should take; short calls are repeated until it is filled.
    pub sample: Duration,
    /// The pause after a turn on several threads, until idle workers, which first spin, are asleep.
    pub rest: Duration,
    /// The time that one contender may take in all; past it, it sits out the remaining rounds.
    pub budget: Duration,
    /// Which of its rounds speaks for a contender.
    pub statistic: Statistic,
}

/// Which of its rounds speaks for what was timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// The one in the middle: what a user gets here, beside whatever else runs.
    Median,
    /// The fastest: what the code does while nothing else runs.
    Best,
}

impl Plan {
    /// The rounds of a result to quote.
    pub const FULL: Plan = Plan {
        rounds: 11,
        sample: Duration::from_millis(12),
        rest: Duration::from_millis(4),
        budget: Duration::from_millis(1500),
        statistic: Statistic::Median,
    };
    /// Many rounds, short enough to fall between two spells of other programs.
    pub const BEST: Plan = Plan {
        rounds: 250,
        sample: Duration::from_micros(1500),
        rest: Duration::from_millis(4),
        budget: Duration::from_secs(4),
        statistic: Statistic::Best,
    };
    /// Just enough to see that everything runs.
    pub const QUICK: Plan = Plan {
        rounds: 3,
        sample: Duration::from_millis(2),
        rest: Duration::from_millis(4),
        budget: Duration::from_millis(100),
        statistic: Statistic::Median,
    };
}

/// The work of one cell, which every contender does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    /// Multiplications and additions: reported as GOP/s.
    Ops(f64),
    /// Bytes read and written: reported as GB/s.
    Bytes(f64),
    /// Neither says how much there is to do: only the time of a call is reported.
    Calls,
}

impl Work {
    /// The amount, whatever its unit.
    #[must_use]
    pub fn amount(self) -> f64 {
        match self {
            Work::Ops(amount) | Work::Bytes(amount) => amount,
            Work::Calls => 1.0,
        }
    }
}

/// One way to do a cell's work.
pub struct Contender {
    /// Whose code it is.
    pub library: &'static str,
    /// The element types, in and out, or the form of a model.
    pub types: String,
    /// The tier of instructions it runs on.
    pub isa: &'static str,
    /// The threads it runs on.
    pub team: Arc<Team>,
    /// What it asks of the machine at the least; the slowest of these is its limit.
    pub demands: Vec<Demand>,
    /// How often one call does the work: more than once where starting the threads would otherwise
    /// count.
    pub repeats: usize,
    /// For a peer: the share of its answers that equal ours. Ours have all been found equal to the
    /// scalar tier's.
    pub agreement: Option<f64>,
    /// For a peer: the kernel that it chose, where it tells.
    pub detail: Option<String>,
    /// Does the work [`repeats`](Self::repeats) times. Its answers have been checked.
    pub call: Box<dyn FnMut() + Send>,
}

/// One cell of the bench: the same work, done by each contender.
pub struct Cell {
    /// The operation.
    pub op: &'static str,
    /// M, K, N; for elementwise work 1, 1 and the number of elements.
    pub shape: (usize, usize, usize),
    /// How many such products one call does.
    pub batch: usize,
    /// What is said of the data beside its shape: `hot`, `cold`, or a level of memory.
    pub data: String,
    /// The work.
    pub work: Work,
    /// Who does it.
    pub contenders: Vec<Contender>,
}

/// How long the work took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// The median, in seconds.
    pub median: f64,
    /// The shortest, in seconds.
    pub best: f64,
    /// The interquartile range as a share of the median; none where there was only one sample.
    pub spread: Option<f64>,
}

impl Timing {
    /// The median and spread of samples, in seconds.
    ///
    /// # Panics
    ///
    /// If there is no sample: whatever is measured is run at least once.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        assert!(!samples.is_empty(), "a timing needs at least one sample");
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5);
        let spread = (sorted.len() > 1)
            .then(|| (quantile(&sorted, 0.75) - quantile(&sorted, 0.25)) / median);
        let best = sorted[0];
        Self {
            median,
            best,
            spread,
        }
    }

    /// The time that speaks for all, in seconds.
    fn by(self, statistic: Statistic) -> f64 {
        match statistic {
            Statistic::Median => self.median,
            Statistic::Best => self.best,
        }
    }
}

/// The quantile of sorted samples, between the two nearest where it falls between them.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor(), place.ceil());
    let (low, high) = (sorted[below as usize], sorted[above as usize]);
    low + (high - low) * (place - below)
}

/// A contender's timing and the best time that its demands allow, for the work done once.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How long it took.
    pub timing: Timing,
    /// Which of its rounds speaks for it.
    pub statistic: Statistic,
    /// The time of its slowest demand on this machine, and which one that is.
    pub limit: Option<(f64, String)>,
}

/// Times every contender of a cell, and the limits they run against, in interleaved rounds.
pub fn measure(cell: &mut Cell, plan: Plan) -> Vec<Outcome> {
    let gauges = limit::gauges(cell.contenders.iter().map(|c| (&c.team, &c.demands[..])));
    let mut turns: Vec<Turn<'_>> = gauges
        .iter()
        .map(|gauge| Turn::new(gauge.team(), Box::new(|| gauge.run())))
        .chain(
            cell.contenders
                .iter_mut()
                .map(|contender| Turn::new(&contender.team, Box::new(|| (contender.call)()))),
        )
        .collect();
    for turn in &mut turns {
        turn.warm_up(plan);
        turn.rest(plan);
    }
    for _ in 0..plan.rounds {
        for turn in &mut turns {
            if turn.take(plan) {
                turn.rest(plan);
            }
        }
    }
    let timings: Vec<Timing> = turns.iter().map(|turn| Timing::of(&turn.samples)).collect();
    drop(turns);
    let (gauge_timings, timings) = timings.split_at(gauges.len());
    cell.contenders
        .iter()
        .zip(timings)
        .map(|(contender, &timing)| {
            let repeats = contender.repeats as f64;
            let timing = Timing {
                median: timing.median / repeats,
                best: timing.best / repeats,
                ..timing
            };
            let limit = contender
                .demands
                .iter()
                .filter_map(|demand| {
                    let place = gauges
                        .iter()
                        .position(|gauge| gauge.serves(demand, &contender.team))?;
                    let rate = gauges[place].amount() / gauge_timings[place].by(plan.statistic);
                    Some((demand.amount / rate, demand.kind.to_string()))
                })
                .max_by(|a, b| a.0.total_cmp(&b.0));
            Outcome {
                timing,
                statistic: plan.statistic,
                limit,
            }
        })
        .collect()
}

/// Something that takes its turn in every round.
struct Turn<'a> {
    team: &'a Team,
    call: Box<dyn FnMut() + Send + 'a>,
    /// Calls in one sample.
    calls: u32,
    spent: Duration,
    samples: Vec<f64>,
}

impl<'a> Turn<'a> {
    fn new(team: &'a Team, call: Box<dyn FnMut() + Send + 'a>) -> Self {
        Self {
            team,
            call,
            calls: 1,
            spent: Duration::ZERO,
            samples: Vec::new(),
        }
    }

    /// Fills caches and finds out how many calls fill a sample. What takes longer than the whole
    /// budget is not run again: this one call is its sample.
    fn warm_up(&mut self, plan: Plan) {
        let first = self.time(1);
        if first > plan.budget {
            self.samples.push(first.as_secs_f64());
            self.spent = first;
            return;
        }
        // Double until a run is long enough to be timed well.
        let mut calls = 1;
        let mut elapsed = self.time(calls);
        while elapsed * 4 < plan.sample && calls < 1 << 24 {
            calls *= 2;
            elapsed = self.time(calls);
        }
        let each = elapsed.as_secs_f64() / f64::from(calls);
        let wanted = (plan.sample.as_secs_f64() / each.max(1e-10)).ceil();
        self.calls = (wanted as u32).max(1);
    }

    /// Takes a sample, unless it has spent its budget.
    fn take(&mut self, plan: Plan) -> bool {
        // Three samples at the least, so that a median means something, unless one is too long.
        if self.spent > plan.budget && (self.samples.len() >= 3 || self.spent > plan.budget * 4) {
            return false;
        }
        let elapsed = self.time(self.calls);
        self.spent += elapsed;
        self.samples
            .push(elapsed.as_secs_f64() / f64::from(self.calls));
        true
    }

    fn rest(&self, plan: Plan) {
        if self.team.threads() > 1 {
            std::thread::sleep(plan.rest);
        }
    }

    fn time(&mut self, calls: u32) -> Duration {
        let call = &mut self.call;
        // The clock runs inside the pool, so that entering it is not counted for every call.
        self.team.run(|| {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            start.elapsed()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn median_and_spread() {
        let timing = Timing::of(&[5.0, 1.0, 3.0, 4.0, 2.0]);
        assert!((timing.median - 3.0).abs() < 1e-12);
        assert!((timing.spread.unwrap() - 2.0 / 3.0).abs() < 1e-12);
        assert!((timing.by(Statistic::Best) - 1.0).abs() < 1e-12);
        assert_eq!(timing.by(Statistic::Median), timing.median);
        assert_eq!(
            Timing::of(&[2.0]),
            Timing {
                median: 2.0,
                best: 2.0,
                spread: None
            }
        );
        assert!((Timing::of(&[1.0, 2.0]).median - 1.5).abs() < 1e-12);
    }

    /// Runs a cell of two contenders that note when they ran.
    fn rounds_of(pause: Duration, plan: Plan) -> (Vec<Outcome>, Vec<u32>) {
        static CLOCK: AtomicU32 = AtomicU32::new(0);
        let log = Arc::new(std::sync::Mutex::new(Vec::new()));
        let team = Arc::new(Team::new(1).unwrap());
        let contender = |id: u32| {
            let log = Arc::clone(&log);
            Contender {
                library: "test",
                types: String::new(),
                isa: "none",
                team: Arc::clone(&team),
                demands: Vec::new(),
                repeats: 1,
                agreement: None,
                detail: None,
                call: Box::new(move || {
                    CLOCK.fetch_add(1, Ordering::Relaxed);
                    log.lock().unwrap().push(id);
                    std::thread::sleep(pause);
                }),
            }
        };
        let mut cell = Cell {
            op: "test",
            shape: (1, 1, 1),
            batch: 1,
            data: String::new(),
            work: Work::Ops(1.0),
            contenders: vec![contender(0), contender(1)],
        };
        let outcomes = measure(&mut cell, plan);
        let order = log.lock().unwrap().clone();
        (outcomes, order)
    }

    #[test]
    fn contenders_take_turns() {
        let plan = Plan {
            rounds: 4,
            sample: Duration::from_millis(1),
            rest: Duration::ZERO,
            budget: Duration::from_secs(10),
            statistic: Statistic::Median,
        };
        // Each call is longer than a sample, so that each turn is one call.
        let (outcomes, order) = rounds_of(Duration::from_millis(5), plan);
        assert_eq!(order[order.len() - 8..], [0, 1, 0, 1, 0, 1, 0, 1]);
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.timing.median >= 0.005)
        );
        assert!(outcomes.iter().all(|outcome| outcome.limit.is_none()));
    }

    #[test]
    fn what_breaks_the_budget_runs_once() {
        let plan = Plan {
            rounds: 9,
            sample: Duration::from_millis(1),
            rest: Duration::ZERO,
            budget: Duration::from_millis(2),
            statistic: Statistic::Best,
        };
        let (outcomes, order) = rounds_of(Duration::from_millis(20), plan);
        assert_eq!(order, [0, 1]);
        assert_eq!(outcomes[0].timing.spread, None);
        let timing = outcomes[0].timing;
        assert_eq!(timing.by(outcomes[0].statistic), timing.best);
    }
}
