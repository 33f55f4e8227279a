//! A canary beside the version that runs: the same figures at the same time, never against yesterday's.

use manifest::landscape::{Board, Landscape, Platform};

use super::sheet::{Plot, Sheet};
use super::{Draft, uid, variables};
use crate::model::Unit;

pub(super) fn board(landscape: &Landscape) -> Option<Draft> {
    if landscape.services.is_empty() {
        return None;
    }
    let sheet = match landscape.platform {
        Platform::Local => Sheet::default()
            .row("Traffic", proxy_traffic())
            .row("Version beside version", by_version())
            .folded("The proxy", proxy()),
        Platform::Kubernetes => Sheet::default().row("Baseline and canary", by_pods()),
    };
    Some(Draft {
        uid: uid(Board::Canary),
        title: "Canary",
        about: "The baseline and the canary at the same time: traffic, errors, duration, and what differs.",
        from: "now-1h",
        variables: vec![variables::services(landscape)],
        sheet,
    })
}

fn proxy_traffic() -> [Plot; 3] {
    [
        Plot::lines("Share of traffic", Unit::Ratio)
            .about("That each version is granted. A canary whose judge is gone falls back to 0 within half a minute.")
            .wide(12)
            .stacked()
            .up_to(1.0)
            .ask(
                "max by (service, version) (proxy_weight_ratio{service=~\"$service\"})",
                "{{service}} {{version}}",
            ),
        Plot::lines("Requests by version", Unit::Requests)
            .about("Requests per second that each version answered.")
            .wide(6)
            .ask(
                "sum by (service, version) (rate(proxy_requests_total{service=~\"$service\"}[$__rate_interval]))",
                "{{service}} {{version}}",
            ),
        Plot::lines("Answers by code", Unit::Requests)
            .about("Requests per second by version and code.")
            .wide(6)
            .ask(
                "sum by (service, version, code) (rate(proxy_requests_total{service=~\"$service\"}[$__rate_interval]))",
                "{{service}} {{version}} {{code}}",
            ),
    ]
}

fn by_version() -> [Plot; 4] {
    let share = |metric: &str| {
        format!(
            "sum by (service, version) (rate({metric}{{service=~\"$service\"}}[$__rate_interval])) / (sum by (service, version) (rate(proxy_requests_total{{service=~\"$service\"}}[$__rate_interval])) > 0)"
        )
    };
    [
        Plot::lines("Share of errors", Unit::Ratio)
            .about("Of the requests of each version those that count as errors for the objective.")
            .wide(12)
            .ask(share("proxy_errors_total"), "{{service}} {{version}}"),
        Plot::lines("Share of slow requests", Unit::Ratio)
            .about("Of the requests of each version those slower than the latency objective. Counted, not taken from buckets.")
            .wide(12)
            .ask(share("proxy_over_objective_total"), "{{service}} {{version}}"),
        Plot::lines("Duration, half", Unit::Seconds)
            .about("Half of the requests of each version took no longer than this.")
            .wide(12)
            .ask(
                "histogram_quantile(0.5, sum by (service, version, le) (rate(proxy_request_duration_seconds_bucket{service=~\"$service\"}[$__rate_interval])))",
                "{{service}} {{version}}",
            ),
        Plot::lines("Duration, 95 of 100", Unit::Seconds)
            .about("95 of 100 requests of each version took no longer than this.")
            .wide(12)
            .ask(
                "histogram_quantile(0.95, sum by (service, version, le) (rate(proxy_request_duration_seconds_bucket{service=~\"$service\"}[$__rate_interval])))",
                "{{service}} {{version}}",
            ),
    ]
}

fn proxy() -> [Plot; 3] {
    [
        Plot::lines("Requests on their way", Unit::Count)
            .about("That the proxy has not answered yet.")
            .ask(
                "sum by (service) (proxy_in_flight{service=~\"$service\"})",
                "{{service}}",
            ),
        Plot::lines("Requests held", Unit::Requests)
            .about("Answered with 503 while a service was held down for a restore.")
            .ask(
                "sum by (service) (rate(proxy_held_total{service=~\"$service\"}[$__rate_interval]))",
                "{{service}}",
            ),
        Plot::lines("Faults put on requests", Unit::Requests)
            .about("On purpose, by kind: a drill runs.")
            .ask(
                "sum by (service, kind) (rate(proxy_faults_injected_total{service=~\"$service\"}[$__rate_interval]))",
                "{{service}} {{kind}}",
            ),
    ]
}

/// Baseline and canary are told apart by their pods.
fn by_pods() -> Vec<Plot> {
    const SIDES: [(&str, &str); 2] = [("STABLE", "baseline"), ("CANARY", "canary")];
    let both = |plot: Plot, expr: &dyn Fn(&str) -> String| {
        SIDES
            .iter()
            .fold(plot.wide(12), |plot, (pods, name)| plot.ask(expr(pods), name))
    };
    vec![
        both(
            Plot::lines("Requests", Unit::Requests).about("HTTP requests and gRPC calls per second of either side."),
            &|pods| {
                format!(
                    "sum(rate(http_server_request_duration_seconds_count{{{pods}}}[$__rate_interval]) or rate(grpc_server_handled_total{{{pods}}}[$__rate_interval]))"
                )
            },
        ),
        both(
            Plot::lines("Share of errors", Unit::Ratio)
                .about("Of the HTTP requests of either side those that were answered with 5xx."),
            &|pods| {
                format!(
                    "sum(rate(http_server_request_duration_seconds_count{{{pods}, http_response_status_code=~\"5..\"}}[$__rate_interval])) / (sum(rate(http_server_request_duration_seconds_count{{{pods}}}[$__rate_interval])) > 0)"
                )
            },
        ),
        both(
            Plot::lines("Duration, 95 of 100, HTTP", Unit::Seconds)
                .about("95 of 100 HTTP requests of either side took no longer than this."),
            &|pods| {
                format!(
                    "histogram_quantile(0.95, sum by (le) (rate(http_server_request_duration_seconds_bucket{{{pods}}}[$__rate_interval])))"
                )
            },
        ),
        both(
            Plot::lines("Duration, 95 of 100, gRPC", Unit::Seconds)
                .about("95 of 100 unary calls of either side took no longer than this."),
            &|pods| {
                format!(
                    "histogram_quantile(0.95, sum by (le) (rate(grpc_server_handling_seconds_bucket{{{pods}, grpc_type=\"unary\"}}[$__rate_interval])))"
                )
            },
        ),
        both(
            Plot::lines("Instances", Unit::Count).about("Pods of either side that Prometheus scrapes."),
            &|pods| format!("count(up{{{pods}}} == 1)"),
        ),
        both(
            Plot::lines("Processor time", Unit::Cores).about("Cores that one instance of either side uses."),
            &|pods| format!("avg(rate(process_cpu_seconds_total{{{pods}}}[$__rate_interval]))"),
        ),
    ]
}
