//! What every call reads of a breaker, in one word: state, generation, and the end of a break. It is written under the
//! lock of the state machine and read without one.

use crate::sync::{AtomicU64, Ordering};

use super::core::{Phase, Refused};

/// Bits of a generation, the same as of a window's era.
const GENERATION_BITS: u32 = crate::sharded::ERA_BITS;
pub(super) const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
/// The end of a break has 32 bits of milliseconds, which wrap after 49 days. An end further away than this is looked up
/// under the lock, so that a breaker that nobody asked for weeks does not take an end that is past for one to come.
const NEAR: u32 = 3_600_000;

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
const FORCED_OPEN: u64 = 3;
const FORCED_OPEN_UNTIL: u64 = 4;
const FORCED_CLOSED: u64 = 5;
const FORCED_CLOSED_UNTIL: u64 = 6;

/// The word, shared.
#[derive(Debug)]
pub(super) struct Word(AtomicU64);

impl Word {
    pub(super) fn new(seen: Seen) -> Self {
        Self(AtomicU64::new(seen.0))
    }

    #[inline]
    pub(super) fn load(&self) -> Seen {
        Seen(self.0.load(Ordering::Acquire))
    }

    pub(super) fn publish(&self, seen: Seen) {
        self.0.store(seen.0, Ordering::Release);
    }
}

/// One reading: state (3 bits), generation (29), end in milliseconds (32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen(u64);

impl Seen {
    pub(super) fn new(phase: &Phase, generation: u32) -> Self {
        let (code, until) = match *phase {
            Phase::Closed => (CLOSED, 0),
            Phase::Open { until } => (OPEN, until),
            Phase::HalfOpen(_) => (HALF_OPEN, 0),
            Phase::ForcedOpen { until: None } => (FORCED_OPEN, 0),
            Phase::ForcedOpen { until: Some(until) } => (FORCED_OPEN_UNTIL, until),
            Phase::ForcedClosed { until: None } => (FORCED_CLOSED, 0),
            Phase::ForcedClosed { until: Some(until) } => (FORCED_CLOSED_UNTIL, until),
        };
        Self(code << 61 | u64::from(generation & GENERATION_MASK) << 32 | until & 0xffff_ffff)
    }

    #[inline]
    pub(super) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & GENERATION_MASK
    }

    #[inline]
    pub(super) const fn is_closed(self) -> bool {
        self.0 >> 61 == CLOSED
    }

    /// Whether a plain call passes whatever the time is.
    #[inline]
    pub(super) const fn admits_all(self) -> bool {
        matches!(self.0 >> 61, CLOSED | FORCED_CLOSED)
    }

    /// Whether it surely refuses all calls at `now`. `None` says that the state machine must be asked.
    #[inline]
    pub(super) fn refuses(self, now: u64) -> Option<Refused> {
        match self.0 >> 61 {
            FORCED_OPEN => Some(Refused(None)),
            OPEN | FORCED_OPEN_UNTIL => {
                let left = (self.0 as u32).wrapping_sub(now as u32);
                (left != 0 && left <= NEAR).then_some(Refused(Some(u64::from(left))))
            }
            _ => None,
        }
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_found_also_where_its_bits_wrap() {
        let wrap = 1_u64 << 32;
        let open = Seen::new(&Phase::Open { until: 7 * wrap + 10 }, 5);
        assert_eq!(open.refuses(7 * wrap - 10), Some(Refused(Some(20))));
        assert_eq!(open.refuses(7 * wrap + 9), Some(Refused(Some(1))));
        assert_eq!(open.refuses(7 * wrap + 10), None);
        assert_eq!(open.refuses(7 * wrap + 11), None);
        let weeks = 30 * 24 * 3_600_000;
        assert_eq!(
            open.refuses(7 * wrap + weeks),
            None,
            "long past, though the bits wrapped"
        );
        assert_eq!(open.generation(), 5);
        assert!(!open.is_closed());
    }

    #[test]
    fn a_generation_wraps_within_its_bits() {
        let closed = Seen::new(&Phase::Closed, u32::MAX);
        assert_eq!(closed.generation(), GENERATION_MASK);
        assert!(closed.is_closed() && closed.admits_all());
    }

    #[test]
    fn forced_without_an_end_refuses_for_ever() {
        let forced = Seen::new(&Phase::ForcedOpen { until: None }, 1);
        assert_eq!(forced.refuses(u64::MAX), Some(Refused(None)));
        assert!(Seen::new(&Phase::ForcedClosed { until: None }, 1).admits_all());
        assert!(!Seen::new(&Phase::ForcedClosed { until: Some(9) }, 1).admits_all());
    }
}
