//! Counts over a window of time that slides in ten steps, without a lock: each step is one word that holds its turn and
//! its count, so that clearing a step and counting in it are one exchange. Times are given by the caller.
//!
//! `sharded` counts without a shared word, but a throttle asks for the sum in every call: ten words are read sooner than
//! those of all threads.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

#[cfg(all(test, resilience_loom))]
mod loom;

const STEPS: u32 = 10;

/// A count of one thing.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Turn in the upper half, count in the lower.
    steps: [AtomicU64; STEPS as usize],
}

/// Number of the step of a window of `length` that `now` lies in. It wraps around after months, and then skips a step.
pub(super) fn turn(now: Duration, length: Duration) -> u32 {
    let step = (length.as_nanos() / u128::from(STEPS)).max(1);
    (now.as_nanos() / step) as u32
}

fn join(turn: u32, count: u32) -> u64 {
    (u64::from(turn) << 32) | u64::from(count)
}

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

impl Counts {
    /// Counts `more` at this turn.
    pub(super) fn add(&self, turn: u32, more: u32) {
        self.change(turn, |held, count| match held {
            // A thread that is late counts in the step that took the place of its own.
            Held::Now | Held::Later => Some(count.saturating_add(more)),
            Held::Before => Some(more),
        });
    }

    /// Takes one back that was counted at this turn, if its step is still there.
    pub(super) fn take_back(&self, turn: u32) {
        self.change(turn, |held, count| match held {
            Held::Now => Some(count.saturating_sub(1)),
            Held::Later | Held::Before => None,
        });
    }

    /// All of the window that ends with this turn.
    pub(super) fn sum(&self, turn: u32) -> u64 {
        let words = self.steps.iter().map(|step| split(step.load(Ordering::Relaxed)));
        words
            .filter(|(of, _)| turn.wrapping_sub(*of) < STEPS)
            .map(|(_, count)| u64::from(count))
            .sum()
    }

    /// Forgets everything but `sum`, as if it had been counted at this turn.
    pub(super) fn restart(&self, turn: u32, sum: u64) {
        for step in &self.steps {
            // A step that is ten turns old counts nowhere. An exchange as everywhere here, which loom orders as a
            // processor does; a store beside exchanges it does not.
            step.swap(join(turn.wrapping_sub(STEPS), 0), Ordering::Relaxed);
        }
        self.add(turn, u32::try_from(sum).unwrap_or(u32::MAX));
    }

    fn change(&self, turn: u32, new: impl Fn(Held, u32) -> Option<u32>) {
        let step = &self.steps[(turn % STEPS) as usize];
        // No value means no change.
        let _ = step.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (of, count) = split(word);
            let held = if of == turn {
                Held::Now
            } else if of.wrapping_sub(turn) <= STEPS {
                Held::Later
            } else {
                Held::Before
            };
            let keeps = if held == Held::Later { of } else { turn };
            new(held, count).map(|count| join(keeps, count))
        });
    }
}

/// What a step holds, seen from a turn that falls into it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Before,
    Now,
    Later,
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a list of all that was counted, looked through anew.
        #[test]
        fn it_counts_what_a_list_counts(steps in prop::collection::vec((0..4_u32, 1..5_u32, any::<bool>()), 1..100)) {
            let (counts, mut list, mut turn) = (Counts::default(), Vec::new(), 0_u32);
            for (wait, more, back) in steps {
                turn += wait;
                counts.add(turn, more);
                list.extend(std::iter::repeat_n(turn, more as usize));
                if back {
                    let of = list[list.len() / 2];
                    counts.take_back(of);
                    if turn - of < STEPS {
                        list.remove(list.len() / 2);
                    }
                }
                let expected = list.iter().filter(|of| turn - **of < STEPS).count() as u64;
                prop_assert_eq!(counts.sum(turn), expected);
            }
        }
    }

    #[test]
    fn a_thread_that_is_late_does_not_clear_the_step_that_took_the_place_of_its_own() {
        let counts = Counts::default();
        counts.add(15, 3);
        counts.add(5, 1);
        assert_eq!(counts.sum(15), 4);
        counts.take_back(5);
        assert_eq!(counts.sum(15), 4, "what it counted then is gone");
    }

    #[test]
    fn racing_threads_lose_no_count_while_the_window_turns() {
        let counts = Counts::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..10_000_u32 {
                        // Ten turns in a row, so all of them are in the window at the end.
                        counts.add(number / 1_000, 1);
                    }
                });
            }
        });
        assert_eq!(counts.sum(9), 40_000);
    }
}
