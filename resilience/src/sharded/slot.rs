//! Which shard is this thread's own. Numbers are given to threads when they first ask and come back when they end, so
//! that a number has one owner at a time, and threads that come and go do not use the numbers up.

use std::cell::Cell;
use std::sync::LazyLock;

use crate::sync::{AtomicU64, Ordering};

/// Numbers that a word of bits can hold.
const MOST: usize = 64;
/// This thread did not ask yet.
const UNKNOWN: usize = usize::MAX;
/// This thread has no number: all were given, or it is about to end.
const NONE: usize = usize::MAX - 1;

#[cfg(not(all(test, resilience_loom)))]
static GIVEN: Given = Given::new();

/// How many numbers there are in this process: more than the cores, since threads besides a runtime's workers make
/// calls too.
static COUNT: LazyLock<usize> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores + 2).next_power_of_two().min(MOST)
});

thread_local! {
    // Without a destructor, so that reading it is one load.
    static MINE: Cell<usize> = const { Cell::new(UNKNOWN) };
    static LEASE: Lease = const { Lease(Cell::new(NONE)) };
}

/// How many numbers there are.
pub(crate) fn count() -> usize {
    *COUNT
}

/// The number of this thread, below [`count`] if it has one.
#[inline]
pub(crate) fn mine() -> usize {
    let mine = MINE.get();
    if mine == UNKNOWN { ask() } else { mine }
}

#[cold]
fn ask() -> usize {
    // Where the lease is gone already, the thread is ending and nobody would give the number back.
    let number = LEASE
        .try_with(|lease| {
            let number = given().take(count()).unwrap_or(NONE);
            lease.0.set(number);
            number
        })
        .unwrap_or(NONE);
    MINE.set(number);
    number
}

/// Gives the number back when the thread ends.
struct Lease(Cell<usize>);

impl Drop for Lease {
    fn drop(&mut self) {
        MINE.set(NONE);
        if self.0.get() < MOST {
            given().give_back(self.0.get());
        }
    }
}

#[cfg(not(all(test, resilience_loom)))]
fn given() -> &'static Given {
    &GIVEN
}

/// Loom's atomics cannot be static; its tests name their slots themselves.
#[cfg(all(test, resilience_loom))]
fn given() -> Given {
    Given::new()
}

/// The numbers that have an owner, one bit each.
#[derive(Debug)]
pub(super) struct Given(AtomicU64);

impl Given {
    #[cfg(not(all(test, resilience_loom)))]
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[cfg(all(test, resilience_loom))]
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The lowest free number below `count`.
    pub(super) fn take(&self, count: usize) -> Option<usize> {
        let mut given = self.0.load(Ordering::Relaxed);
        loop {
            let number = given.trailing_ones() as usize;
            if number >= count.min(MOST) {
                return None;
            }
            // Acquire: what the owner before wrote into its shards is seen before it is added to.
            match self
                .0
                .compare_exchange_weak(given, given | 1 << number, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(number),
                Err(now) => given = now,
            }
        }
    }

    pub(super) fn give_back(&self, number: usize) {
        self.0.fetch_and(!(1 << number), Ordering::Release);
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once_and_again_after_they_came_back() {
        let given = Given::new();
        assert_eq!(
            (0..4).map(|_| given.take(3)).collect::<Vec<_>>(),
            [Some(0), Some(1), Some(2), None]
        );
        given.give_back(1);
        assert_eq!(given.take(3), Some(1));
        let all = Given::new();
        assert_eq!((0..100).filter_map(|_| all.take(100)).count(), MOST);
    }

    #[test]
    fn a_thread_that_ended_leaves_its_number() {
        // Many more threads than numbers, one after the other: each gets one, unless other tests hold all of them.
        for _ in 0..200 {
            let number = std::thread::spawn(mine).join().unwrap();
            assert!(number < count() || number == NONE);
        }
        let of_thread = std::thread::spawn(|| (mine(), mine())).join().unwrap();
        assert_eq!(of_thread.0, of_thread.1, "a thread keeps its number");
    }
}
