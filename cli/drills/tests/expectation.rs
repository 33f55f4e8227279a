//! What follows from what Prometheus and Alertmanager say, look by look: a table of courses that an alert can take, and what
//! holds of any course.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use opsctl_drills::expectation::{AlertReport, Expected, Judge, Look, Predicted, Proof};
use opsctl_platform::prometheus::{ActiveAlert, AlertState, Received};
use proptest::prelude::*;

/// When, what Prometheus says (`p`ending, `f`iring, blank: nothing, `-`: no answer), and what Alertmanager does (`a`ctive,
/// `s`uppressed, the same). The fault is made at 0 s, and seen at 1 s.
type Course<'a> = &'a [(f64, &'a str, &'a str)];

fn time(seconds: f64) -> Timestamp {
    let start = Timestamp::from_second(1_700_000_000).unwrap();
    start.checked_add(SignedDuration::from_secs_f64(seconds)).unwrap()
}

fn labels(alert: &str) -> BTreeMap<String, String> {
    [("alertname", alert), ("service", "shop")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn expected(group_wait: f64) -> Expected {
    Expected {
        alert: "Down".to_owned(),
        labels: BTreeMap::from([("service".to_owned(), "shop".to_owned())]),
        within: Duration::from_secs(30),
        resolved_within: Duration::from_secs(20),
        predicted: Predicted {
            scrape_seconds: 1.0,
            evaluation_seconds: 1.0,
            group_wait_seconds: group_wait,
            group_wait_most_seconds: group_wait,
            ..Predicted::default()
        },
    }
}

fn alerts(word: &str, name: &str) -> Option<Vec<ActiveAlert>> {
    let state = match word {
        "-" => return None,
        "p" => AlertState::Pending,
        "f" => AlertState::Firing,
        _ => return Some(Vec::new()),
    };
    Some(vec![ActiveAlert {
        labels: labels(name),
        state,
        active_at: None,
        value: Some(1.0),
    }])
}

fn received(word: &str) -> Option<Vec<Received>> {
    let silenced_by = match word {
        "-" => return None,
        "a" => Vec::new(),
        "s" => vec!["quiet".to_owned()],
        _ => return Some(Vec::new()),
    };
    Some(vec![Received {
        labels: labels("Down"),
        starts_at: None,
        silenced_by,
        inhibited_by: Vec::new(),
        muted_by: Vec::new(),
        receivers: vec!["pay".to_owned()],
    }])
}

/// The judge after a course.
fn judged(group_wait: f64, course: Course<'_>) -> Judge {
    let mut judge = Judge::new(vec![expected(group_wait)]);
    let mut armed = false;
    for (at, prometheus, alertmanager) in course {
        if *at >= 0.0 && !armed {
            judge.arm();
            armed = true;
        }
        judge.see(&Look {
            at: time(*at),
            alerts: alerts(prometheus, "Down"),
            received: received(alertmanager),
        });
    }
    judge
}

fn report(group_wait: f64, over: f64, course: Course<'_>) -> AlertReport {
    let judge = judged(group_wait, course);
    judge.reports(Some(time(1.0)), Some(time(over))).remove(0)
}

#[test]
fn each_course_of_an_alert_has_its_verdict() {
    let quiet = (-1.0, "", "");
    let cases: [(&str, Proof, Course<'_>); 14] = [
        (
            "it fires, is told, and is resolved",
            Proof::Proved,
            &[quiet, (2.0, "p", ""), (4.0, "f", ""), (5.0, "f", "a"), (12.0, "", "")],
        ),
        (
            "without `for` it fires at once",
            Proof::Proved,
            &[quiet, (2.0, "f", "a"), (12.0, "", "")],
        ),
        (
            "a short silence of Prometheus hides nothing",
            Proof::Proved,
            &[quiet, (2.0, "-", ""), (4.0, "f", "a"), (8.0, "-", "-"), (12.0, "", "")],
        ),
        (
            "it comes and goes and comes again",
            Proof::Proved,
            &[quiet, (2.0, "f", "a"), (6.0, "", ""), (9.0, "f", "a"), (14.0, "", "")],
        ),
        (
            "it is told too late",
            Proof::Late,
            &[
                quiet,
                (10.0, "p", ""),
                (20.0, "p", ""),
                (29.0, "p", ""),
                (30.5, "f", "a"),
                (33.0, "", ""),
            ],
        ),
        (
            "it is pending only",
            Proof::NotFired,
            &[quiet, (2.0, "p", ""), (9.0, "p", ""), (12.0, "", "")],
        ),
        (
            "nothing comes of it",
            Proof::NotFired,
            &[quiet, (2.0, "", ""), (9.0, "", "")],
        ),
        (
            "nobody was told",
            Proof::NotReceived,
            &[quiet, (2.0, "f", ""), (9.0, "f", ""), (12.0, "", "")],
        ),
        (
            "it is over before its group was waited for",
            Proof::NotReceived,
            &[quiet, (2.0, "f", "a"), (2.5, "", ""), (12.0, "", "")],
        ),
        (
            "a silence keeps it back",
            Proof::Suppressed,
            &[quiet, (2.0, "f", "s"), (9.0, "f", "s"), (12.0, "", "")],
        ),
        (
            "it stays",
            Proof::NotResolved,
            &[
                quiet,
                (2.0, "f", "a"),
                (9.0, "f", "a"),
                (18.0, "f", "a"),
                (27.0, "f", "a"),
                (31.0, "f", "a"),
            ],
        ),
        (
            "it was there before",
            Proof::FiredBefore,
            &[(-1.0, "f", "a"), (2.0, "f", "a"), (12.0, "", "")],
        ),
        (
            "it was about to be",
            Proof::FiredBefore,
            &[(-1.0, "p", ""), (2.0, "f", "a"), (12.0, "", "")],
        ),
        (
            "nobody could see it",
            Proof::Inconclusive,
            &[quiet, (2.0, "p", ""), (6.0, "-", ""), (13.0, "-", ""), (14.0, "", "")],
        ),
    ];
    for (what, proof, course) in cases {
        let report = report(1.0, 10.0, course);
        assert_eq!(report.proof, proof, "{what}: {report:?}");
        assert_eq!(report.check().met, proof.met(), "{what}");
    }
    let lost = report(1.0, 10.0, &[quiet, (2.0, "f", "a"), (12.0, "-", ""), (14.0, "-", "")]);
    assert_eq!(
        lost.proof,
        Proof::Inconclusive,
        "whether it was resolved is not known: {lost:?}"
    );
    let deaf = report(1.0, 10.0, &[quiet, (2.0, "f", "-"), (8.0, "f", "-"), (14.0, "", "-")]);
    assert_eq!(
        deaf.proof,
        Proof::Inconclusive,
        "whether it was received is not known: {deaf:?}"
    );
}

#[test]
fn moments_are_counted_from_the_first_effect() {
    let course: Course<'_> = &[
        (-1.0, "", ""),
        (3.0, "p", ""),
        (4.0, "f", ""),
        (5.5, "f", "a"),
        (12.0, "", "a"),
        (13.0, "", ""),
    ];
    let report = report(2.0, 10.0, course);
    let moments = [
        report.pending_seconds,
        report.firing_seconds,
        report.received_seconds,
        report.notified_seconds,
        report.resolved_seconds,
        report.cleared_seconds,
    ];
    assert_eq!(moments, [2.0, 3.0, 4.5, 6.5, 11.0, 12.0].map(Some));
    assert_eq!(report.receivers, ["pay"]);
    // A scrape, an evaluation, and the longest time between two looks.
    assert!(
        (report.resolution_seconds - (1.0 + 1.0 + 6.5)).abs() < 1e-9,
        "{report:?}"
    );
}

#[test]
fn what_a_server_says_counts_if_it_lies_between_two_looks() {
    for (said, counted) in [(2.5, 1.5), (0.5, 3.0), (9.0, 3.0)] {
        let mut judge = judged(1.0, &[(-1.0, "", ""), (0.0, "", ""), (2.0, "", "")]);
        let mut look = Look {
            at: time(4.0),
            alerts: alerts("f", "Down"),
            received: received("a"),
        };
        look.alerts.as_mut().unwrap()[0].active_at = Some(time(said));
        look.received.as_mut().unwrap()[0].starts_at = Some(time(said));
        judge.see(&look);
        let report = judge.reports(Some(time(1.0)), None).remove(0);
        assert_eq!(
            (report.pending_seconds, report.firing_seconds),
            (Some(counted), Some(counted)),
            "{said}"
        );
    }
}

#[test]
fn what_was_not_expected_is_listed_unless_it_was_there_before() {
    let mut judge = Judge::new(vec![expected(1.0)]);
    let both = |word: &str| {
        let mut all = alerts(word, "Other").unwrap();
        all.extend(alerts("f", "Watchdog").unwrap());
        Some(all)
    };
    let mut see = |at, alerts| {
        judge.see(&Look {
            at: time(at),
            alerts,
            received: received(""),
        });
        if at < 0.0 {
            judge.arm();
        }
    };
    see(-1.0, alerts("f", "Watchdog"));
    see(2.0, both("p"));
    see(3.0, both("f"));
    see(4.0, both("f"));
    let unexpected = judge.unexpected(Some(time(1.0)));
    assert_eq!(unexpected.len(), 1, "{unexpected:?}");
    assert_eq!(
        unexpected[0].text(),
        "Other{service=\"shop\"} fired after 2.0 s and was not expected"
    );
}

#[test]
fn the_fault_stays_until_somebody_is_told_or_it_is_too_late() {
    let waits = |course: Course<'_>, now: f64| judged(2.0, course).waits(time(1.0), time(now));
    assert!(waits(&[(-1.0, "", ""), (3.0, "p", "")], 4.0));
    assert!(
        waits(&[(-1.0, "", ""), (3.0, "f", "a")], 4.5),
        "its group is waited for"
    );
    assert!(!waits(&[(-1.0, "", ""), (3.0, "f", "a")], 5.5));
    assert!(!waits(&[(-1.0, "", ""), (3.0, "f", "s")], 4.0), "nobody will be told");
    assert!(!waits(&[(-1.0, "", ""), (30.0, "p", "")], 31.5), "too late");
    assert!(
        !waits(&[(-1.0, "", ""), (3.0, "-", ""), (14.0, "-", "")], 14.0),
        "nobody would see it"
    );
}

#[test]
fn before_the_fault_everybody_must_answer_and_nothing_may_fire() {
    let trouble = |course: Course<'_>| judged(1.0, course).trouble();
    assert_eq!(trouble(&[(-1.0, "", "")]), None);
    for (course, says) in [
        (&[(-1.0, "p", "")], "is pending already"),
        (&[(-1.0, "", "a")], "is firing already"),
        (&[(-1.0, "-", "")], "Prometheus does not answer"),
        (&[(-1.0, "", "-")], "Alertmanager does not answer"),
    ] {
        let told = trouble(course).unwrap();
        assert!(told.contains(says), "{told}");
    }
}

fn words() -> impl Strategy<Value = (&'static str, &'static str)> {
    (
        prop::sample::select(vec!["", "p", "f", "f", "-"]),
        prop::sample::select(vec!["", "a", "a", "s", "-"]),
    )
}

proptest! {
    #[test]
    fn whatever_is_seen_moments_come_in_order_and_a_proof_has_its_grounds(
        looks in prop::collection::vec(words(), 1..40),
        over in 0_u32..40,
        group_wait in 0_u32..5,
    ) {
        let course: Vec<_> = std::iter::once((-1.0, "", ""))
            .chain(looks.iter().enumerate().map(|(at, (prometheus, alertmanager))| (at as f64, *prometheus, *alertmanager)))
            .collect();
        let (group_wait, over) = (f64::from(group_wait), f64::from(over));
        let judge = judged(group_wait, &course);
        let seen = judge.reports(Some(time(0.0)), Some(time(over))).remove(0);
        let moments: Vec<f64> = [seen.pending_seconds, seen.firing_seconds, seen.received_seconds, seen.notified_seconds]
            .into_iter()
            .flatten()
            .collect();
        prop_assert!(moments.is_sorted(), "{seen:?}");
        if seen.proof == Proof::Proved {
            let some = |wanted: (&str, &str)| looks.iter().any(|(p, a)| (wanted.0.is_empty() || *p == wanted.0) && (wanted.1.is_empty() || *a == wanted.1));
            prop_assert!(some(("f", "")) && some(("", "a")), "{seen:?}");
            prop_assert!(seen.notified_seconds.is_some_and(|at| at <= 30.0) && seen.resolved_seconds.is_some());
            prop_assert_ne!(looks.last().map(|(p, _)| *p), Some("f"));
        }
        // The course that nobody sees proves nothing, and neither does one that has begun before.
        let blind: Vec<_> = course.iter().map(|(at, _, _)| (*at, "-", "-")).collect();
        prop_assert_eq!(report(group_wait, over, &blind).proof, Proof::Inconclusive);
        let early: Vec<_> = std::iter::once((-2.0, "f", "")).chain(course.iter().copied()).collect();
        prop_assert_eq!(report(group_wait, over, &early).proof, Proof::FiredBefore);
        // Without an effect nothing follows.
        let none = judge.reports(None, Some(time(over))).remove(0);
        prop_assert_eq!(none.proof, Proof::Inconclusive);
    }
}
