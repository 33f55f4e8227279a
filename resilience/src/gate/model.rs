//! The gate against a plain sequential model of it: every sequence of operations has the same answers, counts, order of
//! grants and wake-ups. What happens between threads is in `stress`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use proptest::prelude::*;

use super::{Gate, Ticket};

#[derive(Debug, Clone)]
enum Op {
    TryEnter,
    TryEnterBelow(usize),
    Leave,
    Join(usize),
    Poll(usize),
    Cancel(usize),
    SetLimit(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::TryEnter),
        1 => (0..6_usize).prop_map(Op::TryEnterBelow),
        4 => Just(Op::Leave),
        4 => (0..5_usize).prop_map(Op::Join),
        4 => (0..8_usize).prop_map(Op::Poll),
        2 => (0..8_usize).prop_map(Op::Cancel),
        1 => (0..5_usize).prop_map(Op::SetLimit),
    ]
}

#[derive(Default)]
struct Model {
    limit: usize,
    in_flight: usize,
    queue: VecDeque<usize>,
    granted: BTreeSet<usize>,
    /// Those who were polled in vain, and so must be woken by their grant.
    watching: BTreeSet<usize>,
    woken: usize,
}

impl Model {
    fn enter(&mut self, share: usize) -> bool {
        let enters = self.queue.is_empty() && self.in_flight < self.limit.min(share);
        self.in_flight += usize::from(enters);
        enters
    }

    fn leave(&mut self) {
        self.in_flight -= 1;
        self.grant();
    }

    fn grant(&mut self) {
        while self.in_flight < self.limit {
            let Some(first) = self.queue.pop_front() else { return };
            self.in_flight += 1;
            self.granted.insert(first);
            self.woken += usize::from(self.watching.remove(&first));
        }
    }
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

proptest! {
    #[test]
    fn the_gate_does_what_its_model_does(limit in 0..4_usize, ops in proptest::collection::vec(op(), 0..200)) {
        let (gate, mut model) = (Gate::new(limit), Model { limit, ..Model::default() });
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        // Places that `leave` may give back, and turns by number.
        let (mut owed, mut turns, mut next) = (0, Vec::<(usize, Ticket)>::new(), 0);
        for op in ops {
            match op {
                Op::TryEnter => {
                    let entered = gate.try_enter();
                    prop_assert_eq!(entered, model.enter(usize::MAX));
                    owed += usize::from(entered);
                }
                Op::TryEnterBelow(share) => {
                    let entered = gate.try_enter_below(share);
                    prop_assert_eq!(entered, model.enter(share));
                    owed += usize::from(entered);
                }
                Op::Leave if owed > 0 => {
                    owed -= 1;
                    gate.leave();
                    model.leave();
                }
                Op::Join(room) => {
                    let expected = if model.enter(usize::MAX) {
                        model.granted.insert(next);
                        true
                    } else if model.queue.len() < room {
                        model.queue.push_back(next);
                        true
                    } else {
                        false
                    };
                    let ticket = gate.join(room);
                    prop_assert_eq!(ticket.is_some(), expected);
                    turns.extend(ticket.map(|ticket| (next, ticket)));
                    next += 1;
                }
                Op::Poll(index) if index < turns.len() => {
                    let number = turns[index].0;
                    let ready = gate.poll(&turns[index].1, &mut Context::from_waker(&waker)).is_ready();
                    prop_assert_eq!(ready, model.granted.remove(&number), "turn {}", number);
                    if ready {
                        turns.remove(index);
                        owed += 1;
                    } else {
                        model.watching.insert(number);
                    }
                }
                Op::Cancel(index) if index < turns.len() => {
                    let (number, ticket) = turns.remove(index);
                    gate.cancel(&ticket);
                    model.watching.remove(&number);
                    if model.granted.remove(&number) {
                        model.leave();
                    } else {
                        model.queue.retain(|&turn| turn != number);
                    }
                }
                Op::SetLimit(limit) => {
                    gate.set_limit(limit);
                    model.limit = limit;
                    model.grant();
                }
                Op::Leave | Op::Poll(_) | Op::Cancel(_) => {}
            }
            let count = gate.count();
            prop_assert_eq!((count.limit, count.in_flight), (model.limit, model.in_flight));
            prop_assert_eq!(gate.queued(), model.queue.len());
            prop_assert_eq!(bell.0.load(Ordering::Relaxed), model.woken);
        }
    }
}
