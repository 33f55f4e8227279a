//! The arithmetic of the generic cell rate algorithm (ITU-T I.371, "virtual scheduling"), which is a token bucket kept
//! as one number: the moment at which the bucket is full again. Times are nanoseconds and given by the caller.

use crate::sync::{AtomicU64, Ordering};

#[cfg(all(test, resilience_loom))]
mod loom;

/// A rate and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gcra {
    /// Time in which one call's worth comes back.
    pub(super) interval: u64,
    /// Time in which an empty bucket fills: the interval times the burst.
    pub(super) span: u64,
}

impl Gcra {
    /// When the bucket is full again after `calls` more at `now`, and the wait until they may go on. `None` when they
    /// are more than a full bucket holds.
    pub(super) fn take(self, full_at: u64, now: u64, calls: u32) -> Option<(u64, u64)> {
        let cost = self.interval.saturating_mul(calls.into());
        if cost > self.span {
            return None;
        }
        let full_at = full_at.max(now).saturating_add(cost);
        Some((full_at, full_at.saturating_sub(now.saturating_add(self.span))))
    }

    /// Calls that may go on at `now` without a wait.
    pub(super) fn available(self, full_at: u64, now: u64) -> u64 {
        self.span.saturating_sub(full_at.saturating_sub(now)) / self.interval
    }

    /// The same use of the bucket under other settings: what was used stays used.
    pub(super) fn carry(self, full_at: u64, now: u64, new: Self) -> u64 {
        let used = u128::from(full_at.saturating_sub(now)) * u128::from(new.interval) / u128::from(self.interval);
        now.saturating_add(u64::try_from(used).unwrap_or(u64::MAX))
    }
}

/// One bucket that threads share without a lock.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    full_at: AtomicU64,
}

/// A place taken in a bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// What the bucket held before and after.
    before: u64,
    after: u64,
    /// Wait before going on, nanoseconds.
    pub(super) wait: u64,
}

impl Bucket {
    /// Takes `calls` if the wait is at most `max_wait`; else says how long it would be, if it can ever be.
    pub(super) fn take(&self, gcra: Gcra, now: u64, calls: u32, max_wait: u64) -> Result<Taken, Option<u64>> {
        let mut seen = self.full_at.load(Ordering::Relaxed);
        loop {
            let (after, wait) = gcra.take(seen, now, calls).ok_or(None)?;
            if wait > max_wait {
                return Err(Some(wait));
            }
            // One number is the whole state, so its own order is all the order that is needed.
            match self
                .full_at
                .compare_exchange_weak(seen, after, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(before) => return Ok(Taken { before, after, wait }),
                Err(now_seen) => seen = now_seen,
            }
        }
    }

    /// Undoes a taking if nobody took after it; says whether it did. With somebody behind it the place stays lost:
    /// those behind keep their later moments, and whoever came next would get the same moment as the last of them.
    pub(super) fn give_back(&self, taken: Taken) -> bool {
        self.full_at
            .compare_exchange(taken.after, taken.before, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// When it is full again.
    pub(super) fn full_at(&self) -> u64 {
        self.full_at.load(Ordering::Relaxed)
    }

    /// Changes the settings: what was used stays used.
    pub(super) fn carry(&self, now: u64, old: Gcra, new: Gcra) {
        // The closure always has a value.
        let _ = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                Some(old.carry(full_at, now, new))
            });
    }
}
