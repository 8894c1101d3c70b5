//! The layers' shares of the float model's run time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use qmodel::{Session, SessionOptions};

use super::{ExplainOptions, Progress, Stage};
use crate::data::refs;
use crate::{Calibrated, Dataset, QuantizeError};

/// Shares of run time.
#[derive(Debug)]
pub(super) struct Shares {
    /// By the node's first output; absent where a node could not be timed alone.
    layers: HashMap<String, f64>,
    /// What is left of 1.
    pub(super) other: f64,
}

impl Shares {
    pub(super) fn of(&self, output: &str) -> Option<f64> {
        self.layers.get(output).copied()
    }
}

/// Runs the float model without fusion, and watches when each value is there; `None` where no
/// rounds are asked for.
///
/// A step's time is the time since the value before it was there. Where the step before it shows
/// no float32 value, the time belongs to several steps, and the layer is not timed.
pub(super) fn of(
    calibrated: &Calibrated,
    data: &Dataset,
    options: &ExplainOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Option<Shares>, QuantizeError> {
    if options.rounds == 0 {
        return Ok(None);
    }
    let chosen = &calibrated.chosen;
    let mut graph = chosen.model.graph.clone();
    graph.sort()?;
    // The place of the step that computes a value, counted from 1; inputs are there before.
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        for output in node.outputs.iter().filter(|o| !o.is_empty()) {
            places.insert(output, i + 1);
        }
    }
    let nodes = &chosen.model.graph.nodes;
    let watched: HashMap<usize, &str> = chosen
        .placement
        .sites
        .iter()
        .filter_map(|s| {
            let output = nodes[s.node].output(0)?;
            Some((*places.get(output)?, output))
        })
        .collect();
    let mut session = Session::new(
        &chosen.model,
        SessionOptions {
            fuse: false,
            ..SessionOptions::default()
        },
    )?;
    let batch = data.rows(0..options.batch.max(1));
    let inputs = refs(&batch);
    let mut times: HashMap<usize, Vec<Duration>> = HashMap::new();
    let mut other = Vec::new();
    // The first run fills caches and sizes buffers.
    for round in 0..=options.rounds {
        progress(Progress {
            stage: Stage::Timing,
            done: round,
            total: options.rounds.saturating_add(1),
            name: "",
        });
        let mut timed = Duration::ZERO;
        let mut before = 0;
        let start = Instant::now();
        let mut since = start;
        let outputs = session.run_observed(&inputs, &mut |value, _| {
            let now = Instant::now();
            let place = places.get(value).copied().unwrap_or(0);
            if place == before + 1 && watched.contains_key(&place) {
                let spent = now - since;
                timed += spent;
                if round > 0 {
                    times.entry(place).or_default().push(spent);
                }
            }
            before = place;
            since = Instant::now();
        })?;
        if round > 0 {
            other.push(start.elapsed().saturating_sub(timed));
        }
        session.recycle(outputs.into_iter().map(|(_, t)| t));
    }
    Ok(Some(shares(times, other, &watched)))
}

/// Medians of the rounds as shares of their sum.
fn shares(
    times: HashMap<usize, Vec<Duration>>,
    other: Vec<Duration>,
    watched: &HashMap<usize, &str>,
) -> Shares {
    let timed: Vec<(String, f64)> = times
        .into_iter()
        .filter_map(|(place, t)| Some(((*watched.get(&place)?).to_owned(), median(t))))
        .collect();
    let other = median(other);
    let total = other + timed.iter().map(|(_, t)| t).sum::<f64>();
    // A clock that stands still makes everything "other".
    let part = |t: f64| if total > 0.0 { t / total } else { 0.0 };
    Shares {
        other: if total > 0.0 { other / total } else { 1.0 },
        layers: timed.into_iter().map(|(n, t)| (n, part(t))).collect(),
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times
        .get(times.len() / 2)
        .map_or(0.0, Duration::as_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_medians_and_make_one() {
        let us = Duration::from_micros;
        let watched = HashMap::from([(1, "a"), (3, "b")]);
        let times = HashMap::from([
            (1, vec![us(10), us(1000), us(9)]),
            (3, vec![us(30), us(30), us(30)]),
        ]);
        let s = shares(times, vec![us(60), us(50), us(70)], &watched);
        assert_eq!(s.of("a"), Some(0.1));
        assert_eq!(s.of("b"), Some(0.3));
        assert_eq!(s.of("c"), None);
        assert!((s.other - 0.6).abs() < 1e-12);
    }

    #[test]
    fn a_clock_that_stands_still_gives_no_nan() {
        let watched = HashMap::from([(1, "a")]);
        let times = HashMap::from([(1, vec![Duration::ZERO])]);
        let s = shares(times, vec![Duration::ZERO], &watched);
        assert_eq!((s.of("a"), s.other), (Some(0.0), 1.0));
    }
}
