//! From where on an alert fires: burn windows and bounds, as data. What they are held against is not here.

use std::time::Duration;

use manifest::landscape::{Ratio, Scaled};

use super::model::Severity;

/// What the budget of an objective is counted over.
pub const PERIOD: Duration = Duration::from_hours(30 * 24);

/// Two windows that an objective is watched over: the long one says that it matters, the short one that it goes on
/// (Beyer et al., "The Site Reliability Workbook", 2018, chapter 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BurnWindow {
    /// How urgent it is.
    pub severity: Severity,
    /// So many percent of the budget are gone when it fires.
    pub budget_percent: u64,
    /// In so much time.
    pub long: Duration,
    /// And it goes on in the last so much time.
    pub short: Duration,
}

impl BurnWindow {
    /// From which share of errors on it fires, for an objective that leaves `budget`.
    pub fn threshold(&self, budget: Ratio) -> Scaled {
        budget.times(self.budget_percent * PERIOD.as_secs(), 100 * self.long.as_secs())
    }

    /// How many times as fast as it may the budget is used up: `14.4`.
    pub fn factor(&self) -> f64 {
        (self.budget_percent * PERIOD.as_secs()) as f64 / (100 * self.long.as_secs()) as f64
    }
}

/// The windows that objectives are watched over, the fastest first.
pub const BURN_WINDOWS: [BurnWindow; 4] = {
    const fn hours(severity: Severity, budget_percent: u64, long: u64, short_minutes: u64) -> BurnWindow {
        BurnWindow {
            severity,
            budget_percent,
            long: Duration::from_hours(long),
            short: Duration::from_mins(short_minutes),
        }
    }
    [
        hours(Severity::Page, 2, 1, 5),
        hours(Severity::Page, 5, 6, 30),
        hours(Severity::Ticket, 10, 24, 120),
        hours(Severity::Ticket, 10, 72, 360),
    ]
};

/// Bounds of the other alerts.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// So many failed or slow requests are evidence; one of three is not.
    pub few_errors: u32,
    /// Share of failed requests that is high whatever was promised.
    pub error_ratio: Ratio,
    /// A service with so many requests in six hours is one that is asked.
    pub few_requests: u32,
    /// A breaker that opens so often in a quarter of an hour flaps.
    pub breaker_openings: u32,
    /// Open sagas of which none ends for so long stand still.
    pub saga_idle: Duration,
    /// So many vain attempts of a step are no accident.
    pub saga_retries: u32,
    /// So old an event in the outbox is one that does not get through.
    pub outbox_age: Duration,
    /// Share of connections in use from where on callers wait.
    pub connections: Ratio,
    /// Without an objective a backup may be late by so many parts of its schedule's longest gap.
    pub late_backup: Ratio,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            few_errors: 5,
            error_ratio: Ratio::permille(50),
            few_requests: 60,
            breaker_openings: 3,
            saga_idle: Duration::from_mins(30),
            saga_retries: 5,
            outbox_age: Duration::from_mins(5),
            connections: Ratio::permille(900),
            late_backup: Ratio::permille(500),
        }
    }
}
