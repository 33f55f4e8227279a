//! What is refused, and with which words; what is left out, with a note.

use std::time::Duration;

use alerts::render::{RenderError, Settings, render};
use manifest::landscape::{Landscape, Latency, Links, Ratio, Sli, Slo};

use crate::landscapes::{cluster, service};

fn with(change: impl FnOnce(&mut Landscape)) -> Result<Vec<String>, RenderError> {
    let mut landscape = cluster();
    change(&mut landscape);
    render(&landscape, &Settings::default()).map(|rendered| rendered.notes)
}

fn refused(change: impl FnOnce(&mut Landscape)) -> RenderError {
    with(change).unwrap_err()
}

#[test]
fn an_objective_whose_alerts_cannot_fire_is_refused() {
    let error = refused(|shop| shop.services[0].availability = Ratio::new(0.5));
    assert_eq!(
        error.to_string(),
        "service `checkout`: the availability objective of 50% leaves so much budget that it can burn at most 2.0 times as \
         fast as it may; the slowest alert that pages needs 6 times"
    );
    assert!(matches!(
        error,
        RenderError::NeverFires {
            slo: Slo::Availability,
            ..
        }
    ));
    let error = refused(|shop| {
        shop.services[0].latency = Some(Latency {
            quantile: Ratio::new(0.8).unwrap(),
            bound: Duration::from_secs(1),
        });
    });
    assert!(
        matches!(error, RenderError::NeverFires { slo: Slo::Latency, .. }),
        "{error}"
    );
}

#[test]
fn a_window_whose_alert_cannot_fire_is_left_out_with_a_note() {
    let notes = with(|shop| shop.services[0].availability = Ratio::new(0.93)).unwrap();
    let note = "service `checkout`: no availability alert over 1h: 14.4 times the budget of 7% would be more than all requests";
    assert!(notes.iter().any(|found| found == note), "{notes:?}");
    let landscape = {
        let mut landscape = cluster();
        landscape.services[0].availability = Ratio::new(0.93);
        landscape
    };
    let rendered = render(&landscape, &Settings::default()).unwrap();
    let windows: Vec<&str> = rendered.rules[0]
        .alerts()
        .filter(|alert| alert.name == "AvailabilityBudgetBurn")
        .filter_map(|alert| alert.labels.iter().find(|(label, _)| label == "window"))
        .map(|(_, window)| window.as_str())
        .collect();
    assert_eq!(windows, ["6h", "1d", "3d"]);
}

#[test]
fn an_objective_of_everything_has_no_budget() {
    let error = refused(|shop| shop.services[0].availability = Some(Ratio::ONE));
    assert_eq!(
        error.to_string(),
        "service `checkout`: 100% is no objective of availability: it has no budget, the first bad request breaks it"
    );
}

#[test]
fn a_latency_objective_between_two_bounds_is_refused_with_the_nearest() {
    let of = |milliseconds| {
        refused(|shop| {
            shop.services[0].latency = Some(Latency {
                quantile: Ratio::new(0.95).unwrap(),
                bound: Duration::from_millis(milliseconds),
            });
        })
        .to_string()
    };
    let cases = [
        (400, "400ms: it is no bucket's bound; the nearest are 0.3 s and 0.5 s"),
        (1, "1ms: it is no bucket's bound; the nearest are 0.005 s"),
        (60_000, "1m: it is no bucket's bound; the nearest are 10 s"),
    ];
    for (milliseconds, end) in cases {
        let told = of(milliseconds);
        assert_eq!(
            told,
            format!("service `checkout`: nothing counts requests that take longer than {end}")
        );
    }
    let own = |slow: Option<&str>| {
        with(|shop| {
            let custom = Sli::Custom {
                total: "a_total".to_owned(),
                errors: "b_total".to_owned(),
                slow: slow.map(str::to_owned),
            };
            shop.services[0] = service("checkout", custom);
        })
    };
    assert!(own(Some("slow_total")).is_ok());
    assert!(matches!(own(None), Err(RenderError::NoBucket { below: None, .. })));
}

#[test]
fn names_that_mean_something_else_elsewhere_are_refused() {
    for name in ["", "a b", "{{ .Values }}", "../etc", "a\nb", "-x", "a\"b", "ä"] {
        let renamed = |shop: &mut Landscape| shop.services[0].name = name.to_owned();
        assert!(
            matches!(refused(renamed), RenderError::Name { what: "service", .. }),
            "{name:?}"
        );
        let renamed = |shop: &mut Landscape| shop.environment = name.to_owned();
        assert!(
            matches!(
                refused(renamed),
                RenderError::Name {
                    what: "environment",
                    ..
                }
            ),
            "{name:?}"
        );
        let renamed = |shop: &mut Landscape| shop.teams[0].name = name.to_owned();
        assert!(
            matches!(refused(renamed), RenderError::Name { what: "team", .. }),
            "{name:?}"
        );
    }
    let error = refused(|shop| shop.services[1].name = "Checkout".to_owned());
    assert_eq!(error.to_string(), "service `Checkout` is there twice");
}

#[test]
fn links_and_queries_cannot_carry_templates_or_functions() {
    for address in [
        "grafana",
        "https://x/{{ $labels }}",
        "https://a b",
        "javascript:alert(1)",
    ] {
        let links = Links {
            dashboards: Some(address.to_owned()),
            runbooks: None,
        };
        assert!(
            matches!(refused(|shop| shop.links = links), RenderError::Address { .. }),
            "{address}"
        );
    }
    let asked = |total: &str| {
        with(|shop| {
            shop.services[3].sli = Sli::Custom {
                total: total.to_owned(),
                errors: "b_total".to_owned(),
                slow: None,
            };
        })
    };
    for selector in [
        "a_total",
        "a_total{x=\"}[5m])\"}",
        "{__name__=~\"a|b\"}",
        "a:b:c{ }",
        " a",
    ] {
        assert!(asked(selector).is_ok(), "{selector}");
    }
    for query in [
        "",
        "rate(a[5m])",
        "a[5m]",
        "a{x=\"1\"} or b{x=\"2\"}",
        "a{x=\"}",
        "1a",
        "a # b",
        "a{x=\"1\"}[5m]",
        "a offset 1d",
        "(a)",
        "{}",
        "a{x=~\"[\"}",
    ] {
        assert!(matches!(asked(query), Err(RenderError::Query { .. })), "{query}");
    }
}

#[test]
fn what_is_left_out_is_said() {
    let notes = with(|_| {}).unwrap();
    for start in [
        "service `queue`: no SlowRequests",
        "service `batch`: no objective of availability",
        "datastore `scratch`: no BackupTooOld",
        "datastore `uploads`: no RestoreProofTooOld",
        "service `queue`: no tests",
    ] {
        assert!(notes.iter().any(|note| note.starts_with(start)), "{start}: {notes:#?}");
    }
}
