//! Rate, errors, duration: what the callers of the services see, by service, route and method.

use manifest::landscape::{Board, Landscape};

use super::sheet::{Plot, Sheet};
use super::{Draft, runbook_of_label, uid, variables};
use crate::model::Unit;

pub(super) fn board(landscape: &Landscape) -> Option<Draft> {
    if landscape.services.is_empty() {
        return None;
    }
    let sheet = Sheet::default()
        .row("Now", now(landscape))
        .row("HTTP", http(landscape))
        .row("gRPC", grpc(landscape))
        .folded("Calls to others", calls())
        .folded("gRPC under OpenTelemetry's names", renamed())
        .row(
            "Lines",
            [Plot::logs(
                "Warnings and errors",
                r#"{service=~"$service", level=~"warn|error"} | json"#,
            )
            .about("What the services wrote. A line opens; its trace id leads to the trace.")],
        );
    Some(Draft {
        uid: uid(Board::Requests),
        title: "Requests",
        about: "Rate, errors and duration of every service, by route and method: what its callers see.",
        from: "now-1h",
        variables: vec![variables::services(landscape)],
        sheet,
    })
}

/// A duration in which the promise of every service is kept, if all promise the same.
fn promised(landscape: &Landscape) -> Vec<(f64, &'static str)> {
    let bounds = || landscape.services.iter().map(|service| Some(service.latency?.bound));
    match bounds().next() {
        Some(Some(first)) if bounds().all(|bound| bound == Some(first)) => vec![(first.as_secs_f64(), "red")],
        _ => Vec::new(),
    }
}

fn now(landscape: &Landscape) -> [Plot; 6] {
    [
        Plot::number("Requests", Unit::Requests)
            .about("Requests per second of the chosen services, HTTP and gRPC.")
            .ask(
                "sum(rate(http_server_request_duration_seconds_count{SERVICE}[$__rate_interval]) or rate(grpc_server_handled_total{SERVICE}[$__rate_interval]))",
                "requests",
            ),
        Plot::number("Errors", Unit::Ratio)
            .about("Share of requests that failed by the server's fault: 5xx, and the gRPC codes that are no answer to the caller.")
            .steps(&[(0.001, "orange"), (0.01, "red")])
            .ask(
                "(sum(rate(http_server_request_duration_seconds_count{SERVICE, http_response_status_code=~\"5..\"}[$__rate_interval]) or rate(grpc_server_handled_total{SERVICE, grpc_code=~\"Unknown|DeadlineExceeded|ResourceExhausted|Unimplemented|Internal|Unavailable|DataLoss\"}[$__rate_interval])) or vector(0)) / (sum(rate(http_server_request_duration_seconds_count{SERVICE}[$__rate_interval]) or rate(grpc_server_handled_total{SERVICE}[$__rate_interval])) > 0)",
                "errors",
            ),
        Plot::number("Instances", Unit::Count)
            .about("Instances that Prometheus scrapes, by service.")
            .ask("sum by (job) (up{SERVICE})", "{{job}}"),
        Plot::number("Panics", Unit::Count)
            .about("Panics in any thread in the last hour. One is one too many.")
            .steps(&[(1.0, "red")])
            .ask("sum(increase(panics_total{SERVICE}[1h]))", "panics"),
        Plot::table("Versions", Unit::Count, &[("service", "Service"), ("version", "Version"), ("Value", "Instances")])
            .about("What runs, and how many instances of it.")
            .size(8, 4)
            .ask("count by (service, version) (build_info{SERVICE})", "__auto"),
        Plot::states("Alerts", &[("0", "pending", "yellow"), ("1", "firing", "red")])
            .about("Alerts of the chosen services. A click leads to the alert's page.")
            .size(24, 5)
            .or_else("none")
            .leads_to("Runbook", runbook_of_label(landscape))
            .ask(
                "max by (alertname, service) (ALERTS{service=~\"$service\", alertstate=\"firing\"}) or max by (alertname, service) (ALERTS{service=~\"$service\", alertstate=\"pending\"}) - 1",
                "{{service}} {{alertname}}",
            ),
    ]
}

fn http(landscape: &Landscape) -> [Plot; 6] {
    [
        Plot::lines("Requests by route", Unit::Requests)
            .about("Requests per second by method and route. What matches no route is `_unmatched`.")
            .ask(
                "sum by (job, http_request_method, http_route) (rate(http_server_request_duration_seconds_count{SERVICE}[$__rate_interval]))",
                "{{job}} {{http_request_method}} {{http_route}}",
            ),
        Plot::lines("Errors by route", Unit::Requests)
            .about("Requests per second that were answered with 5xx.")
            .ask(
                "sum by (job, http_route, http_response_status_code) (rate(http_server_request_duration_seconds_count{SERVICE, http_response_status_code=~\"5..\"}[$__rate_interval]))",
                "{{job}} {{http_route}} {{http_response_status_code}}",
            ),
        Plot::lines("Duration", Unit::Seconds)
            .about("Half, 95 and 99 of 100 requests took no longer than this. A dot is a trace: it opens.")
            .steps(&promised(landscape))
            .with_traces()
            .ask(quantile("0.5", "le", "http_server_request_duration_seconds_bucket{SERVICE}"), "half")
            .ask(quantile("0.95", "le", "http_server_request_duration_seconds_bucket{SERVICE}"), "95 %")
            .ask(quantile("0.99", "le", "http_server_request_duration_seconds_bucket{SERVICE}"), "99 %"),
        Plot::lines("Share of errors by route", Unit::Ratio)
            .about("Share of requests that were answered with 5xx, of the routes that had any request.")
            .up_to(1.0)
            .ask(
                "sum by (job, http_route) (rate(http_server_request_duration_seconds_count{SERVICE, http_response_status_code=~\"5..\"}[$__rate_interval])) / (sum by (job, http_route) (rate(http_server_request_duration_seconds_count{SERVICE}[$__rate_interval])) > 0)",
                "{{job}} {{http_route}}",
            ),
        Plot::lines("Duration by route", Unit::Seconds)
            .about("95 of 100 requests took no longer than this, route by route.")
            .steps(&promised(landscape))
            .ask(
                quantile("0.95", "job, http_route, le", "http_server_request_duration_seconds_bucket{SERVICE}"),
                "{{job}} {{http_route}}",
            ),
        Plot::heat("All durations", Unit::Seconds)
            .about("How many requests took how long: two bands are two kinds of request.")
            .ask(
                "sum by (le) (rate(http_server_request_duration_seconds_bucket{SERVICE}[$__rate_interval]))",
                "{{le}}",
            ),
    ]
}

fn grpc(landscape: &Landscape) -> [Plot; 6] {
    [
        Plot::lines("Calls by method", Unit::Requests)
            .about("Calls per second that ended, by method.")
            .ask(
                "sum by (job, grpc_service, grpc_method) (rate(grpc_server_handled_total{SERVICE}[$__rate_interval]))",
                "{{job}} {{grpc_service}}/{{grpc_method}}",
            ),
        Plot::lines("Calls by code", Unit::Requests)
            .about("Calls per second that did not end with OK, by code. Not every code is the server's fault.")
            .ask(
                "sum by (job, grpc_method, grpc_code) (rate(grpc_server_handled_total{SERVICE, grpc_code!=\"OK\"}[$__rate_interval])) > 0",
                "{{job}} {{grpc_method}} {{grpc_code}}",
            ),
        Plot::lines("Duration of calls", Unit::Seconds)
            .about("Half, 95 and 99 of 100 unary calls took no longer than this. A dot is a trace: it opens.")
            .steps(&promised(landscape))
            .with_traces()
            .ask(quantile("0.5", "le", "grpc_server_handling_seconds_bucket{SERVICE, grpc_type=\"unary\"}"), "half")
            .ask(quantile("0.95", "le", "grpc_server_handling_seconds_bucket{SERVICE, grpc_type=\"unary\"}"), "95 %")
            .ask(quantile("0.99", "le", "grpc_server_handling_seconds_bucket{SERVICE, grpc_type=\"unary\"}"), "99 %"),
        Plot::lines("Share of errors by method", Unit::Ratio)
            .about("Share of calls that failed by the server's fault, of the methods that had any call.")
            .up_to(1.0)
            .ask(
                "sum by (job, grpc_method) (rate(grpc_server_handled_total{SERVICE, grpc_code=~\"Unknown|DeadlineExceeded|ResourceExhausted|Unimplemented|Internal|Unavailable|DataLoss\"}[$__rate_interval])) / (sum by (job, grpc_method) (rate(grpc_server_handled_total{SERVICE}[$__rate_interval])) > 0)",
                "{{job}} {{grpc_method}}",
            ),
        Plot::lines("Duration by method", Unit::Seconds)
            .about("95 of 100 calls took no longer than this, method by method; streams last as long as their caller likes.")
            .ask(
                quantile("0.95", "job, grpc_method, le", "grpc_server_handling_seconds_bucket{SERVICE}"),
                "{{job}} {{grpc_method}}",
            ),
        Plot::lines("Calls that have not ended", Unit::Count)
            .about("Calls that began less those that ended, in the last hour: streams that are open, and calls that hang.")
            .signed()
            .ask(
                "sum by (job, grpc_method) (increase(grpc_server_started_total{SERVICE}[1h])) - sum by (job, grpc_method) (increase(grpc_server_handled_total{SERVICE}[1h]))",
                "{{job}} {{grpc_method}}",
            ),
    ]
}

fn calls() -> [Plot; 6] {
    [
        Plot::lines("HTTP requests to peers", Unit::Requests)
            .about("Requests per second that the services sent, by peer.")
            .ask(
                "sum by (job, server_address) (rate(http_client_request_duration_seconds_count{SERVICE}[$__rate_interval]))",
                "{{job}} to {{server_address}}",
            ),
        Plot::lines("HTTP requests to peers that failed", Unit::Requests)
            .about("Those without an answer, by what went wrong, and those answered with 5xx.")
            .ask(
                "sum by (job, server_address, error_type) (rate(http_client_request_duration_seconds_count{SERVICE, error_type!=\"\"}[$__rate_interval]))",
                "{{job}} to {{server_address}} {{error_type}}",
            ),
        Plot::lines("Duration of HTTP requests to peers", Unit::Seconds)
            .about("95 of 100 took no longer than this. A dot is a trace: it opens.")
            .with_traces()
            .ask(
                quantile("0.95", "job, server_address, le", "http_client_request_duration_seconds_bucket{SERVICE}"),
                "{{job}} to {{server_address}}",
            ),
        Plot::lines("gRPC calls to peers", Unit::Requests)
            .about("Calls per second that the services began, by method.")
            .ask(
                "sum by (job, grpc_service, grpc_method) (rate(grpc_client_started_total{SERVICE}[$__rate_interval]))",
                "{{job}} to {{grpc_service}}/{{grpc_method}}",
            ),
        Plot::lines("gRPC calls to peers by code", Unit::Requests)
            .about("Calls per second that did not end with OK, as the caller saw it.")
            .ask(
                "sum by (job, grpc_method, grpc_code) (rate(grpc_client_handled_total{SERVICE, grpc_code!=\"OK\"}[$__rate_interval])) > 0",
                "{{job}} {{grpc_method}} {{grpc_code}}",
            ),
        Plot::lines("Duration of gRPC calls to peers", Unit::Seconds)
            .about("95 of 100 took no longer than this. A dot is a trace: it opens.")
            .with_traces()
            .ask(
                quantile("0.95", "job, grpc_method, le", "grpc_client_handling_seconds_bucket{SERVICE}"),
                "{{job}} to {{grpc_method}}",
            ),
    ]
}

fn renamed() -> [Plot; 2] {
    [
        Plot::lines("Duration by method, newer names", Unit::Seconds)
            .about("95 of 100 calls took no longer than this. Empty unless the service is told to export these names.")
            .wide(12)
            .ask(
                quantile(
                    "0.95",
                    "job, rpc_method, le",
                    "rpc_server_call_duration_seconds_bucket{SERVICE}",
                ),
                "{{job}} {{rpc_method}}",
            ),
        Plot::lines("Duration by method, older names", Unit::Milliseconds)
            .about("The same up to version 1.37 of the conventions, in thousandths of a second.")
            .wide(12)
            .ask(
                quantile(
                    "0.95",
                    "job, rpc_method, le",
                    "rpc_server_duration_milliseconds_bucket{SERVICE}",
                ),
                "{{job}} {{rpc_method}}",
            ),
    ]
}

/// The quantile of a histogram, by some labels, `le` among them.
pub(super) fn quantile(share: &str, by: &str, buckets: &str) -> String {
    format!("histogram_quantile({share}, sum by ({by}) (rate({buckets}[$__rate_interval])))")
}
