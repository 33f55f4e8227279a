//! Every interleaving of one who leaves, perhaps keeping the place at hand, and one who begins to wait: the place is not
//! forgotten. A thread that is never woken is told of by loom.

use std::task::{Context, Wake, Waker};

use loom::sync::Arc;
use loom::thread::{self, Thread};

use super::Places;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

fn wait(places: &Places) {
    let ticket = places.join(1).unwrap();
    let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
    while places.poll(&ticket, &mut Context::from_waker(&waker)).is_pending() {
        thread::park();
    }
}

/// Four places, all taken; one may be kept at hand.
fn full() -> Arc<Places> {
    let places = Arc::new(Places::with_hands(4, 1));
    (0..4).for_each(|_| assert!(places.try_enter_on(0)));
    places
}

#[test]
fn a_place_that_is_kept_while_somebody_begins_to_wait_is_handed_on() {
    loom::model(|| {
        let places = full();
        let leaver = Arc::clone(&places);
        let leaver = thread::spawn(move || leaver.leave_on(0));
        wait(&places);
        leaver.join().unwrap();
        assert_eq!((places.count().in_flight, places.queued()), (4, 0));
    });
}

#[test]
fn one_who_comes_while_another_leaves_finds_a_place_or_a_full_house() {
    loom::model(|| {
        let places = full();
        let leaver = Arc::clone(&places);
        let leaver = thread::spawn(move || leaver.leave_on(0));
        let entered = places.try_enter_on(1);
        leaver.join().unwrap();
        assert_eq!(places.count().in_flight, 3 + usize::from(entered));
        assert!(entered || places.try_enter_on(1), "the place is there in the end");
    });
}
