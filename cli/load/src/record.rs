//! Counts what happens in a run, in bounded memory. Not the meaning of the counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::plan::{Plan, Snapshot};
use crate::request::{Failure, FailureKind};
use crate::summary::{ErrorEntry, Generator, Latency, SCHEMA, Second, Summary};

/// Longer durations are recorded as this; an hour, in microseconds.
const MAX_MICROS: u64 = 3_600_000_000;
/// The most different errors that are kept in words.
const MAX_ERRORS: usize = 50;
/// A generator that notices one arrival in a hundred later than this was not keeping up.
const MAX_LATENESS: Duration = Duration::from_millis(10);
/// A generator thread busier than this was not keeping up.
const MAX_CPU_RATIO: f64 = 0.9;

/// How one arrival ended, as far as it is counted.
pub(crate) enum End<'a> {
    Completed {
        status: u16,
        success: bool,
        response: Duration,
        service: Duration,
        body_bytes: u64,
    },
    Failed(&'a Failure),
    Dropped,
}

/// A second whose requests have not all ended.
struct OpenSecond {
    figures: Second,
    ended: u64,
    /// Whether no further arrival can be due in it.
    closed: bool,
    response: Option<Box<Histogram<u32>>>,
}

pub(crate) struct Recorder {
    scheduled: u64,
    completed: u64,
    succeeded: u64,
    failed: u64,
    dropped: u64,
    body_bytes: u64,
    pub(crate) connections_opened: u64,
    failures: BTreeMap<FailureKind, u64>,
    statuses: BTreeMap<u16, u64>,
    response: Histogram<u64>,
    service: Histogram<u64>,
    lateness: Histogram<u64>,
    done: Vec<Second>,
    open: VecDeque<OpenSecond>,
    errors: Vec<ErrorEntry>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            scheduled: 0,
            completed: 0,
            succeeded: 0,
            failed: 0,
            dropped: 0,
            body_bytes: 0,
            connections_opened: 0,
            failures: BTreeMap::new(),
            statuses: BTreeMap::new(),
            response: histogram(3),
            service: histogram(3),
            lateness: histogram(3),
            done: Vec::new(),
            open: VecDeque::new(),
            errors: Vec::new(),
        }
    }

    /// An arrival that was due `due` after the start was noticed `late`.
    pub(crate) fn arrival(&mut self, due: Duration, late: Duration) {
        self.scheduled += 1;
        record(&mut self.lateness, late);
        let second = due.as_secs();
        let next = self
            .open
            .back()
            .map_or(self.done.len() as u64, |last| last.figures.second + 1);
        for second in next..=second {
            for open in &mut self.open {
                open.closed = true;
            }
            self.open.push_back(OpenSecond {
                figures: Second {
                    second,
                    ..Second::default()
                },
                ended: 0,
                closed: false,
                response: None,
            });
        }
        if let Some(open) = self.second(second) {
            open.figures.scheduled += 1;
        }
        self.settle();
    }

    /// The arrival that was due `due` after the start ended `at` after the start.
    pub(crate) fn end(&mut self, due: Duration, at: Duration, end: &End<'_>) {
        let second = due.as_secs();
        match *end {
            End::Completed {
                status,
                success,
                response,
                service,
                body_bytes,
            } => {
                self.completed += 1;
                self.succeeded += u64::from(success);
                self.body_bytes += body_bytes;
                *self.statuses.entry(status).or_default() += 1;
                record(&mut self.response, response);
                record(&mut self.service, service);
                if let Some(open) = self.second(second) {
                    open.figures.completed += 1;
                    open.figures.succeeded += u64::from(success);
                    let histogram = open.response.get_or_insert_with(|| Box::new(histogram(2)));
                    record(histogram, response);
                }
                if !success {
                    self.error(None, at, || format!("status {status}"));
                }
            }
            End::Failed(failure) => {
                self.failed += 1;
                *self.failures.entry(failure.kind).or_default() += 1;
                if let Some(open) = self.second(second) {
                    open.figures.failed += 1;
                }
                self.error(Some(failure.kind), at, || failure.message.clone());
            }
            End::Dropped => {
                self.dropped += 1;
                if let Some(open) = self.second(second) {
                    open.figures.dropped += 1;
                }
            }
        }
        if let Some(open) = self.second(second) {
            open.ended += 1;
        }
        self.settle();
    }

    pub(crate) fn snapshot(&self, plan: &Plan, elapsed: Duration, connections: usize) -> Snapshot {
        Snapshot {
            elapsed,
            planned: plan.duration,
            scheduled: self.scheduled,
            completed: self.completed,
            succeeded: self.succeeded,
            failed: self.failed,
            dropped: self.dropped,
            in_flight: self.scheduled - self.completed - self.failed - self.dropped,
            connections,
            p50: Duration::from_micros(self.response.value_at_quantile(0.5)),
            p99: Duration::from_micros(self.response.value_at_quantile(0.99)),
        }
    }

    pub(crate) fn summary(mut self, plan: &Plan, elapsed: Duration, cpu: Option<Duration>, cancelled: bool) -> Summary {
        while let Some(open) = self.open.pop_front() {
            self.done.push(finish(open));
        }
        let cpu_ratio = cpu.map_or(0.0, |cpu| {
            if elapsed.is_zero() {
                0.0
            } else {
                cpu.as_secs_f64() / elapsed.as_secs_f64()
            }
        });
        let mut reasons = Vec::new();
        let late = Duration::from_micros(self.lateness.value_at_quantile(0.99));
        if late > MAX_LATENESS {
            reasons.push(format!(
                "one arrival in a hundred was noticed more than {} ms late",
                late.as_millis()
            ));
        }
        if cpu_ratio > MAX_CPU_RATIO && elapsed >= Duration::from_secs(1) {
            reasons.push(format!(
                "its thread was busy for {:.0} % of the time",
                cpu_ratio * 100.0
            ));
        }
        Summary {
            schema: SCHEMA.to_owned(),
            target: plan.target.to_string(),
            rate: plan.rate.to_string(),
            rate_per_second: plan.rate.per_second(),
            planned_seconds: plan.duration.as_secs_f64(),
            elapsed_seconds: elapsed.as_secs_f64(),
            cancelled,
            scheduled: self.scheduled,
            completed: self.completed,
            succeeded: self.succeeded,
            failed: self.failed,
            dropped: self.dropped,
            failures: self.failures,
            statuses: self.statuses,
            response: latency(&self.response),
            service: latency(&self.service),
            lateness: latency(&self.lateness),
            seconds: self.done,
            errors: self.errors,
            body_bytes: self.body_bytes,
            connections_opened: self.connections_opened,
            generator: Generator {
                bound: !reasons.is_empty(),
                reasons,
                cpu_ratio,
            },
        }
    }

    fn second(&mut self, second: u64) -> Option<&mut OpenSecond> {
        let first = self.open.front()?.figures.second;
        self.open.get_mut(usize::try_from(second.checked_sub(first)?).ok()?)
    }

    /// Turns the oldest seconds, once all their requests have ended, into their figures; the histogram goes.
    fn settle(&mut self) {
        while self
            .open
            .front()
            .is_some_and(|open| open.closed && open.ended == open.figures.scheduled)
        {
            if let Some(open) = self.open.pop_front() {
                self.done.push(finish(open));
            }
        }
    }

    fn error(&mut self, kind: Option<FailureKind>, at: Duration, message: impl FnOnce() -> String) {
        let message = message();
        let known = self
            .errors
            .iter()
            .position(|entry| entry.kind == kind && entry.message == message);
        match known {
            Some(index) => {
                let entry = &mut self.errors[index];
                entry.count += 1;
                entry.last_seconds = at.as_secs_f64();
            }
            None if self.errors.len() < MAX_ERRORS => self.errors.push(ErrorEntry {
                kind,
                message,
                count: 1,
                first_seconds: at.as_secs_f64(),
                last_seconds: at.as_secs_f64(),
            }),
            None => {}
        }
    }
}

fn finish(open: OpenSecond) -> Second {
    let mut figures = open.figures;
    if let Some(response) = open.response {
        let latency = latency(&response);
        figures.p50_seconds = latency.p50_seconds;
        figures.p99_seconds = latency.p99_seconds;
        figures.max_seconds = latency.max_seconds;
    }
    figures
}

fn histogram<C: hdrhistogram::Counter>(digits: u8) -> Histogram<C> {
    Histogram::new_with_bounds(1, MAX_MICROS, digits).expect("the bounds are constant and valid")
}

fn record<C: hdrhistogram::Counter>(histogram: &mut Histogram<C>, value: Duration) {
    let micros = u64::try_from(value.as_micros()).unwrap_or(MAX_MICROS);
    histogram.saturating_record(micros.clamp(1, MAX_MICROS));
}

fn latency<C: hdrhistogram::Counter>(histogram: &Histogram<C>) -> Latency {
    if histogram.is_empty() {
        return Latency::default();
    }
    let quantile = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    Latency {
        count: histogram.len(),
        min_seconds: histogram.min() as f64 / 1e6,
        mean_seconds: histogram.mean() / 1e6,
        p50_seconds: quantile(0.5),
        p90_seconds: quantile(0.9),
        p95_seconds: quantile(0.95),
        p99_seconds: quantile(0.99),
        p99_9_seconds: quantile(0.999),
        max_seconds: histogram.max() as f64 / 1e6,
    }
}
