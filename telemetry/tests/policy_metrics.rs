//! Every figure of every policy through a real scrape, held against the list of names that were promised; and what a
//! policy's events become in the log and on spans.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::future::pending;
use std::time::Duration;

use catalogue::Values;
use resilience::{
    AdaptiveLimit, AdaptiveSettings, Breaker, Budget, Bulkhead, Consumer, HedgeSettings, KeyedRateLimit,
    KeyedRateLimitSettings, Pipeline, Priority, RateLimitSettings, Retry, ShedSettings, Shedder, StaleCache,
    StaleSettings, ThrottleSettings,
};
use telemetry::{Telemetry, catalogue};
use tracing::Instrument as _;

type Label = (&'static str, &'static [&'static str]);

const STATES: &[&str] = &["closed", "open", "half_open", "forced_open", "forced_closed"];
const NAME: Label = ("name", &[]);

/// What is promised: metric, labels, and the values of those that have a list.
const PROMISED: &[(&str, &[Label])] = &[
    ("circuit_breaker_state", &[NAME, ("state", STATES)]),
    (
        "circuit_breaker_transitions_total",
        &[NAME, ("from", STATES), ("to", STATES)],
    ),
    (
        "circuit_breaker_calls_total",
        &[
            NAME,
            (
                "outcome",
                &[
                    "success",
                    "failure",
                    "slow",
                    "ignored",
                    "cancelled",
                    "stale",
                    "rejected",
                    "spared",
                ],
            ),
        ],
    ),
    ("circuit_breaker_failure_ratio", &[NAME]),
    (
        "retry_attempts_total",
        &[NAME, ("reason", &["not_sent", "transient", "timeout", "overload"])],
    ),
    ("retry_budget_exhausted_total", &[NAME]),
    ("retry_budget_ratio", &[NAME]),
    ("retry_budget_left", &[NAME]),
    ("timeouts_total", &[NAME, ("scope", &["attempt", "total"])]),
    ("bulkhead_in_flight", &[NAME]),
    ("bulkhead_queued", &[NAME]),
    ("bulkhead_limit", &[NAME]),
    ("bulkhead_rejected_total", &[NAME]),
    ("concurrency_limit", &[NAME]),
    ("concurrency_limit_in_flight", &[NAME]),
    ("concurrency_limit_rejected_total", &[NAME]),
    ("rate_limit_rejected_total", &[NAME]),
    ("hedges_total", &[NAME, ("won", &["false", "true"])]),
    (
        "shed_total",
        &[NAME, ("priority", &["critical", "high", "normal", "low"])],
    ),
    (
        "fallback_total",
        &[NAME, ("reason", &["rejected", "timeout", "failure"])],
    ),
    ("throttle_rejected_total", &[NAME]),
];

#[test]
fn the_catalogue_has_what_is_promised() {
    for (name, labels) in PROMISED {
        let metric = catalogue::find(name).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        let listed: Vec<(&str, Vec<&str>)> = metric
            .labels
            .iter()
            .map(|label| match label.values {
                Values::Closed(values) => (label.name, values.to_vec()),
                Values::Bounded => (label.name, Vec::new()),
            })
            .collect();
        let promised: Vec<(&str, Vec<&str>)> = labels.iter().map(|(name, values)| (*name, values.to_vec())).collect();
        assert_eq!(listed, promised, "{name}");
    }
}

/// A policy with every part.
fn backend(telemetry: &Telemetry) -> Pipeline {
    Pipeline::builder("backend")
        .total_timeout(Duration::from_secs(5))
        .attempt_timeout(Duration::from_secs(1))
        .bulkhead(10, 10)
        .retry(Retry::default().max(1).budget(Budget::new(0.0, 0.2)))
        .hedge(HedgeSettings {
            delay: Duration::from_millis(200),
            ..HedgeSettings::default()
        })
        .throttle(ThrottleSettings::default())
        .breaker(Breaker::builder("backend").min_calls(100))
        .rate_limit(RateLimitSettings::default())
        .concurrency_limit(AdaptiveSettings::default())
        .listener(telemetry.policy_events())
        .build()
        .unwrap()
}

/// `GET /metrics` from a server on a socket.
async fn scrape(telemetry: &Telemetry) -> String {
    telemetry::init_tls();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, telemetry.metrics_router::<()>()).into_future());
    let text = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
    let text = text.text().await.unwrap();
    serving.abort();
    text
}

/// The value of a series; its labels as they are written.
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}"))
        .parse()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_policy_with_every_part_exports_every_promised_series_before_the_first_call() {
    let telemetry = Telemetry::test();
    telemetry.watch_policy(&backend(&telemetry));
    let text = scrape(&telemetry).await;
    for (name, labels) in PROMISED {
        // A change of state is there when it has happened; shedding belongs to servers, not to calls.
        if matches!(*name, "circuit_breaker_transitions_total" | "shed_total") {
            continue;
        }
        let values: &[&str] = labels.get(1).map_or(&[""], |(_, values)| values);
        for of_label in values {
            let second = labels.get(1).map(|(label, _)| format!(",{label}=\"{of_label}\""));
            let series = format!("{name}{{name=\"backend\"{}}}", second.unwrap_or_default());
            let value = value(&text, &series);
            let is_set = matches!(
                (*name, *of_label),
                ("circuit_breaker_state", "closed") | ("bulkhead_limit" | "concurrency_limit" | "retry_budget_left", _)
            );
            assert_eq!(value > 0.0, is_set, "{series} is {value}");
        }
    }
    assert!(!text.contains("\"_overflow\""), "{text}");
}

#[tokio::test(start_paused = true)]
async fn calls_show_in_the_scrape() {
    let telemetry = Telemetry::test();
    let policy = backend(&telemetry);
    telemetry.watch_policy(&policy);
    // Fails at once, and again; the budget has two retries in ten seconds.
    let failed = policy
        .call_or_else(|_| async { Err::<u8, _>("down") }, |_| async { Ok(7) })
        .await;
    assert_eq!(failed.unwrap(), 7);
    // Hangs; the attempt beside it hangs too and takes the second retry, so that there is no third.
    assert!(policy.call(|_| pending::<Result<u8, &str>>()).await.is_err());
    let text = scrape(&telemetry).await;
    for (series, wanted) in [
        (r#"circuit_breaker_calls_total{name="backend",outcome="failure"}"#, 4.0),
        (r#"retry_attempts_total{name="backend",reason="transient"}"#, 1.0),
        (r#"retry_attempts_total{name="backend",reason="timeout"}"#, 0.0),
        (r#"retry_budget_exhausted_total{name="backend"}"#, 1.0),
        (r#"retry_budget_ratio{name="backend"}"#, 1.0),
        (r#"retry_budget_left{name="backend"}"#, 0.0),
        (r#"timeouts_total{name="backend",scope="attempt"}"#, 2.0),
        (r#"timeouts_total{name="backend",scope="total"}"#, 0.0),
        (r#"hedges_total{name="backend",won="false"}"#, 1.0),
        (r#"hedges_total{name="backend",won="true"}"#, 0.0),
        (r#"fallback_total{name="backend",reason="failure"}"#, 1.0),
        (r#"circuit_breaker_failure_ratio{name="backend"}"#, 1.0),
    ] {
        let seen = value(&text, series);
        assert!((seen - wanted).abs() < 1e-9, "{series} is {seen}, not {wanted}\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn policies_that_stand_alone_are_watched_by_their_snapshots() {
    let telemetry = Telemetry::test();

    let bulkhead = Bulkhead::new("passwords", 1, 0).unwrap();
    let watched = bulkhead.clone();
    telemetry.watch("passwords", move || watched.snapshot());
    let _place = bulkhead.enter().await.unwrap();
    assert!(bulkhead.enter().await.is_err());

    let tenants = KeyedRateLimitSettings {
        limit: 1,
        ..KeyedRateLimitSettings::default()
    };
    let tenants = KeyedRateLimit::<String>::new("tenants", tenants).unwrap();
    let watched = tenants.clone();
    telemetry.watch("tenants", move || watched.snapshot());
    tenants.try_acquire("ann").unwrap();
    assert!(tenants.try_acquire("ann").is_err());

    let found = AdaptiveSettings {
        initial: 1,
        min: 1,
        ..AdaptiveSettings::default()
    };
    let found = AdaptiveLimit::new("crawler", found).unwrap();
    let watched = found.clone();
    telemetry.watch("crawler", move || watched.snapshot());
    let _sample = found.acquire().unwrap();
    assert!(found.acquire().is_err());

    let front = ShedSettings {
        limit: Some(2),
        ..ShedSettings::default()
    };
    let front = Shedder::new("front", &front).unwrap();
    let watched = front.clone();
    telemetry.watch("front", move || watched.snapshot());
    let _admitted = front.admit(Priority::Critical).unwrap();
    assert!(front.admit(Priority::Low).is_err());

    let prices = StaleCache::<&str, u8>::new("prices", StaleSettings::default()).unwrap();
    let watched = prices.clone();
    telemetry.watch("prices", move || watched.snapshot());
    prices.put("book", 7);
    let plain = Pipeline::builder("plain").build().unwrap();
    let stale = prices.call(&plain, "book", |_| async { Err("down") }).await.unwrap();
    assert!(stale.is_stale());

    let mails = Consumer::new(plain);
    let watched = mails.clone();
    telemetry.watch("mails", move || watched.snapshot());
    drop(mails.handle(1, |_| async { Err("down") }).await);

    let text = scrape(&telemetry).await;
    for (series, wanted) in [
        (r#"bulkhead_in_flight{name="passwords"}"#, 1.0),
        (r#"bulkhead_rejected_total{name="passwords"}"#, 1.0),
        (r#"rate_limit_rejected_total{name="tenants"}"#, 1.0),
        (r#"rate_limit_keys{name="tenants"}"#, 1.0),
        (r#"concurrency_limit{name="crawler"}"#, 1.0),
        (r#"concurrency_limit_in_flight{name="crawler"}"#, 1.0),
        (r#"concurrency_limit_rejected_total{name="crawler"}"#, 1.0),
        (r#"shed_total{name="front",priority="low"}"#, 1.0),
        (r#"shed_total{name="front",priority="critical"}"#, 0.0),
        (r#"shed_limit{name="front"}"#, 2.0),
        (r#"fallback_total{name="prices",reason="failure"}"#, 1.0),
        (r#"stale_entries{name="prices"}"#, 1.0),
        (r#"consumer_messages_total{name="mails",outcome="nacked"}"#, 1.0),
        (r#"consumer_paused{name="mails"}"#, 0.0),
    ] {
        let seen = value(&text, series);
        assert!((seen - wanted).abs() < 1e-9, "{series} is {seen}, not {wanted}\n{text}");
    }
    assert!(!text.contains("ann"), "what a caller is called is no label\n{text}");
}

/// Lines about policies: level, message and the field that says more.
fn told(telemetry: &telemetry::TestTelemetry) -> Vec<(String, String, String)> {
    let word = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let lines = telemetry.lines();
    let lines = lines.iter().filter(|line| line["target"] == "policy");
    lines
        .map(|line| {
            assert_eq!(line["policy"], "backend", "{line}");
            let more = ["to", "reason", "by", "scope", "untold"];
            let more = more.iter().find(|field| !line[**field].is_null()).unwrap();
            (word(&line["level"]), word(&line["message"]), word(&line[*more]))
        })
        .collect()
}

fn lines(wanted: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    wanted
        .iter()
        .map(|(level, message, more)| ((*level).to_owned(), (*message).to_owned(), (*more).to_owned()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn events_are_lines_of_their_level() {
    let telemetry = Telemetry::test();
    let policy = Pipeline::builder("backend")
        .attempt_timeout(Duration::from_secs(1))
        .retry(Retry::default().max(1).budget(Budget::new(0.0, 0.1)))
        .breaker(Breaker::builder("backend").min_calls(4).window(Duration::from_secs(30)))
        .listener(telemetry.policy_events())
        .build()
        .unwrap();
    assert!(policy.call(|_| async { Err::<(), _>(()) }).await.is_err());
    assert!(policy.call(|_| pending::<Result<(), ()>>()).await.is_err());
    assert!(policy.call(|_| async { Err::<(), _>(()) }).await.is_err());
    let refused = policy
        .call_or_else(|_| async { Ok::<_, ()>(()) }, |_| async { Ok(()) })
        .await;
    refused.unwrap();
    assert_eq!(
        told(&telemetry),
        lines(&[
            ("DEBUG", "retry", "transient"),
            ("DEBUG", "time limit", "attempt"),
            ("WARN", "retry budget spent", "0"),
            ("WARN", "breaker changed", "open"),
            ("DEBUG", "refused", "breaker"),
            ("DEBUG", "fallback", "rejected"),
        ])
    );
    policy.breaker().unwrap().release();
    assert_eq!(
        told(&telemetry).last().unwrap(),
        &lines(&[("INFO", "breaker changed", "closed")])[0]
    );
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_is_told_once_in_ten_seconds_with_what_was_left_out() {
    let telemetry = Telemetry::test();
    let policy = Pipeline::builder("backend")
        .retry(Retry::default().max(1).budget(Budget::new(0.0, 0.1)))
        .listener(telemetry.policy_events())
        .build()
        .unwrap();
    let fails = || async { assert!(policy.call(|_| async { Err::<(), _>(()) }).await.is_err()) };
    for _ in 0..6 {
        fails().await;
    }
    tokio::time::advance(Duration::from_secs(9)).await;
    fails().await;
    let spent = |untold: &str| ("WARN".to_owned(), "retry budget spent".to_owned(), untold.to_owned());
    let warnings = || {
        let all = told(&telemetry);
        all.into_iter().filter(|line| line.0 == "WARN").collect::<Vec<_>>()
    };
    assert_eq!(warnings(), [spent("0")]);
    tokio::time::advance(Duration::from_secs(2)).await;
    // One retry is in the budget again, and no more.
    fails().await;
    fails().await;
    assert_eq!(warnings(), [spent("0"), spent("5")]);
}

#[tokio::test(start_paused = true)]
async fn a_calls_span_has_its_events_whatever_the_filter_says() {
    let telemetry = Telemetry::test();
    let policy = backend(&telemetry);
    for filter in ["trace", "info"] {
        telemetry.log_level().set(filter, Duration::from_secs(60)).unwrap();
        let call = policy.call(|attempt| async move { if attempt.number() == 1 { Err("down") } else { Ok(()) } });
        call.instrument(tracing::info_span!("charge")).await.unwrap();
        let spans = telemetry.spans();
        assert_eq!(spans.last().unwrap().events, ["retry"], "{filter}");
    }
    assert_eq!(told(&telemetry).len(), 1, "the second has no line");
}
