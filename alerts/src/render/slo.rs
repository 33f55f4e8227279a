//! The rules of one objective: what is recorded of it, and the alerts that say when its budget burns too fast. Which
//! counters it counts is the landscape's business.
//!
//! Windows up to six hours are rates over that window. Longer ones sum the recorded rates of five minutes, of bad requests
//! and of all, and divide those sums: a quiet night weighs what its requests weigh, and minutes without any are nothing to
//! divide by.

use std::time::Duration;

use manifest::landscape::{Bounds, Latency, Ratio, Recorded, Service, Slo, window};

use super::error::RenderError;
use super::model::{Alert, Case, Group, Record, Rule, RuleFile, STEP, Severity};
use super::subject::{Subject, Words};
use super::thresholds::{BURN_WINDOWS, BurnWindow, PERIOD, Thresholds};
use super::traffic::{Traffic, percentage, phase, silent};

/// What rates are recorded over; longer windows are sums of these.
const BASE: Duration = Duration::from_mins(5);
/// The longest window that is asked of the raw counters: a day of every instance's series at each evaluation is dear.
const LONGEST_RATE: Duration = Duration::from_hours(6);
/// How often what looks back for days is evaluated. Less than half of the five minutes after which a series is stale.
const SLOW_INTERVAL: Duration = Duration::from_mins(2);

/// How often rules are evaluated in the cases: what is looked at are windows, and there are many cases.
const PACE: Duration = Duration::from_mins(5);

/// An objective of a service.
struct Objective<'a> {
    service: &'a Service,
    slo: Slo,
    ratio: Ratio,
    latency: Option<Latency>,
    /// Labels of everything that is recorded of it.
    labels: Vec<(String, String)>,
}

/// Adds the rules of every objective of a service. `notes` are for people.
pub(super) fn add(
    file: &mut RuleFile,
    service: &Service,
    subject: &Subject<'_>,
    interval: Duration,
    thresholds: &Thresholds,
    notes: &mut Vec<String>,
) -> Result<(), RenderError> {
    let availability = service.availability.map(|ratio| (Slo::Availability, ratio, None));
    let latency = service
        .latency
        .map(|latency| (Slo::Latency, latency.quantile, Some(latency)));
    for (slo, ratio, latency) in availability.into_iter().chain(latency) {
        let objective = Objective {
            service,
            slo,
            ratio,
            latency,
            labels: subject
                .labels
                .iter()
                .filter(|(label, _)| label != "team")
                .cloned()
                .chain([("slo".to_owned(), slo.to_string())])
                .collect(),
        };
        let windows = objective.windows(notes)?;
        objective.add(file, subject, interval, thresholds, &windows);
    }
    Ok(())
}

impl Objective<'_> {
    /// The windows whose alerts can fire at all.
    fn windows(&self, notes: &mut Vec<String>) -> Result<Vec<BurnWindow>, RenderError> {
        let name = || self.service.name.clone();
        let budget = self.ratio.rest();
        if self.ratio == Ratio::ONE {
            return Err(RenderError::NoBudget {
                service: name(),
                slo: self.slo,
            });
        }
        if let Some(latency) = self.latency {
            bound_is_counted(self.service, latency)?;
        }
        let (reachable, unreachable): (Vec<BurnWindow>, Vec<BurnWindow>) = BURN_WINDOWS
            .iter()
            .partition(|burn| !burn.threshold(budget).unreachable());
        if !reachable.iter().any(|burn| burn.severity == Severity::Page) {
            let slowest = BURN_WINDOWS.iter().filter(|burn| burn.severity == Severity::Page);
            return Err(RenderError::NeverFires {
                service: name(),
                slo: self.slo,
                objective: self.ratio,
                needed: slowest.map(BurnWindow::factor).fold(f64::INFINITY, f64::min),
                reachable: 1.0 / budget.as_f64(),
            });
        }
        notes.extend(unreachable.iter().map(|burn| {
            format!(
                "service `{}`: no {} alert over {}: {} times the budget of {} would be more than all requests",
                self.service.name,
                self.slo,
                window(burn.long),
                burn.factor(),
                budget.percent(),
            )
        }));
        Ok(reachable)
    }

    fn add(
        &self,
        file: &mut RuleFile,
        subject: &Subject<'_>,
        interval: Duration,
        thresholds: &Thresholds,
        windows: &[BurnWindow],
    ) {
        let (quick, slow): (Vec<&BurnWindow>, Vec<&BurnWindow>) =
            windows.iter().partition(|burn| burn.severity == Severity::Page);
        let mut alerts = Vec::new();
        let mut rules = vec![
            self.record(Recorded::Requests, self.request_rate(BASE)),
            self.record(Recorded::Errors, self.error_rate(BASE)),
            self.record(Recorded::Objective, format!("vector({})", self.ratio)),
        ];
        let mut recorded = Vec::new();
        for (suffix, interval, windows) in [
            ("burn", interval, quick),
            ("slow-burn", interval.max(SLOW_INTERVAL), slow),
        ] {
            for burn in &windows {
                for over in [burn.short, burn.long] {
                    if !recorded.contains(&over) {
                        recorded.push(over);
                        rules.push(self.record(Recorded::ErrorRatio(over), self.error_ratio(over)));
                    }
                }
                rules.push(self.record(Recorded::ErrorCount(burn.long), self.error_count(burn.long)));
            }
            if suffix == "slow-burn" {
                rules.push(self.record(Recorded::BudgetLeft, self.budget_left()));
            }
            for burn in windows {
                let alert = self.alert(subject, thresholds, burn);
                rules.push(Rule::Alert(alert.clone()));
                alerts.push((*burn, alert));
            }
            file.groups.push(Group {
                name: format!("{}-{}-{suffix}", self.service.name, self.slo),
                interval,
                rules: std::mem::take(&mut rules),
            });
        }
        file.cases.extend(self.cases(&alerts, thresholds));
    }

    fn record(&self, what: Recorded, expr: String) -> Rule {
        Rule::Record(Record {
            name: what.to_string(),
            expr,
            labels: self.labels.clone(),
        })
    }

    /// A recorded series of this objective.
    fn read(&self, what: Recorded) -> String {
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(label, value)| format!("{label}={}", manifest::landscape::string(value)))
            .collect();
        format!("{what}{{{}}}", labels.join(", "))
    }

    fn request_rate(&self, over: Duration) -> String {
        let (sli, selector) = (&self.service.sli, &self.service.selector);
        match self.latency {
            None => sli.request_rate(selector, over),
            Some(_) => sli.timed_rate(selector, over),
        }
    }

    fn error_rate(&self, over: Duration) -> String {
        let (sli, selector) = (&self.service.sli, &self.service.selector);
        match self.latency {
            None => sli.error_rate(selector, over),
            Some(latency) => sli.slow_rate(selector, latency.bound, over),
        }
    }

    /// Sum of a recorded rate over a window: a part of a ratio, whatever the interval of the recording.
    fn sum_of(&self, what: Recorded, over: Duration) -> String {
        format!("sum_over_time({}[{}])", self.read(what), window(over))
    }

    fn error_ratio(&self, over: Duration) -> String {
        let (errors, requests) = if over == BASE {
            (self.read(Recorded::Errors), self.read(Recorded::Requests))
        } else if over <= LONGEST_RATE {
            (format!("({})", self.error_rate(over)), self.request_rate(over))
        } else {
            (
                self.sum_of(Recorded::Errors, over),
                self.sum_of(Recorded::Requests, over),
            )
        };
        format!("{errors} / ({requests} > 0)")
    }

    fn error_count(&self, over: Duration) -> String {
        let (sli, selector) = (&self.service.sli, &self.service.selector);
        match self.latency {
            // A look every five minutes at the rate of those five minutes counts each request once.
            _ if over > LONGEST_RATE => format!(
                "sum_over_time({}[{}:{}]) * {}",
                self.read(Recorded::Errors),
                window(over),
                window(BASE),
                BASE.as_secs()
            ),
            None => sli.error_count(selector, over),
            Some(latency) => sli.slow_count(selector, latency.bound, over),
        }
    }

    fn budget_left(&self) -> String {
        format!("1 - {} / {}", self.error_ratio(PERIOD), self.ratio.rest())
    }

    fn alert(&self, subject: &Subject<'_>, thresholds: &Thresholds, burn: &BurnWindow) -> Alert {
        let threshold = burn.threshold(self.ratio.rest());
        let long = self.read(Recorded::ErrorRatio(burn.long));
        let short = self.read(Recorded::ErrorRatio(burn.short));
        let count = self.read(Recorded::ErrorCount(burn.long));
        let few = thresholds.few_errors;
        let expr = format!("{long} > {threshold} and {short} > {threshold} and {count} >= {few}");
        let service = &self.service.name;
        let (name, what, promise) = match self.latency {
            None => (
                "AvailabilityBudgetBurn",
                "failed".to_owned(),
                format!("{} of requests succeed", self.ratio.percent()),
            ),
            Some(latency) => (
                "LatencyBudgetBurn",
                format!("took longer than {}", window(latency.bound)),
                format!(
                    "{} of requests take at most {}",
                    self.ratio.percent(),
                    window(latency.bound)
                ),
            ),
        };
        let words = Words {
            summary: format!(
                "{service}: the {} budget of 30 days burns {} times as fast as it may",
                self.slo,
                burn.factor()
            ),
            description: format!(
                "{{{{ $value | humanizePercentage }}}} of the requests of the last {} {what}, and it goes on. The objective is \
                 that {promise}.",
                window(burn.long)
            ),
        };
        let alert = subject
            .alert(name, burn.severity, expr, words)
            .label("slo", self.slo.as_str())
            .label("window", &window(burn.long));
        match burn.severity {
            Severity::Page => alert.times(1, 5),
            _ => alert.times(15, 15),
        }
    }

    fn traffic(&self) -> Option<Traffic> {
        match self.latency {
            None => Traffic::of_availability(self.service),
            Some(latency) => Traffic::of_latency(self.service, latency.bound),
        }
    }

    /// Just above and just below each threshold, one of three, nothing at all, and over again.
    fn cases(&self, alerts: &[(BurnWindow, Alert)], thresholds: &Thresholds) -> Vec<Case> {
        let (Some(traffic), Some((_, any))) = (self.traffic(), alerts.first()) else {
            return Vec::new();
        };
        let budget = self.ratio.rest();
        let case = |shows: String, series, minutes, ratio: f64| Case {
            shows,
            alert: any.name,
            series,
            at: STEP * minutes,
            pace: PACE,
            fires: alerts
                .iter()
                .filter(|(burn, _)| ratio > burn.threshold(budget).as_f64())
                .map(|(_, alert)| alert.firing(&[], &percentage(ratio)))
                .collect(),
        };
        let (service, slo) = (&self.service.name, self.slo);
        let mut cases = Vec::new();
        for (burn, _) in alerts {
            let threshold = burn.threshold(budget).as_f64();
            // So many requests that a twentieth of the threshold is still many of them.
            let requests = 10f64.powi((1000.0_f64 / threshold).log10().ceil() as i32) as u64;
            for (share, side) in [(1.05, "above"), (0.95, "below")] {
                let bad = ((requests as f64 * threshold * share) as u64).min(requests);
                let ratio = bad as f64 / requests as f64;
                let shows = format!("{service}: {slo} errors just {side} the bound of {}", window(burn.long));
                cases.push(case(shows, traffic.series(&[phase(requests, bad, 60)]), 60, ratio));
            }
        }
        let name = any.name;
        cases.push(case(
            format!("{service}: {slo}, every request is bad"),
            traffic.series(&[phase(100, 100, 60)]),
            60,
            1.0,
        ));
        let few = u64::from(thresholds.few_errors / 2);
        let quiet = [
            (
                "all of it is long over",
                vec![phase(100, 100, 60), phase(100, 0, 400)],
                450,
            ),
            (
                "so few requests that one of three is no evidence",
                vec![
                    phase(0, 0, 10),
                    phase(2, 0, 1),
                    phase(0, 0, 20),
                    phase(1, 1, 1),
                    phase(0, 0, 30),
                ],
                35,
            ),
            (
                "a few bad requests and no others are no evidence",
                vec![phase(0, 0, 31), phase(few, few, 1), phase(0, 0, 30)],
                35,
            ),
            ("nobody asks", vec![phase(0, 0, 60)], 60),
            ("there is no data", Vec::new(), 60),
        ];
        cases.extend(quiet.into_iter().map(|(shows, phases, minutes)| {
            let shows = format!("{service}: {slo}, {shows}");
            silent(name, shows, traffic.series(&phases), minutes).paced(PACE)
        }));
        cases.extend(self.cases_of_protocols(name, alerts));
        cases
    }

    /// What is no error by either protocol, and what is one by gRPC.
    fn cases_of_protocols(&self, name: &'static str, alerts: &[(BurnWindow, Alert)]) -> Vec<Case> {
        let service = &self.service.name;
        let all_of = |traffic: Traffic, bad| traffic.series(&[phase(100, bad, 60)]);
        if let Some(latency) = self.latency {
            let streams = Traffic::of_streams(self.service, latency.bound);
            return streams
                .map(|streams| {
                    silent(
                        name,
                        format!("{service}: streams last as long as they like"),
                        all_of(streams, 100),
                        60,
                    )
                    .paced(PACE)
                })
                .into_iter()
                .collect();
        }
        let mut cases = Vec::new();
        if let Some(faults) = Traffic::of_callers_faults(self.service) {
            cases.push(
                silent(
                    name,
                    format!("{service}: what callers do wrong is no error"),
                    all_of(faults, 0),
                    60,
                )
                .paced(PACE),
            );
        }
        for code in ["DeadlineExceeded", "Unavailable"] {
            if let Some(calls) = Traffic::of_codes(self.service, "OK", code) {
                cases.push(Case {
                    shows: format!("{service}: every gRPC call ends with {code}"),
                    alert: name,
                    series: all_of(calls, 100),
                    at: STEP * 60,
                    pace: PACE,
                    fires: alerts.iter().map(|(_, alert)| alert.firing(&[], "100%")).collect(),
                });
            }
        }
        cases
    }
}

/// An objective that is no bucket's bound cannot be counted, only guessed.
fn bound_is_counted(service: &Service, latency: Latency) -> Result<(), RenderError> {
    let bound = latency.bound.as_secs_f64();
    let bounds = match service.sli.bounds() {
        Bounds::Own => return Ok(()),
        Bounds::None => &[],
        Bounds::Of(bounds) => bounds,
    };
    if bounds.contains(&bound) {
        return Ok(());
    }
    Err(RenderError::NoBucket {
        service: service.name.clone(),
        bound: latency.bound,
        below: bounds.iter().copied().filter(|b| *b < bound).reduce(f64::max),
        above: bounds.iter().copied().find(|b| *b > bound),
    })
}
