//! The same for every item of a list, on several threads.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What `f` makes of every item, in their order, on as many threads: the calling one and others
/// that live no longer than the call. Each takes the next item until none is left. Of several
/// errors it is the one of the first item.
pub(crate) fn each<T: Sync, R: Send, E: Send>(
    threads: NonZeroUsize,
    items: &[T],
    f: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else {
                return done;
            };
            let made = f(item);
            if made.is_err() {
                // What comes before it was taken already, so whoever took it finishes it.
                next.fetch_max(items.len(), Ordering::Relaxed);
            }
            done.push((at, made));
        }
    };
    let mut done = thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads.get().min(items.len()))
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut done = work();
        for helper in helpers {
            done.extend(
                helper
                    .join()
                    .unwrap_or_else(|e| std::panic::resume_unwind(e)),
            );
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn threads(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for count in [0, 1, 2, 7, 100] {
            let items: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = items.iter().map(|i| 2 * i).collect();
            for n in [1, 2, 3, 1000] {
                let made = each(threads(n), &items, |&i| Ok::<_, ()>(2 * i));
                assert_eq!(made, Ok(doubled.clone()), "{n} threads, {count} items");
            }
        }
    }

    #[test]
    fn as_many_threads_as_asked_work_at_the_same_time() {
        // Nobody passes before three are here.
        let barrier = Barrier::new(3);
        let made = each(threads(3), &[(); 3], |()| {
            barrier.wait();
            Ok::<_, ()>(thread::current().id())
        });
        let mut ids = made.unwrap();
        ids.dedup();
        assert_eq!(ids.len(), 3);
        assert!(ids.contains(&thread::current().id()));
    }

    #[test]
    fn the_error_is_that_of_the_first_item_that_has_one() {
        let items: Vec<usize> = (0..50).collect();
        let fails = |&i: &usize| if i % 10 == 7 { Err(i) } else { Ok(i) };
        for n in [1, 2, 5] {
            for _ in 0..20 {
                assert_eq!(each(threads(n), &items, fails), Err(7));
            }
        }
    }
}
