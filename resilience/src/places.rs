//! The places of a bulkhead. The [`Gate`] counts them in one word, which all cores would write in every call; so a thread
//! that leaves keeps a few places at hand for those who come next on it, and nobody else's memory is touched. Kept places
//! count as taken at the gate. They are gathered whenever somebody would find no place without them, so nobody is refused
//! and nobody waits while there is a free one; and nothing is kept while somebody waits or the limit was lowered.

use std::task::{Context, Poll};

use crate::gate::{Count, Gate, Ticket};
use crate::sharded::{mine, slots};
use crate::sync::{AtomicU64, Ordering, fence};

#[cfg(all(test, resilience_loom))]
mod loom;
#[cfg(all(test, not(resilience_loom)))]
mod tests;

/// Of all places at most one in so many is kept at hand.
const KEPT_SHARE: usize = 4;

/// Counts who is inside.
#[derive(Debug)]
pub(crate) struct Places {
    gate: Gate,
    hands: Box<[Hand]>,
    /// The most that one thread keeps.
    most: AtomicU64,
}

/// What one thread keeps. Lines of memory are fetched in pairs, hence 128.
#[derive(Debug)]
#[repr(align(128))]
struct Hand(AtomicU64);

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self::with_hands(limit, slots())
    }

    fn with_hands(limit: usize, hands: usize) -> Self {
        Self {
            gate: Gate::new(limit),
            hands: (0..hands).map(|_| Hand(AtomicU64::new(0))).collect(),
            most: AtomicU64::new(most(limit, hands)),
        }
    }

    /// Takes a place if one is free and nobody waits for it. The caller owes [`Places::leave`].
    #[inline]
    pub(crate) fn try_enter(&self) -> bool {
        self.try_enter_on(mine())
    }

    /// Gives a place back; the first who waits has it then.
    #[inline]
    pub(crate) fn leave(&self) {
        self.leave_on(mine());
    }

    /// Takes a place or a turn in the queue if fewer than `room` wait.
    pub(crate) fn join(&self, room: usize) -> Option<Ticket> {
        let ticket = self.gate.join(room);
        // Whoever leaves from here on sees that somebody waits; what was kept before is handed on now.
        let gathered = self.gather();
        match ticket {
            None if gathered => self.gate.join(room),
            ticket => ticket,
        }
    }

    /// See [`Gate::poll`].
    pub(crate) fn poll(&self, ticket: &Ticket, context: &mut Context<'_>) -> Poll<()> {
        self.gate.poll(ticket, context)
    }

    /// See [`Gate::cancel`].
    pub(crate) fn cancel(&self, ticket: &Ticket) {
        self.gate.cancel(ticket);
    }

    /// See [`Gate::set_limit`].
    pub(crate) fn set_limit(&self, limit: usize) {
        self.most.store(most(limit, self.hands.len()), Ordering::Relaxed);
        self.gate.set_limit(limit);
        self.gather();
    }

    /// Places, and how many are taken.
    pub(crate) fn count(&self) -> Count {
        let kept: u64 = self.hands.iter().map(|hand| hand.0.load(Ordering::Relaxed)).sum();
        let count = self.gate.count();
        Count {
            in_flight: count.in_flight.saturating_sub(kept as usize),
            ..count
        }
    }

    /// How many wait.
    pub(crate) fn queued(&self) -> usize {
        self.gate.queued()
    }

    /// [`Places::try_enter`] on the thread with this number.
    #[inline]
    fn try_enter_on(&self, thread: usize) -> bool {
        if let Some(hand) = self.hands.get(thread) {
            if !self.gate.is_awaited() && hand.take() {
                return true;
            }
        }
        self.gate.try_enter() || self.enter_gathered()
    }

    /// There is no place at the gate: perhaps others keep some.
    #[cold]
    fn enter_gathered(&self) -> bool {
        self.gather() && self.gate.try_enter()
    }

    /// [`Places::leave`] on the thread with this number.
    #[inline]
    fn leave_on(&self, thread: usize) {
        let Some(hand) = self.hands.get(thread) else {
            return self.gate.leave();
        };
        if self.gate.is_short() || !hand.keep(self.most.load(Ordering::Relaxed)) {
            return self.gate.leave();
        }
        // Somebody may have begun to wait meanwhile, or lowered the limit. Either that one's look at the hands comes after
        // the place was put there, or this look at the gate comes after what that one did to it.
        fence(Ordering::SeqCst);
        if self.gate.is_short() {
            self.give(hand);
        }
    }

    /// Brings all kept places back to the gate. Whether there were any.
    fn gather(&self) -> bool {
        fence(Ordering::SeqCst);
        let mut any = false;
        for hand in &self.hands {
            any |= self.give(hand);
        }
        any
    }

    /// Brings what a thread keeps back to the gate.
    fn give(&self, hand: &Hand) -> bool {
        if hand.0.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let kept = hand.0.swap(0, Ordering::AcqRel);
        (0..kept).for_each(|_| self.gate.leave());
        kept > 0
    }
}

impl Hand {
    #[inline]
    fn take(&self) -> bool {
        let one_less = |kept: u64| kept.checked_sub(1);
        self.0.load(Ordering::Relaxed) > 0
            && self
                .0
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_less)
                .is_ok()
    }

    #[inline]
    fn keep(&self, most: u64) -> bool {
        let one_more = |kept: u64| (kept < most).then_some(kept + 1);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more)
            .is_ok()
    }
}

/// Small limits are all at the gate.
fn most(limit: usize, hands: usize) -> u64 {
    (limit / (KEPT_SHARE * hands.max(1))) as u64
}
