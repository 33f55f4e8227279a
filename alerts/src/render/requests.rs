//! Alerts about the requests of a service, whatever was promised of them: too many fail, too many are slow, there are none,
//! nobody can be asked. Budgets are in `slo`.

use std::time::Duration;

use manifest::landscape::{Instrumentation, Recorded, Service, Slo, string, window};

use super::model::{Alert, Case, Group, Rule, RuleFile, STEP, Severity};
use super::subject::{Subject, Words};
use super::thresholds::Thresholds;
use super::traffic::{Phase, Traffic, percentage, phase, series, silent};

const ERRORS_OVER: Duration = Duration::from_mins(5);
const SLOW_OVER: Duration = Duration::from_mins(10);
/// How long a service is looked back at to know whether it is asked at all.
const ASKED_OVER: Duration = Duration::from_hours(6);
/// A window in which a service that is asked has requests.
const QUIET: Duration = Duration::from_mins(30);

/// Adds the group of a service's requests.
pub(super) fn add(
    file: &mut RuleFile,
    service: &Service,
    subject: &Subject<'_>,
    interval: Duration,
    thresholds: &Thresholds,
    notes: &mut Vec<String>,
) {
    let mut found = vec![
        health_endpoint_down(service, subject),
        high_error_rate(service, subject, thresholds),
    ];
    match slow_requests(service, subject, thresholds) {
        Some(slow) => found.push(slow),
        None => notes.push(format!(
            "service `{}`: no SlowRequests: nothing says how long its requests may take",
            service.name
        )),
    }
    if service.availability.is_some() {
        found.push(sli_absent(service, subject, thresholds));
        found.push(traffic_stopped(service, subject, thresholds));
    } else {
        notes.push(format!(
            "service `{}`: no objective of availability, so no burn alerts, no SliAbsent and no TrafficStopped",
            service.name
        ));
    }
    file.add(format!("{}-requests", service.name), interval, found);
}

impl RuleFile {
    /// A group of alerts, each with what shows that it is right.
    pub(super) fn add(&mut self, name: String, interval: Duration, alerts: Vec<(Alert, Vec<Case>)>) {
        let mut rules = Vec::new();
        for (alert, cases) in alerts {
            rules.push(Rule::Alert(alert));
            self.cases.extend(cases);
        }
        if !rules.is_empty() {
            self.groups.push(Group { name, interval, rules });
        }
    }
}

fn health_endpoint_down(service: &Service, subject: &Subject<'_>) -> (Alert, Vec<Case>) {
    let name = "HealthEndpointDown";
    let tells = service.exports.contains(&Instrumentation::Health);
    let status = catalogue::HEALTH_STATUS.metric().name;
    let well = if tells {
        service.selector.clone().matching("status", "ready|degraded").of(status)
    } else {
        service.selector.of("up")
    };
    // Where the targets are gone there is no series at all: that is none, and not nothing to compare.
    let expr = format!("(sum({well}) or vector(0)) < 1");
    let words = Words {
        summary: format!("{}: no instance is ready", service.name),
        description: format!(
            "{{{{ $value | printf \"%.0f\" }}}} instances of {} say that they can take requests.",
            service.name
        ),
    };
    let alert = subject.alert(name, Severity::Page, expr, words);
    let one = |metric: &str, labels: &[(&str, &str)], values: &str| {
        series(&service.selector, metric, labels).map(|series| (series, values.to_owned()))
    };
    let state = |ready: &str, not_ready: &str| -> Vec<(String, String)> {
        if tells {
            let status = |word, values| one(status, &[("status", word)], values);
            [
                status("ready", ready),
                status("not_ready", not_ready),
                one("up", &[], "1x20"),
            ]
            .into_iter()
            .flatten()
            .collect()
        } else {
            one("up", &[], ready).into_iter().collect()
        }
    };
    let case = |shows: &str, series, minutes, fires: bool| Case {
        shows: format!("{}: {shows}", service.name),
        alert: name,
        series,
        at: STEP * minutes,
        pace: STEP,
        fires: fires.then(|| alert.firing(&[], "0")).into_iter().collect(),
    };
    let cases = vec![
        case("it is ready", state("1x20", "0x20"), 10, false),
        case("it says that it is not ready", state("0x20", "1x20"), 10, true),
        case(
            "it was ready and its targets are gone",
            state("1x5 stale", "0x5 stale"),
            12,
            true,
        ),
        case("it was never there", Vec::new(), 10, true),
        case("it was away for a minute", state("1x5 0 1x14", "0x5 1 0x14"), 10, false),
        case("it came back", state("0x5 1x20", "1x5 0x20"), 15, false),
    ];
    (alert, cases)
}

fn high_error_rate(service: &Service, subject: &Subject<'_>, thresholds: &Thresholds) -> (Alert, Vec<Case>) {
    let name = "HighErrorRate";
    let (sli, selector) = (&service.sli, &service.selector);
    let bound = thresholds.error_ratio;
    let expr = format!(
        "({}) / ({} > 0) > {bound} and ({}) >= {}",
        sli.error_rate(selector, ERRORS_OVER),
        sli.request_rate(selector, ERRORS_OVER),
        sli.error_count(selector, ERRORS_OVER),
        thresholds.few_errors
    );
    let words = Words {
        summary: format!("{}: more than {} of requests fail", service.name, bound.percent()),
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the requests of the last {} failed by the service's own fault.",
            window(ERRORS_OVER)
        ),
    };
    // Where there is an objective, its burn alerts page.
    let severity = if service.availability.is_some() {
        Severity::Ticket
    } else {
        Severity::Page
    };
    let alert = subject.alert(name, severity, expr, words);
    let Some(traffic) = Traffic::of_availability(service) else {
        return (alert, Vec::new());
    };
    let case = |shows: &str, bad: u64, fires: bool| {
        let ratio = bad as f64 / 10_000.0;
        Case {
            shows: format!("{}: {shows}", service.name),
            alert: name,
            series: traffic.series(&[phase(10_000, bad, 20)]),
            at: STEP * 20,
            pace: STEP,
            fires: fires
                .then(|| alert.firing(&[], &percentage(ratio)))
                .into_iter()
                .collect(),
        }
    };
    let parts = bound.times(10_000, 1).as_f64();
    let quiet = |shows: &str, series, minutes| silent(name, format!("{}: {shows}", service.name), series, minutes);
    let mut cases = vec![
        case(
            "errors just above the bound",
            (parts * 1.05).ceil().min(10_000.0) as u64,
            true,
        ),
        case("errors just below the bound", (parts * 0.95) as u64, false),
        case("all requests fail", 10_000, true),
        quiet(
            "the errors are over",
            traffic.series(&[phase(100, 100, 10), phase(100, 0, 20)]),
            30,
        ),
        quiet(
            "one of three",
            traffic.series(&[
                phase(0, 0, 10),
                phase(2, 0, 1),
                phase(0, 0, 3),
                phase(1, 1, 1),
                phase(0, 0, 10),
            ]),
            17,
        ),
        quiet("nobody asks", traffic.series(&[phase(0, 0, 20)]), 20),
        quiet("there is no data", Vec::new(), 20),
    ];
    if let Some(faults) = Traffic::of_callers_faults(service) {
        cases.push(quiet("what callers do wrong", faults.series(&[phase(100, 0, 20)]), 20));
    }
    (alert, cases)
}

fn slow_requests(service: &Service, subject: &Subject<'_>, thresholds: &Thresholds) -> Option<(Alert, Vec<Case>)> {
    let name = "SlowRequests";
    let latency = service.latency?;
    let (sli, selector) = (&service.sli, &service.selector);
    let allowed = latency.quantile.rest();
    let expr = format!(
        "({}) / ({} > 0) > {allowed} and ({}) >= {}",
        sli.slow_rate(selector, latency.bound, SLOW_OVER),
        sli.timed_rate(selector, SLOW_OVER),
        sli.slow_count(selector, latency.bound, SLOW_OVER),
        thresholds.few_errors
    );
    let bound = window(latency.bound);
    let words = Words {
        summary: format!(
            "{}: more than {} of requests take longer than {bound}",
            service.name,
            allowed.percent()
        ),
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the requests of the last {} took longer than {bound}. The objective is {}.",
            window(SLOW_OVER),
            allowed.percent()
        ),
    };
    let alert = subject.alert(name, Severity::Ticket, expr, words).times(5, 5);
    let Some(traffic) = Traffic::of_latency(service, latency.bound) else {
        return Some((alert, Vec::new()));
    };
    let parts = allowed.times(1_000_000, 1).as_f64();
    let case = |shows: &str, slow: u64, fires: bool| {
        let ratio = slow as f64 / 1_000_000.0;
        Case {
            shows: format!("{}: {shows}", service.name),
            alert: name,
            series: traffic.series(&[phase(1_000_000, slow, 30)]),
            at: STEP * 30,
            pace: STEP,
            fires: fires
                .then(|| alert.firing(&[], &percentage(ratio)))
                .into_iter()
                .collect(),
        }
    };
    let quiet = |shows: &str, series| silent(name, format!("{}: {shows}", service.name), series, 30);
    let mut cases = vec![
        case(
            "just more are slow than may be",
            (parts * 1.05).ceil().min(1_000_000.0) as u64,
            true,
        ),
        case("just fewer are slow than may be", (parts * 0.95) as u64, false),
        quiet(
            "it is fast again",
            traffic.series(&[phase(100, 100, 10), phase(100, 0, 30)]),
        ),
        quiet(
            "one of three",
            traffic.series(&[
                phase(0, 0, 20),
                phase(2, 0, 1),
                phase(0, 0, 2),
                phase(1, 1, 1),
                phase(0, 0, 10),
            ]),
        ),
        quiet("nobody asks", traffic.series(&[phase(0, 0, 30)])),
        quiet("there is no data", Vec::new()),
    ];
    if let Some(streams) = Traffic::of_streams(service, latency.bound) {
        cases.push(quiet(
            "streams last as long as they like",
            streams.series(&[phase(100, 100, 30)]),
        ));
    }
    Some((alert, cases))
}

/// The recorded requests of a window, as a number.
fn asked(service: &Service, subject: &Subject<'_>, over: Duration, offset: &str) -> String {
    let environment = subject.labels.first().map_or("", |(_, value)| value.as_str());
    let requests = Recorded::Requests;
    let (environment, name) = (string(environment), string(&service.name));
    let slo = Slo::Availability;
    format!(
        "sum(sum_over_time({requests}{{environment={environment}, service={name}, slo=\"{slo}\"}}[{}:5m]{offset})) * 300",
        window(over)
    )
}

fn sli_absent(service: &Service, subject: &Subject<'_>, thresholds: &Thresholds) -> (Alert, Vec<Case>) {
    let name = "SliAbsent";
    let up = service.selector.of("up");
    let expr = format!(
        "sum({up}) > 0 unless {} and {} >= {}",
        service.sli.request_rate(&service.selector, ERRORS_OVER),
        asked(service, subject, ASKED_OVER, ""),
        thresholds.few_requests
    );
    let words = Words {
        summary: format!("{}: its requests are no longer counted", service.name),
        description: format!(
            "{{{{ $value | printf \"%.0f\" }}}} instances are scraped and none of them counts requests, and there were enough of \
             them in the last {}. No alert about errors or objectives of {} can fire.",
            window(ASKED_OVER),
            service.name
        ),
    };
    let alert = subject.alert(name, Severity::Ticket, expr, words).times(30, 15);
    let Some(traffic) = Traffic::of_availability(service) else {
        return (alert, Vec::new());
    };
    let with_up = |mut all: Vec<(String, String)>, minutes: u64| {
        all.extend(series(&service.selector, "up", &[]).map(|up| (up, format!("1x{minutes}"))));
        all
    };
    let before = |requests| traffic.series(&[phase(requests, 0, 60)]);
    let case = |shows: &str, series, minutes, fires: bool| Case {
        shows: format!("{}: {shows}", service.name),
        alert: name,
        series,
        at: STEP * minutes,
        pace: STEP * 5,
        fires: fires.then(|| alert.firing(&[], "1")).into_iter().collect(),
    };
    let cases = vec![
        case(
            "the counters went away, the targets did not",
            with_up(before(100), 200),
            110,
            true,
        ),
        case("the counters went away just now", with_up(before(100), 200), 80, false),
        case("nobody asked before either", with_up(before(0), 200), 110, false),
        case("the targets went away with them", before(100), 110, false),
        case("it was never asked", with_up(Vec::new(), 200), 110, false),
        case(
            "the counters came back",
            with_up(traffic.series(&[phase(100, 0, 200)]), 200),
            110,
            false,
        ),
    ];
    (alert, cases)
}

fn traffic_stopped(service: &Service, subject: &Subject<'_>, thresholds: &Thresholds) -> (Alert, Vec<Case>) {
    let name = "TrafficStopped";
    let hour = Duration::from_hours(1);
    let few = thresholds.few_requests;
    let expr = format!(
        "{} == 0 and {} >= {few} and {} >= {few}",
        service.sli.request_rate(&service.selector, QUIET),
        asked(service, subject, hour, " offset 1d"),
        asked(service, subject, hour, " offset 1w"),
    );
    let words = Words {
        summary: format!("{}: nobody asks it any more", service.name),
        description: format!(
            "{} had no request for {}, and at this hour yesterday and a week ago it had.",
            service.name,
            window(QUIET)
        ),
    };
    let alert = subject.alert(name, Severity::Ticket, expr, words).times(5, 5);
    let Some(traffic) = Traffic::of_availability(service) else {
        return (alert, Vec::new());
    };
    const DAY: u64 = 24 * 60;
    let case = |shows: &str, phases: &[Phase], fires: bool| Case {
        shows: format!("{}: {shows}", service.name),
        alert: name,
        series: traffic.series(phases),
        at: STEP * phases.iter().map(|phase| phase.minutes as u32).sum(),
        // A week of evaluations, each minute, would take as long as all other cases together. All cases end on one.
        pace: Duration::from_hours(1),
        fires: fires.then(|| alert.firing(&[], "0")).into_iter().collect(),
    };
    let cases = vec![
        case(
            "asked for a week, then nobody asks",
            &[phase(100, 0, 7 * DAY), phase(0, 0, 180)],
            true,
        ),
        case(
            "nobody asks since a moment",
            &[phase(100, 0, 7 * DAY + 115), phase(0, 0, 5)],
            false,
        ),
        case(
            "there is no week to compare with",
            &[phase(100, 0, 2 * DAY), phase(0, 0, 180)],
            false,
        ),
    ];
    (alert, cases)
}
