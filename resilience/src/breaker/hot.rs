//! The settings that calls read without a lock. Each is a word of its own: while settings are exchanged a call may see
//! some old and some new ones, each of which was asked for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::Calls;
use super::settings::{BreakerSettings, OnDrop};

/// The breaker refuses nothing.
const OBSERVE: u32 = 1;
/// The exact clock is read, for slow calls.
const SLOW: u32 = 2;
/// The coarse clock is read at admission, for calls that are dropped.
const DROP: u32 = 4;
/// The window is the last calls.
const LAST_CALLS: u32 = 8;
/// Failures in a row are counted.
const ROW: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Hot {
    flags: AtomicU32,
    min_calls: AtomicU64,
    /// Bits of an `f64`.
    failure_ratio: AtomicU64,
    slow_ratio: AtomicU64,
    slow_nanos: AtomicU64,
    drop_nanos: AtomicU64,
    row: AtomicU64,
}

impl Hot {
    /// `attempt` is the time limit of an attempt, where the breaker is in a pipeline.
    pub(super) fn set(&self, settings: &BreakerSettings, attempt: Option<Duration>) {
        let slow = settings.slow.map(|slow| slow.limit);
        let drop_after = match settings.on_drop {
            Some(OnDrop::Ignore) => None,
            Some(OnDrop::FailureAfter(limit)) => Some(limit),
            None => [slow, attempt].into_iter().flatten().min(),
        };
        let nanos =
            |time: Option<Duration>| time.map_or(u64::MAX, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let store = |word: &AtomicU64, value: u64| word.store(value, Ordering::Relaxed);
        store(&self.min_calls, settings.min_calls);
        store(&self.failure_ratio, settings.failure_ratio.to_bits());
        store(
            &self.slow_ratio,
            settings.slow.map_or(f64::INFINITY, |slow| slow.ratio).to_bits(),
        );
        store(&self.slow_nanos, nanos(slow));
        store(&self.drop_nanos, nanos(drop_after));
        store(&self.row, settings.consecutive.map_or(u64::MAX, u64::from));
        let flag = |is_on: bool, flag: u32| if is_on { flag } else { 0 };
        let flags = flag(settings.observe_only, OBSERVE)
            | flag(slow.is_some(), SLOW)
            | flag(drop_after.is_some(), DROP)
            | flag(settings.last_calls.is_some(), LAST_CALLS)
            | flag(settings.consecutive.is_some(), ROW);
        self.flags.store(flags, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn flags(&self) -> Flags {
        Flags(self.flags.load(Ordering::Relaxed))
    }

    /// Whether an answer after so many nanoseconds is slow.
    pub(super) fn is_slow(&self, nanos: u64) -> bool {
        nanos >= self.slow_nanos.load(Ordering::Relaxed)
    }

    /// Whether a call dropped after so many nanoseconds hung.
    pub(super) fn is_hung(&self, nanos: u64) -> bool {
        nanos >= self.drop_nanos.load(Ordering::Relaxed)
    }

    /// Whether these calls, or so many failures in a row, open the breaker.
    pub(super) fn is_too_much(&self, calls: Calls, row: u64) -> bool {
        if row >= self.row.load(Ordering::Relaxed) {
            return true;
        }
        if calls.all < self.min_calls.load(Ordering::Relaxed) {
            return false;
        }
        // The slack is for shares such as 0.1 * 30, which is a little over 3.
        let reaches = |part: u64, ratio: &AtomicU64| {
            part > 0 && part as f64 >= f64::from_bits(ratio.load(Ordering::Relaxed)) * calls.all as f64 - 1e-9
        };
        reaches(calls.failed, &self.failure_ratio) || reaches(calls.slow, &self.slow_ratio)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Flags(u32);

impl Flags {
    #[inline]
    pub(super) const fn only_observes(self) -> bool {
        self.0 & OBSERVE != 0
    }

    /// Whether a success is one whatever time it took, and is counted without a lock.
    #[inline]
    pub(super) const fn success_is_plain(self) -> bool {
        self.0 & (SLOW | LAST_CALLS) == 0
    }

    #[inline]
    pub(super) const fn times_exactly(self) -> bool {
        self.0 & SLOW != 0
    }

    #[inline]
    pub(super) const fn times(self) -> bool {
        self.0 & (SLOW | DROP) != 0
    }

    #[inline]
    pub(super) const fn has_last_calls(self) -> bool {
        self.0 & LAST_CALLS != 0
    }

    #[inline]
    pub(super) const fn has_row(self) -> bool {
        self.0 & ROW != 0
    }
}
