//! So many inside at one time, the rest in a queue in the order of arrival. This counts and wakes; it refuses nobody by
//! itself, knows no names and no time. Bulkhead, adaptive limit and load shedding are built on it.
//!
//! One word holds how many are inside, how many may be, and whether anybody waits. Coming and going is one atomic
//! operation on it while nobody waits. Everything about the queue happens under its lock, where this holds: the bit
//! `WAITING` is set exactly while the queue is not empty. As the bit keeps newcomers out, nobody overtakes, and as a
//! leaver sees the bit in the very operation that gives its place back, no place is forgotten.

use std::collections::VecDeque;
use std::ops::DerefMut;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::sync::{AtomicU64, Mutex, Ordering};

#[cfg(all(test, resilience_loom))]
mod loom;
#[cfg(all(test, not(resilience_loom)))]
pub(crate) mod model;
#[cfg(all(test, not(resilience_loom)))]
pub(crate) mod stress;

/// The highest limit.
pub(crate) const MAX_LIMIT: usize = (1 << 31) - 1;

/// Counts who is inside.
#[derive(Debug)]
pub(crate) struct Gate {
    word: Word,
    queue: Mutex<Queue>,
}

/// What is known of a gate at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    /// Places.
    pub(crate) limit: usize,
    /// Taken places; more than the limit for a while after it was lowered.
    pub(crate) in_flight: usize,
}

/// A turn in the queue; it must come back through [`Gate::cancel`] unless [`Gate::poll`] was ready.
#[derive(Debug)]
pub(crate) struct Ticket(u64);

#[derive(Debug, Default)]
struct Queue {
    /// Number of the next ticket. Numbers rise along the queue, so a ticket is found by bisection.
    next: u64,
    /// Those who wait. A ticket that is not here has its place.
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    waker: Option<Waker>,
}

impl Gate {
    /// With `limit` places, at most [`MAX_LIMIT`].
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            word: Word::new(limit),
            queue: Mutex::new(Queue::default()),
        }
    }

    /// Takes a place if one is free and nobody waits for it. The caller owes [`Gate::leave`].
    pub(crate) fn try_enter(&self) -> bool {
        self.word.enter_below(usize::MAX)
    }

    /// [`Gate::try_enter`] if fewer than `share` are inside.
    pub(crate) fn try_enter_below(&self, share: usize) -> bool {
        self.word.enter_below(share)
    }

    /// Gives a place back; the first who waits has it then.
    pub(crate) fn leave(&self) {
        if self.word.leave() {
            self.grant();
        }
    }

    /// Takes a place or a turn in the queue if fewer than `room` wait.
    pub(crate) fn join(&self, room: usize) -> Option<Ticket> {
        let mut queue = self.lock();
        let waiting = queue.waiters.len();
        let enters = waiting == 0 && self.word.enter_or_mark(room > 0);
        if !enters && waiting >= room {
            return None;
        }
        let ticket = queue.next;
        queue.next += 1;
        if !enters {
            queue.waiters.push_back(Waiter { ticket, waker: None });
        }
        Some(Ticket(ticket))
    }

    /// Ready when the ticket has its place; the caller owes [`Gate::leave`] then, and the ticket is void.
    pub(crate) fn poll(&self, ticket: &Ticket, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.lock();
        let Some(index) = queue.position(ticket) else {
            return Poll::Ready(());
        };
        let waker = &mut queue.waiters[index].waker;
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Gives up a turn, or the place that it has got meanwhile.
    pub(crate) fn cancel(&self, ticket: &Ticket) {
        let mut queue = self.lock();
        let Some(index) = queue.position(ticket) else {
            drop(queue);
            return self.leave();
        };
        let waiter = queue.waiters.remove(index);
        if queue.waiters.is_empty() {
            self.word.unmark();
        }
        drop(queue);
        // A waker may run anything when it is dropped, so not under the lock.
        drop(waiter);
    }

    /// Changes the limit. Nobody is thrown out when it falls; who waits enters when it rises.
    pub(crate) fn set_limit(&self, limit: usize) {
        let queue = self.lock();
        self.word.set_limit(limit);
        drop(queue);
        self.grant();
    }

    /// Places, and how many are taken.
    pub(crate) fn count(&self) -> Count {
        self.word.count()
    }

    /// Whether anybody waits.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        self.word.0.load(Ordering::Acquire) & WAITING != 0
    }

    /// Whether a place that is given back is missed: somebody waits, or more are inside than may be.
    #[inline]
    pub(crate) fn is_short(&self) -> bool {
        let word = self.word.0.load(Ordering::Acquire);
        word & WAITING != 0 || in_flight(word) > limit(word)
    }

    /// How many wait.
    pub(crate) fn queued(&self) -> usize {
        self.lock().waiters.len()
    }

    /// Hands free places to those who wait, in their order.
    fn grant(&self) {
        while let Some(waiter) = self.grant_one() {
            if let Some(waker) = waiter.waker {
                waker.wake();
            }
        }
    }

    fn grant_one(&self) -> Option<Waiter> {
        let mut queue = self.lock();
        let last = queue.waiters.len() == 1;
        if queue.waiters.is_empty() || !self.word.enter_from_queue(last) {
            return None;
        }
        queue.waiters.pop_front()
    }

    fn lock(&self) -> impl DerefMut<Target = Queue> + '_ {
        // Nothing that is done under the lock can panic half way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn position(&self, ticket: &Ticket) -> Option<usize> {
        self.waiters
            .binary_search_by_key(&ticket.0, |waiter| waiter.ticket)
            .ok()
    }
}

/// The packed word: `WAITING` (1 bit) | limit (31 bits) | in flight (32 bits).
#[derive(Debug)]
struct Word(AtomicU64);

const WAITING: u64 = 1 << 63;
const LIMIT_SHIFT: u32 = 32;
const IN_FLIGHT: u64 = (1 << LIMIT_SHIFT) - 1;

const fn in_flight(word: u64) -> usize {
    (word & IN_FLIGHT) as usize
}

const fn limit(word: u64) -> usize {
    ((word & !WAITING) >> LIMIT_SHIFT) as usize
}

impl Word {
    fn new(limit: usize) -> Self {
        Self(AtomicU64::new((limit.min(MAX_LIMIT) as u64) << LIMIT_SHIFT))
    }

    /// One more inside, if nobody waits and there is a place.
    fn enter_below(&self, share: usize) -> bool {
        self.update(|word| {
            (word & WAITING == 0 && in_flight(word) < limit(word).min(share)).then_some(word.wrapping_add(1))
        })
        .is_some()
    }

    /// One less inside. Whether somebody waits.
    fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) & WAITING != 0
    }

    /// With an empty queue and its lock: enters, or else sets the bit if `mark`. Whether it entered.
    fn enter_or_mark(&self, mark: bool) -> bool {
        let before = self.update(|word| {
            if in_flight(word) < limit(word) {
                Some(word + 1)
            } else {
                mark.then_some(word | WAITING)
            }
        });
        before.is_some_and(|word| in_flight(word) < limit(word))
    }

    /// With the lock: a place for the first of the queue, who is its `last` too or not. Whether there was one.
    fn enter_from_queue(&self, last: bool) -> bool {
        self.update(|word| {
            let bits = if last { WAITING } else { 0 };
            (in_flight(word) < limit(word)).then_some((word + 1) & !bits)
        })
        .is_some()
    }

    /// With the lock: nobody waits any more.
    fn unmark(&self) {
        self.0.fetch_and(!WAITING, Ordering::AcqRel);
    }

    fn set_limit(&self, limit: usize) {
        let bits = (limit.min(MAX_LIMIT) as u64) << LIMIT_SHIFT;
        self.update(|word| Some(word & (WAITING | IN_FLIGHT) | bits));
    }

    fn count(&self) -> Count {
        let word = self.0.load(Ordering::Acquire);
        Count {
            limit: limit(word),
            in_flight: in_flight(word),
        }
    }

    /// Replaces the word unless `change` declines; what it was before.
    fn update(&self, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).ok()
    }
}
