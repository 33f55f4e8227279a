//! Every interleaving of a few threads at one row, by loom: no failure is lost, and none of one generation is taken for
//! one of another.

use loom::sync::Arc;
use loom::thread;

use super::Row;

/// What both come to, run beside each other, and how many are in the row of `generation` with one more.
fn both(row: Row, generation: u32, one: fn(&Row) -> u64, other: fn(&Row) -> u64) -> (u64, u64, u64) {
    let row = Arc::new(row);
    let thread = {
        let row = Arc::clone(&row);
        thread::spawn(move || one(&row))
    };
    let others = other(&row);
    (thread.join().unwrap(), others, row.failed(generation))
}

#[test]
fn of_two_failures_at_one_time_one_is_the_second() {
    loom::model(|| {
        let fail: fn(&Row) -> u64 = |row| row.failed(0);
        let (one, other, next) = both(Row::default(), 0, fail, fail);
        assert_eq!((one.min(other), one.max(other), next), (1, 2, 3));
    });
}

#[test]
fn a_success_ends_the_row_or_came_before_the_failure_beside_it() {
    loom::model(|| {
        let row = Row::default();
        row.failed(0);
        let succeed: fn(&Row) -> u64 = |row| {
            row.succeeded(0);
            0
        };
        let (_, failed, next) = both(row, 0, succeed, |row| row.failed(0));
        // Success, failure; failure, success; or a success that saw the row before the failure, which stands then.
        assert!([(1, 2), (2, 1), (2, 3)].contains(&(failed, next)), "{failed}, {next}");
    });
}

#[test]
fn neither_a_success_nor_a_failure_of_an_older_generation_touches_the_row() {
    let olds: [fn(&Row) -> u64; 2] = [
        |row| row.failed(0),
        |row| {
            row.succeeded(0);
            0
        },
    ];
    for old in olds {
        loom::model(move || {
            let row = Row::default();
            row.failed(0);
            let (_, new, next) = both(row, 1, old, |row| row.failed(1));
            assert_eq!((new, next), (1, 2));
        });
    }
}
