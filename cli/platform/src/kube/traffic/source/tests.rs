//! What is asked for, and what the answers count.

use super::*;
use crate::prometheus::Sample;

fn orders(sli: Sli) -> Workload {
    Workload {
        name: "orders".to_owned(),
        namespace: "shop".to_owned(),
        deployment: "orders".to_owned(),
        service: "orders".to_owned(),
        sli,
        objectives: crate::Objectives {
            latency_seconds: Some(0.3),
            ..crate::Objectives::default()
        },
        ..Workload::default()
    }
}

fn series(labels: &[(&str, &str)]) -> Series {
    Series {
        labels: labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        samples: Vec::new(),
    }
}

#[test]
fn one_question_asks_for_all_of_a_service_of_ours() {
    let questions = questions(&orders(Sli::Opsctl));
    assert_eq!(questions.len(), 1);
    assert_eq!(
        questions[0].selector,
        r#"{__name__=~"http_server_request_duration_seconds_count|http_server_request_duration_seconds_bucket|grpc_server_handling_seconds_count|grpc_server_handling_seconds_bucket|grpc_server_handled_total|up",namespace="shop",pod=~"orders-.+",http_route!~"/(health(z|/.*)?|livez|readyz|startupz|metrics)",grpc_service!~"grpc\\.(health|reflection)\\..*",le=~"|0\\.30*|3e-0?1"}"#
    );
}

#[test]
fn services_of_traefik_are_known_by_namespace_name_and_port() {
    let workload = Workload {
        service: "orders.v1".to_owned(),
        ..orders(Sli::Traefik)
    };
    let named = |name: &str| backend(&workload, &series(&[("service", name)]));
    assert_eq!(
        named("shop-orders-v1-http-8080@kubernetesgateway"),
        Some(Backend::Stable)
    );
    assert_eq!(
        named("shop-orders-v1-9090-grpc@kubernetesgateway"),
        Some(Backend::Stable)
    );
    assert_eq!(
        named("shop-orders-v1-canary-http-80@kubernetesgateway"),
        Some(Backend::Canary)
    );
    assert_eq!(named("shop-orders-v1-canary-http-80@kubernetes"), None);
    assert_eq!(named("shop-orders-v1-worker-http-80@kubernetesgateway"), None);
    assert_eq!(named("shop-orders-v1-http-@kubernetesgateway"), None);
    assert!(of_backends(&workload).contains("shop-orders-v1-canary(-http-[0-9]+|-[0-9]+-grpc)"));
}

#[test]
fn what_each_series_counts() {
    use Measure::{Errors, Fast, Requests, Timed};
    for (labels, expected) in [
        (
            vec![
                ("__name__", "http_server_request_duration_seconds_count"),
                ("http_response_status_code", "200"),
            ],
            &[Requests, Timed][..],
        ),
        (
            vec![
                ("__name__", "http_server_request_duration_seconds_count"),
                ("http_response_status_code", "503"),
            ],
            &[Requests, Timed, Errors],
        ),
        (
            vec![
                ("__name__", "http_server_request_duration_seconds_bucket"),
                ("http_response_status_code", "503"),
            ],
            &[Fast],
        ),
        (
            vec![("__name__", "grpc_server_handled_total"), ("grpc_code", "NotFound")],
            &[Requests],
        ),
        (
            vec![("__name__", "grpc_server_handled_total"), ("grpc_code", "Internal")],
            &[Requests, Errors],
        ),
        (vec![("__name__", "grpc_server_handling_seconds_count")], &[Timed]),
        (
            vec![
                ("__name__", "traefik_service_requests_total"),
                ("protocol", "http"),
                ("code", "502"),
            ],
            &[Requests, Errors],
        ),
        (
            vec![
                ("__name__", "traefik_service_requests_total"),
                ("protocol", "grpc"),
                ("code", "5"),
            ],
            &[Requests],
        ),
        (
            vec![
                ("__name__", "traefik_service_requests_total"),
                ("protocol", "grpc"),
                ("code", "14"),
            ],
            &[Requests, Errors],
        ),
        (
            vec![
                ("__name__", "traefik_service_request_duration_seconds_count"),
                ("protocol", "http"),
                ("code", "502"),
            ],
            &[Timed],
        ),
        (vec![("__name__", "up")], &[]),
    ] {
        assert_eq!(measures(&series(&labels), true), expected, "{labels:?}");
    }
}

#[test]
fn an_objective_between_bounds_is_refused_with_the_nearest() {
    const HTTP_COUNT: &str = "http_server_request_duration_seconds_count";
    const HTTP_BUCKET: &str = "http_server_request_duration_seconds_bucket";
    let named = |name| series(&[("__name__", name)]);
    assert_eq!(without_bucket(&[named(HTTP_COUNT), named(HTTP_BUCKET)]), None);
    assert_eq!(without_bucket(&[named("up")]), None);
    // Both histograms of a service must have it.
    let both = [
        named(HTTP_COUNT),
        named(HTTP_BUCKET),
        named("grpc_server_handling_seconds_count"),
    ];
    assert_eq!(without_bucket(&both), Some("grpc_server_handling_seconds"));

    let answer: Vec<Series> = ["0.1", "0.25", "0.3", "1.0", "+Inf"]
        .iter()
        .map(|le| series(&[("__name__", HTTP_BUCKET), ("le", le)]))
        .collect();
    let nearest = |objective| nearest_bounds("http_server_request_duration_seconds", objective, &answer);
    assert_eq!(
        nearest(0.2),
        "it is no bucket bound of `http_server_request_duration_seconds`; the nearest are 0.1 s and 0.25 s"
    );
    assert!(nearest(5.0).ends_with("the nearest are 1 s"));
    assert_eq!(nearest_bounds("other", 0.2, &answer), "`other` has no buckets");
}

#[test]
fn a_bound_is_found_however_it_is_written() {
    for (objective, pattern) in [
        (0.3, r"0\.30*|3e-0?1"),
        (1.0, r"1(\.0*)?"),
        (2.5, r"2\.50*"),
        (0.00001, r"0\.000010*|1e-0?5"),
    ] {
        assert_eq!(bound_pattern(objective), pattern, "{objective}");
    }
}

#[test]
fn a_scrape_that_failed_is_none() {
    let sample = |at_ms, value| Sample { at_ms, value };
    let mut up = series(&[("__name__", "up")]);
    up.samples = vec![
        sample(1, Some(1.0)),
        sample(2, Some(0.0)),
        sample(3, None),
        sample(4, Some(1.0)),
    ];
    assert_eq!(scraped(&up).collect::<Vec<_>>(), [1, 4]);
}
