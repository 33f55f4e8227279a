//! Made-up requests for the cases of alerts: series that the questions of a service's SLI select, in promtool's notation.
//! They say nothing of a real service.

use std::time::Duration;

use manifest::landscape::{Selector, Service, Sli};

use super::model::{Case, STEP};

/// Series of requests: those that count every request, those that count good ones alone, and bad ones alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Traffic {
    every: Vec<String>,
    good: Vec<String>,
    bad: Vec<String>,
}

/// So many requests a minute, bad ones among them, for so many minutes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phase {
    pub(super) requests: u64,
    pub(super) bad: u64,
    pub(super) minutes: u64,
}

/// A phase.
pub(super) const fn phase(requests: u64, bad: u64, minutes: u64) -> Phase {
    Phase { requests, bad, minutes }
}

const GET: [(&str, &str); 2] = [("http_request_method", "GET"), ("http_route", "/things/{id}")];
const CALL: [(&str, &str); 2] = [("grpc_service", "things.v1.Things"), ("grpc_method", "Get")];

impl Traffic {
    /// Requests that fail or do not, by HTTP.
    pub(super) fn of_availability(service: &Service) -> Option<Self> {
        Self::of_statuses(service, "200", "500")
    }

    fn of_statuses(service: &Service, good: &str, bad: &str) -> Option<Self> {
        let status = |status: &str| match &service.sli {
            Sli::Opsctl | Sli::OtelHttp => {
                let labels = [GET[0], GET[1], ("http_response_status_code", status)];
                series(&service.selector, "http_server_request_duration_seconds_count", &labels)
            }
            Sli::Traefik(backends) => series(backends, "traefik_service_requests_total", &[("code", status)]),
            Sli::Custom { .. } => None,
        };
        Some(Self {
            good: vec![status(good)?],
            bad: vec![status(bad)?],
            ..Self::default()
        })
    }

    /// Requests that go wrong by the caller's fault, by all protocols: the bad ones of them are the good ones of others.
    pub(super) fn of_callers_faults(service: &Service) -> Option<Self> {
        let mut traffic = Self::of_statuses(service, "404", "500")?;
        traffic.bad.clear();
        if let Some(calls) = Self::of_codes(service, "NotFound", "Internal") {
            traffic.good.extend(calls.good);
        }
        Some(traffic)
    }

    /// Calls by gRPC that end with `good`, or with `bad`.
    pub(super) fn of_codes(service: &Service, good: &str, bad: &str) -> Option<Self> {
        let call = |code| {
            let labels = [CALL[0], CALL[1], ("grpc_type", "unary"), ("grpc_code", code)];
            series(&service.selector, "grpc_server_handled_total", &labels)
        };
        (service.sli == Sli::Opsctl).then_some(())?;
        Some(Self {
            good: vec![call(good)?],
            bad: vec![call(bad)?],
            ..Self::default()
        })
    }

    /// Requests that are fast or not, by HTTP.
    pub(super) fn of_latency(service: &Service, bound: Duration) -> Option<Self> {
        let (selector, name, labels) = match &service.sli {
            Sli::Opsctl | Sli::OtelHttp => (&service.selector, "http_server_request_duration_seconds", GET.to_vec()),
            Sli::Traefik(backends) => (
                backends,
                "traefik_service_request_duration_seconds",
                vec![("code", "200")],
            ),
            Sli::Custom { .. } => return None,
        };
        Self::of_histogram(selector, name, &labels, bound)
    }

    /// Streams of gRPC that last long or do not.
    pub(super) fn of_streams(service: &Service, bound: Duration) -> Option<Self> {
        (service.sli == Sli::Opsctl).then_some(())?;
        let labels = [CALL[0], CALL[1], ("grpc_type", "server_stream")];
        Self::of_histogram(&service.selector, "grpc_server_handling_seconds", &labels, bound)
    }

    fn of_histogram(selector: &Selector, name: &str, labels: &[(&str, &str)], bound: Duration) -> Option<Self> {
        let bucket = |le: &str| {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", le)]).collect();
            series(selector, &format!("{name}_bucket"), &labels)
        };
        Some(Self {
            every: vec![series(selector, &format!("{name}_count"), labels)?, bucket("+Inf")?],
            good: vec![bucket(&bound.as_secs_f64().to_string())?],
            bad: Vec::new(),
        })
    }

    /// The series of these phases, one after another.
    pub(super) fn series(&self, phases: &[Phase]) -> Vec<(String, String)> {
        let all = |names: &[String], of: fn(&Phase) -> u64| {
            let values = values(phases, of);
            names
                .iter()
                .map(|name| (name.clone(), values.clone()))
                .collect::<Vec<_>>()
        };
        let mut series = all(&self.every, |phase| phase.requests);
        series.extend(all(&self.good, |phase| phase.requests - phase.bad));
        series.extend(all(&self.bad, |phase| phase.bad));
        series
    }
}

/// A counter that grows like this: `0+5x10 50+0x9`.
fn values(phases: &[Phase], of: impl Fn(&Phase) -> u64) -> String {
    let (mut at, mut words) = (0, Vec::new());
    for phase in phases.iter().filter(|phase| phase.minutes > 0) {
        let step = of(phase);
        if words.is_empty() {
            words.push(format!("0+{step}x{}", phase.minutes));
        } else {
            words.push(format!("{}+{step}x{}", at + step, phase.minutes - 1));
        }
        at += step * phase.minutes;
    }
    words.join(" ")
}

/// A series of `metric` that `selector` selects, with these labels more.
pub(super) fn series(selector: &Selector, metric: &str, labels: &[(&str, &str)]) -> Option<String> {
    let mut all = Selector::default();
    for (label, value) in selector.example()? {
        all = all.equal(&label, &value);
    }
    if !all.0.iter().any(|matcher| matcher.label == "instance") && !labels.iter().any(|(label, _)| *label == "instance")
    {
        all = all.equal("instance", "10.0.0.1:8080");
    }
    for (label, value) in labels {
        all = all.equal(label, value);
    }
    Some(all.of(metric))
}

/// What is shown of a ratio by `humanizePercentage`: four digits.
pub(super) fn percentage(ratio: f64) -> String {
    let percent = ratio * 100.0;
    let exponent = if percent == 0.0 {
        0
    } else {
        percent.abs().log10().floor() as i32
    };
    if exponent < -4 {
        let digits = format!("{:.3}", percent / 10f64.powi(exponent));
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        return format!("{digits}e-{:02}%", -exponent);
    }
    let decimals = usize::try_from(3 - exponent).unwrap_or(0);
    let shown = format!("{percent:.decimals$}");
    let shown = if decimals > 0 {
        shown.trim_end_matches('0').trim_end_matches('.')
    } else {
        &shown
    };
    format!("{shown}%")
}

/// A case that must be silent.
pub(super) fn silent(
    alert: &'static str,
    shows: impl Into<String>,
    series: Vec<(String, String)>,
    minutes: u64,
) -> Case {
    Case {
        shows: shows.into(),
        alert,
        series,
        at: Duration::from_mins(minutes),
        pace: STEP,
        fires: Vec::new(),
    }
}
