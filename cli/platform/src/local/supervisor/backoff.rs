//! When an ended instance starts again. Pure: takes how long it ran.

use std::time::Duration;

/// The wait after the first failure.
pub const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(10);
/// An instance that ran this long, ready, starts afresh.
pub const STEADY: Duration = Duration::from_secs(10);
/// From this many failures in a row on it counts as a crash loop.
pub const CRASH_LOOP_AFTER: u32 = 5;

/// The failures of one instance in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes that it ended after having been ready for `ready_for` (zero: it never was), and says how long to wait.
    /// The wait doubles with each failure in a row: 0.1 s, 0.2 s … 10 s.
    pub fn ended(&mut self, ready_for: Duration) -> Duration {
        if ready_for >= STEADY {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let doublings = (self.failures - 1).min(16);
        (FIRST * 2u32.pow(doublings)).min(LONGEST)
    }

    /// Whether it fails again and again.
    pub fn crash_loop(self) -> bool {
        self.failures >= CRASH_LOOP_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_longest_and_start_afresh_after_a_steady_run() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.ended(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert!(backoff.crash_loop());
        assert_eq!(backoff.ended(STEADY), FIRST);
        assert!(!backoff.crash_loop());
    }

    #[test]
    fn a_failure_without_end_does_not_overflow() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.ended(Duration::ZERO), LONGEST);
    }
}
