//! From counters that only rise (until their process restarts) to what happened in an interval.
//! It does not fetch them, and does not judge.

use super::{Look, Traffic};
use serde::{Deserialize, Serialize};

/// One scrape: totals since the counting process started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrape {
    /// Identity of the counting process; another one means that the counters began again at zero.
    pub boot_id: String,
    /// Unix time of the scrape in milliseconds.
    pub at_ms: i64,
    /// Totals of the canary.
    pub canary: Traffic,
    /// Totals of the stable version.
    pub stable: Traffic,
}

/// What one scrape adds to the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The first scrape: it only sets the zero.
    First,
    /// One interval. `reset` when the counters had begun again, so that some of it is lost.
    Interval {
        /// What happened.
        look: Look,
        /// The counting process restarted within the interval.
        reset: bool,
    },
    /// Too long since the last one: what happened between is not usable, so many intervals are missing.
    Gap {
        /// Intervals that are missing.
        intervals: u32,
    },
    /// The counters contradict themselves (fewer than before in the same process): one interval is missing.
    Invalid,
}

/// Remembers the last scrape. Serialisable, so that a resumed judge sees its own absence as a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracker {
    last: Option<Scrape>,
}

impl Tracker {
    /// Takes in a scrape. `interval_ms` is the time between two looks; more than `gap_limit` of them is a gap.
    pub fn step(&mut self, scrape: Scrape, interval_ms: i64, gap_limit: u32) -> Step {
        let Some(last) = self.last.replace(scrape.clone()) else {
            return Step::First;
        };
        let elapsed = scrape.at_ms.saturating_sub(last.at_ms);
        let passed = elapsed.max(0) / interval_ms.max(1);
        if passed > i64::from(gap_limit) {
            let intervals = u32::try_from(passed).unwrap_or(u32::MAX);
            return Step::Gap { intervals };
        }
        if scrape.boot_id != last.boot_id {
            // Both versions are counted by one process: what it has counted since its start happened side by side.
            let look = Look {
                canary: scrape.canary,
                stable: scrape.stable,
            };
            return Step::Interval { look, reset: true };
        }
        match (rise(last.canary, scrape.canary), rise(last.stable, scrape.stable)) {
            (Some(canary), Some(stable)) => Step::Interval {
                look: Look { canary, stable },
                reset: false,
            },
            _ => Step::Invalid,
        }
    }

    /// Forgets the last scrape: the next one sets the zero again.
    pub fn restart(&mut self) {
        self.last = None;
    }
}

fn rise(before: Traffic, now: Traffic) -> Option<Traffic> {
    Some(Traffic {
        requests: now.requests.checked_sub(before.requests)?,
        errors: now.errors.checked_sub(before.errors)?,
        slow: now.slow.checked_sub(before.slow)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(boot: &str, at_ms: i64, canary: u64, stable: u64) -> Scrape {
        let traffic = |requests| Traffic {
            requests,
            errors: requests / 10,
            slow: 0,
        };
        Scrape {
            boot_id: boot.to_owned(),
            at_ms,
            canary: traffic(canary),
            stable: traffic(stable),
        }
    }

    #[test]
    fn pairs_of_scrapes_become_intervals() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.step(scrape("a", 0, 10, 90), 1000, 3), Step::First);
        let Step::Interval { look, reset } = tracker.step(scrape("a", 1000, 30, 270), 1000, 3) else {
            panic!("an interval");
        };
        assert!(!reset);
        assert_eq!((look.canary.requests, look.canary.errors), (20, 2));
        assert_eq!((look.stable.requests, look.stable.errors), (180, 18));
    }

    #[test]
    fn a_restarted_counter_counts_from_its_zero() {
        let mut tracker = Tracker::default();
        tracker.step(scrape("a", 0, 100, 900), 1000, 3);
        let Step::Interval { look, reset } = tracker.step(scrape("b", 1000, 10, 90), 1000, 3) else {
            panic!("an interval");
        };
        assert!(reset);
        assert_eq!(look.canary.requests, 10);
    }

    #[test]
    fn contradictions_and_absences_are_not_data() {
        let mut tracker = Tracker::default();
        tracker.step(scrape("a", 0, 100, 900), 1000, 3);
        assert_eq!(tracker.step(scrape("a", 1000, 90, 950), 1000, 3), Step::Invalid);
        assert_eq!(
            tracker.step(scrape("a", 5000, 190, 1950), 1000, 3),
            Step::Gap { intervals: 4 }
        );
        assert!(matches!(
            tracker.step(scrape("a", 8999, 190, 1950), 1000, 3),
            Step::Interval { .. }
        ));
    }
}
