//! Every interleaving of a few threads at one window, by loom: no count is lost where steps change, and none of an old
//! turn is taken for one of a new.

use loom::sync::Arc;
use loom::thread;

use super::{Counts, STEPS};

/// Falls into the same step as turn 0.
const LATER: u32 = STEPS;

/// Runs the one beside the other, and says what the window that ends with `turn` holds then.
fn both(counts: Counts, turn: u32, one: fn(&Counts), other: fn(&Counts)) -> u64 {
    let counts = Arc::new(counts);
    let thread = {
        let counts = Arc::clone(&counts);
        thread::spawn(move || one(&counts))
    };
    other(&counts);
    thread.join().unwrap();
    counts.sum(turn)
}

#[test]
fn threads_that_count_in_one_step_lose_nothing() {
    loom::model(|| {
        let add: fn(&Counts) = |counts| counts.add(0, 1);
        assert_eq!(both(Counts::default(), 0, add, add), 2);
    });
}

#[test]
fn an_old_step_is_cleared_once_and_by_whoever_counts_first() {
    loom::model(|| {
        let counts = Counts::default();
        counts.add(0, 7);
        let add: fn(&Counts) = |counts| counts.add(LATER, 1);
        assert_eq!(both(counts, LATER, add, add), 2);
    });
}

#[test]
fn a_thread_that_is_late_clears_nothing() {
    loom::model(|| {
        let late: fn(&Counts) = |counts| counts.add(0, 1);
        let sum = both(Counts::default(), LATER, late, |counts| counts.add(LATER, 1));
        assert!(sum == 1 || sum == 2, "{sum}");
    });
}

#[test]
fn what_is_taken_back_too_late_is_taken_from_nobody_else() {
    loom::model(|| {
        let counts = Counts::default();
        counts.add(0, 1);
        let back: fn(&Counts) = |counts| counts.take_back(0);
        assert_eq!(both(counts, LATER, back, |counts| counts.add(LATER, 1)), 1);
    });
}

#[test]
fn a_restart_loses_at_most_what_is_counted_meanwhile() {
    loom::model(|| {
        let add: fn(&Counts) = |counts| counts.add(0, 1);
        let sum = both(Counts::default(), 0, add, |counts| counts.restart(0, 5));
        assert!(sum == 5 || sum == 6, "{sum}");
    });
}
