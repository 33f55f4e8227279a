//! The live comparison without servers: from a world in which everything is right, one thing is changed at a time.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::{BTreeMap, BTreeSet};

use alerts::live::{
    ActiveAlert, CHECKS, Delivery, Expected, Hidden, LoadedGroup, LoadedRule, Matcher, Outcome, Presence,
    ReceivedAlert, Receiver, Seen, Silence, Status, Target, Told, Verdict, World, check,
};
use jiff::{SignedDuration, Timestamp};
use lint::SourceFile;

const RULES: &str = r#"
groups:
- name: shop
  interval: 30s
  labels: {team: pay}
  rules:
  - {record: "job:up:sum", expr: "sum by (job) (up)"}
  - alert: Down
    expr: "up{job=\"shop\"} == 0"
    for: 5m
    labels: {severity: page}
    annotations: {summary: "{{ $labels.job }} is down"}
"#;

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn expected() -> Expected {
    let source = SourceFile::new("rules.yaml", RULES);
    let (rules, findings) = alerts::rules::read(&source);
    assert!(findings.is_empty(), "{findings:?}");
    Expected {
        rules: vec![(source, rules)],
        receivers: vec!["pay".to_owned()],
    }
}

fn matcher(name: &str, value: &str) -> Matcher {
    Matcher {
        name: name.to_owned(),
        value: value.to_owned(),
        is_regex: true,
        is_equal: true,
    }
}

/// Everything is right: one silence that concerns others, and nothing fires.
fn told() -> Told {
    let record = LoadedRule {
        r#type: "recording".to_owned(),
        name: "job:up:sum".to_owned(),
        query: "sum by (job) (up)".to_owned(),
        labels: labels(&[("team", "pay")]),
        health: "ok".to_owned(),
        ..LoadedRule::default()
    };
    let alert = LoadedRule {
        r#type: "alerting".to_owned(),
        name: "Down".to_owned(),
        query: "up{job=\"shop\"} == 0".to_owned(),
        duration: 300.0,
        labels: labels(&[("severity", "page"), ("team", "pay")]),
        annotations: labels(&[("summary", "{{ $labels.job }} is down")]),
        health: "ok".to_owned(),
        ..LoadedRule::default()
    };
    let group = LoadedGroup {
        name: "shop".to_owned(),
        interval: 30.0,
        evaluation_time: 0.01,
        last_evaluation: Some(now() - SignedDuration::from_secs(20)),
        rules: vec![record, alert],
        ..LoadedGroup::default()
    };
    let target = Target {
        labels: labels(&[("job", "shop"), ("instance", "a")]),
        health: "up".to_owned(),
        ..Target::default()
    };
    Told {
        rules: Seen::Told(vec![group]),
        targets: Seen::Told(vec![target]),
        active: Seen::Told(Vec::new()),
        alertmanagers: Seen::Told(vec!["http://a/api/v2/alerts".to_owned()]),
        series: Seen::Told(Presence::default()),
        receivers: Seen::Told(vec!["pay".to_owned()]),
        deliveries: Seen::Told(vec![Delivery::default()]),
        alerts: Seen::Told(Vec::new()),
        silences: Seen::Told(vec![silence("Other")]),
    }
}

fn silence(alertname: &str) -> Silence {
    let mut silence = Silence {
        id: "1".to_owned(),
        matchers: vec![matcher("alertname", alertname)],
        ends_at: Some(now() + SignedDuration::from_hours(1)),
        created_by: "sam".to_owned(),
        comment: "known".to_owned(),
        ..Silence::default()
    };
    "active".clone_into(&mut silence.status.state);
    silence
}

fn look(change: fn(&mut Told)) -> World {
    let mut told = told();
    change(&mut told);
    World {
        now: now(),
        prometheus: "http://prometheus".to_owned(),
        alertmanager: Some("http://alertmanager".to_owned()),
        told,
    }
}

fn group(told: &mut Told) -> &mut LoadedGroup {
    let Seen::Told(groups) = &mut told.rules else {
        panic!("there are rules")
    };
    &mut groups[0]
}

fn rule(told: &mut Told) -> &mut LoadedRule {
    &mut group(told).rules[1]
}

fn first_silence(told: &mut Told) -> &mut Silence {
    let Seen::Told(silences) = &mut told.silences else {
        panic!("there are silences")
    };
    &mut silences[0]
}

fn presence(empty: &str, unknown: &str) -> Seen<Presence> {
    let set = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    Seen::Told(Presence {
        empty: set(empty),
        unknown: set(unknown),
        left_out: 0,
    })
}

fn silent<T>(unreachable: bool) -> Seen<T> {
    Seen::Silent {
        why: "no answer".to_owned(),
        unreachable,
    }
}

fn sent(requests: u64, failed: u64) -> Seen<Vec<Delivery>> {
    Seen::Told(vec![Delivery {
        integration: "webhook".to_owned(),
        receiver: None,
        requests,
        failed,
    }])
}

type Row = (&'static str, fn(&mut Told), &'static [&'static str], Verdict);

const ROWS: &[Row] = &[
    ("nothing", |_| {}, &[], Verdict::Good),
    // Rules.
    (
        "no group",
        |told| told.rules = Seen::Told(Vec::new()),
        &["rules-not-loaded"],
        Verdict::Bad,
    ),
    (
        "no rule",
        |told| drop(group(told).rules.pop()),
        &["rules-not-loaded"],
        Verdict::Bad,
    ),
    (
        "another rule",
        |told| "Up".clone_into(&mut rule(told).name),
        &["rule-unknown", "rules-not-loaded"],
        Verdict::Bad,
    ),
    (
        "more rules",
        |told| {
            let more = rule(told).clone();
            group(told).rules.push(more);
        },
        &["rule-unknown"],
        Verdict::Good,
    ),
    (
        "threshold",
        |told| "up{job=\"shop\"} == 1".clone_into(&mut rule(told).query),
        &["rule-differs"],
        Verdict::Bad,
    ),
    (
        "layout",
        |told| "up{job='shop'}==0".clone_into(&mut rule(told).query),
        &[],
        Verdict::Good,
    ),
    (
        "for",
        |told| rule(told).duration = 301.0,
        &["rule-differs"],
        Verdict::Bad,
    ),
    (
        "label",
        |told| drop(rule(told).labels.remove("team")),
        &["rule-differs"],
        Verdict::Bad,
    ),
    (
        "annotation",
        |told| drop(rule(told).annotations.insert("x".to_owned(), "y".to_owned())),
        &["rule-differs"],
        Verdict::Bad,
    ),
    (
        "interval",
        |told| group(told).interval = 60.0,
        &["rule-differs"],
        Verdict::Bad,
    ),
    (
        "another's group",
        |told| {
            let mut other = group(told).clone();
            "other".clone_into(&mut other.name);
            let Seen::Told(all) = &mut told.rules else { return };
            all.push(other);
        },
        &[],
        Verdict::Good,
    ),
    (
        "a namesake",
        |told| {
            let other = LoadedGroup {
                name: "shop".to_owned(),
                ..LoadedGroup::default()
            };
            let Seen::Told(all) = &mut told.rules else { return };
            all.insert(0, other);
        },
        &[],
        Verdict::Good,
    ),
    // Evaluation.
    (
        "health",
        |told| "err".clone_into(&mut rule(told).health),
        &["rule-fails"],
        Verdict::Bad,
    ),
    (
        "late",
        |told| group(told).last_evaluation = Some(now() - SignedDuration::from_secs(91)),
        &["evaluation-late"],
        Verdict::Bad,
    ),
    (
        "almost late",
        |told| group(told).last_evaluation = Some(now() - SignedDuration::from_secs(89)),
        &[],
        Verdict::Good,
    ),
    (
        "slow",
        |told| group(told).evaluation_time = 16.0,
        &["evaluation-slow"],
        Verdict::Good,
    ),
    (
        "too slow",
        |told| group(told).evaluation_time = 31.0,
        &["evaluation-slow"],
        Verdict::Bad,
    ),
    (
        "not slow",
        |told| group(told).evaluation_time = 15.0,
        &[],
        Verdict::Good,
    ),
    (
        "never",
        |told| group(told).last_evaluation = None,
        &["never-evaluated"],
        Verdict::Inconclusive,
    ),
    // What rules look at.
    (
        "down",
        |told| {
            let Seen::Told(all) = &mut told.targets else { return };
            "down".clone_into(&mut all[0].health);
        },
        &["target-down"],
        Verdict::Bad,
    ),
    (
        "not scraped yet",
        |told| {
            let Seen::Told(all) = &mut told.targets else { return };
            "unknown".clone_into(&mut all[0].health);
        },
        &[],
        Verdict::Inconclusive,
    ),
    (
        "no targets",
        |told| told.targets = Seen::Told(Vec::new()),
        &["no-targets"],
        Verdict::Bad,
    ),
    (
        "no metric",
        |told| told.series = presence("up up{job=\"shop\"}", "up"),
        &["metric-missing"],
        Verdict::Bad,
    ),
    (
        "no series",
        |told| told.series = presence("up{job=\"shop\"}", ""),
        &["series-missing"],
        Verdict::Good,
    ),
    (
        "no series of others",
        |told| told.series = presence("down", "down"),
        &[],
        Verdict::Good,
    ),
    // Delivery.
    (
        "no Alertmanager",
        |told| told.alertmanagers = Seen::Told(Vec::new()),
        &["no-alertmanager"],
        Verdict::Bad,
    ),
    (
        "no receiver",
        |told| told.receivers = Seen::Told(vec!["others".to_owned()]),
        &["receiver-missing"],
        Verdict::Bad,
    ),
    (
        "nothing comes through",
        |told| told.deliveries = sent(3, 3),
        &["receiver-unreachable"],
        Verdict::Bad,
    ),
    (
        "some comes through",
        |told| told.deliveries = sent(3, 2),
        &["receiver-fails"],
        Verdict::Good,
    ),
    (
        "all comes through",
        |told| told.deliveries = sent(3, 0),
        &[],
        Verdict::Good,
    ),
    (
        "no metrics",
        |told| told.deliveries = silent(true),
        &["no-answer"],
        Verdict::Unreachable,
    ),
    (
        "more receivers",
        |told| told.receivers = Seen::Told(vec!["others".to_owned(), "pay".to_owned()]),
        &[],
        Verdict::Good,
    ),
    // Silences.
    (
        "silenced",
        |told| *first_silence(told) = silence("Do.*"),
        &["silence-hides"],
        Verdict::Good,
    ),
    (
        "silenced forever",
        |told| {
            *first_silence(told) = silence("Down");
            first_silence(told).ends_at = Some(now() + SignedDuration::from_hours(24 * 365));
        },
        &["silence-hides"],
        Verdict::Bad,
    ),
    (
        "part silenced",
        |told| {
            *first_silence(told) = silence("Down");
            first_silence(told).matchers.push(matcher("pod", "a"));
        },
        &["silence-hides"],
        Verdict::Good,
    ),
    (
        "perhaps silenced",
        |told| first_silence(told).matchers = vec![matcher("pod", "a")],
        &["silence-hides"],
        Verdict::Good,
    ),
    (
        "another team's",
        |told| {
            *first_silence(told) = silence("Down");
            first_silence(told).matchers.push(matcher("team", "shop"));
        },
        &[],
        Verdict::Good,
    ),
    (
        "over",
        |told| {
            *first_silence(told) = silence("Down");
            "expired".clone_into(&mut first_silence(told).status.state);
        },
        &[],
        Verdict::Good,
    ),
    (
        "anonymous",
        |told| " ".clone_into(&mut first_silence(told).created_by),
        &["silence-unexplained"],
        Verdict::Good,
    ),
    (
        "unexplained",
        |told| first_silence(told).comment.clear(),
        &["silence-unexplained"],
        Verdict::Good,
    ),
    // What fires.
    (
        "fires",
        |told| told.active = Seen::Told(vec![active("firing")]),
        &["alert-fires"],
        Verdict::Good,
    ),
    (
        "pending",
        |told| told.active = Seen::Told(vec![active("pending")]),
        &[],
        Verdict::Good,
    ),
    // Answers.
    (
        "nobody there",
        |told| told.rules = silent(true),
        &["no-answer"],
        Verdict::Unreachable,
    ),
    (
        "no sense",
        |told| told.rules = silent(false),
        &["no-answer"],
        Verdict::Inconclusive,
    ),
    (
        "nobody there, and wrong",
        |told| {
            told.active = silent(true);
            told.targets = Seen::Told(Vec::new());
        },
        &["no-answer", "no-targets"],
        Verdict::Bad,
    ),
];

fn active(state: &str) -> ActiveAlert {
    ActiveAlert {
        labels: labels(&[
            ("alertname", "Down"),
            ("job", "shop"),
            ("severity", "page"),
            ("team", "pay"),
        ]),
        annotations: labels(&[
            ("summary", "shop is down"),
            ("runbook_url", "https://runbooks.example/down"),
        ]),
        state: state.to_owned(),
        active_at: Some(now() - SignedDuration::from_mins(10)),
        value: "0".to_owned(),
    }
}

#[test]
fn each_check_finds_what_it_is_for_and_nothing_near_it() {
    let mut seen = BTreeSet::new();
    for (name, change, wanted, verdict) in ROWS {
        let Outcome { verdict: got, report } = check(&look(*change), &expected());
        let found: BTreeSet<&str> = report.findings.iter().map(|finding| finding.check.name).collect();
        assert_eq!(
            found,
            wanted.iter().copied().collect(),
            "{name}: {:#?}",
            report.findings
        );
        assert_eq!(got, *verdict, "{name}");
        seen.extend(found);
    }
    let all: BTreeSet<&str> = CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(seen, all, "each check has a row");
}

fn received(hide: fn(&mut ReceivedAlert)) -> ReceivedAlert {
    let mut alert = ReceivedAlert {
        labels: active("firing").labels,
        starts_at: Some(now() - SignedDuration::from_mins(5)),
        fingerprint: "f1".to_owned(),
        receivers: vec![Receiver { name: "pay".to_owned() }],
        ..ReceivedAlert::default()
    };
    alert.labels.insert("cluster".to_owned(), "eu".to_owned());
    hide(&mut alert);
    alert
}

#[test]
fn what_fires_is_joined_with_what_alertmanager_does_with_it() {
    let mut told = told();
    told.active = Seen::Told(vec![active("pending"), active("firing")]);
    let other = ReceivedAlert {
        labels: labels(&[("alertname", "ClusterDown"), ("severity", "critical")]),
        fingerprint: "f2".to_owned(),
        ..ReceivedAlert::default()
    };
    let hidden = received(|alert| {
        alert.status.inhibited_by = vec!["f2".to_owned()];
        alert.status.silenced_by = vec!["1".to_owned()];
        alert.status.muted_by = vec!["nights".to_owned()];
    });
    told.alerts = Seen::Told(vec![hidden, other]);
    let mut world = look(|_| {});
    world.told = told;
    let status = Status::of(&world, &[]);
    let names: Vec<_> = status
        .alerts
        .iter()
        .map(|alert| (alert.name.as_str(), alert.state.as_str()))
        .collect();
    assert_eq!(
        names,
        [("ClusterDown", "firing"), ("Down", "firing"), ("Down", "pending")]
    );
    let down = &status.alerts[1];
    assert_eq!(
        down.since,
        Some(now() - SignedDuration::from_mins(5)),
        "when it fired, not when it began"
    );
    assert_eq!(
        (down.owner.as_deref(), down.severity.as_deref()),
        (Some("pay"), Some("page"))
    );
    assert_eq!(down.runbook.as_deref(), Some("https://runbooks.example/down"));
    let [
        Hidden::Silence { author, .. },
        Hidden::Alert { name },
        Hidden::Interval { name: interval },
    ] = down.hidden.as_slice()
    else {
        panic!("{down:?}")
    };
    assert_eq!(
        (author.as_str(), name.as_str(), interval.as_str()),
        ("sam", "ClusterDown", "nights")
    );
    assert_eq!(status.verdict(&world), Verdict::Bad);

    // Prometheus fires it and Alertmanager has never heard of it.
    world.told.alerts = Seen::Told(Vec::new());
    let status = Status::of(&world, &[]);
    assert!(status.alerts[0].lost && !status.alerts[1].lost, "{status:?}");
    // Whether it has is not known.
    world.told.alerts = silent(true);
    let status = Status::of(&world, &[]);
    assert!(!status.alerts[0].lost && !status.unknown.is_empty(), "{status:?}");
    assert_eq!(status.verdict(&world), Verdict::Inconclusive);
}
