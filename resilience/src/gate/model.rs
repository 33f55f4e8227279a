//! The gate, and the places of a bulkhead on it, against one plain sequential model: every sequence of operations has the
//! same answers, counts, order of grants and wake-ups. What happens between threads is in `stress`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;

use super::{Count, Gate, Ticket};

/// What is held against the model; some operations come from one of several threads.
pub(crate) trait Subject {
    fn try_enter(&self, thread: usize) -> bool;
    /// Absent where there is no such thing.
    fn try_enter_below(&self, share: usize) -> Option<bool>;
    fn leave(&self, thread: usize);
    fn join(&self, room: usize) -> Option<Ticket>;
    fn poll(&self, ticket: &Ticket, context: &mut Context<'_>) -> Poll<()>;
    fn cancel(&self, ticket: &Ticket);
    fn set_limit(&self, limit: usize);
    fn count(&self) -> Count;
    fn queued(&self) -> usize;
}

impl Subject for Gate {
    fn try_enter(&self, _: usize) -> bool {
        self.try_enter()
    }

    fn try_enter_below(&self, share: usize) -> Option<bool> {
        Some(self.try_enter_below(share))
    }

    fn leave(&self, _: usize) {
        self.leave();
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

#[derive(Debug, Clone)]
pub(crate) enum Op {
    TryEnter(usize),
    TryEnterBelow(usize),
    Leave(usize),
    Join(usize),
    Poll(usize),
    Cancel(usize),
    SetLimit(usize),
}

/// Operations with limits up to `limit`.
pub(crate) fn ops(limit: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(limit), 0..200)
}

fn op(limit: usize) -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..3_usize).prop_map(Op::TryEnter),
        1 => (0..6_usize).prop_map(Op::TryEnterBelow),
        4 => (0..3_usize).prop_map(Op::Leave),
        4 => (0..5_usize).prop_map(Op::Join),
        4 => (0..8_usize).prop_map(Op::Poll),
        2 => (0..8_usize).prop_map(Op::Cancel),
        1 => (0..=limit).prop_map(Op::SetLimit),
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
    fn the_gate_does_what_its_model_does(limit in 0..4_usize, ops in ops(4)) {
        holds(&Gate::new(limit), limit, ops)?;
    }
}

/// Whether a subject, new with this limit, does what the model does.
pub(crate) fn holds(subject: &impl Subject, limit: usize, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let (gate, mut model) = (
        subject,
        Model {
            limit,
            ..Model::default()
        },
    );
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    // Places that `leave` may give back, and turns by number.
    let (mut owed, mut turns, mut next) = (0, Vec::<(usize, Ticket)>::new(), 0);
    for op in ops {
        match op {
            Op::TryEnter(thread) => {
                let entered = gate.try_enter(thread);
                prop_assert_eq!(entered, model.enter(usize::MAX));
                owed += usize::from(entered);
            }
            Op::TryEnterBelow(share) => {
                if let Some(entered) = gate.try_enter_below(share) {
                    prop_assert_eq!(entered, model.enter(share));
                    owed += usize::from(entered);
                }
            }
            Op::Leave(thread) if owed > 0 => {
                owed -= 1;
                gate.leave(thread);
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
            Op::Leave(_) | Op::Poll(_) | Op::Cancel(_) => {}
        }
        let count = gate.count();
        prop_assert_eq!((count.limit, count.in_flight), (model.limit, model.in_flight));
        prop_assert_eq!(gate.queued(), model.queue.len());
        prop_assert_eq!(bell.0.load(Ordering::Relaxed), model.woken);
    }
    Ok(())
}
