//! From raw samples of counters to sums that only grow: what happened between two looks, series by series. Pure; it knows
//! neither Prometheus nor Kubernetes.
//!
//! A counter that is lower than before began again at zero. A series that was not there before counts from zero only if
//! that is certain: its target was scraped without it, or its process began after the last look. Of any other the past is
//! unknown, and it counts from its first sample on. Everything is counted up to one instant that all targets have
//! reached, so that an incident that all of them had is not seen at one before the others.

use std::collections::{BTreeMap, HashMap};

use crate::Counts;

/// What a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Requests that ended.
    Requests,
    /// Those that failed.
    Errors,
    /// Those whose time was measured.
    Timed,
    /// Of them, those within the objective.
    Fast,
    /// Those slower than the objective.
    Slow,
}

/// Whose requests a series counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Owner {
    pub(super) version: String,
    pub(super) instance: String,
}

/// One series as read at one look.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// All that tells it from others.
    pub(super) id: String,
    /// What was scraped for it.
    pub(super) target: String,
    pub(super) owner: Owner,
    /// When its process began, in Unix milliseconds, if that is known.
    pub(super) began_ms: Option<i64>,
    pub(super) measures: &'static [Measure],
    /// Times in Unix milliseconds and values, oldest first.
    pub(super) samples: Vec<(i64, f64)>,
}

/// When each target was scraped well, oldest first.
pub(super) type Scrapes = BTreeMap<String, Vec<i64>>;

/// How long a series that is gone is remembered.
const MEMORY_MS: i64 = 15 * 60 * 1000;

/// The growing sums of one service.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Up to when everything is counted; absent before the first look, which only sets the zero.
    counted_to: Option<i64>,
    series: HashMap<String, Last>,
    sums: BTreeMap<Owner, Sums>,
}

#[derive(Debug)]
struct Last {
    at: i64,
    value: f64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    requests: f64,
    errors: f64,
    timed: f64,
    fast: f64,
    slow: f64,
    /// The last sample of its requests, and the last that was higher than the one before.
    seen: i64,
    rose: i64,
}

impl Ledger {
    /// Up to when everything is counted.
    pub(super) fn counted_to(&self) -> Option<i64> {
        self.counted_to
    }

    /// Takes in what was read, up to `to` and not beyond. The samples of every series and all scrapes go back to the same
    /// instant, which lies before the end of the last look.
    pub(super) fn take(&mut self, readings: &[Reading], scrapes: &Scrapes, to: i64) {
        let Some(counted_to) = self.counted_to else {
            for reading in readings {
                self.sums.entry(reading.owner.clone()).or_default();
                if let Some(&(at, value)) = reading.samples.iter().rfind(|(at, _)| *at <= to) {
                    self.series.insert(reading.id.clone(), Last { at, value });
                }
            }
            self.counted_to = Some(to);
            return;
        };
        let to = to.max(counted_to);
        for reading in readings {
            let sums = self.sums.entry(reading.owner.clone()).or_default();
            let known = self.series.get(&reading.id);
            let mut last = known.map(|last| (last.at, last.value));
            for &(at, value) in reading.samples.iter().filter(|(at, _)| *at <= to) {
                let rise = match last {
                    Some((before, _)) if at <= before => continue,
                    Some((_, before)) if value >= before => value - before,
                    // It began again, and what it has counted since happened since.
                    Some(_) => value,
                    None if is_new(reading, at, scrapes, counted_to) => value,
                    None => 0.0,
                };
                last = Some((at, value));
                sums.add(reading.measures, rise, at);
            }
            if let Some((at, value)) = last {
                self.series.insert(reading.id.clone(), Last { at, value });
            }
        }
        self.series.retain(|_, last| to - last.at <= MEMORY_MS);
        self.counted_to = Some(to);
    }

    /// The sums of every owner that was ever seen.
    ///
    /// Requests under way cannot be counted from outside: an owner whose requests rose at its last scrape counts as having
    /// one, so that who waits for the end of the traffic waits for a scrape without any.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&Owner, Counts)> {
        let end = self.counted_to.unwrap_or_default();
        self.sums.iter().map(move |(owner, sums)| (owner, sums.counts(end)))
    }
}

/// Whether a series whose first sample is `first` began after what was counted.
fn is_new(reading: &Reading, first: i64, scrapes: &Scrapes, counted_to: i64) -> bool {
    let absent_before = scrapes
        .get(&reading.target)
        .and_then(|times| times.first())
        .is_some_and(|&scraped| scraped < first);
    absent_before || reading.began_ms.is_some_and(|began| began > counted_to)
}

impl Sums {
    fn add(&mut self, measures: &[Measure], rise: f64, at: i64) {
        for measure in measures {
            match measure {
                Measure::Requests => {
                    self.requests += rise;
                    self.seen = self.seen.max(at);
                    if rise > 0.0 {
                        self.rose = self.rose.max(at);
                    }
                }
                Measure::Errors => self.errors += rise,
                Measure::Timed => self.timed += rise,
                Measure::Fast => self.fast += rise,
                Measure::Slow => self.slow += rise,
            }
        }
    }

    fn counts(&self, end: i64) -> Counts {
        let whole = |sum: f64| sum.max(0.0).round() as u64;
        let requests = whole(self.requests);
        // An owner that has not been scraped for a minute has gone.
        let busy = self.rose > 0 && self.rose == self.seen && end - self.seen < 60_000;
        Counts {
            requests,
            errors: whole(self.errors).min(requests),
            over_objective: whole(self.timed - self.fast + self.slow).min(requests),
            in_flight: u64::from(busy),
            ..Counts::default()
        }
    }
}

#[cfg(test)]
mod tests;
