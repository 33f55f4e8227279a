//! Every interleaving of a few threads at the gate, by loom: no wake-up is lost, no place is lost or given twice, also
//! when somebody gives up in the very moment of getting a place.

use std::task::{Context, Wake, Waker};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::{self, Thread};

use super::Gate;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

struct Room {
    gate: Gate,
    inside: AtomicUsize,
    most: usize,
}

impl Room {
    fn new(limit: usize, most: usize) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(limit),
            inside: AtomicUsize::new(0),
            most,
        })
    }

    fn stay(&self) {
        assert!(self.inside.fetch_add(1, Ordering::SeqCst) < self.most);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        self.gate.leave();
    }

    /// Waits for a place, for ever: loom tells of a thread that is never woken.
    fn wait(&self) {
        let ticket = self.gate.join(2).unwrap();
        let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
        while self.gate.poll(&ticket, &mut Context::from_waker(&waker)).is_pending() {
            thread::park();
        }
        self.stay();
    }

    fn give_up(&self) {
        if let Some(ticket) = self.gate.join(2) {
            self.gate.cancel(&ticket);
        }
    }

    fn check_empty(&self) {
        assert_eq!((self.gate.count().in_flight, self.gate.queued()), (0, 0));
    }
}

/// Three switches to another thread where none was due find what is to be found, in a second; all of them take minutes.
fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

#[test]
fn a_leaver_wakes_who_waits() {
    model(|| {
        let room = Room::new(1, 1);
        let other = Arc::clone(&room);
        let waiter = thread::spawn(move || other.wait());
        if room.gate.try_enter() {
            room.stay();
        }
        room.wait();
        waiter.join().unwrap();
        room.check_empty();
    });
}

#[test]
fn who_gives_up_takes_nothing_along() {
    model(|| {
        let room = Room::new(1, 1);
        let (waits, gives_up) = (Arc::clone(&room), Arc::clone(&room));
        let waiter = thread::spawn(move || waits.wait());
        let other = thread::spawn(move || gives_up.give_up());
        if room.gate.try_enter() {
            room.stay();
        }
        waiter.join().unwrap();
        other.join().unwrap();
        room.check_empty();
    });
}

#[test]
fn a_higher_limit_lets_in_who_waits() {
    model(|| {
        let room = Room::new(0, 1);
        let other = Arc::clone(&room);
        let waiter = thread::spawn(move || other.wait());
        room.gate.set_limit(1);
        if room.gate.try_enter() {
            room.stay();
        }
        waiter.join().unwrap();
        room.check_empty();
    });
}

#[test]
fn nobody_overtakes_who_waits() {
    model(|| {
        let room = Room::new(1, 1);
        assert!(room.gate.try_enter());
        let ticket = room.gate.join(1).unwrap();
        let first_is_gone = Arc::new(AtomicUsize::new(0));
        let (other, is_gone) = (Arc::clone(&room), Arc::clone(&first_is_gone));
        let newcomer = thread::spawn(move || {
            if other.gate.try_enter() {
                assert_eq!(is_gone.load(Ordering::SeqCst), 1, "the place was another's");
                other.gate.leave();
            }
        });
        room.gate.leave();
        first_is_gone.store(1, Ordering::SeqCst);
        room.gate.cancel(&ticket);
        newcomer.join().unwrap();
        room.check_empty();
    });
}
