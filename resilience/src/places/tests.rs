//! The places of a bulkhead do what the gate's model does, whichever thread comes and leaves; and of many threads at one
//! time never more are inside than there are places.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;

use proptest::prelude::*;

use super::{Count, Places, Ticket, most};
use crate::gate::model::{Subject, holds, ops};
use crate::gate::stress::run;

impl Subject for Places {
    fn try_enter(&self, thread: usize) -> bool {
        self.try_enter_on(thread)
    }

    fn try_enter_below(&self, _: usize) -> Option<bool> {
        None
    }

    fn leave(&self, thread: usize) {
        self.leave_on(thread);
    }

    fn join(&self, room: usize) -> Option<Ticket> {
        self.join(room)
    }

    fn poll(&self, ticket: &Ticket, context: &mut Context<'_>) -> Poll<()> {
        self.poll(ticket, context)
    }

    fn cancel(&self, ticket: &Ticket) {
        self.cancel(ticket);
    }

    fn set_limit(&self, limit: usize) {
        self.set_limit(limit);
    }

    fn count(&self) -> Count {
        self.count()
    }

    fn queued(&self) -> usize {
        self.queued()
    }
}

proptest! {
    #[test]
    fn places_do_what_the_model_does(limit in 0..20_usize, ops in ops(20)) {
        // Two threads keep places at hand; the third has no number.
        holds(&Places::with_hands(limit, 2), limit, ops)?;
    }
}

#[test]
fn a_thread_keeps_a_few_places_and_no_more() {
    assert_eq!((most(100, 4), most(15, 4), most(1, 1)), (6, 0, 0));
    let places = Places::with_hands(16, 2);
    let kept = || 16 - places.gate.count().in_flight;
    (0..16).for_each(|_| assert!(places.try_enter_on(0)));
    (0..16).for_each(|_| places.leave_on(0));
    assert_eq!((kept(), places.count().in_flight), (14, 0), "two are kept");
    // The other thread finds every place.
    (0..16).for_each(|_| assert!(places.try_enter_on(1)));
    assert!(!places.try_enter_on(1));
    assert_eq!(places.count().in_flight, 16);
}

#[test]
fn nobody_is_forgotten_while_places_are_kept() {
    // Of four places one may be kept at hand, of two none; six threads want them.
    for seed in 0..10 {
        run(|limit| Places::with_hands(limit, 1), seed, &[4]);
        run(|limit| Places::with_hands(limit, 1), seed, &[4, 2, 5]);
    }
}

#[test]
fn never_are_more_inside_than_there_are_places() {
    const LIMIT: usize = 24;
    let (places, inside) = (Places::with_hands(LIMIT, 3), AtomicUsize::new(0));
    thread::scope(|scope| {
        // Four threads hold up to eight places each, which is more than there are.
        for number in 0..4 {
            let (places, inside) = (&places, &inside);
            scope.spawn(move || {
                for turn in 0..3_000 {
                    let got = (0..turn % 9).filter(|_| places.try_enter_on(number)).count();
                    assert!(inside.fetch_add(got, Ordering::SeqCst) + got <= LIMIT);
                    inside.fetch_sub(got, Ordering::SeqCst);
                    (0..got).for_each(|_| places.leave_on(number));
                }
            });
        }
    });
    assert_eq!(places.count().in_flight, 0);
    (0..LIMIT).for_each(|_| assert!(places.try_enter_on(9), "no place is lost"));
}
