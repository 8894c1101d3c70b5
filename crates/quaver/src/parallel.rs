//! Calibration on several threads.
//!
//! What observers record does not depend on how batches are split, so every thread takes the next
//! batch, runs a session of its own, and records into observers of its own; in the end these are
//! merged. The threads share nothing but the queue, and live no longer than the call.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use qmodel::{Session, Tensor};

use crate::batches::BatchSet;
use crate::data::refs;
use crate::recorded::Observers;
use crate::steps::{Calibrated, Observing, in_value};
use crate::{Batch, QuantizeError};

/// The batches that are left, and what is known of those that were taken.
struct Queue<I> {
    rest: I,
    /// How many were taken.
    taken: u64,
    seen: BatchSet,
    /// The first batch of all, once it was observed.
    sample: Option<Batch>,
    /// The first failure in the order of the batches, whichever came first in time.
    failed: Option<(u64, QuantizeError)>,
}

impl<I: Iterator<Item = (u64, Batch)>> Queue<I> {
    /// The next batch with its place in the queue, unless there is none or one has failed. All
    /// before it were taken earlier, and whoever took them finishes them: so of several failures
    /// the first is always among those that are noted.
    fn next(&mut self) -> Option<(u64, u64, Batch)> {
        if self.failed.is_some() {
            return None;
        }
        let (index, batch) = self.rest.next()?;
        let place = self.taken;
        self.taken += 1;
        match self.seen.insert(index) {
            Ok(()) => Some((place, index, batch)),
            Err(e) => {
                self.fail(place, e);
                None
            }
        }
    }

    fn fail(&mut self, place: u64, error: QuantizeError) {
        if self.failed.as_ref().is_none_or(|(first, _)| place < *first) {
            self.failed = Some((place, error));
        }
    }
}

impl Observing {
    /// Calibration passes over batches, each with its number in the whole data set, on as many
    /// threads: the calling one and others that live no longer than the call.
    ///
    /// The state afterwards is that of [`observe_at`](Self::observe_at) batch by batch, to the
    /// byte, and so is the error where there is one. Each thread has a session and observers of
    /// its own: memory is that of one, times the threads. Where the system gives fewer threads,
    /// fewer do the work.
    ///
    /// # Errors
    ///
    /// Those of [`observe_at`](Self::observe_at), for the first batch that has any.
    pub fn observe_on(
        &mut self,
        threads: NonZeroUsize,
        batches: impl IntoIterator<Item = (u64, Batch), IntoIter: Send>,
    ) -> Result<(), QuantizeError> {
        let rest = batches.into_iter();
        let most = rest.size_hint().1.unwrap_or(usize::MAX);
        let helpers = threads.get().min(most).saturating_sub(1);
        let queue = Mutex::new(Queue {
            rest,
            taken: 0,
            seen: std::mem::take(&mut self.batches),
            sample: None,
            failed: None,
        });
        let others: Vec<Result<Observers, QuantizeError>> = {
            let (chosen, kinds, policy) = (&self.chosen, &self.kinds, self.policy);
            let help = || {
                let (mut session, mut observers) = chosen.place(kinds, policy)?;
                work(&queue, &mut session, &mut observers);
                Ok(observers)
            };
            let (session, observers) = (&mut self.session, &mut self.observers);
            thread::scope(|scope| {
                let spawned: Vec<_> = (0..helpers)
                    .map_while(|_| thread::Builder::new().spawn_scoped(scope, help).ok())
                    .collect();
                work(&queue, session, observers);
                spawned
                    .into_iter()
                    .map(|helper| {
                        helper
                            .join()
                            .unwrap_or_else(|e| std::panic::resume_unwind(e))
                    })
                    .collect()
            })
        };
        let done = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.batches = done.seen;
        if let Some((_, e)) = done.failed {
            return Err(e);
        }
        for other in others {
            join(&mut self.observers, &other?)?;
        }
        if self.sample.is_none() {
            self.sample = done.sample;
        }
        Ok(())
    }

    /// [`calibrate`](Self::calibrate) on as many threads: see [`observe_on`](Self::observe_on).
    ///
    /// ```no_run
    /// use std::thread::available_parallelism;
    /// use quaver::calib::Policy;
    /// use quaver::{Dataset, Method, Operators};
    /// # fn load() -> (quaver::model::Model, Dataset) { unreachable!() }
    /// let (model, data) = load();
    /// let observing = Operators::new().choose(&model)?.observe(&Method::ALL, Policy::Error)?;
    /// let threads = available_parallelism()?;
    /// let calibrated = observing.calibrate_on(threads, data.batches(10))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`calibrate`](Self::calibrate).
    pub fn calibrate_on(
        mut self,
        threads: NonZeroUsize,
        batches: impl IntoIterator<Item = Batch, IntoIter: Send>,
    ) -> Result<Calibrated, QuantizeError> {
        let first = self.batches.end();
        self.observe_on(threads, (first..).zip(batches))?;
        self.finish()
    }
}

/// Observes batch after batch until none is left.
fn work<I: Iterator<Item = (u64, Batch)>>(
    queue: &Mutex<Queue<I>>,
    session: &mut Session,
    observers: &mut Observers,
) {
    loop {
        // The lock is given back before the batch is run.
        let next = lock(queue).next();
        let Some((place, index, batch)) = next else {
            return;
        };
        match pass(session, observers, index, &batch) {
            Ok(()) if place == 0 => lock(queue).sample = Some(batch),
            Ok(()) => {}
            Err(e) => lock(queue).fail(place, e),
        }
    }
}

/// Whoever panicked, the panic is passed on when the threads are joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a batch and shows every value to its observers.
pub(crate) fn pass(
    session: &mut Session,
    observers: &mut Observers,
    index: u64,
    batch: &[(String, Tensor)],
) -> Result<(), QuantizeError> {
    let mut failed = None;
    session.run_observed(&refs(batch), &mut |value, tensor| {
        let (Some(list), Some(x)) = (observers.get_mut(value), tensor.as_slice::<f32>()) else {
            return;
        };
        for o in list {
            if let Err(source) = o.observe(index, x, tensor.shape())
                && failed.is_none()
            {
                failed = Some(in_value(value, source));
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Adds what the observers of another thread, placed alike, recorded.
fn join(ours: &mut Observers, theirs: &Observers) -> Result<(), QuantizeError> {
    for ((value, ours), theirs) in ours.iter_mut().zip(theirs.values()) {
        for (a, b) in ours.iter_mut().zip(theirs) {
            a.merge(&**b).map_err(|e| in_value(value, e))?;
        }
    }
    Ok(())
}
