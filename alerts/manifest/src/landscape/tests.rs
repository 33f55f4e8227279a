//! Tests of the landscape: exact shares, matchers as PromQL reads them, links, questions.

use std::time::Duration;

use super::*;

#[test]
fn what_is_left_of_an_objective_is_exact() {
    let cases = [
        (0.999, "0.999", "99.9%", "0.001"),
        (0.9995, "0.9995", "99.95%", "0.0005"),
        (0.99, "0.99", "99%", "0.01"),
        (0.5, "0.5", "50%", "0.5"),
        (1.0, "1", "100%", "0"),
        (0.999_999_999, "0.999999999", "99.9999999%", "0.000000001"),
    ];
    for (value, shown, percent, rest) in cases {
        let ratio = Ratio::new(value).unwrap();
        let got = (ratio.to_string(), ratio.percent(), ratio.rest().to_string());
        assert_eq!(got, (shown.to_owned(), percent.to_owned(), rest.to_owned()));
        let read: Ratio = serde_json::from_str(&serde_json::to_string(&ratio).unwrap()).unwrap();
        assert_eq!(read, ratio);
    }
    assert_eq!(Ratio::new(1.1), None);
    assert_eq!(Ratio::new(f64::NAN), None);
    let budget = Ratio::new(0.999).unwrap().rest();
    assert_eq!(budget.times(144, 10).to_string(), "0.0144");
    assert!(Ratio::permille(500).times(144, 10).unreachable());
}

#[test]
fn strings_and_patterns_are_escaped() {
    let selector = Selector::default().equal("job", "a\"b\\c\n").matching("x", "1|2");
    assert_eq!(selector.of("up"), r#"up{job="a\"b\\c\n", x=~"1|2"}"#);
    assert_eq!(Selector::default().of("up"), "up");
    assert_eq!(
        Selector::pods("shop", "orders.v2").to_string(),
        r#"namespace="shop", pod=~"orders\\.v2(-canary)?-[a-z0-9]+-[a-z0-9]{5}""#
    );
}

#[test]
fn windows_have_the_largest_unit_that_divides_them() {
    let cases = [
        (300_000, "5m"),
        (86_400_000, "1d"),
        (21_600_000, "6h"),
        (90_000, "90s"),
        (1500, "1500ms"),
        (0, "0ms"),
    ];
    for (milliseconds, shown) in cases {
        assert_eq!(window(Duration::from_millis(milliseconds)), shown);
    }
}

#[test]
fn a_link_carries_its_variables() {
    let links = Links {
        dashboards: Some("https://grafana.internal".to_owned()),
        runbooks: None,
    };
    assert_eq!(
        links
            .board(Board::Requests, &[("service", "a b"), ("environment", "eu")])
            .as_deref(),
        Some("https://grafana.internal/d/opsctl-requests?var-service=a%20b&var-environment=eu")
    );
    assert_eq!(Links::default().board(Board::Requests, &[]), None);
    assert_eq!(links.runbook("SagaStuck"), "docs/runbooks/SagaStuck.md");
}

#[test]
fn a_bound_in_whole_seconds_is_found_however_it_is_written() {
    let selector = Selector::job("orders");
    let fast = |milliseconds| Sli::OtelHttp.fast(&selector, Duration::from_millis(milliseconds));
    assert_eq!(
        fast(1000),
        [r#"http_server_request_duration_seconds_bucket{job="orders", le=~"1(\\.0)?"}"#]
    );
    assert_eq!(
        fast(250),
        [r#"http_server_request_duration_seconds_bucket{job="orders", le="0.25"}"#]
    );
}
