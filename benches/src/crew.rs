//! Threads that stay awake between calls, as those of an inference engine do.
//!
//! Waking a thread that sleeps would count in every call. `OpenMP`'s threads spin for a while before
//! they sleep (see [`environment`](crate::environment)); ours spin as long.

#![allow(
    unsafe_code,
    reason = "work that is borrowed for the time of a call is handed to threads that live on"
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use qkernels::ParallelFor;

use crate::BenchError;

/// Looks at whether there is work before a thread sleeps: some tenths of a millisecond.
const SPINS: usize = 20_000;

/// The caller and so many threads beside it. Work may not call its own crew: it would wait for
/// itself.
#[derive(Debug)]
pub struct Crew {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One call at a time.
    turn: Mutex<()>,
}

/// What a call is made of.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

#[derive(Debug)]
struct Shared {
    threads: usize,
    /// Another number for every call.
    call: AtomicUsize,
    /// What the last call is.
    job: Mutex<Option<Job>>,
    /// Workers that have yet to finish the call.
    left: AtomicUsize,
    asleep: Vec<AtomicBool>,
    failed: AtomicBool,
    over: AtomicBool,
}

#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    shares: usize,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job of {} shares", self.shares)
    }
}

// SAFETY: what is pointed to may be called from any thread (`Sync`), and whoever made the job waits
// until no thread has it any more.
unsafe impl Send for Job {}

impl Crew {
    /// Starts one thread fewer than `threads`: the caller is the first.
    ///
    /// # Errors
    ///
    /// [`BenchError::Spawn`] when the system has no more threads to give.
    pub fn new(threads: usize) -> Result<Self, BenchError> {
        let others = threads.saturating_sub(1);
        let mut crew = Crew {
            shared: Arc::new(Shared {
                threads: others + 1,
                call: AtomicUsize::new(0),
                job: Mutex::new(None),
                left: AtomicUsize::new(0),
                asleep: (0..others).map(|_| AtomicBool::new(false)).collect(),
                failed: AtomicBool::new(false),
                over: AtomicBool::new(false),
            }),
            workers: Vec::with_capacity(others),
            turn: Mutex::new(()),
        };
        for worker in 0..others {
            let shared = Arc::clone(&crew.shared);
            let started = thread::Builder::new()
                .name(format!("crew-{}", worker + 1))
                .spawn(move || shared.serve(worker));
            crew.workers
                .push(started.map_err(|source| BenchError::Spawn { threads, source })?);
        }
        Ok(crew)
    }

    /// Calls `work` on every thread at once, with the thread's index.
    pub fn each(&self, work: impl Fn(usize) + Sync) {
        self.run(self.shared.threads, &work);
    }

    fn wake(&self) {
        for (worker, asleep) in self.workers.iter().zip(&self.shared.asleep) {
            if asleep.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl ParallelFor for Crew {
    fn threads(&self) -> usize {
        self.shared.threads
    }

    fn run(&self, shares: usize, work: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || shares < 2 {
            return (0..shares).for_each(work);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        let work: *const Work<'_> = work;
        // SAFETY: only the lifetime changes: `wait`, which runs even if the caller's own share
        // panics, returns when no worker has the work any more.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let job = Job { work, shares };
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
        shared.left.store(self.workers.len(), Ordering::SeqCst);
        shared.failed.store(false, Ordering::SeqCst);
        let wait = Wait(shared);
        shared.call.fetch_add(1, Ordering::SeqCst);
        self.wake();
        // SAFETY: the caller's own work.
        unsafe { job.share(0, shared.threads) };
        drop(wait);
        assert!(
            !shared.failed.load(Ordering::SeqCst),
            "a share of the work panicked"
        );
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.shared.call.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker that panicked has told so.
            let _ = worker.join();
        }
    }
}

impl Job {
    /// Every `threads`th share from `first` on.
    ///
    /// # Safety
    ///
    /// The work is still borrowed.
    unsafe fn share(self, first: usize, threads: usize) {
        // SAFETY: as promised by the caller.
        let work = unsafe { &*self.work };
        (first..self.shares).step_by(threads).for_each(work);
    }
}

/// Waits for all workers when it is dropped.
struct Wait<'a>(&'a Shared);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut spins = 0;
        while self.0.left.load(Ordering::SeqCst) > 0 {
            spins += 1;
            // Where there are fewer processors than threads, the worker needs this one.
            if spins % SPINS == 0 {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// Says that a worker is done with a call, also if the work panicked.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
        self.0.left.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn serve(&self, worker: usize) {
        let mut seen = 0;
        loop {
            seen = self.next(seen, worker);
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let done = Done(self);
            let job = *self.job.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(job) = job {
                let shares = || {
                    // SAFETY: whoever made the job waits for `done`.
                    unsafe { job.share(worker + 1, self.threads) }
                };
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(shares)).is_err() {
                    self.failed.store(true, Ordering::SeqCst);
                }
            }
            drop(done);
        }
    }

    /// Waits for a call other than `seen`, and gives it.
    fn next(&self, seen: usize, worker: usize) -> usize {
        loop {
            for _ in 0..SPINS {
                let call = self.call.load(Ordering::SeqCst);
                if call != seen {
                    return call;
                }
                std::hint::spin_loop();
            }
            self.asleep[worker].store(true, Ordering::SeqCst);
            // Whoever calls after this look finds this thread asleep and wakes it.
            if self.call.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            self.asleep[worker].store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_share_is_done_once_also_by_threads_that_slept() {
        let crew = Crew::new(3).unwrap();
        for shares in [0, 1, 2, 3, 7, 100] {
            let done: Vec<AtomicUsize> = (0..shares).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..50 {
                crew.run(shares, &|share| {
                    done[share].fetch_add(1, Ordering::Relaxed);
                });
            }
            thread::sleep(Duration::from_millis(5));
            assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 50));
        }
    }

    #[test]
    fn a_panic_in_a_share_reaches_the_caller_and_the_crew_lives_on() {
        let crew = Crew::new(2).unwrap();
        for bad in [0, 1] {
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                crew.run(2, &|share| assert_ne!(share, bad));
            }));
            assert!(failed.is_err());
        }
        let count = AtomicUsize::new(0);
        crew.each(|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 2);
    }
}
