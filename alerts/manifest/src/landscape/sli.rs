//! Which counters tell how the requests of a service went, and the questions in PromQL that sum them. Every question sums
//! over all instances and protocols: a caller does not care which of them failed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::recorded::window;
use super::selector::{Selector, regex_escape};

/// gRPC codes that are the server's failure. The others are the caller's: what is not found, refused or cancelled is no
/// outage. `ResourceExhausted` is among them since servers answer it when their own queue or disk is full.
pub const SERVER_FAULTS: [&str; 7] = [
    "Unknown",
    "DeadlineExceeded",
    "ResourceExhausted",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
];

const HTTP: &str = catalogue::HTTP_SERVER_REQUEST_DURATION_SECONDS.metric().name;
const GRPC: &str = catalogue::GRPC_SERVER_HANDLING_SECONDS.metric().name;
const GRPC_HANDLED: &str = catalogue::GRPC_SERVER_HANDLED_TOTAL.metric().name;
const TRAEFIK: &str = "traefik_service_request_duration_seconds";
const TRAEFIK_REQUESTS: &str = "traefik_service_requests_total";
/// Bounds that Traefik has when nobody sets others.
const TRAEFIK_BUCKETS: &[f64] = &[0.1, 0.3, 1.2, 5.0];
/// Bounds that OpenTelemetry advises for `http.server.request.duration`.
const OTEL_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Where the requests of a service are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sli {
    /// By `telemetry`'s layers: HTTP and gRPC.
    Opsctl,
    /// By OpenTelemetry's HTTP server metrics.
    OtelHttp,
    /// By Traefik before it: matchers of its Services there, in place of the service's own.
    Traefik(Selector),
    /// By counters of its own: selectors without a range.
    Custom {
        /// All requests.
        total: String,
        /// Those that failed.
        errors: String,
        /// Those slower than the objective.
        slow: Option<String>,
    },
}

/// The bounds that a latency objective may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bounds {
    /// One of these, in seconds, ascending.
    Of(&'static [f64]),
    /// Whatever it is: the service counts by itself what is slower.
    Own,
    /// None: nothing counts what is slower.
    None,
}

impl Sli {
    /// The bounds that a latency objective may have.
    pub fn bounds(&self) -> Bounds {
        match self {
            Self::Opsctl => Bounds::Of(catalogue::DURATION_BUCKETS),
            Self::OtelHttp => Bounds::Of(OTEL_BUCKETS),
            Self::Traefik(_) => Bounds::Of(TRAEFIK_BUCKETS),
            Self::Custom { slow: Some(_), .. } => Bounds::Own,
            Self::Custom { slow: None, .. } => Bounds::None,
        }
    }

    /// Selectors of all requests; their series have nothing in common but that each request is in one of them.
    pub fn requests(&self, service: &Selector) -> Vec<String> {
        match self {
            Self::Opsctl => vec![service.of(&count(HTTP)), service.of(GRPC_HANDLED)],
            Self::OtelHttp => vec![service.of(&count(HTTP))],
            Self::Traefik(backends) => vec![backends.of(TRAEFIK_REQUESTS)],
            Self::Custom { total, .. } => vec![total.clone()],
        }
    }

    /// Selectors of the requests that failed by the server's fault.
    pub fn errors(&self, service: &Selector) -> Vec<String> {
        let http = || {
            service
                .clone()
                .matching("http_response_status_code", "5..")
                .of(&count(HTTP))
        };
        match self {
            Self::Opsctl => {
                let codes = SERVER_FAULTS.join("|");
                vec![http(), service.clone().matching("grpc_code", &codes).of(GRPC_HANDLED)]
            }
            Self::OtelHttp => vec![http()],
            Self::Traefik(backends) => vec![backends.clone().matching("code", "5..").of(TRAEFIK_REQUESTS)],
            Self::Custom { errors, .. } => vec![errors.clone()],
        }
    }

    /// Selectors of the requests whose time is measured: streams, which last as long as their caller likes, are not.
    pub fn timed(&self, service: &Selector) -> Vec<String> {
        match self {
            Self::Custom { total, .. } => vec![total.clone()],
            _ => self.histograms(service, |selector, name| selector.of(&count(name))),
        }
    }

    /// Selectors of the buckets that hold requests no slower than `bound`; none where the service counts the slow ones.
    pub fn fast(&self, service: &Selector, bound: Duration) -> Vec<String> {
        self.histograms(service, |selector, name| {
            bucket(selector, bound).of(&format!("{name}_bucket"))
        })
    }

    /// Selectors of all buckets: for quantiles and heat maps.
    pub fn buckets(&self, service: &Selector) -> Vec<String> {
        self.histograms(service, |selector, name| selector.of(&format!("{name}_bucket")))
    }

    fn histograms(&self, service: &Selector, of: impl Fn(Selector, &str) -> String) -> Vec<String> {
        match self {
            Self::Opsctl => vec![
                of(service.clone(), HTTP),
                of(service.clone().equal("grpc_type", "unary"), GRPC),
            ],
            Self::OtelHttp => vec![of(service.clone(), HTTP)],
            Self::Traefik(backends) => vec![of(backends.clone(), TRAEFIK)],
            Self::Custom { .. } => Vec::new(),
        }
    }

    /// All requests per second over `range`.
    pub fn request_rate(&self, service: &Selector, range: Duration) -> String {
        summed("rate", &self.requests(service), range)
    }

    /// Requests per second that failed; 0 where none ever did, since the series of a failure begins with the first.
    pub fn error_rate(&self, service: &Selector, range: Duration) -> String {
        format!("{} or vector(0)", summed("rate", &self.errors(service), range))
    }

    /// Requests per second whose time is measured.
    pub fn timed_rate(&self, service: &Selector, range: Duration) -> String {
        summed("rate", &self.timed(service), range)
    }

    /// Requests per second that took longer than `bound`, which has to be one of [`Sli::bounds`].
    pub fn slow_rate(&self, service: &Selector, bound: Duration, range: Duration) -> String {
        match self {
            Self::Custom { slow, .. } => {
                let slow: Vec<String> = slow.iter().cloned().collect();
                format!("{} or vector(0)", summed("rate", &slow, range))
            }
            _ => format!(
                "{} - {}",
                self.timed_rate(service, range),
                summed("rate", &self.fast(service, bound), range)
            ),
        }
    }
}

/// `sum(rate(a[5m]) or rate(b[5m]))`: one sum also where only one of them has series.
fn summed(function: &str, selectors: &[String], range: Duration) -> String {
    let range = window(range);
    let each: Vec<String> = selectors
        .iter()
        .map(|selector| format!("{function}({selector}[{range}])"))
        .collect();
    format!("sum({})", each.join(" or "))
}

fn count(histogram: &str) -> String {
    format!("{histogram}_count")
}

/// The bucket that ends at `bound`. Whole numbers are written `1` by some and `1.0` by others.
fn bucket(selector: Selector, bound: Duration) -> Selector {
    let seconds = bound.as_secs_f64();
    let plain = seconds.to_string();
    if seconds.fract() == 0.0 {
        selector.matching("le", &format!("{}(\\.0)?", regex_escape(&plain)))
    } else {
        selector.equal("le", &plain)
    }
}
