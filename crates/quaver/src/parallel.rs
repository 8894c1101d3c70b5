//! Calibration on several threads.
//!
//! What observers record does not depend on how batches are split, so every thread takes the next
//! batch, runs a session of its own, and records into observers of its own; in the end these are
//! merged. The threads share nothing but the queue, and live no longer than the call.

use std::borrow::BorrowMut;
use std::iter::Fuse;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use qmodel::{Session, Tensor};

use crate::batches::BatchSet;
use crate::data::refs;
use crate::recorded::Observers;
use crate::steps::{Calibrated, Observing, in_value};
use crate::{Batch, QuantizeError};

/// The batches that are left, and what is known of those that were taken.
struct Queue<I> {
    rest: Fuse<I>,
    /// How many were taken.
    taken: u64,
    seen: BatchSet,
    /// The first batch of all, once it was observed.
    sample: Option<Batch>,
    /// The first failure in the order of the batches, whichever came first in time.
    failed: Option<(u64, QuantizeError)>,
}

/// A batch that a thread took.
struct Taken {
    /// Its place in the queue.
    place: u64,
    /// Its number in the data set.
    index: u64,
    batch: Batch,
}

impl<I: Iterator<Item = (u64, Batch)>> Queue<I> {
    fn new(batches: I, seen: BatchSet) -> Self {
        Queue {
            rest: batches.fuse(),
            taken: 0,
            seen,
            sample: None,
            failed: None,
        }
    }

    /// The next batch, unless there is none or one has failed. All before it were taken earlier,
    /// and whoever took them finishes them: so of several failures the first is always among those
    /// that are noted.
    fn next(&mut self) -> Option<Taken> {
        if self.failed.is_some() {
            return None;
        }
        let (index, batch) = self.rest.next()?;
        let place = self.taken;
        self.taken += 1;
        match self.seen.insert(index) {
            Ok(()) => Some(Taken {
                place,
                index,
                batch,
            }),
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
    /// its own: memory is that of one, times the threads. There are never more threads than
    /// batches; where the system gives fewer, fewer do the work.
    ///
    /// # Errors
    ///
    /// Those of [`observe_at`](Self::observe_at), for the first batch that has any. After an error
    /// nothing of these batches is recorded or counted: the state is that before the call.
    pub fn observe_on(
        &mut self,
        threads: NonZeroUsize,
        batches: impl IntoIterator<Item = (u64, Batch), IntoIter: Send>,
    ) -> Result<(), QuantizeError> {
        let queue = Mutex::new(Queue::new(batches.into_iter(), self.batches.clone()));
        let (chosen, kinds, policy) = (&self.chosen, &self.kinds, self.policy);
        let mut own = Pass {
            session: &mut self.session,
            observers: self.observers.clone(),
        };
        let others = divide(threads, &queue, &mut own, || {
            let (session, observers) = chosen.place(kinds, policy)?;
            Ok(Pass { session, observers })
        });
        let done = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, e)) = done.failed {
            return Err(e);
        }
        let mut observers = own.observers;
        for other in others {
            join(&mut observers, &other.observers)?;
        }
        self.observers = observers;
        self.batches = done.seen;
        if self.sample.is_none() {
            self.sample = done.sample;
        }
        Ok(())
    }

    /// [`calibrate`](Self::calibrate) on as many threads: see [`observe_on`](Self::observe_on).
    /// Ranges will be chosen on as many.
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
        Ok(self.finish()?.with_threads(threads))
    }
}

/// What a thread does with the batches that it takes.
trait Worker {
    fn run(&mut self, index: u64, batch: &Batch) -> Result<(), QuantizeError>;
}

/// Calibration passes, with a session that is borrowed or not.
struct Pass<S> {
    session: S,
    observers: Observers,
}

impl<S: BorrowMut<Session>> Worker for Pass<S> {
    fn run(&mut self, index: u64, batch: &Batch) -> Result<(), QuantizeError> {
        pass(self.session.borrow_mut(), &mut self.observers, index, batch)
    }
}

/// Divides the queue among `own`, on this thread, and the workers that `make` makes, each on its
/// thread: as many in all as there are threads, or batches if these are fewer. Returns those that
/// were made; what failed is in the queue.
fn divide<I, W>(
    threads: NonZeroUsize,
    queue: &Mutex<Queue<I>>,
    own: &mut impl Worker,
    make: impl Fn() -> Result<W, QuantizeError> + Sync,
) -> Vec<W>
where
    I: Iterator<Item = (u64, Batch)> + Send,
    W: Worker + Send,
{
    let help = |given: mpsc::Receiver<Taken>| {
        let first = given.recv().ok()?;
        match make() {
            Ok(mut worker) => {
                work(queue, [first], &mut worker);
                Some(worker)
            }
            Err(e) => {
                lock(queue).fail(first.place, e);
                None
            }
        }
    };
    let help = &help;
    thread::scope(|scope| {
        let mut helpers = Vec::new();
        let mut kept = Vec::from_iter(lock(queue).next());
        // Whether there is another batch is known only by taking it, so a helper starts with the
        // batch before that one.
        while helpers.len() + 1 < threads.get() {
            let Some(next) = lock(queue).next() else {
                break;
            };
            let (give, given) = mpsc::channel();
            let helper = thread::Builder::new().spawn_scoped(scope, move || help(given));
            let Ok(helper) = helper else {
                kept.push(next);
                break;
            };
            helpers.push(helper);
            let before = std::mem::replace(&mut kept, vec![next]);
            for batch in before {
                // A helper hangs up only after it has its batch.
                let _ = give.send(batch);
            }
        }
        work(queue, kept, own);
        helpers
            .into_iter()
            .filter_map(|helper| {
                let joined = helper.join();
                joined.unwrap_or_else(|e| std::panic::resume_unwind(e))
            })
            .collect()
    })
}

/// Runs the batches that were taken already, then batch after batch until none is left.
fn work<I: Iterator<Item = (u64, Batch)>>(
    queue: &Mutex<Queue<I>>,
    taken: impl IntoIterator<Item = Taken>,
    worker: &mut impl Worker,
) {
    let mut taken = taken.into_iter();
    loop {
        // The lock is given back before the batch is run.
        let next = taken.next().or_else(|| lock(queue).next());
        let Some(Taken {
            place,
            index,
            batch,
        }) = next
        else {
            return;
        };
        match worker.run(index, &batch) {
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

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Remembers which batches it ran.
    struct Log(Vec<u64>);

    impl Worker for Log {
        fn run(&mut self, index: u64, _: &Batch) -> Result<(), QuantizeError> {
            self.0.push(index);
            Ok(())
        }
    }

    /// A log of the calling thread, which lets the others begin.
    struct Start<'a>(Log, &'a OnceLock<()>);

    impl Worker for Start<'_> {
        fn run(&mut self, index: u64, batch: &Batch) -> Result<(), QuantizeError> {
            let _ = self.1.set(());
            self.0.run(index, batch)
        }
    }

    /// How many workers were made for so many batches, each of which one of them ran.
    ///
    /// They begin once the calling thread has started all of them: before, a quick one could take
    /// what another would have started with.
    fn made(threads: usize, batches: impl Iterator<Item = u64> + Send, count: u64) -> usize {
        let numbered = batches.map(|index| (index, Batch::new()));
        let queue = Mutex::new(Queue::new(numbered, BatchSet::default()));
        let begun = OnceLock::new();
        let (mut own, made) = (Start(Log(Vec::new()), &begun), AtomicUsize::new(0));
        let others = divide(
            NonZeroUsize::new(threads).unwrap(),
            &queue,
            &mut own,
            || {
                begun.wait();
                made.fetch_add(1, Ordering::Relaxed);
                Ok(Log(Vec::new()))
            },
        );
        assert_eq!(others.len(), made.load(Ordering::Relaxed));
        assert!(others.iter().all(|other| !other.0.is_empty()));
        let mut all = own.0.0;
        all.extend(others.into_iter().flat_map(|other| other.0));
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..count));
        made.into_inner()
    }

    #[test]
    fn no_worker_is_made_without_a_batch_for_it() {
        for (threads, count, helpers) in [(1000, 0, 0), (1000, 1, 0), (1000, 2, 1), (3, 50, 2)] {
            assert_eq!(made(threads, 0..count, count), helpers);
            // The same if the batches do not say how many they are.
            let mut rest = 0..count;
            let silent = std::iter::from_fn(move || rest.next());
            assert_eq!(silent.size_hint(), (0, None));
            assert_eq!(made(threads, silent, count), helpers);
        }
        assert_eq!(made(1, 0..9, 9), 0);
    }

    #[test]
    fn a_worker_that_cannot_be_made_is_the_failure_of_its_batch() {
        let queue = Mutex::new(Queue::new(
            (0..4).map(|index| (index, Batch::new())),
            BatchSet::default(),
        ));
        let mut own = Log(Vec::new());
        let others: Vec<Log> = divide(
            NonZeroUsize::MIN.saturating_add(1),
            &queue,
            &mut own,
            || Err(QuantizeError::NoBatches),
        );
        assert!(others.is_empty());
        let (place, error) = queue.into_inner().unwrap().failed.unwrap();
        assert!(place == 0 && matches!(error, QuantizeError::NoBatches));
        assert_eq!(own.0[0], 1);
    }
}
